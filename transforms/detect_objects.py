"""DetectObjects: what is in a picture, by Beam's RunInference."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
from apache_beam.ml.inference.base import ModelHandler, PredictionResult, RunInference

import rules
from transforms import reasons
from transforms.counters import count
from transforms.detector import Detector, ModelSpec, RawDetections
from transforms.model_files import fetch_model
from transforms.parse_filename import INVALID
from transforms.records import DetectedImage, InvalidImage, ModelInfo, ValidImage
from transforms.text import printable

DETECTED = "detected"
KEPT = "kept"
DECIMALS = 4

Prediction = RawDetections | Exception | None


@dataclass(frozen=True)
class Model:
    """The model of a job, as every machine must find it.

    Attributes:
      source: What `--model` said.
      info: Its name and version.
      spec: What it takes.
      labels: Names by class number.
    """

    source: str
    info: ModelInfo
    spec: ModelSpec
    labels: Mapping[int, str]


def to_detections(
    raw: RawDetections,
    *,
    content: tuple[float, float],
    labels: Mapping[int, str],
    min_score_kept: float,
) -> tuple[rules.Detection, ...]:
    """A model's output for one picture in the contract's terms.

    Boxes are mapped from the letterbox to the upright image, clipped to it, and given as
    `[x_min, y_min, width, height]` fractions. Boxes and scores are rounded to 4 decimals before
    anything is decided on them. The most certain detection comes first.

    Args:
      raw: The model's output.
      content: Width and height of the part of the letterbox that shows the picture, as fractions.
      labels: Names by class number; a class without a name is called `class <number>`.
      min_score_kept: Detections below this score are left out.
    """
    across, down = content
    found = []
    for box, score, category in zip(raw.boxes, raw.scores, raw.classes, strict=True):
        y_min, x_min, y_max, x_max = (float(edge) for edge in box)
        conf = round(float(score), DECIMALS)
        if not all(map(math.isfinite, (y_min, x_min, y_max, x_max, conf, category))):
            continue
        x_min, x_max = _fraction(x_min / across), _fraction(x_max / across)
        y_min, y_max = _fraction(y_min / down), _fraction(y_max / down)
        width, height = round(x_max - x_min, DECIMALS), round(y_max - y_min, DECIMALS)
        if conf < min_score_kept or width <= 0 or height <= 0:
            continue
        number = int(category)
        label = labels.get(number, f"class {number}")
        bbox = (x_min, y_min, width, height)
        found.append(rules.Detection(str(number), label, min(conf, 1.0), bbox))
    return tuple(sorted(found, key=lambda one: (-one.conf, int(one.category), one.bbox)))


def _fraction(value: float) -> float:
    return round(min(max(0.0, value), 1.0), DECIMALS)  # In this order -0.0 becomes 0.0.


class DetectorHandler(ModelHandler[ValidImage, PredictionResult, Detector]):
    """Beam's ModelHandler for SavedModels by `tf.saved_model.load`, and for TFLite.

    Beam's own handlers load Keras models, which SavedModels are not (apache/beam#30616).

    Args:
      model: The model, as the launching machine has found it.
      batch_size: Pictures handed over at once.
      threads: Calls of the model at once; None: as suits the machine.
      call_size: Pictures a call of the model; None: as suits the machine.
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
            raise ValueError(f"batch_size is {batch_size}; at least 1 picture is needed")
        super().__init__(min_batch_size=batch_size, max_batch_size=batch_size)
        self._model = model
        self._threads = threads
        self._call_size = call_size

    def load_model(self) -> Detector:
        files = fetch_model(self._model.source, expected_version=self._model.info.version)
        spec = replace(self._model.spec, path=files.path)
        return Detector(spec, threads=self._threads, call_size=self._call_size)

    def run_inference(
        self,
        batch: Sequence[ValidImage],
        model: Detector,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterable[PredictionResult]:
        """One result an image; its `inference` is None where the detections are known already."""
        pictures = [image.pixels for image in batch if image.pixels is not None]
        raw = iter(model.detect(pictures))
        for image in batch:
            prediction: Prediction = next(raw) if image.pixels is not None else None
            yield PredictionResult(image, prediction, self._model.info.version)

    def get_num_bytes(self, batch: Sequence[ValidImage]) -> int:
        return sum(image.pixels.nbytes for image in batch if image.pixels is not None)

    def get_metrics_namespace(self) -> str:
        return "inference"


def detected_or_failed(
    image: ValidImage,
    prediction: Prediction,
    *,
    model: ModelInfo,
    labels: Mapping[int, str],
    min_score_kept: float,
) -> DetectedImage | InvalidImage:
    """The object data of one image, or the record that the model failed on it."""
    file = image.named.file
    if isinstance(prediction, Exception):
        detail = printable(f"the model failed ({type(prediction).__name__}: {prediction})")
        return InvalidImage(
            file,
            reasons.INFERENCE_FAILED,
            detail,
            size_bytes=len(image.data),
            width=image.width,
            height=image.height,
            sha256=image.sha256,
            data=image.data,
        )
    detections = image.known
    if detections is None:
        assert prediction is not None
        detections = to_detections(
            prediction,
            content=image.content,
            labels=labels,
            min_score_kept=min_score_kept,
        )
    return DetectedImage(
        id=image.named.id,
        timestamp=image.named.timestamp,
        file=file.name,
        uri=printable(file.uri),
        sha256=image.sha256,
        width=image.width,
        height=image.height,
        model=model,
        detections=detections,
        brightness=image.brightness,
        stream_time=file.stream_time,
    )


class _ReadPrediction(beam.DoFn):
    def __init__(self, model: Model, min_score_kept: float) -> None:
        self._model = model.info
        self._labels = dict(model.labels)
        self._min_score_kept = min_score_kept

    def process(self, element: PredictionResult) -> Iterator[Any]:
        image: ValidImage = element.example
        outcome = detected_or_failed(
            image,
            element.inference,
            model=self._model,
            labels=self._labels,
            min_score_kept=self._min_score_kept,
        )
        if isinstance(outcome, InvalidImage):
            yield beam.pvalue.TaggedOutput(INVALID, outcome)
            return
        if image.known is not None:
            count("images.resumed")
        yield beam.pvalue.TaggedOutput(KEPT, (image, outcome))
        yield outcome


class DetectObjects(beam.PTransform):
    """Runs the model over the pictures, in batches.

    Input: `PCollection[ValidImage]`. Output, by tag:

    - `detected`: `PCollection[DetectedImage]`.
    - `kept`: `PCollection[tuple[ValidImage, DetectedImage]]`, the same with the images' bytes.
    - `invalid`: `PCollection[InvalidImage]`, images on which the model failed alone.

    Args:
      model: The model.
      batch_size: Pictures handed over at once.
      min_score_kept: Detections below this score are left out.
      threads: Calls of the model at once; None: as suits the machine.
    """

    def __init__(
        self,
        model: Model,
        *,
        batch_size: int = 8,
        min_score_kept: float = 0.05,
        threads: int | None = None,
    ) -> None:
        super().__init__()
        self._handler = DetectorHandler(model, batch_size=batch_size, threads=threads)
        self._read = _ReadPrediction(model, min_score_kept)

    def expand(self, valid: beam.PCollection[ValidImage]) -> beam.pvalue.DoOutputsTuple:
        return (
            valid
            | "RunInference" >> RunInference(self._handler)
            | "ReadPrediction" >> beam.ParDo(self._read).with_outputs(INVALID, KEPT, main=DETECTED)
        )
