"""A command that is run by a copy of a process does what it does in a new one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import warm
from tests.beam_pipeline.web.serving import write_small_output

RULES = "version: 1\nprofile: ${MISSING}\n"


@pytest.mark.parametrize(
    "arguments", [["--version"], ["nonsense"], ["rules", "check", "rules.yaml"], ["counts", "-h"]]
)
def test_it_says_and_returns_the_same_as_a_new_process(
    arguments: list[str], tmp_path: Path
) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    environment = {**os.environ, "PYTHONPATH": str(warm.ROOT), "COLUMNS": "70"}
    new = subprocess.run(
        [sys.executable, "-m", "beam_pipeline", *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    copied = warm.run(arguments, tmp_path, environment, timeout=60)
    assert (copied.returncode, copied.stdout, copied.stderr) == (
        new.returncode,
        new.stdout,
        new.stderr,
    )
    through_a_shell = subprocess.run(
        [warm.interpreter(), "-m", "beam_pipeline", *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (through_a_shell.returncode, through_a_shell.stdout) == (new.returncode, new.stdout)


def test_a_command_that_takes_too_long_is_ended() -> None:
    with pytest.raises(TimeoutError):
        warm.run(["--version"], None, os.environ, timeout=0.0001)
    assert warm.run(["--version"], None, os.environ, timeout=60).returncode == 0


def test_a_signal_is_handed_on_to_the_command(tmp_path: Path) -> None:
    write_small_output(tmp_path / "out")
    words = ["serve", "--output", tmp_path / "out", "--port", "0", "--index", tmp_path / "index"]
    process = subprocess.Popen(
        [warm.interpreter(), "-m", "beam_pipeline", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("serving ")
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (143, "serve: stopped\n")
