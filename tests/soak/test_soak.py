"""A short soak: a real stream that is fed and disturbed, and whose output is recounted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(1500)
def test_nothing_is_lost_in_five_minutes_of_disturbances(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "soak", "--minutes", "5", "--seed", "1"]
    done = subprocess.run(
        [*command, "--folder", str(tmp_path / "soak")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.rstrip().endswith("nothing differs")
