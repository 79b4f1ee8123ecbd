"""Notices when a local output is removed, moved away or unmounted while a job writes to it.

A step that stores a result makes the folders that it needs, so without this a job would go on in
a new folder, and end well with a part of its results.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress

from transforms.storage import stores

_SECONDS_BETWEEN_LOOKS = 0.25
_MAX_HELD_FOLDERS = 64
"""So many folders are enough to notice that a tree is being removed while others are made again."""


class OutputLostError(OSError):
    """What the job has written is not where it was."""


class OutputWatch:
    """Holds the folders of an output open, and compares them with what is at their paths.

    A folder that is held open keeps its number, so that it differs from a new one of the same name.

    Args:
      output: The job's output; one in a store is not watched.
      lost: Called once, in a thread, with what was lost, if that is noticed during the block.
    """

    def __init__(self, output: str, lost: Callable[[OutputLostError], object]) -> None:
        self._output = output if stores.is_local(output) else None
        self._lost = lost
        self._held: dict[str, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="output", daemon=True)

    def __enter__(self) -> OutputWatch:
        if self._output is not None:
            self._held[self._output] = os.open(self._output, os.O_RDONLY | os.O_DIRECTORY)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._output is not None:
            self._ended.set()
            self._thread.join()
        while self._held:
            os.close(self._held.popitem()[1])

    def check(self) -> None:
        """Checks whether all is still there.

        Raises:
          OutputLostError: It is not.
        """
        if self._output is None:
            return
        for folder, held in list(self._held.items()):
            try:
                same = os.path.samestat(os.stat(folder), os.fstat(held))
            except OSError:
                same = False
            if not same:
                raise OutputLostError(
                    f"{folder} was removed, moved away or unmounted while the job wrote to it, and "
                    "what was in it is missing"
                )
        for folder in os.listdir(self._output):
            path = os.path.join(self._output, folder)
            self._hold(path)
            if path in self._held:
                for below in os.listdir(path)[: max(_MAX_HELD_FOLDERS - len(self._held), 0)]:
                    self._hold(os.path.join(path, below))

    def _hold(self, path: str) -> None:
        if path not in self._held:
            with suppress(OSError):  # A file, or a folder that has gone: no result of ours.
                self._held[path] = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def _watch(self) -> None:
        while not self._ended.wait(_SECONDS_BETWEEN_LOOKS):
            try:
                self.check()
            except OSError as error:
                self._lost(OutputLostError(str(error)))
                return
