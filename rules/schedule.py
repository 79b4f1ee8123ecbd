"""Decides when a camera is armed and when it is night, in local time.

An image is judged by its capture time in the camera's time zone; `local_time` converts it. When the
clock goes forward, no image has a time in the skipped hour: a period that starts or ends in that
hour starts or ends when the clock jumps. When the clock goes back, it repeats an hour, and a period
applies to both: a period that ends at 02:30 applies from 02:00 to 02:30 once more. A night from
20:00 to 06:00 is thus an hour shorter or longer on those days, without a gap. Weekdays change at
midnight in local time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from functools import cache
from importlib import resources
from zoneinfo import ZoneInfo

from rules.errors import suggestion
from rules.text import shortened

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""The days of the week as a rule file writes them, in the order of `datetime.weekday`."""

EVERY_DAY = frozenset(range(len(DAYS)))

MAX_DURATION = timedelta(days=366)

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


class UnreadableError(ValueError):
    """A text in a rule file that is no time, day or duration.

    Attributes:
        problem: What is wrong.
        remedy: What would be right.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}"


@dataclass(frozen=True)
class WeeklyPeriod:
    """A time of the day on some days of the week.

    Attributes:
        days: The days on which it starts, 0 for Monday to 6 for Sunday.
        start: Its first time.
        end: The first time after it. If that is not after ``start``, it is on the next day, so that
            a period from 18:00 to 00:00 ends with its day, a period across midnight belongs to the
            day on which it starts, and a period that ends at its start time lasts a whole day.
    """

    days: frozenset[int] = EVERY_DAY
    start: time = _MIDNIGHT
    end: time = _MIDNIGHT

    def contains(self, local: datetime) -> bool:
        """Returns whether a local time is in the period."""
        clock, today = local.time(), local.weekday()
        if self.start < self.end:
            return today in self.days and self.start <= clock < self.end
        if clock >= self.start:
            return today in self.days
        return clock < self.end and (today - 1) % len(DAYS) in self.days


@dataclass(frozen=True)
class Schedule:
    """When a camera is armed.

    Attributes:
        armed: The periods in which it is armed; None for always.
        disarmed: The periods that are subtracted from those.
    """

    armed: tuple[WeeklyPeriod, ...] | None = None
    disarmed: tuple[WeeklyPeriod, ...] = ()

    def is_armed(self, local: datetime) -> bool:
        """Returns whether the camera is armed at a local time."""
        armed = self.armed is None or any(period.contains(local) for period in self.armed)
        return armed and not any(period.contains(local) for period in self.disarmed)


@dataclass(frozen=True)
class Night:
    """When it is night: by the clock, by the brightness of the image, or by either of the two.

    Attributes:
        start: The time at which night begins, every day; None, together with ``end``, if the clock
            does not matter; midnight if only ``end`` is set.
        end: The time at which it ends, as for a `WeeklyPeriod`.
        max_brightness: The maximum mean brightness of an image at night, 0 to 1; None if brightness
            does not matter.
    """

    start: time | None = None
    end: time | None = None
    max_brightness: float | None = None

    def is_night(self, local: datetime, brightness: float | None) -> bool:
        """Returns whether it is night for an image.

        Args:
            local: The capture time, from `local_time`.
            brightness: The mean brightness of the image; None if it is unknown, so that only the
                clock decides.
        """
        bound = self.max_brightness
        if bound is not None and brightness is not None and brightness <= bound:
            return True
        if self.start is None and self.end is None:
            return False
        period = WeeklyPeriod(start=self.start or _MIDNIGHT, end=self.end or _MIDNIGHT)
        return period.contains(local)


def local_time(timestamp: datetime, timezone: str) -> datetime:
    """Converts a timestamp to the local time of a time zone.

    Args:
        timestamp: The timestamp, with its offset from UTC.
        timezone: A name for which `timezone_problem` returns None.

    Raises:
        ValueError: The timestamp has no offset.
    """
    if timestamp.tzinfo is None:
        raise ValueError(f"the timestamp {timestamp.isoformat()} has no offset from UTC")
    try:
        return timestamp.astimezone(zone_of(timezone))
    except OverflowError:  # Within hours of the year 1 or 10000, the limits of datetime.
        return timestamp


def timezone_problem(name: str) -> tuple[str, str] | None:
    """Returns what is wrong with the name of a time zone, and what would be right.

    The names are those of the package tzdata, which every worker has, so that a rule file that is
    valid here is valid there.

    Returns:
        The problem and the remedy; None for a known name.
    """
    if name in _zone_names():
        return None
    remedy = suggestion(name, _zone_names(), "time zones")
    same_city = [zone for zone in _zone_names() if _city(zone) == _city(name)]
    if same_city:
        remedy = suggestion(same_city[0], same_city, "time zones")
    elif not remedy.startswith("did you mean"):
        remedy = "write an IANA name such as Europe/Berlin or America/New_York, or UTC"
    return f"there is no time zone {shortened(name)!r}", remedy


def parse_time_of_day(text: str, *, is_end: bool = False) -> time:
    """Parses a time such as ``18:00``; ``24:00``, as the end of a period, is midnight.

    Raises:
        UnreadableError: The text is no such time.
    """
    form = 'write hours and minutes, such as "07:30" or "18:00"'
    _reject_period(text)
    match = _TIME.fullmatch(text)
    if match is None:
        raise UnreadableError(f"{shortened(text)!r} is not a time of day", form)
    hours, minutes = int(match[1]), int(match[2])
    if (hours, minutes) == (24, 0):
        if is_end:
            return _MIDNIGHT
        raise UnreadableError("no period starts at 24:00", 'write "00:00" of the next day')
    if hours > 23 or minutes > 59:
        remedy = f'must be from "00:00" to "{"24:00" if is_end else "23:59"}"'
        raise UnreadableError(f"{text!r} is not a time of day", remedy)
    return time(hours, minutes)


def parse_days(names: Iterable[str]) -> frozenset[int]:
    """Parses a list of days such as ``["mon", "tue"]``, 0 for Monday.

    Raises:
        UnreadableError: It is no list, it is empty, or a name in it is not a day.
    """
    if isinstance(names, str):
        _reject_period(names)
        raise UnreadableError(
            f"{shortened(names)!r} is not a list of days", f"write {_days_of(names)}"
        )
    names = list(names)
    if not names:
        raise UnreadableError("no days", "leave days out for every day")
    for name in names:
        if name not in DAYS:
            remedy = suggestion(name, DAYS, "days")
            if len(_range(name)) > 1:
                remedy = f"write {_days_of(name)}"
            elif _range(name):
                remedy = f"did you mean {_range(name)[0]!r}?"
            raise UnreadableError(f"{shortened(name)!r} is not a day", remedy)
    return frozenset(DAYS.index(name) for name in names)


def parse_duration(text: str) -> timedelta:
    """Parses a duration such as ``30s``, ``5m``, ``24h`` or ``7d``, at most 366 days.

    Raises:
        UnreadableError: The text is no such duration.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        remedy = "write a whole number and s, m, h or d, such as 30s, 5m, 24h or 7d"
        raise UnreadableError(f"{shortened(text)!r} is not a duration", remedy)
    number, unit = match.groups()
    days = f"must be at most {MAX_DURATION.days}d"
    if len(number) > 9:
        raise UnreadableError(f"{shortened(text)} is too long", days)
    duration = timedelta(**{_UNITS[unit]: int(number)})
    if duration > MAX_DURATION:
        raise UnreadableError(f"{text} is too long", days)
    return duration


def parse_length(text: str, at_most: timedelta = MAX_DURATION) -> timedelta:
    """Parses a duration that must not be zero.

    Args:
        text: The duration.
        at_most: The longest that is allowed, in whole seconds.

    Raises:
        UnreadableError: The text is no such duration.
    """
    length = parse_duration(text)
    if not length:
        raise UnreadableError(f"{text} is too short", "must be at least 1s")
    if length > at_most:
        seconds = at_most // timedelta(seconds=1)
        raise UnreadableError(f"{text} is too long", f"must be at most {seconds}s")
    return length


def period_problem(text: str) -> tuple[str, str]:
    """Returns what is wrong with a text in place of a period, and what would be right.

    The remedy translates ``mon-fri 18:00-07:00``. For a cron expression, which says when something
    begins but not how long it lasts, it shows the form of a period.
    """
    folded = text.strip().casefold()
    if _CRON.fullmatch(folded):
        return (
            f"{shortened(text)!r} is a cron expression, which has no end",
            f"write when it starts and ends, such as {_EXAMPLE}",
        )
    match = _PERIOD.fullmatch(folded)
    days = [] if match is None or match["first"] is None else _range(_day_words(match))
    if match is None or (match["first"] is not None and not days):
        return f"{shortened(text)!r} is not a period", f"write {_EXAMPLE}"
    inside = f"days: [{', '.join(days)}], " if days else ""
    return (
        f"{shortened(text)!r} is a text",
        f'write {{{inside}start: "{match["start"]}", end: "{match["end"]}"}}',
    )


def _reject_period(text: str) -> None:
    """Rejects a whole period in place of one of its parts, with the form of a period."""
    folded = text.strip().casefold()
    if _CRON.fullmatch(folded) or _PERIOD.fullmatch(folded):
        raise UnreadableError(*period_problem(text))


def _day_words(match: re.Match[str]) -> str:
    return "-".join(filter(None, (match["first"], match["last"])))


def _range(text: str) -> list[str]:
    """Returns the days of ``mon-fri``, ``Friday`` or ``sat-mon``; none for any other text."""
    words = [word.strip() for word in text.casefold().split("-")]
    full = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    indexes = [
        index
        for word in words
        for index, name in enumerate(full)
        if len(word) >= 3 and name.startswith(word)
    ]
    if len(indexes) != len(words) or len(indexes) > 2:
        return []
    first, last = indexes[0], indexes[-1]
    return [DAYS[(first + step) % len(DAYS)] for step in range((last - first) % len(DAYS) + 1)]


def _days_of(text: str) -> str:
    return f"[{', '.join(_range(text) or DAYS[:2])}]"


@cache
def zone_of(name: str) -> ZoneInfo:
    """Returns the time zone of a name for which `timezone_problem` returns None."""
    return ZoneInfo(name)


@cache
def _zone_names() -> tuple[str, ...]:
    names = resources.files("tzdata").joinpath("zones").read_text(encoding="utf-8").split()
    return tuple(name for name in names if name != "Factory")


def _city(zone: str) -> str:
    return zone.rpartition("/")[2].casefold().replace(" ", "_")
