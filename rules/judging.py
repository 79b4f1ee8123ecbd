"""Whether what was detected is a threat: the filters, in their order.

To add one, write a function from a candidate to whether it passes, and append it to `FILTERS` under
the name that ``rejected[].by`` is to show.

Everything is decided on numbers of 4 decimals. Areas and ratios are worked out of whole
ten-thousandths, because a box of 0.1 by 0.1 multiplied as binary fractions comes out above 0.01,
and a value equal to its bound has to pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, cast

from rules.effective import CameraRules, ObjectRule
from rules.records import Detection, Image, Rejected, Threat, ThreatSeverity, Verdict

_UNITS = 10_000


@dataclass(frozen=True)
class Candidate:
    """A detection on its way through the filters, with the image and the camera's rules."""

    detection: Detection
    image: Image
    camera: CameraRules

    @property
    def is_listed(self) -> bool:
        """Whether the camera's rules name the label."""
        return self.detection.label in self.camera.objects

    @property
    def rule(self) -> ObjectRule:
        """The rule of the label; only of use after the filter ``objects``, which sees that there is
        one (KeyError without)."""
        return self.camera.objects[self.detection.label]


class Filter(NamedTuple):
    """A filter under the name by which a verdict calls it."""

    name: str
    passes: Callable[[Candidate], bool]


def label_is_listed(candidate: Candidate) -> bool:
    """A label that is not listed is no threat."""
    return candidate.is_listed


def is_not_ignored(candidate: Candidate) -> bool:
    """A label of severity ``ignore`` is tolerated."""
    return candidate.rule.severity != "ignore"


def reaches_min_score(candidate: Candidate) -> bool:
    """The score is at least ``min_score``."""
    return candidate.detection.conf >= candidate.rule.min_score


def reaches_min_area(candidate: Candidate) -> bool:
    """The box covers at least ``min_area`` of the frame."""
    bound = candidate.rule.min_area
    return bound is None or area(candidate.detection) >= bound


def keeps_max_area(candidate: Candidate) -> bool:
    """The box covers at most ``max_area`` of the frame."""
    bound = candidate.rule.max_area
    return bound is None or area(candidate.detection) <= bound


def reaches_min_ratio(candidate: Candidate) -> bool:
    """Width over height of the box, in pixels, is at least ``min_ratio``."""
    bound = candidate.rule.min_ratio
    return bound is None or ratio(candidate.detection, candidate.image) >= bound


def keeps_max_ratio(candidate: Candidate) -> bool:
    """Width over height of the box, in pixels, is at most ``max_ratio``."""
    bound = candidate.rule.max_ratio
    return bound is None or ratio(candidate.detection, candidate.image) <= bound


FILTERS: tuple[Filter, ...] = (
    Filter("objects", label_is_listed),
    Filter("severity", is_not_ignored),
    Filter("min_score", reaches_min_score),
    Filter("min_area", reaches_min_area),
    Filter("max_area", keeps_max_area),
    Filter("min_ratio", reaches_min_ratio),
    Filter("max_ratio", keeps_max_ratio),
)
"""Every filter, in the order in which a detection meets them; the first that rejects is named."""


def area(detection: Detection) -> float:
    """The area of the box as a fraction of the frame."""
    _, _, width, height = detection.bbox
    return round(width * _UNITS) * round(height * _UNITS) / _UNITS**2


def ratio(detection: Detection, image: Image) -> float:
    """Width over height of the box, both in pixels; infinite for a box without height."""
    _, _, width, height = detection.bbox
    height_in_pixels = round(height * _UNITS) * image.height
    if height_in_pixels <= 0:
        return math.inf
    return round(width * _UNITS) * image.width / height_in_pixels


def judge_image(image: Image, camera: CameraRules, rules_version: str) -> Verdict:
    """Put every detection of an image through the filters."""
    threats: list[Threat] = []
    rejected: list[Rejected] = []
    for index, detection in enumerate(image.detections):
        candidate = Candidate(detection, image, camera)
        rule = candidate.rule.rule if candidate.is_listed else None
        by = next((name for name, passes in FILTERS if not passes(candidate)), None)
        if by is not None:
            rejected.append(Rejected(index, detection.label, rule, by))
        else:
            threats.append(_threat(index, candidate))
    return Verdict(
        is_threat=bool(threats),
        severity=_highest(threats),
        rules_version=rules_version,
        threats=tuple(threats),
        rejected=tuple(rejected),
    )


def _threat(index: int, candidate: Candidate) -> Threat:
    rule = candidate.rule
    return Threat(
        detection=index,
        label=candidate.detection.label,
        conf=candidate.detection.conf,
        severity=cast(ThreatSeverity, rule.severity),
        rule=rule.rule,
    )


def _highest(threats: list[Threat]) -> ThreatSeverity | None:
    if not threats:
        return None
    return "alert" if any(threat.severity == "alert" for threat in threats) else "detection"
