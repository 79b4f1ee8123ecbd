"""Work on many elements of a bundle at once, in threads, within bounds of memory.

Beam calls a DoFn with one element at a time. Reading an image waits for a disk or a network, and
decoding it runs outside Python's global lock. So threads can prepare the next images while the
model processes the current ones. Bundles keep their meaning: all work of a bundle is done, and its
outputs are emitted, before the bundle ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue


class ReadAheadDoFn(beam.DoFn):
    """A DoFn whose :meth:`work` runs in threads, a bounded number of elements ahead.

    Args:
      threads: Elements that are worked on at once.
      max_waiting: Elements that were begun and whose outputs were not emitted yet.
      max_waiting_bytes: Their bytes, by :meth:`weight`. A single larger element still passes.
    """

    def __init__(
        self, *, threads: int, max_waiting: int, max_waiting_bytes: int = 256 << 20
    ) -> None:
        if threads < 1 or max_waiting < 1:
            raise ValueError(f"{threads} threads and {max_waiting} waiting: at least 1 of each")
        self._threads = threads
        self._max_waiting = max_waiting
        self._max_waiting_bytes = max_waiting_bytes

    def work(self, element: Any) -> Any:
        """Does the work for one element. Runs in a thread; must not touch Beam's metrics."""
        raise NotImplementedError

    def submit(self, element: Any) -> Future[Any]:
        """Starts the work for one element in a thread."""
        return self._pool.submit(self.work, element)

    def outputs(self, result: Any) -> Iterable[Any]:
        """Returns the outputs, tagged or not, of a result. Runs in the bundle's thread."""
        return ()

    def weight(self, element: Any) -> int:
        """Estimates the bytes that are held until the element's outputs are emitted."""
        return 0

    def setup(self) -> None:
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix=type(self).__name__)

    def teardown(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def start_bundle(self) -> None:
        self._waiting: deque[tuple[Future[Any], int, Timestamp, tuple[Any, ...]]] = deque()
        self._waiting_bytes = 0

    def process(
        self,
        element: Any,
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
    ) -> Iterator[Any]:
        weight = self.weight(element)
        while self._waiting and (
            len(self._waiting) >= self._max_waiting
            or self._waiting_bytes + weight > self._max_waiting_bytes
        ):
            yield from self._next()
        future = self.submit(element)
        self._waiting.append((future, weight, timestamp, (window or GlobalWindow(),)))
        self._waiting_bytes += weight

    def finish_bundle(self) -> Iterator[Any]:
        while self._waiting:
            yield from self._next()

    def _next(self) -> Iterator[Any]:
        future, weight, timestamp, windows = self._waiting.popleft()
        self._waiting_bytes -= weight
        try:
            result = future.result()
        except BaseException:
            self._abandon()
            raise
        for output in self.outputs(result):
            yield self._windowed(output, timestamp, windows)

    def _abandon(self) -> None:
        """Ends the work of a failed bundle, before the runner tries the bundle again."""
        futures = [future for future, *_ in self._waiting]
        self._waiting.clear()
        for future in futures:
            future.cancel()
        wait(futures)

    @staticmethod
    def _windowed(output: Any, timestamp: Timestamp, windows: tuple[Any, ...]) -> Any:
        if isinstance(output, beam.pvalue.TaggedOutput):
            return beam.pvalue.TaggedOutput(
                output.tag, WindowedValue(output.value, timestamp, windows)
            )
        return WindowedValue(output, timestamp, windows)
