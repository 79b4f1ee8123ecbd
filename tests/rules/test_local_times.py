"""The local time of a camera: its zone, and how it is written."""

import re
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules import parse_rules
from rules.local_times import local_json, local_words

ZONES = (
    *("Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Pacific/Apia", "UTC", "GMT"),
    *("Africa/Monrovia", "Europe/Amsterdam"),
)
RFC_3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3}|\.\d{6})?[+-]\d\d:\d\d"
ANY_MOMENT = st.datetimes(timezones=st.just(timezone.utc))


@pytest.mark.parametrize(
    ("time", "zone", "json", "words"),
    [
        (
            "2026-01-31T23:59:59",
            "Europe/Berlin",
            "2026-02-01T00:59:59+01:00",
            "2026-02-01 00:59:59 (Europe/Berlin, UTC+1)",
        ),
        (
            "2026-10-25T00:30:00.250",
            "Europe/Berlin",
            "2026-10-25T02:30:00.250+02:00",
            "2026-10-25 02:30:00 (Europe/Berlin, UTC+2)",
        ),
        (
            "2026-10-25T01:30:00.250001",
            "Europe/Berlin",
            "2026-10-25T02:30:00.250001+01:00",
            "2026-10-25 02:30:00 (Europe/Berlin, UTC+1)",
        ),
        (
            "2026-01-31T12:00:00",
            "America/St_Johns",
            "2026-01-31T08:30:00-03:30",
            "2026-01-31 08:30:00 (America/St_Johns, UTC-3:30)",
        ),
        ("2026-01-31T12:00:00", "UTC", "2026-01-31T12:00:00+00:00", "2026-01-31 12:00:00 (UTC)"),
        (
            "2026-01-31T12:00:00",
            "GMT",
            "2026-01-31T12:00:00+00:00",
            "2026-01-31 12:00:00 (GMT, UTC+0)",
        ),
        (
            "1970-01-01T00:00:00",
            "Africa/Monrovia",
            "1969-12-31T23:16:00-00:44",
            "1969-12-31 23:16:00 (Africa/Monrovia, UTC-0:44)",
        ),
        (
            "1930-01-01T12:00:00",
            "Europe/Amsterdam",
            "1930-01-01T12:20:00+00:20",
            "1930-01-01 12:20:00 (Europe/Amsterdam, UTC+0:20)",
        ),
        (
            "0001-01-01T00:00:00",
            "America/New_York",
            "0001-01-01T00:00:00+00:00",
            "0001-01-01 00:00:00 (UTC)",
        ),
    ],
)
def test_a_local_time_is_written_with_its_zone(time, zone, json, words):
    moment = datetime.fromisoformat(time).replace(tzinfo=timezone.utc)
    assert local_json(moment, zone) == json
    assert local_words(moment, zone) == words


MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(timezone.utc))


@given(st.one_of(MOMENTS, ANY_MOMENT), st.sampled_from(ZONES))
def test_the_moment_can_be_read_from_the_json(moment, zone):
    json = local_json(moment, zone)
    assert re.fullmatch(RFC_3339, json)
    assert datetime.fromisoformat(json) == moment


@given(MOMENTS, st.sampled_from(ZONES), st.integers(1, 7200))
def test_two_moments_within_hours_never_have_the_same_words(moment, zone, seconds):
    later = moment + timedelta(seconds=seconds)
    assert local_words(moment, zone) != local_words(later, zone)


LAYERS = """version: 1
{names}
defaults: {{{defaults}}}
cameras:
  hall: {{{camera}}}
"""


@pytest.mark.parametrize(
    ("names", "defaults", "camera", "zone"),
    [
        ("", "", "", "UTC"),
        ("names: {timezone: Asia/Tokyo}", "", "", "Asia/Tokyo"),
        ("names: {timezone: Asia/Tokyo}", "timezone: Europe/Berlin", "", "Europe/Berlin"),
        ("names: {timezone: Asia/Tokyo}", "timezone: UTC", "", "UTC"),
        ("", "timezone: Europe/Berlin", "timezone: Asia/Kolkata", "Asia/Kolkata"),
        ("", "", "names: {timezone: Asia/Kolkata}", "Asia/Kolkata"),
        ("", "timezone: Europe/Berlin", "names: {timezone: Asia/Kolkata}", "Europe/Berlin"),
    ],
)
def test_the_zone_of_a_camera(names, defaults, camera, zone):
    rules = parse_rules(LAYERS.format(names=names, defaults=defaults, camera=camera), "r")
    assert rules.timezone_of("hall") == zone
    assert rules.for_camera("hall").local_zone == zone
    by_option = "America/Lima" if zone == "UTC" and not defaults else zone
    assert rules.timezone_of("hall", "America/Lima") == by_option
