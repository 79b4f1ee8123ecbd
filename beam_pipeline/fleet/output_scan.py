"""Lists and reads the outputs of jobs, each folder and file at most once.

The chart, the report and the command ``health`` show the same counts, late images and invalid
images. They share an `OutputScan`, which lists each folder at most once and reads each file at most
once, and only the files of the requested period:

    scan = OutputScan("output")
    rows = scan.counts(since=start, until=end)
    late = scan.late(since=start, until=end)
    scan.invalid, scan.late_images   # by their names: no record is opened

Apache Beam is imported only by what touches a store, so that ``--help`` is quick.
"""

from __future__ import annotations

import glob
import json
import logging
import math
import os
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn, TypeVar

from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.console.parsing import LONGEST_WINDOW
from rules.text import escaped
from transforms.records import reasons
from transforms.records.count_rows import CountRow, sum_rows
from transforms.records.times import canonical_time

if TYPE_CHECKING:
    from beam_pipeline.fleet.past_counts import PastCounts, PastWindows, Version, Window

_LOGGER = logging.getLogger(__name__)

AT_ONCE = 16
"""Files that are read at once."""
_MAX_KEPT = 200_000
"""Rows and records of one scan that the next one takes over."""
_PAST_AT_ONCE = 256
"""Windows that `OutputScan.past` reads before it looks at how many rows they have."""
_SETTLED_SECONDS = 60.0
"""A file whose date is that much older than its listing has changed since if its date has."""
_NAME_TIME = r"(\d{8}T\d{6}(?:\.\d{1,6})?Z)"
_FILE_NAME = re.compile(rf"{_NAME_TIME}_{_NAME_TIME}(?:-\d+-of-\d+)?\.jsonl", re.ASCII)
NAMES_HINT = "`names check` finds the option that reads such names"

_HASH = re.compile(r"-[0-9a-f]{8}(?=\.[^.]+$)")

Item = TypeVar("Item")
Result = TypeVar("Result")


class CountsError(SetupError):
    """Counts that a person must correct: one line."""


class NoCountsError(CountsError):
    """There is no ``counts/``: the job has not run, or had no valid image."""


class NoValidImageError(NoCountsError):
    """There is no ``counts/``, as every image of the job was invalid."""


@dataclass(frozen=True)
class InvalidFile:
    """The record of an invalid image, as far as its address shows.

    Attributes:
      uri: Where the record is.
      reason: Why the image is invalid, one of :mod:`transforms.records.reasons`.
      name: The name under which the image is kept.
      camera: The camera, where the image's name gives it.
      capture_time: The capture time (UTC), where the image's name gives it.
    """

    uri: str
    reason: str
    name: str
    camera: str | None
    capture_time: datetime | None


@dataclass(frozen=True)
class LateImage:
    """An image that was too late for its window, by the name of its row.

    Attributes:
      camera: The camera.
      capture_time: The capture time (UTC).
    """

    camera: str
    capture_time: datetime


@dataclass(frozen=True)
class _CountsFile:
    output: str
    path: str
    name: str
    start: datetime
    end: datetime
    modified: float


@dataclass
class Kept:
    """What a scan hands on to the next one of the same outputs.

    Attributes:
      rows: The rows of counts files, each with the date of its file.
      data: Records, each with its date.
      past: Counts of the time before the period.
    """

    rows: Mapping[str, tuple[float, list[CountRow]]] = field(default_factory=dict)
    data: Mapping[str, tuple[float, bytes]] = field(default_factory=dict)
    past: PastWindows | None = None


class OutputScan:
    """What one job or several have left under their outputs, at one time.

    What was listed or read is kept for as long as the scan is.

    Args:
      outputs: A job's output directory, or several, on any filesystem that Beam knows.
      kept: What an earlier scan of the same outputs hands on (`kept`). Counts files and records
        that it has read, and that have not changed since, are not read again.

    Attributes:
      outputs: The output directories.
    """

    def __init__(self, outputs: str | Sequence[str], kept: Kept | None = None) -> None:
        self.outputs = (outputs,) if isinstance(outputs, str) else tuple(outputs)
        self._started = time.time()
        self._rows: dict[str, list[CountRow]] = {}
        self._late_rows: dict[str, CountRow] = {}
        self._data: dict[str, bytes | Exception] = {}
        self._folders: dict[tuple[str, str], list[tuple[str, str]]] = {}
        self._modified: dict[str, float] = {}
        """When files of a store were last modified, as far as they were listed."""
        self._settled: dict[str, float] = {}
        """The same of files that were read, if their next change will give them another date."""
        self._kept = kept or Kept()

    def kept(self) -> Kept:
        """Returns what the next scan of the same outputs need not read: up to 200,000 rows and
        records, and the numbers that `past` has returned. It does not hold this scan."""
        rows, data, room = {}, {}, _MAX_KEPT
        for path, of_file in self._rows.items():
            if path in self._settled and len(of_file) <= room:
                room -= len(of_file)
                rows[path] = self._settled[path], of_file
        for uri, record in self._data.items():
            if uri in self._settled and isinstance(record, bytes) and room > 0:
                room -= 1
                data[uri] = self._settled[uri], record
        return Kept(rows, data, self._kept.past)

    def _settle(self, path: str, modified: float | None) -> None:
        if modified is not None and modified < self._started - _SETTLED_SECONDS:
            self._settled[path] = modified

    def windows(self) -> list[tuple[datetime, datetime]]:
        """Returns the windows with a counts file, read off the names, in order.

        Raises:
          CountsError: No counts there.
        """
        return sorted({(file.start, file.end) for file in self._files()})

    def counts(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        ids: Iterable[str] | None = None,
    ) -> list[CountRow]:
        """Returns the count rows of a period, sorted by window and then by id.

        A window belongs to the period in which it begins (`since` <= start < `until`), so that
        neighbouring periods share no window and leave none out. Files of other windows are not
        opened.

        Where runs with other options left the same window in several files (whole and sharded, or
        in other numbers of shards), the row of an id is taken from the file that was modified last.
        Rows of one id and window in several outputs are added up: their images are others.

        Args:
          since: Start of the period (timezone-aware); None for no limit.
          until: Its end, exclusive (timezone-aware); None for no limit.
          ids: Only the rows of these ids; None for all.

        Raises:
          CountsError: No counts there, a row that is wrong, or windows that overlap without being
            the same (their images would be counted twice).
        """
        files = _files_in_period(self._files(), since, until)
        _refuse_overlaps(files)
        wanted = None if ids is None else frozenset(ids)
        rows: dict[tuple[str, datetime, datetime, str], CountRow] = {}
        # Oldest first, so that the row of the file modified last stays; names decide between files
        # modified at the same time, so that every reading gives the same answer.
        in_order = sorted(files, key=lambda file: (file.modified, file.name))
        for file in in_order:
            self._settle(file.path, file.modified)
            modified, kept = self._kept.rows.get(file.path, (None, []))
            if modified == file.modified:
                self._rows.setdefault(file.path, kept)
        _read_missing(_read_file, {file.path: file for file in in_order}, self._rows)
        for file in in_order:
            for row in self._rows[file.path]:
                if wanted is None or row.id in wanted:
                    rows[file.output, row.window_start, row.window_end, row.id] = row
        return _sum_outputs(rows.values())

    def past(
        self, *, since: datetime, until: datetime, at_most: int | None = None
    ) -> Mapping[str, PastCounts]:
        """Returns the numbers of the windows before a period, by camera: those of `counts`, in
        a form that takes little memory.

        Args:
          since: As for `counts`.
          until: As for `counts`.
          at_most: How many rows to read and to keep; those of the newest windows. None for all.

        Raises:
          CountsError: As for `counts`.
        """
        from beam_pipeline.fleet.past_counts import PastWindows

        past = self._kept.past = self._kept.past or PastWindows()
        files: dict[Window, list[_CountsFile]] = {}
        for file in _files_in_period(self._files(), since, until):
            files.setdefault((file.start, file.end, file.output), []).append(file)
        newest_first = sorted(files, reverse=True)
        room = math.inf if at_most is None else at_most
        fitting: list[Window] = []
        number = _PAST_AT_ONCE
        while len(fitting) < len(newest_first) and number:
            following = newest_first[len(fitting) : len(fitting) + number]
            self._read_past(past, {window: files[window] for window in following})
            for window in following:
                room -= past.length(window)
                if room < 0:
                    break
                fitting.append(window)
            # The next windows are probably as long as this one: no more of them are read than fit.
            number = int(min(_PAST_AT_ONCE, max(room, 0) // max(1, past.length(window))))
        past.keep_only(fitting)
        return past.by_camera()

    def _read_past(self, past: PastWindows, files: Mapping[Window, Sequence[_CountsFile]]) -> None:
        missing: dict[Window, tuple[Version, list[_CountsFile]]] = {}
        for window, of_window in files.items():
            # In the order of `counts`.
            in_order = sorted(of_window, key=lambda file: (file.modified, file.name))
            version = tuple((file.path, file.modified) for file in in_order)
            if not past.has(window, version):
                missing[window] = version, in_order
        rows: dict[str, list[CountRow]] = {}
        _read_missing(
            _read_file, {file.path: file for _, of in missing.values() for file in of}, rows
        )
        for window, (version, in_order) in missing.items():
            by_id = {row.id: row for file in in_order for row in rows[file.path]}
            is_settled = in_order[-1].modified < self._started - _SETTLED_SECONDS
            past.put(window, by_id.values(), version if is_settled else None)

    def refuse_overlaps(self, *, since: datetime, until: datetime) -> None:
        """Raises an error where windows of a period overlap without being the same.

        Raises:
          CountsError: Windows overlap, or there are no counts.
        """
        _refuse_overlaps(_files_in_period(self._files(), since, until))

    def late(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        ids: Iterable[str] | None = None,
    ) -> list[CountRow]:
        """Counts the images of a stream that arrived too late for their windows, from ``late/``.

        Files whose names say that their windows begin outside the period are not opened.

        Args:
          since: As for `counts`.
          until: As for `counts`.
          ids: Only the rows of these ids; None for all.

        Raises:
          CountsError: A file there that is wrong, or a store that can't be read.
        """
        since, until = (None if time is None else _utc(time) for time in (since, until))
        wanted = None if ids is None else frozenset(ids)
        rows: list[CountRow] = []
        paths = self._late_paths(since, until)
        _read_missing(_read_late, {path: path for path in paths}, self._late_rows)
        for path in paths:
            row = self._late_rows[path]
            in_period = (since is None or row.window_start >= since) and (
                until is None or row.window_start < until
            )
            if in_period and (wanted is None or row.id in wanted):
                rows.append(row)
        return _sum_outputs(rows)

    @cached_property
    def invalid(self) -> Sequence[InvalidFile]:
        """The invalid images, by the names of their records, sorted by address.

        Raises:
          OSError: A store can't be listed.
        """
        return sorted(
            (file for output in self.outputs for file in self._invalid_of(output)),
            key=lambda file: file.uri,
        )

    def files(self, output: str, folder: str) -> list[tuple[str, str]]:
        """Returns the files that lie one folder deep in a folder of an output: that folder's name,
        and theirs. Names of files that are being written are left out.

        Raises:
          OSError: The store can't be listed.
        """
        if (output, folder) not in self._folders:
            files = _files_one_deep(output, folder, self._modified)
            self._folders[output, folder] = sorted(files)
        return self._folders[output, folder]

    def _date_of(self, uri: str) -> float | None:
        """Returns when a file was last modified; None if that is unknown."""
        from transforms.storage import stores

        if not stores.is_local(uri):
            return self._modified.get(uri)
        try:
            return os.stat(uri).st_mtime
        except OSError:
            return None

    def read(self, uris: Sequence[str]) -> list[bytes | Exception]:
        """Returns what some files hold, or why they can't be read, in order; several are read at
        once.
        """
        from transforms.storage import stores

        missing = [uri for uri in dict.fromkeys(uris) if uri not in self._data]
        for uri in missing:
            modified = self._date_of(uri)
            self._settle(uri, modified)
            kept_modified, record = self._kept.data.get(uri, (None, b""))
            if modified is not None and modified == kept_modified:
                self._data[uri] = record
        missing = [uri for uri in missing if uri not in self._data]
        at_once = stores.files_at_once(next(iter(missing), ""), AT_ONCE)
        read = map_in_threads(stores.read_bytes, missing, at_once)
        self._data.update(zip(missing, read, strict=True))
        return [self._data[uri] for uri in uris]

    @cached_property
    def _listed(self) -> dict[str, list[_CountsFile] | None]:
        """The counts files of each output; None where it has no ``counts/``."""
        return {output: _list_counts(output) for output in self.outputs}

    def _files(self) -> list[_CountsFile]:
        all_files: list[_CountsFile] = []
        for output, files in self._listed.items():
            if files is None:
                self._refuse_without_counts(output)
            all_files += files
        return all_files

    def _refuse_without_counts(self, output: str) -> NoReturn:
        from transforms.storage import stores

        names: dict[str, list[str]] = {}
        try:
            for file in self._invalid_of(output):
                names.setdefault(file.reason, []).append(file.name)
        except OSError:
            names = {}
        if not names and (late := self._number_of_late(output)):
            raise NoCountsError(
                f"no counts under {output}: all images so far, {late}, were older than the open "
                f"windows, and are counted in {stores.join(output, 'late')} only; newer images are "
                "counted as they come"
            )
        if not names:
            raise NoCountsError(
                f"no counts under {output}: {stores.join(output, 'counts')} is not there; "
                f"run the job first: python -m beam_pipeline run --input IMAGES --output {output}"
            )
        number = sum(map(len, names.values()))
        most = sorted(names.items(), key=lambda item: (-len(item[1]), item[0]))
        listed = ", ".join(f"{reason} {len(names_of_reason)}" for reason, names_of_reason in most)
        reason, names_of_most = most[0]
        raise NoValidImageError(
            f"no image was valid under {output}: {number} invalid ({listed}), such as "
            f"{escaped(min(names_of_most))}, which is {reason}; the records in "
            f"{output.rstrip('/')}/invalid say why"
            + (f"; {NAMES_HINT}" if reason in reasons.OF_NAMES else "")
        )

    def _number_of_late(self, output: str) -> int:
        try:
            return sum(name.endswith(".json") for _, name in self.files(output, "late"))
        except OSError:
            return 0

    @cached_property
    def late_images(self) -> Sequence[LateImage]:
        """The images of a stream that arrived too late for their windows, by the names of their
        rows: none is read. Rows whose names give no camera and time are left out.

        Raises:
          CountsError: A store can't be listed.
        """
        return [
            LateImage(camera, time)
            for _, camera, time in self._late_files
            if camera is not None and time is not None
        ]

    @cached_property
    def _late_files(self) -> list[tuple[str, str | None, datetime | None]]:
        """The address of each row in ``late/``, and the camera and capture time in its name."""
        from transforms.storage import stores

        rows: list[tuple[str, str | None, datetime | None]] = []
        for output in self.outputs:
            try:
                files = self.files(output, "late")
            except OSError as error:
                raise CountsError(
                    f"cannot list {stores.join(output, 'late')}: {_one_line(error)}"
                ) from error
            for folder, name in files:
                if name.endswith(".json"):
                    named = camera_and_time(f"{name.removesuffix('.json')}.jpg")
                    rows.append((stores.join(output, "late", folder, name), *named))
        return rows

    def _late_paths(self, since: datetime | None, until: datetime | None) -> list[str]:
        """Returns the files in ``late/`` that may belong to a period. An image's window begins no
        later than its capture time, and at most a window's length before it.
        """
        return [
            path
            for path, _, time in self._late_files
            if time is None
            or (
                (since is None or time >= since)
                and (until is None or time - until < LONGEST_WINDOW)
            )
        ]

    def _invalid_of(self, output: str) -> Iterator[InvalidFile]:
        from transforms.storage import stores

        files = self.files(output, "invalid")
        present = frozenset(files)
        for reason, name in files:
            # An image whose own name ends in .json has a record beside it.
            is_record = name.endswith(".json") and (reason, f"{name}.json") not in present
            if reason in reasons.ALL and is_record:
                kept_name = name.removesuffix(".json")
                named = (None, None) if reason in reasons.OF_NAMES else camera_and_time(kept_name)
                uri = stores.join(output, "invalid", reason, name)
                yield InvalidFile(uri, reason, kept_name, *named)


def find_outputs(outputs: Sequence[str]) -> list[str]:
    """Returns the outputs that a command line names, each once.

    A name that does not exist and contains ``*``, ``?`` or ``[`` is a glob for the folders that
    have a ``counts/``, in the order of their names.

    Args:
      outputs: Output directories, or globs of them, on any filesystem that Beam knows.

    Raises:
      CountsError: A glob that matches no output, or a store that can't be listed.
    """
    named = [
        path.rstrip("/") or "/"
        for output in outputs
        for path in (_match_outputs(output) if glob.has_magic(output) else [output])
    ]
    return list(dict.fromkeys(named))


def camera_and_time(name: str) -> tuple[str, datetime] | tuple[None, None]:
    """Returns the camera and the capture time that the name of a kept image gives, where it does.

    Of several images of one name, all but one have a hash in it.
    """
    from transforms.records.file_names import InvalidNameError, parse_name

    for spelled in (name, _HASH.sub("", name)):
        try:
            return parse_name(spelled)
        except InvalidNameError:
            continue
    return None, None


def map_in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], at_once: int = AT_ONCE
) -> list[Result | Exception]:
    """Returns the result of a function for each item, or its error, in order; several at once.

    It is no generator: one that is abandoned ends its threads whenever it is collected, and that
    can be within a thread that has the lock which ending them needs.

    Args:
      work: The function.
      items: The items.
      at_once: The number of threads.
    """

    def safely(item: Item) -> Result | Exception:
        try:
            return work(item)
        except Exception as error:  # A record may be broken in any way.
            return error

    with ThreadPoolExecutor(at_once) as threads:
        return list(threads.map(safely, items))


def _read_missing(
    read: Callable[[Item], Result], files: Mapping[str, Item], known: dict[str, Result]
) -> None:
    """Reads the files whose contents are not known yet, several at once.

    Args:
      read: Reads a file.
      files: What it reads, by the files' addresses.
      known: The contents by address, to which they are added.

    Raises:
      Exception: The first error of `read`.
    """
    unread = [path for path in files if path not in known]
    results = map_in_threads(read, [files[path] for path in unread])
    for path, result in zip(unread, results, strict=True):
        if isinstance(result, Exception):
            raise result
        known[path] = result


def _match_outputs(output: str) -> list[str]:
    from transforms.storage import stores

    if stores.is_local(output):
        if os.path.lexists(output):
            return [output]
        matches = [
            path
            for path in glob.glob(output, recursive=True)
            if os.path.isdir(os.path.join(path, "counts"))
        ]
    else:
        if _match_counts(glob.escape(output)):
            return [output]
        matches = [path.rsplit("/counts/", 1)[0] for path, _ in _match_counts(output)]
    if not matches:
        raise NoCountsError(f"no counts under any {output}: run the job first")
    return sorted(set(matches))


def _match_counts(outputs: str) -> list[tuple[str, float]]:
    """Counts files of the outputs in a store that a glob matches, and when they were modified."""
    from apache_beam.io.filesystem import BeamIOError

    from transforms.storage import stores

    try:
        with warnings.catch_warnings():
            # Python's re wonders whether a quoted bracket was meant.
            warnings.filterwarnings("ignore", "Possible nested set", FutureWarning)
            matches = stores.match(stores.join(outputs, "counts", "*.jsonl"))
    except (BeamIOError, OSError, ValueError) as error:
        raise CountsError(f"cannot list the counts under {outputs}: {_one_line(error)}") from error
    return [(metadata.path, metadata.last_updated_in_seconds) for metadata in matches]


def _list_counts(output: str) -> list[_CountsFile] | None:
    from transforms.storage import stores

    if stores.is_local(output):
        directory = stores.join(output, "counts")
        try:
            # Beam's match would walk everything beside a directory whose name needs quoting.
            paths = [
                (entry.path, entry.stat().st_mtime)
                for entry in (os.scandir(directory) if os.path.isdir(directory) else ())
                if entry.name.endswith(".jsonl") and entry.is_file()
            ]
        except OSError as error:
            raise CountsError(
                f"cannot list the counts under {output}: {_one_line(error)}"
            ) from error
        missing = not os.path.isdir(directory)
    else:
        paths = _match_counts(glob.escape(output))
        missing = not paths
    if missing:
        return None
    files = []
    for path, modified in paths:
        name = re.split(r"[/\\]", path)[-1]
        if name.startswith("."):
            continue  # a writer's temporary file
        window = _window_of(name)
        if window is None:
            _LOGGER.warning("%s is not named like a counts file: skipped", escaped(path))
            continue
        files.append(_CountsFile(output, path, name, *window, modified))
    return files


def _window_of(name: str) -> tuple[datetime, datetime] | None:
    match = _FILE_NAME.fullmatch(name)
    if match is None:
        return None
    try:
        start, end = (
            datetime.strptime(
                text, "%Y%m%dT%H%M%S.%fZ" if "." in text else "%Y%m%dT%H%M%SZ"
            ).replace(tzinfo=timezone.utc)
            for text in match.groups()
        )
    except ValueError:
        return None
    return (start, end) if start < end else None


def _files_one_deep(
    output: str, folder: str, modified: dict[str, float]
) -> Iterator[tuple[str, str]]:
    """Yields the files one folder deep; notes when those of a store were last modified."""
    from transforms.storage import stores

    uri = stores.join(output, folder)
    if stores.is_local(output):
        files: Iterable[tuple[str, str]] = (
            (inner.name, name)
            for inner in (os.scandir(uri) if os.path.isdir(uri) else ())
            if inner.is_dir()
            for name in os.listdir(inner.path)
        )
    else:
        listed = stores.list_beneath(uri)
        modified.update((file.path, file.last_updated_in_seconds) for file in listed)
        beneath = (file.path[len(uri) + 1 :].split("/") for file in listed)
        files = ((parts[0], parts[1]) for parts in beneath if len(parts) == 2)
    return ((inner, name) for inner, name in files if not name.startswith("."))


def _files_in_period(
    files: Iterable[_CountsFile], since: datetime | None, until: datetime | None
) -> list[_CountsFile]:
    since, until = (None if time is None else _utc(time) for time in (since, until))
    if since is not None and until is not None and since >= until:
        raise CountsError(
            f"the period is empty: it begins {canonical_time(since)} "
            f"and ends {canonical_time(until)}"
        )
    return [
        file
        for file in files
        if (since is None or file.start >= since) and (until is None or file.start < until)
    ]


def _refuse_overlaps(files: Iterable[_CountsFile]) -> None:
    windows = {(file.start, file.end): file for file in sorted(files, key=lambda file: file.name)}
    last: _CountsFile | None = None  # of the files so far, the one whose window ends last
    for _, file in sorted(windows.items()):
        if last is not None and file.start < last.end:
            raise CountsError(
                f"{last.path} and {file.path} count the same time in different windows, so images "
                "would be counted twice: leave one out with --since and --until, or move away the "
                "files of the run that is no longer wanted"
            )
        if last is None or file.end > last.end:
            last = file


def _read_file(file: _CountsFile) -> list[CountRow]:
    data = _read(file.path)
    rows: list[CountRow] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = _parse_line(line)
            if (row.window_start, row.window_end) != (file.start, file.end):
                raise ValueError(
                    f"its window {canonical_time(row.window_start)} to "
                    f"{canonical_time(row.window_end)} is not the one in the file's name"
                )
            if row.id in lines:
                raise ValueError(f"{row.id} has a row already, in line {lines[row.id]}")
        except ValueError as error:
            raise CountsError(f"{file.path}, line {number}: {error}") from None
        lines[row.id] = number
        rows.append(row)
    return rows


def _read_late(path: str) -> CountRow:
    data = _read(path)
    try:
        return _parse_line(data)
    except ValueError as error:
        raise CountsError(f"{path}: {error}") from None


def _read(path: str) -> bytes:
    from apache_beam.io.filesystem import BeamIOError

    from transforms.storage import stores

    try:
        return stores.read_bytes(path)
    except (BeamIOError, OSError, ValueError) as error:
        raise CountsError(f"{path}: cannot be read: {_one_line(error)}") from error


def _parse_line(line: bytes) -> CountRow:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {_one_line(error)}") from None
    return CountRow.from_json(value)


def _sum_outputs(rows: Iterable[CountRow]) -> list[CountRow]:
    groups: dict[tuple[datetime, datetime, str], list[CountRow]] = {}
    for row in rows:
        groups.setdefault((row.window_start, row.window_end, row.id), []).append(row)
    return [sum_rows(groups[key], key[2]) for key in sorted(groups)]


def _utc(time: datetime) -> datetime:
    if time.tzinfo is None:
        raise ValueError(f"a time without a timezone: {time!r}")
    return time.astimezone(timezone.utc)


def _one_line(error: object) -> str:
    return escaped(" ".join(str(error).split()))
