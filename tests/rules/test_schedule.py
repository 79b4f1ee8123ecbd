"""Schedules and nights in local time, across midnight and both changes of the clock."""

import pickle
from datetime import datetime, time, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.schedule import (
    Night,
    Schedule,
    UnreadableError,
    WeeklyPeriod,
    local_time,
    parse_days,
    parse_duration,
    parse_time_of_day,
    period_problem,
    timezone_problem,
)

MON, TUE, WED, THU, FRI, SAT, SUN = range(7)

OFFICE = WeeklyPeriod(frozenset({MON, TUE, WED, THU, FRI}), time(7), time(18))
OVERNIGHT = WeeklyPeriod(frozenset({MON, FRI}), time(18), time(7))


def on(day, clock):
    """Returns a time on a day of the week that begins on Monday, 5 January 2026."""
    return datetime.combine(datetime(2026, 1, 5 + day), time.fromisoformat(clock))


@pytest.mark.parametrize(
    ("period", "day", "clock", "is_inside"),
    [
        (OFFICE, MON, "06:59:59.999999", False),
        (OFFICE, MON, "07:00", True),
        (OFFICE, MON, "17:59:59.999999", True),
        (OFFICE, MON, "18:00", False),
        (OFFICE, SAT, "12:00", False),
        # across midnight: the period belongs to the day on which it starts
        (OVERNIGHT, MON, "17:59", False),
        (OVERNIGHT, MON, "18:00", True),
        (OVERNIGHT, MON, "23:59", True),
        (OVERNIGHT, TUE, "00:00", True),
        (OVERNIGHT, TUE, "06:59:59", True),
        (OVERNIGHT, TUE, "07:00", False),
        (OVERNIGHT, TUE, "18:00", False),
        (OVERNIGHT, MON, "03:00", False),
        (OVERNIGHT, SAT, "03:00", True),
        (OVERNIGHT, SUN, "03:00", False),
        # from Sunday into Monday
        (WeeklyPeriod(frozenset({SUN}), time(18), time(7)), MON, "03:00", True),
        (WeeklyPeriod(frozenset({SUN}), time(18), time(7)), SUN, "03:00", False),
        # a whole day
        (WeeklyPeriod(frozenset({SAT})), SAT, "00:00", True),
        (WeeklyPeriod(frozenset({SAT})), SAT, "23:59:59.999999", True),
        (WeeklyPeriod(frozenset({SAT})), SUN, "00:00", False),
        (WeeklyPeriod(frozenset({SAT})), FRI, "23:59:59.999999", False),
        (WeeklyPeriod(), WED, "11:11", True),
        # from a time to the same time of the next day
        (WeeklyPeriod(frozenset({MON}), time(8), time(8)), MON, "07:59", False),
        (WeeklyPeriod(frozenset({MON}), time(8), time(8)), MON, "08:00", True),
        (WeeklyPeriod(frozenset({MON}), time(8), time(8)), TUE, "07:59", True),
        (WeeklyPeriod(frozenset({MON}), time(8), time(8)), TUE, "08:00", False),
        # one end is midnight
        (WeeklyPeriod(frozenset({MON}), start=time(18)), MON, "23:59", True),
        (WeeklyPeriod(frozenset({MON}), start=time(18)), TUE, "00:00", False),
        (WeeklyPeriod(frozenset({MON}), start=time(18)), MON, "17:59", False),
        (WeeklyPeriod(frozenset({MON}), end=time(7)), MON, "00:00", True),
        (WeeklyPeriod(frozenset({MON}), end=time(7)), MON, "07:00", False),
        (WeeklyPeriod(frozenset({MON}), end=time(7)), TUE, "06:59", False),
        (WeeklyPeriod(frozenset()), MON, "12:00", False),
    ],
)
def test_a_period_includes_its_start_and_excludes_its_end(period, day, clock, is_inside):
    assert period.contains(on(day, clock)) is is_inside


@pytest.mark.parametrize(
    ("schedule", "day", "clock", "armed"),
    [
        (Schedule(), WED, "12:00", True),
        (Schedule(armed=()), WED, "12:00", False),
        (Schedule(armed=(OVERNIGHT, WeeklyPeriod(frozenset({SUN})))), SUN, "12:00", True),
        (Schedule(armed=(OVERNIGHT, WeeklyPeriod(frozenset({SUN})))), SUN + 1, "12:00", False),
        (Schedule(disarmed=(OFFICE,)), WED, "12:00", False),
        (Schedule(disarmed=(OFFICE,)), WED, "18:00", True),
        (
            Schedule((OVERNIGHT,), (WeeklyPeriod(start=time(20), end=time(20, 30)),)),
            MON,
            "20:00",
            False,
        ),
        (
            Schedule((OVERNIGHT,), (WeeklyPeriod(start=time(20), end=time(20, 30)),)),
            MON,
            "20:30",
            True,
        ),
    ],
)
def test_disarmed_periods_are_subtracted_from_armed_periods(schedule, day, clock, armed):
    assert schedule.is_armed(on(day, clock)) is armed


times = st.times().map(lambda time_of_day: time_of_day.replace(microsecond=0))
periods = st.builds(
    WeeklyPeriod, days=st.frozensets(st.integers(0, 6)), start=times, end=times
) | st.builds(WeeklyPeriod, days=st.frozensets(st.integers(0, 6)))
local_times = st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1))


@given(st.lists(periods, max_size=3).map(tuple), local_times)
def test_the_same_periods_armed_or_disarmed_are_complementary(week, local):
    assert Schedule(armed=week).is_armed(local) is not Schedule(disarmed=week).is_armed(local)


@given(times, times, local_times)
def test_a_period_and_the_reverse_period_are_complementary(start, end, local):
    forward = WeeklyPeriod(start=start, end=end).contains(local)
    backward = WeeklyPeriod(start=end, end=start).contains(local)
    assert backward is (True if start == end else not forward)


@given(periods, local_times)
def test_a_week_later_is_the_same(period, local):
    assert period.contains(local) is period.contains(local + timedelta(days=7))


@pytest.mark.parametrize(
    ("night", "clock", "brightness", "is_night"),
    [
        (Night(time(20), time(6)), "20:00", None, True),
        (Night(time(20), time(6)), "05:59", 0.9, True),
        (Night(time(20), time(6)), "06:00", 0.0, False),
        (Night(max_brightness=0.2), "12:00", 0.2, True),
        (Night(max_brightness=0.2), "12:00", 0.2001, False),
        (Night(max_brightness=0.2), "03:00", None, False),
        (Night(max_brightness=0.0), "12:00", 0.0, True),
        (Night(time(20), time(6), 0.2), "12:00", 0.1, True),
        (Night(time(20), time(6), 0.2), "22:00", 0.9, True),
        (Night(time(20), time(6), 0.2), "22:00", None, True),
        (Night(time(20), time(6), 0.2), "12:00", 0.9, False),
        (Night(start=time(20)), "23:59", None, True),
        (Night(start=time(20)), "00:00", None, False),
        (Night(end=time(6)), "05:59", None, True),
        (Night(end=time(6)), "23:59", None, False),
        (Night(), "03:00", 0.0, False),
    ],
)
def test_either_the_clock_or_the_brightness_makes_it_night(night, clock, brightness, is_night):
    assert night.is_night(on(WED, clock), brightness) is is_night


def utc(text):
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


EARLY = WeeklyPeriod(frozenset({SUN}), time(2, 30), time(4))
LATE = WeeklyPeriod(frozenset({SUN}), time(1), time(2, 30))
SATURDAY_NIGHT = WeeklyPeriod(frozenset({SAT}), time(20), time(6))


@pytest.mark.parametrize(
    ("zone", "timestamp", "clock", "early", "late", "night"),
    [
        # Berlin skips 02:00 to 03:00 on 29 March 2026, at 01:00 UTC
        ("Europe/Berlin", "2026-03-28T18:59", "19:59", False, False, False),
        ("Europe/Berlin", "2026-03-28T19:00", "20:00", False, False, True),
        ("Europe/Berlin", "2026-03-28T22:59", "23:59", False, False, True),
        ("Europe/Berlin", "2026-03-28T23:00", "00:00", False, False, True),
        ("Europe/Berlin", "2026-03-29T00:59", "01:59", False, True, True),
        ("Europe/Berlin", "2026-03-29T01:00", "03:00", True, False, True),
        ("Europe/Berlin", "2026-03-29T03:59", "05:59", False, False, True),
        ("Europe/Berlin", "2026-03-29T04:00", "06:00", False, False, False),
        # and repeats them on 25 October, at 01:00 UTC
        ("Europe/Berlin", "2026-10-24T18:00", "20:00", False, False, True),
        ("Europe/Berlin", "2026-10-24T22:00", "00:00", False, False, True),
        ("Europe/Berlin", "2026-10-25T00:29", "02:29", False, True, True),
        ("Europe/Berlin", "2026-10-25T00:30", "02:30", True, False, True),
        ("Europe/Berlin", "2026-10-25T01:29", "02:29", False, True, True),
        ("Europe/Berlin", "2026-10-25T01:30", "02:30", True, False, True),
        ("Europe/Berlin", "2026-10-25T04:59", "05:59", False, False, True),
        ("Europe/Berlin", "2026-10-25T05:00", "06:00", False, False, False),
        # New York skips 02:00 to 03:00 on 8 March, at 07:00 UTC
        ("America/New_York", "2026-03-08T01:00", "20:00", False, False, True),
        ("America/New_York", "2026-03-08T06:59", "01:59", False, True, True),
        ("America/New_York", "2026-03-08T07:00", "03:00", True, False, True),
        ("America/New_York", "2026-03-08T10:00", "06:00", False, False, False),
        # and repeats 01:00 to 02:00 on 1 November, at 06:00 UTC
        ("America/New_York", "2026-11-01T00:00", "20:00", False, False, True),
        ("America/New_York", "2026-11-01T05:00", "01:00", False, True, True),
        ("America/New_York", "2026-11-01T06:00", "01:00", False, True, True),
        ("America/New_York", "2026-11-01T07:29", "02:29", False, True, True),
        ("America/New_York", "2026-11-01T07:30", "02:30", True, False, True),
        ("America/New_York", "2026-11-01T11:00", "06:00", False, False, False),
        # Lord Howe repeats 01:30 to 02:00 on 5 April, at 15:00 UTC of the day before
        ("Australia/Lord_Howe", "2026-04-04T14:30", "01:30", False, True, True),
        ("Australia/Lord_Howe", "2026-04-04T14:59", "01:59", False, True, True),
        ("Australia/Lord_Howe", "2026-04-04T15:00", "01:30", False, True, True),
        ("Australia/Lord_Howe", "2026-04-04T16:00", "02:30", True, False, True),
        # and skips 02:00 to 02:30 on 4 October, at 15:30 UTC of the day before
        ("Australia/Lord_Howe", "2026-10-03T15:29", "01:59", False, True, True),
        ("Australia/Lord_Howe", "2026-10-03T15:30", "02:30", True, False, True),
        ("Australia/Lord_Howe", "2026-10-03T19:00", "06:00", False, False, False),
        # Santiago has no midnight on 6 September: the clock goes from 23:59 to 01:00
        ("America/Santiago", "2026-09-06T03:59", "23:59", False, False, True),
        ("America/Santiago", "2026-09-06T04:00", "01:00", False, True, True),
        ("UTC", "2026-03-29T02:30", "02:30", True, False, True),
    ],
)  # fmt: skip
def test_periods_follow_the_local_clock_when_it_changes(zone, timestamp, clock, early, late, night):
    """`EARLY` starts and `LATE` ends at 02:30 on Sunday; the night is that from Saturday."""
    local = local_time(utc(timestamp), zone)
    assert f"{local:%H:%M}" == clock
    assert (EARLY.contains(local), LATE.contains(local), SATURDAY_NIGHT.contains(local)) == (
        early,
        late,
        night,
    )


@pytest.mark.parametrize(
    ("zone", "first", "hours"),
    [
        ("Europe/Berlin", "2026-03-28T12:00", 9.0),
        ("Europe/Berlin", "2026-10-24T12:00", 11.0),
        ("Europe/Berlin", "2026-06-06T12:00", 10.0),
        ("America/New_York", "2026-03-07T17:00", 9.0),
        ("America/New_York", "2026-10-31T17:00", 11.0),
        ("Australia/Lord_Howe", "2026-04-04T02:00", 10.5),
        ("Australia/Lord_Howe", "2026-10-03T02:00", 9.5),
    ],
)
def test_a_night_with_a_change_of_the_clock_is_longer_or_shorter_without_a_gap(zone, first, hours):
    minutes = [
        SATURDAY_NIGHT.contains(local_time(utc(first) + timedelta(minutes=minute), zone))
        for minute in range(24 * 60)
    ]
    begins = minutes.index(True)
    length = int(hours * 60)
    assert minutes == [False] * begins + [True] * length + [False] * (24 * 60 - begins - length)


def test_local_time_does_not_depend_on_the_offset_of_the_timestamp():
    berlin = local_time(utc("2026-07-01T22:30"), "Europe/Berlin")
    assert berlin.isoformat() == "2026-07-02T00:30:00+02:00"
    assert berlin.weekday() == THU
    tokyo = local_time(berlin, "Asia/Tokyo")
    assert tokyo.isoformat() == "2026-07-02T07:30:00+09:00"


def test_a_timestamp_without_an_offset_is_rejected():
    with pytest.raises(ValueError, match="2026-07-01T22:30:00 has no offset"):
        local_time(datetime(2026, 7, 1, 22, 30), "UTC")


@pytest.mark.parametrize(
    ("name", "problem", "remedy"),
    [
        ("Europe/Berln", "there is no time zone 'Europe/Berln'", "did you mean 'Europe/Berlin'?"),
        ("europe/berlin", "there is no time zone 'europe/berlin'", "did you mean 'Europe/Berlin'?"),
        ("Berlin", "there is no time zone 'Berlin'", "did you mean 'Europe/Berlin'?"),
        ("Europe/New York", "there is no time zone 'Europe/New York'",
         "did you mean 'America/New_York'?"),
        ("+01:00", "there is no time zone '+01:00'",
         "write an IANA name such as Europe/Berlin or America/New_York, or UTC"),
        ("", "there is no time zone ''",
         "write an IANA name such as Europe/Berlin or America/New_York, or UTC"),
        ("../../etc/passwd", "there is no time zone '../../etc/passwd'", "write an IANA name"),
        ("localtime", "there is no time zone 'localtime'", ""),
        ("Factory", "there is no time zone 'Factory'", ""),
    ],
)  # fmt: skip
def test_an_unknown_time_zone_is_reported_with_the_nearest(name, problem, remedy):
    problem_and_remedy = timezone_problem(name)
    assert problem_and_remedy is not None
    assert problem_and_remedy[0] == problem
    assert remedy in problem_and_remedy[1]


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "America/Argentina/Ushuaia", "CET"])
def test_a_known_time_zone_can_be_used(name):
    assert timezone_problem(name) is None
    assert local_time(utc("2026-01-01T00:00"), name).utcoffset() is not None


@pytest.mark.parametrize(
    ("text", "is_end", "expected"),
    [
        ("18:00", False, time(18)),
        ("00:00", False, time(0)),
        ("7:05", False, time(7, 5)),
        ("23:59", True, time(23, 59)),
        ("24:00", True, time(0)),
    ],
)
def test_a_time_of_day_is_parsed(text, is_end, expected):
    assert parse_time_of_day(text, is_end=is_end) == expected


@pytest.mark.parametrize(
    ("text", "is_end", "message"),
    [
        ("24:00", False, 'no period starts at 24:00; write "00:00" of the next day'),
        ("24:01", True, "'24:01' is not a time of day; must be from \"00:00\" to \"24:00\""),
        ("18:60", False, "'18:60' is not a time of day; must be from \"00:00\" to \"23:59\""),
        ("18", False, "'18' is not a time of day; "
         'write hours and minutes, such as "07:30" or "18:00"'),
        ("6pm", False, "'6pm' is not a time of day; write hours and minutes"),
        ("18:00:30", False, "'18:00:30' is not a time of day; write hours and minutes"),
        ("18:00Z", False, "'18:00Z' is not a time of day; write hours and minutes"),
        ("١٨:٠٠", False, "'١٨:٠٠' is not a time of day; write hours and minutes"),  # noqa: RUF001
        ("", False, "'' is not a time of day; write hours and minutes"),
        ("0 18 * * *", False, "'0 18 * * *' is a cron expression, which has no end; "
         "write when it starts and ends, such as {days: "),
        ("18:00-07:00", False, "'18:00-07:00' is a text; "
         'write {start: "18:00", end: "07:00"}'),
    ],
)  # fmt: skip
def test_a_text_that_is_no_time_of_day_is_rejected(text, is_end, message):
    with pytest.raises(UnreadableError) as error:
        parse_time_of_day(text, is_end=is_end)
    assert str(error.value).startswith(message)


def test_days_are_parsed_by_their_names():
    assert parse_days(["mon", "sun", "mon"]) == {MON, SUN}
    assert parse_days(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]) == set(range(7))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no days; leave days out for every day"),
        (["Mon"], "'Mon' is not a day; did you mean 'mon'?"),
        (["mon", "Tuesday"], "'Tuesday' is not a day; did you mean 'tue'?"),
        (["fru"], "'fru' is not a day; did you mean 'fri'?"),
        (["workday"], "'workday' is not a day; the days are: mon, tue, wed, thu, fri, sat, sun"),
        (["mon-wed"], "'mon-wed' is not a day; write [mon, tue, wed]"),
        (["sat-mon"], "'sat-mon' is not a day; write [sat, sun, mon]"),
        ("mon", "'mon' is not a list of days; write [mon]"),
        ("mon-fri", "'mon-fri' is not a list of days; write [mon, tue, wed, thu, fri]"),
        ("weekends", "'weekends' is not a list of days; write [mon, tue]"),
        ("* * * * 1-5", "'* * * * 1-5' is a cron expression, which has no end; write when"),
    ],
)
def test_a_value_that_is_no_list_of_days_is_rejected(names, message):
    with pytest.raises(UnreadableError) as error:
        parse_days(names)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("5m", 300), ("24h", 86_400), ("7d", 604_800), ("0s", 0), ("366d", 31_622_400)],
)
def test_a_duration_is_parsed(text, seconds):
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5", "'5' is not a duration; "
         "write a whole number and s, m, h or d, such as 30s, 5m, 24h or 7d"),
        ("5min", "'5min' is not a duration; write a whole number"),
        ("1h30m", "'1h30m' is not a duration; write a whole number"),
        ("1.5h", "'1.5h' is not a duration; write a whole number"),
        ("-5m", "'-5m' is not a duration; write a whole number"),
        ("5m\n", "'5m\\n' is not a duration; write a whole number"),
        ("0 18 * * *", "'0 18 * * *' is not a duration; write a whole number"),
        ("367d", "367d is too long; must be at most 366d"),
        ("9" * 5000 + "d", "99999"),
    ],
)  # fmt: skip
def test_a_text_that_is_no_duration_is_rejected(text, message):
    with pytest.raises(UnreadableError) as error:
        parse_duration(text)
    assert str(error.value).startswith(message)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("text", "problem", "remedy"),
    [
        ("mon-fri 18:00-07:00", "'mon-fri 18:00-07:00' is a text",
         'write {days: [mon, tue, wed, thu, fri], start: "18:00", end: "07:00"}'),
        ("Sat 8:00 - 12:30", "'Sat 8:00 - 12:30' is a text",
         'write {days: [sat], start: "8:00", end: "12:30"}'),
        ("18:00-07:00", "'18:00-07:00' is a text", 'write {start: "18:00", end: "07:00"}'),
        *[
            (cron, f"{cron!r} is a cron expression, which has no end",
             'write when it starts and ends, such as '
             '{days: [mon, tue], start: "18:00", end: "07:00"}')
            for cron in ("0 18 * * *", "*/5 8-17 * * 1-5", "0 0 18 * * MON-FRI", "@daily")
        ],
        ("weekdays at night", "'weekdays at night' is not a period",
         'write {days: [mon, tue], start: "18:00", end: "07:00"}'),
        ("foo-bar 18:00-07:00", "'foo-bar 18:00-07:00' is not a period", "write {days: [mon, tue]"),
    ],
)  # fmt: skip
def test_a_text_in_place_of_a_period_is_rejected_with_a_remedy(text, problem, remedy):
    problem_and_remedy = period_problem(text)
    assert problem_and_remedy[0] == problem
    assert problem_and_remedy[1].startswith(remedy)


def test_schedules_are_hashable_and_picklable():
    schedule = Schedule((OFFICE, OVERNIGHT), (WeeklyPeriod(),))
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert len({schedule, Schedule(), Night(time(20)), Night(max_brightness=0.2)}) == 4
    error = pickle.loads(pickle.dumps(UnreadableError("a", "b")))
    assert (error.problem, error.remedy, str(error)) == ("a", "b", "a; b")
