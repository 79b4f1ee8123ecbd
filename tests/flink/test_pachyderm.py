"""Pachyderm's pipeline on Flink, whose workers read pictures through a gateway like Pachyderm's."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from beam_pipeline.bundled import BUNDLED_RULES, BUNDLED_SAMPLES
from tests.beam_pipeline.conftest import tree
from tests.deploy.pachyderm import read_spec, run_datum
from tests.stores.first_version_s3 import FirstVersionS3

CAMERAS = ("hall", "car-park")


def verdicts(output: Path) -> dict[str, Any]:
    """What was found in each picture of some cameras, but for the picture's address."""
    found = {
        f"{camera}/{name}": json.loads(data)
        for camera in CAMERAS
        for name, data in tree(output / "final" / camera).items()
    }
    return {name: {**record, "uri": ""} for name, record in found.items()}


def test_the_datum_submits_a_job_that_reads_through_the_gateway(
    cluster: Any, samples_run: tuple[Path, str], tmp_path: Path
) -> None:
    pfs, results = tmp_path / "pfs", tmp_path / "results"
    for made in (pfs / "rules", pfs / "out", results):
        made.mkdir(parents=True)
    shutil.copy(BUNDLED_RULES, pfs / "rules" / "rules.yaml")
    with FirstVersionS3() as gateway:
        gateway.page = 10
        gateway.objects["pictures"] = {
            name: data
            for name, data in tree(BUNDLED_SAMPLES).items()
            if name.startswith((*CAMERAS, "broken"))
        }
        pages = -(-len(gateway.objects["pictures"]) // gateway.page)
        done = run_datum(
            read_spec("judge-on-flink"),
            pfs,
            S3_ENDPOINT=gateway.url,
            PACH_JOB_ID="0123456789abcdef",
            FLINK=" ".join(cluster.pipeline_options()),
            RESULTS=str(results),
            MODEL="bundled",
        )
    assert done.returncode == 0, done.stderr
    assert len({query["marker"] for query in gateway.listed if "marker" in query}) == pages - 1 > 5
    assert os.listdir(results) == []
    out = pfs / "out" / "all"
    assert verdicts(out) == verdicts(samples_run[0])
    assert len(verdicts(out)) > 50
    assert tree(out / "counts").keys() == tree(samples_run[0] / "counts").keys()
    assert (out / "chart" / "threats.png").exists()
