"""How good alerts are: precision, recall and false alerts per camera and day. Pure functions.

What counts is the alert, one image at most one. An image is a *threat* where what is in it is
something that its camera is to raise the alert for. Its alert is *right* where it is for a label
that is such a threat, and *false* otherwise. A cooldown sends nothing for an image that comes soon
after an alert; a threat in it is *covered* by the incident of that alert, unless that alert is
known to be false: then nobody was alerted of this threat.

Precision is right alerts of all alerts sent. Recall is threats with a right alert of all threats;
`EvaluationTally.recall_covered` counts what is covered too, so the two are shown together.

An *incident* is caught if a right alert was sent in it. One whose threats are all covered by the
alert of another incident is counted apart: nobody was told that somebody came again.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import NormalDist, median
from typing import Any, NamedTuple

from beam_pipeline.evaluation.truth import TrueBox
from rules import Detection, alert_id
from transforms.records.times import parse_time

CONFIDENCE = 0.95
_Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)

Interval = tuple[float, float]


@dataclass(frozen=True)
class EvaluatedImage:
    """One image: what its camera was to raise the alert for, and what was alerted.

    Attributes:
      id: The camera.
      timestamp: Canonical time in UTC.
      wanted: The labels in it that are real threats, each with the rule that is to alert; None
        where the rule is not known.
      alerted: The labels of severity `alert` in its verdict, each with the rule that alerted.
      suppressed_by: The id of the alert in whose cooldown it is; None where its alert was sent,
        or there was none.
      looked_for: What its camera is to raise the alert for: labels with rules.
      covered_since: The capture time of the alert in whose cooldown it is, if the image of that
        alert is not counted itself, as it has no truth; None otherwise.
      known: The labels of which it is known whether they are in it; None for all. Marks say nothing
        of the others.
    """

    id: str
    timestamp: str
    wanted: Mapping[str, str | None]
    alerted: frozenset[tuple[str, str]]
    suppressed_by: str | None
    looked_for: frozenset[tuple[str, str]]
    covered_since: str | None = None
    known: frozenset[str] | None = None

    @property
    def is_right(self) -> bool:
        """Whether its alert, sent or suppressed, is for a real threat."""
        return any(label in self.wanted for label, _ in self.alerted)


class ImageOutcome(NamedTuple):
    """An image as one group of them counts it.

    Attributes:
      threat: There is a real threat of the group.
      caught: The verdict alerts for that threat.
      fired: The verdict calls for an alert of the group.
      right: That alert is for a real threat.
      labels: The labels of the group that the alert names.
      false_labels: Of these, those that are no real threat in the image.
    """

    threat: bool
    caught: bool
    fired: bool
    right: bool
    labels: int
    false_labels: int


@dataclass(frozen=True)
class EvaluationTally:
    """What was counted in a group of images.

    Attributes:
      images: All of them.
      camera_days: For each camera the UTC days on which there is an image of it.
      threats: Images with a real threat.
      caught: Of these, those whose right alert was sent.
      covered: Of these, those whose alert the cooldown of another one suppressed.
      behind_false: Of these, those whose alert the cooldown of a false one suppressed: missed.
      alerts: Alerts sent.
      right: Of these, the right ones.
      labels: Labels that the alerts sent name, each once in an alert.
      false_labels: Of these, those that are no real threat in their image.
      suppressed: Alerts that a cooldown suppressed, right or not.
      incidents: Runs of threats of one camera.
      incidents_caught: Of these, those in which a right alert was sent.
      incidents_covered: Of the others, those with a threat that is covered.
      first_alerts: For each caught incident the seconds from its first image to that of its first
        right alert, in ascending order.
    """

    images: int
    camera_days: int
    threats: int
    caught: int
    covered: int
    behind_false: int
    alerts: int
    right: int
    labels: int
    false_labels: int
    suppressed: int
    incidents: int
    incidents_caught: int
    incidents_covered: int
    first_alerts: tuple[float, ...]

    @property
    def false_alerts(self) -> int:
        """Alerts sent that are not right."""
        return self.alerts - self.right

    @property
    def missed(self) -> int:
        """Threats without an alert."""
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
        """Incidents in which an alert was sent, of all incidents; None without any."""
        return share(self.incidents_caught, self.incidents)

    @property
    def first_alert_median(self) -> float | None:
        """The median of the seconds to the first alert; None if no incident is caught."""
        return median(self.first_alerts) if self.first_alerts else None

    @property
    def first_alert_p95(self) -> float | None:
        """The seconds within which 95 % of the caught incidents have their first alert."""
        if not self.first_alerts:
            return None
        return self.first_alerts[math.ceil(0.95 * len(self.first_alerts)) - 1]

    @property
    def false_per_camera_day(self) -> float | None:
        """False alerts that a camera sends in a day; None without an image."""
        return share(self.false_alerts, self.camera_days)

    def to_json(self) -> dict[str, Any]:
        """Returns all numbers; shares with 4 decimals and, where they are of independent trials or
        nearly so, with their interval.
        """
        return {
            "pictures": self.images,
            "camera_days": self.camera_days,
            "threats": self.threats,
            "alerts": self.alerts,
            "right": self.right,
            "false": self.false_alerts,
            "labels": self.labels,
            "false_labels": self.false_labels,
            "caught": self.caught,
            "suppressed": self.suppressed,
            "covered": self.covered,
            "behind_false": self.behind_false,
            "missed": self.missed,
            "incidents": self.incidents,
            "incidents_caught": self.incidents_caught,
            "incidents_covered": self.incidents_covered,
            "first_alert_seconds": {
                "median": self.first_alert_median,
                "p95": self.first_alert_p95,
            },
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
    """Returns a part divided by the whole; None if the whole is 0."""
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


def total(images: Iterable[EvaluatedImage], gap: timedelta) -> EvaluationTally:
    """Returns all images as one group.

    Args:
      images: Those of each camera together and in order of time; the same holds for what follows.
      gap: Threats of one camera that follow on each other within this time are one incident.
    """
    listed = list(images)
    return _tally([(image, _all_of(image)) for image in listed], false_alerts(listed), gap)


def by_id(images: Iterable[EvaluatedImage], gap: timedelta) -> dict[str, EvaluationTally]:
    """Returns each camera's images as a group."""
    return {id: total(own_images, gap) for id, own_images in sorted(_cameras(images).items())}


def by_label(images: Sequence[EvaluatedImage], gap: timedelta) -> dict[str, EvaluationTally]:
    """For each label the images of the cameras that are to raise the alert for it. An image
    counts for a label by what its verdict says of this label, whatever it says of others."""

    def outcome(image: EvaluatedImage, label: str) -> ImageOutcome:
        threat = label in image.wanted
        fired = any(alerted_label == label for alerted_label, _ in image.alerted)
        right = threat and fired
        return ImageOutcome(threat, right, fired, right, fired, fired and not threat)

    return _grouped(images, gap, lambda label, _: label, outcome)


def by_rule(images: Sequence[EvaluatedImage], gap: timedelta) -> dict[str, EvaluationTally]:
    """For each rule the images of the cameras that it holds for. Alerts count for the rule that
    alerted for a label, threats for the rule that was to."""

    def outcome(image: EvaluatedImage, rule: str) -> ImageOutcome:
        wanted = {label for label, wanted_rule in image.wanted.items() if wanted_rule == rule}
        alerted = {label for label, alerting_rule in image.alerted if alerting_rule == rule}
        return ImageOutcome(
            threat=bool(wanted),
            caught=any(label in wanted for label, _ in image.alerted),
            fired=bool(alerted),
            right=any(label in image.wanted for label in alerted),
            labels=len(alerted),
            false_labels=len(alerted - image.wanted.keys()),
        )

    return _grouped(images, gap, lambda _, rule: rule, outcome)


def false_alerts(images: Iterable[EvaluatedImage]) -> frozenset[str]:
    """Returns the ids of the alerts that were sent and are false."""
    return frozenset(
        alert_id(image.id, image.timestamp, "alert")
        for image in images
        if image.alerted and image.suppressed_by is None and not image.is_right
    )


def incidents(times: Sequence[datetime], gap: timedelta) -> list[int]:
    """Returns the number of the incident of each time, in order: a new one begins where more
    than `gap` has passed since the time before."""
    numbers: list[int] = []
    for index, time in enumerate(times):
        follows = index > 0 and time - times[index - 1] <= gap
        numbers.append(numbers[-1] + (not follows) if numbers else 0)
    return numbers


def _all_of(image: EvaluatedImage) -> ImageOutcome:
    labels = {label for label, _ in image.alerted}
    return ImageOutcome(
        threat=bool(image.wanted),
        caught=image.is_right,
        fired=bool(labels),
        right=image.is_right,
        labels=len(labels),
        false_labels=len(labels - image.wanted.keys()),
    )


def _cameras(images: Iterable[EvaluatedImage]) -> dict[str, list[EvaluatedImage]]:
    cameras: dict[str, list[EvaluatedImage]] = {}
    for image in images:
        cameras.setdefault(image.id, []).append(image)
    return cameras


def _grouped(
    images: Sequence[EvaluatedImage],
    gap: timedelta,
    group: Callable[[str, str | None], str | None],
    outcome_of: Callable[[EvaluatedImage, str], ImageOutcome],
) -> dict[str, EvaluationTally]:
    cameras, false = _cameras(images), false_alerts(images)
    groups: dict[str, set[str]] = {}
    for image in images:
        for label, rule in {*image.looked_for, *image.alerted, *image.wanted.items()}:
            name = group(label, rule)
            if name is not None:
                groups.setdefault(name, set()).add(image.id)
    return {
        name: _tally(
            [(image, outcome_of(image, name)) for id in sorted(ids) for image in cameras[id]],
            false,
            gap,
        )
        for name, ids in sorted(groups.items())
    }


def _tally(
    images: Sequence[tuple[EvaluatedImage, ImageOutcome]], false: Collection[str], gap: timedelta
) -> EvaluationTally:
    caught: list[EvaluatedImage] = []
    covered: list[EvaluatedImage] = []
    behind_false = 0
    for image, outcome in images:
        if not outcome.caught:
            continue
        if image.suppressed_by is None:
            caught.append(image)
        elif image.suppressed_by in false:
            behind_false += 1
        else:
            covered.append(image)
    threats = [image for image, outcome in images if outcome.threat]
    runs = _runs(threats, gap)
    first_alerts = _first_alerts(runs, caught, covered, gap)
    covered_runs = {runs.by_image[id(image)] for image in covered}
    fired = [(image, outcome) for image, outcome in images if outcome.fired]
    sent = [outcome for image, outcome in fired if image.suppressed_by is None]
    return EvaluationTally(
        images=len(images),
        camera_days=len({(image.id, image.timestamp[:10]) for image, _ in images}),
        threats=len(threats),
        caught=len(caught),
        covered=len(covered),
        behind_false=behind_false,
        alerts=len(sent),
        right=sum(outcome.right for outcome in sent),
        labels=sum(outcome.labels for outcome in sent),
        false_labels=sum(outcome.false_labels for outcome in sent),
        suppressed=len(fired) - len(sent),
        incidents=len(runs.starts),
        incidents_caught=len(first_alerts),
        incidents_covered=len(covered_runs - first_alerts.keys()),
        first_alerts=tuple(sorted(first_alerts.values())),
    )


_Run = tuple[str, int]
"""The camera of an incident, and its number there."""


class _Runs(NamedTuple):
    """The incidents in a group of images.

    Attributes:
      by_image: The incident of each image, by the image's identity.
      starts: The capture time of the first image of each incident.
    """

    by_image: dict[int, _Run]
    starts: dict[_Run, datetime]


def _runs(threats: Sequence[EvaluatedImage], gap: timedelta) -> _Runs:
    by_image: dict[int, _Run] = {}
    starts: dict[_Run, datetime] = {}
    for camera, own_images in _cameras(threats).items():
        times = [parse_time(image.timestamp) for image in own_images]
        for image, time, number in zip(own_images, times, incidents(times, gap), strict=True):
            by_image[id(image)] = camera, number
            starts.setdefault((camera, number), time)
    return _Runs(by_image, starts)


def _first_alerts(
    runs: _Runs,
    caught: Iterable[EvaluatedImage],
    covered: Iterable[EvaluatedImage],
    gap: timedelta,
) -> dict[_Run, float]:
    """Returns the seconds to the first alert of each caught incident.

    An alert of an image without truth belongs to the incident that it covers if it was sent in it,
    or at most `gap` before its first image with truth: with a random sample of truth, the first
    image of an incident is seldom one of the sample.
    """
    first_alerts: dict[_Run, float] = {}

    def add(image: EvaluatedImage, time: datetime) -> None:
        run = runs.by_image[id(image)]
        delay = time - runs.starts[run]
        if delay >= -gap:
            seconds = max(0.0, delay.total_seconds())
            first_alerts[run] = min(seconds, first_alerts.get(run, seconds))

    for image in caught:
        add(image, parse_time(image.timestamp))
    for image in covered:
        if image.covered_since is not None:
            add(image, parse_time(image.covered_since))
    return first_alerts


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
class BoxedImage:
    """One image with boxes: what is in it, and what was found.

    Attributes:
      size: Width and height in pixels.
      true_boxes: What is in it; boxes are fractions of the image.
      detections: The same.
    """

    size: tuple[int, int]
    true_boxes: Sequence[TrueBox]
    detections: Sequence[Detection]


def average_precision(images: Sequence[BoxedImage]) -> dict[str, AveragePrecision]:
    """COCO's average precision (at most 100 detections an image) of each label in the truth, by
    pycocotools: https://cocodataset.org/#detection-eval"""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    boxes = Counter(box.label for image in images for box in image.true_boxes if not box.is_crowd)
    numbers = {label: number for number, label in enumerate(sorted(boxes), 1)}

    def in_pixels(bbox: Sequence[float], size: tuple[int, int]) -> list[float]:
        return [side * length for side, length in zip(bbox, (*size, *size), strict=True)]

    def annotations(
        boxes_of: Callable[[BoxedImage], Iterable[tuple[str, Sequence[float], dict[str, Any]]]],
    ) -> Iterator[dict[str, Any]]:
        annotation_id = 0
        for image_id, image in enumerate(images):
            for label, bbox, extra in boxes_of(image):
                if label not in numbers:
                    continue
                annotation_id += 1
                box = in_pixels(bbox, image.size)
                yield {
                    "id": annotation_id,
                    "image_id": image_id,
                    "category_id": numbers[label],
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                    **extra,
                }

    def dataset(entries: Iterable[dict[str, Any]]) -> Any:
        coco = COCO()
        coco.dataset = {
            "images": [{"id": image} for image in range(len(images))],
            "categories": [{"id": number} for number in numbers.values()],
            "annotations": list(entries),
        }
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):  # It reports its progress there.
        truth = dataset(
            annotations(
                lambda image: (
                    (box.label, box.bbox, {"iscrowd": int(box.is_crowd)})
                    for box in image.true_boxes
                )
            )
        )
        detected = dataset(
            annotations(
                lambda image: (
                    (box.label, box.bbox, {"score": box.conf}) for box in image.detections
                )
            )
        )
        evaluation = COCOeval(truth, detected, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    # By IoU, recall, category, area of the box (0: all) and detections an image (2: 100).
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    return {
        label: AveragePrecision(
            boxes[label],
            round(float(precision[:, :, number - 1].mean()), 4),
            round(float(precision[0, :, number - 1].mean()), 4),
        )
        for label, number in numbers.items()
    }
