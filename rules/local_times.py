"""The local time of a camera, for programs and in words: the same wherever it is shown."""

from __future__ import annotations

from datetime import datetime, timedelta

from rules.local_offsets import offset_text
from rules.schedule import local_time


def local_json(timestamp: datetime, zone: str) -> str:
    """Returns a local time as RFC 3339 with its offset, such as ``2026-02-01T00:59:59+01:00``.

    Args:
        timestamp: The time, with an offset from UTC.
        zone: The IANA name of the time zone.
    """
    local = local_time(timestamp, zone)
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
    local = local_time(timestamp, zone)
    offset = local.utcoffset() or timedelta(0)
    shown = local.replace(microsecond=0, tzinfo=None).isoformat(" ")
    if zone == "UTC" or local is timestamp:  # The calendar's first and last days stay in UTC.
        return f"{shown} (UTC)"
    return f"{shown} ({zone}, {offset_text(offset)})"
