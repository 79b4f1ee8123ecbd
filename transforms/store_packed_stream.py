"""StorePackedStream: the verdicts of a stream as files of many images.

A stream decides on each file when it arrives, and may decide again on the same capture time. So the
decisions of a window and shard wait in state, and are written as one further file after some
seconds, after some images, and when the window takes no more images. Of several decisions on one
capture time, the one with the highest number is written.

:mod:`transforms.packed_row_writer` writes them.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.coders import VarIntCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import (
    BagStateSpec,
    ReadModifyWriteStateSpec,
    TimerSpec,
    on_timer,
)
from apache_beam.utils.timestamp import Duration, Timestamp

from transforms.count_threats import event_time, window_of
from transforms.packed_decisions import (
    DECISIONS,
    WRITTEN,
    Decision,
    Key,
    LateVersion,
    PackedWindows,
)
from transforms.packed_row_writer import RowWriter
from transforms.records.times import canonical_time

IMAGES_A_FILE = 2048
"""How many decisions of a window and shard wait at most."""
LONGEST_WAIT_SECONDS = 300
"""How long a decision waits at most; less if the window is shorter."""
_PERIOD_SECONDS = 900
_SLACK_SECONDS = 3600


class _Pack(beam.DoFn):
    """Writes the decisions of a window and shard together, and hands on what came too late.

    Args:
      output: The job's output.
      windows: Which window a capture time belongs to.
      allowed_lateness_seconds: How long a window takes images after its end.
      clock: Returns Unix seconds.
    """

    _WAITING = BagStateSpec("waiting", DECISIONS)
    _NUMBER = ReadModifyWriteStateSpec("number", VarIntCoder())
    _WRITTEN = BagStateSpec("written", WRITTEN)
    _NOTED = ReadModifyWriteStateSpec("noted", VarIntCoder())
    _WRITE = TimerSpec("write", TimeDomain.REAL_TIME)
    _CLOSE = TimerSpec("close", TimeDomain.WATERMARK)
    _FORGET = TimerSpec("forget", TimeDomain.WATERMARK)

    def __init__(
        self,
        output: str,
        windows: PackedWindows,
        allowed_lateness_seconds: int,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._output = output
        self._windows = windows
        self._lateness_seconds = allowed_lateness_seconds
        self._wait_seconds = min(windows.seconds, LONGEST_WAIT_SECONDS)
        self._clock = clock

    def setup(self) -> None:
        self._rows = RowWriter(self._output, self._windows)

    def start_bundle(self) -> None:
        self._after = uuid.uuid4().hex

    def process(
        self,
        element: tuple[str, Decision],
        waiting: Any = beam.DoFn.StateParam(_WAITING),
        number: Any = beam.DoFn.StateParam(_NUMBER),
        written: Any = beam.DoFn.StateParam(_WRITTEN),
        noted: Any = beam.DoFn.StateParam(_NOTED),
        write: Any = beam.DoFn.TimerParam(_WRITE),
        close: Any = beam.DoFn.TimerParam(_CLOSE),
        forget: Any = beam.DoFn.TimerParam(_FORGET),
    ) -> Iterator[LateVersion]:
        _, decision = element
        if decision.late is not None:
            self._flush(waiting, number, written, noted)
            yield LateVersion(decision.late, self._after)
            return
        waiting.add(decision)
        now_waiting = (number.read() or 0) + 1
        number.write(now_waiting)
        if now_waiting == 1:
            write.set(Timestamp.of(self._clock() + self._wait_seconds))
            _, end = window_of(decision.timestamp, self._windows.seconds)
            closed = event_time(canonical_time(end)) + Duration(self._lateness_seconds)
            close.set(closed)
            # By then, the states of all of its capture times have ended.
            forget.set(closed + Duration(self._windows.seconds + _PERIOD_SECONDS + _SLACK_SECONDS))
        elif now_waiting >= IMAGES_A_FILE:
            self._flush(waiting, number, written, noted)

    @on_timer(_WRITE)
    @on_timer(_CLOSE)
    def write_in_time(
        self,
        waiting: Any = beam.DoFn.StateParam(_WAITING),
        number: Any = beam.DoFn.StateParam(_NUMBER),
        written: Any = beam.DoFn.StateParam(_WRITTEN),
        noted: Any = beam.DoFn.StateParam(_NOTED),
    ) -> None:
        """Writes what has waited long enough, or whose window takes no more images."""
        self._flush(waiting, number, written, noted)

    @on_timer(_FORGET)
    def forget(
        self,
        key: Any = beam.DoFn.KeyParam,
        waiting: Any = beam.DoFn.StateParam(_WAITING),
        number: Any = beam.DoFn.StateParam(_NUMBER),
        written: Any = beam.DoFn.StateParam(_WRITTEN),
        noted: Any = beam.DoFn.StateParam(_NOTED),
    ) -> None:
        """Ends the state of a window on which nothing is decided any more."""
        self._flush(waiting, number, written, noted)
        if noted.read():
            self._rows.forget_notes(key)
        written.clear()
        noted.clear()

    def _flush(self, waiting: Any, number: Any, written: Any, noted: Any) -> None:
        """Writes what waits, unless something newer was written on its capture time.

        A runner may give decisions of one capture time in another order. The numbers of those that
        are not the first ones are kept for this.
        """
        decisions = list(waiting.read())
        if not decisions:
            return
        self._after = uuid.uuid4().hex
        numbers: dict[Key, int] = {}
        for camera, timestamp, at in written.read():
            numbers[camera, timestamp] = max(at, numbers.get((camera, timestamp), 0))
        newest: dict[Key, Decision] = {}
        for decision in decisions:
            if decision.number > numbers.get(decision.key, 0):
                numbers[decision.key] = decision.number
                newest[decision.key] = decision
        has_notes = bool(newest) and self._rows.write(newest.values())
        # The note of an image may be written later than its row.
        if has_notes or any(decision.is_recorded for decision in newest.values()):
            noted.write(1)
        for decision in newest.values():
            if decision.number > 1:
                written.add((*decision.key, decision.number))
        waiting.clear()
        number.clear()


class StorePackedStream(beam.PTransform):
    """Stores the decisions of a stream in `packed/`, as further files of each window and shard.

    Input: `PCollection[Decision]`. Output: `PCollection[LateVersion]`, what came too
    late, each after all decisions on its window that were there before it are in the output.

    Args:
      output: The job's output.
      windows: Which window a capture time belongs to.
      allowed_lateness_seconds: How long a window takes images after its end.
    """

    def __init__(
        self, output: str, windows: PackedWindows, *, allowed_lateness_seconds: int
    ) -> None:
        super().__init__()
        self._windows = windows
        self._pack = _Pack(output, windows, allowed_lateness_seconds)

    def expand(self, decisions: beam.PCollection[Decision]) -> beam.PCollection[LateVersion]:
        return (
            decisions
            | "ByWindow" >> beam.Map(self._keyed).with_output_types(tuple[str, Decision])
            | "Pack" >> beam.ParDo(self._pack).with_output_types(LateVersion)
        )

    def _keyed(self, decision: Decision) -> tuple[str, Decision]:
        return self._windows.name_of(*decision.key), decision
