"""Kills and breaks what a stream depends on, one thing after another, at random by a seed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from soak.services import AlertService

Act = Callable[["random.Random"], None]
"""Something that is done to the stream, and undone; takes what its seed gives."""


class Saboteur(threading.Thread):
    """Does each act once in random order, and begins again, until it is stopped.

    Args:
      acts: What there is to do, by name.
      log: A JSON object a line for the beginning and the end of each.
      seed: The order follows from it.
      pause_seconds: Between two acts, from the least to the most.
      recovered: Waits until the stream goes on after an act.
    """

    def __init__(
        self,
        acts: Mapping[str, Act],
        log: Path,
        *,
        seed: int,
        pause_seconds: tuple[float, float],
        recovered: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(daemon=True, name="saboteur")
        self.ended = threading.Event()
        self.done: list[dict[str, Any]] = []
        self.error: BaseException | None = None
        self._acts, self._log = acts, log
        self._random = random.Random(seed)
        self._pause_seconds = pause_seconds
        self._recovered = recovered

    def run(self) -> None:
        try:
            for name in self._order():
                if self.ended.wait(self._random.uniform(*self._pause_seconds)):
                    return
                begun = time.time()
                self._acts[name](self._random)
                self._recovered()
                self._note(act=name, begun=round(begun, 1), ended=round(time.time(), 1))
        except BaseException as error:
            self.error = error
            raise

    def _order(self) -> Iterator[str]:
        while True:
            names = list(self._acts)
            self._random.shuffle(names)
            yield from names

    def _note(self, **entry: Any) -> None:
        self.done.append(entry)
        with self._log.open("a") as log:
            log.write(json.dumps(entry) + "\n")


# ---------------------------------------------------------------------------- acts


def kill_one(pids: Callable[[], Sequence[int]]) -> Act:
    """Kills one of some processes, as the system does that runs out of memory."""

    def act(chance: random.Random) -> None:
        running = sorted(pids())
        if running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(running), signal.SIGKILL)

    return act


def service_down(services: Sequence[AlertService]) -> Act:
    """One alert service refuses connections, or all do."""

    def act(chance: random.Random) -> None:
        with contextlib.ExitStack() as stack:
            for service in chance.sample(services, chance.randint(1, len(services))):
                stack.enter_context(service.down())
            time.sleep(chance.uniform(8, 20))

    return act


def service_answers(services: Sequence[AlertService], mode: str) -> Act:
    """Returns all alert services answer with an error."""

    def act(chance: random.Random) -> None:
        with contextlib.ExitStack() as stack:
            for service in services:
                stack.enter_context(service.answering(mode))
            time.sleep(chance.uniform(10, 20))

    return act


def fill_disk(folder: Path, seconds: float = 20.0) -> Act:
    """Returns a disk has no room left for some seconds."""

    def act(chance: random.Random) -> None:
        filler = folder / "filler"
        try:
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(1 << 20))
            with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
                while True:  # The last pages.
                    file.write(bytes(512))
            time.sleep(seconds)
        finally:
            filler.unlink(missing_ok=True)

    return act


def move_away(folder: Path, lock: threading.Lock) -> Act:
    """Returns a folder is away for a while, as a mount that is lost, or can't be listed."""

    def act(chance: random.Random) -> None:
        away = folder.with_name(f"{folder.name}.away")
        loops = chance.random() < 0.5
        with lock:  # Nobody feeds meanwhile.
            folder.rename(away)
            try:
                if loops:
                    folder.symlink_to(folder.name)  # ELOOP, which is no "not found".
                time.sleep(chance.uniform(3, 8))
            finally:
                if loops:
                    folder.unlink()
                away.rename(folder)

    return act


@contextlib.contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[bool]:
    """Mounts a disk in memory on a folder, where that is allowed; whether it was.

    Args:
      folder: Must be there; what is in it is hidden meanwhile.
      mebibytes: How much fits.
    """
    options = ["-t", "tmpfs", "-o", f"size={mebibytes}m", "soak", str(folder)]
    mounted = subprocess.run(["mount", *options], capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)
