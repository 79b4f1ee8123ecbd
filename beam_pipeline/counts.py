"""The windowed counts that the job writes: read back, summed and printed.

`read_counts` is the one reader of ``<output>/counts/*.jsonl``; the chart uses it too. The command
``python -m beam_pipeline counts`` prints what it reads as a table, CSV or JSON. Where the pictures
were shared out to several runs, each with an output of its own, their rows are added up.

Apache Beam is imported only by the functions that touch a store, so that ``--help`` is quick.
"""

from __future__ import annotations

import argparse
import csv
import glob
import io
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from beam_pipeline.tables import aligned
from transforms.times import canonical_time

_LOGGER = logging.getLogger(__name__)

TOTAL_ID = "*"
"""The `id` of the row that holds the sum over all ids: no id can be written like this."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?(Z|[+-]\d\d:\d\d)",
    re.ASCII,
)
_NAME_TIME = r"(\d{8}T\d{6}(?:\.\d{1,6})?Z)"
_FILE_NAME = re.compile(rf"{_NAME_TIME}_{_NAME_TIME}(?:-\d+-of-\d+)?\.jsonl", re.ASCII)


class CountsError(Exception):
    """Something about the counts that a person must put right, in one line."""


class NoCountsError(CountsError):
    """There is no ``counts/``: the job has not run, or had no valid image."""


@dataclass(frozen=True)
class CountRow:
    """What one id's camera saw in one window, or in a period, once rows are summed.

    Attributes:
      id: the camera's id, or `TOTAL_ID` for a sum over ids.
      window_start: first moment of the window (UTC).
      window_end: first moment after it (UTC).
      images: valid images that were looked at.
      threat_images: images with at least one threat, of either severity.
      threats: threat objects of either severity; one image can hold several.
      alerts: images of severity ``alert``.
      by_label: threat objects per label; they add up to `threats`.
    """

    id: str
    window_start: datetime
    window_end: datetime
    images: int
    threat_images: int
    threats: int
    alerts: int
    by_label: Mapping[str, int] = field(hash=False)

    @classmethod
    def from_json(cls, value: Any) -> CountRow:
        """Builds a row from parsed JSON; unknown keys are passed over.

        Raises:
          CountsError: naming the first thing that is wrong.
        """
        if not isinstance(value, dict):
            raise CountsError(f"a count row must be a JSON object, not {_short(value)}")
        missing = [key for key in _KEYS if key not in value]
        if missing:
            raise CountsError(f"{missing[0]!r} is missing")
        id_ = value["id"]
        if not isinstance(id_, str) or not is_id(id_):
            raise CountsError(f"'id' is not an id: {_short(id_)}")
        start, end = (_time(key, value[key]) for key in ("window_start", "window_end"))
        if start >= end:
            raise CountsError("'window_end' must be after 'window_start'")
        images, threat_images, threats, alerts = (
            _count(key, value[key]) for key in ("images", "threat_images", "threats", "alerts")
        )
        labels = value["by_label"]
        if not isinstance(labels, dict):
            raise CountsError(f"'by_label' must be a JSON object, not {_short(labels)}")
        row = cls(
            id=id_,
            window_start=start,
            window_end=end,
            images=images,
            threat_images=threat_images,
            threats=threats,
            alerts=alerts,
            by_label={
                label: _count(f"by_label.{_printable(label)}", labels[label])
                for label in sorted(labels)
            },
        )
        for larger, smaller in (
            ("images", "threat_images"),
            ("threats", "threat_images"),
            ("threat_images", "alerts"),
        ):
            if getattr(row, smaller) > getattr(row, larger):
                raise CountsError(
                    f"{smaller!r} ({getattr(row, smaller)}) is more than "
                    f"{larger!r} ({getattr(row, larger)})"
                )
        if row.threats and not row.threat_images:
            raise CountsError(f"'threats' is {row.threats} but 'threat_images' is 0")
        labelled = sum(row.by_label.values())
        if labelled != row.threats:
            raise CountsError(f"'by_label' adds up to {labelled}, not to 'threats' ({row.threats})")
        return row

    def to_json(self) -> dict[str, Any]:
        """The row as it stands in a counts file: keys in a fixed order, labels sorted."""
        return {
            "id": self.id,
            "window_start": canonical_time(self.window_start),
            "window_end": canonical_time(self.window_end),
            "images": self.images,
            "threat_images": self.threat_images,
            "threats": self.threats,
            "alerts": self.alerts,
            "by_label": {label: self.by_label[label] for label in sorted(self.by_label)},
        }


_KEYS = (
    "id",
    "window_start",
    "window_end",
    "images",
    "threat_images",
    "threats",
    "alerts",
    "by_label",
)


def is_id(text: str) -> bool:
    """Whether a camera can be called so."""
    return _ID.fullmatch(text) is not None


def parse_time(text: str) -> datetime:
    """Reads an RFC 3339 time in UTC, such as ``2026-01-31T23:59:59Z``.

    Raises:
      CountsError: where it is no such time, or has an offset other than zero.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise CountsError(f"not a time like 2026-01-31T23:59:59Z: {_short(text)}")
    *parts, fraction, offset = match.groups()
    if offset not in ("Z", "+00:00", "-00:00"):
        raise CountsError(f"not in UTC (write it with Z): {_short(text)}")
    year, month, day, hour, minute, second = (int(part) for part in parts)
    microsecond = int((fraction or "0").ljust(6, "0"))
    try:
        return datetime(year, month, day, hour, minute, second, microsecond, timezone.utc)
    except ValueError as error:
        raise CountsError(f"{error}: {_short(text)}") from None


# Reading


@dataclass(frozen=True)
class _CountsFile:
    output: str
    path: str
    name: str
    start: datetime
    end: datetime
    modified: float


def find_outputs(outputs: Sequence[str]) -> list[str]:
    """The outputs that a command line names, each once.

    What does not exist under its very name and has ``*``, ``?`` or ``[`` in it stands for the
    folders that it matches and that have a ``counts/``, in the order of their names.

    Args:
      outputs: output directories, or globs of them, on any filesystem that Beam knows.

    Raises:
      CountsError: a glob that matches no output, or a store that can't be listed.
    """
    found = [
        one.rstrip("/") or "/"
        for output in outputs
        for one in (_match_outputs(output) if glob.has_magic(output) else [output])
    ]
    return list(dict.fromkeys(found))


def _match_outputs(output: str) -> list[str]:
    from transforms import stores

    if stores.is_local(output):
        if os.path.lexists(output):
            return [output]
        found = [
            path
            for path in glob.glob(output, recursive=True)
            if os.path.isdir(os.path.join(path, "counts"))
        ]
    else:
        if _match_counts(glob.escape(output)):
            return [output]
        found = [path.rsplit("/counts/", 1)[0] for path, _ in _match_counts(output)]
    if not found:
        raise NoCountsError(f"no counts under any {output}: run the job first")
    return sorted(set(found))


def read_counts(
    outputs: str | Sequence[str],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    ids: Iterable[str] | None = None,
) -> list[CountRow]:
    """Reads the count rows under one output or several, sorted by window and then by id.

    A window belongs to the period in which it begins (`since` <= start < `until`), so that
    neighbouring periods share no window and leave none out. Files of other windows are not opened.

    Where runs with other options left the same window in several files (whole and sharded, or in
    other numbers of shards), the row of an id is taken from the file that was modified last. Rows
    of one id and window in several outputs are added up: their images are others.

    Args:
      outputs: the job's output directory, or several, on any filesystem that Beam knows.
      since: first moment of the period (timezone-aware); None for no limit.
      until: first moment after it (timezone-aware); None for no limit.
      ids: only the rows of these ids; None for all.

    Raises:
      CountsError: no counts there, a row that is wrong, or windows that overlap without being the
        same (their images would be counted twice).
    """
    files = _files_in_period(_list_files(outputs), since, until)
    _refuse_overlaps(files)
    wanted = None if ids is None else frozenset(ids)
    rows: dict[tuple[str, datetime, datetime, str], CountRow] = {}
    # Oldest first, so that the row of the file modified last stays; names decide between files of
    # the same moment, so that every reading gives the same answer.
    for file in sorted(files, key=lambda file: (file.modified, file.name)):
        for row in _read_file(file):
            if wanted is None or row.id in wanted:
                rows[file.output, row.window_start, row.window_end, row.id] = row
    return _sum_outputs(rows.values())


def _sum_outputs(rows: Iterable[CountRow]) -> list[CountRow]:
    groups: dict[tuple[datetime, datetime, str], list[CountRow]] = {}
    for row in rows:
        groups.setdefault((row.window_start, row.window_end, row.id), []).append(row)
    return [_sum(groups[key], key[2]) for key in sorted(groups)]


def read_late(
    outputs: str | Sequence[str],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    ids: Iterable[str] | None = None,
) -> list[CountRow]:
    """Counts the images of a stream that came too late for their windows, from ``late/``.

    Args:
      outputs: as for `read_counts`.
      since: as for `read_counts`.
      until: as for `read_counts`.
      ids: only the rows of these ids; None for all.

    Raises:
      CountsError: a file there that is wrong, or a store that can't be read.
    """
    wanted = None if ids is None else frozenset(ids)
    rows: list[CountRow] = []
    for path in (path for output in _each(outputs) for path in _list_late(output)):
        try:
            row = _parse_line(_read(path))
        except CountsError as error:
            raise CountsError(f"{path}: {error}") from None
        in_period = (since is None or row.window_start >= _utc(since)) and (
            until is None or row.window_start < _utc(until)
        )
        if in_period and (wanted is None or row.id in wanted):
            rows.append(row)
    return _sum_outputs(rows)


def _each(outputs: str | Sequence[str]) -> Sequence[str]:
    return [outputs] if isinstance(outputs, str) else outputs


def _list_late(output: str) -> list[str]:
    from apache_beam.io.filesystem import BeamIOError

    from transforms import stores

    folder = stores.join(output, "late")
    if stores.is_local(output):
        found = glob.glob(f"{glob.escape(folder)}/*/[!.]*.json")
    else:
        try:
            found = [one.path for one in stores.match(f"{glob.escape(folder)}/**.json")]
        except (BeamIOError, OSError, ValueError) as error:
            raise CountsError(f"cannot list {folder}: {_one_line(error)}") from error
    return sorted(found)


def list_windows(outputs: str | Sequence[str]) -> list[tuple[datetime, datetime]]:
    """The windows with a counts file under one output or several, read off the names, in order.

    Raises:
      CountsError: no counts there.
    """
    return sorted({(file.start, file.end) for file in _list_files(outputs)})


def _list_files(outputs: str | Sequence[str]) -> list[_CountsFile]:
    return [file for output in _each(outputs) for file in _list_output(output)]


def _list_output(output: str) -> list[_CountsFile]:
    from transforms import stores

    directory = stores.join(output, "counts")
    if stores.is_local(output):
        try:
            # Beam's match would walk everything beside a directory whose name needs quoting.
            found = [
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
        found = _match_counts(glob.escape(output))
        missing = not found
    if missing:
        raise NoCountsError(
            f"no counts under {output}: {directory} is not there; "
            f"run the job first: python -m beam_pipeline run --output {output}"
        )
    files = []
    for path, modified in found:
        name = re.split(r"[/\\]", path)[-1]
        if name.startswith("."):
            continue  # a writer's temporary file
        window = _window_of(name)
        if window is None:
            _LOGGER.warning("%s is not named like a counts file: passed over", _printable(path))
            continue
        files.append(_CountsFile(output, path, name, *window, modified))
    return files


def _match_counts(outputs: str) -> list[tuple[str, float]]:
    """Counts files of the outputs in a store that a glob matches, and when they were modified."""
    from apache_beam.io.filesystem import BeamIOError

    from transforms import stores

    try:
        with warnings.catch_warnings():
            # Python's re wonders whether a quoted bracket was meant.
            warnings.filterwarnings("ignore", "Possible nested set", FutureWarning)
            found = stores.match(stores.join(outputs, "counts", "*.jsonl"))
    except (BeamIOError, OSError, ValueError) as error:
        raise CountsError(f"cannot list the counts under {outputs}: {_one_line(error)}") from error
    return [(one.path, one.last_updated_in_seconds) for one in found]


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


def _read(path: str) -> bytes:
    from apache_beam.io.filesystem import BeamIOError

    from transforms import stores

    try:
        return stores.read_bytes(path)
    except (BeamIOError, OSError, ValueError) as error:
        raise CountsError(f"{path}: cannot be read: {_one_line(error)}") from error


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
                raise CountsError(
                    f"its window {canonical_time(row.window_start)} to "
                    f"{canonical_time(row.window_end)} is not the one in the file's name"
                )
            if row.id in lines:
                raise CountsError(f"{row.id} has a row already, in line {lines[row.id]}")
        except CountsError as error:
            raise CountsError(f"{file.path}, line {number}: {error}") from None
        lines[row.id] = number
        rows.append(row)
    return rows


def _parse_line(line: bytes) -> CountRow:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise CountsError("not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise CountsError(f"not JSON: {_one_line(error)}") from None
    return CountRow.from_json(value)


# Summing


def sum_by_id(rows: Iterable[CountRow]) -> list[CountRow]:
    """One row per id, sorted by id; its window runs from the id's first to its last."""
    groups: dict[str, list[CountRow]] = {}
    for row in rows:
        groups.setdefault(row.id, []).append(row)
    return [_sum(groups[id_], id_) for id_ in sorted(groups)]


def sum_total(rows: Sequence[CountRow]) -> list[CountRow]:
    """One row with the id `TOTAL_ID`, or none where there is nothing to sum."""
    return [_sum(rows, TOTAL_ID)] if rows else []


def _sum(rows: Sequence[CountRow], id_: str) -> CountRow:
    by_label: dict[str, int] = {}
    for row in rows:
        for label, count in row.by_label.items():
            by_label[label] = by_label.get(label, 0) + count
    return CountRow(
        id=id_,
        window_start=min(row.window_start for row in rows),
        window_end=max(row.window_end for row in rows),
        images=sum(row.images for row in rows),
        threat_images=sum(row.threat_images for row in rows),
        threats=sum(row.threats for row in rows),
        alerts=sum(row.alerts for row in rows),
        by_label={label: by_label[label] for label in sorted(by_label)},
    )


# Printing


def format_table(rows: Sequence[CountRow]) -> str:
    """The rows for a person: aligned, with thousands separators and a totals line."""
    if not rows:
        return "No counts in this period.\n"
    header = (
        "id",
        "from (UTC)",
        "to (UTC)",
        "images",
        "with threat",
        "threats",
        "alerts",
        "threats by label",
    )
    lines = [header, *(_table_cells(row) for row in rows)]
    if rows[0].id != TOTAL_ID:
        (total,) = sum_total(rows)
        lines.append(_table_cells(total))
    lines = [(("total" if line[0] == TOTAL_ID else line[0]), *line[1:]) for line in lines]
    text = aligned(lines, left=3, prose=True)
    rule = "-" * max(map(len, text))
    text.insert(1, rule)
    if rows[0].id != TOTAL_ID:
        text.insert(-1, rule)
    return "".join(f"{line}\n" for line in text)


def _table_cells(row: CountRow) -> tuple[str, ...]:
    labels = sorted(row.by_label.items(), key=lambda item: (-item[1], item[0]))
    return (
        row.id,
        canonical_time(row.window_start),
        canonical_time(row.window_end),
        f"{row.images:,}",
        f"{row.threat_images:,}",
        f"{row.threats:,}",
        f"{row.alerts:,}",
        ", ".join(f"{_printable(label)} {count:,}" for label, count in labels),
    )


def format_csv(rows: Sequence[CountRow]) -> str:
    """The rows for a spreadsheet: plain numbers, a column ``label:<label>`` for each label.

    Neither an id nor a label's column can begin like a formula (``=``, ``+``, ``-``, ``@``).
    """
    labels = sorted({label for row in rows for label in row.by_label})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_KEYS[:-1], *(f"label:{_printable(label)}" for label in labels)])
    for row in rows:
        values = row.to_json()
        writer.writerow(
            [
                *(values[key] for key in _KEYS[:-1]),
                *(row.by_label.get(label, 0) for label in labels),
            ]
        )
    return text.getvalue()


def format_json(rows: Sequence[CountRow]) -> str:
    """The rows as a JSON list of the objects that the counts files hold, a row a line."""
    # ASCII only: whatever a label holds reaches a terminal as an escape. JSON leaves DEL as it is.
    lines = [json.dumps(row.to_json()).replace("\x7f", "\\u007f") for row in rows]
    return "[" + ",".join(f"\n  {line}" for line in lines) + ("\n]\n" if lines else "]\n")


FORMATS: Mapping[str, Callable[[Sequence[CountRow]], str]] = {
    "table": format_table,
    "csv": format_csv,
    "json": format_json,
}
SUMS: Mapping[str, Callable[[Sequence[CountRow]], Sequence[CountRow]]] = {
    "window": lambda rows: rows,
    "id": sum_by_id,
    "total": sum_total,
}


# The command


def add_output_argument(parser: argparse.ArgumentParser) -> None:
    """Adds ``--output`` as it is for commands that read what one run or several have written."""
    parser.add_argument(
        "--output",
        action="append",
        dest="outputs",
        metavar="DIR",
        help="the job's output directory, here or in a store, or a glob of several, in quotes; may "
        "be given again for more: rows of one camera and window are added up (default: output)",
    )


def named_outputs(args: argparse.Namespace) -> list[str]:
    """The outputs that ``--output`` names (see `find_outputs`).

    Raises:
      CountsError: as `find_outputs`.
    """
    return find_outputs(args.outputs or ["output"])


def add_period_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say which windows."""
    parser.add_argument(
        "--since",
        metavar="TIME",
        help="only windows that begin at or after this time, such as 2026-01-31T00:00:00Z",
    )
    parser.add_argument("--until", metavar="TIME", help="only windows that begin before this time")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command ``counts``."""
    add_output_argument(parser)
    parser.add_argument(
        "--format",
        choices=tuple(FORMATS),
        default="table",
        help="table to read, csv for a spreadsheet, json for a program (default: %(default)s)",
    )
    parser.add_argument(
        "--id",
        action="append",
        dest="ids",
        metavar="ID",
        help="only this camera; may be given again for more",
    )
    add_period_arguments(parser)
    parser.add_argument(
        "--late",
        action="store_true",
        help="only the images of a stream that came too late for their windows: they are judged "
        "and kept as all others, and not in the other counts",
    )
    parser.add_argument(
        "--by",
        choices=tuple(SUMS),
        default="window",
        help="one row per camera and window, per camera, or one in all (default: %(default)s)",
    )


def main(args: argparse.Namespace) -> int:
    """Prints the counts that `args` (see `add_arguments`) asks for; returns the exit code.

    Raises:
      CountsError: what a person must put right, in one line; nothing has been printed then.
    """
    since = _parse_option("--since", args.since)
    until = _parse_option("--until", args.until)
    for id_ in args.ids or ():
        if not is_id(id_):
            raise CountsError(f"--id: not an id: {_short(id_)}")
    outputs = named_outputs(args)
    late = read_late(outputs, since=since, until=until, ids=args.ids)
    if args.late:
        rows = late
    else:
        rows = read_counts(outputs, since=since, until=until, ids=args.ids)
        if late:
            images = sum(row.images for row in late)
            print(
                f"{images} images came too late for their windows and are not in these counts; "
                "--late shows them",
                file=sys.stderr,
            )
    unseen = sorted(set(args.ids or ()) - {row.id for row in rows})
    if unseen:
        print(f"no counts in this period for: {', '.join(unseen)}", file=sys.stderr)
    write_stdout(FORMATS[args.format](SUMS[args.by](rows)))
    return 0


def _parse_option(name: str, text: str | None) -> datetime | None:
    try:
        return None if text is None else parse_time(text)
    except CountsError as error:
        raise CountsError(f"{name}: {error}") from None


def write_stdout(text: str) -> None:
    """Prints a text, with escapes for what a terminal lacks; a reader that has gone is no error."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; without this Python complains again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _time(key: str, value: Any) -> datetime:
    if not isinstance(value, str):
        raise CountsError(f"{key!r} must be a time, not {_short(value)}")
    try:
        return parse_time(value)
    except CountsError as error:
        raise CountsError(f"{key!r}: {error}") from None


def _count(key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise CountsError(f"{key!r} must be a whole number of 0 or more, not {_short(value)}")
    return value


def _utc(time: datetime) -> datetime:
    if time.tzinfo is None:
        raise ValueError(f"a time without a timezone: {time!r}")
    return time.astimezone(timezone.utc)


def _printable(text: str) -> str:
    """Text that cannot steer a terminal: control and direction characters become escapes."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _one_line(error: object) -> str:
    return _printable(" ".join(str(error).split()))
