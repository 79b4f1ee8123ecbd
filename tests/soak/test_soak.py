"""Five minutes of `make soak`: a stream on a real Flink that is fed, disturbed and recounted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.absent import give_up
from tests.flink.stream_job import flink_cluster


@pytest.mark.timeout(1500)
def test_a_stream_that_is_fed_and_disturbed_for_five_minutes_differs_in_nothing(
    tmp_path: Path,
) -> None:
    try:
        flink_cluster.fetch()
    except flink_cluster.ClusterError as error:
        give_up(f"no Flink here: {error}")
    folder = str(tmp_path / "soak")
    done = subprocess.run(
        [sys.executable, "-m", "soak", "--minutes", "5", "--seed", "1", "--folder", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
