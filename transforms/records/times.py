"""Times as they are written: RFC 3339 in UTC."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from rules.text import shortened

_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?(Z|[+-]\d\d:\d\d)",
    re.ASCII,
)
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def canonical_time(time: datetime) -> str:
    """Formats a UTC time as RFC 3339 with `Z`; with 3 or 6 decimals if the fraction is not zero."""
    if time.utcoffset() is None or time.utcoffset():
        raise ValueError(f"{time!r} is not in UTC")
    micros = time.microsecond
    fraction = "" if not micros else f".{micros:06d}" if micros % 1000 else f".{micros // 1000:03d}"
    seconds = time.replace(microsecond=0, tzinfo=None).isoformat()  # strftime pads no years.
    return f"{seconds}{fraction}Z"


def parse_time(text: str) -> datetime:
    """Reads an RFC 3339 time in UTC, such as ``2026-01-31T23:59:59Z``.

    Raises:
      ValueError: The text is no such time, or has an offset other than zero.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"not a time like 2026-01-31T23:59:59Z: {shortened(repr(text))}")
    *parts, fraction, offset = match.groups()
    if offset not in ("Z", "+00:00", "-00:00"):
        raise ValueError(f"not in UTC (write it with Z): {shortened(repr(text))}")
    year, month, day, hour, minute, second = map(int, parts)
    microsecond = int((fraction or "0").ljust(6, "0"))
    try:
        return datetime(year, month, day, hour, minute, second, microsecond, timezone.utc)
    except ValueError as error:
        raise ValueError(f"{error}: {shortened(repr(text))}") from None


def from_unix(seconds: float) -> datetime:
    """Converts a Unix time to UTC, to the microsecond."""
    return EPOCH + timedelta(microseconds=round(seconds * 1_000_000))
