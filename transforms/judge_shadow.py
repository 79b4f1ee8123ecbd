"""JudgeShadow: judges each image by a second rule file, and says where its alerts would differ.

Nothing that is decided here reaches an alert, a count or a verdict of the job: the step has a
history of each camera of its own, and writes only to `shadow/`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import apache_beam as beam

from transforms.judge_threats import (
    PARTS,
    JudgedParts,
    JudgeInStream,
    judge_alone,
    judge_in_order,
)
from transforms.records.images import JudgedImage
from transforms.records.precedence import Version, settle
from transforms.records.text import one_line
from transforms.records.times import parse_time
from transforms.repositories import EarlierShadowAlerts
from transforms.runtime.counters import count
from transforms.runtime.live_rules import LiveRules
from transforms.runtime.read_ahead import ReadAheadDoFn
from transforms.storage import stores
from transforms.storage.shadow_alerts import compare

_ONE, _OTHERS = "one", "others"
_THREADS = 8
_MAX_WAITING = 64
_PERMANENT_ERRORS = (PermissionError, NotADirectoryError, IsADirectoryError)
_LOGGER = logging.getLogger(__name__)

Pair = tuple[JudgedImage, JudgedImage]
"""An image with the verdict of the rules, and with that of the shadow rules."""
File = tuple[str, bytes]
"""An address, and what is written there; nothing if the file is deleted."""


class _JudgeNow(beam.DoFn):
    """Pairs images with the verdict of the shadow rules, and passes on those on whose verdict
    earlier images have an effect."""

    def __init__(self, shadow: LiveRules) -> None:
        self._shadow = shadow

    def process(self, element: JudgedImage) -> Iterator[Any]:
        shadowed = judge_alone(element.image, self._shadow.current)
        if shadowed is None:
            yield beam.pvalue.TaggedOutput(_OTHERS, element)
        else:
            yield element, shadowed


class _JudgeInOrder(beam.DoFn):
    """Judges all images of a camera, in the order of time."""

    def __init__(self, shadow: LiveRules) -> None:
        self._shadow = shadow

    def process(self, element: tuple[str, Iterable[JudgedImage]]) -> Iterator[Pair]:
        images = sorted(element[1], key=_order)
        shadowed = judge_in_order((one.image for one in images), self._shadow.current)
        yield from zip(images, shadowed, strict=True)


def _order(judged: JudgedImage) -> tuple[datetime, str]:
    return parse_time(judged.image.timestamp), judged.image.sha256


class _Split(beam.DoFn):
    """Separates images that have their capture time to themselves from those that do not."""

    def process(self, element: Pair) -> Iterator[Any]:
        if element[0].image.is_contested:
            yield beam.pvalue.TaggedOutput(_OTHERS, element)
        else:
            yield element


class _CompareInBatch(beam.DoFn):
    """Compares the verdicts on all images of a capture time, of each rule file on the one that
    stands by it; deletes what an earlier run has said of this capture time."""

    def __init__(self, output: str) -> None:
        self._output = output
        self._earlier = EarlierShadowAlerts(output)

    def process(self, element: tuple[str, Iterable[Pair]]) -> Iterator[File]:
        by_rules, by_shadow = zip(*element[1], strict=True)
        judged, shadowed = _standing(by_rules), _standing(by_shadow)
        file = _file(judged, shadowed, self._output)
        if file is not None:
            yield file
        for uri in self._earlier.at(judged.image.id, judged.image.timestamp):
            if file is None or uri != file[0]:
                yield uri, b""


def _standing(images: Iterable[JudgedImage]) -> JudgedImage:
    """Returns the image that stands, of those of one capture time."""
    winner = settle(Version(judged=image) for image in images).winner
    assert winner is not None
    return winner


def _file(judged: JudgedImage, shadowed: JudgedImage, output: str) -> File | None:
    """Returns the record of an image; None if neither rule file has an alert of it."""
    alert = compare(judged, shadowed)
    if alert is None:
        return None
    count(f"shadow.{alert.difference}")
    return alert.uri(output), stores.json_bytes(alert.to_json())


class _JudgeInStream(JudgeInStream):
    """Judges each image by the history of its camera in the eyes of the shadow rules."""

    def __init__(self, shadow: LiveRules, allowed_lateness_seconds: int, output: str) -> None:
        # What is sent is recorded in the output, and nothing here is: only the state knows it.
        super().__init__(shadow, allowed_lateness_seconds, output=None)
        self._shadow_output = output

    def process(  # type: ignore[override]
        self,
        element: tuple[str, JudgedImage],
        state: Any = beam.DoFn.StateParam(JudgeInStream._HISTORY),
        forget: Any = beam.DoFn.TimerParam(JudgeInStream._FORGET),
    ) -> Iterator[File]:
        camera, judged = element
        for shadowed in super().process((camera, judged.image), state, forget):
            file = _file(judged, shadowed, self._shadow_output)
            if file is not None:
                yield file


class _Write(ReadAheadDoFn):
    """Writes and deletes files. In a stream, one thread keeps those of one image in order.

    A stream goes on, and sends its alerts, where its output permits no file of shadow rules. Other
    failures of the store fail the bundle, which the runner tries again.
    """

    def __init__(self, *, streaming: bool) -> None:
        super().__init__(threads=1 if streaming else _THREADS, max_waiting=_MAX_WAITING)
        self._tolerated = _PERMANENT_ERRORS if streaming else ()

    def work(self, element: File) -> str | None:
        """Writes or deletes a file; returns why that is not possible, or None."""
        uri, data = element
        try:
            if data:
                stores.write_bytes(uri, data)
            else:
                stores.delete(uri)
        except self._tolerated as error:
            return one_line(error)
        return None

    def outputs(self, result: str | None) -> Iterable[Any]:
        if result is not None:
            count("shadow.unwritten")
            _log_unwritten(result)
        return ()


@functools.lru_cache(maxsize=100)
def _log_unwritten(reason: str) -> None:
    _LOGGER.error(
        "what the shadow rules say can't be written: %s; give the job access to shadow/ in its "
        "output. Until then the job continues without these records.",
        reason,
    )


def _key_by_camera(judged: JudgedImage) -> tuple[str, JudgedImage]:
    return judged.image.id, judged


def _key_by_capture_time(pair: Pair) -> tuple[str, Pair]:
    image = pair[0].image
    return f"{image.id}\n{image.timestamp}", pair


class JudgeShadow(beam.PTransform):
    """Judges each image by the shadow rules too, and writes where an alert is or would be.

    Input: `JudgedParts`, all images that the rules have judged, in a batch also those
    that do not stand for their capture time.

    The shadow rules see the same images with the same detections, and decide only which of them are
    threats. Which cameras and names are accepted, at which tiles the model looks, to whom alerts
    are sent and how many at most is decided by the rules alone.

    In a batch, the records of an earlier run on the same capture times are replaced. In a stream,
    each image has a record of its own.

    Args:
      shadow: The shadow rules, which may change while a stream runs.
      output: The job's output.
      streaming: Whether the input is unbounded.
      allowed_lateness_seconds: See :class:`transforms.judge_threats.JudgeThreats`.
    """

    def __init__(
        self,
        shadow: LiveRules,
        output: str,
        *,
        streaming: bool = False,
        allowed_lateness_seconds: int = 3600,
    ) -> None:
        super().__init__()
        self._shadow = shadow
        self._output = output
        self._streaming = streaming
        self._lateness_seconds = allowed_lateness_seconds

    def expand(self, parts: JudgedParts) -> beam.PCollection[Any]:
        by_camera = beam.Map(_key_by_camera).with_output_types(tuple[str, JudgedImage])
        write = beam.ParDo(_Write(streaming=self._streaming))
        if self._streaming:
            in_stream = _JudgeInStream(self._shadow, self._lateness_seconds, self._output)
            return (
                parts[0]
                | "ByCamera" >> by_camera
                | "JudgeAsTheyCome" >> beam.ParDo(in_stream).with_output_types(File)
                | "Write" >> write
            )
        # Apart from the steps before, so that Flink runs the next one in one stage.
        judged = parts | "AllJudged" >> beam.Flatten() | "Apart" >> beam.Reshuffle()
        pairs = judged | "Judge" >> beam.ParDo(_JudgeNow(self._shadow)).with_outputs(
            _OTHERS, main=_ONE
        )
        in_order = (
            pairs[_OTHERS]
            | "ByCamera" >> by_camera
            | "GroupByCamera" >> beam.GroupByKey()
            | "JudgeInOrder" >> beam.ParDo(_JudgeInOrder(self._shadow)).with_output_types(Pair)
        )
        compare_in_batch = _CompareInBatch(self._output)
        splits = [
            (
                label,
                pairs | f"Split{label}" >> beam.ParDo(_Split()).with_outputs(_OTHERS, main=_ONE),
            )
            for label, pairs in zip(PARTS, (pairs[_ONE], in_order), strict=True)
        ]
        alone = [
            part[_ONE]
            | f"Alone{label}" >> beam.Map(_alone).with_output_types(tuple[str, Iterable[Pair]])
            | f"CompareAlone{label}" >> beam.ParDo(compare_in_batch).with_output_types(File)
            for label, part in splits
        ]
        together = (
            [part[_OTHERS] for _, part in splits]
            | "Contested" >> beam.Flatten()
            | "ByCaptureTime" >> beam.Map(_key_by_capture_time).with_output_types(tuple[str, Pair])
            | "GroupByCaptureTime" >> beam.GroupByKey()
            | "CompareTogether" >> beam.ParDo(compare_in_batch).with_output_types(File)
        )
        return (*alone, together) | "Files" >> beam.Flatten() | "Write" >> write


def _alone(pair: Pair) -> tuple[str, Iterable[Pair]]:
    return "", [pair]
