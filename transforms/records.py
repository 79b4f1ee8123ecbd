"""The typed records that pass between the steps.

Only small records are ever grouped. :class:`ValidImage` and :class:`InvalidImage` may hold the
bytes of a picture, and so live inside one fused stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np

import rules

FORMAT_VERSION = "1.0"


@dataclass(frozen=True)
class ImageFile:
    """A file that the source found.

    Attributes:
      uri: Where it is, in the form that Beam's FileSystems reads.
      size_bytes: Its size when it was listed.
      stream_time: How far event time had come in a stream when the file was found, canonical; None
        in a batch, and before a stream's time has begun.
    """

    uri: str
    size_bytes: int
    stream_time: str | None = None

    @property
    def name(self) -> str:
        """The last part of the path, as it came: for parsing, never for use as a path."""
        return self.uri.rsplit("/", 1)[-1]


def stem_of(name: str) -> str:
    """A file's name without its extension."""
    return name.rsplit(".", 1)[0]


@dataclass(frozen=True)
class NamedFile:
    """A file whose name says which camera took it and when.

    Attributes:
      file: The file.
      id: The camera's id.
      timestamp: Canonical RFC 3339 time in UTC.
    """

    file: ImageFile
    id: str
    timestamp: str

    @property
    def stem(self) -> str:
        """The file's name without its extension."""
        return stem_of(self.file.name)


@dataclass(frozen=True)
class InvalidImage:
    """An image that is not judged, and why.

    Attributes:
      file: The file.
      reason: One of the closed list in :mod:`transforms.reasons`.
      detail: What was wrong, for a person.
      size_bytes: Bytes of the file; None where it could not be read.
      width: Pixels of the upright image, where the header could be read.
      height: The same.
      sha256: Of the bytes, in hex; None where they were not read.
      data: The bytes as received; None where the store copies them from the file.
      shares_name: Another file of this reason has the same name but other bytes.
    """

    file: ImageFile
    reason: str
    detail: str
    size_bytes: int | None = None
    width: int | None = None
    height: int | None = None
    sha256: str | None = None
    data: bytes | None = None
    shares_name: bool = False


@dataclass(frozen=True)
class ValidImage:
    """A picture that was read, decoded and found good. Never crosses a shuffle.

    Attributes:
      named: Its file, camera and time.
      sha256: Of the bytes, in hex.
      width: Pixels of the upright image.
      height: The same.
      data: The bytes as received.
      pixels: uint8 [height, width, 3] RGB, letterboxed for the model; None where `known` is set.
      brightness: Mean of the image, 0 (black) to 1 (white), 4 decimals.
      content: Width and height of the part of `pixels` that shows the image, as fractions.
      known: Detections of the same bytes by the same model in an earlier run (`--resume`).
    """

    named: NamedFile
    sha256: str
    width: int
    height: int
    data: bytes
    pixels: np.ndarray[Any, np.dtype[np.uint8]] | None
    brightness: float
    content: tuple[float, float] = (1.0, 1.0)
    known: tuple[rules.Detection, ...] | None = None


@dataclass(frozen=True)
class ModelInfo:
    """Which model looked: its name and the first 12 hex digits of the hash of its files."""

    name: str
    version: str


@dataclass(frozen=True)
class DetectedImage:
    """What the model saw in one image: the object data.

    `stream_time` is as of its file; `brightness` is None in the archives of releases that did not
    measure it.
    """

    id: str
    timestamp: str
    file: str
    uri: str
    sha256: str
    width: int
    height: int
    model: ModelInfo
    detections: tuple[rules.Detection, ...]
    brightness: float | None = None
    stream_time: str | None = None

    @property
    def stem(self) -> str:
        """The name of the image's JSON files, without extension."""
        return stem_of(self.file)

    def for_rules(self) -> rules.Image:
        """What rules judge it by."""
        return rules.Image(
            id=self.id,
            timestamp=self.timestamp,
            width=self.width,
            height=self.height,
            detections=self.detections,
            sha256=self.sha256,
            brightness=self.brightness,
        )

    def to_json(self) -> dict[str, Any]:
        """The image JSON of format version 1.0, without `threat`."""
        return {
            "format_version": FORMAT_VERSION,
            "id": self.id,
            "timestamp": self.timestamp,
            "file": self.file,
            "uri": self.uri,
            "sha256": self.sha256,
            "width": self.width,
            "height": self.height,
            "brightness": self.brightness,
            "model": {"name": self.model.name, "version": self.model.version},
            "detections": [detection_to_json(found) for found in self.detections],
        }


def detection_to_json(found: rules.Detection) -> dict[str, Any]:
    """One entry of `detections`."""
    return {
        "category": found.category,
        "label": found.label,
        "conf": found.conf,
        "bbox": list(found.bbox),
    }


def detection_from_json(entry: dict[str, Any]) -> rules.Detection:
    """The detection that :func:`detection_to_json` wrote."""
    x_min, y_min, width, height = entry["bbox"]
    return rules.Detection(
        entry["category"], entry["label"], entry["conf"], (x_min, y_min, width, height)
    )


@dataclass(frozen=True)
class JudgedImage:
    """The object data of one image with the verdict of its camera's rules."""

    image: DetectedImage
    verdict: rules.Verdict

    def to_json(self) -> dict[str, Any]:
        """The image JSON of the final data repository."""
        return {**self.image.to_json(), "threat": self.verdict.to_json()}


@dataclass(frozen=True)
class WindowCounts:
    """What one window holds: a row for each id, in the order of the ids.

    Attributes:
      start: First moment of the window, canonical.
      end: First moment after it.
      shard: Which of the window's files this is, from 0.
      rows: The count rows, as JSON objects.
    """

    start: str
    end: str
    shard: int
    rows: tuple[dict[str, Any], ...]


for _record in (
    ImageFile,
    NamedFile,
    InvalidImage,
    ValidImage,
    DetectedImage,
    JudgedImage,
):
    beam.coders.registry.register_coder(_record, beam.coders.PickleCoder)
beam.coders.registry.register_coder(WindowCounts, beam.coders.PickleCoder)
