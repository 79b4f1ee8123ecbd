"""RowWriter: writes the decisions of a packed stream as rows, and finds those that stand.

What is written is compared with the rows that the output has: an earlier run, another job, or a
bundle that failed may have written others. A row that says the same is not written again, and one
that says otherwise replaces the earlier one by its generation. So the rows that stand are those of
the newest decisions, whatever the runner has lost or done twice.

An image with a record in `alerts/` has a file in `final/`, which is written at once. Before that, a
note is left (:func:`transforms.storage.stores.packed_note_uri`): if the stream loses that decision
and decides otherwise, the file is found by the note, and deleted.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

import numpy as np
import numpy.typing as npt

from transforms.count_threats import window_of
from transforms.packed_decisions import Decision, Key, PackedWindows
from transforms.records.file_names import InvalidNameError, parse_name
from transforms.records.images import JudgedImage, stem_of
from transforms.records.text import printable
from transforms.records.times import canonical_time
from transforms.storage import stores
from transforms.storage.packed_output import (
    PERIOD,
    PackedFile,
    TornFileError,
    file_named,
    period_name,
    read_file,
    write_file,
)
from transforms.storage.packed_rows import PackedRow, Rows, rank_of

_LOGGER = logging.getLogger(__name__)

_KEPT_ROWS = 100_000
_KEPT_HASHES = 4_000_000
_FEW_ROWS = 2048
_LISTINGS = 10
_HASH_BYTES = 32


@dataclass(frozen=True)
class _Standing:
    """What a row of the output says, as far as it is compared."""

    rank: bytes
    generation: int
    is_retracted: bool
    has_severity: bool
    stem: str
    uri: str

    @classmethod
    def of(cls, row: PackedRow) -> _Standing:
        image = row.image
        retracted, severe = row.is_retracted, row.has_severity
        return cls(rank_of(row), row.generation, retracted, severe, image.stem, image.uri)


@dataclass(frozen=True)
class _Listing:
    """The files that may have rows of a day, and the names of all that the folder has of it."""

    day: datetime
    files: tuple[PackedFile, ...]
    names: tuple[str, ...]


class RowWriter:
    """Writes the rows of decisions, and finds those that stand. Thread-safe.

    Args:
      output: The job's output.
      windows: Which window a capture time belongs to.
    """

    def __init__(self, output: str, windows: PackedWindows) -> None:
        self._output = output
        self._windows = windows
        self._folder = stores.packed_folder(output)
        self._lock = threading.RLock()
        self._cache: OrderedDict[tuple[str, str], dict[Key, _Standing]] = OrderedDict()
        """The rows of files, whose contents never change. What was used last comes last."""
        self._kept = 0
        """How many rows these are."""
        self._hashes: OrderedDict[tuple[str, str], npt.NDArray[np.int64]] = OrderedDict()
        """The sorted hashes of the keys in files, also of those whose rows are kept no longer."""
        self._kept_hashes = 0
        self._is_small: dict[str, bool] = {}
        """Whether files of several windows have few rows: of one that has, the hashes of all of its
        windows are kept."""
        self._named: dict[str, PackedFile | None] = {}
        """The names of the last listing, and the packed files that have them."""
        self._long: list[PackedFile] | None = None
        """The files of more than one day."""
        self._shown: dict[datetime, tuple[set[str], _Listing]] = {}
        """The last listings of days in this bundle, and what they show; see :meth:`find`."""

    def start_bundle(self) -> None:
        """Begins a bundle: what others have written since is seen."""
        self._shown = {}

    def note(self, judged: JudgedImage) -> None:
        """Leaves a note that an image is about to get a file in `final/`.

        Raises:
          OSError: It can't be written.
        """
        image = judged.image
        period = self._windows.name_of(image.id, image.timestamp)
        stores.write_bytes(stores.packed_note_uri(self._output, period, image.stem), b"")

    def write(self, decisions: Iterable[Decision]) -> bool:
        """Writes what decisions say otherwise than the output, as one file for each day.

        Args:
          decisions: Decisions on different capture times.

        Returns:
          Whether there are notes of their windows.

        Raises:
          OSError: The store can't be listed, read or written.
        """
        by_day: dict[datetime, list[Decision]] = {}
        for decision in decisions:
            by_day.setdefault(self._day_of(decision.timestamp), []).append(decision)
        noted = [self._write_day(day, of_day) for day, of_day in by_day.items()]
        return any(noted)

    def _write_day(self, day: datetime, decisions: Sequence[Decision]) -> bool:
        keys = self._by_period(decision.key for decision in decisions)
        standing, listing = self._standing(keys, self._list(day))
        noted = self._noted(listing.names)
        rows = Rows()
        for decision in decisions:
            before = standing.get(decision.key)
            if decision.winner is not None:
                row = self._row_of(decision, decision.winner, before, noted)
            else:
                row = self._retraction(decision, before, listing)
            if row is not None:
                rows.add([row])
        uri = write_file(self._folder, self._file_period(keys), rows)
        if uri is not None:
            self._keep_small(uri, rows)
        return any(self._windows.name_of(*key) in keys for key in noted)

    def find(self, camera: str, timestamp: str, *, after: str | None = None) -> PackedRow | None:
        """Returns the row of a camera and capture time, which may be retracted; None if there is
        none.

        A file with few rows is read once, and one with many once for each window, as there may be
        many files of late images.

        Args:
          camera: The camera.
          timestamp: The capture time, canonical.
          after: Names what must be seen (see :class:`LateVersion`): the day is listed once in a
            bundle for each name. None to list it in any case.

        Raises:
          OSError: The store can't be listed or read.
        """
        key, day = (camera, timestamp), self._day_of(timestamp)
        shows, listing = self._shown.get(day, (set[str](), None))
        if listing is None or after not in shows:
            listing = self._list(day)
        standing, listing = self._standing(self._by_period([key]), listing)
        self._shown[day] = shows | ({after} if after is not None else set()), listing
        before = standing.get(key)
        return None if before is None else self._read_again(key, before, listing)

    def _day_of(self, timestamp: str) -> datetime:
        start, _ = window_of(timestamp, self._windows.seconds)
        return start.replace(hour=0, minute=0, second=0, microsecond=0)

    def _by_period(self, keys: Iterable[Key]) -> dict[str, set[Key]]:
        """Returns keys by what the names of the files of their windows and shards begin with."""
        by_period: dict[str, set[Key]] = {}
        for key in keys:
            by_period.setdefault(self._windows.name_of(*key), set()).add(key)
        return by_period

    def _file_period(self, keys: Mapping[str, Set[Key]]) -> str:
        """Returns what the name of a file begins with that has the rows of some windows."""
        if len(keys) == 1:
            return next(iter(keys))
        starts, ends = zip(
            *(
                window_of(timestamp, self._windows.seconds)
                for of_period in keys.values()
                for _, timestamp in of_period
            ),
            strict=True,
        )
        return period_name(min(starts), max(ends))

    def forget_notes(self, period: str) -> None:
        """Deletes the notes of a window and shard.

        Raises:
          OSError: They can't be listed or deleted.
        """
        names = stores.names_with_prefix(self._folder, [period.partition("-")[0]])
        for key, notes in self._noted(names).items():
            if self._windows.name_of(*key) == period:
                for _, name in notes:
                    stores.delete(stores.join(self._folder, name))

    def _noted(self, names: Iterable[str]) -> dict[Key, list[tuple[str, str]]]:
        """Returns the stored names of images that may have a file in `final/`, and of their notes.

        Args:
          names: The names of the files in `packed/`.
        """
        noted: dict[Key, list[tuple[str, str]]] = {}
        for name in names:
            period = PERIOD.match(name)
            if period is None or not name.endswith(stores.PACKED_NOTE):
                continue
            stem = name[period.end() + 1 :].removesuffix(stores.PACKED_NOTE)
            try:
                camera, at = parse_name(f"{stem}.jpg")
            except InvalidNameError:
                continue
            noted.setdefault((camera, canonical_time(at)), []).append((stem, name))
        return noted

    def _row_of(
        self,
        decision: Decision,
        winner: JudgedImage,
        before: _Standing | None,
        noted: dict[Key, list[tuple[str, str]]],
    ) -> PackedRow | None:
        image = winner.image
        row = PackedRow(image, dict(winner.to_json()["threat"]))
        stale = {stem for stem, _ in noted.get(decision.key, ())}
        is_new = before is None or before.is_retracted or not _says_what(before, row)
        if before is not None and is_new:
            row = replace(row, generation=before.generation + 1)
            if before.has_severity:
                stale.add(before.stem)
        if decision.is_recorded:
            stale.discard(image.stem)
        for stem in stale:
            stores.delete(stores.final_uri(self._output, image.id, stem))
        if decision.is_recorded and decision.number > 1:
            # What was decided before may have been written after this one's file, and deleted it.
            uri = stores.final_uri(self._output, image.id, image.stem)
            stores.write_bytes(uri, stores.json_bytes(winner.to_json()))
        return row if is_new else None

    def _retraction(
        self, decision: Decision, before: _Standing | None, listing: _Listing
    ) -> PackedRow | None:
        files = {(printable(uri), stem_of(name)) for uri, name in decision.files}
        if before is None or before.is_retracted or (before.uri, before.stem) not in files:
            return None
        row = self._read_again(decision.key, before, listing)
        if before.has_severity:
            stores.delete(stores.final_uri(self._output, decision.camera, before.stem))
        blank = replace(row.image, detections=())
        return PackedRow(blank, None, before.generation + 1, is_retracted=True)

    def _read_again(self, key: Key, before: _Standing, listing: _Listing) -> PackedRow:
        period = self._windows.name_of(*key)
        start, end = window_of(key[1], self._windows.seconds)
        for _ in range(_LISTINGS):
            for file in listing.files:
                try:
                    found = self._rows_in(file, period, {key}).get(key)
                    if found is None or found.rank != before.rank:
                        continue
                    for row in read_file(file.uri, key[0], since=start, until=end):
                        if row.image.timestamp == key[1] and rank_of(row) == before.rank:
                            return row
                except (FileNotFoundError, TornFileError):
                    continue
            listing = self._list(listing.day)
        raise OSError(f"{self._output}: a row of {key[0]} at {key[1]} was deleted meanwhile")

    def _standing(
        self, keys: Mapping[str, Set[Key]], listing: _Listing
    ) -> tuple[dict[Key, _Standing], _Listing]:
        """Returns what the rows say that stand, and the listing that has their files.

        Args:
          keys: Capture times, by what the names of the files of their windows begin with.
          listing: The files of their day.
        """
        for _ in range(_LISTINGS):
            standing: dict[Key, _Standing] = {}
            try:
                for period, of_period in keys.items():
                    for file in listing.files:
                        rows = self._rows_in(file, period, of_period)
                        for key in rows.keys() & of_period:
                            if key not in standing or rows[key].rank > standing[key].rank:
                                standing[key] = rows[key]
            except FileNotFoundError:  # It was merged, and what holds its rows was not listed.
                self._long = None
                listing = self._list(listing.day)
                continue
            return standing, listing
        raise OSError(
            f"{self._output}: its packed files are deleted while they are read; is a job at work?"
        )

    def _list(self, day: datetime) -> _Listing:
        """Lists a day.

        If all runs have had windows of one length, the names of the files that have rows of a
        window begin with its day, also if they were merged. Files of several days are looked for at
        first, and when a file is gone.
        """
        prefix = f"{day:%Y%m%d}T"
        names = stores.names_with_prefix(self._folder, [""] if self._long is None else [prefix])
        before = self._named
        self._named = named = {
            name: before.get(name) or file_named(stores.join(self._folder, name)) for name in names
        }
        files = list(filter(None, named.values()))
        if self._long is None:
            self._long = [
                file
                for file in files
                if file.start.date() != (file.end - timedelta(microseconds=1)).date()
            ]
        found = {file.uri: file for file in (*self._long, *files)}
        of_day = tuple(name for name in names if name.startswith(prefix))
        return _Listing(day, tuple(found.values()), of_day)

    def _rows_in(self, file: PackedFile, period: str, keys: Set[Key]) -> dict[Key, _Standing]:
        """Returns the rows of a file and window, or none if it has none of some capture times."""
        start, end = window_of(next(iter(keys))[1], self._windows.seconds)
        if not file.overlaps(start, end) or self._windows.is_of_another_shard(file, period):
            return {}
        if file.start < start or file.end > end:
            self._read_small(file)
        with self._lock:
            rows = self._cache.get((file.uri, period))
            hashes = self._hashes.get((file.uri, period))
            if hashes is None and self._is_small.get(file.uri):
                return {}
        if rows is None:
            if hashes is not None and not np.isin(_hashes_of(keys), hashes).any():
                return {}
            rows = {}
            try:
                for row in read_file(file.uri, since=start, until=end):
                    _add(rows, row)
            except TornFileError as error:
                _LOGGER.warning(
                    "%s: can't be read (%s); what it holds is left as it is", file.uri, error
                )
        self._keep((file.uri, period), rows)
        return rows

    def _read_small(self, file: PackedFile) -> None:
        """Reads a file of several windows once for all of them, if it has few rows: late files of
        cameras that come back have rows of many windows each."""
        if file.uri in self._is_small:
            return
        try:
            rows = list(islice(read_file(file.uri), _FEW_ROWS + 1))
        except TornFileError:  # What it holds of a window is read, and said, later.
            rows = []
        if 0 < len(rows) <= _FEW_ROWS:
            self._keep_small(file.uri, rows)
        else:
            self._is_small[file.uri] = False

    def _keep_small(self, uri: str, rows: Iterable[PackedRow]) -> None:
        by_period: dict[str, dict[Key, _Standing]] = {}
        for row in rows:
            period = self._windows.name_of(row.image.id, row.image.timestamp)
            _add(by_period.setdefault(period, {}), row)
        with self._lock:
            self._is_small[uri] = True
            for period, of_period in by_period.items():
                self._keep((uri, period), of_period)

    def _keep(self, key: tuple[str, str], rows: dict[Key, _Standing]) -> None:
        with self._lock:
            self._kept += len(rows) - len(self._cache.get(key, ()))
            self._cache[key] = rows
            self._cache.move_to_end(key)
            while len(self._cache) > 1 and self._kept > _KEPT_ROWS:
                self._kept -= len(self._cache.popitem(last=False)[1])
            if key not in self._hashes:
                self._hashes[key] = _hashes_of(rows)
                self._kept_hashes += len(rows)
            while len(self._hashes) > 1 and self._kept_hashes > _KEPT_HASHES:
                (uri, _), hashes = self._hashes.popitem(last=False)
                self._kept_hashes -= len(hashes)
                self._is_small.pop(uri, None)


def _add(rows: dict[Key, _Standing], row: PackedRow) -> None:
    """Adds a row, unless one of the same capture time stands over it."""
    key, one = (row.image.id, row.image.timestamp), _Standing.of(row)
    if key not in rows or one.rank > rows[key].rank:
        rows[key] = one


def _hashes_of(keys: Collection[Key]) -> npt.NDArray[np.int64]:
    return np.sort(np.fromiter(map(hash, keys), np.int64, len(keys)))


def _says_what(before: _Standing, row: PackedRow) -> bool:
    # A rank ends with the hash of what its row says.
    return before.rank.endswith(rank_of(row)[-_HASH_BYTES:])
