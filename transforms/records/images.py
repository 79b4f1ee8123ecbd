"""The typed records that pass between the steps.

Only small records are ever grouped. :class:`ValidImage` and :class:`InvalidImage` may hold the
bytes of an image, and so stay inside one fused stage.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from typing import Any, TypedDict

import msgspec
import numpy as np

import rules
from rules.records import DetectionJson, VerdictJson
from transforms.records.codecs import keep_plain, register_record
from transforms.records.file_names import stored_name

FORMAT_VERSION = "1.0"
TILING_REVISION = 1
"""A release increases it if it cuts tiles or merges their detections differently."""


@dataclass(frozen=True)
class ImageFile:
    """A file that the source found.

    Attributes:
      uri: The address, in the form that Beam's FileSystems reads.
      size_bytes: The size when the file was listed.
      stream_time: The event time of the stream when the file was found, canonical; None in a batch,
        and before a stream has an event time.
      changed: The time of the last change, by the store, in Unix seconds; None if unknown. The
        version with the later change is the newer one.
    """

    uri: str
    size_bytes: int
    stream_time: str | None = None
    changed: float | None = None

    @property
    def name(self) -> str:
        """The last part of the path, as received: for parsing, never for use as a path."""
        return self.uri.rsplit("/", 1)[-1]


def stem_of(name: str) -> str:
    """Returns a file's name without its extension."""
    return name.rsplit(".", 1)[0]


@dataclass(frozen=True)
class NamedFile:
    """A file whose name has a valid camera and capture time.

    Attributes:
      file: The file.
      id: The camera's id.
      timestamp: Canonical RFC 3339 time in UTC.
      is_contested: Whether other files have the same camera and capture time, or may have.
    """

    file: ImageFile
    id: str
    timestamp: str
    is_contested: bool = False

    @property
    def stored_name(self) -> str:
        """The canonical name under which the image is stored."""
        return stored_name(self.file.name, self.id, self.timestamp)

    @property
    def stem(self) -> str:
        """The canonical name without its extension."""
        return stem_of(self.stored_name)


@dataclass(frozen=True)
class InvalidImage:
    """An image that is not judged, with the reason.

    Attributes:
      file: The file.
      reason: One of the closed list in :mod:`transforms.records.reasons`.
      detail: The cause, for a person.
      size_bytes: The size of the file in bytes; None if it could not be read.
      width: The width of the upright image in pixels; None if the header could not be read.
      height: The height of the upright image in pixels; None if the header could not be read.
      sha256: The sha256 of the bytes in hex; None if they were not read.
      data: The bytes as received; None if the store copies them from the file.
      shares_name: Whether another file with this reason has the same name but other bytes.
      camera: The camera's id; None if the name has none.
      timestamp: The capture time, canonical; None if the name has none.
      detections: The detections of a duplicate; None for other reasons.
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
    camera: str | None = None
    timestamp: str | None = None
    detections: tuple[rules.Detection, ...] | None = None

    @property
    def stored_name(self) -> str:
        """The name under which the file is stored: canonical, or as received if it is invalid."""
        return stored_name(self.file.name, self.camera, self.timestamp)


@dataclass(frozen=True)
class Tile:
    """A part of an image, letterboxed for the model.

    Attributes:
      pixels: uint8 [height, width, 3] RGB.
      content: The width and height of the tile's part of `pixels`, as fractions.
      region: Where the tile is in the upright image: left, top, right and bottom, as fractions of
        the image.
      min_score: Detections in the tile below this score are dropped.
    """

    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    content: tuple[float, float]
    region: tuple[float, float, float, float]
    min_score: float


@dataclass(frozen=True)
class ValidImage:
    """An image that was read, decoded and found valid. It never crosses a shuffle.

    Attributes:
      named: The file with its camera and capture time.
      sha256: The sha256 of the bytes in hex.
      width: The width of the upright image in pixels.
      height: The height of the upright image in pixels.
      data: The bytes as received.
      pixels: uint8 [height, width, 3] RGB, scaled for the model; None if `known` is set.
      brightness: The mean brightness, 0 (black) to 1 (white), 4 decimals.
      sharpness: The amount of detail (see :func:`jpeg.sharpness_of`), 4 decimals.
      content: The width and height of the image's part of `pixels`, as fractions.
      known: The detections of the same bytes by the same model in an earlier run (`--resume`).
      tiles: The tiles at which the model looks, too; empty if `known` is set.
      tiling: The tiles that made, or make, its detections, in words; None if there are none.
    """

    named: NamedFile
    sha256: str
    width: int
    height: int
    data: bytes
    pixels: np.ndarray[Any, np.dtype[np.uint8]] | None
    brightness: float
    sharpness: float
    content: tuple[float, float] = (1.0, 1.0)
    known: tuple[rules.Detection, ...] | None = None
    tiles: tuple[Tile, ...] = ()
    tiling: str | None = None

    @property
    def inputs(self) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
        """What the model is given: the whole image, then its tiles; nothing if `known` is set."""
        return [] if self.pixels is None else [self.pixels, *(tile.pixels for tile in self.tiles)]


class ModelJson(TypedDict):
    """The `model` of the image JSON; see `ModelInfo`."""

    name: str
    version: str
    settings: str | None
    runtime: str | None


@dataclass(frozen=True)
class ModelInfo:
    """The model that made detections, with its settings.

    Attributes:
      name: The model's name.
      version: The first 12 hex digits of the hash of its files.
      settings: The first 12 hex digits of the hash of all other settings that affect detections
        (see :func:`transforms.detect_objects.settings_of`), followed by the tiles if the image has
        any; None in records of releases without them.
      runtime: The runtime that ran it: `savedmodel`, `tflite`, `tflite-int8` or `onnx`;
        `detections` if they are those of a file; None as above.
    """

    name: str
    version: str
    settings: str | None = None
    runtime: str | None = None

    def detects_like(self, other: ModelInfo) -> bool:
        """Whether both make the same detections of the same bytes, by their records."""
        own = (self.version, self.settings, self.runtime)
        other_model = (other.version, other.settings, other.runtime)
        return None not in own and own == other_model

    def with_tiles(self, tiling: str | None) -> ModelInfo:
        """Returns the info for detections in an image and its tiles.

        Args:
          tiling: The grid of the tiles; None for the whole image only.
        """
        if tiling is None or self.settings is None:
            return self
        parts = f"{self.settings}\n{TILING_REVISION}\n{tiling}"
        digest = hashlib.sha256(parts.encode()).hexdigest()[:12]
        return replace(self, settings=f"{digest} {tiling}")

    @property
    def tiling(self) -> str | None:
        """The tiles of which the settings tell; None if there are none, or if nothing is known."""
        return (self.settings or "").partition(" ")[2] or None

    def to_json(self) -> ModelJson:
        """Makes the `model` of the image JSON."""
        return {
            "name": self.name,
            "version": self.version,
            "settings": self.settings,
            "runtime": self.runtime,
        }

    @classmethod
    def from_json(cls, entry: Any) -> ModelInfo:
        """Reads the JSON that :meth:`to_json` of this or an earlier release has written.

        Raises:
          ValueError: A key is missing, or its value is not a text.
        """
        if not isinstance(entry, dict):
            raise ValueError("image JSON: 'model' is missing")
        for key in ("name", "version"):
            if not isinstance(entry.get(key), str):
                raise ValueError(f"image JSON: {key!r} is missing, or not a text")
        for key in ("settings", "runtime"):
            if not isinstance(entry.get(key), str | None):
                raise ValueError(f"image JSON: {key!r} is not a text")
        return cls(entry["name"], entry["version"], entry.get("settings"), entry.get("runtime"))


class ImageJson(TypedDict):
    """The image JSON in `detections/`; see `DetectedImage`."""

    format_version: str
    id: str
    timestamp: str
    file: str
    uri: str
    sha256: str
    width: int
    height: int
    brightness: float | None
    sharpness: float | None
    model: ModelJson
    detections: list[DetectionJson]


class JudgedImageJson(ImageJson):
    """The image JSON in `final/`; see `JudgedImage`."""

    threat: VerdictJson


@dataclass(frozen=True)
class DetectedImage:
    """The object data of one image: its metadata and detections.

    `stream_time` and `changed` are those of its file, `is_contested` is that of its name.
    `brightness` and `sharpness` are None in archives of releases that did not measure them.
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
    sharpness: float | None = None
    stream_time: str | None = None
    changed: float | None = None
    is_contested: bool = False

    def as_file(self) -> ImageFile:
        """Returns the file of the image."""
        return ImageFile(self.uri, 0, self.stream_time, self.changed)

    @property
    def stored_name(self) -> str:
        """The canonical name under which the image is stored."""
        return stored_name(self.file, self.id, self.timestamp)

    @property
    def stem(self) -> str:
        """The name of the image's JSON files, without extension."""
        return stem_of(self.stored_name)

    def for_rules(self) -> rules.Image:
        """Returns the part that rules judge."""
        return rules.Image(
            id=self.id,
            timestamp=self.timestamp,
            width=self.width,
            height=self.height,
            detections=self.detections,
            sha256=self.sha256,
            brightness=self.brightness,
        )

    def to_json(self) -> ImageJson:
        """Makes the image JSON of format version 1.0, without `threat`."""
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
            "sharpness": self.sharpness,
            "model": self.model.to_json(),
            "detections": [detection_to_json(detection) for detection in self.detections],
        }


def detection_to_json(detection: rules.Detection) -> DetectionJson:
    """Makes an entry of `detections`."""
    return {
        "category": detection.category,
        "label": detection.label,
        "conf": detection.conf,
        "bbox": list(detection.bbox),
    }


def detection_from_json(entry: DetectionJson) -> rules.Detection:
    """Reads an entry that :func:`detection_to_json` has made."""
    x_min, y_min, width, height = entry["bbox"]
    return rules.Detection(
        entry["category"], entry["label"], entry["conf"], (x_min, y_min, width, height)
    )


@dataclass(frozen=True)
class JudgedImage:
    """The object data of one image with the verdict of its camera's rules."""

    image: DetectedImage
    verdict: rules.Verdict

    def to_json(self) -> JudgedImageJson:
        """Makes the image JSON of the final data repository."""
        return {**self.image.to_json(), "threat": self.verdict.to_json()}


@dataclass(frozen=True)
class WindowCounts:
    """The counts of one window: a row for each id, in the order of the ids.

    Attributes:
      start: The start of the window, canonical.
      end: The end of the window, canonical.
      shard: The index of the window's file, from 0.
      rows: The count rows, as JSON objects.
      added: The number of images that were ever added to the counts, including those that were
        retracted later: it never decreases from one pane to the next.
    """

    start: str
    end: str
    shard: int
    rows: tuple[dict[str, Any], ...]
    added: int = 0


def _pack_valid(image: ValidImage) -> dict[str, Any]:
    plain = {field.name: getattr(image, field.name) for field in fields(image)}
    plain["pixels"] = _pack_pixels(image.pixels)
    plain["tiles"] = [
        (_pack_pixels(tile.pixels), tile.content, tile.region, tile.min_score)
        for tile in image.tiles
    ]
    return plain


def _unpack_valid(plain: dict[str, Any]) -> ValidImage:
    pixels, tiles = plain.pop("pixels"), plain.pop("tiles", ())
    image = msgspec.convert({**plain, "pixels": None}, ValidImage, builtin_types=(bytes,))
    return replace(
        image,
        pixels=_unpack_pixels(pixels),
        tiles=tuple(
            Tile(_unpack_pixels(packed), tuple(content), tuple(region), min_score)
            for packed, content, region, min_score in tiles
        ),
    )


def _pack_pixels(pixels: np.ndarray[Any, Any] | None) -> Any:
    return None if pixels is None else (pixels.shape, pixels.tobytes())


def _unpack_pixels(packed: Any) -> Any:
    if packed is None:
        return None
    shape, data = packed
    return np.frombuffer(data, np.uint8).reshape(shape)


for _record in (ImageFile, NamedFile, InvalidImage, DetectedImage, WindowCounts):
    register_record(_record)
register_record(JudgedImage, version=3, upgrades={1: keep_plain, 2: keep_plain})
register_record(
    ValidImage, version=2, upgrades={1: keep_plain}, pack=_pack_valid, unpack=_unpack_valid
)
