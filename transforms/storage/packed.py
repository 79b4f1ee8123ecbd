"""Packed archives: the images of an archive as Parquet, one file per camera, in order of time.

``PACKED/<id>.parquet`` holds a row per image, sorted by time and file name. If there are files that
could not be packed, ``PACKED/problems.jsonl`` lists them. The columns:

=================== ==================================================================
``id``              the camera
``timestamp``       the capture time, UTC, in microseconds
``file`` ``uri``    the image's name and address
``sha256``          the sha256 of the image's bytes
``width`` ``height`` in pixels
``brightness``      the mean brightness, 0 to 1; null if it was not measured
``sharpness``       the amount of detail, 0 to 1; null if it was not measured
``model_name`` ``model_version`` the model
``model_settings``  hash of the other settings that affect detections; null if it was not written
``model_runtime``   the runtime of the model; null if it was not written
``detections``      a list of ``category``, ``label``, ``conf``, ``x_min``, ``y_min``,
                    ``width``, ``height``; the box as fractions of the image
``severity``        ``alert``, ``detection``, or null for no threat
``suppressed_by``   the alert whose cooldown suppressed this one; else null
``threat``          the `threat` object of ``final/`` as JSON; null if there is none
=================== ==================================================================

Queries such as ``SELECT count(*) FROM 'PACKED/*.parquet' WHERE severity = 'alert'`` work in DuckDB,
pandas and other readers of Parquet. The same images give the same bytes with the same version of
pyarrow, which is imported on use, so that ``--help`` is quick.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice, repeat
from typing import TYPE_CHECKING, Any

import orjson

import rules
from transforms.records.images import DetectedImage, ModelInfo
from transforms.records.text import one_line, printable
from transforms.records.times import EPOCH, canonical_time, parse_time
from transforms.storage import stores

if TYPE_CHECKING:
    import pyarrow as pa

ENDING = ".parquet"
PROBLEMS = "problems.jsonl"
_VERSION = {b"beam_pipeline.pack": b"4"}
_LATER_COLUMNS = ("model_runtime", "model_settings")
"""What earlier releases lack: version 3 the first of them, version 2 both."""
ROWS_A_GROUP = 4096
ROWS_AT_ONCE = 256
_MICROSECOND = timedelta(microseconds=1)
_HAS_HASH = re.compile(rf"[/_][0-9a-f]{{16}}{re.escape(ENDING)}\Z", re.ASCII)

Row = tuple[DetectedImage, "dict[str, Any] | None"]
"""An image, and the `threat` object of `final/` if there is one."""

_DETECTION = (
    ("category", "string"),
    ("label", "string"),
    ("conf", "double"),
    ("x_min", "double"),
    ("y_min", "double"),
    ("width", "double"),
    ("height", "double"),
)


def schema() -> pa.Schema:
    """Returns the columns of a packed archive."""
    import pyarrow as pa

    detection = pa.struct(
        [pa.field(name, pa.type_for_alias(kind), False) for name, kind in _DETECTION]
    )
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("timestamp", pa.timestamp("us", tz="UTC"), nullable=False),
            pa.field("file", pa.string(), nullable=False),
            pa.field("uri", pa.string(), nullable=False),
            pa.field("sha256", pa.string(), nullable=False),
            pa.field("width", pa.int64(), nullable=False),
            pa.field("height", pa.int64(), nullable=False),
            pa.field("brightness", pa.float64()),
            pa.field("sharpness", pa.float64()),
            pa.field("model_name", pa.string(), nullable=False),
            pa.field("model_version", pa.string(), nullable=False),
            pa.field("model_settings", pa.string()),
            pa.field("model_runtime", pa.string()),
            pa.field("detections", pa.list_(pa.field("element", detection, False)), nullable=False),
            pa.field("severity", pa.string()),
            pa.field("suppressed_by", pa.string()),
            pa.field("threat", pa.string()),
        ],
        metadata=_VERSION,
    )


def _known_schemas() -> Iterator[pa.Schema]:
    """Yields the columns of this release and of earlier ones."""
    columns = schema()
    yield columns
    for version, column in zip((b"3", b"2"), _LATER_COLUMNS, strict=True):
        columns = columns.remove(columns.get_field_index(column))
        yield columns.with_metadata({b"beam_pipeline.pack": version})


# Writing


def write_packed(folder: str, id: str, rows: Iterable[Row]) -> int:
    """Packs the images of one camera, and returns their number. Nothing is written without images.

    Args:
      folder: The packed archive.
      id: The camera.
      rows: The images in the order of time and file name.

    Raises:
      OSError: The file can't be written.
    """
    import pyarrow.parquet as pq

    rows, count = iter(rows), 0
    if not (group := list(islice(rows, ROWS_A_GROUP))):
        return 0
    with tempfile.TemporaryDirectory(prefix="pack-") as scratch:
        local = os.path.join(scratch, f"{id}{ENDING}")
        with pq.ParquetWriter(local, schema(), compression="zstd") as writer:
            while group:
                writer.write_table(table(group), row_group_size=ROWS_A_GROUP)
                count += len(group)
                group = list(islice(rows, ROWS_A_GROUP))
        stores.copy(local, stores.join(folder, f"{id}{ENDING}"))
    return count


def table(rows: Sequence[Row]) -> pa.Table:
    """Returns the columns of some images."""
    import pyarrow as pa

    columns_schema = schema()
    images = [image for image, _ in rows]
    threats = [threat for _, threat in rows]
    detections = [detection for image in images for detection in image.detections]
    columns = (
        [detection.category for detection in detections],
        [detection.label for detection in detections],
        [detection.conf for detection in detections],
        *([detection.bbox[side] for detection in detections] for side in range(4)),
    )
    element = columns_schema.field("detections").type.value_field
    struct = pa.StructArray.from_arrays(
        [pa.array(values, field.type) for values, field in zip(columns, element.type, strict=True)],
        fields=list(element.type),
    )
    offsets = [0]
    for image in images:
        offsets.append(offsets[-1] + len(image.detections))
    values = {
        "id": [image.id for image in images],
        "timestamp": [(parse_time(image.timestamp) - EPOCH) // _MICROSECOND for image in images],
        **{
            key: [getattr(image, key) for image in images]
            for key in ("file", "uri", "sha256", "width", "height", "brightness", "sharpness")
        },
        "model_name": [image.model.name for image in images],
        "model_version": [image.model.version for image in images],
        "model_settings": [image.model.settings for image in images],
        "model_runtime": [image.model.runtime for image in images],
        "severity": [threat and threat.get("severity") for threat in threats],
        "suppressed_by": [threat and threat.get("suppressed_by") for threat in threats],
        "threat": [
            None if threat is None else json.dumps(threat, separators=(",", ":"))
            for threat in threats
        ],
    }
    arrays = [
        pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), struct, type=field.type)
        if field.name == "detections"
        else pa.array(values[field.name], field.type)
        for field in columns_schema
    ]
    return pa.Table.from_arrays(arrays, schema=columns_schema)


# Reading


@dataclass(frozen=True)
class PackedArchive:
    """The packed archive at one address.

    Attributes:
      uri: The folder.
      ids: The cameras in it.
    """

    uri: str
    ids: frozenset[str]
    has_verdicts: bool = True

    @classmethod
    def at(cls, uri: str) -> Iterator[PackedArchive]:
        """Yields the packed archive at an address if there is one.

        Raises:
          OSError: The address can't be listed.
        """
        if stores.is_local(uri):
            names = os.listdir(uri) if os.path.isdir(uri) else []
        else:
            names = [file.path[len(uri) + 1 :] for file in stores.match(f"{uri}/*{ENDING}")]
        ids = frozenset(
            name.removesuffix(ENDING)
            for name in names
            if name.endswith(ENDING) and name[0] != "." and "/" not in name
        )
        if ids:
            yield cls(uri, ids)

    def images(
        self,
        id: str,
        since: datetime | None,
        until: datetime | None,
        problems: list[tuple[str, str]],
    ) -> Iterator[Row]:
        """Yields the images of one camera in the order of time and file name.

        Args:
          id: The camera.
          since: The start of the period; None for all.
          until: The end of the period, exclusive; None for all.
          problems: Files that can't be read are added here.
        """
        import pyarrow as pa

        uri = stores.join(self.uri, f"{id}{ENDING}")
        try:
            with local_copy(uri) as path:
                yield from _read(path, since, until)
        except ConnectionError:
            raise
        except (OSError, ValueError, pa.ArrowException) as error:
            problems.append((uri, printable(one_line(error))))


@contextmanager
def local_copy(uri: str) -> Iterator[str]:
    """Gives the path of a file on a local disk, for as long as the context lasts.

    Raises:
      OSError: The file can't be read.
    """
    if stores.is_local(uri):
        yield uri
        return
    with tempfile.TemporaryDirectory(prefix="pack-") as scratch:
        path = os.path.join(scratch, "packed")
        stores.copy(uri, path)
        yield path


@dataclass
class _Copy:
    path: str
    lock: threading.Lock = field(default_factory=threading.Lock)
    size: int | None = None
    users: int = 0


class KeptCopies:
    """Copies of files of a store on a local disk, of which those used last are kept. Thread-safe.

    Only a file whose name holds the hash of its bytes is kept, as it never changes. Of a file that
    several ask for at once, one copy is made. It is called as :func:`local_copy` is.

    Args:
      most_bytes: How many bytes are kept when nobody uses them.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._copies: OrderedDict[str, _Copy] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, uri: str) -> Iterator[str]:
        """Gives the path of a file on a local disk, for as long as the context lasts.

        Raises:
          OSError: The file can't be read.
        """
        if stores.is_local(uri) or not _HAS_HASH.search(uri):
            with local_copy(uri) as path:
                yield path
            return
        with self._lock:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(
                    prefix="pack-", ignore_cleanup_errors=True
                )
            if uri not in self._copies:
                self._copies[uri] = _Copy(os.path.join(self._folder.name, uuid.uuid4().hex))
            copy = self._copies[uri]
            self._copies.move_to_end(uri)
            copy.users += 1
        try:
            with copy.lock:
                if copy.size is None:
                    copy.size = stores.copy(uri, copy.path)[1]
            yield copy.path
        except Exception:  # A damaged file may be repaired in its store.
            copy.size = None
            raise
        finally:
            with self._lock:
                copy.users -= 1
                self._drop()

    def _drop(self) -> None:
        """Deletes the copies that are damaged, and those beyond the bytes that are kept."""
        total = sum(copy.size or 0 for copy in self._copies.values())
        for uri, copy in list(self._copies.items()):
            if not copy.users and (copy.size is None or total > self._most):
                total -= copy.size or 0
                del self._copies[uri]
                with suppress(OSError):
                    os.unlink(copy.path)

    def delete(self) -> None:
        """Deletes all copies; called when nobody uses them any more."""
        with self._lock:
            self._copies.clear()
            if self._folder is not None:
                self._folder.cleanup()
                self._folder = None


def _read(path: str, since: datetime | None, until: datetime | None) -> Iterator[Row]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        if not any(
            file.schema_arrow.equals(known_schema, check_metadata=True)
            for known_schema in _known_schemas()
        ):
            raise ValueError("not packed by this program, or by another version of it")
        row_groups = [
            group
            for group in range(file.num_row_groups)
            if _overlaps(file.metadata.row_group(group), since, until)
        ]
        for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=row_groups):
            for capture_time, row in rows_of(batch):
                if (since is None or capture_time >= since) and (
                    until is None or capture_time < until
                ):
                    yield row


def _overlaps(group: Any, since: datetime | None, until: datetime | None) -> bool:
    bounds = group.column(1).statistics
    return bounds is None or (
        (since is None or bounds.max >= since) and (until is None or bounds.min < until)
    )


def rows_of(batch: pa.RecordBatch) -> Iterator[tuple[datetime, Row]]:
    """Yields the images of a part of a file, each after its capture time; further columns of it are
    left out."""
    detection_lists = batch.column("detections")
    categories, labels, confs, *sides = detection_lists.flatten().flatten()
    detections = list(
        map(
            rules.Detection,
            _names(categories),
            _names(labels),
            _values(confs),
            zip(*map(_values, sides), strict=True),
        )
    )
    columns_there = set(batch.schema.names)
    models = map(
        ModelInfo,
        _names(batch.column("model_name")),
        _names(batch.column("model_version")),
        *(
            _names(batch.column(name)) if name in columns_there else repeat(None)
            for name in ("model_settings", "model_runtime")
        ),
    )
    columns = (
        _names(batch.column("id")),
        _values(batch.column("timestamp").cast("int64")),
        *(_values(batch.column(key)) for key in ("file", "uri", "sha256", "width", "height")),
        models,
        zip(*(batch.column(key).to_pylist() for key in ("brightness", "sharpness")), strict=True),
        _values(detection_lists.value_lengths()),
        _values(batch.column("threat")),
    )
    first = 0
    for (
        id,
        micros,
        file,
        uri,
        sha256,
        width,
        height,
        model,
        brightness_and_sharpness,
        count,
        threat,
    ) in zip(*columns, strict=True):
        capture_time = EPOCH + micros * _MICROSECOND
        end = first + count
        image_detections = tuple(detections[first:end])
        first = end
        image = DetectedImage(
            id,
            canonical_time(capture_time),
            file,
            uri,
            sha256,
            width,
            height,
            model,
            image_detections,
            *brightness_and_sharpness,
        )
        yield capture_time, (image, None if threat is None else orjson.loads(threat))


def _values(array: pa.Array) -> list[Any]:
    """Returns the values of a column without an Arrow object for each."""
    return array.to_numpy(zero_copy_only=False).tolist()  # type: ignore[no-any-return]


def _names(array: pa.Array) -> list[Any]:
    """Returns the values of a column with few distinct texts, each text once in memory."""
    encoded = array.dictionary_encode(null_encoding="encode")
    names = encoded.dictionary.to_pylist()
    return [names[code] for code in _values(encoded.indices)]
