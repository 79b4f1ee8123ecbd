"""DetectObjects: detects the objects in images, by Beam's RunInference."""

from __future__ import annotations

import hashlib
import json
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.ml.inference.base import ModelHandler, PredictionResult, RunInference
from apache_beam.utils.timestamp import MIN_TIMESTAMP

import rules
from transforms.count_threats import event_time
from transforms.models.detector import Batch, Detector, ModelSpec, RawDetections
from transforms.models.model_files import fetch_model
from transforms.models.runtime_names import AUTO
from transforms.models.runtimes import runtime_of
from transforms.models.tiling import Region, merge, order
from transforms.parse_filename import INVALID
from transforms.records import reasons
from transforms.records.images import DetectedImage, InvalidImage, ModelInfo, ValidImage
from transforms.records.text import printable
from transforms.runtime.counters import count
from transforms.runtime.read_ahead import ReadAheadDoFn
from transforms.validate_image import CONTESTED, tagged_invalid

DETECTED = "detected"
KEPT = "kept"
DECIMALS = 4
WHOLE: Region = (0.0, 0.0, 1.0, 1.0)
DETECTION_REVISION = 1
"""A release increases it if it decodes, scales or rounds differently: `--resume` then repeats the
detection of images that earlier releases have processed."""

Prediction = tuple[RawDetections, ...] | Exception | None


@dataclass(frozen=True)
class Model:
    """The model of a job, which must be the same on every machine.

    Attributes:
      source: The value of `--model`.
      info: The name, version and settings.
      spec: The inputs and outputs.
      labels: The labels by class number.
      asked_runtime: The value of `--model_runtime`; each machine decides by it (see
        :func:`transforms.models.runtimes.runtime_of`).
    """

    source: str
    info: ModelInfo
    spec: ModelSpec
    labels: Mapping[int, str]
    asked_runtime: str = AUTO


def settings_of(
    labels: Mapping[int, str], *, min_score_kept: float, input_size: tuple[int, int]
) -> str:
    """Hashes all settings that affect detections, besides the model's files; 12 hex digits.

    Args:
      labels: The labels by class number.
      min_score_kept: Detections below this score are dropped.
      input_size: The width and height of the model's input in pixels.
    """
    settings = {
        "how": DETECTION_REVISION,
        "labels": sorted(labels.items()),
        "min_score_kept": float(min_score_kept),
        "input_size": list(input_size),
    }
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]


def to_detections(
    raw: RawDetections,
    *,
    content: tuple[float, float],
    labels: Mapping[int, str],
    min_score_kept: float,
    region: Region = WHOLE,
) -> tuple[rules.Detection, ...]:
    """Converts a model's output for one image, or a tile of it, to detections.

    Boxes are mapped from the letterbox to the upright image, clipped to it, and converted to
    `[x_min, y_min, width, height]` fractions. Boxes and scores are rounded to 4 decimals before
    any decision. The detection with the highest score comes first.

    Args:
      raw: The model's output.
      content: The width and height of the image's part of the letterbox, as fractions.
      labels: The labels by class number; a class without a label is called `class <number>`.
      min_score_kept: Detections below this score are dropped.
      region: The part of the image that the letterbox shows.
    """
    content_width, content_height = content
    left, top, right, bottom = region
    detections = []
    kept = raw.scores > min_score_kept - 10**-DECIMALS  # Those that can be kept once rounded.
    outputs = (part[kept].tolist() for part in (raw.boxes, raw.scores, raw.classes))
    for (y_min, x_min, y_max, x_max), score, category in zip(*outputs, strict=True):
        conf = round(score, DECIMALS)
        if not all(map(math.isfinite, (y_min, x_min, y_max, x_max, conf, category))):
            continue
        x_min, x_max = (_within(x / content_width, left, right) for x in (x_min, x_max))
        y_min, y_max = (_within(y / content_height, top, bottom) for y in (y_min, y_max))
        width, height = round(x_max - x_min, DECIMALS), round(y_max - y_min, DECIMALS)
        if conf < min_score_kept or width <= 0 or height <= 0:
            continue
        number = int(category)
        label = labels.get(number, f"class {number}")
        bbox = (x_min, y_min, width, height)
        detections.append(rules.Detection(str(number), label, min(conf, 1.0), bbox))
    return tuple(sorted(detections, key=order))


def _within(value: float, start: float, end: float) -> float:
    """Maps a fraction of a part of the image to a fraction of the image, clipped to the part."""
    fraction = min(max(0.0, value), 1.0)  # In this order -0.0 becomes 0.0.
    return round(start + fraction * (end - start), DECIMALS)


class Predicted(NamedTuple):
    """The prediction for an image.

    Attributes:
      prediction: The outputs for the image and its tiles, the first failure, or None if the
        detections are known already.
      microseconds: The duration of the batch, if the image is its last one; otherwise 0.
    """

    prediction: Prediction
    microseconds: int

    def result(self) -> Predicted:
        return self


class PendingPrediction:
    """The prediction for an image that the model may still be processing.

    A runner that passes it to another process gets the finished prediction.

    Args:
      batch: The batch of the image.
      first: The index of the image's first input in the batch.
      number: The number of its inputs.
      is_last: Whether it is the last image of the batch.
    """

    def __init__(self, batch: Batch, first: int, number: int, is_last: bool) -> None:
        self._batch = batch
        self._first = first
        self._number = number
        self._is_last = is_last

    def result(self) -> Predicted:
        """Waits for the prediction, and returns it."""
        prediction = _prediction(self._batch.outputs(self._first, self._number))
        return Predicted(prediction, round(self._batch.duration() * 1e6) if self._is_last else 0)

    def cancel(self) -> None:
        """Gives up the calls of its batch that have not begun."""
        self._batch.cancel()

    def __reduce__(self) -> tuple[Any, ...]:
        return Predicted, tuple(self.result())


class PendingResult(PredictionResult):
    """RunInference's result for an image; its `inference` is a :class:`PendingPrediction`."""


class _PendingResultCoder(beam.coders.Coder):
    """Encodes the results of RunInference, where a runner does not fuse it with the next step.

    Runners estimate the size of some elements. By default, they encode them for that, and would
    wait for the model.
    """

    def __init__(self) -> None:
        self._default = beam.coders.FastPrimitivesCoder()

    def encode(self, value: PendingResult) -> bytes:
        encoded: bytes = self._default.encode(value)
        return encoded

    def decode(self, encoded: bytes) -> PendingResult:
        result: PendingResult = self._default.decode(encoded)
        return result

    def estimate_size(self, value: PendingResult) -> int:
        return _held_bytes(value.example)

    def is_deterministic(self) -> bool:
        return False


beam.coders.registry.register_coder(PendingResult, _PendingResultCoder)


def _held_bytes(image: ValidImage) -> int:
    """Returns the bytes of an image as received and of the inputs for the model."""
    return len(image.data) + sum(pixels.nbytes for pixels in image.inputs)


class DetectorHandler(ModelHandler[ValidImage, PendingResult, Detector]):
    """Beam's ModelHandler for SavedModels by `tf.saved_model.load`, for TFLite and for ONNX.

    Beam's own handlers load Keras models, which SavedModels are not (apache/beam#30616).

    Args:
      model: The model, as found on the launching machine.
      batch_size: The number of images in a batch.
      threads: The number of concurrent calls of the model; None for the machine's default.
      call_size: The number of images in a call of the model; None for the machine's default.
    """

    def __init__(
        self,
        model: Model,
        *,
        batch_size: int = 8,
        threads: int | None = None,
        call_size: int | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; at least 1 image is needed")
        super().__init__(min_batch_size=batch_size, max_batch_size=batch_size)
        self._model = model
        self._threads = threads
        self._call_size = call_size

    def load_model(self) -> Detector:
        files = fetch_model(self._model.source, expected_version=self._model.info.version)
        spec = replace(self._model.spec, path=files.path)
        runtime, converted = runtime_of(spec, files.info.version, self._model.asked_runtime)
        return Detector(
            spec,
            runtime=runtime,
            converted=converted,
            threads=self._threads,
            call_size=self._call_size,
        )

    def run_inference(
        self,
        batch: Sequence[ValidImage],
        model: Detector,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterable[PendingResult]:
        """Starts the model on a batch; returns one result per image.

        Its `inference` is a :class:`PendingPrediction`, so that the model can process a batch while
        the next one is gathered and the results of the one before are handed on. The model is given
        the images and their tiles together.

        Its `model_id` is the runtime of the model.

        Counts batches and their images: Flink's reporters treat RunInference's distributions as
        objects, and Prometheus shows 0 for values that are no numbers.
        """
        inputs = [pixels for image in batch for pixels in image.inputs]
        pending = model.start(inputs)
        if inputs:
            count("model.batches")
            count("model.images", sum(image.pixels is not None for image in batch))
        if tiles := sum(len(image.tiles) for image in batch):
            count("model.tiles", tiles)
        first = 0
        for image in batch:
            end = first + len(image.inputs)
            is_last = first < end == len(inputs)
            prediction = PendingPrediction(pending, first, end - first, is_last)
            yield PendingResult(image, prediction, model.runtime)
            first = end

    def get_num_bytes(self, batch: Sequence[ValidImage]) -> int:
        return sum(pixels.nbytes for image in batch for pixels in image.inputs)

    def get_metrics_namespace(self) -> str:
        return "inference"


def _prediction(outputs: Sequence[RawDetections | Exception]) -> Prediction:
    """Returns the outputs for an image and its tiles, or the first failure."""
    results = []
    for output in outputs:
        if isinstance(output, Exception):
            return output
        results.append(output)
    return tuple(results) or None


def _detections(
    image: ValidImage,
    outputs: Sequence[RawDetections],
    labels: Mapping[int, str],
    min_score_kept: float,
) -> tuple[rules.Detection, ...]:
    """Returns the detections in an image and its tiles, from the outputs for its inputs."""
    whole = to_detections(
        outputs[0], content=image.content, labels=labels, min_score_kept=min_score_kept
    )
    if not image.tiles:
        return whole
    parts = [
        to_detections(
            raw,
            content=tile.content,
            labels=labels,
            min_score_kept=max(min_score_kept, tile.min_score),
            region=tile.region,
        )
        for raw, tile in zip(outputs[1:], image.tiles, strict=True)
    ]
    return merge(whole, zip((tile.region for tile in image.tiles), parts, strict=True))


def detected_or_failed(
    image: ValidImage,
    prediction: Prediction,
    *,
    model: ModelInfo,
    labels: Mapping[int, str],
    min_score_kept: float,
) -> DetectedImage | InvalidImage:
    """Makes the object data of one image, or the record of an image on which the model failed."""
    if isinstance(prediction, Exception):
        return failed_image(image, f"the model failed ({type(prediction).__name__}: {prediction})")
    detections = image.known
    if detections is None:
        assert prediction is not None
        detections = _detections(image, prediction, labels, min_score_kept)
    return detected_image(image, detections, model)


def failed_image(image: ValidImage, detail: str) -> InvalidImage:
    """Makes the record of an image in which nothing could be detected."""
    return InvalidImage(
        image.named.file,
        reasons.INFERENCE_FAILED,
        printable(detail),
        size_bytes=len(image.data),
        width=image.width,
        height=image.height,
        sha256=image.sha256,
        data=image.data,
        camera=image.named.id,
        timestamp=image.named.timestamp,
    )


def detected_image(
    image: ValidImage, detections: tuple[rules.Detection, ...], model: ModelInfo
) -> DetectedImage:
    """Makes the object data of one image."""
    file = image.named.file
    return DetectedImage(
        id=image.named.id,
        timestamp=image.named.timestamp,
        file=printable(file.name),
        uri=printable(file.uri),
        sha256=image.sha256,
        width=image.width,
        height=image.height,
        model=model.with_tiles(image.tiling),
        detections=detections,
        brightness=image.brightness,
        sharpness=image.sharpness,
        stream_time=file.stream_time,
        changed=file.changed,
        is_contested=image.named.is_contested,
    )


def outputs_of(
    image: ValidImage, outcome: DetectedImage | InvalidImage
) -> Iterator[DetectedImage | beam.pvalue.TaggedOutput]:
    """Yields what the step gives for one image, by its outputs."""
    if isinstance(outcome, InvalidImage):
        yield tagged_invalid(outcome, image.named)
        return
    count("images.detected")
    if image.known is not None:
        count("images.resumed")
    # The tiles are no longer needed, and take the most memory.
    yield beam.pvalue.TaggedOutput(KEPT, (replace(image, tiles=()), outcome))
    yield outcome


class _ReadPrediction(ReadAheadDoFn):
    """Waits for the results for the images, and reads them.

    Beam gives batches, and so what comes of them, the latest timestamp that there is. A runner that
    processes the elements and timers of a key in the order of their timestamps (Prism) would keep
    them until all timers that are set have fired. There they get back a timestamp at which event
    time has arrived.
    """

    def __init__(
        self, model: Model, min_score_kept: float, restores_timestamps: bool, batch_size: int
    ) -> None:
        # As many as a batch: the model processes one batch while the next one is gathered.
        super().__init__(threads=1, max_waiting=batch_size)
        self._batch_size = batch_size
        self._model = model.info
        self._labels = dict(model.labels)
        self._min_score_kept = min_score_kept
        self._restores_timestamps = restores_timestamps

    def setup(self) -> None:
        super().setup()
        self._begun: deque[PendingPrediction | Predicted] = deque(maxlen=self._batch_size)
        """What may not be finished yet."""

    def teardown(self) -> None:
        super().teardown()
        # After a bundle that failed: the model is shared, and the next attempt would wait for it.
        for prediction in self._begun:
            if isinstance(prediction, PendingPrediction):
                prediction.cancel()

    def submit(self, element: PendingResult) -> Future[Any]:
        self._begun.append(element.inference)
        return super().submit(element)

    def finish_bundle(self) -> Iterator[Any]:
        yield from super().finish_bundle()
        self._begun.clear()

    def process(
        self,
        element: PendingResult,
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
    ) -> Iterator[Any]:
        if self._restores_timestamps:
            found = element.example.named.file.stream_time
            timestamp = MIN_TIMESTAMP if found is None else event_time(found)
        yield from super().process(element, timestamp, window)

    def weight(self, element: PendingResult) -> int:
        return _held_bytes(element.example)

    def work(self, element: PendingResult) -> tuple[ValidImage, DetectedImage | InvalidImage, int]:
        image: ValidImage = element.example
        looked_now = image.known is None
        predicted = element.inference.result()
        outcome = detected_or_failed(
            image,
            predicted.prediction,
            model=(replace(self._model, runtime=element.model_id) if looked_now else self._model),
            labels=self._labels,
            min_score_kept=self._min_score_kept,
        )
        return image, outcome, predicted.microseconds

    def outputs(
        self, result: tuple[ValidImage, DetectedImage | InvalidImage, int]
    ) -> Iterator[Any]:
        image, outcome, microseconds = result
        if microseconds:
            count("model.microseconds", microseconds)
        yield from outputs_of(image, outcome)


class DetectObjects(beam.PTransform):
    """Runs the model on the images, in batches.

    Input: `PCollection[ValidImage]`. Output, by tag:

    - `detected`: `PCollection[DetectedImage]`.
    - `kept`: `PCollection[tuple[ValidImage, DetectedImage]]`, the same with the images' bytes.
    - `invalid`: `PCollection[InvalidImage]`, images on which the model failed.
    - `contested`: The same, without bytes, for files that share a capture time with other files.

    Args:
      model: The model.
      batch_size: The number of images in a batch.
      min_score_kept: Detections below this score are dropped.
      threads: The number of concurrent calls of the model; None for the machine's default.
      restores_timestamps: Whether the results get back the event time at which the stream has
        found their files, as Prism needs; other runners do not mind the timestamps of batches.
    """

    def __init__(
        self,
        model: Model,
        *,
        batch_size: int = 8,
        min_score_kept: float = 0.05,
        threads: int | None = None,
        restores_timestamps: bool = False,
    ) -> None:
        super().__init__()
        self._handler = DetectorHandler(model, batch_size=batch_size, threads=threads)
        self._read = _ReadPrediction(model, min_score_kept, restores_timestamps, batch_size)

    def expand(self, valid: beam.PCollection[ValidImage]) -> beam.pvalue.DoOutputsTuple:
        return (
            valid
            | "RunInference" >> RunInference(self._handler).with_output_types(PendingResult)
            | "ReadPrediction"
            >> beam.ParDo(self._read).with_outputs(INVALID, CONTESTED, KEPT, main=DETECTED)
        )
