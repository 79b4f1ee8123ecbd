"""The state of a stream on a real cluster, with the default options."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from beam_pipeline.bundled import BUNDLED_SAMPLES
from tests.flink.stream_job import StreamJob, wait_for


def feed(folder: Path, images: int, per_second: float) -> None:
    """Moves images of eight cameras in, with a threat in most of them."""
    samples = sorted((BUNDLED_SAMPLES / "hall").glob("*.jpg"))
    begun = time.monotonic()
    for number in range(images):
        time.sleep(max(0.0, begun + number / per_second - time.monotonic()))
        partial = folder / ".image.part"
        partial.write_bytes(samples[number % len(samples)].read_bytes())
        os.replace(partial, folder / f"camera-{number % 8}_{time.time_ns() // 1_000_000}.jpg")


def size_of_checkpoint(job: StreamJob, judged: int) -> int:
    """The bytes of a checkpoint that was begun after so many images were judged."""
    wait_for("all are judged", lambda: job.counter("images.valid") >= judged)
    begun = job.checkpoints()["counts"]["completed"]

    def latest() -> Any:
        checkpoints = job.checkpoints()
        is_newer = checkpoints["counts"]["completed"] >= begun + 2
        return checkpoints["latest"]["completed"] if is_newer else None

    return int(wait_for("a checkpoint", latest)["state_size"])


def test_an_image_costs_less_than_a_hundred_bytes_of_state(
    stream: Callable[..., StreamJob], tmp_path: Path
) -> None:
    """It was 1 KiB, for as long as its window takes images: 65 minutes."""
    (tmp_path / "in").mkdir()
    job = stream(
        *("--input", tmp_path / "in", "--output", tmp_path / "out", "--model", "bundled"),
        *("--poll_interval_seconds", "1"),
    )
    feed(tmp_path / "in", 200, per_second=40)
    few = size_of_checkpoint(job, 200)
    feed(tmp_path / "in", 600, per_second=40)
    many = size_of_checkpoint(job, 800)
    assert (many - few) / 600 < 100
