"""WatchNotifications: the images that messages announce, for as long as the job runs.

Beam's own connectors can't be used here. `ReadFromPubSub` of the Python SDK becomes the transform
`beam:transform:pubsub_read:v1`, which the runner has to know: Dataflow and DirectRunner do, and
Beam's portable Flink runner does not (`FlinkStreamingPortablePipelineTranslator` translates
`impulse`, `flatten`, `group_by_key`, `reshuffle`, `executable_stage`, `teststream`, and `read` from
Java). `ReadFromKafka` is Java's: it needs an expansion service when the job is submitted, and a
Java SDK worker beside every Python one (`apache_beam/io/kafka.py`). So there are two splittable
DoFns on Google's and Confluent's clients, which keep their state in their restrictions, as in
:mod:`beam_pipeline.sources.watching`: the first finds the partitions, and the second reads each of
them.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from beam_pipeline.sources.listing import belongs_to
from beam_pipeline.sources.notifications.address import Address, KafkaAddress
from beam_pipeline.sources.notifications.channel import (
    Channel,
    ChannelError,
    Notification,
    PartitionPosition,
    PulledBatch,
)
from beam_pipeline.sources.unbounded import (
    EventTimeProvider,
    PollingDoFn,
    UnboundedProvider,
    advance_event_time,
    event_time_of,
)
from transforms.records import reasons
from transforms.records.codecs import VersionedCoder, keep_plain, register_record
from transforms.records.images import ImageFile, InvalidImage
from transforms.records.text import one_line, printable
from transforms.runtime.counters import count

_LOGGER = logging.getLogger(__name__)

MAX_MESSAGES_PER_PULL = 1000
"""Messages that are emitted before the source's state is kept."""
IMAGES = "images"
MALFORMED = "malformed"

_BEHIND_PAUSE_SECONDS = 1.0


def open_channel(address: Address) -> Channel:
    """Returns what takes messages from an address; nothing is connected yet."""
    # The clients are imported where they are used, as each takes a while.
    if isinstance(address, KafkaAddress):
        from beam_pipeline.sources.notifications.kafka import KafkaChannel

        return KafkaChannel(address)
    from beam_pipeline.sources.notifications.pubsub import PubSubChannel

    return PubSubChannel(address)


_opening = threading.Lock()
# A worker makes a DoFn for each bundle that is not called back yet; all use one connection.
_open_once = functools.cache(open_channel)


def malformed_image(
    message: Notification, address: Address, stream_time: str | None
) -> InvalidImage:
    """Returns the record of a message that does not say what was made.

    Its name follows from its bytes, so that one that comes again is the same file.
    """
    digest = hashlib.sha256(message.content).hexdigest()
    return InvalidImage(
        ImageFile(
            f"{address.uri}/notification-{digest[:16]}",
            len(message.content),
            stream_time=stream_time,
        ),
        reasons.READ_FAILED,
        printable(f"malformed notification: {message.events.problem}"),
        size_bytes=len(message.content),
        sha256=digest,
        data=message.content,
    )


@dataclass(frozen=True)
class Partition:
    """A partition of what messages come from; Pub/Sub has one.

    Attributes:
      number: Its number.
      since: How far event time had come before the partition was found, in Unix seconds; None: it
        had not begun.
    """

    number: int
    since: float | None = None


@dataclass(frozen=True)
class FoundPartitions:
    """Which partitions were found.

    A record, since Beam takes what is falsy, as an empty tuple is, for nothing left of a source,
    and would not call it again.

    Attributes:
      partitions: Their numbers, in order.
    """

    partitions: tuple[int, ...] = ()


register_record(Partition)
FOUND_PARTITIONS_CODER: VersionedCoder[FoundPartitions | None] = VersionedCoder(
    FoundPartitions | None
)
"""Writes which partitions were found, or None where nothing is left of the source."""
POSITION_CODER: VersionedCoder[PartitionPosition | None] = VersionedCoder(
    PartitionPosition | None, version=2, upgrades={1: keep_plain}
)
"""Writes how far a partition was taken, or None where nothing is left of it."""


class _PartitionEventTimeProvider(EventTimeProvider):
    """Event time of a partition begins where it had come to when the partition was found."""

    def initial_estimator_state(self, element: Partition, restriction: Any) -> Timestamp | None:
        return None if element.since is None else Timestamp(element.since)


_FOUND = beam.DoFn.RestrictionParam(UnboundedProvider(FoundPartitions(), FOUND_PARTITIONS_CODER))
_FOUND_UNTIL = beam.DoFn.WatermarkEstimatorParam(EventTimeProvider())
_POSITION = beam.DoFn.RestrictionParam(UnboundedProvider(PartitionPosition(), POSITION_CODER))
_PULLED_UNTIL = beam.DoFn.WatermarkEstimatorParam(_PartitionEventTimeProvider())


class _NotificationsDoFn(PollingDoFn):
    """What polls for partitions and polls for messages have in common."""

    def __init__(
        self, source: str, poll_seconds: float, clock: Callable[[], float], *, address: Address
    ) -> None:
        super().__init__(source, poll_seconds, clock)
        self._address = address

    def setup(self) -> None:
        with _opening:
            self._channel = _open_once(self._address)
        self._is_ours = belongs_to(self._source)

    def _wait(self, tracker: Any, error: Exception) -> None:
        """Polls again later: event time does not advance until then."""
        reason = str(error) if isinstance(error, ChannelError) else one_line(error)
        count("notifications.unreachable")
        if self._channel.should_log(reason):
            _LOGGER.error("--notifications %s: %s", self._address.uri, reason)
        self._defer(tracker)


class _FindPartitions(_NotificationsDoFn):
    @beam.DoFn.unbounded_per_element()
    def process(
        self, element: Any, tracker: Any = _FOUND, estimator: Any = _FOUND_UNTIL
    ) -> Iterator[TimestampedValue]:
        now = self._clock()
        try:
            partitions = self._channel.partitions()
        except Exception as error:  # Each client has its own kinds of error.
            self._wait(tracker, error)
            return
        known = tracker.current_restriction().partitions
        new = sorted(set(partitions) - set(known))
        if not tracker.try_claim(FoundPartitions(tuple(sorted({*known, *new})))):
            return
        event_time = estimator.current_watermark()
        for number in new:
            partition = Partition(number, None if event_time is None else float(event_time))
            yield TimestampedValue(partition, Timestamp(now))
        # A partition that is found later has no older messages: it would have been found now.
        advance_event_time(estimator, now)
        self._defer(tracker)


class _PullMessages(_NotificationsDoFn):
    @beam.DoFn.unbounded_per_element()
    def process(
        self,
        element: Partition,
        # First: Beam gives it by its place, and the others by their names.
        finalizer: Any = beam.DoFn.BundleFinalizerParam,
        tracker: Any = _POSITION,
        estimator: Any = _PULLED_UNTIL,
    ) -> Iterator[Any]:
        now = self._clock()
        position = tracker.current_restriction()
        try:
            batch = self._channel.pull(element.number, position, MAX_MESSAGES_PER_PULL)
        except Exception as error:  # Each client has its own kinds of error.
            self._wait(tracker, error)
            return
        if not tracker.try_claim(batch.position):
            return
        yield from self._outputs(batch, now, event_time_of(estimator))
        finalize = self._channel.finalizer_for(element.number, batch.receipt)
        if finalize is not None:
            finalizer.register(finalize)
        if batch.until is not None:
            advance_event_time(estimator, batch.until)
        pause_seconds = min(self._poll_seconds, self._channel.longest_pause_seconds)
        if not batch.is_at_end:
            pause_seconds = 0.0 if batch.is_full else min(pause_seconds, _BEHIND_PAUSE_SECONDS)
        self._defer(tracker, pause_seconds)

    def _outputs(self, batch: PulledBatch, now: float, stream_time: str | None) -> Iterator[Any]:
        for message in batch.messages:
            if message.events.problem is not None:
                count("images.found")
                malformed = malformed_image(message, self._address, stream_time)
                yield beam.pvalue.TaggedOutput(
                    MALFORMED, TimestampedValue(malformed, Timestamp(now))
                )
            if message.events.ignored:
                count("notifications.ignored", message.events.ignored)
            for created in message.events.created:
                if self._is_ours(created.uri):
                    file = ImageFile(created.uri, created.size_bytes, stream_time=stream_time)
                    yield TimestampedValue(file, Timestamp(now))
                else:
                    count("notifications.elsewhere")


class WatchNotifications(beam.PTransform):
    """Finds images as a store's messages announce them, for as long as the job runs.

    A message that comes again hands its image on again. A partition is read by a split of its
    own, which a poll for partitions finds. Event time follows the messages, ten seconds
    behind: the time at which the last one was published, and the clock where all that was there is
    emitted. It does not advance while that isn't known.

    Output, by tag:

    - `images`: `PCollection[ImageFile]`, unbounded.
    - `malformed`: `PCollection[InvalidImage]`, messages that do not say what was made.

    Args:
      address: Where the messages come from.
      source: The address under which images are taken, a directory, file or glob; others are
        skipped and counted.
      poll_seconds: Seconds between two polls for messages.
      clock: Gives Unix time in seconds.
    """

    def __init__(
        self,
        address: Address,
        source: str,
        *,
        poll_seconds: float = 5.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self._find = _FindPartitions(source, poll_seconds, clock, address=address)
        self._pull = _PullMessages(source, poll_seconds, clock, address=address)

    def expand(self, begin: beam.pvalue.PBegin) -> beam.pvalue.DoOutputsTuple:
        return (
            begin
            | "Once" >> beam.Impulse()
            | "FindPartitions" >> beam.ParDo(self._find).with_output_types(Partition)
            | "Take" >> beam.ParDo(self._pull).with_outputs(MALFORMED, main=IMAGES)
        )
