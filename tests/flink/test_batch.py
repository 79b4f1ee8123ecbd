"""The batch job on Flink writes what it writes on DirectRunner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.beam_pipeline.conftest import tree
from tests.conftest import Run


@pytest.mark.parametrize("where", ["cluster", "local"])
def test_the_samples_give_the_same_bytes_as_on_directrunner(
    where: str, cluster: Any, run_job: Run, samples_run: tuple[Path, str], tmp_path: Path
) -> None:
    """On a cluster, and on the Flink within the job server."""
    output = tmp_path / "output"
    options = cluster.pipeline_options()
    if where == "local":
        jar = ("--flink_job_server_jar", cluster.job_server_jar)
        options = ["--runner", "FlinkRunner", "--flink_master", "[local]", *jar]
    done = run_job(*options, "--output", output)
    assert done.returncode == 0, done.stderr
    # An alert's record holds the address of the verdict, which is another one here.
    assert tree(output, without=["alerts", "chart"]) == tree(
        samples_run[0], without=["alerts", "chart"]
    )
    assert (output / "chart" / "threats.png").exists()
    told = [line for line in done.stdout.splitlines() if line.startswith(("valid", "invalid"))]
    wanted = [line for line in samples_run[1].splitlines() if line.startswith(("valid", "inv"))]
    assert told == wanted
    assert done.stderr == ""
