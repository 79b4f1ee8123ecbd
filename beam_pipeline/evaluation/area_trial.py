"""What a zone or mask would have changed in the alerts of a camera, counted while it is drawn.

The images are judged twice in the order of time, by the rules as they are and with the area.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import rules
from beam_pipeline.evaluation.areas import DrawnArea
from beam_pipeline.evaluation.mark_facts import Facts, Key
from rules.geometry import Bbox
from transforms.records.times import parse_time

_LOOKED_AFTER = 100
"""Images between two looks whether the result is still wanted."""


class AbandonedError(Exception):
    """Nobody waits for the result any more."""


@dataclass(frozen=True)
class SentAlert:
    """An image that counts.

    Attributes:
      timestamp: The capture time, canonical.
      labels: The labels of its threats of severity `alert`.
      is_sent: Whether an alert is sent for it.
      threats: The label and box of each threat.
    """

    timestamp: str
    labels: frozenset[str]
    is_sent: bool
    threats: tuple[tuple[str, Bbox], ...]


@dataclass(frozen=True)
class AreaTrial:
    """What an area would have changed.

    Attributes:
      images: How many images were judged and count.
      alerts: Alerts that are sent by the rules as they are.
      lost: Of these, those that would not have been sent.
      lost_right: Of the lost ones, those that are marked right.
      lost_false: Of the lost ones, those that are marked false.
      gained: Alerts that would have been sent and are not.
      threats: Threats by the rules as they are, of the labels that the area is about.
      inside: Of these, those that lie in the area, by its anchor.
    """

    images: int
    alerts: int
    lost: int
    lost_right: int
    lost_false: int
    gained: int
    threats: int
    inside: int


def judge(
    images: Iterable[rules.Image],
    ruleset: rules.Rules,
    since: datetime | None,
    is_wanted: Callable[[], bool] = lambda: True,
) -> tuple[SentAlert, ...]:
    """Returns what rules make of the images of a camera.

    Args:
      images: All images of the camera in the order of time, with those before `since` to which the
        rules look back.
      ruleset: The rules.
      since: The time (UTC) from which images count; None for all.
      is_wanted: Asked now and then whether to go on.

    Raises:
      AbandonedError: The result is not wanted any more.
    """
    history = rules.History()
    seen = []
    for number, image in enumerate(images):
        if number % _LOOKED_AFTER == 0 and not is_wanted():
            raise AbandonedError
        verdict = ruleset.judge(image, history)
        if since is not None and parse_time(image.timestamp) < since:
            continue
        labels = frozenset(one.label for one in verdict.threats if one.severity == "alert")
        boxes = tuple((one.label, image.detections[one.detection].bbox) for one in verdict.threats)
        seen.append(SentAlert(image.timestamp, labels, verdict.alerts, boxes))
    return tuple(seen)


def compare(
    before: Sequence[SentAlert],
    after: Sequence[SentAlert],
    facts: Mapping[Key, Facts],
    area: DrawnArea,
) -> AreaTrial:
    """Returns what an area changes.

    Args:
      before: What the rules as they are make of the images.
      after: What the rules with the area make of the same images.
      facts: What marks say of images.
      area: The area.
    """
    pairs = list(zip(before, after, strict=True))
    lost = [old for old, new in pairs if old.is_sent and not new.is_sent]
    said = [_is_right(one, facts.get((area.camera, one.timestamp))) for one in lost]
    boxes = [box for one in before for label, box in one.threats if area.is_about(label)]
    return AreaTrial(
        images=len(before),
        alerts=sum(one.is_sent for one in before),
        lost=len(lost),
        lost_right=said.count(True),
        lost_false=said.count(False),
        gained=sum(new.is_sent and not old.is_sent for old, new in pairs),
        threats=len(boxes),
        inside=sum(map(area.area.contains, boxes)),
    )


def _is_right(alert: SentAlert, facts: Facts | None) -> bool | None:
    return None if facts is None else facts.is_right(alert.labels)


def anchor_points(
    seen: Sequence[SentAlert], area: DrawnArea, number: int
) -> list[tuple[float, float, bool]]:
    """Returns where the threats that an area is about have their anchor, the newest first.

    It is x, y, and whether the box lies in the area. Of a box that is judged by its overlap, the
    point is the center. A point outside the frame is moved to its edge, as the rules do it.

    Args:
      seen: What the rules make of the images.
      area: The area.
      number: How many at most.
    """
    points: list[tuple[float, float, bool]] = []
    shape = area.area
    for one in reversed(seen):
        for label, box in one.threats:
            if area.is_about(label):
                left, top, width, height = box
                down = height if area.anchor == "bottom_center" else height / 2
                point = _in_frame(left + width / 2), _in_frame(top + down)
                points.append((*point, shape.contains(box)))
        if len(points) >= number:
            break
    return points[:number]


def _in_frame(value: float) -> float:
    return round(min(max(value, 0.0), 1.0), 4)
