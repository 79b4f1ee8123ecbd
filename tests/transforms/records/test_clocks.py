"""Which capture times are not trusted, and what that means for the age of an alert."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rules
from tests.transforms.results import judged
from transforms.alerting.alerts import Alert, alert_for, is_too_old
from transforms.records.clocks import is_misdated, seems_reset
from transforms.records.times import canonical_time, parse_time

RULES = rules.parse_rules("version: 1\ndefaults: {objects: {person: }}\n", "rules.yaml")
ARRIVED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("capture_time", "is_wrong"),
    [
        ("1970-01-01T00:00:00Z", True),
        ("1980-01-06T00:00:00Z", True),
        ("2000-01-01T00:10:00Z", True),
        ("2000-06-01T00:00:00Z", True),
        ("2009-12-31T23:59:59Z", True),
        ("2010-01-01T00:00:00Z", True),
        ("2012-01-02T23:59:59Z", True),
        ("2021-01-03T01:00:00Z", True),  # It fell back to 2021-01-01, 49 hours ago.
        ("2025-01-01T00:00:00Z", True),
        ("2025-01-05T00:00:00Z", True),
        ("2025-03-04T05:06:06Z", True),
        ("2025-03-04T05:06:07Z", False),
        ("2026-01-01T00:00:00Z", False),  # It may have waited for two months.
        ("2026-03-04T05:06:00Z", False),
        ("9999-12-31T23:59:59Z", False),
    ],
)
def test_which_times_are_not_trusted(capture_time: str, is_wrong: bool) -> None:
    assert is_misdated(parse_time(capture_time), ARRIVED) is is_wrong


@pytest.mark.parametrize(
    ("capture_time", "is_reset"),
    [
        ("1970-01-01T00:00:00Z", True),
        ("2009-12-31T23:59:59Z", True),
        ("2010-01-01T00:00:00Z", True),
        ("2012-01-02T23:59:59Z", True),
        ("2012-01-03T00:00:00Z", False),
        ("2014-12-31T10:00:00Z", True),  # A new year 14 hours east of Greenwich.
        ("2014-12-31T09:59:59Z", False),
        ("2015-06-01T00:00:00Z", False),
        ("2025-01-02T00:00:00Z", True),
        ("2026-01-01T00:00:00Z", False),  # It may have waited for two months.
        ("9999-12-31T23:59:59Z", False),
    ],
)
def test_at_which_times_a_clock_seems_reset(capture_time: str, is_reset: bool) -> None:
    assert seems_reset(parse_time(capture_time), ARRIVED) is is_reset


@pytest.mark.parametrize(
    ("capture_time", "is_wrong"),
    [
        ("1970-01-01T00:00:00Z", True),
        ("2009-12-31T23:59:59Z", True),
        ("2012-01-01T00:00:00Z", False),
    ],
)
def test_without_an_arrival_only_times_before_2010_are_not_trusted(
    capture_time: str, is_wrong: bool
) -> None:
    assert is_misdated(parse_time(capture_time)) is is_wrong
    assert seems_reset(parse_time(capture_time)) is is_wrong


@given(
    delay=st.timedeltas(timedelta(days=-30), timedelta(days=365)),
    arrived=st.datetimes(
        datetime(2011, 2, 1), datetime(2200, 1, 1), timezones=st.just(timezone.utc)
    ),
)
def test_an_image_that_came_within_a_year_is_always_trusted(
    delay: timedelta, arrived: datetime
) -> None:
    assert not is_misdated(arrived - delay, arrived)


def alert(capture_time: str, arrived: datetime | None, stream_time: str | None = None) -> Alert:
    image = judged("hall", capture_time, [("person", "alert")])
    changed = None if arrived is None else arrived.timestamp()
    image = dataclasses.replace(
        image, image=dataclasses.replace(image.image, changed=changed, stream_time=stream_time)
    )
    made = alert_for(image, "out", RULES, ["guards"])
    assert made is not None
    return made


HOUR = timedelta(hours=1)


@pytest.mark.parametrize("capture_time", ["1970-01-01T00:10:00Z", "2000-01-01T05:00:00Z"])
def test_an_alert_with_a_wrong_time_is_as_old_as_its_arrival(capture_time: str) -> None:
    waited = alert(capture_time, ARRIVED)
    assert not is_too_old(waited, 3600, ARRIVED + HOUR)
    assert is_too_old(waited, 3600, ARRIVED + 1.01 * HOUR)
    assert not is_too_old(alert(capture_time, None), 3600, ARRIVED)


@given(
    fell_back_to=st.datetimes(
        datetime(1970, 1, 1), datetime(2025, 1, 1), timezones=st.just(timezone.utc)
    ),
    running=st.timedeltas(timedelta(), timedelta(days=60)),
    waited=st.timedeltas(timedelta(), HOUR),
)
def test_a_camera_that_fell_back_a_year_or_more_is_never_silenced(
    fell_back_to: datetime, running: timedelta, waited: timedelta
) -> None:
    """However long it has run since, and whatever the date is at which its clock begins."""
    late = alert(canonical_time(fell_back_to + running), ARRIVED)
    assert not is_too_old(late, 3600, ARRIVED + waited)
    assert is_too_old(late, 3600, ARRIVED + 1.01 * HOUR)


@pytest.mark.parametrize("capture_time", ["2021-01-01T00:10:00Z", "2021-01-03T01:00:00Z"])
def test_an_image_without_a_time_of_its_file_arrived_at_the_event_time_of_the_stream(
    capture_time: str,
) -> None:
    """As that of a notification."""
    waited = alert(capture_time, None, stream_time="2026-03-04T05:06:07Z")
    assert waited.arrived == ARRIVED
    assert not is_too_old(waited, 3600, ARRIVED + HOUR)
    assert is_too_old(waited, 3600, ARRIVED + 1.01 * HOUR)
    assert is_too_old(alert(capture_time, None), 3600, ARRIVED)


def test_the_time_of_a_file_that_a_wrong_clock_has_given_it_is_no_arrival() -> None:
    """A camera that sends its files' times too, as 1970."""
    file_time = datetime(1970, 1, 1, 0, 10, tzinfo=timezone.utc)
    sent = alert("1970-01-01T00:10:00Z", file_time)
    assert sent.arrived is None
    assert not is_too_old(sent, 3600, ARRIVED)


def test_an_image_of_1970_with_an_older_time_of_its_file_is_as_old_as_that() -> None:
    """As a batch sees what `rsync -a` has brought; a stream sees when it was brought."""
    assert is_too_old(alert("1970-01-01T00:10:00Z", ARRIVED - 2 * HOUR), 3600, ARRIVED)


def test_an_old_alert_with_a_right_time_is_too_old_whenever_it_arrives() -> None:
    assert is_too_old(alert("2025-06-01T00:00:00Z", ARRIVED), 3600, ARRIVED)
    assert is_too_old(alert("2026-03-04T04:06:06Z", ARRIVED), 3600, ARRIVED)
    assert not is_too_old(alert("2026-03-04T04:06:07Z", ARRIVED), 3600, ARRIVED)


@given(
    age=st.timedeltas(timedelta(days=-1), timedelta(days=364)),
    delay=st.timedeltas(timedelta(), timedelta(days=300)),
    max_age=st.integers(0, 10_000_000),
)
def test_the_age_of_a_credible_time_never_depends_on_the_arrival(
    age: timedelta, delay: timedelta, max_age: int
) -> None:
    taken = ARRIVED - age
    text = canonical_time(taken)
    for arrived in (None, min(taken + delay, ARRIVED)):
        assert is_too_old(alert(text, arrived), max_age, ARRIVED) is (
            age > timedelta(seconds=max_age)
        )
