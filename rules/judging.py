"""Whether what was detected is a threat: the filters, in their order.

To add one, write a function from a candidate to its `Check`, or None where the rules ask nothing,
and put it into `_OF_ONE` (it looks at one detection) or `_OF_ALL` (it looks at all detections of a
label that are left). `FILTERS` names them in their order, as ``rejected[].by`` does.

Everything is decided on numbers of 4 decimals. Areas and ratios are worked out of whole
ten-thousandths, because a box of 0.1 by 0.1 multiplied as binary fractions comes out above 0.01,
and a value equal to its bound has to pass.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import cast

from rules.effective import CameraRules, ObjectRule, Zone
from rules.geometry import Bbox
from rules.history import History, alert_id
from rules.records import (
    Check,
    Detection,
    Image,
    Rejected,
    Threat,
    ThreatSeverity,
    Trace,
    Verdict,
)
from rules.schedule import DAYS, local_time

_UNITS = 10_000
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)


class _Scene:
    """The picture that detections are judged in: what holds for all of them. Times are worked out
    only where the camera's rules ask for them.

    Attributes:
        moment: when it was taken, in microseconds since 1970.
        shown_time: the same by the clock of the camera's place, for the trace.
        is_armed: whether the camera is armed.
        is_night: whether it is night.
    """

    def __init__(self, image: Image, camera: CameraRules, history: History) -> None:
        self.image = image
        self.camera = camera
        self.history = history
        self.moment = 0
        self.shown_time = ""
        self.is_armed = True
        self.is_night = False
        schedule, night = camera.schedule, camera.night
        goes_by_clock = schedule is not None or night is not None
        if not goes_by_clock and not camera.needs_history:
            return
        text = image.timestamp.removesuffix("Z")
        time = datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
        self.moment = (time - _EPOCH) // _MICROSECOND
        if goes_by_clock:
            local = local_time(time, camera.timezone)
            self.shown_time = f"{DAYS[local.weekday()]} {local.hour:02}:{local.minute:02}"
            self.is_armed = schedule is None or schedule.is_armed(local)
            self.is_night = night is not None and night.holds(local, image.brightness)


@dataclass
class _Candidate:
    """A detection on its way through the filters.

    Attributes:
        index: its index in the image's detections.
        rule: what holds for its label where it is.
        zone: the zone that it is in; None outside.
        zones: the names of the zones that take its label.
        checks: what the filters decided so far.
    """

    index: int
    detection: Detection
    scene: _Scene
    rule: ObjectRule
    zone: Zone | None
    zones: tuple[str, ...]
    checks: list[Check] = field(default_factory=list)

    def passes(self, check: Check | None) -> bool:
        """Keeps what a filter decided; whether the detection is still a candidate."""
        if check is None:
            return True
        self.checks.append(check)
        return check.passes


def _severity(candidate: _Candidate) -> Check | None:
    """A label of severity ``ignore`` is tolerated."""
    if candidate.rule.severity != "ignore":
        return None
    return Check("severity", "ignore", None, False)


def _min_score(candidate: _Candidate) -> Check:
    """The score is at least ``min_score``."""
    score, bound = candidate.detection.conf, candidate.rule.min_score
    return Check("min_score", score, bound, score >= bound)


def _min_area(candidate: _Candidate) -> Check | None:
    """The box covers at least ``min_area`` of the frame."""
    bound = candidate.rule.min_area
    if bound is None:
        return None
    covered = area(candidate.detection)
    return Check("min_area", _shown(covered), bound, covered >= bound)


def _max_area(candidate: _Candidate) -> Check | None:
    """The box covers at most ``max_area`` of the frame."""
    bound = candidate.rule.max_area
    if bound is None:
        return None
    covered = area(candidate.detection)
    return Check("max_area", _shown(covered), bound, covered <= bound)


def _min_ratio(candidate: _Candidate) -> Check | None:
    """Width over height of the box, in pixels, is at least ``min_ratio``."""
    bound = candidate.rule.min_ratio
    if bound is None:
        return None
    shape = ratio(candidate.detection, candidate.scene.image)
    return Check("min_ratio", _shown(shape), bound, shape >= bound)


def _max_ratio(candidate: _Candidate) -> Check | None:
    """Width over height of the box, in pixels, is at most ``max_ratio``."""
    bound = candidate.rule.max_ratio
    if bound is None:
        return None
    shape = ratio(candidate.detection, candidate.scene.image)
    return Check("max_ratio", _shown(shape), bound, shape <= bound)


def _mask(candidate: _Candidate) -> Check | None:
    """The box lies in no mask for its label."""
    label, box = candidate.detection.label, candidate.detection.bbox
    masks = [
        mask
        for mask in candidate.scene.camera.masks.values()
        if mask.objects is None or label in mask.objects
    ]
    if not masks:
        return None
    hit = next((mask.name for mask in masks if mask.holds(box)), None)
    return Check("mask", hit, [mask.name for mask in masks], hit is None)


def _zones(candidate: _Candidate) -> Check | None:
    """Where zones take the label, the box lies in one of them."""
    if not candidate.zones:
        return None
    name = None if candidate.zone is None else candidate.zone.name
    return Check("zones", name, list(candidate.zones), name is not None)


def _schedule(candidate: _Candidate) -> Check | None:
    """The camera is armed."""
    scene = candidate.scene
    if scene.camera.schedule is None:
        return None
    return Check("schedule", scene.shown_time, "armed", scene.is_armed)


def _min_score_at_night(candidate: _Candidate) -> Check | None:
    """At night, the score is at least ``min_score_at_night``."""
    score, bound = candidate.detection.conf, candidate.rule.min_score_at_night
    if bound is None or not candidate.scene.is_night:
        return None
    return Check("min_score_at_night", score, bound, score >= bound)


def _repeats(candidate: _Candidate) -> Check | None:
    """It was not seen at the same place in several earlier pictures."""
    by, label = candidate.scene.camera.repeats, candidate.detection.label
    if by is None or not candidate.rule.may_repeat(label):
        return None
    scene = candidate.scene
    seen = scene.history.times_seen(label, candidate.detection.bbox, scene.moment, by)
    return Check("repeats", seen, by.occurrences, seen < by.occurrences)


def _min_count(candidate: _Candidate, left: int) -> Check | None:
    """Its rule lets at least ``min_count`` through in this picture."""
    bound = candidate.rule.min_count
    return None if bound is None else Check("min_count", left, bound, left >= bound)


def _max_count(candidate: _Candidate, left: int) -> Check | None:
    """Its rule lets at most ``max_count`` through in this picture."""
    bound = candidate.rule.max_count
    return None if bound is None else Check("max_count", left, bound, left <= bound)


def _confirm(candidate: _Candidate) -> Check | None:
    """Its label was a candidate in enough pictures of a short time, this one included."""
    by, scene = candidate.scene.camera.confirm, candidate.scene
    if by is None or not candidate.rule.confirm:
        return None
    label = candidate.detection.label
    seen = 1 + scene.history.pictures_with(label, scene.moment, by.within_microseconds)
    return Check("confirm", min(seen, by.pictures), by.pictures, seen >= by.pictures)


_OF_ONE: tuple[Callable[[_Candidate], Check | None], ...] = (
    _severity,
    _min_score,
    _min_area,
    _max_area,
    _min_ratio,
    _max_ratio,
    _mask,
    _zones,
    _schedule,
    _min_score_at_night,
    _repeats,
)
_OF_ALL: tuple[Callable[[_Candidate, int], Check | None], ...] = (_min_count, _max_count)

FILTERS: tuple[str, ...] = (
    "objects",
    "severity",
    "min_score",
    "min_area",
    "max_area",
    "min_ratio",
    "max_ratio",
    "mask",
    "zones",
    "schedule",
    "min_score_at_night",
    "repeats",
    "min_count",
    "max_count",
    "confirm",
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


def _shown(number: float) -> float | None:
    """A number for the trace; None for infinity, which JSON does not have."""
    return round(number, 6) if math.isfinite(number) else None


def judge_image(
    image: Image, camera: CameraRules, rules_version: str, history: History | None = None
) -> Verdict:
    """Put every detection of an image through the filters.

    Args:
        image: what was seen.
        camera: the rules of its camera.
        rules_version: for the verdict.
        history: what the camera has shown before; the image is added to it. None: nothing.
    """
    scene = _Scene(image, camera, History() if history is None else history)
    candidates: list[_Candidate] = []
    rejected: list[Rejected] = []
    for index, detection in enumerate(image.detections):
        candidate = _candidate(index, detection, scene)
        if candidate is None:
            rejected.append(Rejected(index, detection.label, None, "objects"))
        else:
            candidates.append(candidate)
    left = [one for one in candidates if _passes_alone(one)]
    for look in _OF_ALL:
        numbers = Counter(one.rule.rule for one in left)
        left = [one for one in left if one.passes(look(one, numbers[one.rule.rule]))]
    confirmed = [one for one in left if one.passes(_confirm(one))]
    threats = tuple(map(_threat, confirmed))
    rejected += [
        Rejected(one.index, one.detection.label, one.rule.rule, one.checks[-1].filter)
        for one in candidates
        if one.checks and not one.checks[-1].passes
    ]
    severity = _highest(threats)
    if camera.needs_history:
        _note(scene, candidates, left)
    suppressed_by, number = _incident(scene, threats) if severity == "alert" else (None, None)
    return Verdict(
        is_threat=bool(threats),
        severity=severity,
        rules_version=rules_version,
        threats=threats,
        rejected=tuple(sorted(rejected, key=lambda one: one.detection)),
        trace=tuple(Trace(one.index, tuple(one.checks)) for one in candidates),
        suppressed_by=suppressed_by,
        incident_number=number,
    )


def _candidate(index: int, detection: Detection, scene: _Scene) -> _Candidate | None:
    """A detection with the rule that holds for it; None where its label is not listed.

    In a zone that takes the label it is the zone's, of several the first's. Outside it is the
    camera's; for a label that only zones name, the first such zone's.
    """
    label, camera = detection.label, scene.camera
    if not camera.zones:
        rule = camera.objects.get(label)
        return None if rule is None else _Candidate(index, detection, scene, rule, None, ())
    taking = [(zone, rule) for zone in camera.zones.values() if (rule := zone.rule(label, camera))]
    names = tuple(zone.name for zone, _ in taking)
    for zone, rule in taking:
        if zone.holds(detection.bbox):
            return _Candidate(index, detection, scene, rule, zone, names)
    outside = camera.objects.get(label) or next((rule for _, rule in taking), None)
    return None if outside is None else _Candidate(index, detection, scene, outside, None, names)


def _passes_alone(candidate: _Candidate) -> bool:
    checks = candidate.checks
    for look in _OF_ONE:
        check = look(candidate)
        if check is not None:
            checks.append(check)
            if not check.passes:
                return False
    return True


def _threat(candidate: _Candidate) -> Threat:
    rule = candidate.rule
    return Threat(
        detection=candidate.index,
        label=candidate.detection.label,
        conf=candidate.detection.conf,
        severity=cast(ThreatSeverity, rule.severity),
        rule=rule.rule,
        zone=None if candidate.zone is None else candidate.zone.name,
    )


def _highest(threats: tuple[Threat, ...]) -> ThreatSeverity | None:
    if not threats:
        return None
    return "alert" if any(threat.severity == "alert" for threat in threats) else "detection"


def _note(scene: _Scene, candidates: list[_Candidate], unconfirmed: list[_Candidate]) -> None:
    """Adds the picture to what its camera has shown."""
    camera = scene.camera
    sightings: dict[str, tuple[Bbox, ...]] = {}
    for one in candidates:
        label, by = one.detection.label, camera.repeats
        if by is not None and one.rule.may_repeat(label) and one.detection.conf >= by.min_score:
            sightings[label] = (*sightings.get(label, ()), one.detection.bbox)
    labels = {one.detection.label for one in unconfirmed}
    scene.history.note_picture(scene.moment, scene.image.sha256, sightings, labels, camera)


def _incident(scene: _Scene, threats: tuple[Threat, ...]) -> tuple[str | None, int]:
    """The alert that covers the picture's own, and the picture's number in the incident."""
    cooldown = scene.camera.cooldown
    if cooldown is None:
        return None, 1
    labels = frozenset(threat.label for threat in threats if threat.severity == "alert")
    length = cooldown // _MICROSECOND
    alert = scene.history.covering(scene.moment, labels, length)
    if alert is not None:
        return alert.alert_id, alert.cover(scene.moment)
    image = scene.image
    its_id = alert_id(image.id, image.timestamp, "alert")
    scene.history.note_alert(scene.moment, its_id, labels, length)
    return None, 1
