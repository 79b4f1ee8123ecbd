"""The processor time of this process, which other work on the machine changes less than time."""

from __future__ import annotations

import os
import time
from pathlib import Path


class ProcessorTime:
    """Counts from when it is made, over all threads.

    Args:
      with_children: Whether children that run all the time count too (Linux).
    """

    def __init__(self, *, with_children: bool = False) -> None:
        self._with_children = with_children
        self._started = self._now()

    def ms_per(self, images: int) -> float:
        """Milliseconds for each of so many images."""
        return 1000 * (self._now() - self._started) / images

    def _now(self) -> float:
        return time.process_time() + (_seconds_of_children() if self._with_children else 0)


def _seconds_of_children() -> float:
    ticks = 0
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            # The second field is a name in parentheses, which may hold spaces.
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
