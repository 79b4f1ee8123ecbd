"""Times as they are written: RFC 3339 in UTC."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def canonical_time(moment: datetime) -> str:
    """A UTC moment as RFC 3339 with `Z`; 3 or 6 decimals only where the fraction is not zero."""
    if moment.utcoffset() is None or moment.utcoffset():
        raise ValueError(f"{moment!r} is not in UTC")
    micros = moment.microsecond
    fraction = "" if not micros else f".{micros:06d}" if micros % 1000 else f".{micros // 1000:03d}"
    seconds = moment.replace(microsecond=0, tzinfo=None).isoformat()  # strftime pads no years.
    return f"{seconds}{fraction}Z"


def parse_time(text: str) -> datetime:
    """The moment that :func:`canonical_time` wrote."""
    return datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=timezone.utc)


def from_unix(seconds: float) -> datetime:
    """The UTC moment of a Unix time, to the microsecond."""
    return EPOCH + timedelta(microseconds=round(seconds * 1_000_000))
