"""How good alerts are: precision, recall and false alerts per camera and day. Pure functions.

What counts is the alert, one picture at most one. A picture is a *threat* where what is in it is
something that its camera is to raise the alert for. Its alert is *right* where it tells of a label
that is such a threat, and *false* otherwise. A cooldown sends nothing for a picture that comes soon
after an alert; a threat in it is *covered* by the incident of that alert, unless that alert is
known to be false: then nobody was told of this threat.

Precision is right alerts of all alerts sent. Recall is threats with a right alert of all threats;
`Tally.recall_covered` counts what is covered too, which is why the two are shown together.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import NormalDist
from typing import Any, NamedTuple

from beam_pipeline.evaluation.truth import TrueBox
from rules import Detection, alert_id
from transforms.times import parse_time

CONFIDENCE = 0.95
_Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)

Interval = tuple[float, float]


@dataclass(frozen=True)
class Picture:
    """One picture: what its camera was to raise the alert for, and what was alerted.

    Attributes:
      id: The camera.
      timestamp: Canonical time in UTC.
      wanted: The labels in it that are real threats, each with the rule that is to tell of it; None
        where the rule is not known.
      alerted: The labels of severity `alert` in its verdict, each with the rule that told of it.
      suppressed_by: The id of the alert in whose cooldown it came; None where its alert was sent,
        or there was none.
      looked_for: What its camera is to raise the alert for: labels with rules.
    """

    id: str
    timestamp: str
    wanted: Mapping[str, str | None]
    alerted: frozenset[tuple[str, str]]
    suppressed_by: str | None
    looked_for: frozenset[tuple[str, str]]

    @property
    def is_right(self) -> bool:
        """Whether its alert, sent or suppressed, tells of a real threat."""
        return any(label in self.wanted for label, _ in self.alerted)


class Seen(NamedTuple):
    """A picture as one group of them counts it.

    Attributes:
      threat: There is a real threat of the group.
      caught: The verdict tells of that threat.
      fired: The verdict calls for an alert of the group.
      right: That alert tells of a real threat.
    """

    threat: bool
    caught: bool
    fired: bool
    right: bool


@dataclass(frozen=True)
class Tally:
    """What was counted in a group of pictures.

    Attributes:
      pictures: All of them.
      camera_days: For each camera the UTC days on which there is a picture of it.
      threats: Pictures with a real threat.
      caught: Of these, those whose right alert was sent.
      covered: Of these, those whose alert the cooldown of another one held back.
      behind_false: Of these, those whose alert the cooldown of a false one held back: missed.
      alerts: Alerts sent.
      right: Of these, the right ones.
      suppressed: Alerts that a cooldown held back, right or not.
      incidents: Runs of threats of one camera.
      incidents_caught: Of these, those of which an alert told.
    """

    pictures: int
    camera_days: int
    threats: int
    caught: int
    covered: int
    behind_false: int
    alerts: int
    right: int
    suppressed: int
    incidents: int
    incidents_caught: int

    @property
    def false_alerts(self) -> int:
        """Alerts sent that are not right."""
        return self.alerts - self.right

    @property
    def missed(self) -> int:
        """Threats of which no alert told."""
        return self.threats - self.caught - self.covered

    @property
    def precision(self) -> float | None:
        """Right alerts of all alerts sent; None without any."""
        return share(self.right, self.alerts)

    @property
    def recall(self) -> float | None:
        """Threats with an alert of their own, of all threats; None without any."""
        return share(self.caught, self.threats)

    @property
    def recall_covered(self) -> float | None:
        """Threats with an alert of their own or of their incident, of all threats."""
        return share(self.caught + self.covered, self.threats)

    @property
    def recall_of_incidents(self) -> float | None:
        """Incidents of which an alert told, of all incidents; None without any."""
        return share(self.incidents_caught, self.incidents)

    @property
    def false_per_camera_day(self) -> float | None:
        """False alerts that a camera sends in a day; None without a picture."""
        return share(self.false_alerts, self.camera_days)

    def to_json(self) -> dict[str, Any]:
        """All numbers; shares with 4 decimals and, where they are of independent trials or nearly
        so, with their interval."""
        return {
            "pictures": self.pictures,
            "camera_days": self.camera_days,
            "threats": self.threats,
            "alerts": self.alerts,
            "right": self.right,
            "false": self.false_alerts,
            "caught": self.caught,
            "suppressed": self.suppressed,
            "covered": self.covered,
            "behind_false": self.behind_false,
            "missed": self.missed,
            "incidents": self.incidents,
            "incidents_caught": self.incidents_caught,
            "precision": _rounded(self.precision),
            "precision_interval": _rounded_all(wilson(self.right, self.alerts)),
            "recall": _rounded(self.recall),
            "recall_interval": _rounded_all(wilson(self.caught, self.threats)),
            "recall_covered": _rounded(self.recall_covered),
            "recall_covered_interval": _rounded_all(
                wilson(self.caught + self.covered, self.threats)
            ),
            "recall_of_incidents": _rounded(self.recall_of_incidents),
            "false_per_camera_day": _rounded(self.false_per_camera_day),
        }


def share(part: int, whole: int) -> float | None:
    """A part of a whole; None where there is no whole."""
    return part / whole if whole else None


def wilson(successes: int, trials: int) -> Interval | None:
    """Wilson's score interval of a share at 95 % confidence; None without a trial.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    if not trials:
        return None
    rate, square = successes / trials, _Z * _Z
    middle = rate + square / (2 * trials)
    reach = _Z * math.sqrt(rate * (1 - rate) / trials + square / (4 * trials * trials))
    scale = 1 + square / trials
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 4)


def _rounded_all(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [round(end, 4) for end in interval]


# Counting


def total(pictures: Iterable[Picture], gap: timedelta) -> Tally:
    """All pictures as one group.

    Args:
      pictures: Those of each camera together and in order of time; the same holds for what follows.
      gap: Threats of one camera that follow on each other within this time are one incident.
    """
    listed = list(pictures)
    return _tally([(one, _all_of(one)) for one in listed], false_alerts(listed), gap)


def by_id(pictures: Iterable[Picture], gap: timedelta) -> dict[str, Tally]:
    """Each camera's pictures as a group."""
    return {id: total(its, gap) for id, its in sorted(_cameras(pictures).items())}


def by_label(pictures: Sequence[Picture], gap: timedelta) -> dict[str, Tally]:
    """For each label the pictures of the cameras that are to raise the alert for it. A picture
    counts for a label by what its verdict says of this label, whatever it says of others."""

    def seen(one: Picture, label: str) -> Seen:
        threat = label in one.wanted
        fired = any(told == label for told, _ in one.alerted)
        return Seen(threat, threat and fired, fired, threat and fired)

    return _grouped(pictures, gap, lambda label, _: label, seen)


def by_rule(pictures: Sequence[Picture], gap: timedelta) -> dict[str, Tally]:
    """For each rule the pictures of the cameras that it holds for. Alerts count for the rule that
    told of a label, threats for the rule that was to."""

    def seen(one: Picture, rule: str) -> Seen:
        wanted = {label for label, by in one.wanted.items() if by == rule}
        told = {label for label, by in one.alerted if by == rule}
        return Seen(
            threat=bool(wanted),
            caught=any(label in wanted for label, _ in one.alerted),
            fired=bool(told),
            right=any(label in one.wanted for label in told),
        )

    return _grouped(pictures, gap, lambda _, rule: rule, seen)


def false_alerts(pictures: Iterable[Picture]) -> frozenset[str]:
    """The ids of the alerts that were sent and are false."""
    return frozenset(
        alert_id(one.id, one.timestamp, "alert")
        for one in pictures
        if one.alerted and one.suppressed_by is None and not one.is_right
    )


def incidents(moments: Sequence[datetime], gap: timedelta) -> list[int]:
    """For each moment, in order of time, the number of its incident: a new one begins where more
    than `gap` has passed since the moment before."""
    numbers: list[int] = []
    for place, moment in enumerate(moments):
        follows = place > 0 and moment - moments[place - 1] <= gap
        numbers.append(numbers[-1] + (not follows) if numbers else 0)
    return numbers


def _all_of(one: Picture) -> Seen:
    return Seen(bool(one.wanted), one.is_right, bool(one.alerted), one.is_right)


def _cameras(pictures: Iterable[Picture]) -> dict[str, list[Picture]]:
    cameras: dict[str, list[Picture]] = {}
    for one in pictures:
        cameras.setdefault(one.id, []).append(one)
    return cameras


def _grouped(
    pictures: Sequence[Picture],
    gap: timedelta,
    group: Callable[[str, str | None], str | None],
    seen: Callable[[Picture, str], Seen],
) -> dict[str, Tally]:
    cameras, false = _cameras(pictures), false_alerts(pictures)
    groups: dict[str, set[str]] = {}
    for one in pictures:
        for label, rule in {*one.looked_for, *one.alerted, *one.wanted.items()}:
            name = group(label, rule)
            if name is not None:
                groups.setdefault(name, set()).add(one.id)
    return {
        name: _tally(
            [(one, seen(one, name)) for id in sorted(ids) for one in cameras[id]], false, gap
        )
        for name, ids in sorted(groups.items())
    }


def _tally(
    pictures: Sequence[tuple[Picture, Seen]], false: Collection[str], gap: timedelta
) -> Tally:
    caught: list[Picture] = []
    covered: list[Picture] = []
    behind_false = 0
    for one, seen in pictures:
        if not seen.caught:
            continue
        if one.suppressed_by is None:
            caught.append(one)
        elif one.suppressed_by in false:
            behind_false += 1
        else:
            covered.append(one)
    threats = [one for one, seen in pictures if seen.threat]
    runs = _runs(threats, gap)
    fired = [(one, seen) for one, seen in pictures if seen.fired]
    sent = [seen for one, seen in fired if one.suppressed_by is None]
    return Tally(
        pictures=len(pictures),
        camera_days=len({(one.id, one.timestamp[:10]) for one, _ in pictures}),
        threats=len(threats),
        caught=len(caught),
        covered=len(covered),
        behind_false=behind_false,
        alerts=len(sent),
        right=sum(seen.right for seen in sent),
        suppressed=len(fired) - len(sent),
        incidents=len(set(runs.values())),
        incidents_caught=len({runs[id(one)] for one in (*caught, *covered)}),
    )


def _runs(threats: Sequence[Picture], gap: timedelta) -> dict[int, tuple[str, int]]:
    """The incident of each picture, by the picture's identity."""
    runs: dict[int, tuple[str, int]] = {}
    for camera, its in _cameras(threats).items():
        numbers = incidents([parse_time(one.timestamp) for one in its], gap)
        runs |= {id(one): (camera, number) for one, number in zip(its, numbers, strict=True)}
    return runs


# Boxes


@dataclass(frozen=True)
class AveragePrecision:
    """How well the boxes of one label are found, whatever the rules.

    Attributes:
      boxes: Boxes in the truth that are no crowds.
      ap: Mean of the average precision at IoU 0.50, 0.55 … 0.95, 0 to 1: COCO's AP.
      ap50: Average precision at IoU 0.50.
    """

    boxes: int
    ap: float
    ap50: float


@dataclass(frozen=True)
class BoxedPicture:
    """One picture with boxes: what is in it, and what was found.

    Attributes:
      size: Width and height in pixels.
      true: What is in it; boxes are fractions of the picture.
      found: The same.
    """

    size: tuple[int, int]
    true: Sequence[TrueBox]
    found: Sequence[Detection]


def average_precision(pictures: Sequence[BoxedPicture]) -> dict[str, AveragePrecision]:
    """COCO's average precision (at most 100 detections a picture) of each label in the truth, by
    pycocotools: https://cocodataset.org/#detection-eval"""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    boxes = Counter(box.label for one in pictures for box in one.true if not box.is_crowd)
    numbers = {label: number for number, label in enumerate(sorted(boxes), 1)}

    def in_pixels(bbox: Sequence[float], size: tuple[int, int]) -> list[float]:
        return [side * length for side, length in zip(bbox, (*size, *size), strict=True)]

    def annotations(
        of: Callable[[BoxedPicture], Iterable[tuple[str, Sequence[float], dict[str, Any]]]],
    ) -> Iterator[dict[str, Any]]:
        number = 0
        for image, one in enumerate(pictures):
            for label, bbox, more in of(one):
                if label not in numbers:
                    continue
                number += 1
                box = in_pixels(bbox, one.size)
                yield {
                    "id": number,
                    "image_id": image,
                    "category_id": numbers[label],
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                    **more,
                }

    def dataset(entries: Iterable[dict[str, Any]]) -> Any:
        coco = COCO()
        coco.dataset = {
            "images": [{"id": image} for image in range(len(pictures))],
            "categories": [{"id": number} for number in numbers.values()],
            "annotations": list(entries),
        }
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):  # It reports its progress there.
        true = dataset(
            annotations(
                lambda one: (
                    (box.label, box.bbox, {"iscrowd": int(box.is_crowd)}) for box in one.true
                )
            )
        )
        found = dataset(
            annotations(
                lambda one: ((box.label, box.bbox, {"score": box.conf}) for box in one.found)
            )
        )
        evaluation = COCOeval(true, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    # By IoU, recall, category, area of the box (0: all) and detections a picture (2: 100).
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    return {
        label: AveragePrecision(
            boxes[label],
            round(float(precision[:, :, number - 1].mean()), 4),
            round(float(precision[0, :, number - 1].mean()), 4),
        )
        for label, number in numbers.items()
    }
