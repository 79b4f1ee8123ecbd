"""JudgeThreats: what in a picture is a threat, by the rules of its camera."""

from __future__ import annotations

from collections.abc import Iterator

import apache_beam as beam

import rules
from transforms.counters import count
from transforms.live_rules import LiveRules
from transforms.records import DetectedImage, JudgedImage


def judge(image: DetectedImage, by: rules.Rules) -> JudgedImage:
    """One image with its verdict."""
    seen = rules.Image(image.id, image.timestamp, image.width, image.height, image.detections)
    return JudgedImage(image, by.judge(seen))


class _Judge(beam.DoFn):
    def __init__(self, by: LiveRules) -> None:
        self._rules = by

    def process(self, element: DetectedImage) -> Iterator[JudgedImage]:
        self._rules.refresh()
        judged = judge(element, self._rules.now)
        count("images.valid")
        if judged.verdict.is_threat:
            count("images.with_threat")
        for threat in judged.verdict.threats:
            count(f"threats.{threat.severity}.{threat.label}")
        yield judged


class JudgeThreats(beam.PTransform):
    """Judges each image by its camera's rules.

    Input: `PCollection[DetectedImage]`. Output: `PCollection[JudgedImage]`.

    Args:
      by: The rules, which may change while a stream runs.
    """

    def __init__(self, by: rules.Rules | LiveRules) -> None:
        super().__init__()
        self._rules = LiveRules.of(by)

    def expand(self, images: beam.PCollection[DetectedImage]) -> beam.PCollection[JudgedImage]:
        return images | "Judge" >> beam.ParDo(_Judge(self._rules)).with_output_types(JudgedImage)
