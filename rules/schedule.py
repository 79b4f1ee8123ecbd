"""When a camera is armed and when it is night, by its own clock.

A picture is judged by its own time, on the clock of the camera's time zone as a person there reads
it; `local_time` turns one into the other. Where that clock is put forward, the hour that it skips
is on no picture: a period that starts in that hour starts when the clock has jumped, one that ends
in it ends there. Where the clock is put back, it shows an hour twice, and what a period says of
that hour holds both times: one that ends at 02:30 holds from 02:00 to 02:30 once more. A night from
20:00 to 06:00 is thus an hour shorter or longer on those days, with no gap. Weekdays change at
midnight of the same clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from functools import cache
from importlib import resources
from zoneinfo import ZoneInfo

from rules.errors import shortened, suggestion

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""The days of the week as a rule file writes them, in the order of `datetime.weekday`."""

EVERY_DAY = frozenset(range(len(DAYS)))

LONGEST_DURATION = timedelta(days=366)

_MIDNIGHT = time(0)
_TIME = re.compile(r"([0-9]{1,2}):([0-9]{2})")
_PERIOD = re.compile(
    r"(?:(?P<first>[a-z]{3,9})(?:-(?P<last>[a-z]{3,9}))?\s+)?"
    r"(?P<start>[0-9]{1,2}:[0-9]{2})\s*-\s*(?P<end>[0-9]{1,2}:[0-9]{2})"
)
_CRON_FIELD = r"[0-9*/,\-]+|[a-z]{3}(?:[-,][a-z]{3})*"
_CRON = re.compile(rf"(?:{_CRON_FIELD})(?:\s+(?:{_CRON_FIELD})){{4,5}}|@[a-z]+")
_DURATION = re.compile(r"([0-9]+) ?([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

_EXAMPLE = '{days: [mon, tue], start: "18:00", end: "07:00"}'


class Unreadable(ValueError):
    """A text of a rule file that is no time, day or duration.

    Attributes:
        problem: what is wrong.
        remedy: what would be right.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}"


@dataclass(frozen=True)
class Period:
    """A time of the day on some days of the week.

    Attributes:
        days: the days on which it starts, 0 for Monday to 6 for Sunday.
        start: the first moment inside.
        end: the first moment after it. Not after ``start``: on the next day, so that a period from
            18:00 to 00:00 ends with its day, one over midnight belongs to the day on which it
            starts, and one that ends at the time at which it starts lasts a whole day.
    """

    days: frozenset[int] = EVERY_DAY
    start: time = _MIDNIGHT
    end: time = _MIDNIGHT

    def holds(self, local: datetime) -> bool:
        """Whether the clock of the camera shows a time in the period."""
        now, today = local.time(), local.weekday()
        if self.start < self.end:
            return today in self.days and self.start <= now < self.end
        if now >= self.start:
            return today in self.days
        return now < self.end and (today - 1) % len(DAYS) in self.days


@dataclass(frozen=True)
class Schedule:
    """When a camera is armed.

    Attributes:
        armed: the periods in which it is; None for always.
        disarmed: the periods that are taken out of those.
    """

    armed: tuple[Period, ...] | None = None
    disarmed: tuple[Period, ...] = ()

    def is_armed(self, local: datetime) -> bool:
        """Whether the camera is armed when its clock shows this time."""
        armed = self.armed is None or any(period.holds(local) for period in self.armed)
        return armed and not any(period.holds(local) for period in self.disarmed)


@dataclass(frozen=True)
class Night:
    """When it is night: by the clock, by the picture, or by either of the two.

    Attributes:
        start: the time at which night begins, every day; None together with ``end`` where the clock
            does not tell, midnight where only ``end`` is given.
        end: the time at which it ends, as for a `Period`.
        max_brightness: the greatest mean brightness of a picture taken at night, 0 to 1; None where
            brightness does not tell.
    """

    start: time | None = None
    end: time | None = None
    max_brightness: float | None = None

    def holds(self, local: datetime, brightness: float | None) -> bool:
        """Whether it is night for a picture taken at this time of the camera's clock.

        Args:
            local: as `local_time` gives it.
            brightness: the mean brightness of the picture; None where it is not known, and only the
                clock tells.
        """
        dark = self.max_brightness
        if dark is not None and brightness is not None and brightness <= dark:
            return True
        if self.start is None and self.end is None:
            return False
        return Period(start=self.start or _MIDNIGHT, end=self.end or _MIDNIGHT).holds(local)


def local_time(timestamp: datetime, timezone: str) -> datetime:
    """A moment on the clock of a time zone.

    Args:
        timestamp: the moment, with its offset from UTC.
        timezone: a name in which `timezone_problem` finds nothing wrong.

    Raises:
        ValueError: a timestamp without an offset, which is no moment.
    """
    if timestamp.tzinfo is None:
        raise ValueError(f"the timestamp {timestamp.isoformat()} has no offset from UTC")
    try:
        return timestamp.astimezone(_zone(timezone))
    except OverflowError:  # Within hours of the year 1 or 10000, where no clock goes further.
        return timestamp


def timezone_problem(name: str) -> tuple[str, str] | None:
    """What is wrong with the name of a time zone, and what would be right; None where it is right.

    The names are those of the package tzdata, which every worker has, so that a rule file that is
    right here is right there."""
    if name in _zone_names():
        return None
    remedy = suggestion(name, _zone_names(), "time zones")
    at_city = [zone for zone in _zone_names() if _city(zone) == _city(name)]
    if at_city:
        remedy = suggestion(at_city[0], at_city, "time zones")
    elif not remedy.startswith("did you mean"):
        remedy = "write an IANA name such as Europe/Berlin or America/New_York, or UTC"
    return f"there is no time zone {shortened(name)!r}", remedy


def parse_time_of_day(text: str, *, is_end: bool = False) -> time:
    """The time of a text such as ``18:00``; ``24:00``, where a period ends, is midnight.

    Raises:
        Unreadable: another text.
    """
    form = 'write hours and minutes, such as "07:30" or "18:00"'
    _refuse_period(text)
    match = _TIME.fullmatch(text)
    if match is None:
        raise Unreadable(f"{shortened(text)!r} is no time of day", form)
    hours, minutes = int(match[1]), int(match[2])
    if (hours, minutes) == (24, 0):
        if is_end:
            return _MIDNIGHT
        raise Unreadable("no period starts at 24:00", 'write "00:00" of the next day')
    if hours > 23 or minutes > 59:
        remedy = f'must be from "00:00" to "{"24:00" if is_end else "23:59"}"'
        raise Unreadable(f"{text!r} is no time of day", remedy)
    return time(hours, minutes)


def parse_days(names: Iterable[str]) -> frozenset[int]:
    """The days of a list such as ``["mon", "tue"]``, 0 for Monday.

    Raises:
        Unreadable: no list, an empty one, or another name.
    """
    if isinstance(names, str):
        _refuse_period(names)
        raise Unreadable(f"{shortened(names)!r} is not a list of days", f"write {_days_of(names)}")
    listed = list(names)
    if not listed:
        raise Unreadable("no days", "leave days out where it holds every day")
    for name in listed:
        if name not in DAYS:
            remedy = suggestion(name, DAYS, "days")
            if len(_range(name)) > 1:
                remedy = f"write {_days_of(name)}"
            elif _range(name):
                remedy = f"did you mean {_range(name)[0]!r}?"
            raise Unreadable(f"{shortened(name)!r} is no day", remedy)
    return frozenset(DAYS.index(name) for name in listed)


def parse_duration(text: str) -> timedelta:
    """The time span of a text such as ``30s``, ``5m``, ``24h`` or ``7d``, at most 366 days.

    Raises:
        Unreadable: another text.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        remedy = "write a whole number and s, m, h or d, such as 30s, 5m, 24h or 7d"
        raise Unreadable(f"{shortened(text)!r} is no duration", remedy)
    number, unit = match.groups()
    days = f"must be at most {LONGEST_DURATION.days}d"
    if len(number) > 9:
        raise Unreadable(f"{shortened(text)} is too long", days)
    duration = timedelta(**{_UNITS[unit]: int(number)})
    if duration > LONGEST_DURATION:
        raise Unreadable(f"{text} is too long", days)
    return duration


def period_problem(text: str) -> tuple[str, str]:
    """What to tell of a text that stands where a schedule has a period: what is wrong, and what it
    would be as one. ``mon-fri 18:00-07:00`` is translated; of a cron expression, which says when
    something begins but not how long it lasts, the form is told."""
    folded = text.strip().casefold()
    if _CRON.fullmatch(folded):
        return (
            f"{shortened(text)!r} is a cron expression, which has no end",
            f"write when it starts and ends, such as {_EXAMPLE}",
        )
    match = _PERIOD.fullmatch(folded)
    days = [] if match is None or match["first"] is None else _range(_day_words(match))
    if match is None or (match["first"] is not None and not days):
        return f"{shortened(text)!r} is no period", f"write {_EXAMPLE}"
    inside = f"days: [{', '.join(days)}], " if days else ""
    return (
        f"{shortened(text)!r} is a text",
        f'write {{{inside}start: "{match["start"]}", end: "{match["end"]}"}}',
    )


def _refuse_period(text: str) -> None:
    """Tell who puts a whole schedule where a part of it goes what the form is."""
    folded = text.strip().casefold()
    if _CRON.fullmatch(folded) or _PERIOD.fullmatch(folded):
        raise Unreadable(*period_problem(text))


def _day_words(match: re.Match[str]) -> str:
    return "-".join(filter(None, (match["first"], match["last"])))


def _range(text: str) -> list[str]:
    """The days of ``mon-fri``, ``Friday`` or ``sat-mon``; none where it is something else."""
    ends = [word.strip() for word in text.casefold().split("-")]
    full = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    places = [
        place
        for word in ends
        for place, name in enumerate(full)
        if len(word) >= 3 and name.startswith(word)
    ]
    if len(places) != len(ends) or len(places) > 2:
        return []
    first, last = places[0], places[-1]
    return [DAYS[(first + step) % len(DAYS)] for step in range((last - first) % len(DAYS) + 1)]


def _days_of(text: str) -> str:
    return f"[{', '.join(_range(text) or DAYS[:2])}]"


@cache
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


@cache
def _zone_names() -> tuple[str, ...]:
    names = resources.files("tzdata").joinpath("zones").read_text(encoding="utf-8").split()
    return tuple(name for name in names if name != "Factory")


def _city(zone: str) -> str:
    return zone.rpartition("/")[2].casefold().replace(" ", "_")
