"""Work on many elements of a bundle at once, in threads, within bounds of memory.

Beam calls a DoFn with one element at a time. Reading and decoding a picture waits for a disk or
a network and then works outside Python's lock, so the pictures ahead can be made ready while the
model looks at the present ones. Bundles keep their meaning: all work of a bundle is done, and its
outputs given, before the bundle ends.
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
      threads: Elements worked on at once.
      max_waiting: Elements begun and not yet handed on.
      max_waiting_bytes: Bytes, by :meth:`weight`, of those; a single larger element still passes.
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
        """What is to be done for one element. Runs in a thread; must not touch Beam's metrics."""
        raise NotImplementedError

    def outputs(self, result: Any) -> Iterable[Any]:
        """Outputs, tagged or not, for what `work` gave. Runs in the bundle's own thread."""
        return ()

    def weight(self, element: Any) -> int:
        """Bytes that are held until the element's outputs are handed on, about."""
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
        future = self._pool.submit(self.work, element)
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
            yield self._at(output, timestamp, windows)

    def _abandon(self) -> None:
        """Ends the work of a bundle that has failed, before the runner tries the bundle again."""
        futures = [future for future, *_ in self._waiting]
        self._waiting.clear()
        for future in futures:
            future.cancel()
        wait(futures)

    @staticmethod
    def _at(output: Any, timestamp: Timestamp, windows: tuple[Any, ...]) -> Any:
        if isinstance(output, beam.pvalue.TaggedOutput):
            return beam.pvalue.TaggedOutput(
                output.tag, WindowedValue(output.value, timestamp, windows)
            )
        return WindowedValue(output, timestamp, windows)
