"""ReadDetections: takes the detections in images from a file of another detector."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam

from transforms.detect_objects import DETECTED, KEPT, detected_image, failed_image, outputs_of
from transforms.models.detection_files import DetectionFile, DetectionIndex, Entry
from transforms.parse_filename import INVALID
from transforms.records.images import DetectedImage, InvalidImage, ModelInfo, ValidImage
from transforms.validate_image import CONTESTED


def found_or_failed(
    image: ValidImage, entry: Entry | None, *, model: ModelInfo, source: str
) -> DetectedImage | InvalidImage:
    """Makes the object data of one image, or the record of an image without detections.

    Args:
      image: The image. If its detections are known from an earlier run, they stand.
      entry: What the file says of it; None if it says nothing.
      model: What the records say about the detector.
      source: The address of the file, for the record.
    """
    if image.known is not None:
        return detected_image(image, image.known, model)
    if entry is None:
        return failed_image(image, f"{source} has no entry for it")
    if entry.failure is not None:
        return failed_image(image, f"the detector failed, says {source}: {entry.failure}")
    return detected_image(image, entry.detections, model)


class _Read(beam.DoFn):
    def __init__(
        self, file: DetectionFile, model: ModelInfo, min_score_kept: float, top: str | None
    ) -> None:
        self._file = file
        self._model = model
        self._min_score_kept = min_score_kept
        self._top = top

    def setup(self) -> None:
        self._index = DetectionIndex(self._file)

    def teardown(self) -> None:
        self._index.close()

    def process(self, image: ValidImage) -> Iterator[Any]:
        entry = None
        if image.known is None:
            uri = image.named.file.uri
            entry = self._index.find(uri, self._top, self._min_score_kept)
        outcome = found_or_failed(image, entry, model=self._model, source=self._file.source)
        yield from outputs_of(image, outcome)


class ReadDetections(beam.PTransform):
    """Takes the detections in images from a file, in place of :class:`DetectObjects`.

    Input: `PCollection[ValidImage]`. Output: as that of :class:`DetectObjects`; an image of which
    the file has no entry, or on which its detector failed, is invalid.

    Args:
      file: The file.
      model: What the records say about the detector.
      min_score_kept: Detections below this score are dropped.
      top: The folder to which the paths in the file are relative; None if it is unknown.
    """

    def __init__(
        self,
        file: DetectionFile,
        model: ModelInfo,
        *,
        min_score_kept: float = 0.05,
        top: str | None = None,
    ) -> None:
        super().__init__()
        self._read = _Read(file, model, min_score_kept, top)

    def expand(self, valid: beam.PCollection[ValidImage]) -> beam.pvalue.DoOutputsTuple:
        return valid | "LookUp" >> beam.ParDo(self._read).with_outputs(
            INVALID, CONTESTED, KEPT, main=DETECTED
        )
