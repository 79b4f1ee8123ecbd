"""Rows of a packed output: which one of an image stands, and a table of those that stand.

A packed output can hold several rows of one camera and capture time: a bundle was tried again, two
jobs have written the output, or a later run says otherwise. The row that stands is the one with the
highest :func:`rank_of`. That is the highest of any set of rows, so that rows can be read and merged
in any order, in any groups and any number of times, and the same rows stand.
"""

from __future__ import annotations

import hashlib
import itertools
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson

from transforms.records.images import DetectedImage, ModelInfo, detection_from_json
from transforms.records.times import EPOCH, parse_time

_SEVERITIES: dict[str | None, int] = {"detection": 1, "alert": 2}
_AT_ONCE = 256
_CACHE_KIB = 64 << 10
_LEAST, _MOST = -(1 << 62), 1 << 62
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class PackedRow:
    """One image of a packed output, as one run has seen it.

    Attributes:
      image: The object data.
      threat: The `threat` object of `final/`; None if the image is not judged yet, or retracted.
      generation: How many rows of this camera and capture time the run has found and replaced.
      is_retracted: Whether the output has no verdict on this camera and capture time any more.
    """

    image: DetectedImage
    threat: dict[str, Any] | None
    generation: int = 0
    is_retracted: bool = False

    @property
    def has_severity(self) -> bool:
        """Whether the image shows a threat."""
        return self.threat is not None and self.threat.get("severity") is not None

    def says_what(self, other: PackedRow) -> bool:
        """Whether both say the same, whichever run has written them."""
        return self.is_retracted == other.is_retracted and _content(self) == _content(other)


def _content(row: PackedRow) -> bytes:
    return orjson.dumps([row.image.to_json(), row.threat])


def rank_of(row: PackedRow) -> bytes:
    """Returns the key by which the highest of several rows of a camera and capture time stands.

    It is the row that has replaced the most others. Of two that two jobs have written at once, it
    is one with a verdict, then the more severe one, then one that no cooldown suppresses, then the
    one with the higher score, then the one with the smaller sha256: as of several files that one
    run finds.
    """
    threat = row.threat or {}
    score = max((threat["conf"] for threat in threat.get("threats", ())), default=0.0)
    order = (
        f"{row.generation:010d}{int(not row.is_retracted)}"
        f"{_SEVERITIES.get(threat.get('severity'), 0)}"
        f"{int(threat.get('suppressed_by') is None)}{score:.4f}"
    )
    smaller_first = bytes(255 - byte for byte in row.image.sha256.encode())
    return order.encode() + smaller_first + hashlib.sha256(_content(row)).digest()


class Rows:
    """The rows that stand, of those that were added. Thread-safe.

    They are in a table of SQLite that is deleted with this object; of many rows, most are on disk.

    Args:
      keeps_all: Whether the others are kept, too, for :meth:`all_of`.
    """

    def __init__(self, *, keeps_all: bool = False) -> None:
        self._lock = threading.Lock()
        self._table = sqlite3.connect("", check_same_thread=False)
        weakref.finalize(self, self._table.close)
        for statement in (
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            f"PRAGMA cache_size = -{_CACHE_KIB}",
            "CREATE TABLE rows (id TEXT, micros INTEGER, rank BLOB, body BLOB, "
            f"PRIMARY KEY (id, micros{', rank' if keeps_all else ''}))",
        ):
            self._table.execute(statement)
        self._insert = "INSERT INTO rows VALUES (?, ?, ?, ?) ON CONFLICT " + (
            "DO NOTHING"
            if keeps_all
            else "(id, micros) DO UPDATE SET rank = excluded.rank, body = excluded.body "
            "WHERE excluded.rank > rows.rank"
        )

    def add(self, rows: Iterable[PackedRow]) -> None:
        """Adds rows."""
        rows = iter(rows)
        while some := list(itertools.islice(rows, _AT_ONCE)):
            values = [
                (row.image.id, _micros(parse_time(row.image.timestamp)), rank_of(row), _body(row))
                for row in some
            ]
            with self._lock:
                self._table.executemany(self._insert, values)

    def get(self, id: str, timestamp: str) -> PackedRow | None:
        """Returns the row of a camera and capture time; None if there is none."""
        return next(self.all_of(id, timestamp), None)

    def all_of(self, id: str, timestamp: str) -> Iterator[PackedRow]:
        """Yields the rows of a camera and capture time, the one that stands first."""
        values = id, _micros(parse_time(timestamp))
        return self._select("WHERE id = ? AND micros = ? ORDER BY rank DESC", values)

    def of_camera(
        self, id: str, since: datetime | None = None, until: datetime | None = None
    ) -> Iterator[PackedRow]:
        """Yields the rows of a camera in the order of time.

        Args:
          id: The camera.
          since: The start of the period; None for all.
          until: The end of the period, exclusive; None for all.
        """
        low = _LEAST if since is None else _micros(since)
        high = _MOST if until is None else _micros(until)
        return self._select(
            "WHERE id = ? AND micros >= ? AND micros < ? ORDER BY micros", (id, low, high)
        )

    def __iter__(self) -> Iterator[PackedRow]:
        """Yields all rows, by camera and time."""
        return self._select("ORDER BY id, micros", ())

    def _select(self, condition: str, values: tuple[Any, ...]) -> Iterator[PackedRow]:
        with self._lock:
            cursor = self._table.execute(f"SELECT body FROM rows {condition}", values)
        while True:
            with self._lock:
                bodies = cursor.fetchmany(_AT_ONCE)
            if not bodies:
                return
            for (body,) in bodies:
                yield _row(body)


def _body(row: PackedRow) -> bytes:
    return orjson.dumps([row.image.to_json(), row.threat, row.generation, row.is_retracted])


def _row(body: bytes) -> PackedRow:
    """Returns the row that :func:`_body` has encoded."""
    plain, *others = orjson.loads(body)
    del plain["format_version"]
    model = ModelInfo(**plain.pop("model"))
    detections = tuple(map(detection_from_json, plain.pop("detections")))
    return PackedRow(DetectedImage(**plain, model=model, detections=detections), *others)


def _micros(time: datetime) -> int:
    return (time - EPOCH) // _MICROSECOND
