"""What is under an address of an object store, without listing again what has been quiet.

A store lists a thousand names in a request, in the order of their names, and from any name on. In
most buckets, what is new sorts behind what is old: a folder a day, or names of a camera and a time.
So a full listing shows ranges of names in which nothing is to be expected, and the listings that
follow go from the first name of such a range on behind its last one.

A range is a guess, and decides only when an object is found: every ten minutes, all is listed.
"""

from __future__ import annotations

import bisect
import re
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import NamedTuple

from apache_beam.io.filesystem import FileMetadata

from beam_pipeline.sources.folders import WILDCARD, digest_of
from beam_pipeline.sources.listed_files import ListedFile, ListedFiles
from beam_pipeline.sources.listing import match_remote
from beam_pipeline.sources.parts import WHOLE, Part
from transforms.storage.object_stores import ObjectMetadata, list_some, object_store

FULL_EVERY_SECONDS = 600.0
"""How often all is listed."""
FULL_EVERY_TIMES = 20.0
"""The same as a multiple of what a full listing takes; the longer of both counts."""
QUIET_AFTER_SECONDS = 3600.0
"""An object that was written later than so long ago is listed each time."""
DAY_OVER_SECONDS = 86400.0
"""A day is over that long after its midnight in UTC, as others have it later."""
DAY_LATE_SECONDS = 2 * 86400.0
"""What is written later than so long after the end of the day in its name may belong elsewhere: the
digits are no day, or old images are being copied."""
SKIPPED_NAMES = 1000
"""A shorter range is not left out, as one request lists as many names."""

_DAY = (
    r"(?<!\d)(?P<year>(?:19|20)\d\d)[-_./]?(?:month=|m=)?(?P<month>0[1-9]|1[0-2])"
    r"[-_./]?(?:day=|d=)?(?P<day>0[1-9]|[12]\d|3[01])"
)
_FIRST_DAY = re.compile(_DAY)
_LAST_MINUTE = re.compile(
    rf".*{_DAY}[-_.T ]?(?P<hour>[01]\d|2[0-3])[-_:.]?(?P<minute>[0-5]\d)", re.DOTALL
)


class QuietRange(NamedTuple):
    """Names in which nothing is to be expected.

    Attributes:
      first: The first of them, as an address.
      last: The last of them.
    """

    first: str
    last: str


class _Time(NamedTuple):
    """A time in a name.

    Attributes:
      before: The text before it.
      begins: The day or minute in Unix time, if it is of UTC.
    """

    before: str
    begins: float


def _time_of(found: re.Match[str] | None) -> _Time | None:
    if found is None:
        return None
    year, month, day, hour, minute = map(int, (*found.groups(), 0, 0)[:5])
    try:
        begins = datetime(year, month, day, hour, minute, tzinfo=timezone.utc)
    except ValueError:  # Such as 31 February.
        return None
    return _Time(found.string[: found.start("year")], begins.timestamp())


def quiet_ranges(files: ListedFiles, base: str, now: float) -> list[QuietRange]:
    """Returns ranges of names in which nothing is to be expected, in their order.

    Those are names of days that are over, which follow each other after the same text, and names of
    minutes that are an hour ago, which follow each other after the same text, too.

    Args:
      files: All objects, in the order of their names.
      base: The text that all their addresses begin with, which is not part of their names.
      now: Unix time in seconds.
    """
    newest: dict[_Time | None, float] = {}
    for file in files:
        day = _time_of(_FIRST_DAY.search(file.uri, len(base)))
        newest[day] = max(newest.get(day, 0.0), file.changed)
    ranges: list[QuietRange] = []
    first = last = ""
    length = 0
    before: tuple[str | None, str | None] = (None, None)
    for file in files:
        day = _time_of(_FIRST_DAY.search(file.uri, len(base)))
        minute = _time_of(_LAST_MINUTE.match(file.uri, len(base)))
        groups = (
            day.before if day is not None and _is_over(day, newest[day], now) else None,
            minute.before
            if minute is not None and max(minute.begins, file.changed) <= now - QUIET_AFTER_SECONDS
            else None,
        )
        if not any(
            group is not None and group == earlier
            for group, earlier in zip(groups, before, strict=True)
        ):
            if length > SKIPPED_NAMES:
                ranges.append(QuietRange(first, last))
            first, length = file.uri, 0
        length += 1
        last, before = file.uri, groups
    if length > SKIPPED_NAMES:
        ranges.append(QuietRange(first, last))
    return ranges


def _is_over(day: _Time, newest: float, now: float) -> bool:
    """Returns whether nothing is to be expected of a day whose newest object is of a time."""
    ended = day.begins + 86400.0
    return (
        ended <= now - DAY_OVER_SECONDS
        and newest <= now - QUIET_AFTER_SECONDS
        and newest <= ended + DAY_LATE_SECONDS
    )


class _OutOfOrderError(Exception):
    """A store does not list in the order of names, or not from a name on."""


@dataclass(frozen=True)
class BucketListing:
    """What a listing found.

    Attributes:
      files: The objects.
      is_full: Whether nothing was left out.
    """

    files: ListedFiles
    is_full: bool


class Bucket:
    """Lists what is under an address again and again.

    What it remembers only saves requests: before it leaves anything out, the caller's state has to
    contain all that the last full listing found there.

    Args:
      source: An object, folder or glob of a store; of a glob, nothing is left out.
      part: The part of it that is listed.
    """

    def __init__(self, source: str, part: Part = WHOLE) -> None:
        self._source = source
        self._part = part
        self._base = source.rstrip("/") + "/"
        self._ranges: list[QuietRange] = []
        self._listed_at = 0.0
        self._full_every_seconds = 0.0
        self._is_ordered = not WILDCARD.search(source)

    def list(self, now: float, *, may_skip: bool) -> BucketListing:
        """Lists what is there.

        Args:
          now: Unix time in seconds.
          may_skip: Whether all that was found by the last full listing is known to the caller.

        Raises:
          OSError: The store can't be listed.
        """
        if may_skip and self._ranges and 0 <= now - self._listed_at < self._full_every_seconds:
            try:
                return BucketListing(self._new(), is_full=False)
            except _OutOfOrderError:
                self._is_ordered = False
        began = time.monotonic()
        files = ListedFiles()
        last = self._base
        may_leave_out = self._is_ordered and object_store(self._base) is not None
        for file in match_remote(self._source, self._part):
            files.append(_listed(file))
            # That all are under the base follows too, where the last one is.
            may_leave_out &= last < file.path
            last = file.path
        self._full_every_seconds = max(
            FULL_EVERY_SECONDS, FULL_EVERY_TIMES * (time.monotonic() - began)
        )
        self._listed_at = now
        may_leave_out &= last.startswith(self._base)
        self._ranges = quiet_ranges(files, self._base, now) if may_leave_out else []
        return BucketListing(files, is_full=True)

    def leaves_out(self, uri: str) -> bool:
        """Returns whether an address is in one of the ranges that are left out until the next full
        listing."""
        index = bisect.bisect_left(self._ranges, uri, key=lambda quiet: quiet.last)
        return index < len(self._ranges) and self._ranges[index].first <= uri

    def _new(self) -> ListedFiles:
        """Returns the objects outside of the quiet ranges."""
        files = ListedFiles()
        store = object_store(self._base)
        assert store is not None, "only such a store has quiet ranges"
        has = None if self._part == WHOLE else self._part.has
        ranges = iter(self._ranges)
        quiet = next(ranges, None)
        after: str | None = None
        while True:
            entered: QuietRange | None = None
            for file in list_some(store, self._base, has, after):
                if after is not None and file.path <= after:
                    raise _OutOfOrderError
                after = file.path
                while quiet is not None and quiet.last < file.path:
                    quiet = next(ranges, None)  # Its objects have gone.
                if quiet is not None and quiet.first <= file.path:
                    entered, quiet = quiet, next(ranges, None)
                    break
                if not file.path.endswith("/"):
                    files.append(_listed(file))
            if entered is None:
                return files
            after = entered.last


def _listed(file: FileMetadata) -> ListedFile:
    changed = file.last_updated_in_seconds
    # Beam's own filesystems give only size and date.
    tag = file.tag if isinstance(file, ObjectMetadata) else ""
    version = digest_of(file.path, file.size_in_bytes, changed, tag)
    return ListedFile(file.path, file.size_in_bytes, changed, version)
