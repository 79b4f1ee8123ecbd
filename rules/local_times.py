"""The local time of a camera, for programs and in words: the same wherever it is shown."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from rules.local_offsets import offset_text
from rules.schedule import local_time

_MINUTE = timedelta(minutes=1)


def local_json(timestamp: datetime, zone: str) -> str:
    """Returns a local time as RFC 3339 with its offset, such as ``2026-02-01T00:59:59+01:00``.

    Args:
        timestamp: The time, with an offset from UTC.
        zone: The IANA name of the time zone.
    """
    local = _local_time(timestamp, zone)
    micros = local.microsecond
    return local.isoformat(
        timespec="microseconds" if micros % 1000 else "milliseconds" if micros else "seconds"
    )


def local_words(timestamp: datetime, zone: str) -> str:
    """Returns a local time in words: ``2026-02-01 00:59:59 (Europe/Berlin, UTC+1)``.

    The offset tells the two hours apart that are the same when clocks go back.

    Args:
        timestamp: The time, with an offset from UTC.
        zone: The IANA name of the time zone.
    """
    local = _local_time(timestamp, zone)
    offset = local.utcoffset() or timedelta(0)
    shown = local.replace(microsecond=0, tzinfo=None).isoformat(" ")
    if zone == "UTC" or local is timestamp:  # The calendar's first and last days stay in UTC.
        return f"{shown} (UTC)"
    return f"{shown} ({zone}, {offset_text(offset)})"


def _local_time(timestamp: datetime, zone: str) -> datetime:
    """Returns a local time whose offset is one of whole minutes, as RFC 3339 requires.

    Offsets of earlier times have seconds, such as -00:44:30 in Monrovia until 1972. They are
    rounded, and the local time with them, so that it is the same moment.
    """
    local = local_time(timestamp, zone)
    offset = local.utcoffset() or timedelta(0)
    rounded = round(offset / _MINUTE) * _MINUTE
    if rounded == offset:
        return local
    try:
        return timestamp.astimezone(timezone(rounded))
    except OverflowError:  # Within hours of the year 1 or 10000, the limits of datetime.
        return timestamp
