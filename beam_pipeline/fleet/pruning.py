"""The command `prune`: deletes what is older than it needs to be kept.

What must stay is read first, after the files have been listed: marks, alerts, and alerts that wait
to be sent. If any of it can't be read, nothing is deleted. A file goes only if all that decides on
it is known, so that a run that is stopped, that runs twice at once or whose store fails deletes
nothing that should stay, and the next run goes on. A file that was written within the last day
stays, as a job may be at work on its image: the verdict and the alert that say how long it is kept
may not be there yet.

The records of alerts are shortened in place of deleted: they hold which target has received the
alert, and without them a job that sees the image again would send the alert again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any

from apache_beam.io.filesystem import FileMetadata

import rules
from beam_pipeline.console.exceptions import CommandFailedError, SetupError
from beam_pipeline.console.parsing import age
from beam_pipeline.console.tables import align, write_stdout
from beam_pipeline.fleet.output_scan import camera_and_time
from beam_pipeline.inputs import paths
from beam_pipeline.inputs.preflight import check_output
from beam_pipeline.inputs.rule_files import read_rules
from beam_pipeline.inputs.selection import print_problems, store_errors_as_failures
from rules import FOR_GOOD, KEPT, Retention
from transforms.records import reasons
from transforms.records.clocks import is_misdated
from transforms.records.text import one_line
from transforms.records.times import canonical_time, from_unix, parse_time
from transforms.storage import stores
from transforms.storage.archive import Problem
from transforms.storage.marks import read_marks
from transforms.storage.packed_output import (
    PERIOD,
    PackedFile,
    TornFileError,
    list_files,
    read_file,
    write_file,
)
from transforms.storage.packed_rows import PackedRow, Rows, rank_of
from transforms.storage.shadow_alerts import is_shadow_name

VALIDATED, DETECTIONS, FINAL, INVALID = "validated", "detections", "final", "invalid"
ALERTS, THREATS, MARKED = "alerts", "threats", "marked"
PACKED, SHADOW = "packed", "shadow"
FOLDERS = (VALIDATED, DETECTIONS, INVALID, FINAL)
"""In the order in which they are deleted: `final/` says which images show a threat."""
FRESH = timedelta(hours=24)
"""A file that was written more recently is neither deleted nor shortened."""
_NEVER = datetime.max.replace(tzinfo=timezone.utc)
"""From when the age counts of what is not known to be old."""
_AHEAD = timedelta(hours=24)
"""A capture time that lies further ahead of the time at which its file was written is wrong."""
_AT_ONCE = 16
_MAX_FAILURES = 20
_MIB = 1 << 20

Key = tuple[str, str]
"""A camera and a canonical capture time."""


@dataclass(frozen=True)
class OldFile:
    """A file of the output that may be deleted.

    Attributes:
      uri: The file.
      folder: One of `FOLDERS`, or `alerts`.
      size: Its bytes.
      taken: The time from which its age counts (UTC).
      is_fresh: Whether it was written within `FRESH`.
      key: The camera and capture time in its name; None if it has none.
    """

    uri: str
    folder: str
    size: int
    taken: datetime
    is_fresh: bool
    key: Key | None


@dataclass
class Tally:
    """What was found in one folder.

    Attributes:
      files: All files.
      gone: The files that were deleted or shortened, or would be.
      bytes: Their size.
      kept: The files that are old, and are kept for longer.
    """

    files: int = 0
    gone: int = 0
    bytes: int = 0
    kept: int = 0


def prune(args: argparse.Namespace) -> int:
    """Deletes, or prints what would be deleted; returns the exit code.

    Raises:
      SetupError: An option is wrong; nothing was deleted.
      CommandFailedError: What must stay could not be read, or too much could not be deleted.
    """
    retention = _retention(args)
    output = paths.absolute("--output", args.output)
    check_output(output)
    pruning = Pruning(output, retention, datetime.now(timezone.utc), deletes=args.delete)
    with store_errors_as_failures():
        pruning.run()
    write_stdout(_table(pruning.tallies, deletes=args.delete))
    if not args.delete:
        print("nothing was deleted; add --delete to do it", file=sys.stderr)
    print_problems(pruning.problems, "they stay")
    if pruning.gave_up:
        raise CommandFailedError(
            f"failed: {_MAX_FAILURES} files could not be deleted, so it stopped; run the same "
            "command again once the store works"
        )
    return int(bool(pruning.problems))


def _retention(args: argparse.Namespace) -> Retention:
    """Returns how long what is kept, by the options or by the rule file.

    Raises:
      SetupError: Neither says it, or both do, or an option is wrong.
    """
    if args.older_than is not None and args.rules is None:
        return Retention(args.older_than, _keep(args.keep, args.older_than))
    if args.rules is None:
        raise SetupError(
            "nothing says how long what is kept; give --older_than AGE, such as 30d, or --rules "
            "FILE with a section `retention`"
        )
    if args.older_than is not None or args.keep:
        raise SetupError("--older_than and --keep are not for use with --rules; give one of both")
    retention = read_rules(args.rules, args.labels).retention
    if retention is None:
        raise SetupError(
            f"--rules {args.rules}: has no section `retention`; add one, such as "
            "retention: {older_than: 30d}"
        )
    return retention


def _keep(options: Sequence[Sequence[str]], older_than: timedelta) -> dict[str, timedelta]:
    keep: dict[str, timedelta] = {}
    for what, *times in options:
        if what not in KEPT:
            raise SetupError(f"--keep {what[:40]}: not one of {', '.join(KEPT)}")
        if len(times) > 1:
            raise SetupError(f"--keep {what}: takes one age, such as --keep {what} 365d")
        try:
            limit = age(times[0]) if times else FOR_GOOD
        except argparse.ArgumentTypeError as error:
            raise SetupError(f"--keep {what}: {error}") from None
        if limit < older_than:
            raise SetupError(
                f"--keep {what} {times[0]}: shorter than --older_than, so it keeps nothing; give "
                "the shortest time to --older_than, and longer ones to --keep"
            )
        keep[what] = max(limit, keep.get(what, limit))
    return keep


def _table(tallies: Mapping[str, Tally], *, deletes: bool) -> str:
    gone = "gone" if deletes else "would go"
    rows = [("folder", "files", gone, "MiB", "old but kept")]
    for name, tally in tallies.items():
        notes = {ALERTS: " (shortened)", PACKED: " (rows)"}
        label = name + notes.get(name, "")
        size = "-" if name in notes else f"{tally.bytes / _MIB:,.1f}"
        rows.append((label, f"{tally.files:,}", f"{tally.gone:,}", size, f"{tally.kept:,}"))
    return "".join(f"{line}\n" for line in align(rows))


@dataclass
class _PackedLook:
    """The rows of a packed file that go.

    Attributes:
      file: The file as it is now.
      replaced: How many rows go that others replace.
      replaced_keys: Their images.
      standing: How many rows go that stand.
    """

    file: PackedFile
    replaced: int = 0
    replaced_keys: set[Key] = field(default_factory=set)
    standing: int = 0


class Pruning:
    """One look through an output.

    Args:
      output: The job's output.
      retention: How long what is kept.
      now: The current time (UTC).
      deletes: Whether files are deleted, or only counted.

    Attributes:
      tallies: What was found, by folder.
      problems: The files that could not be read or deleted, and why; they stay.
      gave_up: Whether it stopped, as too many files could not be deleted or by `stop`.
    """

    def __init__(self, output: str, retention: Retention, now: datetime, *, deletes: bool) -> None:
        self._output = output
        self._retention = retention
        self._now = now
        self._deletes = deletes
        self._alerted: set[Key] = set()
        self._marked: set[Key] = set()
        self._waiting: frozenset[str] = frozenset()
        self._alert_ids: frozenset[str] = frozenset()
        self._standing = Rows()
        self._fresh: set[Key] = set()
        self._counted: dict[Key, datetime] = {}
        """From when the age of packed rows counts, where it is not their capture time."""
        self._unread: list[PackedFile] = []
        self._threats: dict[str, bool] = {}
        """Whether images show a threat, by the addresses of their verdicts: each is read once."""
        self._failures = 0
        self.tallies: dict[str, Tally] = {}
        self.problems: list[Problem] = []
        self.gave_up = False

    def run(self) -> None:
        """Looks for what is old, and deletes it.

        Raises:
          OSError: What must stay could not be listed; nothing was deleted.
          CommandFailedError: A mark could not be read; nothing was deleted.
        """
        images = {folder: list(self._files(folder)) for folder in FOLDERS}
        alerts = list(self._alert_files())
        shadow = list(self._shadow_files())
        packed = list_files(self._output)
        self._read_what_stays(
            {file.key for files in images.values() for file in files if file.key is not None},
            {file.path.rsplit("/", 1)[1].removesuffix(".json") for file in alerts},
        )
        self._read_packed(packed)
        for folder in FOLDERS:
            self._prune_folder(folder, images[folder])
        if shadow:
            self._prune_folder(SHADOW, shadow)
        self._prune_packed(packed)
        self._shorten_alerts(alerts)

    def stop(self) -> None:
        """Ends the work of `run` in another thread; what is not deleted yet stays."""
        self.gave_up = True

    def _files(self, folder: str) -> Iterable[OldFile]:
        """Yields the files of a folder that the job has written, with their ages."""
        base = stores.join(self._output, folder)
        linked = self._linked_folders(base)
        for file in stores.list_one_deep(base):
            inner, _, name = file.path[len(base) + 1 :].partition("/")
            if inner in linked:
                continue
            stem = name.removesuffix(".json")
            if folder in (DETECTIONS, FINAL):
                if stem == name:
                    continue
                stem += ".jpg"
            camera, taken = camera_and_time(stem)
            if folder == INVALID:
                if inner not in reasons.ALL:
                    continue
            elif camera != inner:
                continue  # Not written by the job.
            written = _written(file)
            key = None
            names_lie = folder == INVALID and inner in reasons.OF_NAMES
            if camera is not None and taken is not None and not names_lie:
                key = camera, canonical_time(taken)
            counted = _counted_from(taken if key else None, written)
            if counted is not None:
                is_fresh = self._is_fresh(written)
                yield OldFile(file.path, folder, file.size_in_bytes, counted, is_fresh, key)

    def _shadow_files(self) -> Iterator[OldFile]:
        """Yields the records of shadow rules, which are kept for as long as those of alerts."""
        base = stores.shadow_alerts_folder(self._output)
        linked = self._linked_folders(base)
        for file in stores.list_one_deep(base):
            inner, _, name = file.path[len(base) + 1 :].partition("/")
            time = name.rpartition("_")[0]
            camera, taken = camera_and_time(f"{inner}_{time}.jpg")
            if camera is None or taken is None or camera != inner or not is_shadow_name(name):
                continue  # Not written by the job.
            if inner in linked:
                continue
            written = _written(file)
            counted = _counted_from(taken, written)
            if counted is not None:
                is_fresh, key = self._is_fresh(written), (camera, canonical_time(taken))
                yield OldFile(file.path, ALERTS, file.size_in_bytes, counted, is_fresh, key)

    def _linked_folders(self, base: str) -> frozenset[str]:
        """Returns the names of the folders in a local folder that are links, and notes them: what
        they lead to may be no part of the output."""
        if not stores.is_local(base) or not os.path.isdir(base):
            return frozenset()
        with os.scandir(base) as entries:
            linked = [entry for entry in entries if entry.is_symlink() and entry.is_dir()]
        for entry in sorted(linked, key=lambda entry: entry.name):
            self.problems.append((entry.path, "a link to a folder, which prune does not follow"))
        return frozenset(entry.name for entry in linked)

    def _is_fresh(self, written: datetime | None) -> bool:
        return written is not None and self._now - written < FRESH

    def _alert_files(self) -> Iterable[FileMetadata]:
        """Yields the records of alerts of cameras, not those of digests and decisions."""
        base = stores.join(self._output, ALERTS)
        for file in stores.list_one_deep(base):
            inner, _, name = file.path[len(base) + 1 :].partition("/")
            if rules.is_camera_id(inner) and name.endswith(".json"):
                yield file

    def _read_what_stays(self, keys: set[Key], alert_ids: set[str]) -> None:
        """Reads marks and waiting alerts, and finds the images that have an alert."""
        marks, unread = read_marks(self._output)
        if unread:
            uri, why = unread[0]
            raise CommandFailedError(
                f"failed: {uri}: {why}; nothing is deleted while a mark can't be read: correct the "
                "file, or move it away"
            )
        self._marked = {(mark.id, mark.timestamp) for mark in marks}
        self._waiting = frozenset(
            file.path.rsplit("/", 1)[1].removesuffix(".json").rpartition("_")[2]
            for folder in stores.undelivered_folders(self._output)
            for file in stores.list_one_deep(folder)
        )
        self._alert_ids = frozenset(alert_ids)
        self._alerted.update(key for key in keys if self._has_alert(key))

    def _has_alert(self, key: Key) -> bool:
        ids = {rules.alert_id(*key, severity) for severity in ("alert", "detection")}
        return bool(ids & self._alert_ids)

    def _read_packed(self, files: Sequence[PackedFile]) -> None:
        """Reads which rows of the packed output stand, and when those of each image were written.

        Raises:
          OSError: A file can't be reached.
        """
        for file in files:
            try:
                self._standing.add(self._noted(file))
            except (TornFileError, FileNotFoundError) as error:
                self._unread.append(file)
                self.problems.append((file.uri, one_line(error)))

    def _noted(self, file: PackedFile) -> Iterator[PackedRow]:
        """Yields the rows of a file, and notes what decides on them."""
        is_fresh = self._is_fresh(file.written)
        for row in read_file(file.uri):
            key = row.image.id, row.image.timestamp
            if is_fresh:
                self._fresh.add(key)
            taken = parse_time(key[1])
            counted = _counted_from(taken, file.written) or _NEVER
            if counted != taken:
                self._counted[key] = max(counted, self._counted.get(key, counted))
            yield row

    def _kinds(self, file: OldFile) -> list[str]:
        """Returns what a file is, of `KEPT`, as far as is known without reading it."""
        kinds = [file.folder]
        if file.folder == ALERTS or file.key in self._alerted:
            kinds += [ALERTS, THREATS]
        if file.key in self._marked:
            kinds.append(MARKED)
        return kinds

    def _is_older(self, file: OldFile, kinds: Iterable[str]) -> bool:
        return self._now - file.taken > self._retention.limit(kinds)

    def _stays(self, file: OldFile) -> bool:
        """Returns whether a file that is older than the shortest limit stays.

        Raises:
          OSError: The verdict can't be read.
          ValueError: The verdict is damaged.
        """
        if file.is_fresh or self._waits(file) or not self._is_older(file, self._kinds(file)):
            return True
        # Only a verdict that decides is read.
        kinds = [*self._kinds(file), THREATS]
        return not self._is_older(file, kinds) and self._is_threat(file)

    def _waits(self, file: OldFile) -> bool:
        if file.key is None:
            return False
        ids = {rules.alert_id(*file.key, severity) for severity in ("alert", "detection")}
        return bool(ids & self._waiting)

    def _is_threat(self, file: OldFile) -> bool:
        """Reads from the verdict of a file's image whether it shows a threat."""
        if file.key is None:
            return False
        camera, name = file.key[0], file.uri.rsplit("/", 1)[1]
        stem = re.sub(r"(?:\.jpe?g)?(?:\.json)?\Z", "", name, flags=re.IGNORECASE)
        uri = stores.final_uri(self._output, camera, stem)
        row = self._standing.get(*file.key)
        if row is not None and row.has_severity:
            return True
        taken = parse_time(file.key[1])
        if any(unread.start <= taken < unread.end for unread in self._unread):
            raise ValueError("its verdict is in a packed file that can't be read")
        if uri not in self._threats:
            data = stores.read_if_there(uri)
            self._threats[uri] = data is not None and bool(json.loads(data)["threat"]["is_threat"])
        return self._threats[uri]

    def _prune_folder(self, folder: str, files: Sequence[OldFile]) -> None:
        tally = self.tallies[folder] = Tally(len(files))
        old = [file for file in files if self._now - file.taken > self._retention.older_than]

        def prune_file(file: OldFile) -> str | None:
            """Returns `kept` or `gone`, or None if it failed."""
            if self.gave_up:
                return None
            try:
                if self._stays(file):
                    return "kept"
                if self._deletes:
                    stores.delete(file.uri)
            except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
                self._note(file.uri, error)
                return None
            return "gone"

        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="prune") as pool:
            for file, outcome in zip(old, pool.map(prune_file, old), strict=True):
                if outcome == "gone":
                    tally.gone += 1
                    tally.bytes += file.size
                tally.kept += outcome == "kept"

    def _prune_packed(self, files: Sequence[PackedFile]) -> None:
        """Writes each file of a packed output that has old rows again without them.

        All rows of an image go, or none, by the one that stands. Those that it replaces go first,
        so that none of them stands if this is stopped or fails.
        """
        for file in list_files(self._output, stores.packed_detections_folder(self._output)):
            self._prune_detections(file)
        if not files:
            return
        tally = self.tallies[PACKED] = Tally()
        looks = [
            look
            for file in files
            if not self.gave_up and file not in self._unread
            for look in self._look_through(file, tally)
        ]
        if not self._deletes:
            tally.gone = sum(look.replaced + look.standing for look in looks)
            return
        left = set[Key]()
        for look in looks:
            if look.replaced:
                gone = self._write_without(look, self._is_replaced)
                tally.gone += gone or 0
                if gone is None:
                    left |= look.replaced_keys
        for look in looks:
            if look.standing:
                gone = self._write_without(
                    look, lambda row: (row.image.id, row.image.timestamp) not in left
                )
                tally.gone += gone or 0

    def _look_through(self, file: PackedFile, tally: Tally) -> Iterator[_PackedLook]:
        """Counts the rows of a file, and yields what of them goes; nothing if it can't be read."""
        look, counted = _PackedLook(file), Tally()
        try:
            for row in read_file(file.uri):
                counted.files += 1
                outcome = self._outcome(row.image.id, row.image.timestamp)
                counted.kept += outcome == "kept"
                if outcome == "gone" and self._is_replaced(row):
                    look.replaced += 1
                    look.replaced_keys.add((row.image.id, row.image.timestamp))
                else:
                    look.standing += outcome == "gone"
        except FileNotFoundError:  # Merged meanwhile: the next run looks at its rows.
            return
        except (OSError, ValueError) as error:
            self._note(file.uri, error)
            return
        tally.files += counted.files
        tally.kept += counted.kept
        yield look

    def _write_without(self, look: _PackedLook, goes: Callable[[PackedRow], bool]) -> int | None:
        """Writes a file again without some of its old rows, and deletes it; returns their number,
        or None if it failed."""
        if self.gave_up:
            return None
        gone = 0

        def kept_rows() -> Iterator[PackedRow]:
            nonlocal gone
            for row in read_file(look.file.uri):
                if self._outcome(row.image.id, row.image.timestamp) == "gone" and goes(row):
                    gone += 1
                else:
                    yield row

        uri = look.file.uri
        try:
            period = PERIOD.match(uri.rsplit("/", 1)[1])
            folder = stores.packed_folder(self._output)
            written = write_file(folder, period and period[0], kept_rows())
            if written is not None:
                stores.make_durable(written)
            if written != uri:
                stores.delete(uri)
        except FileNotFoundError:  # Merged meanwhile: the next run looks at its rows.
            return None
        except (OSError, ValueError) as error:
            self._note(uri, error)
            return None
        if written is not None:
            look.file = replace(look.file, uri=written)
        return gone

    def _prune_detections(self, file: PackedFile) -> None:
        """Deletes what a run has left that was stopped and never resumed."""
        if file.written is None or self.gave_up or self._is_fresh(file.written):
            return
        if self._deletes and self._now - file.written > self._retention.limit([DETECTIONS]):
            try:
                stores.delete(file.uri)
            except OSError as error:
                self._note(file.uri, error)

    def _is_replaced(self, row: PackedRow) -> bool:
        """Whether another row of its image stands."""
        standing = self._standing.get(row.image.id, row.image.timestamp)
        return standing is not None and rank_of(row) < rank_of(standing)

    def _outcome(self, id: str, timestamp: str) -> str | None:
        """Returns whether the rows of an image are `gone` or `kept`; None if they are young."""
        key, captured = (id, timestamp), parse_time(timestamp)
        taken = self._counted.get(key, captured)
        if self._now - taken <= self._retention.older_than:
            return None
        standing = self._standing.get(id, timestamp)
        if (
            standing is None
            or key in self._fresh
            or any(unread.start <= captured < unread.end for unread in self._unread)
        ):
            return "kept"
        old = OldFile("", FINAL, 0, taken, False, key)
        kinds = [DETECTIONS, FINAL]
        if self._has_alert(key):
            kinds += [ALERTS, THREATS]
        if standing.has_severity:
            kinds.append(THREATS)
        if key in self._marked:
            kinds.append(MARKED)
        return "kept" if self._waits(old) or not self._is_older(old, kinds) else "gone"

    def _note(self, uri: str, error: Exception) -> None:
        self.problems.append((uri, one_line(error)))
        self._failures += isinstance(error, OSError)
        if self._failures >= _MAX_FAILURES:
            self.gave_up = True

    # Alerts

    def _shorten_alerts(self, files: Sequence[FileMetadata]) -> None:
        tally = self.tallies[ALERTS] = Tally(len(files))
        linked = self._linked_folders(stores.join(self._output, ALERTS))
        files = [file for file in files if file.path.rsplit("/", 2)[1] not in linked]
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="prune") as pool:
            for outcome in pool.map(self._shorten_alert, files):
                tally.gone += outcome == "gone"
                tally.kept += outcome == "kept"

    def _shorten_alert(self, file: FileMetadata) -> str | None:
        """Shortens the record of an old alert; returns `gone`, `kept`, or None for a young or fresh
        one, one that is short already, or one that failed."""
        written = _written(file)
        if self.gave_up or self._is_fresh(written):
            return None
        try:
            record = json.loads(stores.read_bytes(file.path))
            key = record["id"], canonical_time(parse_time(record["timestamp"]))
            counted = _counted_from(parse_time(key[1]), written)
            if counted is None or self._now - counted <= self._retention.older_than:
                return None
            old = OldFile(file.path, ALERTS, file.size_in_bytes, counted, False, key)
            if self._waits(old) or not self._is_older(old, self._kinds(old)):
                return "kept"
            short = shortened_record(record)
            if short == record:
                return None
            if self._deletes:
                stores.write_bytes(file.path, stores.json_bytes(short))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._note(file.path, error)
            return None
        return "gone"


def shortened_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the record of an alert without what was seen, and where: what is left says that there
    was an alert, and who has received it."""
    targets = [{**entry, "detail": ""} for entry in record["targets"]]
    return {**record, "threats": [], "image_uri": "", "final_uri": "", "targets": targets}


def _written(file: FileMetadata) -> datetime | None:
    """Returns when a file was last written; None if its store does not say it."""
    changed = file.last_updated_in_seconds
    return from_unix(changed) if changed else None


def _counted_from(taken: datetime | None, written: datetime | None) -> datetime | None:
    """Returns the time from which the age of a file counts; None if it is unknown.

    It is the capture time. If that is not to be trusted, or there is none, it is the time at which
    the file was last written: a camera that has lost its clock must not lose its images, and one
    that is ahead must not keep them for years.
    """
    if taken is None or is_misdated(taken, written):
        return written
    if written is not None and taken - written > _AHEAD:
        return written
    return taken
