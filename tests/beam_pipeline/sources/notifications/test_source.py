"""What the source emits of the messages that it takes, and how it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.pvalue import TaggedOutput
from apache_beam.runners.sdf_utils import RestrictionTrackerView, ThreadsafeRestrictionTracker
from apache_beam.transforms.core import DoFn

from beam_pipeline.sources.listing import belongs_to
from beam_pipeline.sources.notifications.address import KafkaAddress
from beam_pipeline.sources.notifications.channel import (
    Channel,
    ChannelError,
    Notification,
    PartitionPosition,
    PulledBatch,
)
from beam_pipeline.sources.notifications.events import parse_s3_message
from beam_pipeline.sources.notifications.source import (
    FoundPartitions,
    Partition,
    _FindPartitions,
    _PartitionEventTimeProvider,
    _PullMessages,
)
from beam_pipeline.sources.unbounded import UnboundedTracker
from tests.beam_pipeline.sources.notifications.messages import S3_TEST, s3, s3_record
from transforms.runtime.counters import counted_here

NOW = 1_770_000_000.0
AT = PartitionPosition(1)
ADDRESS = KafkaAddress(("broker:9092",), "events")


class _OneAnswerChannel(Channel):
    """A channel that has one answer, so that what becomes of it can be seen."""

    def __init__(self, answer: PulledBatch | Sequence[int] | Exception) -> None:
        super().__init__()
        self._answer = answer
        self.acknowledged: list[tuple[int, Any]] = []

    def check(self) -> None:
        raise NotImplementedError

    def partitions(self) -> Sequence[int]:
        if isinstance(self._answer, Exception):
            raise self._answer
        assert not isinstance(self._answer, PulledBatch)
        return self._answer

    def pull(self, partition: int, position: PartitionPosition, max_messages: int) -> PulledBatch:
        if isinstance(self._answer, Exception):
            raise self._answer
        assert isinstance(self._answer, PulledBatch)
        return self._answer

    def acknowledge(self, partition: int, receipts: Sequence[Any]) -> None:
        self.acknowledged += [(partition, receipt) for receipt in receipts]


class PollOutcome:
    """One look at a partition, or for partitions, and what came of it."""

    def __init__(
        self,
        channel: Channel,
        reached: float | None = None,
        at: PartitionPosition | FoundPartitions = AT,
        partition: int = 0,
    ) -> None:
        arguments = ("s3://pictures/in", 5.0, lambda: NOW)
        step = _PullMessages if isinstance(at, PartitionPosition) else _FindPartitions
        look = step(*arguments, address=ADDRESS)
        look._channel = channel
        look._is_ours = belongs_to("s3://pictures/in")
        tracker = ThreadsafeRestrictionTracker(UnboundedTracker(at))
        state = _PartitionEventTimeProvider().initial_estimator_state(
            Partition(partition, reached), at
        )
        estimator = ManualWatermarkEstimator(state)
        self.finalizer = DoFn.BundleFinalizerParam()
        self.images, self.malformed = [], []
        before = counted_here()
        view = RestrictionTrackerView(tracker)
        for element in (
            look.process(Partition(partition, reached), self.finalizer, view, estimator)
            if isinstance(look, _PullMessages)
            else look.process(b"", view, estimator)
        ):
            if isinstance(element, TaggedOutput):
                self.malformed.append(element.value.value)
            else:
                self.images.append(element.value)
        self.counted = dict(counted_here() - before)
        tracker.check_done()
        status = tracker.deferred_status()
        assert status is not None
        self.at, self.pause = status[0], round(float(status[1]), 1)
        reached_now = estimator.current_watermark()
        self.event_time = None if reached_now is None else float(reached_now)


def batch_of(*messages: bytes, **fields: Any) -> PulledBatch:
    notifications = [Notification(message, parse_s3_message(message)) for message in messages]
    whole = PulledBatch(
        notifications, PartitionPosition(9, 5), None, NOW, is_full=False, is_at_end=True
    )
    return replace(whole, **fields)


def message_about(*keys: str) -> bytes:
    return s3(*(s3_record(key, bucket="pictures") for key in keys))


def test_images_under_the_input_are_emitted_and_all_else_is_counted() -> None:
    outcome = PollOutcome(
        _OneAnswerChannel(
            batch_of(
                message_about("in/a.jpg", "out/b.jpg", "in/c d.jpg"),
                S3_TEST,
                message_about("inn/e.jpg"),
            )
        ),
        reached=NOW - 60,
    )
    assert [(image.uri, image.size_bytes) for image in outcome.images] == [
        ("s3://pictures/in/a.jpg", 1024),
        ("s3://pictures/in/c d.jpg", 1024),
    ]
    assert {image.stream_time for image in outcome.images} == {"2026-02-02T02:39:00Z"}
    assert outcome.counted == {"notifications.elsewhere": 2, "notifications.ignored": 1}
    assert (outcome.malformed, outcome.at) == ([], PartitionPosition(9, 5))


def test_a_malformed_message_becomes_a_record_that_is_the_same_when_it_comes_again() -> None:
    outcome = PollOutcome(_OneAnswerChannel(batch_of(b"no JSON", b"no JSON")))
    first, second = outcome.malformed
    assert first == second
    assert first.file.uri == "kafka://broker:9092/events/notification-29ecbeb830e32446"
    assert (first.reason, first.data) == ("read_failed", b"no JSON")
    assert first.detail == "malformed notification: it is no JSON"
    assert outcome.counted == {"images.found": 2}


@pytest.mark.parametrize(
    ("fields", "pause", "event_time"),
    [
        ({}, 5.2, NOW - 10),
        ({"is_at_end": False, "until": NOW - 30}, 1.2, NOW - 40),
        ({"is_at_end": False, "until": NOW - 30, "is_full": True}, 0.0, NOW - 40),
        ({"is_at_end": False, "until": None}, 1.2, NOW - 60),
    ],
)
def test_event_time_stays_ten_seconds_behind_what_is_known_to_be_taken(
    fields: dict[str, Any], pause: float, event_time: float
) -> None:
    outcome = PollOutcome(
        _OneAnswerChannel(batch_of(message_about("in/a.jpg"), **fields)), reached=NOW - 60
    )
    assert (outcome.pause, outcome.event_time) == (pause, event_time)


@pytest.mark.parametrize(
    ("answer", "at", "left"),
    [
        (batch_of(position=PartitionPosition(0, 5)), PartitionPosition(), PartitionPosition(0, 5)),
        (ChannelError("no broker"), PartitionPosition(), PartitionPosition()),
        ([], FoundPartitions(), FoundPartitions()),
        (ChannelError("no broker"), FoundPartitions(), FoundPartitions()),
    ],
)
def test_a_source_that_has_seen_nothing_looks_again(
    answer: PulledBatch | list[int] | Exception,
    at: PartitionPosition | FoundPartitions,
    left: PartitionPosition | FoundPartitions,
) -> None:
    """Beam takes a falsy rest for nothing left: no look would follow, and the job would stay up."""
    look = PollOutcome(_OneAnswerChannel(answer), at=at)
    assert look.at == left
    assert look.at
    assert look.pause == 5.2


def test_each_partition_is_emitted_once_with_how_far_event_time_had_come() -> None:
    outcome = PollOutcome(_OneAnswerChannel([0, 1, 2]), at=FoundPartitions(), reached=None)
    assert outcome.images == [Partition(0), Partition(1), Partition(2)]
    assert (outcome.at, outcome.event_time) == (FoundPartitions((0, 1, 2)), NOW - 10)
    later = PollOutcome(
        _OneAnswerChannel([0, 1, 3, 2]), at=FoundPartitions((0, 1, 2)), reached=NOW - 15
    )
    assert later.images == [Partition(3, NOW - 15)]
    assert (later.at, later.event_time) == (FoundPartitions((0, 1, 2, 3)), NOW - 10)


def test_a_partition_that_is_not_listed_for_a_while_is_not_emitted_again() -> None:
    assert PollOutcome(
        _OneAnswerChannel([0]), at=FoundPartitions((0, 1)), reached=NOW - 15
    ).at == FoundPartitions((0, 1))


def test_event_time_never_goes_back() -> None:
    assert PollOutcome(_OneAnswerChannel(batch_of()), reached=NOW + 60).event_time == NOW + 60


@pytest.mark.parametrize(
    ("error", "expected"),
    [(ChannelError("no broker"), "no broker"), (OSError("no network"), "OSError: no network")],
)
def test_a_look_that_fails_is_logged_and_counted_and_taken_up_again_where_it_was(
    error: Exception, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = PollOutcome(_OneAnswerChannel(error), reached=NOW - 60)
    assert outcome.counted == {"notifications.unreachable": 1}
    assert (outcome.at, outcome.pause, outcome.event_time) == (PartitionPosition(1), 5.2, NOW - 60)
    assert caplog.messages == [f"--notifications kafka://broker:9092/events: {expected}"]


def test_a_line_is_not_repeated_at_each_look(caplog: pytest.LogCaptureFixture) -> None:
    channel = _OneAnswerChannel(ChannelError("no broker"))
    PollOutcome(channel)
    outcome = PollOutcome(channel)
    assert outcome.counted == {"notifications.unreachable": 1}
    assert len(caplog.messages) == 1


def test_messages_are_acknowledged_at_the_second_callback_of_the_runner() -> None:
    channel = _OneAnswerChannel(batch_of(message_about("in/a.jpg"), receipt="first"))
    first, beside = PollOutcome(channel), PollOutcome(channel)
    first.finalizer.finalize_bundle()
    beside.finalizer.finalize_bundle()  # Its look was before the first callback.
    assert channel.acknowledged == []
    PollOutcome(channel).finalizer.finalize_bundle()
    assert channel.acknowledged == [(0, "first"), (0, "first")]


def test_a_callback_for_another_partition_acknowledges_nothing() -> None:
    channel = _OneAnswerChannel(batch_of(message_about("in/a.jpg"), receipt="first"))
    PollOutcome(channel, partition=0).finalizer.finalize_bundle()
    PollOutcome(channel, partition=1).finalizer.finalize_bundle()
    assert channel.acknowledged == []
    PollOutcome(channel, partition=1).finalizer.finalize_bundle()
    assert channel.acknowledged == [(1, "first")]


@pytest.mark.parametrize(
    ("source", "uri", "is_its"),
    [
        ("s3://pictures", "s3://pictures/a.jpg", True),
        ("s3://pictures", "s3://pictures-2/a.jpg", False),
        ("s3://pictures/in/", "s3://pictures/in/deep/a.jpg", True),
        ("s3://pictures/in", "s3://pictures/inn/a.jpg", False),
        ("s3://pictures/in/a.jpg", "s3://pictures/in/a.jpg", True),
        ("gs://pictures/*/a?.jpg", "gs://pictures/in/a1.jpg", True),
        ("gs://pictures/*/a?.jpg", "gs://pictures/in/deep/a1.jpg", False),
        ("gs://pictures/**.jpg", "gs://pictures/in/deep/a1.jpg", True),
        ("gs://pictures/[1]", "gs://pictures/[1]/a.jpg", True),
    ],
)
def test_an_object_belongs_to_an_input_as_a_listing_would_find_it(
    source: str, uri: str, is_its: bool
) -> None:
    assert belongs_to(source)(uri) is is_its
