"""Whether times in names are local time: found out where it is so, and never claimed of copies."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rules.local_offsets import offset_text, seen_offset, zone_for
from rules.schedule import zone_of

UTC = timezone.utc
HOUR = timedelta(hours=1)
STARTS = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))
GAPS = st.lists(st.integers(1, 7200), min_size=8, max_size=40)
DELAYS = st.integers(0, 60)
ZONES = [
    *("Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Adelaide", "Asia/Tokyo"),
    *("America/St_Johns", "Pacific/Auckland", "America/Phoenix"),
]


def captured(start: datetime, gaps: list[int]) -> list[datetime]:
    moments = [start]
    for gap in gaps:
        moments.append(moments[-1] + timedelta(seconds=gap))
    return moments


def in_zone(moment: datetime, zone: str) -> datetime:
    """The local time of a moment, read as UTC."""
    return moment.astimezone(zone_of(zone)).replace(tzinfo=UTC)


@given(start=STARTS, gaps=GAPS, delay=DELAYS, zone=st.sampled_from(ZONES))
def test_local_time_is_found_out_with_a_zone_that_fits(start, gaps, delay, zone):
    moments = captured(start, gaps)
    assume(moments[-1] - moments[0] >= 2 * HOUR)
    pairs = [(in_zone(one, zone), one + timedelta(seconds=delay)) for one in moments]
    assert seen_offset(pairs) == moments[-1].astimezone(zone_of(zone)).utcoffset()
    found = zone_for(pairs)
    assert found is not None
    assert all(in_zone(one, found) == in_zone(one, zone) for one in moments)


@given(start=STARTS, gaps=GAPS, delays=st.lists(DELAYS, min_size=41, max_size=41))
def test_of_names_in_utc_nothing_is_claimed(start, gaps, delays):
    moments = captured(start, gaps)
    pairs = [
        (one, one + timedelta(seconds=delay)) for one, delay in zip(moments, delays, strict=False)
    ]
    assert seen_offset(pairs) is None


@given(
    start=STARTS,
    gaps=GAPS,
    zone=st.sampled_from(["UTC", *ZONES]),
    later=st.integers(0, 10**8),
    seconds_a_file=st.floats(0, 0.2),
)
def test_of_files_that_were_copied_later_nothing_is_claimed(
    start, gaps, zone, later, seconds_a_file
):
    moments = captured(start, gaps)
    copied = moments[-1] + timedelta(seconds=later)
    pairs = [
        (in_zone(one, zone), copied + timedelta(seconds=number * seconds_a_file))
        for number, one in enumerate(moments)
    ]
    assert seen_offset(pairs) is None


@given(start=STARTS, gaps=GAPS, random=st.randoms(use_true_random=False))
def test_of_files_that_came_irregularly_nothing_is_claimed(start, gaps, random):
    moments = captured(start, gaps)
    pairs = [(one, one + timedelta(seconds=random.uniform(180, 1620))) for one in moments]
    assert seen_offset(pairs) is None


def even(offset: timedelta, number: int = 6, span: timedelta = 2 * HOUR):
    start = datetime(2026, 1, 31, tzinfo=UTC)
    moments = [start + span * index / (number - 1) for index in range(number)]
    return [(one + offset, one + timedelta(seconds=3)) for one in moments]


@pytest.mark.parametrize(
    ("pairs", "offset"),
    [
        (even(HOUR), HOUR),
        (even(HOUR / 2), HOUR / 2),
        (even(-5 * HOUR), -5 * HOUR),
        (even(14 * HOUR), 14 * HOUR),
        (even(15 * HOUR), None),
        (even(HOUR * 3 / 4), None),
        (even(timedelta(0)), None),
        (even(HOUR, number=5), HOUR),
        (even(HOUR, number=4), None),
        (even(HOUR, span=HOUR), HOUR),
        (even(HOUR, span=HOUR - timedelta(seconds=1)), None),
        (even(HOUR + timedelta(minutes=2)), HOUR),
        (even(HOUR - timedelta(minutes=3)), None),
        ([], None),
        (even(HOUR, number=19) + even(timedelta(minutes=40), number=2), HOUR),
        (even(HOUR, number=8) + even(timedelta(minutes=40), number=2), None),
        (even(HOUR) + even(3 * HOUR), None),
    ],
)
def test_what_is_clear_and_what_is_not(pairs, offset):
    assert seen_offset(pairs) == offset


def test_a_change_of_the_clock_on_the_way_is_no_contradiction():
    start = datetime(2026, 3, 28, 12, tzinfo=UTC)
    moments = [start + HOUR * number for number in range(30)]
    pairs = [(in_zone(one, "Europe/Berlin"), one) for one in moments]
    assert seen_offset(pairs) == 2 * HOUR
    assert zone_for(pairs) == "Europe/Berlin"


def test_an_offset_of_no_zone_has_none():
    assert zone_for(even(HOUR * 13 + HOUR / 2)) is None
    assert zone_for([]) is None


@pytest.mark.parametrize(
    ("minutes", "text"),
    [(60, "UTC+1"), (-210, "UTC-3:30"), (330, "UTC+5:30"), (0, "UTC+0"), (-300, "UTC-5")],
)
def test_how_an_offset_is_written(minutes, text):
    assert offset_text(timedelta(minutes=minutes)) == text
