"""The search for scores and areas that keep recall and give the fewest false alerts.

`propose` knows nothing of rules and images: its caller gives it a function that measures values.
`Cases` is such a function, for the images of cameras that share their rules. It judges all images
again for each set of values, with all other rules unchanged, so zones, masks, schedules, nights,
repeats and confirmation count. A cooldown does not count: each image in it is judged as if alone.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import rules
from beam_pipeline.evaluation.metrics import incidents, share
from rules.effective import Zone
from rules.frozen import FrozenMapping
from rules.judging import area
from transforms.records.times import parse_time

SCORES = tuple(round(0.05 + step / 100, 2) for step in range(91))
"""The scores that are tried: 0.05, beneath which no detection is kept, to 0.95."""

_LOW_MARGIN, _HIGH_MARGIN = 0.8, 1.25


@dataclass(frozen=True)
class Values:
    """What is tuned: see `rules.ObjectRule`."""

    min_score: float
    min_area: float | None
    max_area: float | None


@dataclass(frozen=True)
class Measured:
    """How values perform.

    Attributes:
      threats: Images, or incidents, with a real threat.
      caught: Of these, those that would raise the alert.
      others: Images without a threat.
      false_alerts: Of these, those that would raise it.
      camera_days: For each camera the UTC days on which there is an image of it.
    """

    threats: int
    caught: int
    others: int
    false_alerts: int
    camera_days: int

    @property
    def recall(self) -> float | None:
        """Caught threats of all; None without any."""
        return share(self.caught, self.threats)

    @property
    def false_per_camera_day(self) -> float | None:
        """False alerts that a camera sends in a day; None without an image."""
        return share(self.false_alerts, self.camera_days)

    def keeps(self, min_recall: float) -> bool:
        """Returns whether recall is at least that; never without a threat."""
        # Not as a quotient: 49 of 50 is 0.98, whatever the binary fractions make of it.
        return self.threats > 0 and self.caught >= min_recall * self.threats - 1e-9


PERSON = "person"
"""The label that never gets a max_area: a person who comes close is the last one to be missed."""

Measure = Callable[[Values], Measured]
Pair = tuple["float | None", "float | None"]
"""min_area and max_area; None for no bound."""


def threats_needed(min_recall: float) -> float:
    """Returns how many threats a truth must have for one missed threat to be allowed: with fewer, a
    recall of `min_recall` says no more than that none was missed. Infinite for a recall of 1.
    """
    return math.inf if min_recall >= 1 else math.ceil(round(1 / (1 - min_recall), 6))


def propose(
    measure: Measure,
    now: Values,
    areas: Sequence[Pair],
    min_recall: float,
) -> Values | None:
    """Returns the values with the fewest false alerts among those that keep recall.

    For each pair of areas the search finds the highest score that keeps recall, supposing that a
    higher score catches no more. Of the pairs the first with the fewest false alerts is taken. Of
    the scores that give as few, those that catch most, and of these the middle one: a person who
    scores a little less than all those of the truth is still caught.

    Args:
      measure: Measures how values perform.
      now: The values that hold; they are kept where nothing is better.
      areas: Pairs of min_area and max_area to try, those to be preferred first.
      min_recall: The minimum recall, above 0 to 1.

    Returns:
      The values; None where none keeps recall.
    """
    by_areas = [[Values(score, *pair) for score in SCORES] for pair in areas]
    keeping = [
        scores[: _how_many(scores, lambda values: measure(values).keeps(min_recall))]
        for scores in by_areas
    ]
    keeping = [scores for scores in keeping if scores]
    if not keeping:
        return None
    best = min(keeping, key=lambda scores: measure(scores[-1]).false_alerts)
    fewest = measure(best[-1]).false_alerts
    fewest_false = best[_how_many(best, lambda values: measure(values).false_alerts > fewest) :]
    most = measure(fewest_false[0]).caught
    measured_now = measure(now)
    if (
        measured_now.keeps(min_recall)
        and measured_now.false_alerts <= fewest
        and measured_now.caught >= most
    ):
        return now
    equally_good = fewest_false[
        : _how_many(fewest_false, lambda values: measure(values).caught >= most)
    ]
    return equally_good[(len(equally_good) - 1) // 2]


def best_recall(measure: Measure, areas: Sequence[Pair]) -> float:
    """Returns the best recall that any values reach, 0 without a threat.

    Args:
      measure: Measures how values perform.
      areas: Pairs of min_area and max_area to try.
    """
    return max(measure(Values(SCORES[0], *pair)).recall or 0.0 for pair in areas)


def _how_many(scores: Sequence[Values], holds: Callable[[Values], bool]) -> int:
    """Returns how many values come before the first for which a condition does not hold."""
    return bisect_left(scores, True, key=lambda values: not holds(values))


def areas_to_try(
    now: Values,
    threat_areas: Sequence[float],
    min_recall: float,
    *,
    bounds_above: bool = True,
) -> list[Pair]:
    """Returns pairs of min_area and max_area: as they are, without, and such that at most as many
    threats fall outside as may be missed, with a margin of a fifth.

    Args:
      now: The values that hold.
      threat_areas: Areas of the boxes of real threats, as fractions of the frame.
      min_recall: The minimum recall.
      bounds_above: Whether other values of max_area are tried, too.
    """
    ordered = sorted(threat_areas)
    allowed = math.floor(round((1 - min_recall) * len(ordered), 6))
    missed = sorted({0, allowed // 2, allowed}) if ordered else []
    least: list[float | None] = [now.min_area, None if now.min_area is None else 0.0]
    greatest: list[float | None] = [now.max_area]
    least += [_two_digits(ordered[index] * _LOW_MARGIN, math.floor) for index in missed]
    if bounds_above:
        greatest.append(None if now.max_area is None else 1.0)
        greatest += [
            min(1.0, _two_digits(ordered[-1 - index] * _HIGH_MARGIN, math.ceil)) for index in missed
        ]
    pairs = [(low, high) for low in dict.fromkeys(least) for high in dict.fromkeys(greatest)]
    return [(low, high) for low, high in pairs if low is None or high is None or low <= high]


def _two_digits(number: float, to_whole: Callable[[float], int]) -> float:
    """Returns a number with two significant digits, and no more decimals than a rule needs."""
    if number <= 0:
        return 0.0
    decimals = min(6, 1 - math.floor(math.log10(number)))
    scale: float = 10**decimals
    return to_whole(round(number * scale, 9)) / scale


# Measuring


@dataclass(frozen=True)
class Case:
    """One camera's images as one label is tuned on them.

    Attributes:
      camera: Its rules.
      images: Its images in order of time, with the detections of the label alone.
      is_threat: Of each whether the label is a real threat in it; None where there is no truth.
      is_later: Of each whether it belongs to the later part, on which nothing is tuned.
    """

    camera: rules.CameraRules
    images: Sequence[rules.Image]
    is_threat: Sequence[bool | None]
    is_later: Sequence[bool]

    def __len__(self) -> int:
        return len(self.images)

    def indexes_of_part(self, *, later: bool) -> list[int]:
        """Returns the places of the images with truth of one part."""
        return [
            index
            for index in range(len(self))
            if self.is_threat[index] is not None and self.is_later[index] == later
        ]


@dataclass(frozen=True)
class Cases:
    """The cameras that share what is tuned for a label.

    Attributes:
      label: The label.
      cases: One for each camera.
      gap: Incidents are counted in place of images: runs of threats of one camera that follow on
        each other within this time. None: images are.
    """

    label: str
    cases: Sequence[Case]
    gap: timedelta | None = None
    _alerts_by_values: dict[Values, list[list[bool]]] = field(
        default_factory=dict, init=False, repr=False
    )

    @property
    def now(self) -> Values:
        """The values that hold."""
        rule = self.cases[0].camera.objects[self.label]
        return Values(rule.min_score, rule.min_area, rule.max_area)

    def measure(self, values: Values, *, later: bool = False) -> Measured:
        """Returns how values perform on the earlier part of the images, or on the later."""
        if values not in self._alerts_by_values:
            self._alerts_by_values[values] = [
                _alerts(case.images, _with(case.camera, self.label, values)) for case in self.cases
            ]
        threats = caught = others = false_alerts = camera_days = 0
        for case, has_alert in zip(self.cases, self._alerts_by_values[values], strict=True):
            indexes = case.indexes_of_part(later=later)
            camera_days += len({case.images[index].timestamp[:10] for index in indexes})
            threat_indexes = [index for index in indexes if case.is_threat[index]]
            others += len(indexes) - len(threat_indexes)
            false_alerts += sum(has_alert[index] for index in indexes if not case.is_threat[index])
            units = self._units([case.images[index] for index in threat_indexes])
            threats += len(set(units))
            caught += len(
                {
                    unit
                    for unit, index in zip(units, threat_indexes, strict=True)
                    if has_alert[index]
                }
            )
        return Measured(threats, caught, others, false_alerts, camera_days)

    def areas_to_try(self, min_recall: float) -> list[Pair]:
        """As the function of this name, by the boxes with the highest scores in the images of the
        earlier part; those that do not fit a zone's own bounds are left out."""
        threat_areas = [
            area(max(image.detections, key=lambda detection: detection.conf))
            for case in self.cases
            for index in case.indexes_of_part(later=False)
            if case.is_threat[index] and (image := case.images[index]).detections
        ]
        return [
            pair
            for pair in areas_to_try(
                self.now, threat_areas, min_recall, bounds_above=self.label != PERSON
            )
            if self._fits(*pair)
        ]

    def _fits(self, least: float | None, greatest: float | None) -> bool:
        return all(
            rule.min_area is None or rule.max_area is None or rule.min_area <= rule.max_area
            for case in self.cases
            for zone in _with(case.camera, self.label, Values(0.5, least, greatest)).zones.values()
            for rule in zone.rules.values()
        )

    def _units(self, images: Sequence[rules.Image]) -> Sequence[int]:
        if self.gap is None:
            return range(len(images))
        return incidents([parse_time(image.timestamp) for image in images], self.gap)


def with_label_only(image: rules.Image, label: str) -> rules.Image:
    """Returns an image with the detections of one label alone."""
    return replace(
        image,
        detections=tuple(detection for detection in image.detections if detection.label == label),
    )


def _with(camera: rules.CameraRules, label: str, values: Values) -> rules.CameraRules:
    """Returns a camera's rules for one label alone, with other values and without cooldown."""
    rule = replace(
        camera.objects[label],
        min_score=values.min_score,
        min_area=values.min_area,
        max_area=values.max_area,
    )

    def with_own_values(zone: Zone) -> Zone:
        zone_values = {} if zone.objects is None else zone.objects
        label_values = {label: zone_values[label].over(rule)} if label in zone_values else {}
        return replace(zone, rules=FrozenMapping(label_values))

    return replace(
        camera,
        objects=FrozenMapping({label: rule}),
        zones=FrozenMapping({name: with_own_values(zone) for name, zone in camera.zones.items()}),
        cooldown=None,
    )


def _alerts(images: Sequence[rules.Image], camera: rules.CameraRules) -> list[bool]:
    ruleset = rules.Rules("", False, camera, FrozenMapping())
    if not camera.needs_history:
        return [
            bool(image.detections) and ruleset.judge(image).severity == "alert" for image in images
        ]
    history = rules.History()
    return [ruleset.judge(image, history).severity == "alert" for image in images]
