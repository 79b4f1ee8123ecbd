"""The processor time of this process, which other work on the machine changes less than time."""

from __future__ import annotations

import time


class ProcessorTime:
    """Counts from when it is made, over all threads."""

    def __init__(self) -> None:
        self._started = time.process_time()

    def ms_per(self, images: int) -> float:
        """Milliseconds for each of so many images."""
        return 1000 * (time.process_time() - self._started) / images
