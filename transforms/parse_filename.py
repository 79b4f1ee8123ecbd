"""ParseFilename: which camera took a picture, and when, from `<id>_<timestamp>.jpg`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import apache_beam as beam

from transforms import reasons
from transforms.counters import count
from transforms.records import ImageFile, InvalidImage, NamedFile
from transforms.text import printable
from transforms.times import EPOCH, canonical_time

NAMED = "named"
INVALID = "invalid"

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
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
_UNIX = re.compile(r"[0-9]{10}|[0-9]{13}")


class InvalidName(ValueError):
    """A file name that names no camera and moment.

    Attributes:
      reason: One of :mod:`transforms.reasons`.
      detail: What is wrong, for a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def parse_timestamp(text: str) -> datetime:
    """The UTC moment that the part of a file name after the last underscore gives.

    Takes `20260131T235959Z`, `2026-01-31T23:59:59Z` and `2026-01-31T23-59-59Z`, each with or
    without `Z` and with up to 6 decimals of a second, and Unix time in seconds (10 digits) or
    milliseconds (13 digits).

    Raises:
      InvalidName: `timestamp_not_utc` for an offset other than zero, `bad_timestamp` otherwise.
    """
    if _UNIX.fullmatch(text):
        milliseconds = int(text) * (1 if len(text) == 13 else 1000)
        return EPOCH + timedelta(milliseconds=milliseconds)
    for form in _CALENDAR_FORMS:
        if found := form.fullmatch(text):
            *parts, fraction, zone = found.groups()
            try:
                year, month, day, hour, minute, second = map(int, parts)
                micros = int((fraction or "").ljust(6, "0"))
                moment = datetime(
                    year, month, day, hour, minute, second, micros, tzinfo=timezone.utc
                )
            except ValueError as error:
                raise InvalidName(
                    reasons.BAD_TIMESTAMP, f"{printable(text)!r} is no moment: {error}"
                ) from None
            if zone and zone != "Z" and zone[1:].strip("0:-"):
                raise InvalidName(
                    reasons.TIMESTAMP_NOT_UTC,
                    f"{text!r} has the offset {zone}; times are in UTC",
                )
            return moment
    raise InvalidName(
        reasons.BAD_TIMESTAMP,
        f"{printable(text)!r} is neither like 20260131T235959Z nor Unix time of 10 or 13 digits",
    )


def parse_name(name: str) -> tuple[str, datetime]:
    """The camera's id and the UTC moment that a file name gives.

    Args:
      name: The last part of a path, e.g. `front-door_20260131T235959Z.jpg`.

    Raises:
      InvalidName: With the reason.
    """
    extension = _EXTENSION.search(name)
    if not extension:
        raise InvalidName(reasons.BAD_NAME, "the name does not end in .jpg or .jpeg")
    camera, underscore, timestamp = name[: extension.start()].rpartition("_")
    if not underscore:
        raise InvalidName(reasons.BAD_NAME, "the name is not <id>_<timestamp>.jpg: no underscore")
    if not _ID.fullmatch(camera):
        raise InvalidName(
            reasons.BAD_NAME,
            f"{printable(camera)!r} is no id: 1 to 64 of A-Z a-z 0-9 . _ -, "
            "beginning with a letter or digit",
        )
    return camera, parse_timestamp(timestamp)


def parse_file(
    file: ImageFile,
    *,
    latest: datetime,
    is_known: Callable[[str], bool] | None = None,
) -> NamedFile | InvalidImage:
    """What the name of one file says.

    Args:
      file: The file.
      latest: Moments after this one are in the future.
      is_known: Whether an id is a camera's; None where every id is taken.
    """
    try:
        camera, moment = parse_name(file.name)
        if moment > latest:
            raise InvalidName(
                reasons.TIMESTAMP_IN_FUTURE,
                f"{canonical_time(moment)} lies ahead of the clock; is the camera's clock right?",
            )
        if is_known is not None and not is_known(camera):
            raise InvalidName(
                reasons.UNKNOWN_CAMERA,
                f"the rules are strict and name no camera {camera!r}",
            )
    except InvalidName as invalid:
        return InvalidImage(file, invalid.reason, invalid.detail, size_bytes=file.size_bytes)
    return NamedFile(file, camera, canonical_time(moment))


class _ParseFilename(beam.DoFn):
    def __init__(
        self,
        max_clock_skew: timedelta,
        is_known: Callable[[str], bool] | None,
        clock: Callable[[], datetime],
    ) -> None:
        self._max_clock_skew = max_clock_skew
        self._is_known = is_known
        self._clock = clock

    def process(self, element: ImageFile) -> Iterator[Any]:
        count("images.found")
        latest = _later(self._clock(), self._max_clock_skew)
        parsed = parse_file(element, latest=latest, is_known=self._is_known)
        if isinstance(parsed, NamedFile):
            yield f"{parsed.id}\n{parsed.timestamp}", parsed
        else:
            yield beam.pvalue.TaggedOutput(INVALID, (_group(element.name), parsed))


def _later(moment: datetime, by: timedelta) -> datetime:
    try:
        return moment + by
    except OverflowError:  # Past the year 9999, which no name can be either.
        return datetime.max.replace(tzinfo=timezone.utc)


def _group(name: str) -> str:
    """A key for all files whose places among the invalid ones could be the same.

    The record of `x` is kept as `x.json`, so a file `x.json` belongs to them.
    """
    while name.endswith(".json"):
        name = name.removesuffix(".json")
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def utc_now() -> datetime:
    """The clock of this machine."""
    return datetime.now(timezone.utc)


class ParseFilename(beam.PTransform):
    """Reads camera and time off the names of files.

    Input: `PCollection[ImageFile]`. Output, by tag:

    - `named`: `PCollection[tuple[str, NamedFile]]`, keyed by camera and moment, so that pictures
      that claim to be the same are looked at together.
    - `invalid`: `PCollection[tuple[str, InvalidImage]]`, keyed by a hash of the file name without
      any `.json` at its end, and without bytes.

    Args:
      max_clock_skew: How far ahead of the clock a picture may be.
      is_known: Whether an id is a camera's; None where every id is taken.
      clock: Gives the present moment in UTC.
    """

    def __init__(
        self,
        *,
        max_clock_skew: timedelta = timedelta(hours=24),
        is_known: Callable[[str], bool] | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        super().__init__()
        if max_clock_skew < timedelta(0):
            raise ValueError(f"max_clock_skew is {max_clock_skew}; it must not be negative")
        self._parse = _ParseFilename(max_clock_skew, is_known, clock)

    def expand(self, files: beam.PCollection[ImageFile]) -> beam.pvalue.DoOutputsTuple:
        return files | "ParseName" >> beam.ParDo(self._parse).with_outputs(INVALID, main=NAMED)
