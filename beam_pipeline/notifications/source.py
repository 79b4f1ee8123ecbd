"""WatchNotifications: the pictures of which messages tell, for as long as the job runs.

Beam's own connectors do not serve here. `ReadFromPubSub` of the Python SDK becomes the transform
`beam:transform:pubsub_read:v1`, which the runner has to know: Dataflow and DirectRunner do, and
Beam's portable Flink runner does not (`FlinkStreamingPortablePipelineTranslator` translates
`impulse`, `flatten`, `group_by_key`, `reshuffle`, `executable_stage`, `teststream`, and `read` from
Java). `ReadFromKafka` is Java's: it needs an expansion service when the job is submitted, and a
Java SDK worker beside every Python one (`apache_beam/io/kafka.py`). So this is a splittable DoFn
on Google's and Confluent's clients, whose state is its restriction, as in
:mod:`beam_pipeline.watching`.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.coders import PickleCoder
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from beam_pipeline.endless import GRACE_SECONDS, EndlessProvider, pause_of
from beam_pipeline.notifications.address import Address, KafkaAddress
from beam_pipeline.notifications.channel import Channel, ChannelError, Message
from beam_pipeline.sources import belongs_to
from transforms import reasons
from transforms.counters import count
from transforms.records import ImageFile, InvalidImage
from transforms.text import one_line, printable
from transforms.times import canonical_time, from_unix

_LOGGER = logging.getLogger(__name__)

MOST_AT_ONCE = 1000
"""Messages that are handed on before the source's state is kept."""
IMAGES = "images"
MALFORMED = "malformed"

_BEHIND_PAUSE_SECONDS = 1.0


def open_channel(address: Address) -> Channel:
    """What takes messages from an address; nothing is connected yet."""
    # The clients are imported where they are used, as each takes a while.
    if isinstance(address, KafkaAddress):
        from beam_pipeline.notifications.kafka import KafkaChannel

        return KafkaChannel(address)
    from beam_pipeline.notifications.pubsub import PubSubChannel

    return PubSubChannel(address)


_opening = threading.Lock()
# A worker makes a DoFn for each bundle that is not called back yet; all use one connection.
_open_once = functools.cache(open_channel)


def malformed_image(message: Message, address: Address, stream_time: str | None) -> InvalidImage:
    """The record of a message that does not say what was made.

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
        printable(f"malformed notification: {message.told.problem}"),
        size_bytes=len(message.content),
        sha256=digest,
        data=message.content,
    )


_RESTRICTION = beam.DoFn.RestrictionParam(EndlessProvider((), PickleCoder()))
_WATERMARK = beam.DoFn.WatermarkEstimatorParam(ManualWatermarkEstimator.default_provider())


class _Watch(beam.DoFn):
    def __init__(
        self, address: Address, source: str, poll_seconds: float, clock: Callable[[], float]
    ) -> None:
        self._address = address
        self._source = source
        self._poll_seconds = poll_seconds
        self._clock = clock

    def setup(self) -> None:
        with _opening:
            self._channel = _open_once(self._address)
        self._is_ours = belongs_to(self._source)

    @beam.DoFn.unbounded_per_element()
    def process(
        self,
        element: Any,
        # First: Beam gives it by its place, and the others by their names.
        finalizer: Any = beam.DoFn.BundleFinalizerParam,
        tracker: Any = _RESTRICTION,
        estimator: Any = _WATERMARK,
    ) -> Iterator[Any]:
        now = self._clock()
        try:
            taken = self._channel.take(tracker.current_restriction(), MOST_AT_ONCE)
        except Exception as error:  # Each client has its own kinds of error.
            why = str(error) if isinstance(error, ChannelError) else one_line(error)
            count("notifications.unreachable")
            _LOGGER.error("--notifications %s: %s", self._address.uri, why)
            tracker.defer_remainder(pause_of(self._poll_seconds))
            return
        if not tracker.try_claim(taken.position):
            return
        reached = estimator.current_watermark()
        before = None if reached is None else canonical_time(from_unix(float(reached)))
        for message in taken.messages:
            if message.told.problem is not None:
                count("images.found")
                malformed = malformed_image(message, self._address, before)
                yield beam.pvalue.TaggedOutput(
                    MALFORMED, TimestampedValue(malformed, Timestamp(now))
                )
            if message.told.ignored:
                count("notifications.ignored", message.told.ignored)
            for made in message.told.created:
                if self._is_ours(made.uri):
                    file = ImageFile(made.uri, made.size_bytes, stream_time=before)
                    yield TimestampedValue(file, Timestamp(now))
                else:
                    count("notifications.elsewhere")
        call = self._channel.once_kept(taken.receipt)
        if call is not None:
            finalizer.register(call)
        if taken.is_caught_up:  # What was there is on its way; now event time may go on.
            on = Timestamp(now - GRACE_SECONDS)
            estimator.set_watermark(on if reached is None else max(on, reached))
        pause = self._poll_seconds
        if not taken.is_caught_up:
            pause = 0.0 if taken.is_full else min(pause, _BEHIND_PAUSE_SECONDS)
        tracker.defer_remainder(pause_of(pause))


class WatchNotifications(beam.PTransform):
    """Finds pictures as a store's messages tell of them, for as long as the job runs.

    A message that comes again hands its picture on again. Event time follows the clock, ten seconds
    behind, once all messages that were there are handed on.

    Output, by tag:

    - `images`: `PCollection[ImageFile]`, unbounded.
    - `malformed`: `PCollection[InvalidImage]`, messages that do not say what was made.

    Args:
      address: Where the messages come from.
      source: The address under which pictures are taken, a directory, file or glob; others are
        passed over and counted.
      poll_seconds: Between two looks for messages.
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
        if poll_seconds <= 0:
            raise ValueError(f"poll_seconds is {poll_seconds}; it must be more than 0")
        self._watch = _Watch(address, source, poll_seconds, clock)

    def expand(self, begin: beam.pvalue.PBegin) -> beam.pvalue.DoOutputsTuple:
        return (
            begin
            | "Once" >> beam.Impulse()
            | "Take" >> beam.ParDo(self._watch).with_outputs(MALFORMED, main=IMAGES)
        )
