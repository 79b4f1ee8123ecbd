"""An input that is divided into parts, on a real cluster of two slots."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beam_pipeline.bundled import BUNDLED_SAMPLES
from beam_pipeline.sources.parts import parts_of
from tests.flink.stream_job import StreamJob, wait_for

CAMERAS = [f"camera-{number}" for number in range(8)]


class Scene:
    """Folders of cameras, and the streams that watch them.

    Args:
      folder: Where all of it is.
      submit: Submits a stream.
    """

    def __init__(self, folder: Path, submit: Callable[..., StreamJob]) -> None:
        self._input, self._output = folder / "in", folder / "out"
        self._submit = submit
        self._images = 0

    def put_images(self) -> None:
        """Puts an image of each camera into its folder."""
        sample = min((BUNDLED_SAMPLES / "hall").glob("*.jpg")).read_bytes()
        for camera in CAMERAS:
            folder = self._input / camera
            folder.mkdir(parents=True, exist_ok=True)
            time = f"20260131T{self._images // len(CAMERAS):02}0000Z"
            (folder / f"{camera}_{time}.jpg").write_bytes(sample)
        self._images += len(CAMERAS)

    def start(self, parts: int, *arguments: str | os.PathLike[str]) -> StreamJob:
        return self._submit(
            *("--input", self._input, "--output", self._output, "--model", "bundled"),
            *("--poll_interval_seconds", "1", "--input_parts", str(parts), *arguments),
        )

    def wait(self) -> None:
        """Waits until each image has its verdict."""
        final = self._output / "final"
        wait_for("all are judged", lambda: len(list(final.glob("*/*.json"))) == self._images)


def of_source(records: dict[str, list[int]]) -> list[int]:
    """Returns the figures of the stage that lists."""
    ((_, found),) = [entry for entry in records.items() if "ParseFilename" in entry[0]]
    return found


def test_each_slot_lists_its_part_and_a_savepoint_keeps_the_parts(
    stream: Callable[..., StreamJob], cluster: Any, tmp_path: Path
) -> None:
    scene = Scene(tmp_path, stream)
    scene.put_images()
    job = scene.start(2)
    scene.wait()
    scene.put_images()
    scene.wait()
    each = 2 * len([camera for camera in CAMERAS if parts_of(2)[0].has(camera)])
    assert each == len(CAMERAS)
    # Flink's REST shows records with a delay.
    wait_for("both slots have emitted", lambda: min(of_source(job.emitted())) >= each)
    assert of_source(job.received()) == [1, 1]
    savepoint = job.stop_with_savepoint(tmp_path / "savepoints")
    scene.put_images()

    resumed = scene.start(5, "--savepoint_path", savepoint)
    scene.wait()
    wait_for("both slots have emitted", lambda: min(of_source(resumed.emitted())) > 0)
    assert of_source(resumed.received()) == [0, 0], "parts came anew"
    logs = cluster.path("log", "worker-1-1.log").read_text(errors="replace")
    told = "--input_parts 5 has no effect: this stream has begun with 2, and goes on so"
    assert logs.count(told) >= 1
    savepoint = resumed.stop_with_savepoint(tmp_path / "savepoints")

    with pytest.raises(AssertionError, match=r"savepoint-.* is of a job with other steps; start"):
        scene.start(1, "--savepoint_path", savepoint)
