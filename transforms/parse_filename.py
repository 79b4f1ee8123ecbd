"""ParseFilename: reads the camera and the capture time of an image from `<id>_<timestamp>.jpg`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import apache_beam as beam

from transforms.records import reasons
from transforms.records.file_names import InvalidNameError, parse_name
from transforms.records.images import ImageFile, InvalidImage, NamedFile
from transforms.records.times import canonical_time
from transforms.runtime.counters import count

NAMED = "named"
INVALID = "invalid"


def parse_file(
    file: ImageFile,
    *,
    latest: datetime,
    is_known: Callable[[str], bool] | None = None,
) -> NamedFile | InvalidImage:
    """Parses the name of one file.

    Args:
      file: The file.
      latest: The latest capture time that is accepted.
      is_known: Whether an id is that of a known camera; None if every id is accepted.
    """
    camera: str | None = None
    timestamp: str | None = None
    try:
        camera, capture_time = parse_name(file.name)
        timestamp = canonical_time(capture_time)
        if capture_time > latest:
            raise InvalidNameError(
                reasons.TIMESTAMP_IN_FUTURE,
                f"{timestamp} lies ahead of the clock; is the camera's clock right?",
            )
        if is_known is not None and not is_known(camera):
            raise InvalidNameError(
                reasons.UNKNOWN_CAMERA,
                f"the rules are strict and name no camera {camera!r}",
            )
    except InvalidNameError as invalid:
        return InvalidImage(
            file,
            invalid.reason,
            invalid.detail,
            size_bytes=file.size_bytes,
            camera=camera,
            timestamp=timestamp,
        )
    return NamedFile(file, camera, timestamp)


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
        latest = _add_clipped(self._clock(), self._max_clock_skew)
        parsed = parse_file(element, latest=latest, is_known=self._is_known)
        if isinstance(parsed, NamedFile):
            yield f"{parsed.id}\n{parsed.timestamp}", parsed
        else:
            yield beam.pvalue.TaggedOutput(INVALID, (_group(element.name), parsed))


def _add_clipped(time: datetime, delay: timedelta) -> datetime:
    try:
        return time + delay
    except OverflowError:  # It is after the year 9999, as no name can be.
        return datetime.max.replace(tzinfo=timezone.utc)


def _group(name: str) -> str:
    """Returns a key for all files that could have the same address in `invalid/`.

    The record of `x` is written as `x.json`, so a file `x.json` has the same key.
    """
    while name.endswith(".json"):
        name = name.removesuffix(".json")
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def utc_now() -> datetime:
    """Returns the time of this machine's clock."""
    return datetime.now(timezone.utc)


class ParseFilename(beam.PTransform):
    """Reads the camera and the capture time from the names of files.

    Input: `PCollection[ImageFile]`. Output, by tag:

    - `named`: `PCollection[tuple[str, NamedFile]]`, keyed by camera and capture time, so that files
      with the same key can be grouped.
    - `invalid`: `PCollection[tuple[str, InvalidImage]]`, keyed by a hash of the file name without
      any `.json` at its end, and without bytes.

    Args:
      max_clock_skew: How far ahead of the clock a capture time may be.
      is_known: Whether an id is that of a known camera; None if every id is accepted.
      clock: Returns the current time in UTC.
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
