"""JudgeThreats: what in a picture is a threat, by the rules of its camera.

Rules that look back (`repeats`, `confirm`, `cooldown`) judge a picture by those that its camera
took before it. A batch sorts the pictures of such a camera by time before it judges them. A stream
can't wait: each picture is judged when it comes, by the earlier ones that have come, and what it
shows is kept as state for those that follow. Pictures that come in order are judged the same by
both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import apache_beam as beam
from apache_beam.coders import PickleCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.utils.timestamp import Duration, Timestamp

import rules
from transforms.counters import count
from transforms.live_rules import LiveRules
from transforms.records import DetectedImage, JudgedImage
from transforms.times import parse_time

JUDGED = "judged"
LOOKS_BACK = "looks_back"


def judge(
    image: DetectedImage, by: rules.Rules, history: rules.History | None = None
) -> JudgedImage:
    """One image with its verdict.

    Args:
      image: What was seen.
      by: The rules.
      history: What its camera has shown before; the image is noted in it. None: nothing.
    """
    return JudgedImage(image, by.judge(image.for_rules(), history))


def judge_in_order(images: Iterable[DetectedImage], by: rules.Rules) -> Iterator[JudgedImage]:
    """The images of one camera, given in any order, with their verdicts in the order of time."""

    def order(image: DetectedImage) -> tuple[datetime, str]:
        return parse_time(image.timestamp), image.sha256

    history = rules.History()
    for image in sorted(images, key=order):
        yield judge(image, by, history)


def _count(judged: JudgedImage) -> None:
    if judged.verdict.is_threat:
        count("images.with_threat")
    for threat in judged.verdict.threats:
        count(f"threats.{threat.severity}.{threat.label}")


class _Judge(beam.DoFn):
    """Judges images of which each stands for itself, and hands on the others."""

    def __init__(self, by: rules.Rules) -> None:
        self._rules = by

    def process(self, element: DetectedImage) -> Iterator[Any]:
        count("images.valid")
        if self._rules.needs_history(element.id):
            yield beam.pvalue.TaggedOutput(LOOKS_BACK, element)
            return
        judged = judge(element, self._rules)
        _count(judged)
        yield judged


class _JudgeInOrder(beam.DoFn):
    """Judges all images of a camera."""

    def __init__(self, by: rules.Rules) -> None:
        self._rules = by

    def process(self, element: tuple[str, Iterable[DetectedImage]]) -> Iterator[JudgedImage]:
        for judged in judge_in_order(element[1], self._rules):
            _count(judged)
            yield judged


class _JudgeAsTheyCome(beam.DoFn):
    """Judges each image by what its camera has shown so far, and remembers it.

    What a camera has shown is forgotten when no picture that still counts can ask for it: once
    event time is beyond its newest picture by what its rules look back, and the allowed lateness.
    """

    _HISTORY = ReadModifyWriteStateSpec("history", PickleCoder())
    _FORGET = TimerSpec("forget", TimeDomain.WATERMARK)

    def __init__(self, by: LiveRules, allowed_lateness_seconds: int) -> None:
        self._rules = by
        self._lateness_seconds = allowed_lateness_seconds

    def process(
        self,
        element: tuple[str, DetectedImage],
        state: Any = beam.DoFn.StateParam(_HISTORY),
        forget: Any = beam.DoFn.TimerParam(_FORGET),
    ) -> Iterator[JudgedImage]:
        camera, image = element
        self._rules.refresh()
        now = self._rules.now
        count("images.valid")
        if not now.needs_history(camera):
            judged = judge(image, now)
        else:
            history: rules.History = state.read() or rules.History()
            judged = judge(image, now, history)
            state.write(history)
            forget.set(self._forget_at(history, now.for_camera(camera)))
        _count(judged)
        yield judged

    def _forget_at(self, history: rules.History, camera: rules.CameraRules) -> Timestamp:
        horizon = Duration(camera.horizon.total_seconds())
        return Timestamp(micros=history.newest) + horizon + Duration(self._lateness_seconds)

    @on_timer(_FORGET)
    def forget_camera(self, state: Any = beam.DoFn.StateParam(_HISTORY)) -> None:
        """The camera has been silent for longer than its rules look back."""
        state.clear()


def _by_camera(image: DetectedImage) -> tuple[str, DetectedImage]:
    return image.id, image


class JudgeThreats(beam.PTransform):
    """Judges each image by its camera's rules.

    Input: `PCollection[DetectedImage]`, of which a batch holds one for each camera and moment, and
    a stream may hold the same one twice. Output: `PCollection[JudgedImage]`.

    In a batch, the images of cameras whose rules look back are grouped by camera. A worker holds
    all records of one camera at once: some 3 kB each where six objects were seen, 5 MB for a day
    with a picture a minute. The others are judged where they are, and where no rule looks back
    nothing is grouped. In a stream all are keyed by camera, as rules that look back may be edited
    in. The state of a camera is its :class:`rules.History`, some kilobytes; one whose rules don't
    look back has none.

    Args:
      by: The rules, which may change while a stream runs.
      streaming: Images keep coming: each is judged as it comes.
      allowed_lateness_seconds: How much longer a stream remembers what a camera has shown than its
        rules look back, for images that come late.
    """

    def __init__(
        self,
        by: rules.Rules | LiveRules,
        *,
        streaming: bool = False,
        allowed_lateness_seconds: int = 3600,
    ) -> None:
        super().__init__()
        self._rules = LiveRules.of(by)
        self._streaming = streaming
        self._as_they_come = _JudgeAsTheyCome(self._rules, allowed_lateness_seconds)

    def expand(self, images: beam.PCollection[DetectedImage]) -> beam.PCollection[JudgedImage]:
        by_camera = beam.Map(_by_camera).with_output_types(tuple[str, DetectedImage])
        if self._streaming:
            as_they_come = beam.ParDo(self._as_they_come).with_output_types(JudgedImage)
            return images | "ByCamera" >> by_camera | "JudgeAsTheyCome" >> as_they_come
        alone = beam.ParDo(_Judge(self._rules.now))
        if not self._rules.now.looks_back:
            return images | "Judge" >> alone.with_output_types(JudgedImage)
        judged = images | "Judge" >> alone.with_outputs(LOOKS_BACK, main=JUDGED)
        in_order = (
            judged[LOOKS_BACK]
            | "ByCamera" >> by_camera
            | "GroupByCamera" >> beam.GroupByKey()
            | "JudgeInOrder" >> beam.ParDo(_JudgeInOrder(self._rules.now))
        )
        return (judged[JUDGED], in_order) | "All" >> beam.Flatten()
