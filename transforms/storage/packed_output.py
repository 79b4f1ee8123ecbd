"""Packed outputs: the verdicts of a job as Parquet, a file for each window instead of each image.

``packed/<start>_<end>_<digits>.parquet`` holds the images of one window, and of one shard if there
are several, by camera and time. The columns are those of :mod:`transforms.storage.packed`, and

============== =====================================================================
``generation`` how many rows of this camera and capture time the run has replaced
``retracted``  whether there is no verdict on this camera and capture time any more
============== =====================================================================

The name holds the hash of the file's bytes. So a file is never written over another one, and two
jobs, or two attempts of one, never write into one file. Of several rows of one camera and capture
time, in whichever files, one stands (see :mod:`transforms.storage.packed_rows`). A file is deleted
only after another one with all rows of it that stand was written.

``packed/detections/`` holds what the model has found while the job runs, for ``--resume``.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import re
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

from transforms.records.file_names import InvalidNameError, parse_name
from transforms.records.text import one_line, printable
from transforms.records.times import EPOCH, canonical_time, from_unix, parse_time
from transforms.storage import stores
from transforms.storage.packed import (
    ENDING,
    ROWS_A_GROUP,
    ROWS_AT_ONCE,
    Row,
    local_copy,
    rows_of,
    schema,
    table,
)
from transforms.storage.packed_rows import PackedRow, Rows

if TYPE_CHECKING:
    import pyarrow as pa

_LOGGER = logging.getLogger(__name__)
_VERSION = {b"beam_pipeline.packed_output": b"1"}
_NAME_TIME = r"(\d{8}T\d{6}(?:\.\d{1,6})?Z)"
PERIOD = re.compile(rf"{_NAME_TIME}_{_NAME_TIME}(?:-\d+-of-\d+)?", re.ASCII)
"""What the name of a file begins with."""
_NAME = re.compile(rf"{PERIOD.pattern}_[0-9a-f]{{16}}{re.escape(ENDING)}", re.ASCII)
_FIRST = datetime.min.replace(tzinfo=timezone.utc)
_LAST = datetime.max.replace(tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)
_MOST_HOURS = 24 * 32
_LISTINGS = 10
"""How often a folder is listed again, as files of it are merged or deleted meanwhile."""

Copies = Callable[[str], AbstractContextManager[str]]
Problem = tuple[str, str]
"""The address of a file that could not be read, and the reason."""


class TornFileError(ValueError):
    """A file is incomplete, or was not written by this program; the message is one line."""


@dataclass(frozen=True)
class PackedFile:
    """A file of a packed output.

    Attributes:
      uri: Its address.
      start: The start of the period of its images.
      end: The end, exclusive.
      written: When it was written; None if its store does not say it.
    """

    uri: str
    start: datetime
    end: datetime
    written: datetime | None = None

    def overlaps(self, since: datetime | None, until: datetime | None) -> bool:
        """Whether it may have images of a period; None for an open end."""
        ends_later = since is None or self.end > since or self.end == _LAST
        return ends_later and (until is None or self.start < until)


def is_packed(output: str) -> bool:
    """Returns whether an output has verdicts or detections in packed form.

    Raises:
      OSError: It can't be listed.
    """
    return stores.has_files(stores.packed_folder(output))


def list_files(output: str, folder: str | None = None) -> list[PackedFile]:
    """Returns the files of a packed output, the oldest images first.

    Args:
      output: The job's output.
      folder: The folder; None for that of the verdicts.

    Raises:
      OSError: The folder can't be listed.
    """
    base = stores.packed_folder(output) if folder is None else folder
    files = [
        replace(file, written=from_unix(changed) if changed else None)
        for path, changed in _entries(base)
        if (file := file_named(path)) is not None
    ]
    return sorted(files, key=lambda file: (file.start, file.uri))


def file_named(uri: str) -> PackedFile | None:
    """Returns the packed file of an address, with the period that its name says; None if it is not
    one."""
    name = uri.rpartition("/")[2]
    if not name.endswith(ENDING) or name.startswith("."):
        return None
    match = _NAME.fullmatch(name)
    try:
        start, end = map(_time_in, match.groups()) if match else (_FIRST, _LAST)
    except InvalidNameError:
        start, end = _FIRST, _LAST
    return PackedFile(uri, start, end)


def _time_in(text: str) -> datetime:
    return parse_name(f"camera_{text}.jpg")[1]


def _entries(base: str) -> Iterator[tuple[str, float | None]]:
    """Yields the files in a folder, and when each was changed."""
    if not stores.is_local(base):
        for file in stores.list_beneath(base):
            if "/" not in file.path[len(base) + 1 :]:
                yield file.path, file.last_updated_in_seconds
        return
    try:
        entries = list(os.scandir(base))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        try:
            if entry.is_file():
                yield stores.join(base, entry.name), entry.stat().st_mtime
        except FileNotFoundError:  # Merged or deleted meanwhile.
            continue


# Files


def _schema() -> pa.Schema:
    import pyarrow as pa

    columns = (
        pa.field("generation", pa.int64(), nullable=False),
        pa.field("retracted", pa.bool_(), nullable=False),
    )
    return functools.reduce(pa.Schema.append, columns, schema()).with_metadata(_VERSION)


def _table(rows: Sequence[PackedRow]) -> pa.Table:
    import pyarrow as pa

    images = table([(row.image, row.threat) for row in rows])
    generations = pa.array([row.generation for row in rows], pa.int64())
    retracted = pa.array([row.is_retracted for row in rows], pa.bool_())
    return pa.Table.from_arrays([*images.columns, generations, retracted], schema=_schema())


def write_file(folder: str, period: str | None, rows: Iterable[PackedRow]) -> str | None:
    """Writes a file; returns its address, or None if there are no rows.

    Args:
      folder: The folder.
      period: What the name begins with: the start and the end of the period, and the shard; None
        for none.
      rows: The rows, sorted by camera and time.

    Raises:
      OSError: The file can't be written.
    """
    import pyarrow.parquet as pq

    rows = iter(rows)
    if not (group := list(islice(rows, ROWS_A_GROUP))):
        return None
    with tempfile.TemporaryDirectory(prefix="packed-") as scratch:
        path = os.path.join(scratch, "packed")
        with pq.ParquetWriter(path, _schema(), compression="zstd") as writer:
            while group:
                writer.write_table(_table(group), row_group_size=ROWS_A_GROUP)
                group = list(islice(rows, ROWS_A_GROUP))
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        name = "_".join(filter(None, (period, digest.hexdigest()[:16])))
        uri = stores.join(folder, f"{name}{ENDING}")
        stores.copy(path, uri)
    return uri


def period_name(start: datetime, end: datetime) -> str:
    """Returns what the name of a file begins with, by the bounds of its images."""
    return "_".join(stores.time_in_name(canonical_time(time)) for time in (start, end))


def read_file(
    uri: str,
    id: str | None = None,
    copies: Copies = local_copy,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Iterator[PackedRow]:
    """Yields the rows of a file.

    Args:
      uri: The file.
      id: The camera; None for all.
      copies: Gives the path of a file of a store on a local disk.
      since: The start of the period; None for all.
      until: The end of the period, exclusive; None for all.

    Raises:
      FileNotFoundError: It is gone.
      TornFileError: It is incomplete, or was not written by this program.
      OSError: It can't be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with copies(uri) as path:
        try:
            with pq.ParquetFile(path) as file:
                if not file.schema_arrow.equals(_schema(), check_metadata=True):
                    raise ValueError("not written by this program, or by another version of it")
                groups = list(range(file.num_row_groups))
                if id is not None:
                    groups = [at for at in groups if _may_hold(file.metadata.row_group(at), id)]
                for rows in file.iter_batches(ROWS_AT_ONCE, row_groups=groups):
                    batch = _of_period(rows, since, until)
                    further = (batch.column(name).to_pylist() for name in _FURTHER)
                    for (_, (image, threat)), *others in zip(rows_of(batch), *further, strict=True):
                        if id in (None, image.id):
                            yield PackedRow(image, threat, *others)
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            raise TornFileError(printable(one_line(error))) from error


_FURTHER = ("generation", "retracted")


def _of_period(rows: pa.RecordBatch, since: datetime | None, until: datetime | None) -> Any:
    """Returns those rows whose capture times are in a period."""
    import pyarrow as pa
    import pyarrow.compute as pc

    times = rows.column("timestamp")
    for bound, is_inside in ((since, pc.greater_equal), (until, pc.less)):
        if bound is not None:
            is_kept = is_inside(times, pa.scalar(bound, times.type))
            rows, times = rows.filter(is_kept), times.filter(is_kept)
    return rows


def _may_hold(group: Any, id: str) -> bool:
    """Whether a group of rows may have some of a camera, by its statistics."""
    bounds = group.column(0).statistics
    return bounds is None or not bounds.has_min_max or bounds.min <= id <= bounds.max


def _cameras_in(uri: str) -> set[str]:
    """Returns the cameras in a file; its errors are those of :func:`read_file`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with local_copy(uri) as path:
        try:
            return set(pq.read_table(path, columns=["id"])["id"].unique().to_pylist())
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            raise TornFileError(printable(one_line(error))) from error


# Reading an output


def _each_file(
    output: str, folder: str | None, problems: list[Problem], read: Callable[[PackedFile], None]
) -> None:
    """Reads all files of a folder, and lists it again if one was merged or deleted meanwhile.

    Raises:
      OSError: The store can't be listed or reached.
    """
    done = set[str]()
    for _ in range(_LISTINGS):
        is_complete = True
        for file in list_files(output, folder):
            if file.uri in done:
                continue
            try:
                read(file)
            except FileNotFoundError:  # What holds its rows now may not have been listed.
                is_complete = False
                continue
            except TornFileError as error:
                problems.append((file.uri, str(error)))
            done.add(file.uri)
        if is_complete:
            return
    raise OSError(f"{output}: its packed files are deleted while they are read; is a job at work?")


def read_output(
    output: str,
    problems: list[Problem],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    folder: str | None = None,
    id: str | None = None,
    copies: Copies = local_copy,
) -> Rows:
    """Reads the rows of a packed output that stand.

    Args:
      output: The job's output.
      problems: Files that can't be read are added here.
      id: The camera; None for all.
      since: The start of the period; rows before it may be left out. None for all.
      until: The end of the period, exclusive; None for all.
      folder: The folder; None for that of the verdicts.
      copies: See :func:`read_file`.

    Raises:
      OSError: The store can't be listed or reached.
    """
    rows = Rows()

    def read(file: PackedFile) -> None:
        if file.overlaps(since, until):
            rows.add(read_file(file.uri, id, copies))

    _each_file(output, folder, problems, read)
    return rows


@dataclass(frozen=True)
class _Read:
    rows: Rows
    problems: list[Problem]


_reading = threading.Lock()


@functools.lru_cache(maxsize=4)
def _read_once(output: str, token: str, since: datetime | None, until: datetime | None) -> _Read:
    problems: list[Problem] = []
    return _Read(read_output(output, problems, since=since, until=until), problems)


@dataclass(frozen=True)
class PackedOutput:
    """The packed form of a job's output, read at one time.

    A process reads the files once for each period, at the first use.

    Attributes:
      output: The job's output.
      ids: The cameras with images.
      unread: The files that can't be read.
    """

    output: str
    ids: frozenset[str] = frozenset()
    unread: tuple[Problem, ...] = ()
    _token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def at(cls, output: str) -> PackedOutput | None:
        """Returns the packed form of an output; None if it has none.

        Raises:
          OSError: It can't be listed or reached.
        """
        if not list_files(output):
            return None
        ids, unread = set[str](), list[Problem]()
        _each_file(output, None, unread, lambda file: ids.update(_cameras_in(file.uri)))
        return cls(output, frozenset(ids), tuple(unread))

    def images(
        self,
        id: str,
        since: datetime | None,
        until: datetime | None,
        problems: list[Problem],
    ) -> Iterator[Row]:
        """Yields the images of one camera in the order of time.

        Args:
          id: The camera.
          since: The start of the period; None for all.
          until: The end of the period, exclusive; None for all.
          problems: Files that can't be read are added here, each once.
        """
        read = self._read(since, until)
        with _reading:
            problems += read.problems
            read.problems.clear()
        for row in read.rows.of_camera(id, since, until):
            if not row.is_retracted:
                yield row.image, row.threat

    def has(self, id: str, time: datetime, since: datetime | None, until: datetime | None) -> bool:
        """Returns whether it says anything on a camera and a capture time in a period."""
        return self._read(since, until).rows.get(id, canonical_time(time)) is not None

    def _read(self, since: datetime | None, until: datetime | None) -> _Read:
        with _reading:
            return _read_once(self.output, self._token, since, until)


class EarlierRows:
    """What earlier runs have written into a packed output.

    A process lists the files once for each step, at the first use, as a runner may make many
    instances of a step. It reads a file when an image of its period is asked for. Thread-safe, and
    picklable if it is made with the step.

    Args:
      output: The job's output.
    """

    def __init__(self, output: str) -> None:
        self._output = output
        self._step = uuid.uuid4().hex

    def get(self, id: str, timestamp: str) -> PackedRow | None:
        """Returns the row of a camera and capture time; None if there is none.

        Raises:
          OSError: The store can't be listed or reached.
        """
        with _reading:
            earlier = _earlier_verdicts(self._output, self._step)
        return earlier.rows_at(parse_time(timestamp)).get(id, timestamp)

    def found(self, id: str, timestamp: str) -> Iterator[PackedRow]:
        """Yields the rows that say what a model has found in an image of a camera and capture time:
        those of runs that were stopped, then the verdict, unless it is retracted.

        Raises:
          OSError: The store can't be listed or reached.
        """
        with _reading:
            earlier = _earlier_detections(self._output, self._step)
        yield from earlier.rows_at(parse_time(timestamp)).all_of(id, timestamp)
        row = self.get(id, timestamp)
        if row is not None and not row.is_retracted:
            yield row


class _Earlier:
    """Rows of which each file is read when an image of its period is asked for. Thread-safe."""

    def __init__(self, output: str, folder: str | None, rows: Rows) -> None:
        self._output = output
        self._folder = folder
        self._rows = rows
        self._lock = threading.Lock()
        self._unread: dict[int | None, list[PackedFile]] | None = None
        """The files by the hours of their periods; those of long periods by None."""
        self._read = set[str]()

    def rows_at(self, time: datetime) -> Rows:
        """Returns the rows, with all of a capture time among them.

        Raises:
          OSError: The store can't be listed or reached.
        """
        with self._lock:
            for _ in range(_LISTINGS):
                if self._unread is None:
                    self._unread = self._list()
                if self._read_at(self._unread, time):
                    return self._rows
                self._unread = None  # A file was merged, and what holds its rows was not listed.
        raise OSError(
            f"{self._output}: its packed files are deleted while they are read; is a job at work?"
        )

    def _list(self) -> dict[int | None, list[PackedFile]]:
        files: dict[int | None, list[PackedFile]] = {}
        for file in list_files(self._output, self._folder):
            if file.uri in self._read:
                continue
            hours = range(_hour(file.start), _hour(file.end) + 1)
            for hour in hours if 0 < len(hours) <= _MOST_HOURS else (None,):
                files.setdefault(hour, []).append(file)
        return files

    def _read_at(self, files: dict[int | None, list[PackedFile]], time: datetime) -> bool:
        """Reads the files whose period holds a capture time; returns False if one is gone."""
        is_complete = True
        for hour in (None, _hour(time)):
            left = []
            for file in files.get(hour, ()):
                if hour is not None and not file.start <= time < file.end:
                    left.append(file)
                elif file.uri not in self._read:
                    try:
                        self._rows.add(read_file(file.uri))
                    except FileNotFoundError:
                        is_complete = False
                        continue
                    except TornFileError as error:
                        _LOGGER.warning(
                            "%s: can't be read (%s); what it holds is left as it is",
                            *(file.uri, error),
                        )
                    self._read.add(file.uri)
            if hour in files:
                files[hour] = left
        return is_complete


def _hour(time: datetime) -> int:
    return (time - EPOCH) // timedelta(hours=1)


@functools.lru_cache(maxsize=4)
def _earlier_verdicts(output: str, step: str) -> _Earlier:
    return _Earlier(output, None, Rows())


@functools.lru_cache(maxsize=4)
def _earlier_detections(output: str, step: str) -> _Earlier:
    return _Earlier(output, stores.packed_detections_folder(output), Rows(keeps_all=True))


def find_image(output: str, id: str, stem: str, copies: Copies = local_copy) -> PackedRow | None:
    """Returns the image of a camera by the name under which it is stored.

    Args:
      output: The job's output.
      id: The camera.
      stem: The stored name, without its ending.
      copies: See :func:`read_file`.

    Raises:
      OSError: The output can't be read; or the image is not found, and a file is torn.
    """
    try:
        _, time = parse_name(f"{stem}.jpg")
    except InvalidNameError:
        return None
    problems: list[Problem] = []
    until = time + _MICROSECOND if time < _LAST else None
    rows = read_output(output, problems, since=time, until=until, id=id, copies=copies)
    row = rows.get(id, canonical_time(time))
    if row is not None and not row.is_retracted and row.image.stem == stem:
        return row
    if problems:
        uri, why = problems[0]
        raise OSError(f"{uri}: can't be read ({why})")
    return None


def newest_image(output: str, id: str) -> PackedRow | None:
    """Returns the newest image of a camera with a verdict; None if there is none.

    Raises:
      OSError: The output can't be read.
    """
    rows = Rows()
    newest: PackedRow | None = None
    for file in sorted(list_files(output), key=lambda file: file.end, reverse=True):
        if newest is not None and file.end <= parse_time(newest.image.timestamp):
            break
        with suppress(TornFileError, FileNotFoundError):
            rows.add(read_file(file.uri, id))
        newest = None  # A row of this file may retract what was found in another one.
        for row in rows.of_camera(id):
            newest = newest if row.is_retracted else row
    return newest


# Merging


@dataclass
class Merged:
    """What :func:`merge_by_day` has done.

    Attributes:
      files: How many files there were.
      left: How many there are now.
      problems: The files that can't be read, which stay.
    """

    files: int = 0
    left: int = 0
    problems: list[Problem] = field(default_factory=list)


def merge_by_day(output: str) -> Merged:
    """Merges the files of a packed output whose periods begin on one day (UTC).

    The merged file is on the disk before those in it are deleted. So this may be stopped at any
    time, and run twice at once or beside a job. A day of which a file is deleted meanwhile stays as
    it is until the next merge.

    Raises:
      OSError: The output can't be read or written.
    """
    merged = Merged()
    listed = list_files(output)
    merged.files = merged.left = len(listed)
    dated = (file for file in listed if file.start != _FIRST)
    for _, files in groupby(dated, key=lambda file: file.start.date()):
        _merge(output, list(files), merged)
    return merged


def _merge(output: str, files: Sequence[PackedFile], merged: Merged) -> None:
    if len(files) < 2:
        return
    rows, read = Rows(), []
    for file in files:
        try:
            rows.add(read_file(file.uri))
            read.append(file)
        except FileNotFoundError:  # What replaced a row that was read may have gone with it.
            merged.left -= 1
            return
        except TornFileError as error:
            merged.problems.append((file.uri, str(error)))
    if len(read) < 2:
        return
    period = period_name(min(file.start for file in read), max(file.end for file in read))
    written = write_file(stores.packed_folder(output), period, rows)
    try:
        if written is not None:
            stores.make_durable(written)
    except FileNotFoundError:  # Another merge has it merged with further files.
        return
    for file in read:
        if file.uri != written:
            stores.delete(file.uri)
    merged.left -= len(read) - 1
