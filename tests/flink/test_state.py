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


class Watched:
    """A stream with the default options, whose state is measured.

    Args:
      job: The stream.
      folder: Where its `in` and `out` are.
    """

    def __init__(self, job: StreamJob, folder: Path) -> None:
        self._job, self._folder = job, folder
        self._fed = 0

    def bytes_after(self, images: int) -> int:
        """Feeds images; the size of a savepoint after all were judged."""
        feed(self._folder / "in", images, per_second=50)
        self._fed += images
        final = self._folder / "out" / "final"
        wait_for("all are judged", lambda: len(list(final.glob("*/*.json"))) == self._fed)
        time.sleep(5)  # Alerts are recorded within seconds; then their state ends.
        saved = self._job.savepoint(self._folder / f"savepoints-{self._fed}")
        return sum(file.stat().st_size for file in saved.iterdir())


def test_an_image_costs_less_than_a_hundred_bytes_of_state(
    stream: Callable[..., StreamJob], cluster: Any, tmp_path: Path
) -> None:
    """It was more than 1 KiB, for as long as its window takes images: 65 minutes.

    A savepoint has the content of a checkpoint, and not what RocksDB needs around it.
    """
    (tmp_path / "in").mkdir()
    job = stream(
        *("--input", tmp_path / "in", "--output", tmp_path / "out", "--model", "bundled"),
        *("--poll_interval_seconds", "1"),
    )
    watched = Watched(job, tmp_path)
    few, many = watched.bytes_after(50), watched.bytes_after(600)
    assert (many - few) / 600 < 100
    config = cluster.get(f"/jobs/{job.id}/checkpoints/config")
    assert "RocksDB" in config["state_backend"]
    checkpoint = job.checkpoints()["latest"]["completed"]
    assert checkpoint["checkpointed_size"] < checkpoint["state_size"], "it is not incremental"
