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

from beam_pipeline import bundled, cli
from beam_pipeline.console import progress
from transforms import detect_objects
from transforms.runtime.counters import count, counted_here


def test_done_are_those_that_passed_the_model_and_the_invalid() -> None:
    counts = Counter(
        {
            "images.found": 10,
            "images.detected": 5,
            "images.valid": 3,
            "images.invalid.not_jpeg": 2,
            "images.invalid.bad_name": 1,
            "images.invalid.duplicate": 1,
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
        count("images.detected", 2)
        shown._ended.wait(0.4)
        before = out.getvalue().splitlines()
        count("images.valid", 2)
        count("images.with_threat")
        shown._ended.wait(0.4)
    lines = out.getvalue().splitlines()
    assert before[-1].startswith("2 of 3 images done, ")
    assert before[-1].endswith(" images/s")
    assert lines[-1].startswith("2 of 3 images done, ")
    assert lines[-1].endswith(" images/s, 1 with a threat")
    assert "\r" not in out.getvalue()


def test_the_progress_of_a_batch_follows_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images with an incident are judged later; the progress must not wait for that."""
    shown: list[tuple[int, int]] = []
    before = counted_here()

    def counting(name: str, amount: int = 1) -> None:
        count(name, amount)
        if name == "images.detected":
            counts = counted_here()
            counts.subtract(before)
            shown.append((progress.done(counts), counts["images.valid"]))

    monkeypatch.setattr(detect_objects, "count", counting)
    hall = bundled.BUNDLED_SAMPLES / "hall"
    arguments = ["--input", str(hall), "--output", str(tmp_path / "out"), "--model", "bundled"]
    assert cli.main(arguments) == 0
    images = len(list(hall.rglob("*.jpg")))
    assert shown == [(number, 0) for number in range(1, images + 1)]


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
