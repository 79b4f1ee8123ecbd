"""Shows the progress of a job in this process: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

from transforms.runtime.counters import counted_here

_SECONDS_BETWEEN_LOOKS = 0.25
_SECONDS_BETWEEN_LINES = 10.0


def done(counts: Counter[str]) -> int:
    """Returns images that are judged, stored as invalid, or known to repeat another one."""
    return sum(
        number
        for name, number in counts.items()
        if name in ("images.valid", "images.repeated") or name.startswith("images.invalid.")
    )


class Progress:
    """Shows images done of images found, images a second, and threats, while its block runs.

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
                bar.set_postfix_str(f"{counts['images.with_threat']} with a threat", refresh=False)
                bar.update(done(counts) - bar.n)
                bar.refresh()

    def _print_lines(self) -> None:
        started = time.monotonic()
        while not self._ended.wait(_SECONDS_BETWEEN_LINES):
            counts = self._counts()
            rate = done(counts) / (time.monotonic() - started)
            print(
                f"{done(counts)} of {counts['images.found']} images done, {rate:.1f} images/s, "
                f"{counts['images.with_threat']} with a threat",
                file=self._out,
                flush=True,
            )
