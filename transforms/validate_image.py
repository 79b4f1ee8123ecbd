"""ValidateImage: one read and one decode that tell whether a file is a picture to be judged.

Decoding is the last of the checks, and makes what the model needs.
"""

from __future__ import annotations

import hashlib
import json
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam

import rules
from transforms import jpeg, reasons, stores
from transforms.counters import count
from transforms.live_rules import LiveRules
from transforms.parse_filename import INVALID
from transforms.read_ahead import ReadAheadDoFn
from transforms.records import (
    ImageFile,
    InvalidImage,
    ModelInfo,
    NamedFile,
    ValidImage,
    detection_from_json,
)
from transforms.tensorflow_runtime import load_tensorflow
from transforms.text import one_line, printable

VALID = "valid"
LOCAL_READERS = 4
REMOTE_READERS = 16
"""Files read at once: a store that answers after 50 ms must not cost 50 ms a picture."""
_DECODERS = threading.BoundedSemaphore(4)
"""Pictures decoded at once in a process: more would only take the model's processors from it."""


@dataclass(frozen=True)
class Limits:
    """What is taken for a picture.

    Attributes:
      min_resolution: Width and height in pixels of the upright image, at least.
      max_resolution: The same, at most.
      max_file_bytes: Bytes of the file, at most.
    """

    min_resolution: tuple[int, int] = (160, 120)
    max_resolution: tuple[int, int] = (8192, 8192)
    max_file_bytes: int = 64 << 20

    def for_camera(self, resolution: rules.Resolution | None) -> Limits:
        """These limits with what the rules say of one camera put over them."""
        if resolution is None:
            return self
        return replace(
            self,
            min_resolution=resolution.min or self.min_resolution,
            max_resolution=resolution.max or self.max_resolution,
        )


@dataclass(frozen=True)
class EarlierRun:
    """Where `--resume` finds what an earlier run has detected.

    Attributes:
      output: The earlier run's output.
      model: The model that must have looked.
      min_score_kept: Detections below this score are left out.
    """

    output: str
    model: ModelInfo
    min_score_kept: float

    def seen(
        self, named: NamedFile, sha256: str
    ) -> tuple[tuple[rules.Detection, ...], float] | None:
        """What that model saw in the same bytes, and how bright they are; None where it has not
        looked, or a release did that did not measure brightness."""
        uri = stores.detections_uri(self.output, named.id, named.stem)
        try:
            entry = json.loads(stores.read_bytes(uri))
            if entry["sha256"] != sha256 or entry["model"]["version"] != self.model.version:
                return None
            found = tuple(detection_from_json(one) for one in entry["detections"])
            brightness = float(entry["brightness"])
            if not 0 <= brightness <= 1:
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None  # Missing or unreadable: the model looks again.
        return tuple(one for one in found if one.conf >= self.min_score_kept), brightness


class StoreLostError(OSError):
    """A store that could be read, and can't be any more: the job must not go on without it."""


def resolution_problem(width: int, height: int, limits: Limits) -> tuple[str, str] | None:
    """The reason and detail for which an image of this size is invalid, if it is."""
    (min_width, min_height), (max_width, max_height) = (
        limits.min_resolution,
        limits.max_resolution,
    )
    if width < min_width or height < min_height:
        low = f"{width}x{height} pixels; at least {min_width}x{min_height} are needed"
        return reasons.RESOLUTION_TOO_LOW, low
    if width > max_width or height > max_height:
        high = f"{width}x{height} pixels; at most {max_width}x{max_height} are taken"
        return reasons.RESOLUTION_TOO_HIGH, high
    return None


def validate_bytes(
    named: NamedFile,
    data: bytes,
    *,
    limits: Limits,
    input_size: tuple[int, int],
    earlier: EarlierRun | None = None,
) -> ValidImage | InvalidImage:
    """Whether these bytes are a picture to be judged; its pixels if so.

    Args:
      named: The file that they are of.
      data: The whole file.
      limits: Those of its camera.
      input_size: Width and height of the model's input, in pixels.
      earlier: Where detections of an earlier run are; such an image is not decoded.
    """
    sha256 = hashlib.sha256(data).hexdigest()
    invalid = InvalidImage(named.file, "", "", size_bytes=len(data), sha256=sha256, data=data)
    if not data:
        return replace(invalid, reason=reasons.EMPTY_FILE, detail="the file has no bytes")
    try:
        header = jpeg.read_header(data)
    except jpeg.NotJpeg as error:
        return replace(invalid, reason=reasons.NOT_JPEG, detail=str(error))
    except jpeg.CorruptJpeg as error:
        return replace(invalid, reason=reasons.CORRUPT_JPEG, detail=str(error))
    width, height = header.width, header.height
    invalid = replace(invalid, width=width, height=height)
    if problem := resolution_problem(width, height, limits):
        return replace(invalid, reason=problem[0], detail=problem[1])
    seen = earlier.seen(named, sha256) if earlier else None
    if seen is not None:
        known, brightness = seen
        return ValidImage(named, sha256, width, height, data, None, brightness, known=known)
    try:
        box = jpeg.decode_letterboxed(header, input_size)
    except jpeg.CorruptJpeg as error:
        return replace(invalid, reason=reasons.CORRUPT_JPEG, detail=str(error))
    return ValidImage(named, sha256, width, height, data, box.pixels, box.brightness, box.content)


def read_failed(file: ImageFile, error: Exception) -> InvalidImage:
    """The record of a file that could not be read."""
    detail = printable(f"the file can't be read ({type(error).__name__}: {error})")
    return InvalidImage(file, reasons.READ_FAILED, detail)


def same_image_once(invalid: Iterable[InvalidImage]) -> Iterator[InvalidImage]:
    """Invalid files without repeats of the same bytes under the same name and reason.

    What is left of one name and reason are different files, and says so; so does `x.json` beside
    `x`, whose record has that name. The outcome does not depend on the order in which the files
    come.
    """
    different: dict[tuple[str, str], dict[str, InvalidImage]] = {}
    for image in sorted(invalid, key=lambda image: image.file.uri):
        same_name = different.setdefault((image.reason, image.file.name), {})
        same_name.setdefault(image.sha256 or image.file.uri, image)
    for (reason, name), same_name in different.items():
        is_a_records = name.endswith(".json") and (reason, name.removesuffix(".json")) in different
        for image in same_name.values():
            yield replace(image, shares_name=is_a_records or len(same_name) > 1)


@dataclass(frozen=True)
class _Outcome:
    valid: ValidImage | None
    invalid: tuple[InvalidImage, ...]
    repeated: int


class _Validate(ReadAheadDoFn):
    """Reads, checks and decodes all files that claim to be the same camera's same moment."""

    def __init__(
        self,
        limits: Limits,
        by: LiveRules | None,
        input_size: tuple[int, int],
        earlier: EarlierRun | None,
        threads: int,
        max_waiting: int,
    ) -> None:
        super().__init__(threads=threads, max_waiting=max_waiting)
        self._last_read: str | None = None
        self._limits = limits
        self._rules = by
        self._input_size = input_size
        self._earlier = earlier

    def setup(self) -> None:
        super().setup()
        load_tensorflow()
        # Broken EXIF is met every day; Pillow would write a line for each.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

    def start_bundle(self) -> None:
        super().start_bundle()
        if self._rules is not None:
            self._rules.refresh()

    def weight(self, element: tuple[str, Iterable[NamedFile]]) -> int:
        largest = max(named.file.size_bytes for named in element[1])
        width, height = self._input_size
        return min(largest, self._limits.max_file_bytes) + width * height * 3

    def work(self, element: tuple[str, Iterable[NamedFile]]) -> _Outcome:
        files = sorted(element[1], key=lambda named: named.file.uri)
        best: ValidImage | None = None
        invalid: list[InvalidImage] = []
        for named in files:
            image = self._validate(named)
            if isinstance(image, InvalidImage):
                # Only one picture of many is held; the store copies the others' bytes.
                invalid.append(image if len(files) == 1 else replace(image, data=None))
            elif best is None:
                best = image
            elif image.sha256 != best.sha256:
                best, other = sorted((best, image), key=lambda image: image.sha256)
                invalid.append(_duplicate(other))
        different = tuple(same_image_once(invalid))
        kept = len(different) + (best is not None)
        return _Outcome(best, different, repeated=len(files) - kept)

    def outputs(self, result: _Outcome) -> Iterator[Any]:
        for invalid in result.invalid:
            yield beam.pvalue.TaggedOutput(INVALID, invalid)
        if result.valid is not None:
            yield result.valid
        if result.repeated:
            count("images.repeated", result.repeated)

    def _validate(self, named: NamedFile) -> ValidImage | InvalidImage:
        limits = self._limits
        if self._rules is not None:
            limits = limits.for_camera(self._rules.now.for_camera(named.id).resolution)
        try:
            data = stores.read_bytes(named.file.uri, at_most=limits.max_file_bytes + 1)
        except Exception as error:  # Whatever a store raises for one file is that file's alone.
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
                earlier=self._earlier,
            )

    def _check_store(self, uri: str, error: Exception) -> None:
        """Tells a file that can't be read from a store that can't: one that was read is the proof.

        Raises:
          StoreLostError: The store answers for that file no more either.
        """
        proof = self._last_read
        if proof is None or isinstance(error, FileNotFoundError):
            return
        try:
            stores.read_bytes(proof, at_most=1)
        except FileNotFoundError:
            return
        except Exception as again:
            raise StoreLostError(
                f"the pictures can't be read any more, not even one that was read before "
                f"({one_line(again)})"
            ) from None


def _duplicate(image: ValidImage) -> InvalidImage:
    named = image.named
    return InvalidImage(
        named.file,
        reasons.DUPLICATE,
        reasons.duplicate_detail(named.id, named.timestamp),
        size_bytes=len(image.data),
        width=image.width,
        height=image.height,
        sha256=image.sha256,
    )


def _alone(moment: str, named: NamedFile) -> tuple[str, tuple[NamedFile, ...]]:
    return moment, (named,)


class _NamesOnce(beam.DoFn):
    def process(self, element: tuple[str, Iterable[InvalidImage]]) -> Iterator[InvalidImage]:
        yield from same_image_once(element[1])


class ValidateImage(beam.PTransform):
    """Reads each file once and decodes it once, at the size that the model needs.

    Input: `PCollection[tuple[str, NamedFile]]`, keyed by camera and moment. Output, by tag:

    - `valid`: `PCollection[ValidImage]`. Of several pictures in a batch that claim the same camera
      and moment it is the one with the smallest sha256, whichever order they come in; in a stream
      it is each of them as it comes, for :class:`transforms.settle_moments.SettleMoments`.
    - `invalid`: `PCollection[InvalidImage]`.

    Args:
      limits: What is taken for a picture.
      by: Rules, which may set another resolution for a camera.
      input_size: Width and height of the model's input in pixels.
      earlier: Where detections of an earlier run are, with `--resume`.
      streaming: Files keep coming: none is waited for.
      threads: Files read and decoded at once.
      max_waiting: Pictures made ready ahead of the model.
      resource_hints: Beam's resource hints for reading and decoding, not for the shuffle before;
        the step that takes the pictures must have the same.
    """

    def __init__(
        self,
        *,
        limits: Limits,
        input_size: tuple[int, int],
        by: rules.Rules | LiveRules | None = None,
        earlier: EarlierRun | None = None,
        streaming: bool = False,
        threads: int = LOCAL_READERS,
        max_waiting: int = 24,
        resource_hints: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._streaming = streaming
        self._hints = dict(resource_hints or {})
        live = None if by is None else LiveRules.of(by)
        self._validate = _Validate(limits, live, input_size, earlier, threads, max_waiting)

    def expand(self, named: beam.PCollection[tuple[str, NamedFile]]) -> beam.pvalue.DoOutputsTuple:
        grouped = (
            named
            | "Spread" >> beam.Reshuffle()
            | "Alone" >> beam.MapTuple(_alone).with_resource_hints(**self._hints)
            if self._streaming
            else named | "GroupByMoment" >> beam.GroupByKey()
        )
        read = beam.ParDo(self._validate).with_resource_hints(**self._hints)
        return grouped | "ReadAndDecode" >> read.with_outputs(INVALID, main=VALID)


class InvalidNames(beam.PTransform):
    """Tells files apart that are invalid by their names alone and share one.

    Input: `PCollection[tuple[str, InvalidImage]]`, keyed as :class:`ParseFilename` does. Output:
    `PCollection[InvalidImage]`.

    Args:
      streaming: Files keep coming: none is waited for, and the store tells them apart.
    """

    def __init__(self, *, streaming: bool = False) -> None:
        super().__init__()
        self._streaming = streaming

    def expand(
        self, invalid: beam.PCollection[tuple[str, InvalidImage]]
    ) -> beam.PCollection[InvalidImage]:
        if self._streaming:
            return invalid | "AsTheyCome" >> beam.Values().with_output_types(InvalidImage)
        return (
            invalid
            | "GroupByName" >> beam.GroupByKey()
            | "NamesOnce" >> beam.ParDo(_NamesOnce()).with_output_types(InvalidImage)
        )
