"""Both sets of versions, that of Python 3.10 to 3.12 and that of 3.13, write the same bytes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.absent import give_up

ROOT = Path(__file__).parents[1]
NEWEST = "3.13"


def beam_of(python: Path) -> str:
    """The version of Beam that an environment has; "" where it has none."""
    asked = subprocess.run(
        [python, "-c", "from importlib import metadata; print(metadata.version('apache-beam'))"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return asked.stdout.strip()


def other_python() -> Path:
    """The interpreter of an environment with the other set, beside this one."""
    here = metadata.version("apache-beam")
    for python in sorted(ROOT.glob(".venv*/bin/python")):
        if beam_of(python) not in ("", here):
            return python
    reason = (
        "no environment with the other set of versions is here; make one: "
        f"make VENV=.venv-{NEWEST} PYTHON=python{NEWEST} lint"
    )
    pythons = [Path(f) / f"python{NEWEST}" for f in os.environ["PATH"].split(os.pathsep)]
    pythons += Path.home().glob(f".pyenv/versions/{NEWEST}*/bin/python{NEWEST}")
    if any(python.exists() and runs(python) for python in pythons):
        give_up(reason)
    pytest.skip(reason)


def runs(python: Path) -> bool:
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


def run_samples(python: Path, output: Path) -> tuple[dict[str, bytes], str]:
    """Every file that the job on the samples writes, and its summary without what took how long.

    Nothing is left at `output`, so that another run can write there: addresses stand in the files.
    """
    finished = subprocess.run(
        [python, "-m", "beam_pipeline", "--runner", "DirectRunner", "--output", output],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    others = [
        line
        for line in finished.stderr.splitlines()
        if not re.fullmatch(r"\d+ of \d+ images done, .*", line)
    ]
    assert others == []
    files = {
        str(path.relative_to(output)): path.read_bytes()
        for path in output.rglob("*")
        if path.is_file()
    }
    shutil.rmtree(output)
    summary = re.sub(r"^(speed|inference) .*\n", "", finished.stdout, flags=re.MULTILINE)
    return files, summary


@pytest.mark.timeout(1200)
def test_both_sets_of_versions_write_the_same_bytes(tmp_path: Path) -> None:
    python = other_python()
    here, summary = run_samples(Path(sys.executable), tmp_path / "output")
    there, other_summary = run_samples(python, tmp_path / "output")
    assert "report/report.html" in here
    assert here.keys() == there.keys()
    assert [name for name in here if here[name] != there[name]] == []
    assert summary == other_summary
