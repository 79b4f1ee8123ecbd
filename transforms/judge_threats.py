"""JudgeThreats: finds the threats in an image by the rules of its camera.

Rules that look back (`repeats`, `track`, `confirm`, `cooldown`) judge an image by earlier images of
its camera. A batch sorts the images of such a camera by time before it judges them. A stream can't
wait: it judges each image on arrival, by the earlier images that have arrived, and keeps its
content in state for later ones. Images that arrive in order get the same verdicts from both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import apache_beam as beam
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.utils.timestamp import Duration, Timestamp

import rules
from transforms.alerting.decisions import (
    CameraRecord,
    UnusableRecordError,
    read_record,
    write_record,
)
from transforms.count_threats import event_time
from transforms.records.clocks import is_misdated
from transforms.records.codecs import VersionedCoder, keep_plain
from transforms.records.images import DetectedImage, JudgedImage
from transforms.records.times import EPOCH, from_unix, parse_time
from transforms.runtime.counters import count
from transforms.runtime.live_rules import LiveRules
from transforms.storage import stores

HISTORIES: VersionedCoder[rules.History] = VersionedCoder(
    rules.History, version=7, upgrades=dict.fromkeys(range(1, 7), keep_plain)
)
"""Encodes the history of a camera, as a stream's state."""

_KEPT_LONGER = Duration(600)
"""How much longer than needed a history is kept, so that not each image has to prolong it."""

JUDGED = "judged"
LOOKS_BACK = "looks_back"


def judge(
    image: DetectedImage,
    ruleset: rules.Rules,
    history: rules.History | None = None,
    *,
    arrived: int | None = None,
) -> JudgedImage:
    """Judges one image.

    Args:
      image: The image with its detections.
      ruleset: The rules.
      history: The earlier images of its camera; the image is added. None for no history.
      arrived: When it arrived, in microseconds since 1970, if its capture time is not to be
        trusted; otherwise None.
    """
    return JudgedImage(image, ruleset.judge(replace(image.for_rules(), arrived=arrived), history))


def judge_alone(image: DetectedImage, ruleset: rules.Rules) -> JudgedImage | None:
    """Judges an image on whose verdict earlier images have no effect; returns None for others.

    Where only a cooldown looks back, these are the images without an incident: they neither need
    the history nor change it.
    """
    camera = ruleset.for_camera(image.id)
    if camera.looks_back:
        return None
    judged = judge(image, ruleset)
    has_effect = camera.needs_history and judged.verdict.incident_number is not None
    return None if has_effect else judged


def _arrival_if_misdated(image: DetectedImage) -> int | None:
    """Returns when an image arrived, in microseconds since 1970, if its capture time is not to be
    trusted; None if it is, or if its arrival is unknown.

    A time of its file is no arrival if the camera's wrong clock has given it.
    """
    changed = None if image.changed is None else from_unix(image.changed)
    told = None if image.stream_time is None else parse_time(image.stream_time)
    for arrived in (changed, told):
        if arrived is not None and not is_misdated(arrived):
            is_wrong = is_misdated(parse_time(image.timestamp), arrived)
            return (arrived - EPOCH) // timedelta(microseconds=1) if is_wrong else None
    return None


def judge_in_order(images: Iterable[DetectedImage], ruleset: rules.Rules) -> Iterator[JudgedImage]:
    """Judges the images of one camera, which may come in any order, in the order of time."""

    def order(image: DetectedImage) -> tuple[datetime, str]:
        return parse_time(image.timestamp), image.sha256

    history = rules.History()
    for image in sorted(images, key=order):
        yield judge(image, ruleset, history)


class _Judge(beam.DoFn):
    """Judges images on whose verdict earlier images have no effect, and passes the others on."""

    def __init__(self, ruleset: rules.Rules) -> None:
        self._rules = ruleset

    def process(self, element: DetectedImage) -> Iterator[Any]:
        judged = judge_alone(element, self._rules)
        yield beam.pvalue.TaggedOutput(LOOKS_BACK, element) if judged is None else judged


class _JudgeCameraInBatch(beam.DoFn):
    """Judges all images of a camera, in the order of time."""

    def __init__(self, ruleset: rules.Rules) -> None:
        self._rules = ruleset

    def process(self, element: tuple[str, Iterable[DetectedImage]]) -> Iterator[JudgedImage]:
        yield from judge_in_order(element[1], self._rules)


class JudgeInStream(beam.DoFn):
    """Judges each image by the history of its camera so far, and adds it to the history.

    The history of a camera is cleared once no image that still counts can need it: when event time
    exceeds its newest image, of those since it holds anything, by the time that its rules look back
    plus the allowed lateness, and up to `_KEPT_LONGER` more. An image from which there is nothing
    to remember writes no state and sets no timer, as long as the timer that is set is late enough
    by the rules of now: an edit can make them look back longer.
    """

    _HISTORY = ReadModifyWriteStateSpec("history", HISTORIES)
    _FORGET = TimerSpec("forget", TimeDomain.WATERMARK)

    def __init__(
        self, ruleset: LiveRules, allowed_lateness_seconds: int, output: str | None
    ) -> None:
        self._rules = ruleset
        self._output = output
        self._lateness_seconds = allowed_lateness_seconds

    def process(
        self,
        element: tuple[str, DetectedImage],
        state: Any = beam.DoFn.StateParam(_HISTORY),
        forget: Any = beam.DoFn.TimerParam(_FORGET),
    ) -> Iterator[JudgedImage]:
        camera, image = element
        self._rules.refresh()
        ruleset = self._rules.current
        if not ruleset.needs_history(camera):
            judged = judge(image, ruleset)
        else:
            stored: rules.History | None = state.read()
            history = rules.History() if stored is None else stored
            before, newest = _content(history), history.newest
            judged = self._judge(image, ruleset, history)
            is_new = before is None or _content(history) != before
            needed = self._forget_at(history, image, ruleset.for_camera(camera))
            is_kept = needed <= Timestamp(micros=history.kept_until)
            if is_new or (stored is not None and not is_kept):
                until = max(needed + _KEPT_LONGER, Timestamp(micros=history.kept_until))
                history.kept_until = until.micros
                state.write(history)
                forget.set(until)
            else:
                history.newest = newest  # A runner may hand out this object again in the bundle.
        yield judged

    def _judge(
        self, image: DetectedImage, ruleset: rules.Rules, history: rules.History
    ) -> JudgedImage:
        """Judges an image. If it has an alert, the output records this before it takes effect.

        After a crash, the history is older than the alerts that were sent, and images arrive in
        another order. So before an image gets an alert, alerts that the history lacks are read from
        the output, and the image is judged by them too.
        """
        arrived = _arrival_if_misdated(image)
        known_ids = {alert.alert_id for alert in history.alerts}
        judged = judge(image, ruleset, history, arrived=arrived)
        new = _new_alert(history, known_ids)
        if new is None or self._output is None:
            return judged
        uri = stores.cooldowns_uri(self._output, image.id)
        rules_name = _name_of_rules(ruleset, image.id)
        try:
            recorded = (read_record(uri, CameraRecord) or CameraRecord()).alerts_by(rules_name)
        except UnusableRecordError:
            count("cooldowns.unreadable")
            return judged
        if any(alert.alert_id not in known_ids for alert in recorded):
            history.alerts.remove(new)
            rules.restore_alerts(history.alerts, recorded)
            known_ids = {alert.alert_id for alert in history.alerts}
            judged = judge(image, ruleset, history, arrived=arrived)
            new = _new_alert(history, known_ids)
        if new is not None:
            past_alerts = (_for_record(alert) for alert in history.alerts)
            write_record(uri, CameraRecord(tuple(past_alerts), rules_name))
        return judged

    def _forget_at(
        self, history: rules.History, image: DetectedImage, camera: rules.CameraRules
    ) -> Timestamp:
        """Returns a time later than event time, even if the camera's clock is behind."""
        newest = _newest(history, image)
        horizon = Duration(camera.horizon.total_seconds())
        return newest + horizon + Duration(self._lateness_seconds)

    @on_timer(_FORGET)
    def forget_camera(self, state: Any = beam.DoFn.StateParam(_HISTORY)) -> None:
        """Clears the history of a camera that was silent for longer than its rules look back."""
        state.clear()


def _content(history: rules.History) -> bytes | None:
    """Returns what a history holds but for its times; None if each image changes it."""
    if history.images or history.tracked:
        return None
    return HISTORIES.encode(replace(history, newest=0, kept_until=0))


def _newest(history: rules.History, image: DetectedImage) -> Timestamp:
    newest = Timestamp(micros=history.newest)
    if image.stream_time is None:
        return newest
    return max(newest, event_time(image.stream_time))


def _name_of_rules(ruleset: rules.Rules, camera: str) -> str:
    """Names the rules of a camera by their content; edits of other cameras don't change it."""
    _, _, described = rules.describe_camera(ruleset, camera).partition("\n")
    return hashlib.sha256(described.encode()).hexdigest()[:12]


def _for_record(alert: rules.PastAlert) -> rules.PastAlert:
    """Returns what a record keeps of an alert: not the images that it covers so far."""
    return replace(
        alert, covered=[], covered_before=0, was_restored=False, last_arrived=None, spans={}
    )


def _new_alert(history: rules.History, known_ids: set[str]) -> rules.PastAlert | None:
    return next((alert for alert in history.alerts if alert.alert_id not in known_ids), None)


def _key_by_camera(image: DetectedImage) -> tuple[str, DetectedImage]:
    return image.id, image


JudgedParts = tuple[beam.PCollection[JudgedImage], ...]
"""Judged images, in one or two collections: in a batch, those that were judged at once, and those
that were judged in the order of time. What comes next is applied to each, because Beam's in-process
runner would bring them together only after all images were detected, and Flink would show wrong
counters: it runs a step behind both in two stages, and shows the counters of only one of them."""

PARTS = ("", "InOrder")
"""Ends the labels of the steps that are applied to each collection."""


class JudgeThreats(beam.PTransform):
    """Judges each image by its camera's rules.

    Input: `PCollection[DetectedImage]`, which may hold several images of one camera and capture
    time: each is judged by earlier images. Output: `JudgedParts`.

    In a batch, images are grouped by camera if its rules look back, but where only a cooldown does,
    only those with an incident. A worker holds all these records of one camera at a time: about
    3 kB for an image with six detections, or 5 MB for a day with an image per minute. Other images
    are judged without grouping. In a stream, all images
    are keyed by camera, as an edit of the rules may add a rule that looks back. The state of a
    camera is its :class:`rules.History` of some kilobytes; it is empty if no rule looks back.

    Args:
      ruleset: The rules, which may change while a stream runs.
      streaming: Whether the input is unbounded: each image is then judged on arrival.
      allowed_lateness_seconds: How much longer than its rules look back a stream keeps the history
        of a camera, for late images.
      output: The job's output, where a stream records which images have alerts, so that cooldowns
        hold after a crash; None to keep them in state only.
    """

    def __init__(
        self,
        ruleset: rules.Rules | LiveRules,
        *,
        streaming: bool = False,
        allowed_lateness_seconds: int = 3600,
        output: str | None = None,
    ) -> None:
        super().__init__()
        self._rules = LiveRules.of(ruleset)
        self._streaming = streaming
        self._judge_in_stream = JudgeInStream(self._rules, allowed_lateness_seconds, output)

    def expand(self, images: beam.PCollection[DetectedImage]) -> JudgedParts:
        by_camera = beam.Map(_key_by_camera).with_output_types(tuple[str, DetectedImage])
        if self._streaming:
            judge_in_stream = beam.ParDo(self._judge_in_stream).with_output_types(JudgedImage)
            return (images | "ByCamera" >> by_camera | "JudgeAsTheyCome" >> judge_in_stream,)
        judge_now = beam.ParDo(_Judge(self._rules.current))
        if not self._rules.current.any_needs_history:
            return (images | "Judge" >> judge_now.with_output_types(JudgedImage),)
        judged = images | "Judge" >> judge_now.with_outputs(LOOKS_BACK, main=JUDGED)
        in_order = (
            judged[LOOKS_BACK]
            | "ByCamera" >> by_camera
            | "GroupByCamera" >> beam.GroupByKey()
            | "JudgeInOrder" >> beam.ParDo(_JudgeCameraInBatch(self._rules.current))
        )
        return judged[JUDGED], in_order
