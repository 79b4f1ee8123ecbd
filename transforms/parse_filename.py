"""ParseFilename: reads the camera and the capture time of an image from its name.

`records/received_names.py` reads one name: by `rules/name_patterns.py` if a preset or pattern is
set, else as a canonical name, by `records/file_names.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import apache_beam as beam

import rules
from transforms.records import reasons
from transforms.records.file_names import InvalidNameError
from transforms.records.images import ImageFile, InvalidImage, NamedFile
from transforms.records.received_names import path_below, read_name
from transforms.records.times import canonical_time
from transforms.runtime.counters import count

NAMED = "named"
INVALID = "invalid"


def parse_file(
    file: ImageFile,
    *,
    latest: datetime,
    is_known: Callable[[str], bool] | None = None,
    names: rules.Names | None = None,
    top: str | None = None,
) -> NamedFile | InvalidImage:
    """Parses the name of one file.

    Args:
      file: The file.
      latest: The latest capture time that is accepted.
      is_known: Whether an id is that of a known camera; None if every id is accepted.
      names: How names are read; None if all are canonical.
      top: The folder of the input; None if paths are no part of names.
    """
    camera: str | None = None
    timestamp: str | None = None
    try:
        path = path_below(file.uri, top)
        camera, capture_time = read_name(path, names or rules.Names(), file.changed)
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
        names: Callable[[], rules.Names],
        top: str | None,
    ) -> None:
        self._max_clock_skew = max_clock_skew
        self._is_known = is_known
        self._clock = clock
        self._names = names
        self._top = top

    def process(self, element: ImageFile) -> Iterator[Any]:
        count("images.found")
        latest = _add_clipped(self._clock(), self._max_clock_skew)
        parsed = parse_file(
            element,
            latest=latest,
            is_known=self._is_known,
            names=self._names(),
            top=self._top,
        )
        if isinstance(parsed, NamedFile):
            yield f"{parsed.id}\n{parsed.timestamp}", parsed
        else:
            yield beam.pvalue.TaggedOutput(INVALID, (_group(parsed.stored_name), parsed))


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
    - `invalid`: `PCollection[tuple[str, InvalidImage]]`, keyed by a hash of the name under which
      the file is stored, without any `.json` at its end, and without bytes.

    Args:
      max_clock_skew: How far ahead of the clock a capture time may be.
      is_known: Whether an id is that of a known camera; None if every id is accepted.
      clock: Returns the current time in UTC.
      names: Returns how names are read: in a stream the rule file may be edited.
      top: The folder of the input, below which paths are matched against patterns; None if paths
        are no part of names.
    """

    def __init__(
        self,
        *,
        max_clock_skew: timedelta = timedelta(hours=24),
        is_known: Callable[[str], bool] | None = None,
        clock: Callable[[], datetime] = utc_now,
        names: Callable[[], rules.Names] = rules.Names,
        top: str | None = None,
    ) -> None:
        super().__init__()
        if max_clock_skew < timedelta(0):
            raise ValueError(f"max_clock_skew is {max_clock_skew}; it must not be negative")
        self._parse = _ParseFilename(max_clock_skew, is_known, clock, names, top)

    def expand(self, files: beam.PCollection[ImageFile]) -> beam.pvalue.DoOutputsTuple:
        return files | "ParseName" >> beam.ParDo(self._parse).with_outputs(INVALID, main=NAMED)
