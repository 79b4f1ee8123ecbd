"""Follows an output while a job writes it: one thread, whatever the number of clients.

Each look lists `alerts/`, `marks/` and `shadow/alerts/`, and reads only the files that are new or
have changed. On a local disk it lists only the folders that have changed. A store that fails loses
nothing: the pages show what was known, and since when it is out of date.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

import orjson

import rules
from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.fleet.health import IMAGE_HISTORY, examine
from beam_pipeline.fleet.output_scan import CountsError, Kept, OutputScan, map_in_threads
from beam_pipeline.fleet.statistics.findings import PICTURE_KINDS
from beam_pipeline.fleet.statistics.observations import Finding
from beam_pipeline.inputs.rule_files import load_labels, load_rules, read_file
from beam_pipeline.pages.report.gathering import (
    MOST_PAST_ROWS,
    Fleet,
    ReportOptions,
    alert_record,
    gather,
)
from beam_pipeline.web.output.index import FileState, Index, IndexChanges, IndexedAlert
from transforms.records.text import one_line, printable
from transforms.records.times import parse_time
from transforms.storage import stores
from transforms.storage.marks import Mark, is_alert_id, read_mark
from transforms.storage.shadow_alerts import ShadowAlert, is_shadow_name, read_shadow_alert

_LOGGER = logging.getLogger(__name__)

_SHADOW = "shadow/alerts"
_FOLDERS = ("alerts", "marks", _SHADOW)
_ALERT_FILE = re.compile(r"[0-9a-f]{32}\.json")
_BATCH = 500
"""Files that are read before the pages show them."""
_SHARE = 10
"""A look waits at least so many times as long as the one before it took."""
_UNCERTAIN_SECONDS = 5.0
"""A folder that changed so recently may change again without another time of change."""
_NOTICE_SECONDS = 1.0
"""How soon an index that has begun anew is filled."""
_LONGEST_LOOK = timedelta(seconds=60)
_FLEET_SECONDS = 60.0
_FLEET_SHARE = 20
_PICTURE_SECONDS = 900.0
_MOST_PICTURES = 100_000
"""With more images in the period and the two weeks before it, no record is read."""
_SECONDS_UNTIL_GATHERED = 0.5


@dataclass(frozen=True)
class FollowStatus:
    """How far the output is known.

    Attributes:
      last_success: When the last look that found everything began (UTC); None before the first.
      problem: Why the last look failed; None if it did not.
      left: Files that the present look has still to read.
      looks: The number of looks.
      failures: The number of looks that failed.
      seconds: How long the last look took.
      version: A number that grows with every change of what pages show.
      generation: The generation of the index that the last look has filled.
    """

    last_success: datetime | None = None
    problem: str | None = None
    left: int = 0
    looks: int = 0
    failures: int = 0
    seconds: float = 0.0
    version: int = 0
    generation: int = 0


class RulesFollower:
    """The rules of a file that people edit while the console runs.

    Args:
      path: The rule file; None if there is none.
      labels: A label map; None for COCO's.

    Raises:
      SetupError: The label map or the rules are wrong.
    """

    def __init__(self, path: str | None, labels: str | None) -> None:
        self.path = path
        self._labels = frozenset(load_labels(labels).values())
        self._data: bytes | None = None
        self._ruleset: rules.Rules | None = None
        self._right: bytes | None = None
        self._problem: str | None = None
        self._lock = threading.Lock()
        if path is not None:
            self._data = self._right = read_file(path, "--rules")
            self._ruleset = load_rules(self._data, path, self._labels)

    @property
    def ruleset(self) -> rules.Rules | None:
        """The last rules that were right."""
        return self._ruleset

    @property
    def data(self) -> bytes | None:
        """The bytes of the file from which these rules were read."""
        return self._right

    @property
    def problem(self) -> str | None:
        """What is wrong with the file now, with its line; None if nothing is."""
        return self._problem

    @property
    def labels(self) -> list[str]:
        """The labels that the model gives."""
        return sorted(self._labels)

    def look(self) -> None:
        """Reads the file again, if it has changed."""
        if self.path is None:
            return
        try:
            data = read_file(self.path, "--rules")
            with self._lock:  # Whoever has just saved finds the new rules after a look.
                if data != self._data or self._problem is not None:
                    self._data = data
                    self._ruleset = load_rules(data, self.path, self._labels)
                    self._right = data
                self._problem = None
        except SetupError as error:
            self._problem = str(error)


class Follower:
    """Keeps an index up to date with an output.

    Args:
      index: The index.
      seconds: The time between two looks at least.
      rules_file: The rules, with the time zones of cameras whose alerts name none; it is read anew
        before each look.
      on_change: Called in any thread after what pages show has changed.
    """

    def __init__(
        self,
        index: Index,
        seconds: float,
        rules_file: RulesFollower,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._index = index
        self._seconds = seconds
        self._rules_file = rules_file
        self._on_change = on_change
        self._folders: dict[str, tuple[int, dict[str, FileState]]] = {}
        self._taken_over: tuple[int, dict[str, int] | None] = 0, None
        self._status = FollowStatus(version=time.time_ns() // 1_000_000)
        self._lock = threading.Lock()

    @property
    def status(self) -> FollowStatus:
        """How far the output is known."""
        return self._status

    @property
    def has_read(self) -> bool:
        """Whether the index holds what the last look has found: it may have begun anew since."""
        status = self._status
        return status.last_success is not None and status.generation == self._index.generation

    def stale_since(self, now: datetime | None = None) -> datetime | None:
        """Returns since when the pages are out of date; None if they are not.

        A look that hangs counts as one that fails.

        Args:
          now: The present time (UTC); None for that of this machine's clock.
        """
        status = self._status
        if status.last_success is None:
            return None
        now = now or datetime.now(timezone.utc)
        # A look that takes long in a large output delays the next one.
        usual = timedelta(seconds=max(self._seconds, status.seconds * (_SHARE + 1)))
        is_late = now - status.last_success > usual + _LONGEST_LOOK
        return status.last_success if status.problem is not None or is_late else None

    def changed(self) -> None:
        """Says that what pages show has changed."""
        with self._lock:
            self._status = replace(self._status, version=self._status.version + 1)
        self._on_change()

    def run(self, stopped: threading.Event) -> None:
        """Looks again and again, until it is stopped."""
        while not stopped.is_set():
            generation = self._index.generation
            self.look()
            until = time.monotonic() + max(self._seconds, self._status.seconds * _SHARE)
            while (left := until - time.monotonic()) > 0 and not stopped.is_set():
                stopped.wait(min(left, _NOTICE_SECONDS))
                if self._index.generation != generation:  # It is empty now.
                    break

    def look(self) -> None:
        """Looks once; a failure is in the status."""
        began, now = time.monotonic(), datetime.now(timezone.utc)
        before = self._status
        try:
            self._rules_file.look()
            has_changed, generation = self._take_over()
        except Exception as error:  # Whatever a store's client raises, the pages go on.
            self._note(problem=one_line(error), failures=before.failures + 1, left=0)
            _LOGGER.warning("the output can't be read: %s", one_line(error))
            has_changed = before.problem is None
        else:
            self._note(problem=None, last_success=now, left=0, generation=generation)
            has_changed |= before.problem is not None or before.last_success is None
            has_changed |= before.generation != generation
        self._note(looks=before.looks + 1, seconds=time.monotonic() - began)
        if has_changed:
            self.changed()

    def _note(self, **values: object) -> None:
        with self._lock:
            self._status = replace(self._status, **values)  # type: ignore[arg-type]

    def _take_over(self) -> tuple[bool, int]:
        """Takes over what is new; returns whether something was, and the generation of the index
        that now holds the output."""
        output = self._index.output
        if stores.is_local(output) and not os.path.isdir(output):
            raise FileNotFoundError(f"{output} is not there")
        dates = self._dates_of_folders()
        generation = self._index.look()
        if dates is not None and (generation, dates) == self._taken_over:
            return False, generation
        known = self._index.known()
        listed: dict[str, FileState] = {}
        for folder in _FOLDERS:
            of_folder = dict(self._list(folder))
            was_there = any(name.startswith(f"{folder}/") for name in known)
            if was_there and not of_folder and folder != _SHADOW:  # People delete that one.
                # Rather a mount that is gone than an output without any of its alerts.
                raise FileNotFoundError(f"{stores.join(output, folder)} is empty or not there")
            listed.update(of_folder)
        gone = [name for name in known if name not in listed]
        new = [name for name, state in listed.items() if known.get(name) != state]
        new.sort(key=lambda name: (listed[name].modified, name), reverse=True)
        if gone:
            self._index.apply(IndexChanges(gone=gone))
        unread: list[Exception] = []
        for start in range(0, len(new), _BATCH):
            self._note(left=len(new) - start)
            unread += self._read(new[start : start + _BATCH], listed)
            self.changed()
        if unread:
            raise unread[0]
        self._taken_over = generation, dates
        return bool(gone or new), generation

    def _dates_of_folders(self) -> dict[str, int] | None:
        """Returns when each folder that is listed was changed; None if that does not say whether
        it is the same as before: in a store, or just after a change."""
        if not stores.is_local(self._index.output):
            return None
        dates = {}
        for folder in _FOLDERS:
            uri = stores.join(self._index.output, folder)
            for entry in os.scandir(uri) if os.path.isdir(uri) else ():
                if entry.is_dir():
                    dates[entry.path] = os.stat(entry.path).st_mtime_ns
        newest = max(dates.values(), default=0)
        return None if time.time() - newest / 1e9 <= _UNCERTAIN_SECONDS else dates

    def _list(self, folder: str) -> Iterator[tuple[str, FileState]]:
        """Yields the files of a folder that count, and what the listing says of them."""
        uri = stores.join(self._index.output, folder)
        if stores.is_local(uri):
            files = self._list_locally(uri)
        else:
            files = (
                (
                    *file.path[len(uri) + 1 :].split("/"),
                    FileState(file.size_in_bytes, file.last_updated_in_seconds),
                )  # type: ignore[misc]
                for file in stores.list_one_deep(uri)
            )
        for camera, name, state in files:
            if _IS_FILE[folder](name) and rules.is_camera_id(camera):
                yield f"{folder}/{camera}/{name}", state

    def _list_locally(self, uri: str) -> Iterator[tuple[str, str, FileState]]:
        for entry in (
            sorted(os.scandir(uri), key=lambda entry: entry.name) if os.path.isdir(uri) else ()
        ):
            if not entry.is_dir():
                continue
            changed = os.stat(entry.path).st_mtime_ns
            is_certain = time.time() - changed / 1e9 > _UNCERTAIN_SECONDS
            kept = self._folders.get(entry.path)
            if kept is not None and kept[0] == changed:
                files = kept[1]
            else:
                files = dict(_files_in(entry.path))
                self._folders.pop(entry.path, None)
                if is_certain:
                    self._folders[entry.path] = (changed, files)
            for name, state in files.items():
                yield entry.name, name, state

    def _read(self, names: Sequence[str], listed: Mapping[str, FileState]) -> list[Exception]:
        """Reads files and takes them over; returns why some can't be read now."""
        unread: list[Exception] = []
        changes = IndexChanges()
        for name, result in zip(names, map_in_threads(self._read_one, names), strict=True):
            if isinstance(result, FileNotFoundError):  # It was deleted meanwhile.
                continue
            if isinstance(result, OSError):
                unread.append(result)
                continue
            changes.states[name] = listed[name]
            if isinstance(result, Exception):
                changes.problems[name] = printable(one_line(result))
            elif isinstance(result, Mark):
                changes.marks[name] = result
            elif isinstance(result, ShadowAlert):
                changes.shadow[name] = result
            else:
                changes.alerts[name] = result
        self._index.apply(changes)
        return unread

    def _read_one(self, name: str) -> IndexedAlert | Mark | ShadowAlert:
        uri = stores.join(self._index.output, name)
        if name.startswith(f"{_SHADOW}/"):
            return read_shadow_alert(uri)
        if name.startswith("marks/"):
            return read_mark(uri)
        return indexed_alert(
            self._index.output, name, stores.read_bytes(uri), self._rules_file.ruleset
        )


def indexed_alert(output: str, name: str, data: bytes, ruleset: rules.Rules | None) -> IndexedAlert:
    """Reads the record of an alert.

    Args:
      output: The job's output.
      name: The name of the file in it.
      data: What it holds.
      ruleset: See `alert_record`.

    Raises:
      ValueError: It is no such record.
    """
    try:
        value = orjson.loads(data)
        record = alert_record(output, value, ruleset)
        parse_time(record.timestamp)
        if name != f"alerts/{record.camera}/{record.alert_id}.json":
            raise ValueError("is the record of another alert than its name says")
        boxes = tuple(
            (str(threat["label"]), float(threat["conf"]), tuple(map(float, threat["bbox"])))
            for threat in value["threats"]
            if len(threat.get("bbox") or ()) == 4
        )
        return IndexedAlert(record, str(value.get("severity", "alert")), boxes)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"is no record of an alert ({one_line(error)})") from error


def _files_in(folder: str) -> Iterator[tuple[str, FileState]]:
    for entry in os.scandir(folder):
        try:
            if not entry.name.startswith(".") and entry.is_file():
                status = entry.stat()
                yield entry.name, FileState(status.st_size, status.st_mtime)
        except FileNotFoundError:  # Deleted meanwhile.
            continue


def _is_mark_file(name: str) -> bool:
    return name.endswith(".json") and is_alert_id(name[:32]) and name[32:33] == "_"


_IS_FILE: Mapping[str, Callable[[str], object]] = {
    "alerts": _ALERT_FILE.fullmatch,
    "marks": _is_mark_file,
    _SHADOW: is_shadow_name,
}
"""Which names in these folders are those of records."""


# The fleet


@dataclass(frozen=True)
class FleetView:
    """The cameras of the output in the recent period, as the report shows them.

    Attributes:
      fleet: What was gathered; None before it was.
      at: When it was gathered (UTC); None before.
      problem: Why it could not be gathered anew; None if it could.
      pictures_due: Whether the first look for blind and frozen cameras is not over.
    """

    fleet: Fleet | None = None
    at: datetime | None = None
    problem: str | None = None
    pictures_due: bool = True


class FleetFollower:
    """Gathers what the report shows of the fleet, again and again.

    Blind and frozen cameras are looked for more rarely, as the record of each image is read for
    that, and not at all where there are too many images.

    Args:
      output: The output.
      period_hours: The length of the period.
      rules_file: The rules.
    """

    def __init__(self, output: str, period_hours: float, rules_file: RulesFollower) -> None:
        self._output = output
        self._kept: Kept | None = None
        self._hours = period_hours
        self._rules = rules_file
        self._picture_findings: Sequence[Finding] | None = None
        self._pictures_due = True
        self.view = FleetView()

    def run(self, stopped: threading.Event) -> None:
        """Gathers again and again, until it is stopped."""
        _again_and_again(self.look, _FLEET_SECONDS, stopped)

    def run_pictures(self, stopped: threading.Event) -> None:
        """Looks for blind and frozen cameras again and again, until it is stopped."""
        while self.view.at is None and not stopped.wait(_SECONDS_UNTIL_GATHERED):
            pass
        _again_and_again(self.look_at_pictures, _PICTURE_SECONDS, stopped)

    def look(self) -> None:
        """Gathers once; a failure is in the view."""
        pictures_due = self._pictures_due  # Read before what was found.
        options = ReportOptions(
            self._hours,
            ruleset=self._rules.ruleset,
            missing_ok=True,
            each_image=False,
            picture_findings=self._picture_findings,
            alerts=False,
            past_rows=MOST_PAST_ROWS,
        )
        try:
            scan = OutputScan(self._output, self._kept)
            fleet = gather(scan, options)
            self._kept = scan.kept()
            self.view = FleetView(fleet, datetime.now(timezone.utc), pictures_due=pictures_due)
        except CountsError as error:
            self.view = replace(self.view, problem=str(error))
        except Exception as error:  # As in `Follower.look`.
            self.view = replace(self.view, problem=one_line(error))

    def look_at_pictures(self) -> None:
        """Looks for blind and frozen cameras once, in the period that was gathered last.

        The page says that it does not check for them while there are too many images, or after a
        failure.
        """
        try:
            self._picture_findings = self._found_in_pictures()
        except Exception as error:  # As in `Follower.look`.
            self._picture_findings = None
            _LOGGER.warning("no look for blind and frozen cameras: %s", one_line(error))
        self._pictures_due = False

    def _found_in_pictures(self) -> Sequence[Finding] | None:
        fleet = self.view.fleet
        if fleet is None or fleet.period is None or fleet.total is None:
            return None
        since, until = fleet.period.start, fleet.period.end
        if fleet.total.images * (1 + IMAGE_HISTORY / (until - since)) > _MOST_PICTURES:
            return None
        scan = OutputScan(self._output)
        found = examine(scan, since=since, until=until, ruleset=self._rules.ruleset).findings
        return [finding for finding in found if finding.kind in PICTURE_KINDS]


def _again_and_again(
    look: Callable[[], None], least_seconds: float, stopped: threading.Event
) -> None:
    """Calls a function until it is stopped, so that it takes a small share of the time."""
    while not stopped.is_set():
        began = time.monotonic()
        look()
        stopped.wait(max(least_seconds, (time.monotonic() - began) * _FLEET_SHARE))
