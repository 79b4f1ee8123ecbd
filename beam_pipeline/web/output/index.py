"""The alerts, marks and records of shadow rules of an output in a SQLite file, for fast pages.

The file holds nothing that is not in the output: it can be deleted at any time, and one of another
version or output is replaced. One thread writes it (:mod:`beam_pipeline.web.output.following`), and any
number of threads read it.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import msgspec

from beam_pipeline.pages.report.gathering import AlertRecord
from beam_pipeline.pages.report.incidents import Incident, find_incidents
from transforms.records.text import one_line
from transforms.records.times import parse_time
from transforms.storage.marks import Mark, by_alert, standing
from transforms.storage.shadow_alerts import ShadowAlert

_LOGGER = logging.getLogger(__name__)
_WAIT_SECONDS = 30

VERSION = "2"
UNMARKED = "unmarked"
"""What the filter by mark calls an incident of which nobody has marked an alert."""

_TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE files (name TEXT PRIMARY KEY, size INTEGER NOT NULL, modified REAL NOT NULL,
  problem TEXT);
CREATE TABLE alerts (alert_id TEXT PRIMARY KEY, camera TEXT NOT NULL, time REAL NOT NULL,
  incident TEXT, severity TEXT NOT NULL, record TEXT NOT NULL);
CREATE INDEX alerts_of_camera ON alerts (camera, time);
CREATE INDEX alerts_of_incident ON alerts (incident);
CREATE TABLE labels (label TEXT NOT NULL, alert_id TEXT NOT NULL, PRIMARY KEY (label, alert_id))
  WITHOUT ROWID;
CREATE INDEX labels_of_alert ON labels (alert_id);
CREATE TABLE incidents (id TEXT PRIMARY KEY, camera TEXT NOT NULL, first REAL NOT NULL,
  last REAL NOT NULL, lead TEXT NOT NULL, alerts INTEGER NOT NULL);
CREATE INDEX incidents_by_time ON incidents (last, id);
CREATE INDEX incidents_of_camera ON incidents (camera, last, id);
CREATE TABLE marks (name TEXT PRIMARY KEY, alert_id TEXT NOT NULL, camera TEXT NOT NULL,
  record TEXT NOT NULL);
CREATE INDEX marks_of_alert ON marks (alert_id);
CREATE INDEX marks_of_camera ON marks (camera);
CREATE TABLE shadow (name TEXT PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE said (alert_id TEXT NOT NULL, mark TEXT NOT NULL, PRIMARY KEY (alert_id, mark))
  WITHOUT ROWID;
"""

Box = tuple[str, float, tuple[float, ...]]
"""The label, score and box of a threat."""


@dataclass(frozen=True)
class IndexedAlert:
    """An alert, as pages show it.

    Attributes:
      record: The record, as the report reads it.
      severity: Its severity.
      boxes: Its threats whose boxes are known.
    """

    record: AlertRecord
    severity: str
    boxes: tuple[Box, ...] = ()

    @property
    def stem(self) -> str | None:
        """The name of its image JSON without `.json`; None if `prune` has shortened the record."""
        name = self.record.final_uri.rpartition("/")[2]
        return name.removesuffix(".json") if name else None

    def to_json(self) -> str:
        """Makes the JSON that the index keeps."""
        record = self.record
        return json.dumps(
            {
                **{name: getattr(record, name) for name in _COPIED},
                "labels": dict(record.labels),
                "outcomes": record.outcomes,
                "severity": self.severity,
                "boxes": self.boxes,
            }
        )

    @classmethod
    def from_json(cls, output: str, text: str) -> IndexedAlert:
        """Reads the JSON that the index keeps."""
        value = json.loads(text)
        record = AlertRecord(
            output=output,
            **{name: value[name] for name in _COPIED},
            labels=value["labels"],
            outcomes=tuple(map(tuple, value["outcomes"])),
        )
        boxes = tuple((label, score, tuple(box)) for label, score, box in value["boxes"])
        return cls(record, value["severity"], boxes)


_COPIED = (
    *("alert_id", "camera", "timestamp", "timezone", "image_uri", "final_uri", "belongs_to"),
)


@dataclass(frozen=True)
class IndexedIncident:
    """An incident, as pages show it.

    Attributes:
      id: The id of its first alert.
      alerts: Its alerts, the oldest first.
      lead: The first alert that no cooldown suppressed.
      marks: The marks that stand, by the alert.
      position: Where it is among the incidents, the newest first.
    """

    id: str
    alerts: tuple[IndexedAlert, ...]
    lead: IndexedAlert
    marks: Mapping[str, Sequence[Mark]]
    position: tuple[float, str]

    @property
    def until(self) -> str:
        """The local time of the last alert, with its date if that is another one."""
        return self._of_records.until

    @property
    def labels(self) -> Mapping[str, float]:
        """What its threats are, with the highest score of each, as in the report."""
        return self._of_records.labels

    @property
    def _of_records(self) -> Incident:
        return Incident(tuple(alert.record for alert in self.alerts))


@dataclass(frozen=True)
class IncidentFilter:
    """Which incidents a page shows.

    Attributes:
      camera: Only of this camera.
      label: Only with a threat of this label.
      severity: Only with an alert of this severity.
      mark: Only with this mark, or `UNMARKED`.
      since: Only those that end at this Unix time or later.
      until: Only those that begin before this Unix time.
    """

    camera: str | None = None
    label: str | None = None
    severity: str | None = None
    mark: str | None = None
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True)
class IncidentPage:
    """Some incidents, the newest first.

    Attributes:
      incidents: The incidents.
      older: The position after which the older ones begin; None if there are none.
    """

    incidents: tuple[IndexedIncident, ...]
    older: tuple[float, str] | None


@dataclass(frozen=True)
class FileState:
    """What a listing says of a file: one that has changed is read again."""

    size: int
    modified: float


@dataclass
class IndexChanges:
    """What is new in an output since it was last listed.

    Attributes:
      alerts: Alerts by the names of their files.
      marks: Marks by the names of their files.
      shadow: Records of shadow rules by the names of their files.
      states: What the listing says of these files.
      problems: Why files could not be read, by their names.
      gone: The names of files that are not there any more.
    """

    alerts: dict[str, IndexedAlert] = field(default_factory=dict)
    marks: dict[str, Mark] = field(default_factory=dict)
    shadow: dict[str, ShadowAlert] = field(default_factory=dict)
    states: dict[str, FileState] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)


def _identity(file: Path) -> tuple[int, int] | None:
    """Returns what tells a file from another one of its name; None if there is none."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_passing(error: sqlite3.DatabaseError) -> bool:
    """Returns whether an error is no sign of a damaged file: an empty one would not help."""
    text = str(error)
    is_of_file = type(error) in (sqlite3.DatabaseError, sqlite3.OperationalError)
    return not is_of_file or "locked" in text or "full" in text


_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def _healing(
    method: Callable[Concatenate[Index, _Parameters], _Result],
) -> Callable[Concatenate[Index, _Parameters], _Result]:
    """Makes a method begin with an empty file, and try again, if the file is damaged."""

    @functools.wraps(method)
    def heal(self: Index, /, *args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        generation = self.generation
        try:
            return method(self, *args, **kwargs)
        except sqlite3.DatabaseError as error:
            if _is_passing(error):
                raise
            _LOGGER.warning("the index is damaged (%s); the output is read again", error)
            self._open_anew(generation, is_damaged=True)
        return method(self, *args, **kwargs)

    return heal


class Index:
    """The index of one output.

    If its file is deleted or damaged, it goes on with an empty one.

    Args:
      file: The SQLite file; it and its folder are made if they are missing.
      output: The address of the output.

    Attributes:
      generation: A number that grows when it begins with another file.

    Raises:
      OSError: The file can't be made.
    """

    def __init__(self, file: Path, output: str) -> None:
        self.output = output
        self.generation = 0
        self._file = file
        self._identity: tuple[int, int] | None = None
        self._local = threading.local()
        self._writing = threading.RLock()
        self._open_anew(0)

    def _open_anew(self, generation: int, *, is_damaged: bool = False) -> None:
        """Opens the file, or begins with an empty one if it is missing or can't be used.

        Args:
          generation: The one that the caller has found wrong: it may be another one by now.
          is_damaged: Whether the file can't be used, although it may seem so.

        Raises:
          OSError: The file can't be made.
        """
        with self._writing:
            if generation != self.generation:
                return
            try:
                if is_damaged or not self._is_sound():
                    self._make()
                self._identity = _identity(self._file)
            except (OSError, sqlite3.Error) as error:
                raise OSError(f"{self._file}: can't be written ({one_line(error)})") from error
            self.generation += 1

    def _is_sound(self) -> bool:
        if _identity(self._file) is None:
            return False
        try:
            with closing(sqlite3.connect(self._file, timeout=_WAIT_SECONDS)) as database:
                facts = dict(database.execute("SELECT name, value FROM facts"))
                if facts != {"version": VERSION, "output": self.output}:
                    return False
                is_sound: bool = database.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
        except sqlite3.DatabaseError as error:
            if _is_passing(error):
                raise
            return False
        if is_sound:
            os.chmod(self._file, 0o600)  # Notes of marks are in it.
        return is_sound

    def _make(self) -> None:
        for ending in ("", "-wal", "-shm"):
            Path(f"{self._file}{ending}").unlink(missing_ok=True)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with closing(sqlite3.connect(self._file, timeout=_WAIT_SECONDS)) as database, database:
            database.execute("PRAGMA journal_mode=WAL")
            database.executescript(_TABLES)
            facts = [("version", VERSION), ("output", self.output)]
            database.executemany("INSERT INTO facts VALUES (?, ?)", facts)

    @property
    def _connection(self) -> sqlite3.Connection:
        """The connection of this thread to the file that is there now."""
        generation = self.generation
        if _identity(self._file) != self._identity:
            _LOGGER.warning("%s was deleted or replaced; the output is read again", self._file)
            self._open_anew(generation)
        if getattr(self._local, "generation", None) != self.generation:
            self._close()
            try:
                connection = sqlite3.connect(self._file, timeout=_WAIT_SECONDS)
            except sqlite3.OperationalError as error:
                raise OSError(f"{self._file}: can't be opened ({error})") from error
            self._local.connection, self._local.generation = connection, self.generation
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=OFF")  # What is lost is read again.
        return self._local.connection  # type: ignore[no-any-return]

    def _close(self) -> None:
        if getattr(self._local, "connection", None) is not None:
            self._local.connection.close()
            self._local.connection = self._local.generation = None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._writing, self._connection as database:
            yield database

    @_healing
    def look(self) -> int:
        """Notices a file that was deleted or replaced; returns the generation."""
        self._connection.execute("SELECT 1 FROM facts")
        return self.generation

    # Writing

    @_healing
    def known(self) -> dict[str, FileState]:
        """Returns what was known of each file when it was read, by its name in the output."""
        rows = self._connection.execute("SELECT name, size, modified FROM files")
        return {name: FileState(size, modified) for name, size, modified in rows}

    @_healing
    def apply(self, changes: IndexChanges) -> None:
        """Takes over what is new in the output."""
        with self._transaction() as database:
            touched: dict[str, float] = {}
            marked: set[str] = set()
            for name in changes.gone:
                self._forget(database, name, touched, marked)
            for alert in changes.alerts.values():
                self._add_alert(database, alert, touched)
            for name, mark in changes.marks.items():
                marked.add(_add_mark(database, name, mark))
            database.executemany(
                "INSERT OR REPLACE INTO shadow VALUES (?, ?)",
                [(name, json.dumps(alert.to_json())) for name, alert in changes.shadow.items()],
            )
            database.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)",
                [
                    (name, state.size, state.modified, changes.problems.get(name))
                    for name, state in changes.states.items()
                ],
            )
            for camera, time in touched.items():
                self._regroup(database, camera, time)
            _say(database, marked)

    @_healing
    def add_mark(self, name: str, mark: Mark) -> None:
        """Adds a mark that was written just now, before it is found in the output.

        Args:
          name: The name of its file in the output.
          mark: The mark.
        """
        with self._transaction() as database:
            _say(database, [_add_mark(database, name, mark)])

    def _add_alert(
        self, database: sqlite3.Connection, alert: IndexedAlert, touched: dict[str, float]
    ) -> None:
        record = alert.record
        _forget_alert(database, record.alert_id, touched)
        time = parse_time(record.timestamp).timestamp()
        _touch(touched, record.camera, time)
        database.execute(
            "INSERT INTO alerts VALUES (?, ?, ?, NULL, ?, ?)",
            (record.alert_id, record.camera, time, alert.severity, alert.to_json()),
        )
        database.executemany(
            "INSERT INTO labels VALUES (?, ?)",
            [(label, record.alert_id) for label in record.labels],
        )

    def _forget(
        self,
        database: sqlite3.Connection,
        name: str,
        touched: dict[str, float],
        marked: set[str],
    ) -> None:
        database.execute("DELETE FROM files WHERE name = ?", (name,))
        folder, _, rest = name.partition("/")
        if folder == "alerts":
            _forget_alert(database, rest.rpartition("/")[2].removesuffix(".json"), touched)
            return
        if folder == "shadow":
            database.execute("DELETE FROM shadow WHERE name = ?", (name,))
            return
        rows = database.execute("SELECT alert_id FROM marks WHERE name = ?", (name,)).fetchall()
        marked.update(alert_id for (alert_id,) in rows)
        database.execute("DELETE FROM marks WHERE name = ?", (name,))

    def _regroup(self, database: sqlite3.Connection, camera: str, time: float) -> None:
        """Groups the alerts of a camera from a time on to incidents.

        Groups are made in the order of time, so an alert changes no incident that ends before it;
        the one that may go on to it begins before it.
        """
        ((start,),) = database.execute(
            "SELECT coalesce(max(first), ?) FROM incidents WHERE camera = ? AND first < ?",
            (time, camera, time),
        )
        database.execute("DELETE FROM incidents WHERE camera = ? AND first >= ?", (camera, start))
        rows = database.execute(
            "SELECT record FROM alerts WHERE camera = ? AND time >= ?", (camera, start)
        )
        alerts = [IndexedAlert.from_json(self.output, text).record for (text,) in rows]
        for incident in find_incidents(alerts):
            first, last = incident.alerts[0], incident.alerts[-1]
            database.execute(
                "INSERT INTO incidents VALUES (?, ?, ?, ?, ?, ?)",
                (
                    first.alert_id,
                    camera,
                    parse_time(first.timestamp).timestamp(),
                    parse_time(last.timestamp).timestamp(),
                    incident.lead.alert_id,
                    len(incident.alerts),
                ),
            )
            database.executemany(
                "UPDATE alerts SET incident = ? WHERE alert_id = ?",
                [(first.alert_id, alert.alert_id) for alert in incident.alerts],
            )

    # Reading

    @_healing
    def incidents(
        self,
        chosen: IncidentFilter,
        *,
        number: int,
        before: tuple[float, str] | None = None,
    ) -> IncidentPage:
        """Returns the newest incidents that fit.

        Args:
          chosen: Which incidents.
          number: How many at most.
          before: Only older ones than that at this position.
        """
        conditions, values = _conditions(chosen)
        if before is not None:
            conditions.append("(i.last, i.id) < (?, ?)")
            values += before
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        rows = self._connection.execute(
            f"SELECT i.id, i.lead, i.last FROM incidents i {where} "
            "ORDER BY i.last DESC, i.id DESC LIMIT ?",
            (*values, number + 1),
        ).fetchall()
        found = [self._incident(id, lead, last) for id, lead, last in rows[:number]]
        older = (rows[number - 1][2], rows[number - 1][0]) if len(rows) > number else None
        return IncidentPage(tuple(one for one in found if one is not None), older)

    @_healing
    def incident_of(self, alert_id: str) -> IndexedIncident | None:
        """Returns the incident of an alert; None if there is no such alert."""
        rows = self._connection.execute(
            "SELECT i.id, i.lead, i.last FROM incidents i JOIN alerts a ON a.incident = i.id "
            "WHERE a.alert_id = ?",
            (alert_id,),
        )
        row = rows.fetchone()
        return None if row is None else self._incident(*row)

    def _incident(self, id: str, lead: str, last: float) -> IndexedIncident | None:
        """Returns an incident; None if it was joined to another one, or is gone, meanwhile."""
        rows = self._connection.execute(
            "SELECT record FROM alerts WHERE incident = ? ORDER BY time, alert_id", (id,)
        )
        alerts = tuple(IndexedAlert.from_json(self.output, text) for (text,) in rows)
        if not alerts:
            return None
        marks = self._connection.execute(
            "SELECT m.record FROM marks m JOIN alerts a ON a.alert_id = m.alert_id "
            "WHERE a.incident = ?",
            (id,),
        )
        first_sent = next((alert for alert in alerts if alert.record.alert_id == lead), alerts[0])
        return IndexedIncident(id, alerts, first_sent, by_alert(_standing(marks)), (last, id))

    @_healing
    def marks_of(self, alert_id: str) -> list[Mark]:
        """Returns the marks of an alert that stand."""
        return _standing(
            self._connection.execute("SELECT record FROM marks WHERE alert_id = ?", (alert_id,))
        )

    @_healing
    def marks_of_camera(self, camera: str) -> list[Mark]:
        """Returns the marks of a camera's alerts and images that stand."""
        return _standing(
            self._connection.execute("SELECT record FROM marks WHERE camera = ?", (camera,))
        )

    @_healing
    def all_marks(self) -> list[Mark]:
        """Returns the marks of all cameras that stand."""
        return _standing(self._connection.execute("SELECT record FROM marks"))

    @_healing
    def shadow_alerts(self) -> list[ShadowAlert]:
        """Returns the records of shadow rules."""
        texts = self._column("SELECT record FROM shadow ORDER BY name")
        return [msgspec.json.decode(text, type=ShadowAlert) for text in texts]

    @_healing
    def has_alert(self, alert_id: str) -> bool:
        """Returns whether there is an alert."""
        query = "SELECT 1 FROM alerts WHERE alert_id = ?"
        return self._connection.execute(query, (alert_id,)).fetchone() is not None

    @_healing
    def last_alert(self, camera: str) -> float | None:
        """Returns the Unix time of the last alert of a camera; None if it has none."""
        query = "SELECT max(time) FROM alerts WHERE camera = ?"
        return self._connection.execute(query, (camera,)).fetchone()[0]  # type: ignore[no-any-return]

    @_healing
    def cameras(self) -> list[str]:
        """Returns the cameras that have an alert."""
        return self._column("SELECT DISTINCT camera FROM incidents ORDER BY camera")

    @_healing
    def labels(self) -> list[str]:
        """Returns the labels of all threats."""
        # One step in the tree for each label, however many alerts there are.
        return self._column(
            "WITH RECURSIVE found(label) AS (SELECT min(label) FROM labels UNION ALL SELECT "
            "(SELECT min(label) FROM labels WHERE label > found.label) FROM found "
            "WHERE found.label IS NOT NULL) SELECT label FROM found WHERE label IS NOT NULL"
        )

    @_healing
    def numbers(self) -> dict[str, int]:
        """Returns how many alerts, incidents, marks and records of shadow rules there are, and
        files with problems."""
        return {
            name: self._connection.execute(f"SELECT count(*) FROM {source}").fetchone()[0]
            for name, source in (
                ("alerts", "alerts"),
                ("incidents", "incidents"),
                ("marks", "marks"),
                ("shadow", "shadow"),
                ("problems", "files WHERE problem IS NOT NULL"),
            )
        }

    @_healing
    def problems(self, number: int) -> list[tuple[str, str]]:
        """Returns files that could not be read, and why.

        Args:
          number: How many at most.
        """
        return self._connection.execute(
            "SELECT name, problem FROM files WHERE problem IS NOT NULL ORDER BY name LIMIT ?",
            (number,),
        ).fetchall()

    def _column(self, query: str) -> list[str]:
        return [value for (value,) in self._connection.execute(query)]


def _conditions(chosen: IncidentFilter) -> tuple[list[str], list[Any]]:
    conditions: list[str] = []
    values: list[Any] = []
    # A cross join keeps its order: from an incident to its alerts, and to what is said of them.
    of_alert = "EXISTS (SELECT 1 FROM alerts a {} WHERE a.incident = i.id AND {})"
    if chosen.camera is not None:
        conditions.append("i.camera = ?")
        values.append(chosen.camera)
    if chosen.since is not None:
        conditions.append("i.last >= ?")
        values.append(chosen.since)
    if chosen.until is not None:
        conditions.append("i.first < ?")
        values.append(chosen.until)
    if chosen.severity is not None:
        conditions.append(of_alert.format("", "a.severity = ?"))
        values.append(chosen.severity)
    if chosen.label is not None:
        conditions.append(
            of_alert.format("CROSS JOIN labels l ON l.alert_id = a.alert_id", "l.label = ?")
        )
        values.append(chosen.label)
    if chosen.mark == UNMARKED:
        join = "CROSS JOIN said s ON s.alert_id = a.alert_id"
        conditions.append(f"NOT {of_alert.format(join, '1')}")
    elif chosen.mark is not None:
        conditions.append(
            of_alert.format("CROSS JOIN said s ON s.alert_id = a.alert_id", "s.mark = ?")
        )
        values.append(chosen.mark)
    return conditions, values


def _touch(touched: dict[str, float], camera: str, time: float) -> None:
    touched[camera] = min(time, touched.get(camera, time))


def _forget_alert(database: sqlite3.Connection, alert_id: str, touched: dict[str, float]) -> None:
    rows = database.execute("SELECT camera, time FROM alerts WHERE alert_id = ?", (alert_id,))
    for camera, time in rows.fetchall():
        _touch(touched, camera, time)
    database.execute("DELETE FROM alerts WHERE alert_id = ?", (alert_id,))
    database.execute("DELETE FROM labels WHERE alert_id = ?", (alert_id,))


def _add_mark(database: sqlite3.Connection, name: str, mark: Mark) -> str:
    database.execute(
        "INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?)",
        (name, mark.alert_id, mark.id, json.dumps([name, mark.to_json()])),
    )
    return mark.alert_id


def _say(database: sqlite3.Connection, alert_ids: Iterable[str]) -> None:
    """Notes which marks stand, for the filter by mark."""
    for alert_id in alert_ids:
        rows = database.execute("SELECT record FROM marks WHERE alert_id = ?", (alert_id,))
        marks = {mark.mark for mark in _standing(rows)}
        database.execute("DELETE FROM said WHERE alert_id = ?", (alert_id,))
        database.executemany(
            "INSERT INTO said VALUES (?, ?)", [(alert_id, mark) for mark in sorted(marks)]
        )


def _standing(rows: Iterable[tuple[str]]) -> list[Mark]:
    """Returns the marks that stand; of two of one time, that of the later name, as `read_marks`."""
    read = [json.loads(text) for (text,) in rows]
    marks = [(Mark.from_json(value), name.rpartition("/")[2]) for name, value in read]
    marks.sort(key=lambda item: (parse_time(item[0].at), item[1]))
    return standing(mark for mark, _ in marks)
