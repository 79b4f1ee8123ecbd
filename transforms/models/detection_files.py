"""Files with the detections of another detector, in MegaDetector's batch output form.

The form is described at https://lila.science/megadetector-output-format. A file may be larger than
the memory: its entries are read one by one into an index on this machine's disk, in which each
image is looked up by its path. The index is a cache. A machine that lacks it reads the file again.
"""

from __future__ import annotations

import hashlib
import json
import math
import posixpath
import re
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

import rules
from transforms.models.model_files import CACHE_VARIABLE, cache_directory
from transforms.models.runtime_names import DETECTIONS
from transforms.models.tiling import order
from transforms.records.images import ModelInfo
from transforms.records.json_members import JsonError, read_members
from transforms.records.received_names import path_below
from transforms.records.text import one_line, printable
from transforms.storage import stores

INDEX_REVISION = 1
"""A release increases it if it reads files differently, or writes the index differently."""
MAX_CATEGORIES = 10_000
_DECIMALS = 4
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)
_VERSION = re.compile(r"1(\.[0-9]+)*", re.ASCII)
_LONGEST_TEXT = 200
_CREATE = "CREATE TABLE entries (path BLOB PRIMARY KEY, found BLOB NOT NULL) WITHOUT ROWID"


class DetectionFileError(ValueError):
    """A file that can't be used: one line that says what, where and what to do."""


@dataclass(frozen=True)
class DetectionFile:
    """A file with the detections of another detector.

    Attributes:
      source: Its address.
      version: The first 12 hex digits of its sha256.
      detector: The name of the detector.
      labels: The labels by category number.
      entries: The number of images in it.
    """

    source: str
    version: str
    detector: str
    labels: Mapping[int, str]
    entries: int

    def model_info(self, min_score_kept: float) -> ModelInfo:
        """Returns what the records of images say about the model.

        Args:
          min_score_kept: Detections below this score are dropped.
        """
        parts = json.dumps({"how": INDEX_REVISION, "min_score_kept": float(min_score_kept)})
        settings = hashlib.sha256(parts.encode()).hexdigest()[:12]
        return ModelInfo(self.detector, self.version, settings, DETECTIONS)


@dataclass(frozen=True)
class Entry:
    """What a file says of one image.

    Attributes:
      detections: The detections, the highest score first.
      failure: Why the detector has not looked at the image; None if it has.
    """

    detections: tuple[rules.Detection, ...] = ()
    failure: str | None = None


def read_detection_file(source: str) -> DetectionFile:
    """Reads a file, checks it, and makes its index.

    Raises:
      DetectionFileError: The file can't be read, or is not of MegaDetector's form; or the index
        can't be written.
    """
    folder = _index_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".reading-") as scratch:
            partial = Path(scratch, "index")
            file = _write_index(partial, source)
            partial.replace(_index_path(file.version))
    except (OSError, sqlite3.Error) as error:
        raise DetectionFileError(
            f"{folder}: the index of {source} can't be written ({one_line(error)}); set "
            f"{CACHE_VARIABLE} to a folder with more space or permissions"
        ) from None
    return file


def read_labels(source: str) -> dict[int, str]:
    """Returns the labels of a file by their numbers; what follows them in the file is not read.

    Raises:
      DetectionFileError: The file can't be read, or has no labels in MegaDetector's form.
    """
    reading = _Reading(source)
    reading.read_only_labels(_chunks(source))
    return reading.labels


def _index_folder() -> Path:
    return cache_directory() / "detections"


def _index_path(version: str) -> Path:
    return _index_folder() / f"{version}-{INDEX_REVISION}.sqlite"


def _chunks(source: str) -> Iterator[bytes]:
    try:
        yield from stores.read_chunks(source)
    except FileNotFoundError:
        raise DetectionFileError(f"{source}: no such file; check the path") from None
    except OSError as error:
        raise DetectionFileError(f"{source}: can't be read ({one_line(error)})") from None


def _write_index(path: Path, source: str) -> DetectionFile:
    digest = hashlib.sha256()

    def hashed() -> Iterator[bytes]:
        for chunk in _chunks(source):
            digest.update(chunk)
            yield chunk

    reading = _Reading(source)
    with closing(sqlite3.connect(path)) as index:
        # An index that was not finished is never renamed, and so never used.
        index.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; {_CREATE}")
        for key, found in reading.entries(hashed()):
            _insert(index, key, found, source)
        version = digest.hexdigest()[:12]
        index.commit()
    return DetectionFile(source, version, reading.detector, reading.labels, reading.number)


def _insert(index: sqlite3.Connection, key: bytes, found: bytes, source: str) -> None:
    try:
        index.execute("INSERT INTO entries VALUES (?, ?)", (key, found))
    except sqlite3.IntegrityError:
        name = printable(key.decode("utf-8", "surrogatepass"))
        raise DetectionFileError(
            f"{source}: it has two entries for {name}; remove one of them"
        ) from None


class _Reading:
    """Reads the entries of a file, and keeps what the rest of the file says.

    Attributes:
      detector: The name of the detector, once the file was read.
      labels: The labels by number, once the file was read.
      number: The number of entries so far.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._used: set[str] = set()
        self.detector = printable(source.rstrip("/").rsplit("/", 1)[-1])
        self.labels: dict[int, str] = {}
        self.number = 0

    def entries(self, chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Yields the key of each image in the index, and what was found in it."""
        keys: set[str] = set()
        try:
            for key, value in read_members(chunks, "images"):
                if key == "images" and key in keys:
                    self.number += 1
                    yield self._entry(value)
                elif key == "info":
                    self._read_info(value)
                elif key == "detection_categories":
                    self._read_labels(value)
                keys.add(key)
        except JsonError as error:
            raise self._error(str(error)) from None
        self._check_end(keys)

    def read_only_labels(self, chunks: Iterable[bytes]) -> None:
        """Reads the labels, and nothing after them."""
        try:
            for key, value in read_members(chunks, "images"):
                if key == "detection_categories":
                    return self._read_labels(value)
        except JsonError as error:
            raise self._error(str(error)) from None
        raise self._error("'detection_categories' is missing")

    def _check_end(self, keys: set[str]) -> None:
        for key in ("images", "detection_categories"):
            if key not in keys:
                raise self._error(f"{key!r} is missing")
        for category in sorted(self._used, key=int):
            if int(category) not in self.labels:
                raise self._error(f"'detection_categories' does not name the category {category!r}")

    def _error(self, problem: str) -> DetectionFileError:
        return DetectionFileError(
            f"{self._source}: {printable(problem)}; give a file in MegaDetector's batch output form"
        )

    def _read_info(self, info: Any) -> None:
        if not isinstance(info, dict):
            raise self._error("'info' is not an object")
        version = info.get("format_version", "1.0")
        if not isinstance(version, str) or not _VERSION.fullmatch(version):
            raise self._error(f"'format_version' is {str(version)[:40]!r}, and only 1.x is known")
        detector = info.get("detector")
        if isinstance(detector, str) and detector.strip():
            self.detector = printable(detector.strip())[:_LONGEST_TEXT]

    def _read_labels(self, categories: Any) -> None:
        if not isinstance(categories, dict) or len(categories) > MAX_CATEGORIES:
            raise self._error(
                f"'detection_categories' is not an object with at most {MAX_CATEGORIES:,} members"
            )
        for category, label in categories.items():
            if not _NUMBER.fullmatch(category):
                raise self._error(f"the category {category[:40]!r} is not a number")
            if not isinstance(label, str) or not label.strip():
                raise self._error(f"the category {category!r} has no name")
            self.labels[int(category)] = printable(label.strip())[:_LONGEST_TEXT]

    def _entry(self, entry: Any) -> tuple[bytes, bytes]:
        file = entry.get("file") if isinstance(entry, dict) else None
        if not isinstance(file, str) or not file:
            raise self._error(f"the image {self.number:,} has no 'file'")
        where = f"the image {file[:_LONGEST_TEXT]!r}"
        failure, found = entry.get("failure"), entry.get("detections")
        if failure is not None:
            text = failure if isinstance(failure, str) and failure.strip() else "failure"
            return _key(file), orjson.dumps(printable(text)[:_LONGEST_TEXT])
        if not isinstance(found, list):
            raise self._error(f"{where} has neither a list of 'detections' nor a 'failure'")
        # A program that removes detections which repeat at one place negates their scores.
        kept = [one for one in (self._detection(one, where) for one in found) if one[1] >= 0]
        return _key(file), orjson.dumps(kept)

    def _detection(self, detection: Any, where: str) -> tuple[str, float, list[float]]:
        values = detection if isinstance(detection, dict) else {}
        category, conf, bbox = (values.get(key) for key in ("category", "conf", "bbox"))
        if not isinstance(category, str) or not _NUMBER.fullmatch(category):
            raise self._error(f"a detection in {where} has no 'category' such as '1'")
        self._used.add(category)
        if len(self._used) > MAX_CATEGORIES:
            raise self._error(f"it has more than {MAX_CATEGORIES:,} categories")
        if not isinstance(conf, float) or not -1 <= conf <= 1:
            raise self._error(
                f"a detection in {where} has no 'conf' from 0 to 1, or down to -1 if it was removed"
            )
        if (
            not isinstance(bbox, list)
            or len(bbox) != 4
            or not all(isinstance(edge, float) and math.isfinite(edge) for edge in bbox)
        ):
            raise self._error(f"a detection in {where} has no 'bbox' of four numbers")
        if max(map(abs, bbox)) > 2:
            raise self._error(
                f"the 'bbox' of a detection in {where} is in pixels, and fractions of the image "
                "are needed"
            )
        return category, conf, bbox


def _key(path: str) -> bytes:
    """Returns the key of an image by its path; the system that wrote the path may be another."""
    return posixpath.normpath(path.replace("\\", "/")).encode("utf-8", "surrogatepass")


class DetectionIndex:
    """Looks up images in the index of a file. One thread uses it at a time.

    Args:
      file: The file. If its index is missing on this machine, the file is read again.

    Raises:
      DetectionFileError: The file has changed, or can't be read.
    """

    def __init__(self, file: DetectionFile) -> None:
        self._labels = dict(file.labels)
        path = _index_path(file.version)
        if not path.is_file():
            again = read_detection_file(file.source)
            if again.version != file.version:
                raise DetectionFileError(
                    f"{file.source}: it has changed since the job was started (version "
                    f"{again.version}, not {file.version}); start the job again"
                )
        self._index = sqlite3.connect(
            f"{path.as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
        )

    def close(self) -> None:
        """Closes the index."""
        self._index.close()

    def key_of(self, uri: str, top: str | None) -> bytes | None:
        """Returns the key of the entry of an image; None if it has none.

        Its path in the file is relative to the folder of the input, or the whole address.

        Args:
          uri: The address of the image.
          top: The folder of the input; None if it is unknown.
        """
        for key in (_key(path_below(uri, top)), _key(uri)):
            if self._index.execute("SELECT 1 FROM entries WHERE path = ?", [key]).fetchone():
                return key
        return None

    def find(self, uri: str, top: str | None, min_score_kept: float) -> Entry | None:
        """Returns what the file says of an image; None if it has no entry.

        Boxes and scores are rounded to 4 decimals, and boxes are clipped to the image.

        Args:
          uri: The address of the image.
          top: The folder of the input; None if it is unknown.
          min_score_kept: Detections below this score are dropped.
        """
        key = self.key_of(uri, top)
        if key is None:
            return None
        row = self._index.execute("SELECT found FROM entries WHERE path = ?", [key]).fetchone()
        found = orjson.loads(row[0])
        if isinstance(found, str):
            return Entry(failure=found)
        detections = (
            _detection(category, self._labels[int(category)], conf, bbox)
            for category, conf, bbox in found
        )
        kept = [
            one
            for one in detections
            if one.conf >= min_score_kept and one.bbox[2] > 0 and one.bbox[3] > 0
        ]
        return Entry(tuple(sorted(kept, key=order)))

    def without(self, keys: Iterable[bytes]) -> tuple[int, str | None]:
        """Returns how many entries have none of these keys, and the first path among them.

        The keys are kept in a temporary file, as they may be as many as the entries.
        """
        with closing(sqlite3.connect("")) as seen:
            seen.execute("CREATE TABLE seen (path BLOB PRIMARY KEY) WITHOUT ROWID")
            seen.executemany("INSERT OR IGNORE INTO seen VALUES (?)", ([key] for key in keys))
            number, first = 0, None
            for (path,) in self._index.execute("SELECT path FROM entries ORDER BY path"):
                if seen.execute("SELECT 1 FROM seen WHERE path = ?", [path]).fetchone() is None:
                    number += 1
                    first = first or path
        return number, first and printable(first.decode("utf-8", "surrogatepass"))


def _detection(category: str, label: str, conf: float, bbox: list[float]) -> rules.Detection:
    x_min, y_min = (_share(edge) for edge in bbox[:2])
    x_max, y_max = (_share(start + size) for start, size in zip(bbox[:2], bbox[2:], strict=True))
    width, height = round(x_max - x_min, _DECIMALS), round(y_max - y_min, _DECIMALS)
    return rules.Detection(category, label, round(conf, _DECIMALS), (x_min, y_min, width, height))


def _share(edge: float) -> float:
    return round(min(max(0.0, edge), 1.0), _DECIMALS)
