"""A runner that looks at the source of messages and makes checkpoints, as Flink does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.runners.sdf_utils import RestrictionTrackerView, ThreadsafeRestrictionTracker
from apache_beam.utils.timestamp import Timestamp

from beam_pipeline.sources.notifications import source
from beam_pipeline.sources.notifications.address import Address
from beam_pipeline.sources.notifications.channel import Channel, PartitionPosition
from beam_pipeline.sources.notifications.source import (
    FOUND_PARTITIONS_CODER,
    POSITION_CODER,
    FoundPartitions,
    Partition,
    _FindPartitions,
    _PartitionEventTimeProvider,
    _PullMessages,
)
from beam_pipeline.sources.unbounded import EVENT_TIME_CODER, UnboundedTracker
from transforms.records.times import parse_time

_PARTITION_CODER = beam.coders.registry.get_coder(Partition)


class Split(NamedTuple):
    """What a runner keeps of a source: the bytes of its restriction and of event time."""

    restriction: bytes
    event_time: bytes

    @property
    def reached(self) -> Timestamp | None:
        return EVENT_TIME_CODER.decode(self.event_time)


_NOTHING_FOUND = Split(
    FOUND_PARTITIONS_CODER.encode(FoundPartitions()), EVENT_TIME_CODER.encode(None)
)


@dataclass(frozen=True)
class RunnerState:
    """All that a runner has at a time, and what was emitted by then."""

    finding: Split = _NOTHING_FOUND
    pulling: dict[bytes, Split] = field(default_factory=dict)
    emitted: tuple[str, ...] = ()

    @property
    def watermark(self) -> float | None:
        """How far event time has come for what follows."""
        reached = [split.reached for split in (self.finding, *self.pulling.values())]
        return None if None in reached else min(map(float, reached))

    @property
    def offsets(self) -> dict[int, int | None]:
        """The offset of each partition."""
        return {
            _PARTITION_CODER.decode(partition).number: POSITION_CODER.decode(
                split.restriction
            ).offset
            for partition, split in self.pulling.items()
        }


class Worker:
    """A process with its connection.

    Args:
      address: Where messages come from.
      channel: The connection.
      clock: Gives Unix time in seconds.
      poll_seconds: As `--poll_interval_seconds` gives it.
    """

    def __init__(
        self,
        address: Address,
        channel: Channel,
        clock: Callable[[], float],
        poll_seconds: float = 5.0,
    ) -> None:
        self._arguments = (address.scheme + "b", poll_seconds, clock)
        self._address = address
        self.channel = channel
        self.new_instances()

    def new_instances(self) -> None:
        """Beam closes instances of DoFns that idle, and makes others."""
        self.find = _FindPartitions(*self._arguments, address=self._address)
        self.pull = _PullMessages(*self._arguments, address=self._address)
        for step in (self.find, self.pull):
            step._channel = self.channel
            step._is_ours = lambda uri: True


class SimulatedRunner:
    """The runner.

    Attributes:
      worker: The process that pulls.
      now: What the runner has.
      complete: What it had at the last checkpoint that is complete.
      next_of: Called after each look with a partition's number, the offset, and event time.
    """

    def __init__(
        self, worker: Worker, next_of: Callable[[int, int, float], None] = lambda *_: None
    ) -> None:
        self.worker = worker
        self.now = RunnerState()
        self.complete = RunnerState()
        self.next_of = next_of
        self._begun: RunnerState | None = None
        self._calls: list[Any] = []

    def begin_checkpoint(self) -> None:
        self._begun = self._begun or self.now

    def complete_checkpoint(self) -> None:
        """All that waits is called back, also what ended after the checkpoint began."""
        if self._begun is None:
            return
        self.complete, self._begun = self._begun, None
        calls, self._calls = self._calls, []
        for call in calls:
            call.finalize_bundle()

    def crash(self) -> None:
        """The runner goes back to the last checkpoint that is complete."""
        self.now, self._begun, self._calls = self.complete, None, []

    def poll_partitions(self) -> None:
        finding = self.now.finding
        tracker, view = _tracked(FOUND_PARTITIONS_CODER.decode(finding.restriction))
        estimator = ManualWatermarkEstimator(finding.reached)
        partitions = [element.value for element in self.worker.find.process(b"", view, estimator)]
        left, _ = _left(tracker)
        new = {}
        for item in partitions:
            state = _PartitionEventTimeProvider().initial_estimator_state(item, PartitionPosition())
            new[_PARTITION_CODER.encode(item)] = Split(
                POSITION_CODER.encode(PartitionPosition()), EVENT_TIME_CODER.encode(state)
            )
        reached = EVENT_TIME_CODER.encode(estimator.current_watermark())
        self.now = replace(
            self.now,
            finding=Split(FOUND_PARTITIONS_CODER.encode(left), reached),
            pulling=self.now.pulling | new,
        )

    def poll(self, pick: int) -> float:
        """One look at one of the partitions; for how long the runner is asked to wait then."""
        if not self.now.pulling:
            return 0.0
        return self._pull(sorted(self.now.pulling)[pick % len(self.now.pulling)])

    def _pull(self, partition: bytes) -> float:
        """One look at a partition; for how long the runner is asked to wait then."""
        split = self.now.pulling[partition]
        element = _PARTITION_CODER.decode(partition)
        tracker, view = _tracked(POSITION_CODER.decode(split.restriction))
        estimator = ManualWatermarkEstimator(split.reached)
        finalizer = beam.DoFn.BundleFinalizerParam()
        images = [
            output.value for output in self.worker.pull.process(element, finalizer, view, estimator)
        ]
        self._calls.append(finalizer)
        assert len(images) <= source.MAX_MESSAGES_PER_PULL
        passed = self.now.watermark
        for image in images:
            # An image whose window is closed must not be taken for one in time.
            assert passed is None or image.stream_time is not None
            if passed is not None and image.stream_time is not None:
                assert parse_time(image.stream_time).timestamp() >= passed - 1e-5
        left, pause = _left(tracker)
        own = estimator.current_watermark()
        if own is not None and left.offset is not None:
            self.next_of(element.number, left.offset, float(own))
        new = Split(POSITION_CODER.encode(left), EVENT_TIME_CODER.encode(own))
        names = tuple(image.uri.split("/b/", 1)[1] for image in images)
        self.now = replace(
            self.now,
            pulling=self.now.pulling | {partition: new},
            emitted=self.now.emitted + names,
        )
        return pause

    def round(self) -> None:
        """Polls for partitions, and each of them until nothing is left for now."""
        self.poll_partitions()
        for partition in sorted(self.now.pulling):
            for _ in range(400):
                if self._pull(partition) > 0:
                    break
            else:
                raise AssertionError("a partition keeps a worker busy for ever")


def _tracked(restriction: Any) -> tuple[ThreadsafeRestrictionTracker, RestrictionTrackerView]:
    tracker = ThreadsafeRestrictionTracker(UnboundedTracker(restriction))
    return tracker, RestrictionTrackerView(tracker)


def _left(tracker: ThreadsafeRestrictionTracker) -> tuple[Any, float]:
    """What is left of a source, and in how many seconds it wants to be called."""
    tracker.check_done()
    status = tracker.deferred_status()
    assert status is not None, "the source is never called again"
    return status[0], float(status[1])
