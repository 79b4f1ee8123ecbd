"""What the source hands on of the messages that it takes, and how it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.pvalue import TaggedOutput
from apache_beam.runners.sdf_utils import RestrictionTrackerView, ThreadsafeRestrictionTracker
from apache_beam.transforms.core import DoFn
from apache_beam.utils.timestamp import Timestamp

from beam_pipeline.endless import EndlessTracker
from beam_pipeline.notifications.address import KafkaAddress
from beam_pipeline.notifications.channel import Channel, ChannelError, Message, Position, Taken
from beam_pipeline.notifications.events import parse_s3_message
from beam_pipeline.notifications.source import _Watch
from beam_pipeline.sources import belongs_to
from tests.beam_pipeline.notifications.messages import S3_TEST, s3, s3_record
from transforms.counters import counted_here

NOW = 1_770_000_000.0
ADDRESS = KafkaAddress(("broker:9092",), "events")


class _OneLook(Channel):
    """A channel that has one answer, so that what becomes of it can be seen."""

    def __init__(self, answer: Taken | Exception) -> None:
        super().__init__()
        self._answer = answer
        self.acknowledged: list[Any] = []

    def check(self) -> None:
        raise NotImplementedError

    def take(self, position: Position, most: int) -> Taken:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def acknowledge(self, receipts: Sequence[Any]) -> None:
        self.acknowledged += receipts


class Looked:
    """One look, and what came of it."""

    def __init__(self, channel: Channel, reached: float | None = None) -> None:
        watch = _Watch(ADDRESS, "s3://pictures/in", 5.0, lambda: NOW)
        watch._channel = channel
        watch._is_ours = belongs_to("s3://pictures/in")
        tracker = ThreadsafeRestrictionTracker(EndlessTracker(((0, 1),)))
        estimator = ManualWatermarkEstimator(None if reached is None else Timestamp(reached))
        self.finalizer = DoFn.BundleFinalizerParam()
        self.images, self.malformed = [], []
        before = counted_here()
        for one in watch.process(b"", self.finalizer, RestrictionTrackerView(tracker), estimator):
            if isinstance(one, TaggedOutput):
                self.malformed.append(one.value.value)
            else:
                self.images.append(one.value)
        self.counted = dict(counted_here() - before)
        tracker.check_done()
        status = tracker.deferred_status()
        assert status is not None
        self.position, self.pause = status[0], round(float(status[1]), 1)
        reached_now = estimator.current_watermark()
        self.event_time = None if reached_now is None else float(reached_now)


def taken(*messages: bytes, **fields: Any) -> Taken:
    found = [Message(one, parse_s3_message(one)) for one in messages]
    whole = Taken(found, ((0, 9),), None, is_full=False, is_caught_up=True)
    return replace(whole, **fields)


def told(*keys: str) -> bytes:
    return s3(*(s3_record(key, bucket="pictures") for key in keys))


def test_pictures_under_the_input_are_handed_on_and_all_else_is_counted() -> None:
    looked = Looked(
        _OneLook(taken(told("in/a.jpg", "out/b.jpg", "in/c d.jpg"), S3_TEST, told("inn/e.jpg"))),
        reached=NOW - 60,
    )
    assert [(one.uri, one.size_bytes) for one in looked.images] == [
        ("s3://pictures/in/a.jpg", 1024),
        ("s3://pictures/in/c d.jpg", 1024),
    ]
    assert {one.stream_time for one in looked.images} == {"2026-02-02T02:39:00Z"}
    assert looked.counted == {"notifications.elsewhere": 2, "notifications.ignored": 1}
    assert (looked.malformed, looked.position) == ([], ((0, 9),))


def test_a_malformed_message_becomes_a_record_that_is_the_same_when_it_comes_again() -> None:
    looked = Looked(_OneLook(taken(b"no JSON", b"no JSON")))
    first, second = looked.malformed
    assert first == second
    assert first.file.uri == "kafka://broker:9092/events/notification-29ecbeb830e32446"
    assert (first.reason, first.data) == ("read_failed", b"no JSON")
    assert first.detail == "malformed notification: it is no JSON"
    assert looked.counted == {"images.found": 2}


@pytest.mark.parametrize(
    ("fields", "pause", "event_time"),
    [
        ({}, 5.2, NOW - 10),
        ({"is_caught_up": False}, 1.2, NOW - 60),
        ({"is_caught_up": False, "is_full": True}, 0.0, NOW - 60),
    ],
)
def test_event_time_goes_on_once_all_that_waited_is_taken(
    fields: dict[str, bool], pause: float, event_time: float
) -> None:
    looked = Looked(_OneLook(taken(told("in/a.jpg"), **fields)), reached=NOW - 60)
    assert (looked.pause, looked.event_time) == (pause, event_time)


def test_event_time_never_goes_back() -> None:
    assert Looked(_OneLook(taken()), reached=NOW + 60).event_time == NOW + 60


@pytest.mark.parametrize(
    ("error", "says"),
    [(ChannelError("no broker"), "no broker"), (OSError("no network"), "OSError: no network")],
)
def test_a_look_that_fails_is_logged_and_counted_and_taken_up_again_where_it_was(
    error: Exception, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    looked = Looked(_OneLook(error), reached=NOW - 60)
    assert looked.counted == {"notifications.unreachable": 1}
    assert (looked.position, looked.pause, looked.event_time) == (((0, 1),), 5.2, NOW - 60)
    assert caplog.messages == [f"--notifications kafka://broker:9092/events: {says}"]


def test_receipts_are_given_back_at_the_second_word_of_the_runner() -> None:
    channel = _OneLook(taken(told("in/a.jpg"), receipt="first"))
    first, beside = Looked(channel), Looked(channel)
    first.finalizer.finalize_bundle()
    beside.finalizer.finalize_bundle()  # It began before the first word.
    assert channel.acknowledged == []
    Looked(channel).finalizer.finalize_bundle()
    assert channel.acknowledged == ["first", "first"]


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
