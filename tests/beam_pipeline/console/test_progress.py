"""How far the job is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios
from collections import Counter
from pathlib import Path

import pytest

from beam_pipeline import bundled
from beam_pipeline.console import progress
from transforms.runtime.counters import count


def test_done_are_the_judged_the_invalid_and_the_repeated() -> None:
    counts = Counter(
        {
            "images.found": 10,
            "images.valid": 4,
            "images.invalid.not_jpeg": 2,
            "images.invalid.bad_name": 1,
            "images.repeated": 1,
            "images.with_threat": 3,
        }
    )
    assert progress.done(counts) == 8


def test_lines_tell_of_this_job_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.05)
    count("images.found", 100)
    out = io.StringIO()
    with progress.Progress(out) as shown:
        count("images.found", 3)
        count("images.valid", 2)
        count("images.with_threat")
        shown._ended.wait(0.4)
    lines = out.getvalue().splitlines()
    assert lines
    assert lines[-1].startswith("2 of 3 images done, ")
    assert lines[-1].endswith(" images/s, 1 with a threat")
    assert "\r" not in out.getvalue()


def test_a_terminal_gets_a_bar(tmp_path: Path) -> None:
    """A real pseudo-terminal, as a person has it."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # Rows, columns.
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "beam_pipeline", "--output", str(tmp_path / "out")),
            *("--input", str(bundled.BUNDLED_SAMPLES / "hall"), "--model", "bundled"),
        ],
        stdout=subprocess.PIPE,
        stderr=slave,
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:  # The other end is closed.
            break
        if not part:
            break
        shown += part
    assert process.stdout is not None
    summary = process.stdout.read().decode()
    assert process.wait(timeout=200) == 0
    os.close(master)
    images = len(list((bundled.BUNDLED_SAMPLES / "hall").rglob("*.jpg")))
    assert f"{images}/{images}".encode() in shown
    assert b"with a threat" in shown
    assert summary.startswith("found")
