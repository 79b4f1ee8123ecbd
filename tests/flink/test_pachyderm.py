"""Pachyderm's pipeline on Flink: its workers read the pictures through a gateway like Pachyderm's."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from beam_pipeline.counts import read_counts, sum_total
from beam_pipeline.job import BUNDLED_RULES, BUNDLED_SAMPLES
from tests.beam_pipeline.conftest import tree
from tests.deploy.pachyderm import read_spec, run_datum
from tests.stores.first_version_s3 import FirstVersionS3


def test_the_datum_submits_a_job_that_reads_through_the_gateway(
    cluster: Any, samples_run: tuple[Path, str], tmp_path: Path
) -> None:
    pfs, results = tmp_path / "pfs", tmp_path / "results"
    for made in (pfs / "rules", pfs / "out", results):
        made.mkdir(parents=True)
    shutil.copy(BUNDLED_RULES, pfs / "rules" / "rules.yaml")
    with FirstVersionS3() as gateway:
        gateway.page = 10
        gateway.objects["pictures"] = tree(BUNDLED_SAMPLES, without=["broken", "hall"])
        done = run_datum(
            read_spec("judge-on-flink"),
            pfs,
            S3_ENDPOINT=gateway.url,
            PACH_JOB_ID="0123456789abcdef",
            FLINK=" ".join(cluster.pipeline_options()),
            RESULTS=str(results),
            MODEL="bundled",
        )
        pictures = len(gateway.objects["pictures"])
    assert done.returncode == 0, done.stderr
    assert sum("marker" in query for query in gateway.listed) >= pictures // 10
    assert os.listdir(results) == []
    out = pfs / "out" / "all"
    (total,) = sum_total(read_counts(str(out)))
    assert total.images == pictures
    wanted = tree(samples_run[0] / "counts", without=[])
    assert wanted.keys() == tree(out / "counts", without=[]).keys()
    cameras = {path.name for path in (out / "final").iterdir()}
    assert cameras == {path.name for path in (samples_run[0] / "final").iterdir()} - {"hall"}
    assert (out / "chart" / "threats.png").exists()
