"""Proposals: the smallest changes of a camera's rules that silence its false alerts, by marks.

Each proposal changes one thing of one camera, and was judged on the images of the archive: how many
of the alerts that people marked false it takes away, how many that they marked right it keeps, and
what else it changes.

    for proposal in propose(images, facts, text, "rules.yaml", "hall").proposals:
        proposal.changes, proposal.effect, proposal.sureness
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import rules
from beam_pipeline.evaluation.comparison import alerted_by_verdict
from beam_pipeline.evaluation.mark_facts import Facts, Key
from beam_pipeline.evaluation.marked import MarkedImage
from beam_pipeline.evaluation.metrics import wilson
from beam_pipeline.evaluation.rule_edits import Setting, Value, apply_settings
from rules.geometry import iou
from rules.schedule import local_time
from rules.text import number_of
from transforms.records.images import DetectedImage
from transforms.records.times import parse_time

KINDS = (
    *("min_score_at_night", "min_score", "min_area", "track", "mask", "repeats", "confirm"),
    *("zone", "cooldown", "schedule"),
)
"""What a proposal changes, the least far-reaching first."""
FEW = 3
"""With fewer marks of either kind, a proposal is a guess."""
_SAME_PLACE = 0.5
_MARGIN = 0.01
_ZONE_MARGIN = 0.05
_MASK_OVERLAP = 0.9
_LONGEST_COOLDOWN = timedelta(hours=4)
_MOST_HOURS = 8


@dataclass(frozen=True)
class Effect:
    """What a change makes of the alerts of a camera.

    Images are named by their capture times.

    Attributes:
      false: How many alerts were sent and are marked false.
      false_gone: Of these, those that are no longer sent.
      right: Images whose alert is marked right, and was sent or is in the cooldown of one that is
        not marked false.
      right_lost: Those of which this is no longer so.
      others_lost: Unmarked alerts that are no longer sent.
      gained: Alerts that were not sent before, as where a cooldown begins with another image.
    """

    false: int
    false_gone: tuple[str, ...]
    right: int
    right_lost: tuple[str, ...]
    others_lost: tuple[str, ...]
    gained: tuple[str, ...]


@dataclass(frozen=True)
class Proposal:
    """One change of the rules of one camera.

    Attributes:
      id: The camera.
      kind: One of `KINDS`.
      label: The label of the false alerts.
      changes: What the rule file is to say.
      effect: What it makes of the alerts.
    """

    id: str
    kind: str
    label: str
    changes: tuple[Setting, ...]
    effect: Effect

    @property
    def in_words(self) -> str:
        """What changes, for a person."""
        return _in_words(self)

    @property
    def polygon(self) -> tuple[tuple[float, float], ...]:
        """The corners of the mask or zone as fractions of the image; none of another kind."""
        values: Any = self.changes[0][1]
        corners = values["polygon"] if self.kind in ("mask", "zone") else ()
        return tuple((float(x), float(y)) for x, y in corners)

    @property
    def loses_right(self) -> bool:
        """Whether a right alert would be lost."""
        return bool(self.effect.right_lost)

    @property
    def right_lost_at_most(self) -> float:
        """The greatest share of right alerts that may be lost, by Wilson's interval at 95 %."""
        interval = wilson(len(self.effect.right_lost), self.effect.right)
        return 1.0 if interval is None else interval[1]

    @property
    def sureness(self) -> str:
        """How sure it is, in words."""
        effect = self.effect
        few = min(effect.false, effect.right) < FEW
        lost = (
            f"of {effect.right} right alerts {len(effect.right_lost)} are lost, so up to "
            f"{self.right_lost_at_most:.0%} of all may be"
            if effect.right
            else "no alert is marked right, so nothing is known of those that would be lost"
        )
        return f"TOO FEW marks: {lost}" if few else lost

    @property
    def order(self) -> tuple[Any, ...]:
        """The sort key: without a loss of right alerts, the most false ones, the least else."""
        effect = self.effect
        return (
            len(effect.right_lost),
            -len(effect.false_gone),
            len(effect.others_lost) + len(effect.gained),
            KINDS.index(self.kind),
            self.label,
            str(self.changes),
        )


def _in_words(proposal: Proposal) -> str:
    label, values = proposal.label, [value for _, value in proposal.changes]
    number = values[0] if isinstance(values[0], str) else "0"
    if proposal.kind == "min_score":
        return f"Alert for {label} only from a score of {number}"
    if proposal.kind == "min_score_at_night":
        return f"At night, alert for {label} only from a score of {number}"
    if proposal.kind == "min_area":
        return f"Ignore {label} that covers less than {float(number):.2%} of the image"
    if proposal.kind == "track":
        return f"Alert for {label} only from a score of {number}, or if it has moved"
    if proposal.kind == "mask":
        return f"Ignore {label} in this place"
    if proposal.kind == "repeats":
        return "Ignore what stays in the same place"
    if proposal.kind == "confirm":
        return "Alert only if a second image shows it within half a minute"
    if proposal.kind == "zone":
        return f"Alert for {label} only in this area"
    if proposal.kind == "cooldown":
        return f"After an alert, send no further one for {int(number[:-1]) // 60:,} minutes"
    periods: Any = values[0]
    return f"Disarm the camera from {periods[0]['start']} to {periods[0]['end']} each day"


@dataclass(frozen=True)
class Findings:
    """What was found for one camera.

    Attributes:
      proposals: The best first.
      nothing: Why there is none, for a person; None if there is one.
    """

    proposals: tuple[Proposal, ...]
    nothing: str | None = None


@dataclass(frozen=True)
class _Seen:
    """An image with what the rules make of it."""

    row: MarkedImage
    image: DetectedImage
    verdict: rules.Verdict


@dataclass(frozen=True)
class _Marked:
    """A detection that was a threat in an image whose alert is known to be false or right."""

    timestamp: str
    detection: rules.Detection


def propose(
    images: Sequence[DetectedImage],
    facts: Mapping[Key, Facts],
    text: str,
    source: str,
    id: str,
    *,
    since: datetime | None = None,
) -> Findings:
    """Returns the proposals for one camera, or why there is none.

    The first one loses no right alert, unless all of them do.

    Args:
      images: All images of the camera, in order of time, with those before `since` to which the
        rules look back.
      facts: What marks say of images.
      text: The content of the rule file, which was found right.
      source: The name of the rule file, for messages.
      id: The camera.
      since: The time (UTC) from which images count; None for all.
    """
    parsed = rules.parse_rules(text.encode(), source)
    if parsed.strict_ids and not parsed.has_camera(id):
        return Findings((), f"the rules are strict and do not name {id}, so its images are refused")
    before = _judge(images, facts, parsed, id, since)
    labels = sorted(_false_labels(before))
    if not labels:
        return Findings((), _why_no_false_alert(before, facts, id))
    found: dict[str, Proposal] = {}
    tried: set[str] = set()
    for label in labels:
        false = [*_marked(before, label, is_right=False)]
        right = [*_marked(before, label, is_right=True)]
        for kind, changes in _candidates(parsed.for_camera(id), id, label, false, right):
            try:
                changed = rules.parse_rules(apply_settings(text, changes).encode(), source)
            except rules.RulesError:
                continue  # The change does not go with what the file says already.
            tried.add(kind)
            effect = _compare(before, _judge(images, facts, changed, id, since))
            if effect.false_gone:
                found.setdefault(str(changes), Proposal(id, kind, label, changes, effect))
    if not found:
        number = len(_false_alerts(before))
        kinds = ", ".join(sorted(tried, key=KINDS.index))
        return Findings(
            (),
            f"no single change of the rules of {id} would silence one of the {number} alerts that "
            f"are marked false; tried: {kinds or 'none goes with what the rules say already'}",
        )
    return Findings(tuple(sorted(found.values(), key=lambda proposal: proposal.order)))


def _why_no_false_alert(seen: Sequence[_Seen], facts: Mapping[Key, Facts], id: str) -> str:
    """Returns why no alert of a camera is known to be sent and false."""
    known = [one.row.facts for one in seen if one.row.facts is not None]
    of_id = sum(camera == id for camera, _ in facts)
    if not of_id:
        return f"nobody has marked an alert of {id}; mark those that are false"
    if not known:
        return f"none of the {of_id} marked images of {id} is among those of the archive that count"
    silent = sum(bool(one.absent) for one in known)
    in_part = sum(one.row.is_sent and bool(one.row.facts and one.row.facts.absent) for one in seen)
    disputed = sum(bool(one.disputed) for one in known)
    if in_part:
        return (
            f"no alert of {id} is false as a whole: {number_of(in_part, 'alert')} with a label "
            f"that is marked false {'is' if in_part == 1 else 'are'} sent for a label that is not; "
            "mark that label too if it is false"
        )
    if silent:
        return f"the rules now send no alert of {id} that is marked false (marked: {silent})"
    if disputed:
        return (
            f"people disagree on {number_of(disputed, 'image')} of {id}, so nothing is known of "
            "alerts there"
        )
    return f"no alert of {id} is marked false; {len(known)} of its images have another mark"


def _judge(
    images: Sequence[DetectedImage],
    facts: Mapping[Key, Facts],
    ruleset: rules.Rules,
    id: str,
    since: datetime | None,
) -> list[_Seen]:
    """Returns the images that count; the ones before them are judged too."""
    history = rules.History()
    seen = []
    for image in images:
        verdict = ruleset.judge(image.for_rules(), history)
        if since is not None and parse_time(image.timestamp) < since:
            continue
        alerted = alerted_by_verdict(verdict)
        labels = frozenset(label for label, _ in alerted.alerted)
        known = facts.get((id, image.timestamp))
        row = MarkedImage(id, image.timestamp, labels, alerted.suppressed_by, known)
        seen.append(_Seen(row, image, verdict))
    return seen


def _false_labels(seen: Iterable[_Seen]) -> set[str]:
    return {
        label
        for one in seen
        if one.row.is_sent and one.row.is_right is False
        for label in one.row.labels
    }


def _marked(seen: Iterable[_Seen], label: str, *, is_right: bool) -> Iterator[_Marked]:
    """Yields the threats of a label in images that are marked false, or that show it."""
    for one in seen:
        facts = one.row.facts
        if facts is None or label not in (facts.present if is_right else facts.absent):
            continue
        for threat in one.verdict.threats:
            if threat.label == label and threat.severity == "alert":
                yield _Marked(one.row.timestamp, one.image.detections[threat.detection])


def _false_alerts(seen: Iterable[_Seen]) -> set[str]:
    """Returns the capture times of the alerts that are sent and marked false."""
    return {one.row.timestamp for one in seen if one.row.is_sent and one.row.is_right is False}


def _compare(before: Sequence[_Seen], after: Sequence[_Seen]) -> Effect:
    false, still_false = _false_alerts(before), _false_alerts(after)
    rows = [(old.row, new.row) for old, new in zip(before, after, strict=True)]
    false_ids, still_ids = (
        {
            rules.alert_id(old.id, old.timestamp, "alert")
            for old, _ in rows
            if old.timestamp in times
        }
        for times in (false, still_false)
    )
    right = [(old, new) for old, new in rows if _is_kept(old, false_ids)]
    return Effect(
        false=len(false),
        false_gone=tuple(sorted(false - still_false)),
        right=len(right),
        right_lost=tuple(new.timestamp for _, new in right if not _is_kept(new, still_ids)),
        others_lost=tuple(
            old.timestamp
            for old, new in rows
            if old.is_sent and not new.is_sent and old.is_right is None
        ),
        gained=tuple(old.timestamp for old, new in rows if new.is_sent and not old.is_sent),
    )


def _is_kept(row: MarkedImage, false_alerts: set[str]) -> bool:
    """Returns whether a right alert was sent, or is covered by one that is not known as false."""
    return row.is_right is True and (row.is_sent or row.suppressed_by not in false_alerts)


# Candidates

_Candidates = Iterator[tuple[str, tuple[Setting, ...]]]


def _candidates(
    camera: rules.CameraRules,
    id: str,
    label: str,
    false: Sequence[_Marked],
    right: Sequence[_Marked],
) -> _Candidates:
    layer = ("cameras", id)
    yield from _scores(camera, (*layer, "objects", label), label, false, right)
    yield from _track(camera, layer, label, false, right)
    yield from _areas(camera, (*layer, "objects", label), label, false)
    yield from _mask(camera, (*layer, "mask"), label, false)
    if camera.repeats is None:
        of_label: tuple[Setting, ...] = (((*layer, "objects", label, "repeats"), "true"),)
        # Without this, persons never repeat.
        yield "repeats", (((*layer, "repeats"), {}), *(of_label if label == "person" else ()))
    if camera.confirm is None:
        yield "confirm", (((*layer, "confirm"), {}),)
    yield from _zone(camera, (*layer, "zones"), label, right)
    yield from _cooldown(camera, layer)
    yield from _schedule(camera, layer, false)


def _scores(
    camera: rules.CameraRules,
    path: tuple[str, ...],
    label: str,
    false: Sequence[_Marked],
    right: Sequence[_Marked],
) -> _Candidates:
    """Yields the least score above all false ones, and the greatest that keeps all right ones."""
    values = {_above(false)}
    if right:
        values.add(_rounded_down(min(one.detection.conf for one in right), 100))
    rule = camera.objects.get(label)
    for value in sorted(value for value in values if value <= 0.99):
        number = f"{value:.2f}"
        if rule is None or value > rule.min_score:
            yield "min_score", (((*path, "min_score"), number),)
        night = None if rule is None else rule.min_score_at_night
        if camera.night is not None and (night is None or value > night):
            yield "min_score_at_night", (((*path, "min_score_at_night"), number),)


def _above(false: Sequence[_Marked]) -> float:
    """Returns the least hundredth above the scores of the false ones."""
    return _rounded_down(max(one.detection.conf for one in false) + 0.01, 100)


def _track(
    camera: rules.CameraRules,
    layer: tuple[str, ...],
    label: str,
    false: Sequence[_Marked],
    right: Sequence[_Marked],
) -> _Candidates:
    """Yields a score above all false ones, below which what moves is still a threat; only where the
    score alone would lose right ones."""
    value = _above(false)
    rule = camera.objects.get(label)
    if camera.track is not None or rule is None or not rule.min_score < value <= 0.99:
        return
    if any(one.detection.conf < value for one in right):
        moving: Value = {"min_score": f"{rule.min_score:.4f}".rstrip("0").rstrip(".")}
        yield (
            "track",
            (
                ((*layer, "objects", label, "min_score"), f"{value:.2f}"),
                ((*layer, "track"), moving),
            ),
        )


def _rounded_down(value: float, steps: int) -> float:
    return math.floor(round(value * steps, 6)) / steps  # 0.58 * 100 is less than 58.


def _areas(
    camera: rules.CameraRules, path: tuple[str, ...], label: str, false: Sequence[_Marked]
) -> _Candidates:
    largest = max(one.detection.bbox[2] * one.detection.bbox[3] for one in false)
    value = _rounded_down(largest + 0.0001, 10_000)
    rule = camera.objects.get(label)
    least = None if rule is None else rule.min_area
    if value < 0.5 and (least is None or value > least):
        yield "min_area", (((*path, "min_area"), f"{value:.4f}"),)


def _mask(
    camera: rules.CameraRules, path: tuple[str, ...], label: str, false: Sequence[_Marked]
) -> _Candidates:
    """Yields a mask around the place at which most of the false boxes are.

    It hides boxes of which nearly all lies in it, so that who stands in front is seen.
    """
    boxes = [one.detection.bbox for one in false]
    together = max(
        ([other for other in boxes if iou(box, other) >= _SAME_PLACE] for box in boxes), key=len
    )
    name = _new_name(camera.masks)
    values: dict[str, Value] = {
        "polygon": _around(together, _MARGIN),
        "anchor": "overlap",
        "min_overlap": f"{_MASK_OVERLAP}",
        "objects": [label],
    }
    yield "mask", (((*path, name), values),)


def _zone(
    camera: rules.CameraRules, path: tuple[str, ...], label: str, right: Sequence[_Marked]
) -> _Candidates:
    """Yields that only what is where the right boxes are is a threat, if these are not few.

    Where a zone holds for the label already, another one would only let more through.
    """
    if len(right) < FEW or any(
        zone.rule_for(label, camera) is not None for zone in camera.zones.values()
    ):
        return
    boxes = [one.detection.bbox for one in right]
    values: dict[str, Value] = {
        "polygon": _around(boxes, _ZONE_MARGIN),
        "objects": {label: {}},
    }
    yield "zone", (((*path, _new_name(camera.zones)), values),)


def _around(boxes: Sequence[Sequence[float]], margin: float) -> Value:
    """Returns the corners of a rectangle around boxes."""
    left, top = (max(0.0, min(box[side] for box in boxes) - margin) for side in (0, 1))
    right, bottom = (
        min(1.0, max(box[side] + box[side + 2] for box in boxes) + margin) for side in (0, 1)
    )
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return [[f"{x:.3f}", f"{y:.3f}"] for x, y in corners]


def _new_name(areas: Container[str]) -> str:
    """Returns the first name `marked-1`, `marked-2` and so on that no mask or zone has."""
    return next(name for number in count(1) if (name := f"marked-{number}") not in areas)


def _cooldown(camera: rules.CameraRules, layer: tuple[str, ...]) -> _Candidates:
    """Yields a cooldown of twice the length, with the gap that ends it."""
    if camera.cooldown is None or 2 * camera.cooldown > _LONGEST_COOLDOWN:
        return
    seconds = 2 * camera.cooldown // timedelta(seconds=1)
    gap = 0 if camera.incident_gap is None else camera.incident_gap // timedelta(seconds=1)
    yield (
        "cooldown",
        (
            ((*layer, "cooldown"), f"{seconds}s"),
            ((*layer, "incident_gap"), f"{gap}s"),
        ),
    )


def _schedule(
    camera: rules.CameraRules, layer: tuple[str, ...], false: Sequence[_Marked]
) -> _Candidates:
    """Yields that the camera is disarmed in the hours of the false alerts, if these are few.

    One or two false alerts are no reason to look away for an hour every day.
    """
    if camera.schedule is not None or len(false) < FEW:
        return
    hours = sorted({local_time(parse_time(one.timestamp), camera.local_zone).hour for one in false})
    following = [*hours[1:], hours[0] + 24]
    pauses = [(after - hour, hour) for hour, after in zip(hours, following, strict=True)]
    longest, last = max(pauses)
    first = (last + longest) % 24
    if 24 - longest + 1 > _MOST_HOURS:
        return
    period: Value = {"start": f"{first:02d}:00", "end": f"{(last + 1) % 24:02d}:00"}
    yield "schedule", (((*layer, "schedule", "disarmed"), [period]),)
