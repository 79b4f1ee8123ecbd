"""WatchImages: the files that appear under `--input`, for as long as the job runs.

Beam's own `MatchContinuously` keeps the name of every file that it has ever seen in state. This
source, a splittable DoFn, keeps eight bytes for each version of a file that it has emitted and
that is still there. So a file is new when it is not among those: no clock and no memory of a worker
decides. What a worker remembers only saves it from listing.

On local filesystems, which date a renamed file again, versions that are older than a quarter of an
hour are folded: a folder keeps their number, their sum and the newest of their dates. What is
listed with an older date is known if number and sum are as they were. If they are less, files have
gone. Anything else is a doubt, and the files of that folder with such dates are emitted again: a
file that is emitted twice costs time, and one that is missed is lost.
"""

from __future__ import annotations

import itertools
import logging
import math
import re
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.shared import Shared
from apache_beam.utils.timestamp import Timestamp

from beam_pipeline.sources.buckets import Bucket
from beam_pipeline.sources.folders import (
    Disk,
    Filesystem,
    Folder,
    UnlistableFolder,
    digest_of,
    source_of,
    version_of,
    walk,
)
from beam_pipeline.sources.listed_files import (
    ListedFile,
    ListedFiles,
    Mask,
    SortedRows,
    is_among,
    packed_versions,
    versions_of,
)
from beam_pipeline.sources.listing import (
    LINKS_SKIPPED,
    InputLostError,
    describe_unlistable,
)
from beam_pipeline.sources.parts import WHOLE, Part, parts_of
from beam_pipeline.sources.unbounded import (
    EventTimeProvider,
    PollingDoFn,
    UnboundedProvider,
    advance_event_time,
    event_time_of,
)
from transforms.records.codecs import VersionedCoder
from transforms.records.images import ImageFile
from transforms.records.text import one_line, printable
from transforms.runtime.counters import count
from transforms.storage.stores import is_local

_LOGGER = logging.getLogger(__name__)

SETTLE_SECONDS = 1.0
"""How long a local file must not have changed before it is considered whole."""
COMPLETE_SETTLE_SECONDS = 0.25
"""The same for a file on a local filesystem that ends as a JPEG does."""
COARSE_SETTLE_SECONDS = 3.0
"""The same for a file whose date is a whole second: its filesystem may date by two seconds."""
OTHER_CLOCK_SECONDS = 60.0
"""A file that is that old by another machine's clock is whole; a younger one is seen twice."""
TEMPORARY_SETTLE_SECONDS = 3600.0
"""As SETTLE_SECONDS, for a name that programs give to files which they will rename."""
FOLD_AFTER_SECONDS = 900.0
"""A version that is that much older than the clock is folded, on a local filesystem."""
QUIET_AFTER_SECONDS = 3600.0
"""A folder without an added or removed entry for so long is listed more rarely."""
QUIET_EVERY_SECONDS = 3600.0
"""How often a quiet folder is listed, for a file that was changed in place."""
QUIET_EVERY_ELSEWHERE_SECONDS = 60.0
"""The same on filesystems that may not date a folder when an entry is added."""
SAME_DATE_SECONDS = 3.0
"""A folder may get an entry and keep its date if it was changed that shortly before."""
IN_PLACE_SECONDS = 60.0
"""How often a local folder is listed whose date shows that no entry has come or gone, for a file
that was changed in place. Its files that were changed that lately are looked at each time."""
MAX_YOUNG_FILES = 20_000
"""If a folder has more files that were changed that lately, it is listed again instead."""
REMEMBER_GONE_SECONDS = 7 * 86400.0
"""For how long a folder that is gone is remembered, as a disk may be mounted again."""
BACKLOG_SECONDS = 30.0
"""For how long files of one listing are emitted before the input is listed again; longer if the
listing itself took longer."""
MAX_FILES_PER_POLL = 5000
"""Files that are emitted before the source's state is kept."""

_TEMPORARY = re.compile(r"\..*|.*\.(?:tmp|temp|part|partial|filepart|crdownload|upload)|.*~", re.I)
_SUM = 1 << 64


@dataclass(frozen=True)
class KnownFolder:
    """The versions of the files of a folder that were emitted.

    Attributes:
      path: A digest of the folder's path.
      number: Its inode's; 0 where it identifies nothing.
      parent: A digest of the path of the folder that it is in.
      filesystem: The number of its filesystem.
      changed: When an entry was last added or removed, at the last listing.
      gone_since: Since when it is not there, in Unix time; 0 if it is.
      appeared: When it was first listed, in Unix time; 0 if that was in the source's first listing.
      folded_until: The newest date of the folded versions; minus infinity if there are none.
      folded: How many versions are folded.
      folded_sum: The sum of the folded versions as numbers, modulo 2**64.
      versions: The versions that are not folded, eight bytes each.
    """

    path: bytes
    number: int
    parent: bytes
    filesystem: int = 0
    changed: float = 0.0
    gone_since: float = 0.0
    appeared: float = 0.0
    folded_until: float = -math.inf
    folded: int = 0
    folded_sum: int = 0
    versions: bytes = b""

    @property
    def key(self) -> tuple[bytes, int]:
        """Identifies it: a folder that replaces another is a different one."""
        return self.path, self.number


@dataclass(frozen=True)
class KnownFiles:
    """What the source must not forget.

    Attributes:
      folders: The folders that were seen.
      waiting: Versions of files that may not be whole yet, and when each was seen first.
    """

    folders: tuple[KnownFolder, ...] = ()
    waiting: tuple[tuple[bytes, float], ...] = ()


_FOLDER = struct.Struct(">8sQ8sQddddQQI")
_FOLDER_V1 = struct.Struct(">8sQ8sQdddQQI")  # Without `appeared`.
_WAITING = struct.Struct(">8sd")


def _pack(known: KnownFiles | None) -> Any:
    if known is None:
        return None
    folders = b"".join(
        _FOLDER.pack(
            *(folder.path, folder.number, folder.parent, folder.filesystem),
            *(folder.changed, folder.gone_since, folder.appeared),
            *(folder.folded_until, folder.folded, folder.folded_sum, len(folder.versions)),
        )
        for folder in known.folders
    )
    versions = b"".join(folder.versions for folder in known.folders)
    return [folders, versions, b"".join(_WAITING.pack(*file) for file in known.waiting)]


def _unpack(packed: Any) -> KnownFiles | None:
    if packed is None:
        return None
    packed_folders, versions, waiting = packed
    folders, position = [], 0
    for *fields, length in _FOLDER.iter_unpack(packed_folders):
        folders.append(
            replace(KnownFolder(*fields), versions=versions[position : position + length])
        )
        position += length
    return KnownFiles(tuple(folders), tuple(_WAITING.iter_unpack(waiting)))


def _upgrade_folders(packed: Any) -> Any:
    if packed is None:
        return None
    folders, versions, waiting = packed
    upgraded = b"".join(
        _FOLDER.pack(*fields[:6], 0.0, *fields[6:]) for fields in _FOLDER_V1.iter_unpack(folders)
    )
    return [upgraded, versions, waiting]


KNOWN_FILES_CODER: VersionedCoder[KnownFiles | None] = VersionedCoder(
    KnownFiles, version=2, upgrades={1: _upgrade_folders}, pack=_pack, unpack=_unpack
)
"""Writes what was seen; None where nothing is left of the source."""


def compare(before: KnownFolder | None, folder: Folder) -> tuple[KnownFolder, Mask]:
    """Compares a folder with its known state; returns the new state, and which files are new.

    Args:
      before: The known state of the folder; None for a new folder.
      folder: The listing of the folder.
    """
    filesystem = folder.filesystem
    after = replace(
        before or KnownFolder(digest_of(folder.path), _inode(folder), digest_of(folder.parent)),
        filesystem=filesystem.number,
        changed=folder.changed,
        gone_since=0.0,
    )
    versions = folder.files.versions
    is_new = folder.files.changed > after.folded_until
    old = len(is_new) - np.count_nonzero(is_new)
    if before is not None and (old or before.folded):
        old_sum = int(versions.sum(where=~is_new))  # Modulo 2**64, as the state keeps it.
        if (old, old_sum) == (before.folded, before.folded_sum):
            pass
        elif folder.unread and old <= before.folded:
            pass  # A file whose status can't be read is not gone.
        elif old < before.folded and _only_lost(before, folder):
            after = replace(after, folded=old, folded_sum=old_sum)
        else:
            after = replace(after, folded_until=-math.inf, folded=0, folded_sum=0)
            is_new[:] = True
    known_versions = versions_of(after.versions)
    if len(known_versions):
        if not folder.unread and not folder.is_partial:
            is_listed = is_among(known_versions, versions[is_new])
            if not is_listed.all():
                after = replace(after, versions=packed_versions(known_versions[is_listed]))
        is_new &= ~is_among(versions, known_versions)
    return after, is_new


def _only_lost(before: KnownFolder, folder: Folder) -> bool:
    """Returns whether a folder that shows fewer old files than before can't have got others of
    them.

    No file comes into it with an old date, as it is the same folder, of a filesystem that dates
    renames and whose clock was not set back.
    """
    return (
        folder.filesystem.is_local
        and folder.filesystem.number == before.filesystem
        and folder.changed >= before.changed
    )


def _inode(folder: Folder) -> int:
    return folder.number if folder.filesystem.is_local else 0


def fold(known: KnownFolder, folder: Folder, is_new: Mask, limit: float) -> KnownFolder:
    """Returns what was seen of a folder, its older versions folded.

    Args:
      known: What is known of it.
      folder: As it was listed.
      is_new: Which of its files are not emitted yet; what is no older than one of them is not
        folded.
      limit: What is newer than this date is not folded.
    """
    if not folder.filesystem.is_local or folder.has_linked_files or not known.versions:
        return known
    if folder.unread:  # Their dates may be older than those that would be folded.
        return known
    changed, versions = folder.files.changed, folder.files.versions
    oldest_new = changed.min(where=is_new, initial=math.inf)
    may_fold = (known.folded_until < changed) & (changed <= limit) & (changed < oldest_new)
    known_versions = versions_of(known.versions)
    is_older = may_fold & is_among(versions, known_versions)
    older = versions[is_older]
    if not len(older):
        return known
    return replace(
        known,
        folded_until=float(changed.max(where=is_older, initial=-math.inf)),
        folded=known.folded + len(older),
        folded_sum=(known.folded_sum + int(older.sum())) % _SUM,
        versions=packed_versions(known_versions[~is_among(known_versions, older)]),
    )


def _settle_seconds(file: ListedFile) -> float:
    if _TEMPORARY.fullmatch(file.uri.rsplit("/", 1)[-1]):
        return TEMPORARY_SETTLE_SECONDS
    return COARSE_SETTLE_SECONDS if file.changed.is_integer() else SETTLE_SECONDS


def seconds_until_whole(
    file: ListedFile,
    filesystem: Filesystem,
    *,
    first_seen: float,
    now: float,
    ends_as_jpeg: Callable[[str], bool],
) -> float:
    """Returns in how many seconds a local file may be considered whole; 0 or less: now.

    Args:
      file: The file.
      filesystem: The one that it is on.
      first_seen: When this version of it was seen first.
      now: Unix time in seconds.
      ends_as_jpeg: Returns whether the file at a path ends as a JPEG does.
    """
    settle_seconds = _settle_seconds(file)
    by_date = settle_seconds if filesystem.is_local else max(settle_seconds, OTHER_CLOCK_SECONDS)
    unchanged_seconds = now - file.changed
    seconds_left = min(settle_seconds - (now - first_seen), by_date - unchanged_seconds)
    may_be_complete = (
        filesystem.is_local
        and settle_seconds == SETTLE_SECONDS
        and unchanged_seconds >= COMPLETE_SETTLE_SECONDS
    )
    if seconds_left > 0 and may_be_complete and ends_as_jpeg(file.uri):
        return 0.0
    return seconds_left


@dataclass(frozen=True)
class _Remembered:
    """How a local folder was listed.

    Attributes:
      folder: The folder, without its files.
      listed: When it was listed, in Unix time.
      changed: When something that was listed of it last changed, in Unix time.
      known: Its state after the listing, when all of its files were emitted.
      young: Paths and versions of the files that may still be written.
    """

    folder: Folder
    listed: float
    changed: float
    known: KnownFolder
    young: tuple[tuple[str, bytes], ...]

    def is_dated_as(self, folder: Folder) -> bool:
        """Returns whether a folder is the same one, with the same dates."""
        return _identity(self.folder) == _identity(folder)


def _identity(folder: Folder) -> tuple[Filesystem, int, float, float]:
    return folder.filesystem, folder.number, folder.changed, folder.status_changed


class _LocalInput:
    """Lists a folder and all beneath it, and skips folders in which nothing has come."""

    is_whole_at_once = False

    def __init__(self, source: str, part: Part, follow_links: bool, disk: Disk) -> None:
        self._source = source
        self._part = part
        self._follow_links = follow_links
        self._disk = disk
        self._remembered: dict[str, _Remembered] = {}

    def list(
        self, known: Mapping[tuple[bytes, int], KnownFolder], now: float
    ) -> Iterator[Folder | UnlistableFolder]:
        # A stream that runs for months on a folder a day must not remember each of them.
        self._remembered = {
            path: before for path, before in self._remembered.items() if before.known.key in known
        }

        def unchanged(folder: Folder) -> list[str] | None:
            """Returns the folders in a folder that need not be listed."""
            before = self._remembered.get(folder.path)
            if (
                before is None
                or self._follow_links
                or not before.is_dated_as(folder)
                or known.get((digest_of(folder.path), _inode(folder))) != before.known
            ):
                return None
            is_same = self._is_quiet(before, folder, now) or self._is_untouched(before, folder, now)
            return before.folder.folders if is_same else None

        return walk(
            source_of(self._source),
            self._disk,
            part=self._part,
            follow_links=self._follow_links,
            unchanged=unchanged,
        )

    @staticmethod
    def _is_quiet(before: _Remembered, folder: Folder, now: float) -> bool:
        """Returns whether nothing has come into a folder for long."""
        dates_folders = folder.filesystem.dates_folders
        relist_seconds = QUIET_EVERY_SECONDS if dates_folders else QUIET_EVERY_ELSEWHERE_SECONDS
        # A folder that was moved in brings its own date, and may still be written.
        quiet_since = max(folder.changed, before.known.appeared)
        if not dates_folders:
            quiet_since = max(quiet_since, before.changed)
        return (
            now - quiet_since >= QUIET_AFTER_SECONDS and 0 <= now - before.listed < relist_seconds
        )

    def _is_untouched(self, before: _Remembered, folder: Folder, now: float) -> bool:
        """Returns whether nothing has come into a folder since it was listed, by its date."""
        if not (
            folder.filesystem.is_local
            and not before.folder.has_linked_files
            and not before.folder.dangling
            and before.listed - folder.status_changed >= SAME_DATE_SECONDS
            and 0 <= now - before.listed < IN_PLACE_SECONDS
        ):
            return False
        try:
            return all(
                version_of(path, self._disk.stat(path)) == version for path, version in before.young
            )
        except OSError:
            return False

    def remember(
        self,
        folder: Folder,
        before: KnownFolder | None,
        after: KnownFolder,
        is_new: Mask,
        now: float,
    ) -> None:
        """Remembers how a folder was listed.

        Args:
          folder: The folder.
          before: Its state before this listing.
          after: Its state after this listing, without what is new.
          is_new: Which of its files are not emitted yet.
          now: Unix time in seconds.
        """
        earlier = self._remembered.pop(folder.path, None)
        is_young = folder.files.changed > now - IN_PLACE_SECONDS
        if not is_new.any() and not folder.unread and np.count_nonzero(is_young) <= MAX_YOUNG_FILES:
            self._remembered[folder.path] = _Remembered(
                folder=replace(folder, files=ListedFiles()),
                listed=now,
                changed=earlier.changed if earlier is not None and before == after else now,
                known=after,
                young=tuple((file.uri, file.version) for file in folder.files.where(is_young)),
            )


class _RemoteInput:
    """Lists what is under an address of an object store, as if it were one folder."""

    is_whole_at_once = True

    def __init__(self, source: str, part: Part) -> None:
        self._source = source
        self._bucket = Bucket(source, part)
        # What was known at the last full listing, if nothing was new of what is left out since.
        self._listed_with: bytes | None = None

    def list(
        self, known: Mapping[tuple[bytes, int], KnownFolder], now: float
    ) -> Iterator[Folder | UnlistableFolder]:
        bucket = Folder(self._source, self._source, 0, 0.0, Filesystem(0, False, False))
        before = known.get((digest_of(bucket.path), 0))
        versions = b"" if before is None else before.versions
        # Until the next full listing, versions are only added.
        may_skip = self._listed_with is not None and versions.startswith(self._listed_with)
        listing = self._bucket.list(now, may_skip=may_skip)
        bucket.is_partial, bucket.files = not listing.is_full, listing.files
        yield bucket

    def remember(
        self,
        folder: Folder,
        before: KnownFolder | None,
        after: KnownFolder,
        is_new: Mask,
        now: float,
    ) -> None:
        """Remembers what is known of the objects, as :meth:`_LocalInput.remember` does."""
        if not folder.is_partial:
            new = folder.files.where(is_new)
            has_new = any(self._bucket.leaves_out(file.uri) for file in new)
            self._listed_with = None if has_new else after.versions


class _Listing:
    """What one listing has found, emitted in parts.

    Args:
      began: When the listing began, in Unix time.
      ended: When it ended.
      folders: What is known of the folders without what is ready.
      listed: The keys of those that were listed.
      ready: The files to emit, as rows: when each changed, its address, its folder's place in
        `listed`, its version, its size, and when its bytes were written.
      waiting: Versions of files that may not be whole yet, and when each was seen first.
      due_in_seconds: In how many seconds the first of them may be whole.
    """

    def __init__(
        self,
        began: float,
        ended: float,
        folders: dict[tuple[bytes, int], KnownFolder],
        listed: Sequence[tuple[bytes, int]],
        ready: SortedRows,
        waiting: dict[bytes, float],
        due_in_seconds: float,
    ) -> None:
        self._ended = ended
        self._fresh_seconds = max(BACKLOG_SECONDS, ended - began)
        self._folders = folders
        self._listed = listed
        self._left = len(ready)
        self._ready = ready.drain()
        self._waiting = dict(sorted(waiting.items()))
        self.due_in_seconds = due_in_seconds
        self.known = KnownFiles()

    @property
    def has_more(self) -> bool:
        return self._left > 0

    def is_fresh(self, now: float) -> bool:
        return 0 <= now - self._ended < self._fresh_seconds

    def next_files(self, max_files: int) -> list[ListedFile]:
        """Returns the next files to emit; `known` is then what was seen."""
        files = []
        versions: dict[int, list[bytes]] = {}
        for row in itertools.islice(self._ready, max_files):
            changed, uri, folder_at, version, size_bytes, modified = row
            files.append(ListedFile(uri, size_bytes, changed, version, modified))
            versions.setdefault(folder_at, []).append(version)
            self._waiting.pop(version, None)
        self._left -= len(files)
        for folder_at, new in versions.items():
            key = self._listed[folder_at]
            folder = self._folders[key]
            self._folders[key] = replace(folder, versions=folder.versions + b"".join(new))
        waiting = tuple(self._waiting.items())
        self.known = KnownFiles(tuple(self._folders.values()), waiting)
        return files


@dataclass(frozen=True)
class PollResult:
    """The result of a poll.

    Attributes:
      ready: The files to emit.
      known: What was then seen.
      has_more: Whether there are more of them.
      due_in_seconds: In how many seconds a file that waits may be whole; infinite if none waits.
    """

    ready: list[ListedFile]
    known: KnownFiles
    has_more: bool
    due_in_seconds: float


class Watcher:
    """Looks for files that are new; what it remembers between two polls only saves time.

    Args:
      source: A file, directory or glob.
      part: Which part of it is watched.
      follow_links: Whether links are followed wherever they lead.
      disk: What is listed, if the source is local.
      max_files: The maximum number of files in one poll.
      clock: Gives Unix time in seconds.
    """

    def __init__(
        self,
        source: str,
        *,
        part: Part = WHOLE,
        follow_links: bool = False,
        disk: Disk | None = None,
        max_files: int = MAX_FILES_PER_POLL,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._max_files = max_files
        self._clock = clock
        disk = disk or Disk()
        self._input: _LocalInput | _RemoteInput = (
            _LocalInput(source, part, follow_links, disk)
            if is_local(source)
            else _RemoteInput(source, part)
        )
        self._ends_as_jpeg = disk.ends_as_jpeg
        self._listing: _Listing | None = None
        self._unlistable: set[str] = set()
        self._links: set[str] = set()

    def poll(self, known: KnownFiles) -> PollResult:
        """Returns the files that are new.

        Args:
          known: What was seen before.

        Raises:
          Exception: The input as a whole can't be listed; each store has its own kinds of error.
        """
        now = self._clock()
        listing, self._listing = self._listing, None
        if listing is None or not listing.is_fresh(now) or listing.known != known:
            listing = self._list(known, now)
        ready = listing.next_files(self._max_files)
        if listing.has_more:
            self._listing = listing
        return PollResult(ready, listing.known, listing.has_more, listing.due_in_seconds)

    def _list(self, known: KnownFiles, now: float) -> _Listing:
        known_folders = {folder.key: folder for folder in known.folders}
        waited_before = dict(known.waiting)
        folders: dict[tuple[bytes, int], KnownFolder] = {}
        unlistable: dict[str, UnlistableFolder | Folder] = {}
        listed: list[tuple[bytes, int]] = []
        ready = SortedRows()
        waiting: dict[bytes, float] = {}
        due_in_seconds = math.inf
        for folder in self._input.list(known_folders, now):
            if isinstance(folder, UnlistableFolder):
                unlistable[folder.path] = folder
                continue
            before = known_folders.get((digest_of(folder.path), _inode(folder)))
            if not folders:
                self._check_top(folder, before, known_folders)
            if folder.is_unchanged:
                assert before is not None, "only a folder that was seen is skipped"
                folders[before.key] = replace(before, gone_since=0.0)
                continue
            self._report_links(folder)
            if folder.unread:
                unlistable[folder.path] = folder
            after, is_new = compare(before, folder)
            if before is None and known_folders:
                after = replace(after, appeared=now)
            after = fold(after, folder, is_new, now - FOLD_AFTER_SECONDS)
            folders[after.key] = after
            listed.append(after.key)
            for file in folder.files.where(is_new):
                first_seen = min(waited_before.get(file.version, now), now)
                seconds_left = (
                    0.0
                    if self._input.is_whole_at_once
                    else seconds_until_whole(
                        file,
                        folder.filesystem,
                        first_seen=first_seen,
                        now=now,
                        ends_as_jpeg=self._ends_as_jpeg,
                    )
                )
                if seconds_left <= 0:
                    uri, size_bytes, changed, version, modified = file
                    row = (changed, uri, len(listed) - 1, version, size_bytes, modified)
                    ready.add(row)
                else:
                    due_in_seconds = min(due_in_seconds, seconds_left)
                if seconds_left > 0 or file.version in waited_before:
                    waiting[file.version] = first_seen
            self._input.remember(folder, before, after, is_new, now)
        self._report_unlistable(unlistable)
        folders |= _hidden_folders(
            known_folders, folders, {digest_of(path) for path in unlistable}, now
        )
        return _Listing(now, self._clock(), folders, listed, ready, waiting, due_in_seconds)

    def _check_top(
        self,
        top: Folder,
        before: KnownFolder | None,
        known_folders: Mapping[tuple[bytes, int], KnownFolder],
    ) -> None:
        path = digest_of(top.path)
        if (
            before is None
            and top.is_empty
            and any(folder.path == path for folder in known_folders.values())
        ):
            raise InputLostError(
                f"{top.path} is empty, and not the same folder as before; is the right disk "
                "mounted there?"
            )

    def _report_links(self, folder: Folder) -> None:
        new = [path for path in folder.links if path not in self._links]
        if not new:
            return
        if not self._links:
            _LOGGER.warning(LINKS_SKIPPED, printable(new[0]))
        self._links.update(new)
        count("source.links_passed_over", len(new))

    def _report_unlistable(self, unlistable: Mapping[str, UnlistableFolder | Folder]) -> None:
        for path, folder in unlistable.items():
            if path not in self._unlistable:
                count("source.unlistable")
                _LOGGER.error("%s", describe_unlistable(folder))
        self._unlistable = set(unlistable)


def _hidden_folders(
    known_folders: Mapping[tuple[bytes, int], KnownFolder],
    listed: Mapping[tuple[bytes, int], KnownFolder],
    unlistable: set[bytes],
    now: float,
) -> dict[tuple[bytes, int], KnownFolder]:
    """Returns what is known of folders that a listing lacks: some may only be hidden."""
    parents = {folder.path: folder.parent for folder in (*known_folders.values(), *listed.values())}
    listed_paths = {folder.path for folder in listed.values()}

    def is_out_of_sight(path: bytes) -> bool:
        visited: set[bytes] = set()
        while path not in visited:
            if path in unlistable:
                return True
            if path in listed_paths:
                return False
            visited.add(path)
            path = parents.get(path, path)
        return False

    hidden = {}
    for key, folder in known_folders.items():
        if key in listed:
            continue
        if folder.path not in listed_paths and is_out_of_sight(folder.path):
            hidden[key] = folder
        elif not folder.gone_since:
            hidden[key] = replace(folder, gone_since=now)
        elif now - folder.gone_since < REMEMBER_GONE_SECONDS:
            hidden[key] = folder
    return hidden


_RESTRICTION = beam.DoFn.RestrictionParam(UnboundedProvider(KnownFiles(), KNOWN_FILES_CODER))
_WATERMARK = beam.DoFn.WatermarkEstimatorParam(EventTimeProvider())


class _Watchers(dict[Part, Watcher]):
    """The watchers of a process between two polls.

    Any of the step's instances polls a part, and takes along what was remembered of it.
    """

    is_told = False
    """Whether the process has said that the stream began with another number of parts."""


class _Watch(PollingDoFn):
    def __init__(
        self,
        source: str,
        poll_seconds: float,
        clock: Callable[[], float],
        *,
        parts: int = 1,
        follow_links: bool,
    ) -> None:
        super().__init__(source, poll_seconds, clock)
        self._parts = parts
        self._follow_links = follow_links
        self._shared = Shared()

    def setup(self) -> None:
        self._watchers: _Watchers = self._shared.acquire(_Watchers)

    @beam.DoFn.unbounded_per_element()
    def process(
        self,
        element: Any,
        tracker: Any = _RESTRICTION,
        estimator: Any = _WATERMARK,
    ) -> Iterator[Any]:
        now = self._clock()
        part = element if isinstance(element, Part) else WHOLE
        self._compare_with_option(part)
        try:
            result = self._poll(part, tracker.current_restriction())
        except Exception as error:  # Each store's client has its own kinds of error.
            count("source.listing_failed")
            _LOGGER.error("--input %s can't be listed: %s", self._source, one_line(error))
            self._defer(tracker)
            return
        if not tracker.try_claim(result.known):
            return
        event_time = event_time_of(estimator)
        for file in result.ready:
            yield TimestampedValue(
                ImageFile(file.uri, file.size_bytes, event_time, file.changed), Timestamp(now)
            )
        if not result.has_more:  # What was there is on its way; now event time may go on.
            advance_event_time(estimator, now)
        # A file that waits is listed once it may be whole, but no folder twice in a second.
        pause = min(self._poll_seconds, max(result.due_in_seconds, SETTLE_SECONDS))
        self._defer(tracker, 0.0 if result.has_more else pause)

    def _poll(self, part: Part, known: KnownFiles) -> PollResult:
        watcher = self._watchers.pop(part, None)  # No other poll uses it meanwhile.
        if watcher is None:
            watcher = Watcher(
                self._source, part=part, follow_links=self._follow_links, clock=self._clock
            )
        try:
            return watcher.poll(known)
        finally:
            self._watchers[part] = watcher

    def _compare_with_option(self, part: Part) -> None:
        if part.number != self._parts and not self._watchers.is_told:
            self._watchers.is_told = True
            _LOGGER.warning(
                "--input_parts %d has no effect: this stream has begun with %d, and goes on so",
                self._parts,
                part.number,
            )


class WatchImages(beam.PTransform):
    """Finds files as they appear, each once, for as long as the job runs.

    A file that is being written is left alone until it has not changed for a second, or for a
    quarter of a second if it is on a local filesystem and ends as a JPEG does; one that changes
    after it was emitted is emitted again. Event time follows the clock, ten seconds
    behind, once all that was there is emitted: neither a camera that becomes silent nor one whose
    clock is wrong moves it. Where the input is divided into parts, each has an event time and a
    state of its own, and that of the output is the earliest of them.

    Output: `PCollection[ImageFile]`, unbounded.

    Args:
      source: A file, directory or glob, as :func:`listing.list_images` takes it.
      parts: Into how many parts the entries of its top folder are divided. Each part is an element
        of its own, as Flink gives all restrictions of one element to one slot.
      follow_links: Whether links are followed wherever they lead.
      poll_seconds: Seconds between two polls.
      clock: Gives Unix time in seconds.
    """

    def __init__(
        self,
        source: str,
        *,
        parts: int = 1,
        follow_links: bool = False,
        poll_seconds: float = 5.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self._parts = parts
        self._watch = _Watch(source, poll_seconds, clock, parts=parts, follow_links=follow_links)

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[ImageFile]:
        watched: beam.PCollection[Any] = begin | "Once" >> beam.Impulse()
        if self._parts > 1:  # Of a whole input, savepoints of earlier releases stay usable.
            parts = parts_of(self._parts)
            watched |= "Parts" >> beam.FlatMap(lambda _: parts).with_output_types(Part)
        return watched | "Watch" >> beam.ParDo(self._watch).with_output_types(ImageFile)
