"""Decides which detections are threats: the filters, in their order.

To add a filter, write a function from a candidate to its `Check`, or None if the rules do not
configure it, and put it into `_DETECTION_FILTERS` (it judges one detection) or `_COUNT_FILTERS` (it
judges by the number of detections of the same rule). `FILTERS` names them in their order, as
``rejected[].by`` does.

The filters work on numbers of 4 decimals. Areas and ratios are computed from whole ten-thousandths,
because a box of 0.1 by 0.1 multiplied as binary fractions is larger than 0.01, and a value equal to
its bound has to pass.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import NamedTuple, cast

from rules.cooldown import add_alert, alert_id, covering_alert, find_alert
from rules.effective import CameraRules, LabelRules, ObjectRule, Track, Zone
from rules.geometry import Bbox
from rules.history import History, PastImage
from rules.records import (
    Check,
    Detection,
    FollowUp,
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
    """The image, its camera and its time, which all its detections share.

    Times are computed only if the camera's rules depend on them.

    Attributes:
        image: The image with its detections.
        camera: The rules of its camera.
        history: The history of its camera.
        capture_time: The capture time in microseconds since 1970.
        shown_time: The local capture time, for the trace.
        is_armed: Whether the camera is armed.
        is_night: Whether it is night.
    """

    def __init__(self, image: Image, camera: CameraRules, history: History | None) -> None:
        self.image = image
        self.camera = camera
        self.history = History() if history is None else history
        self.capture_time = 0
        self.shown_time = ""
        self.is_armed = True
        self.is_night = False
        schedule, night = camera.schedule, camera.night
        needs_local_time = schedule is not None or night is not None
        if not needs_local_time and (history is None or not camera.needs_history):
            return
        text = image.timestamp.removesuffix("Z")
        time = datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
        self.capture_time = (time - _EPOCH) // _MICROSECOND
        if needs_local_time:
            local = local_time(time, camera.local_zone)
            self.shown_time = f"{DAYS[local.weekday()]} {local.hour:02}:{local.minute:02}"
            self.is_armed = schedule is None or schedule.is_armed(local)
            self.is_night = night is not None and night.is_night(local, image.brightness)


@dataclass
class _Candidate:
    """A detection on its way through the filters, by one rule of its label.

    Attributes:
        index: Its index in the image's detections.
        detection: The detection.
        scene: The image and what its detections share.
        label_rules: The rules of its label.
        rule: A rule of its label at its position.
        zone: The zone that contains it; None outside all zones, and until the filter `zones` if
            the rule is the same everywhere.
        checks: The decisions of the filters so far.
    """

    index: int
    detection: Detection
    scene: _Scene
    label_rules: LabelRules
    rule: ObjectRule
    zone: Zone | None = None
    checks: list[Check] = field(default_factory=list)

    @property
    def track(self) -> Track | None:
        """The settings of the filter `track`; None if it does not apply."""
        return self.scene.camera.track if self.rule.track else None

    @property
    def sure_score(self) -> float:
        """The score from which on the detection need not be tracked."""
        at_night = self.rule.min_score_at_night
        if at_night is None or not self.scene.is_night:
            return self.rule.min_score
        return max(self.rule.min_score, at_night)

    def passes(self, check: Check | None) -> bool:
        """Adds the decision of a filter, and returns whether the detection passes it."""
        if check is None:
            return True
        self.checks.append(check)
        return check.passes


def _severity(candidate: _Candidate) -> Check | None:
    """Rejects labels of severity ``ignore``."""
    if candidate.rule.severity != "ignore":
        return None
    return Check("severity", "ignore", None, False)


def _min_score(candidate: _Candidate) -> Check:
    """Requires a score of at least ``min_score``; if it can be tracked, of ``track.min_score`` or
    the score from which on it need not be, whichever is lower.
    """
    score, bound = candidate.detection.conf, candidate.rule.min_score
    track = candidate.track
    if track is not None:
        bound = min(candidate.sure_score, track.min_score)
    return Check("min_score", score, bound, score >= bound)


def _min_area(candidate: _Candidate) -> Check | None:
    """Requires a box that covers at least ``min_area`` of the frame."""
    bound = candidate.rule.min_area
    if bound is None:
        return None
    value = area(candidate.detection)
    return Check("min_area", _for_json(value), bound, value >= bound)


def _max_area(candidate: _Candidate) -> Check | None:
    """Requires a box that covers at most ``max_area`` of the frame."""
    bound = candidate.rule.max_area
    if bound is None:
        return None
    value = area(candidate.detection)
    return Check("max_area", _for_json(value), bound, value <= bound)


def _min_ratio(candidate: _Candidate) -> Check | None:
    """Requires a width divided by height, in pixels, of at least ``min_ratio``."""
    bound = candidate.rule.min_ratio
    if bound is None:
        return None
    value = ratio(candidate.detection, candidate.scene.image)
    return Check("min_ratio", _for_json(value), bound, value >= bound)


def _max_ratio(candidate: _Candidate) -> Check | None:
    """Requires a width divided by height, in pixels, of at most ``max_ratio``."""
    bound = candidate.rule.max_ratio
    if bound is None:
        return None
    value = ratio(candidate.detection, candidate.scene.image)
    return Check("max_ratio", _for_json(value), bound, value <= bound)


def _mask(candidate: _Candidate) -> Check | None:
    """Rejects boxes in a mask for their label."""
    label, box = candidate.detection.label, candidate.detection.bbox
    masks = [
        mask
        for mask in candidate.scene.camera.masks.values()
        if mask.objects is None or label in mask.objects
    ]
    if not masks:
        return None
    name = next((mask.name for mask in masks if mask.contains(box)), None)
    return Check("mask", name, [mask.name for mask in masks], name is None)


def _zones(candidate: _Candidate) -> Check | None:
    """Requires a box in one of the zones that cover its label, if there are any."""
    rules = candidate.label_rules
    if not rules.zones:
        return None
    if not rules.rules_differ:
        box = candidate.detection.bbox
        candidate.zone = next((zone for zone, _ in rules.zones if zone.contains(box)), None)
    name = None if candidate.zone is None else candidate.zone.name
    return Check("zones", name, list(rules.zone_names), name is not None)


def _schedule(candidate: _Candidate) -> Check | None:
    """Requires an armed camera."""
    scene = candidate.scene
    if scene.camera.schedule is None:
        return None
    return Check("schedule", scene.shown_time, "armed", scene.is_armed)


def _min_score_at_night(candidate: _Candidate) -> Check | None:
    """Requires a score of at least ``min_score_at_night``, at night; `_track` does if it can be
    tracked.
    """
    score, bound = candidate.detection.conf, candidate.rule.min_score_at_night
    if bound is None or not candidate.scene.is_night or candidate.track is not None:
        return None
    return Check("min_score_at_night", score, bound, score >= bound)


def _repeats(candidate: _Candidate) -> Check | None:
    """Rejects objects that were in the same place in several earlier images."""
    scene, detection = candidate.scene, candidate.detection
    repeats = scene.camera.repeats
    if repeats is None or not candidate.rule.can_repeat(detection.label):
        return None
    count = scene.history.count_occurrences(
        detection.label, detection.bbox, scene.capture_time, repeats
    )
    return Check("repeats", count, repeats.occurrences, count < repeats.occurrences)


def _track(candidate: _Candidate) -> Check | None:
    """Requires of a detection with a low score that it has moved since a recent image."""
    scene, detection, track = candidate.scene, candidate.detection, candidate.track
    if track is None or detection.conf >= candidate.sure_score:
        return None
    since = scene.history.moved_since(
        detection.label,
        detection.bbox,
        [
            other.bbox
            for other in scene.image.detections
            if other.label == detection.label and other.conf >= track.min_score
        ],
        scene.capture_time,
        track,
        (scene.image.width, scene.image.height),
    )
    seconds = None if since is None else since / 1_000_000
    return Check("track", seconds, track.within.total_seconds(), since is not None)


def _min_count(candidate: _Candidate, count: int) -> Check | None:
    """Requires at least ``min_count`` candidates of its rule in the image."""
    bound = candidate.rule.min_count
    return None if bound is None else Check("min_count", count, bound, count >= bound)


def _max_count(candidate: _Candidate, count: int) -> Check | None:
    """Requires at most ``max_count`` candidates of its rule in the image."""
    bound = candidate.rule.max_count
    return None if bound is None else Check("max_count", count, bound, count <= bound)


def _confirm(candidate: _Candidate) -> Check | None:
    """Requires candidates of its label in enough images within a short time, with this one."""
    scene, confirm = candidate.scene, candidate.scene.camera.confirm
    if confirm is None or not candidate.rule.confirm:
        return None
    if confirm.unless_score is not None and candidate.detection.conf >= confirm.unless_score:
        return None
    bound = confirm.pictures
    count = 1 + scene.history.count_candidates(
        candidate.detection.label, scene.capture_time, confirm.within_microseconds
    )
    return Check("confirm", min(count, bound), bound, count >= bound)


_DETECTION_FILTERS: tuple[Callable[[_Candidate], Check | None], ...] = (
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
    _track,
)
_COUNT_FILTERS: tuple[Callable[[_Candidate, int], Check | None], ...] = (_min_count, _max_count)

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
    "track",
    "min_count",
    "max_count",
    "confirm",
)
"""The names of all filters, in their order; a verdict names the first one that rejects."""


def area(detection: Detection) -> float:
    """Returns the area of the box as a fraction of the frame."""
    _, _, width, height = detection.bbox
    return round(width * _UNITS) * round(height * _UNITS) / _UNITS**2


def ratio(detection: Detection, image: Image) -> float:
    """Returns width divided by height of the box, in pixels; infinity for a box without height."""
    _, _, width, height = detection.bbox
    height_in_pixels = round(height * _UNITS) * image.height
    if height_in_pixels <= 0:
        return math.inf
    return round(width * _UNITS) * image.width / height_in_pixels


def _for_json(number: float) -> float | None:
    """Returns a number for the trace; None for infinity, which JSON does not have."""
    return round(number, 6) if math.isfinite(number) else None


def judge_image(
    image: Image,
    camera: CameraRules,
    rules_version: str,
    history: History | None = None,
    alerting: frozenset[ThreatSeverity] = frozenset(("alert",)),
) -> Verdict:
    """Passes every detection of an image through the filters.

    Args:
        image: The image with its detections.
        camera: The rules of its camera.
        rules_version: The version of the rules, for the verdict.
        history: The history of the camera, to which the image is added; None if the image is the
            first one.
        alerting: The severities of the images that have alerts.
    """
    scene = _Scene(image, camera, history)
    candidates: list[_Candidate] = []
    rejected: list[Rejected] = []
    for index, detection in enumerate(image.detections):
        found = _candidates(index, detection, scene)
        candidates += found
        if not found:
            rejected.append(Rejected(index, detection.label, None, "objects"))
    unconfirmed = [candidate for candidate in candidates if _passes_detection_filters(candidate)]
    for count_filter in _COUNT_FILTERS:
        counts = Counter(candidate.rule.entry for candidate in unconfirmed)
        unconfirmed = [
            candidate
            for candidate in unconfirmed
            if candidate.passes(count_filter(candidate, counts[candidate.rule.entry]))
        ]
    for candidate in unconfirmed:
        candidate.passes(_confirm(candidate))
    decisive = _decisive(candidates)
    threats = tuple(_threat(candidate) for candidate in decisive if not _is_rejected(candidate))
    rejected += [_rejected(candidate) for candidate in decisive if _is_rejected(candidate)]
    severity = _highest_severity(threats)
    if history is not None and camera.needs_history:
        _add_to_history(scene, candidates, unconfirmed)
    incident = _incident(scene, threats, severity) if severity in alerting else _NO_INCIDENT
    return Verdict(
        is_threat=bool(threats),
        severity=severity,
        rules_version=rules_version,
        threats=threats,
        rejected=tuple(sorted(rejected, key=lambda detection: detection.detection)),
        trace=tuple(Trace(candidate.index, tuple(candidate.checks)) for candidate in decisive),
        suppressed_by=incident.suppressed_by,
        incident_number=incident.number,
        follow_up=incident.follow_up,
        covered_since=incident.covered_since,
    )


def _candidates(index: int, detection: Detection, scene: _Scene) -> list[_Candidate]:
    """Returns a detection with each rule that can let it through; none if the rules do not list
    its label.

    In zones that cover the label, these are the rules of all such zones. Outside, it is the
    camera's; for a label that only zones name, it is that of the first zone that names it.
    """
    label_rules = scene.camera.label_rules(detection.label)
    if label_rules is None:
        return []
    zones_by_rule: dict[str, tuple[Zone, ObjectRule]] = {}
    if label_rules.rules_differ:
        for zone, rule in label_rules.zones:
            if rule.entry not in zones_by_rule and zone.contains(detection.bbox):
                zones_by_rule[rule.entry] = zone, rule
    if zones_by_rule:
        return [
            _Candidate(index, detection, scene, label_rules, rule, zone)
            for zone, rule in zones_by_rule.values()
        ]
    return [_Candidate(index, detection, scene, label_rules, label_rules.outside)]


def _decisive(candidates: list[_Candidate]) -> list[_Candidate]:
    """Returns for each detection the candidate that decides on it.

    If any of its zones lets it through, that is a zone that does, of the highest severity.
    Otherwise, it is the one that passes most filters. Of equal ones, it is the first in the file.
    """
    decisive: dict[int, _Candidate] = {}
    for candidate in candidates:
        other = decisive.get(candidate.index)
        if other is None or _progress(candidate) > _progress(other):
            decisive[candidate.index] = candidate
    return list(decisive.values())


def _progress(candidate: _Candidate) -> tuple[int, bool]:
    if _is_rejected(candidate):
        return FILTERS.index(candidate.checks[-1].filter), False
    return len(FILTERS), candidate.rule.severity == "alert"


def _passes_detection_filters(candidate: _Candidate) -> bool:
    checks = candidate.checks
    for detection_filter in _DETECTION_FILTERS:
        check = detection_filter(candidate)
        if check is not None:
            checks.append(check)
            if not check.passes:
                return False
    return True


def _is_rejected(candidate: _Candidate) -> bool:
    return bool(candidate.checks) and not candidate.checks[-1].passes


def _rejected(candidate: _Candidate) -> Rejected:
    return Rejected(
        detection=candidate.index,
        label=candidate.detection.label,
        rule=candidate.rule.entry,
        by=candidate.checks[-1].filter,
    )


def _threat(candidate: _Candidate) -> Threat:
    rule = candidate.rule
    return Threat(
        detection=candidate.index,
        label=candidate.detection.label,
        conf=candidate.detection.conf,
        severity=cast(ThreatSeverity, rule.severity),
        rule=rule.entry,
        zone=None if candidate.zone is None else candidate.zone.name,
    )


def _highest_severity(threats: tuple[Threat, ...]) -> ThreatSeverity | None:
    if not threats:
        return None
    return "alert" if any(threat.severity == "alert" for threat in threats) else "detection"


def _add_to_history(
    scene: _Scene, candidates: list[_Candidate], unconfirmed: list[_Candidate]
) -> None:
    """Adds the image to the history of its camera."""
    repeats = scene.camera.repeats
    can_repeat: dict[int, Detection] = {}
    can_move: dict[int, Detection] = {}
    for candidate in candidates:
        detection, track = candidate.detection, candidate.track
        if (
            repeats is not None
            and candidate.rule.can_repeat(detection.label)
            and detection.conf >= repeats.min_score
        ):
            can_repeat[candidate.index] = detection
        if track is not None and detection.conf >= track.min_score:
            can_move[candidate.index] = detection
    labels = {candidate.detection.label for candidate in unconfirmed}
    time, sha256 = scene.capture_time, scene.image.sha256
    scene.history.add_image(
        PastImage(time, sha256, _boxes_by_label(can_repeat.values())),
        PastImage(time, sha256, _boxes_by_label(can_move.values())),
        labels,
        scene.camera,
    )


def _boxes_by_label(detections: Iterable[Detection]) -> dict[str, tuple[Bbox, ...]]:
    boxes: dict[str, tuple[Bbox, ...]] = {}
    for detection in detections:
        boxes[detection.label] = (*boxes.get(detection.label, ()), detection.bbox)
    return boxes


class _Incident(NamedTuple):
    """The place of an image in an incident; see `Verdict`."""

    suppressed_by: str | None
    number: int | None
    follow_up: FollowUp | None = None
    covered_since: int | None = None


_NO_INCIDENT = _Incident(None, None)


def _incident(scene: _Scene, threats: tuple[Threat, ...], severity: ThreatSeverity) -> _Incident:
    cooldown = scene.camera.cooldown
    if cooldown is None:
        return _Incident(None, 1)
    objects = Counter(threat.label for threat in threats if threat.severity == severity)
    microseconds = cooldown // _MICROSECOND
    gap = None if scene.camera.incident_gap is None else scene.camera.incident_gap // _MICROSECOND
    alerts, capture_time = scene.history.alerts, scene.capture_time
    arrived = scene.image.arrived
    own_id = alert_id(scene.image.id, scene.image.timestamp, severity)
    if find_alert(alerts, own_id) is None:
        labels = frozenset(objects)
        alert = covering_alert(alerts, capture_time, labels, microseconds, severity, gap, arrived)
        if alert is not None:
            number = alert.cover(capture_time, objects, arrived, gap)
            return _Incident(alert.alert_id, number, covered_since=alert.capture_time)
    follow_up = add_alert(
        alerts, capture_time, own_id, objects, microseconds, severity, gap, arrived
    )
    return _Incident(None, 1, follow_up)
