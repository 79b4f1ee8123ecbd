"""Shows the progress of a job in this process: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

from transforms.records import reasons
from transforms.runtime.counters import counted_here

_INVALID = "images.invalid."

_SECONDS_BETWEEN_LOOKS = 0.25
_SECONDS_BETWEEN_LINES = 10.0


def done(counts: Counter[str]) -> int:
    """Returns the images that have passed the model, or were found invalid before.

    A batch judges images with an incident after all have passed the model, which takes nearly all
    of its time.
    """
    after_the_model = f"{_INVALID}{reasons.DUPLICATE}"
    return counts["images.detected"] + sum(
        number
        for name, number in counts.items()
        if name.startswith(_INVALID) and name != after_the_model
    )


def _threats(counts: Counter[str]) -> str:
    return f"{counts['images.with_threat']} with a threat" if counts["images.valid"] else ""


class Progress:
    """Shows images done of images found, images a second, and threats, while its block runs.

    Threats are shown once images are judged.

    Args:
      out: A terminal gets a bar, anything else a line every ten seconds.
      counted: What was counted so far; by default in this process.
    """

    def __init__(self, out: TextIO, counted: Callable[[], Counter[str]] = counted_here) -> None:
        self._out = out
        self._counted = counted
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._show, name="progress", daemon=True)
        self._before = counted()

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _show(self) -> None:
        if self._out.isatty():
            self._show_bar()
        else:
            self._print_lines()

    def _counts(self) -> Counter[str]:
        counts = self._counted()
        counts.subtract(self._before)
        return counts

    def _show_bar(self) -> None:
        with tqdm(unit=" images", file=self._out, dynamic_ncols=True, desc="looking") as bar:
            ended = False
            while not ended:
                ended = self._ended.wait(_SECONDS_BETWEEN_LOOKS)
                counts = self._counts()
                bar.total = counts["images.found"] or None
                bar.set_postfix_str(_threats(counts), refresh=False)
                bar.update(done(counts) - bar.n)
                bar.refresh()

    def _print_lines(self) -> None:
        started = time.monotonic()
        while not self._ended.wait(_SECONDS_BETWEEN_LINES):
            counts = self._counts()
            rate = done(counts) / (time.monotonic() - started)
            line = f"{done(counts)} of {counts['images.found']} images done, {rate:.1f} images/s"
            print(*filter(None, (line, _threats(counts))), sep=", ", file=self._out, flush=True)
