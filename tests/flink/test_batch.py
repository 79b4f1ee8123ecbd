"""The batch job on Flink writes what it writes on DirectRunner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.beam_pipeline.conftest import Run, tree


def test_the_samples_give_the_same_bytes_as_on_directrunner(
    cluster: Any, run_job: Run, samples_run: tuple[Path, str], tmp_path: Path
) -> None:
    output = tmp_path / "output"
    done = run_job(*cluster.pipeline_options(), "--runner", "FlinkRunner", "--output", output)
    assert done.returncode == 0, done.stderr
    # An alert's record holds the address of the verdict, which is another one here.
    assert tree(output, without=["alerts", "chart"]) == tree(
        samples_run[0], without=["alerts", "chart"]
    )
    assert (output / "chart" / "threats.png").exists()
    told = [line for line in done.stdout.splitlines() if line.startswith(("found", "valid", "inv"))]
    wanted = [line for line in samples_run[1].splitlines() if line.startswith(("valid", "inv"))]
    assert told[1:] == wanted
