"""Canonical file names: `<id>_<timestamp>.jpg` holds a camera's id and a capture time in UTC."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

import rules
from transforms.records import reasons
from transforms.records.text import printable
from transforms.records.times import EPOCH, canonical_time, parse_time

_EXTENSION = re.compile(r"\.jpe?g\Z", re.IGNORECASE | re.ASCII)
_FRACTION_AND_ZONE = r"(?:\.([0-9]{1,6}))?(Z|[+-][0-9]{2}(?:[:-]?[0-9]{2})?)?"
_CALENDAR_FORMS = (
    re.compile(
        r"([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2})([0-9]{2})" + _FRACTION_AND_ZONE
    ),
    re.compile(
        r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})" + _FRACTION_AND_ZONE
    ),
    re.compile(
        r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2})-([0-9]{2})-([0-9]{2})" + _FRACTION_AND_ZONE
    ),
)
_DIGITS = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{3})?")
_UNIX = re.compile(r"[0-9]{10}|[0-9]{13}")


class InvalidNameError(ValueError):
    """A file name has no valid camera and capture time.

    Attributes:
      reason: One of :mod:`transforms.records.reasons`.
      detail: The cause, for a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def read_timestamp(text: str) -> tuple[datetime, str | None]:
    """Reads the time and the zone from the part of a file name after the last underscore.

    Accepts `20260131T235959Z`, `2026-01-31T23:59:59Z` and `2026-01-31T23-59-59Z`, each with or
    without `Z` or an offset and with up to 6 decimals of a second, `20260131235959` (14 digits),
    `20260131235959123` (17 digits, with milliseconds), and Unix time in seconds (10 digits) or
    milliseconds (13 digits).

    Returns:
      The time without its zone; and `Z`, the offset such as `+01:00`, or None without either.

    Raises:
      InvalidNameError: `bad_timestamp`.
    """
    if _UNIX.fullmatch(text):
        milliseconds = int(text) * (1 if len(text) == 13 else 1000)
        return (EPOCH + timedelta(milliseconds=milliseconds)).replace(tzinfo=None), "Z"
    for form in (*_CALENDAR_FORMS, _DIGITS):
        if match := form.fullmatch(text):
            fraction, zone = match[7], match[8] if form.groups == 8 else None
            try:
                year, month, day, hour, minute, second = map(int, match.groups()[:6])
                micros = int((fraction or "").ljust(6, "0"))
                return datetime(year, month, day, hour, minute, second, micros), zone
            except ValueError as error:
                raise InvalidNameError(
                    reasons.BAD_TIMESTAMP, f"{printable(text)!r} is no moment: {error}"
                ) from None
    raise InvalidNameError(
        reasons.BAD_TIMESTAMP,
        f"{printable(text)!r} is neither like 20260131T235959Z, nor a time of 14 or 17 digits, nor "
        "Unix time of 10 or 13 digits",
    )


def parse_timestamp(text: str) -> datetime:
    """Parses the capture time in UTC: the part of a file name after the last underscore.

    Args:
      text: A time in one of the forms of :func:`read_timestamp`.

    Raises:
      InvalidNameError: `timestamp_not_utc` for an offset that is not zero, else `bad_timestamp`.
    """
    local, zone = read_timestamp(text)
    if zone and zone != "Z" and zone[1:].strip("0:-"):
        raise InvalidNameError(
            reasons.TIMESTAMP_NOT_UTC, f"{text!r} has the offset {zone}; times are in UTC"
        )
    return local.replace(tzinfo=timezone.utc)


def split_name(name: str) -> tuple[str, str]:
    """Returns the camera's id and the text of the timestamp in a file name.

    Args:
      name: The last part of a path, e.g. `front-door_20260131T235959Z.jpg`.

    Raises:
      InvalidNameError: `bad_name`.
    """
    extension = _EXTENSION.search(name)
    if not extension:
        raise InvalidNameError(reasons.BAD_NAME, "the name does not end in .jpg or .jpeg")
    camera, underscore, timestamp = name[: extension.start()].rpartition("_")
    if not underscore:
        raise InvalidNameError(
            reasons.BAD_NAME, "the name is not <id>_<timestamp>.jpg: no underscore"
        )
    if not rules.is_camera_id(camera):
        raise InvalidNameError(
            reasons.BAD_NAME,
            f"{printable(camera)!r} is no id: 1 to 64 of A-Z a-z 0-9 . _ -, "
            "beginning with a letter or digit",
        )
    return camera, timestamp


def parse_name(name: str) -> tuple[str, datetime]:
    """Parses the camera's id and the capture time in UTC from a canonical file name.

    Args:
      name: The last part of a path, e.g. `front-door_20260131T235959Z.jpg`.

    Raises:
      InvalidNameError: The name is invalid.
    """
    camera, timestamp = split_name(name)
    return camera, parse_timestamp(timestamp)


def stored_name(file: str, camera: str | None, timestamp: str | None) -> str:
    """Returns the name under which an image is stored: its own if that is canonical.

    Args:
      file: The file's name, as received.
      camera: The camera's id; None if the name has none.
      timestamp: The capture time, canonical; None if the name has none.
    """
    if camera is None or timestamp is None:
        return file
    try:
        named_camera, capture_time = parse_name(file)
        if (named_camera, canonical_time(capture_time)) == (camera, timestamp):
            return file
    except InvalidNameError:
        pass
    compact = timestamp.replace("-", "").replace(":", "")
    return f"{camera}_{compact}.jpg"


def name_prefixes(camera: str, timestamp: str) -> tuple[str, ...]:
    """Returns a prefix of the file names of a camera and capture time for each form of a timestamp.

    Each file name that :func:`parse_name` accepts begins with one of them. They end with the
    second, so that names of other capture times in this second begin with them too.

    Args:
      camera: The camera's id.
      timestamp: The capture time, canonical.
    """
    capture_time = parse_time(timestamp)
    year, second = f"{capture_time.year:04d}", (capture_time - EPOCH) // timedelta(seconds=1)
    return tuple(
        f"{camera}_{text}"
        for text in (
            f"{year}{capture_time:%m%dT%H%M%S}",
            f"{year}-{capture_time:%m-%dT%H:%M:%S}",
            f"{year}-{capture_time:%m-%dT%H-%M-%S}",
            f"{year}{capture_time:%m%d%H%M%S}",
            f"{second:010d}",
        )
    )
