"""Finds out whether times in names are local time, from the times of the files.

A camera writes a file within seconds of its capture time. Where names are ahead of their files, or
behind them, by the same whole or half hours all the time, they are in local time. Files that were
copied later have the time of the copy, so their distances differ, and nothing is claimed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from rules.names import moments

Pair = tuple[datetime, datetime]
"""The time in a name, read as UTC, and the time of its file."""

_STEP = timedelta(minutes=30)
_TOLERANCE = timedelta(minutes=2)
_LEAST_FILES = 5
_LEAST_SPAN = timedelta(hours=1)
_LARGEST = timedelta(hours=14)
_ZONES = (
    *("Europe/London", "Europe/Berlin", "Europe/Athens", "Europe/Istanbul", "Europe/Moscow"),
    *("America/New_York", "America/Chicago", "America/Denver", "America/Phoenix"),
    *("America/Los_Angeles", "America/Anchorage", "Pacific/Honolulu", "America/Halifax"),
    *("America/St_Johns", "America/Bogota", "America/Mexico_City", "America/Caracas"),
    *("America/Santiago", "America/Sao_Paulo", "Africa/Lagos", "Africa/Johannesburg"),
    *("Africa/Nairobi", "Asia/Dubai", "Asia/Tehran", "Asia/Kabul", "Asia/Karachi"),
    *("Asia/Kolkata", "Asia/Dhaka", "Asia/Bangkok", "Asia/Shanghai", "Asia/Tokyo"),
    *("Australia/Perth", "Australia/Adelaide", "Australia/Darwin", "Australia/Brisbane"),
    *("Australia/Sydney", "Pacific/Auckland", "Africa/Abidjan"),
)
"""Zones of many people, of which the first that fits is proposed."""


def seen_offset(pairs: Sequence[Pair]) -> timedelta | None:
    """Returns the offset from UTC that the times in names of one camera have, if it is clear.

    It is the latest one, if clocks were changed meanwhile.

    Args:
        pairs: Some images of the camera.

    Returns:
        A multiple of half an hour; None if it is zero, or not the same for nearly all of the
        files, or if they are too few, or too close to each other, to tell it from chance.
    """
    if len(pairs) < _LEAST_FILES:
        return None
    ordered = sorted(pairs)
    if ordered[-1][0] - ordered[0][0] < _LEAST_SPAN:
        return None
    offsets = [_offset(pair) for pair in ordered]
    known = [offset for offset in offsets if offset is not None]
    if len(known) * 10 < len(offsets) * 9 or not known:
        return None
    if max(known) - min(known) > timedelta(hours=1) or _changes(known) > 2:
        return None
    return known[-1] or None


def zone_for(pairs: Sequence[Pair]) -> str | None:
    """Returns a well-known time zone in which the names of a camera may be; None if none fits."""
    fitting = [pair for pair in pairs if _offset(pair) is not None]
    for zone in _ZONES:
        if fitting and all(
            any(abs(moment - changed) <= _TOLERANCE for moment in moments(_local(named), zone))
            for named, changed in fitting
        ):
            return zone
    return None


def offset_text(offset: timedelta) -> str:
    """Formats an offset: ``UTC+1``, ``UTC-3:30``."""
    minutes = abs(offset) // timedelta(minutes=1)
    sign = "-" if offset < timedelta(0) else "+"
    rest = f":{minutes % 60:02d}" if minutes % 60 else ""
    return f"UTC{sign}{minutes // 60}{rest}"


def _local(named: datetime) -> datetime:
    return named.astimezone(timezone.utc).replace(tzinfo=None)


def _offset(pair: Pair) -> timedelta | None:
    """Returns the distance of a name from its file, if it is one of whole or half hours."""
    distance = pair[0] - pair[1]
    offset = round(distance / _STEP) * _STEP
    is_clear = abs(distance - offset) <= _TOLERANCE and abs(offset) <= _LARGEST
    return offset if is_clear else None


def _changes(offsets: Sequence[timedelta]) -> int:
    return sum(first != second for first, second in itertools.pairwise(offsets))
