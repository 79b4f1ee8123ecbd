"""ValidateImage: reads and decodes each file once, and checks whether it is a valid image.

Decoding is the last check, and yields the input of the model.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import socket
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam

import rules
from transforms.images import jpeg
from transforms.models.tensorflow_runtime import load_tensorflow
from transforms.parse_filename import INVALID
from transforms.records import reasons
from transforms.records.images import (
    ImageFile,
    InvalidImage,
    ModelInfo,
    NamedFile,
    ValidImage,
    detection_from_json,
)
from transforms.records.text import one_line, printable
from transforms.runtime.counters import count
from transforms.runtime.live_rules import LiveRules
from transforms.runtime.read_ahead import ReadAheadDoFn
from transforms.storage import stores
from transforms.storage.packed_output import EarlierRows

VALID = "valid"
CONTESTED = "contested"
LOCAL_READERS = 4
REMOTE_READERS = 16
"""The number of concurrent reads: a store with a latency of 50 ms must not cost 50 ms per image."""
MAX_FORBIDDEN = 10
"""After so many images that may not be read, and none that could be, others are tried."""
_TRIED, _TRIED_IN_FOLDER, _LISTED = 100, 5, 10_000
_DECODERS = threading.BoundedSemaphore(4)
"""The number of concurrent decodes in a process; more would take processors from the model."""


@dataclass(frozen=True)
class Limits:
    """The limits for a valid image.

    Attributes:
      min_resolution: The least width and height of the upright image in pixels.
      max_resolution: The greatest width and height of the upright image in pixels.
      max_file_bytes: The greatest size of the file in bytes.
    """

    min_resolution: tuple[int, int] = (160, 120)
    max_resolution: tuple[int, int] = (8192, 8192)
    max_file_bytes: int = 64 << 20

    def for_camera(self, resolution: rules.Resolution | None) -> Limits:
        """Returns these limits, overridden by the rules of one camera."""
        if resolution is None:
            return self
        return replace(
            self,
            min_resolution=resolution.min or self.min_resolution,
            max_resolution=resolution.max or self.max_resolution,
        )


@dataclass(frozen=True)
class EarlierRun:
    """The earlier run whose detections `--resume` uses.

    Attributes:
      output: The earlier run's output.
      model: The model and the settings that the earlier run must have used.
      packed: What the earlier run has left, if its repositories are packed.
    """

    output: str
    model: ModelInfo
    packed: EarlierRows | None = None

    def find_result(
        self, named: NamedFile, sha256: str, tiling: str | None = None
    ) -> tuple[tuple[rules.Detection, ...], float, float] | None:
        """Returns the detections, brightness and sharpness that the earlier run recorded.

        The result is None if the run has not processed the same bytes with the same model and
        settings, or if its release did not record all values.

        Args:
          named: The file.
          sha256: The hash of its bytes.
          tiling: The tiles at which the model looks, too.
        """
        model = self.model.with_tiles(tiling)
        try:
            for entry in self._entries(named):
                made_by = ModelInfo.from_json(entry["model"])
                if entry["sha256"] != sha256 or not made_by.detects_like(model):
                    continue
                detections = tuple(map(detection_from_json, entry["detections"]))
                brightness, sharpness = float(entry["brightness"]), float(entry["sharpness"])
                if 0 <= brightness <= 1 and 0 <= sharpness <= 1:
                    return detections, brightness, sharpness
        except (OSError, ValueError, KeyError, TypeError):
            pass  # Missing or unreadable: the model runs again.
        return None

    def _entries(self, named: NamedFile) -> Iterator[Any]:
        """Yields the object data that is there under the name of a file."""
        if self.packed is None:
            uri = stores.detections_uri(self.output, named.id, named.stem)
            yield json.loads(stores.read_bytes(uri))
            return
        for row in self.packed.found(named.id, named.timestamp):
            if row.image.stem == named.stem:
                yield row.image.to_json()


def resolution_problem(width: int, height: int, limits: Limits) -> tuple[str, str] | None:
    """Returns the reason and detail for which an image of this size is invalid; None if valid."""
    (min_width, min_height), (max_width, max_height) = (
        limits.min_resolution,
        limits.max_resolution,
    )
    if width < min_width or height < min_height:
        low = f"{width}x{height} pixels; at least {min_width}x{min_height} are needed"
        return reasons.RESOLUTION_TOO_LOW, low
    if width > max_width or height > max_height:
        high = f"{width}x{height} pixels; at most {max_width}x{max_height} are allowed"
        return reasons.RESOLUTION_TOO_HIGH, high
    return None


def validate_bytes(
    named: NamedFile,
    data: bytes,
    *,
    limits: Limits,
    input_size: tuple[int, int],
    keeps_aspect: bool = True,
    tiles: rules.Tiles | None = None,
    earlier: EarlierRun | None = None,
) -> ValidImage | InvalidImage:
    """Validates the bytes of a file, and decodes its pixels.

    Args:
      named: The file.
      data: All bytes of the file.
      limits: The limits of its camera.
      input_size: The width and height of the model's input in pixels.
      keeps_aspect: Whether the image keeps its aspect, with a margin, or is stretched to that size.
      tiles: The tiles of its camera; an image that is too small for them has none.
      earlier: The earlier run; an image with detections there is not decoded.
    """
    sha256 = hashlib.sha256(data).hexdigest()
    invalid = InvalidImage(named.file, "", "", size_bytes=len(data), sha256=sha256, data=data)
    if not data:
        return replace(invalid, reason=reasons.EMPTY_FILE, detail="the file has no bytes")
    try:
        header = jpeg.read_header(data)
    except jpeg.NotJpegError as error:
        return replace(invalid, reason=reasons.NOT_JPEG, detail=str(error))
    except jpeg.CorruptJpegError as error:
        return replace(invalid, reason=reasons.CORRUPT_JPEG, detail=str(error))
    width, height = header.width, header.height
    invalid = replace(invalid, width=width, height=height)
    if problem := resolution_problem(width, height, limits):
        return replace(invalid, reason=problem[0], detail=problem[1])
    if header.problem:
        return replace(invalid, reason=reasons.CORRUPT_JPEG, detail=header.problem)
    if tiles is not None and not tiles.fit(width, height):
        tiles = None
    tiling = tiles.name if tiles else None
    earlier_result = earlier.find_result(named, sha256, tiling) if earlier else None
    if earlier_result is not None:
        detections, brightness, sharpness = earlier_result
        return ValidImage(
            *(named, sha256, width, height, data, None, brightness, sharpness),
            known=detections,
            tiling=tiling,
        )
    try:
        box = jpeg.decode_letterboxed(header, input_size, keeps_aspect)
        parts = jpeg.decode_tiles(header, input_size, tiles, keeps_aspect) if tiles else ()
    except jpeg.CorruptJpegError as error:
        return replace(invalid, reason=reasons.CORRUPT_JPEG, detail=str(error))
    return ValidImage(
        named,
        sha256,
        width,
        height,
        data,
        box.pixels,
        box.brightness,
        box.sharpness,
        box.content,
        tiles=parts,
        tiling=tiling,
    )


def read_failed(file: ImageFile, error: Exception) -> InvalidImage:
    """Makes the record of a file that could not be read."""
    detail = printable(f"the file can't be read ({type(error).__name__}: {error})")
    return InvalidImage(file, reasons.READ_FAILED, detail)


def without_repeats(invalid: Iterable[InvalidImage]) -> Iterator[InvalidImage]:
    """Removes repeats of the same bytes with the same name and reason.

    Different files that remain for one name and reason are marked as sharing the name. So is
    `x.json` next to `x`, whose record has that name. The result does not depend on the order of the
    files.
    """
    different: dict[tuple[str, str], dict[str, InvalidImage]] = {}
    for image in sorted(invalid, key=lambda image: image.file.uri):
        same_name = different.setdefault((image.reason, image.stored_name), {})
        same_name.setdefault(image.sha256 or image.file.uri, image)
    for (reason, name), same_name in different.items():
        is_a_records = name.endswith(".json") and (reason, name.removesuffix(".json")) in different
        for image in same_name.values():
            yield replace(image, shares_name=is_a_records or len(same_name) > 1)


def tagged_invalid(image: InvalidImage, named: NamedFile) -> beam.pvalue.TaggedOutput:
    """Tags an invalid image as an output.

    An image whose file shares its capture time with others has no bytes, since they are grouped.
    """
    image = replace(image, camera=named.id, timestamp=named.timestamp)
    if named.is_contested:
        return beam.pvalue.TaggedOutput(CONTESTED, replace(image, data=None))
    return beam.pvalue.TaggedOutput(INVALID, image)


class _Validate(ReadAheadDoFn):
    """Reads, checks and decodes a file."""

    def __init__(
        self,
        limits: Limits,
        ruleset: LiveRules | None,
        input_size: tuple[int, int],
        earlier: EarlierRun | None,
        threads: int,
        max_waiting: int,
        top: str | None = None,
        check_worker: Callable[[], None] | None = None,
        keeps_aspect: bool = True,
        with_tiles: bool = True,
    ) -> None:
        super().__init__(threads=threads, max_waiting=max_waiting)
        self._check_worker = check_worker
        self._last_read: str | None = None
        self._forbidden: set[str] = set()
        self._top = top
        self._limits = limits
        self._rules = ruleset
        self._input_size = input_size
        self._keeps_aspect = keeps_aspect
        self._with_tiles = with_tiles
        self._earlier = earlier

    def setup(self) -> None:
        if self._check_worker is not None:
            self._check_worker()
        super().setup()
        load_tensorflow()
        # Broken EXIF data is common; Pillow would log a line for each file.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

    def start_bundle(self) -> None:
        super().start_bundle()
        if self._rules is not None:
            self._rules.refresh()

    def weight(self, element: NamedFile) -> int:
        width, height = self._input_size
        tiles = self._tiles_of(element.id)
        inputs = 1 if tiles is None else 1 + tiles.count
        return (
            min(element.file.size_bytes, self._limits.max_file_bytes) + width * height * 3 * inputs
        )

    def _tiles_of(self, camera: str) -> rules.Tiles | None:
        if self._rules is None or not self._with_tiles:
            return None
        return self._rules.current.for_camera(camera).tiles

    def work(self, element: NamedFile) -> ValidImage | beam.pvalue.TaggedOutput:
        image = self._validate(element)
        return tagged_invalid(image, element) if isinstance(image, InvalidImage) else image

    def outputs(self, result: ValidImage | beam.pvalue.TaggedOutput) -> Iterator[Any]:
        if isinstance(result, ValidImage) and result.tiling is None:
            tiles = self._tiles_of(result.named.id)
            if tiles is not None and not tiles.fit(result.width, result.height):
                count("images.too_small_for_tiles")
        yield result

    def _validate(self, named: NamedFile) -> ValidImage | InvalidImage:
        limits = self._limits
        if self._rules is not None:
            limits = limits.for_camera(self._rules.current.for_camera(named.id).resolution)
        try:
            data = stores.read_bytes(named.file.uri, at_most=limits.max_file_bytes + 1)
        except Exception as error:  # An error of one file must not fail the job.
            self._check_store(named.file.uri, error)
            return read_failed(named.file, error)
        self._last_read = named.file.uri
        if len(data) > limits.max_file_bytes:
            return InvalidImage(
                named.file,
                reasons.FILE_TOO_LARGE,
                f"more than {limits.max_file_bytes} bytes",
                size_bytes=named.file.size_bytes,
            )
        with _DECODERS:
            return validate_bytes(
                named,
                data,
                limits=limits,
                input_size=self._input_size,
                keeps_aspect=self._keeps_aspect,
                tiles=self._tiles_of(named.id),
                earlier=self._earlier,
            )

    def _check_store(self, uri: str, error: Exception) -> None:
        """Checks whether the store is lost, by a file that was read before, or by the local folder.

        Raises:
          stores.StoreLostError: The store no longer answers for that file either, or this worker
            may read none of the images.
        """
        if self._top is not None:
            stores.check_folder(self._top, was_read=self._last_read is not None)
        known_uri = self._last_read
        if known_uri is None and isinstance(error, PermissionError):
            self._forbidden.add(uri)
            if len(self._forbidden) >= MAX_FORBIDDEN:
                self._forbidden.clear()
                self._check_permission(self._top or uri.rpartition("/")[0], error)
        if known_uri is None or isinstance(error, FileNotFoundError):
            return
        try:
            stores.read_bytes(known_uri, at_most=1)
        except FileNotFoundError:
            return
        except Exception as again:
            raise stores.StoreLostError(
                f"the images can no longer be read, not even one that was read before "
                f"({one_line(again)})"
            ) from None

    def _check_permission(self, folder: str, error: Exception) -> None:
        """Checks whether this worker may read any image: some of each folder are tried.

        Raises:
          stores.StoreLostError: It may read none of them.
        """
        tried: Counter[str] = Counter()
        try:
            for file in itertools.islice(stores.list_beneath(folder), _LISTED):
                parent = file.path.rpartition("/")[0]
                if tried.total() == _TRIED:
                    break
                if tried[parent] == _TRIED_IN_FOLDER:
                    continue
                tried[parent] += 1
                with suppress(OSError):
                    stores.read_bytes(file.path, at_most=1)
                    self._last_read = file.path  # So the input is not listed again.
                    return
        except OSError:  # S3 forbids reading an object that is gone to those who may not list.
            return
        raise stores.StoreLostError(
            f"none of the images in {folder} can be read on the worker {socket.gethostname()} "
            f"({one_line(error)}); give its user or account the permission to read them"
        )


def _as_contested(element: tuple[str, NamedFile]) -> NamedFile:
    return replace(element[1], is_contested=True)


def _mark_contested(element: tuple[str, Iterable[NamedFile]]) -> Iterator[NamedFile]:
    """Returns the files of a group in order, each marked if there are others."""
    files = sorted(element[1], key=lambda named: named.file.uri)
    for named in files:
        yield replace(named, is_contested=len(files) > 1)


class _DistinctNames(beam.DoFn):
    def process(self, element: tuple[str, Iterable[InvalidImage]]) -> Iterator[InvalidImage]:
        yield from without_repeats(element[1])


class _NamesInStream(beam.DoFn):
    def process(self, element: tuple[str, InvalidImage]) -> Iterator[Any]:
        _, image = element
        if image.timestamp is None:
            yield image
        else:
            yield beam.pvalue.TaggedOutput(CONTESTED, image)


class ValidateImage(beam.PTransform):
    """Reads each file once and decodes it at the size that the model needs.

    Input: `PCollection[tuple[str, NamedFile]]`, keyed by camera and capture time. Output, by tag:

    - `valid`: `PCollection[ValidImage]`.
    - `invalid`: `PCollection[InvalidImage]`, of files with a capture time of their own.
    - `contested`: `PCollection[InvalidImage]`, without bytes, of files that share a capture time
      with others, for :class:`transforms.resolve_versions.ResolveVersions`; in a stream, of all.

    Args:
      limits: The limits for a valid image.
      input_size: The width and height of the model's input in pixels.
      keeps_aspect: Whether the image keeps its aspect, with a margin, or is stretched to that size.
      ruleset: The rules, which may set another resolution and tiles for a camera.
      with_tiles: Whether the model looks at tiles; if not, those of the rules are ignored.
      earlier: The earlier run whose detections are used, with `--resume`.
      streaming: Whether the input is unbounded: files are then not grouped.
      threads: The number of files that are read and decoded at a time.
      max_waiting: The number of images that are prepared ahead of the model.
      top: The local folder of all files; a worker without this folder fails the job.
      check_worker: Called on each worker before it reads an image; it raises if what the worker
        needs is missing there. None for no check.
      resource_hints: Beam's resource hints for reading and decoding, not for the shuffle before;
        the step that consumes the images must have the same.
    """

    def __init__(
        self,
        *,
        limits: Limits,
        input_size: tuple[int, int],
        keeps_aspect: bool = True,
        ruleset: rules.Rules | LiveRules | None = None,
        with_tiles: bool = True,
        earlier: EarlierRun | None = None,
        streaming: bool = False,
        threads: int = LOCAL_READERS,
        max_waiting: int = 24,
        top: str | None = None,
        check_worker: Callable[[], None] | None = None,
        resource_hints: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._streaming = streaming
        self._hints = dict(resource_hints or {})
        live = None if ruleset is None else LiveRules.of(ruleset)
        self._validate = _Validate(
            *(limits, live, input_size, earlier, threads, max_waiting, top, check_worker),
            keeps_aspect=keeps_aspect,
            with_tiles=with_tiles,
        )

    def expand(self, named: beam.PCollection[tuple[str, NamedFile]]) -> beam.pvalue.DoOutputsTuple:
        grouped = (
            named
            | "Spread" >> beam.Reshuffle()
            | "Alone" >> beam.Map(_as_contested).with_resource_hints(**self._hints)
            if self._streaming
            else named
            | "GroupByMoment" >> beam.GroupByKey()
            | "Each" >> beam.FlatMap(_mark_contested).with_resource_hints(**self._hints)
        )
        read = beam.ParDo(self._validate).with_resource_hints(**self._hints)
        return grouped | "ReadAndDecode" >> read.with_outputs(INVALID, CONTESTED, main=VALID)


class InvalidNames(beam.PTransform):
    """Distinguishes files that are invalid by their names and share a name.

    Input: `PCollection[tuple[str, InvalidImage]]`, keyed as :class:`ParseFilename` does. Output, by
    tag:

    - `invalid`: `PCollection[InvalidImage]`.
    - `contested`: The same, of a stream's files whose names have a valid camera and capture time
      that are not accepted now: a newer version of the file may be accepted.

    Args:
      streaming: Whether the input is unbounded: files are then distinguished when they are stored.
    """

    def __init__(self, *, streaming: bool = False) -> None:
        super().__init__()
        self._streaming = streaming

    def expand(
        self, invalid: beam.PCollection[tuple[str, InvalidImage]]
    ) -> beam.pvalue.DoOutputsTuple:
        if self._streaming:
            names_in_stream = beam.ParDo(_NamesInStream())
            return invalid | "AsTheyCome" >> names_in_stream.with_outputs(CONTESTED, main=INVALID)
        return (
            invalid
            | "GroupByName" >> beam.GroupByKey()
            | "NamesOnce" >> beam.ParDo(_DistinctNames()).with_outputs(CONTESTED, main=INVALID)
        )
