"""The batch job on Flink, by the commands of docs/flink.md, writes the bytes of DirectRunner."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests import documented
from tests.beam_pipeline.conftest import tree
from tests.documented import BATCH, Command


def flink_places(command: Command, cluster: Any) -> dict[str, str]:
    """Where the session's cluster and its job server are, in place of what a command says."""
    replacements = {
        "make -s flink-args": f"make -s flink-args ARGS='--run_dir {cluster.run_dir}'",
        "~/.cache/beam_pipeline/flink/job-server/*.jar": cluster.job_server_jar,
    }
    return {written: here for written, here in replacements.items() if written in command.text}


@pytest.mark.parametrize("command", documented.run_by(BATCH), ids=["cluster", "local"])
def test_the_samples_give_the_same_bytes_as_on_directrunner(
    command: Command, cluster: Any, samples_run: tuple[Path, str], tmp_path: Path
) -> None:
    """On a cluster, and on the Flink within the job server."""
    documented.make_checkout(tmp_path)
    replacements = flink_places(command, cluster)
    assert len(replacements) == 1
    done = documented.shell(
        documented.substituted(command.text, replacements), tmp_path, dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    output = tmp_path / "output"
    # An alert's record holds the address of the verdict, which is another one here.
    assert tree(output, without=["alerts", "chart"]) == tree(
        samples_run[0], without=["alerts", "chart"]
    )
    assert (output / "chart" / "threats.png").exists()
    summary = [line for line in done.stdout.splitlines() if line.startswith(("valid", "invalid"))]
    wanted = [line for line in samples_run[1].splitlines() if line.startswith(("valid", "inv"))]
    assert summary == wanted
    # Beside how far it is, which a run of more than ten seconds says.
    assert [line for line in done.stderr.splitlines() if " images done, " not in line] == []
