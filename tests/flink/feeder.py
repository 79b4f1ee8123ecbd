"""Writes pictures into a directory as cameras do: some late, broken, twice, or slowly.

One camera falls silent, and the clock of one is hours ahead.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from beam_pipeline.bundled import BUNDLED_SAMPLES

CAMERAS = ("front-door", "garden", "hall", "office", "street", "warehouse")
SILENT = "office"
"""Sends nothing more after the first few pictures of a feeder."""
AHEAD = "warehouse"
"""Its clock is five hours ahead: its windows do not end while a test runs."""
AHEAD_SECONDS = 5 * 3600


@dataclass
class Fed:
    """What was written.

    Attributes:
      on_time: Names of valid pictures that belong in the counts.
      too_late: Names of valid pictures that no window takes any more.
      invalid: Names of files that are no valid pictures.
      repeated: How many were written once more with the same bytes.
    """

    on_time: list[str] = field(default_factory=list)
    too_late: list[str] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)
    repeated: int = 0


class Feeder(threading.Thread):
    """Writes pictures in a thread.

    Args:
      folder: Where to; must be there.
      pictures: How many.
      seconds: In what time.
      beginning: Number of the first, so that two feeders' pictures differ.
    """

    def __init__(self, folder: Path, *, pictures: int, seconds: float, beginning: int = 0) -> None:
        super().__init__(daemon=True)
        self.fed = Fed()
        self._folder = folder
        self._numbers = range(beginning, beginning + pictures)
        self._pause = seconds / pictures
        self._samples: dict[str, Sequence[Path]] = {
            camera: sorted((BUNDLED_SAMPLES / camera).glob("*.jpg")) for camera in CAMERAS
        }
        self._slow: list[threading.Thread] = []

    def run(self) -> None:
        started = time.monotonic()
        for at, number in enumerate(self._numbers):
            time.sleep(max(0.0, started + at * self._pause - time.monotonic()))
            self._feed(number, is_early=at < 12)
        for thread in self._slow:
            thread.join()

    def _feed(self, number: int, is_early: bool) -> None:
        camera = CAMERAS[number % len(CAMERAS)]
        if camera == SILENT and not is_early:
            camera = CAMERAS[(number + 1) % len(CAMERAS)]
        samples = self._samples[camera]
        data = samples[number // len(CAMERAS) % len(samples)].read_bytes()
        age = 2 * 3600 + 600 if number % 37 == 5 else 600 if number % 10 == 3 else 0
        if camera == AHEAD:
            age = -AHEAD_SECONDS
        milliseconds = (int(time.time()) - age) * 1000 + number % 1000
        name = f"{camera}_{milliseconds}.jpg"
        if number % 15 == 7:
            self.fed.invalid.append(name)
            self._move_in(name, data[: len(data) // 2])
            return
        (self.fed.too_late if age > 3600 else self.fed.on_time).append(name)
        if number % 4 == 1:
            self._write_slowly(name, data)
        else:
            self._move_in(name, data)
        if number % 20 == 9:
            self.fed.repeated += 1
            self._move_in(f"copies/{name}", data)

    def _move_in(self, name: str, data: bytes) -> None:
        target = self._folder / name
        target.parent.mkdir(exist_ok=True)
        partial = target.with_name(f".{target.name}.part")
        partial.write_bytes(data)
        os.replace(partial, target)

    def _write_slowly(self, name: str, data: bytes) -> None:
        def write() -> None:
            with (self._folder / name).open("wb", buffering=0) as file:
                for start in range(0, len(data), 4096):
                    file.write(data[start : start + 4096])
                    time.sleep(0.1)

        thread = threading.Thread(target=write)
        thread.start()
        self._slow.append(thread)
