"""What a watching source emits of given listings, by lists and sets of Python: its slow twin."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from beam_pipeline.sources import watching
from beam_pipeline.sources.folders import Folder, UnlistableFolder
from beam_pipeline.sources.listed_files import ListedFile
from beam_pipeline.sources.watching import KnownFiles, KnownFolder, PollResult, Watcher
from tests.beam_pipeline.simulated_disk import SimulatedDisk

Key = tuple[bytes, int]


def _split(versions: bytes) -> list[bytes]:
    return [versions[at : at + 8] for at in range(0, len(versions), 8)]


def _sum(versions: list[bytes]) -> int:
    return sum(int.from_bytes(version, "big") for version in versions) % 2**64


def _compare(before: KnownFolder | None, folder: Folder) -> tuple[KnownFolder, list[ListedFile]]:
    fresh = KnownFolder(
        watching.digest_of(folder.path),
        folder.number if folder.filesystem.is_local else 0,
        watching.digest_of(folder.parent),
    )
    after = replace(
        before or fresh, filesystem=folder.filesystem.number, changed=folder.changed, gone_since=0.0
    )
    old = [file.version for file in folder.files if file.changed <= after.folded_until]
    new = [file for file in folder.files if file.changed > after.folded_until]
    if before is not None and (len(old), _sum(old)) != (before.folded, before.folded_sum):
        only_lost = (
            folder.filesystem.is_local
            and folder.filesystem.number == before.filesystem
            and folder.changed >= before.changed
        )
        if folder.unread and len(old) <= before.folded:
            pass
        elif len(old) < before.folded and only_lost:
            after = replace(after, folded=len(old), folded_sum=_sum(old))
        else:
            after = replace(after, folded_until=-math.inf, folded=0, folded_sum=0)
            new = list(folder.files)
    known = _split(after.versions)
    if not folder.unread and not folder.is_partial:
        listed = {file.version for file in new}
        after = replace(after, versions=b"".join(one for one in known if one in listed))
    return after, [file for file in new if file.version not in set(known)]


def _fold(known: KnownFolder, folder: Folder, new: list[ListedFile], limit: float) -> KnownFolder:
    if not folder.filesystem.is_local or folder.has_linked_files or folder.unread:
        return known
    oldest_new = min((file.changed for file in new), default=math.inf)
    older = {
        file.version: file.changed
        for file in folder.files
        if known.folded_until < file.changed <= limit
        and file.changed < oldest_new
        and file.version in _split(known.versions)
    }
    if not older:
        return known
    return replace(
        known,
        folded_until=max(older.values()),
        folded=known.folded + len(older),
        folded_sum=(known.folded_sum + _sum(list(older))) % 2**64,
        versions=b"".join(one for one in _split(known.versions) if one not in older),
    )


class SimpleWatcher:
    """Emits what a watcher has to emit of what that watcher lists.

    Args:
      watcher: Of the same age, of a simulated disk.
      disk: The disk.
      max_files: The maximum number of files in one poll.
    """

    def __init__(self, watcher: Watcher, disk: SimulatedDisk, max_files: int) -> None:
        self._disk = disk
        self._max_files = max_files
        self._listing: list[tuple[ListedFile, Key]] = []
        self._ended = -math.inf
        self._folders: dict[Key, KnownFolder] = {}
        self._waiting: dict[bytes, float] = {}
        self._due = math.inf
        self._known: KnownFiles | None = None
        self._listed: list[Folder | UnlistableFolder] | None = None
        lists = watcher._input.list

        def record(
            known: Mapping[Key, KnownFolder], now: float
        ) -> Iterator[Folder | UnlistableFolder]:
            self._listed = []
            for folder in lists(known, now):
                self._listed.append(folder)
                yield folder

        watcher._input.list = record  # type: ignore[method-assign]

    def fail(self) -> None:
        """Forgets the listing, as the watcher's poll has failed."""
        self._listing, self._listed = [], None

    def poll(self, known: KnownFiles) -> PollResult:
        """Returns what the watcher's poll, which was just made, has to return."""
        listed, self._listed = self._listed, None
        goes_on = self._listing and 0 <= self._disk.now - self._ended < watching.BACKLOG_SECONDS
        if not goes_on or self._known != known:
            assert listed is not None, "the watcher emitted files of an earlier listing"
            self._take(known, listed)
        else:
            assert listed is None, "the watcher has listed though it had a listing"
        entries = self._listing[: self._max_files]
        del self._listing[: self._max_files]
        for file, key in entries:
            folder = self._folders[key]
            self._folders[key] = replace(folder, versions=folder.versions + file.version)
            self._waiting.pop(file.version, None)
        waiting = tuple(sorted(self._waiting.items()))
        self._known = KnownFiles(tuple(self._folders.values()), waiting)
        ready = [file for file, _ in entries]
        return PollResult(ready, self._known, bool(self._listing), self._due)

    def _take(self, known: KnownFiles, listed: list[Folder | UnlistableFolder]) -> None:
        now = self._disk.now
        before = {folder.key: folder for folder in known.folders}
        waited = dict(known.waiting)
        self._folders, self._waiting, self._due, self._listing = {}, {}, math.inf, []
        self._ended = now
        unlistable = set()
        for folder in listed:
            if isinstance(folder, UnlistableFolder) or folder.unread:
                unlistable.add(watching.digest_of(folder.path))
            if isinstance(folder, UnlistableFolder):
                continue
            number = folder.number if folder.filesystem.is_local else 0
            earlier = before.get((watching.digest_of(folder.path), number))
            if folder.is_unchanged:
                assert earlier is not None
                self._folders[earlier.key] = replace(earlier, gone_since=0.0)
                continue
            after, new = _compare(earlier, folder)
            if earlier is None and before:
                after = replace(after, appeared=now)
            after = _fold(after, folder, new, now - watching.FOLD_AFTER_SECONDS)
            self._folders[after.key] = after
            for file in new:
                first_seen = min(waited.get(file.version, now), now)
                left = watching.seconds_until_whole(
                    *(file, folder.filesystem),
                    first_seen=first_seen,
                    now=now,
                    ends_as_jpeg=self._disk.ends_as_jpeg,
                )
                if left <= 0:
                    self._listing.append((file, after.key))
                else:
                    self._due = min(self._due, left)
                if left > 0 or file.version in waited:
                    self._waiting[file.version] = first_seen
        self._listing.sort(key=lambda entry: (entry[0].changed, entry[0].uri))
        self._folders |= watching._hidden_folders(before, self._folders, unlistable, now)
