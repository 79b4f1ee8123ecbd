"""Packed archives: the pictures of an archive as Parquet, one file a camera, in order of time.

``PACKED/<id>.parquet`` holds a row a picture, sorted by time and file name, and
``PACKED/problems.jsonl`` what could not be packed. The columns:

=================== ==================================================================
``id``              the camera
``timestamp``       the moment, UTC, in microseconds
``file`` ``uri``    the picture's name, and where it came from
``sha256``          of the picture's bytes
``width`` ``height`` in pixels
``brightness``      mean of the picture, 0 to 1; null where it was not measured
``sharpness``       how much detail it shows, 0 to 1; null where it was not measured
``model_name`` ``model_version`` what looked
``detections``      a list of ``category``, ``label``, ``conf``, ``x_min``, ``y_min``,
                    ``width``, ``height``; the box as fractions of the picture
``severity``        ``alert``, ``detection``, or null for no threat
``suppressed_by``   the alert in whose cooldown this one was not sent; else null
``threat``          the `threat` object of ``final/`` as JSON; null where there is none
=================== ==================================================================

``SELECT count(*) FROM 'PACKED/*.parquet' WHERE severity = 'alert'`` and the like work in DuckDB,
pandas and whatever else reads Parquet. The same pictures give the same bytes with the same version
of pyarrow, which is imported where it is used, so that ``--help`` is quick.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson

import rules
from transforms import stores
from transforms.records import DetectedImage, ModelInfo
from transforms.text import one_line, printable
from transforms.times import EPOCH, canonical_time, parse_time

if TYPE_CHECKING:
    import pyarrow as pa

ENDING = ".parquet"
PROBLEMS = "problems.jsonl"
_VERSION = {b"beam_pipeline.pack": b"2"}
_ROWS_A_GROUP = 4096
_ROWS_AT_ONCE = 256
_MICROSECOND = timedelta(microseconds=1)

Row = tuple[DetectedImage, "dict[str, Any] | None"]
"""A picture, and the `threat` object of `final/` where there is one."""

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
    """The columns of a packed archive."""
    import pyarrow as pa

    found = pa.struct([pa.field(name, pa.type_for_alias(kind), False) for name, kind in _DETECTION])
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
            pa.field("detections", pa.list_(pa.field("element", found, False)), nullable=False),
            pa.field("severity", pa.string()),
            pa.field("suppressed_by", pa.string()),
            pa.field("threat", pa.string()),
        ],
        metadata=_VERSION,
    )


# Writing


def write_packed(folder: str, id: str, rows: Iterable[Row]) -> int:
    """Packs the pictures of one camera; how many there were. Nothing is written for none.

    Args:
      folder: The packed archive.
      id: The camera.
      rows: Its pictures in order of time and file name.

    Raises:
      OSError: It can't be written.
    """
    import pyarrow.parquet as pq

    rows, count = iter(rows), 0
    if not (group := list(islice(rows, _ROWS_A_GROUP))):
        return 0
    with tempfile.TemporaryDirectory(prefix="pack-") as scratch:
        local = os.path.join(scratch, f"{id}{ENDING}")
        with pq.ParquetWriter(local, schema(), compression="zstd") as writer:
            while group:
                writer.write_table(_table(group), row_group_size=_ROWS_A_GROUP)
                count += len(group)
                group = list(islice(rows, _ROWS_A_GROUP))
        stores.copy(local, stores.join(folder, f"{id}{ENDING}"))
    return count


def _table(rows: Sequence[Row]) -> pa.Table:
    import pyarrow as pa

    wanted = schema()
    images = [image for image, _ in rows]
    threats = [threat for _, threat in rows]
    found = [detection for image in images for detection in image.detections]
    columns = (
        [one.category for one in found],
        [one.label for one in found],
        [one.conf for one in found],
        *([one.bbox[side] for one in found] for side in range(4)),
    )
    element = wanted.field("detections").type.value_field
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
        for field in wanted
    ]
    return pa.Table.from_arrays(arrays, schema=wanted)


# Reading


@dataclass(frozen=True)
class PackedArchive:
    """What was packed under one address.

    Attributes:
      uri: The folder.
      ids: The cameras in it.
    """

    uri: str
    ids: frozenset[str]
    has_verdicts: bool = True

    @classmethod
    def at(cls, uri: str) -> Iterator[PackedArchive]:
        """The packed archive under an address, where there is one.

        Raises:
          OSError: It can't be listed.
        """
        if stores.is_local(uri):
            names = os.listdir(uri) if os.path.isdir(uri) else []
        else:
            names = [one.path[len(uri) + 1 :] for one in stores.match(f"{uri}/*{ENDING}")]
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
        """The pictures of one camera in order of time and file name.

        Args:
          id: The camera.
          since: The first moment; None for all.
          until: The first moment that is not asked for any more.
          problems: What can't be read is added here.
        """
        import pyarrow as pa

        place = stores.join(self.uri, f"{id}{ENDING}")
        try:
            with _on_this_machine(place) as path:
                yield from _read(path, since, until)
        except ConnectionError:
            raise
        except (OSError, ValueError, pa.ArrowException) as error:
            problems.append((place, printable(one_line(error))))


@contextmanager
def _on_this_machine(place: str) -> Iterator[str]:
    if stores.is_local(place):
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="pack-") as scratch:
        path = os.path.join(scratch, "packed")
        stores.copy(place, path)
        yield path


def _read(path: str, since: datetime | None, until: datetime | None) -> Iterator[Row]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        if not file.schema_arrow.equals(schema(), check_metadata=True):
            raise ValueError("not packed by this program, or by another version of it")
        wanted = [
            group
            for group in range(file.num_row_groups)
            if _overlaps(file.metadata.row_group(group), since, until)
        ]
        for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=wanted):
            for moment, row in _rows(batch):
                if (since is None or moment >= since) and (until is None or moment < until):
                    yield row


def _overlaps(group: Any, since: datetime | None, until: datetime | None) -> bool:
    bounds = group.column(1).statistics
    return bounds is None or (
        (since is None or bounds.max >= since) and (until is None or bounds.min < until)
    )


def _rows(batch: pa.RecordBatch) -> Iterator[tuple[datetime, Row]]:
    found = batch.column("detections")
    categories, labels, confs, *sides = found.flatten().flatten()
    detections = list(
        map(
            rules.Detection,
            _names(categories),
            _names(labels),
            _values(confs),
            zip(*map(_values, sides), strict=True),
        )
    )
    models = map(
        ModelInfo, _names(batch.column("model_name")), _names(batch.column("model_version"))
    )
    columns = (
        _names(batch.column("id")),
        _values(batch.column("timestamp").cast("int64")),
        *(_values(batch.column(key)) for key in ("file", "uri", "sha256", "width", "height")),
        models,
        zip(*(batch.column(key).to_pylist() for key in ("brightness", "sharpness")), strict=True),
        _values(found.value_lengths()),
        _values(batch.column("threat")),
    )
    first = 0
    for id, micros, file, uri, sha256, width, height, model, light, count, threat in zip(
        *columns, strict=True
    ):
        moment = EPOCH + micros * _MICROSECOND
        end = first + count
        seen = tuple(detections[first:end])
        first = end
        image = DetectedImage(
            id, canonical_time(moment), file, uri, sha256, width, height, model, seen, *light
        )
        yield moment, (image, None if threat is None else orjson.loads(threat))


def _values(array: pa.Array) -> list[Any]:
    """The values of a column; Arrow's own way makes an object of each in between."""
    return array.to_numpy(zero_copy_only=False).tolist()  # type: ignore[no-any-return]


def _names(array: pa.Array) -> list[str]:
    """The values of a column in which few texts come again and again, each text once in memory."""
    encoded = array.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    return [names[code] for code in _values(encoded.indices)]
