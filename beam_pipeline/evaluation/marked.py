"""What marks can honestly say of the alerts of an archive.

Marks are not a truth file: an image without a mark is unknown, not empty. So nothing is counted as
false or missed that nobody has marked, precision is that of the marked alerts, with the bounds
within which that of all alerts lies, and of recall only an upper bound is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import rules
from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.evaluation.comparison import (
    AlertedLabels,
    alerted_by_verdict,
    alerted_in_json,
    earliest,
    first_names,
    is_in_period,
    other_tiles_note,
    refused_note,
)
from beam_pipeline.evaluation.mark_facts import Facts, Key, facts_of
from beam_pipeline.evaluation.metrics import EvaluatedImage, share, wilson
from beam_pipeline.evaluation.truth import alerting_rules
from beam_pipeline.inputs.selection import Selection, store_errors_as_failures
from rules.geometry import iou
from rules.text import escaped
from transforms.backtest import has_other_tiles
from transforms.records.images import DetectedImage
from transforms.records.times import parse_time
from transforms.storage import stores
from transforms.storage.archive import Problem
from transforms.storage.marks import FALSE, RIGHT, Mark, read_marks, standing

OPTION = "marks"
"""The value of `--truth` for the marks of the archives."""

HEADER = (
    *("images", "alerts", "right", "false", "unknown", "precision", "of all alerts"),
    *("known threats", "caught", "covered", "missed", "recall at most"),
)
_WIDE = 0.2
"""An interval of precision that is wider than this is said to be wide."""
_SAME_PLACE = 0.5


@dataclass(frozen=True)
class MarkedTruth:
    """The marks of archives.

    Attributes:
      marks: Those that stand, the oldest first.
      facts: What is known of each image that has a mark.
      problems: The files that are no marks, and why.
    """

    marks: tuple[Mark, ...]
    facts: Mapping[Key, Facts]
    problems: tuple[Problem, ...] = ()


def read_truth(archives: Sequence[str]) -> MarkedTruth:
    """Reads the marks of archives.

    Raises:
      SetupError: There is none.
      CommandFailedError: A store failed.
    """
    marks: list[Mark] = []
    problems: list[Problem] = []
    with store_errors_as_failures():
        for archive in archives:
            found, not_read = read_marks(archive)
            marks += found
            problems += not_read
    marks.sort(key=lambda mark: parse_time(mark.at))
    if not marks:
        folders = first_names([stores.marks_folder(archive) for archive in archives])
        unread = f" ({len(problems)} files there are none)" if problems else ""
        raise SetupError(
            f"there is no mark in {folders}{unread}; give --truth FILE, or mark alerts first: "
            "python -m beam_pipeline alerts mark --help"
        )
    return MarkedTruth(tuple(standing(marks)), facts_of(marks), tuple(problems))


@dataclass(frozen=True)
class MarkedImage:
    """One image of the archive, marked or not.

    Attributes:
      id: The camera.
      timestamp: The capture time, canonical.
      labels: The labels of severity `alert` in its verdict.
      suppressed_by: The alert whose cooldown suppressed this one; None if it was sent, or there was
        none.
      facts: What marks say of it; None if they say nothing.
    """

    id: str
    timestamp: str
    labels: frozenset[str]
    suppressed_by: str | None
    facts: Facts | None

    @property
    def is_sent(self) -> bool:
        """Whether an alert was sent."""
        return bool(self.labels) and self.suppressed_by is None

    @property
    def is_right(self) -> bool | None:
        """Whether its alert, sent or suppressed, is right; None if that is unknown."""
        return None if self.facts is None else self.facts.is_right(self.labels)


@dataclass(frozen=True)
class MarkTally:
    """What was counted in a group of images.

    Attributes:
      images: All of them, marked or not.
      alerts: Alerts sent.
      right: Of these, those that are known to be right.
      false: Of these, those that are known to be false.
      threats: Images that are known to show a threat.
      caught: Of these, those whose alert is right and was sent: as many as `right`.
      covered: Of these, those whose right alert the cooldown of another one suppressed that is not
        known to be false.
      missed: Of these, those without an alert, or with one that is known to be false, or whose
        alert the cooldown of a false one suppressed. Of the others it is unknown whether their
        alert is for the threat.
      not_caught: Images that are known to show a threat and for which no right alert was sent:
        covered, missed, or suppressed without being known to be right.
    """

    images: int
    alerts: int
    right: int
    false: int
    threats: int
    caught: int
    covered: int
    missed: int
    not_caught: int

    @property
    def unknown(self) -> int:
        """Alerts sent of which nobody has said whether they are right, or people disagree."""
        return self.alerts - self.right - self.false

    @property
    def precision(self) -> float | None:
        """Right alerts of those that are known to be right or false; None without any."""
        return share(self.right, self.right + self.false)

    @property
    def precision_interval(self) -> tuple[float, float] | None:
        """Wilson's interval of the precision at 95 %, as if the marked alerts were drawn at
        random."""
        return wilson(self.right, self.right + self.false)

    @property
    def precision_bounds(self) -> tuple[float, float] | None:
        """The least and the greatest precision that all alerts can have, whatever the unmarked ones
        are; None without an alert."""
        if not self.alerts:
            return None
        return self.right / self.alerts, (self.alerts - self.false) / self.alerts

    @property
    def recall_bound(self) -> float | None:
        """The greatest recall that is possible: all alerts of which nothing is known are right, and
        nothing is there but what is known. None if no threat is known."""
        if not self.threats:
            return None
        caught = self.caught + self.unknown
        return share(caught, caught + self.not_caught)

    def to_json(self) -> dict[str, Any]:
        """Makes the JSON, with shares of 4 decimals."""
        interval, bounds = self.precision_interval, self.precision_bounds
        return {
            "pictures": self.images,
            "alerts": self.alerts,
            "right": self.right,
            "false": self.false,
            "unknown": self.unknown,
            "known_threats": self.threats,
            "caught": self.caught,
            "covered": self.covered,
            "missed": self.missed,
            "precision": _rounded(self.precision),
            "precision_interval": interval and [round(end, 4) for end in interval],
            "precision_bounds": bounds and [round(end, 4) for end in bounds],
            "recall_at_most": _rounded(self.recall_bound),
        }

    def cells(self) -> tuple[str, ...]:
        """Returns the cells of a table's line under `HEADER`."""
        interval, bounds, bound = (
            self.precision_interval,
            self.precision_bounds,
            self.recall_bound,
        )
        return (
            f"{self.images:,}",
            f"{self.alerts:,}",
            f"{self.right:,}",
            f"{self.false:,}",
            f"{self.unknown:,}",
            "-" if interval is None else f"{self.precision:.3f} {_interval_text(interval)}",
            "-" if bounds is None else _interval_text(bounds),
            f"{self.threats:,}",
            f"{self.caught:,}",
            f"{self.covered:,}",
            f"{self.missed:,}",
            "-" if bound is None else f"{bound:.3f}",
        )


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 4)


def _interval_text(ends: tuple[float, float]) -> str:
    return f"[{ends[0]:.2f}, {ends[1]:.2f}]"


@dataclass
class MarkedComparison:
    """The images of an archive beside its marks.

    Attributes:
      truth: The marks.
      rows: All images that are selected, of each camera together and in order of time.
      images: Those with a mark that says something, for the search of `tune`.
      absent: Of each of these images the labels that it does not show.
      refused: Cameras whose images are refused by strict rules.
      without_verdict: How many images `final/` does not hold.
      other_tiles: How many images the model has not looked at by the tiles of the rules that judge.
    """

    truth: MarkedTruth
    rows: list[MarkedImage] = field(default_factory=list)
    images: list[EvaluatedImage] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    without_verdict: int = 0
    other_tiles: int = 0

    def notes(self) -> list[str]:
        """Returns what a person must know to read the numbers, a line each."""
        marks, whole = self.truth.marks, tally(self.rows)
        by = Counter(mark.by for mark in marks)
        names = first_names([f"{name} ({number})" for name, number in by.most_common()])
        lines = [f"{len(marks)} marks of {len(self.truth.facts)} images, by {escaped(names)}"]
        counted = {(row.id, row.timestamp) for row in self.rows if row.facts is not None}
        if elsewhere := [key for key in self.truth.facts if key not in counted]:
            shown = first_names([f"{id} {time}" for id, time in sorted(elsewhere)])
            lines.append(f"{len(elsewhere)} marked images are not among the selected ones: {shown}")
        if self.without_verdict:
            lines.append(f"{self.without_verdict} images without a verdict are left out")
        if self.refused:
            lines.append(refused_note(self.refused))
        if self.other_tiles:
            lines.append(other_tiles_note(self.other_tiles))
        disputed = [row for row in self.rows if row.facts is not None and row.facts.disputed]
        if disputed:
            shown = first_names([f"{row.id} {row.timestamp}" for row in disputed])
            lines.append(f"people disagree on {len(disputed)} images, which are unknown: {shown}")
        return [*lines, *_limits(whole), *place_notes(self.truth)]


def _limits(whole: MarkTally) -> list[str]:
    """Returns what can't be told from the marks there are."""
    lines = []
    interval = whole.precision_interval
    if interval is None:
        lines.append("no alert is marked right or false: nothing is known of precision")
    elif interval[1] - interval[0] > _WIDE:
        lines.append(
            f"TOO FEW: {whole.right + whole.false} alerts that are marked right or false leave the "
            f"precision between {interval[0]:.2f} and {interval[1]:.2f}"
        )
    if whole.unknown and interval is not None:
        lines.append(
            f"{whole.unknown} of {whole.alerts} alerts are unknown: the precision is that of the "
            "others, which need not be typical"
        )
    if not whole.missed:
        lines.append(
            "nobody has marked a missed threat: nothing is known of recall; images without an "
            "alert that nobody looked at may show some"
        )
    else:
        lines.append(
            "recall is at most what is shown: images without an alert that nobody looked at may "
            "show more threats"
        )
    return lines


def place_notes(truth: MarkedTruth) -> list[str]:
    """Returns where false alerts are at one place, so that a mask or `repeats` could silence them,
    and how many right ones are there too."""
    false: dict[tuple[str, str], list[Any]] = {}
    right: dict[tuple[str, str], list[Any]] = {}
    for mark in truth.marks:
        facts = truth.facts[mark.id, mark.timestamp]
        for threat in mark.threats if mark.mark in (RIGHT, FALSE) else ():
            if threat.bbox is None or mark.label not in (None, threat.label):
                continue
            if threat.label in facts.absent:
                false.setdefault((mark.id, threat.label), []).append((mark.timestamp, threat.bbox))
            elif threat.label in facts.present:
                right.setdefault((mark.id, threat.label), []).append((mark.timestamp, threat.bbox))
    lines = []
    for (id, label), boxes in sorted(false.items()):
        all_times = {time for time, _ in boxes}
        place, times = max(
            ((box, _times_at(box, boxes)) for _, box in boxes), key=lambda item: len(item[1])
        )
        if len(times) < 2:
            continue
        there = len(_times_at(place, right.get((id, label), ())))
        where = ", ".join(f"{side:g}" for side in place)
        lines.append(
            f"{len(times)} of {len(all_times)} images with a false {label} on {id} have it at one "
            f"place (bbox {where}), where {there} right ones are too: a mask there, or `repeats`, "
            "may silence them; `backtest` shows what else that changes"
        )
    return lines


def _times_at(place: Any, boxes: Iterable[Any]) -> set[str]:
    return {time for time, box in boxes if iou(place, box) >= _SAME_PLACE}


def compare_marks(
    chosen: Selection, truth: MarkedTruth, *, ruleset: rules.Rules | None, rejudge: bool
) -> MarkedComparison:
    """Sets the verdicts of all selected images beside the marks.

    Args:
      chosen: Which images count. Those shortly before are judged too, as rules may look back.
      truth: The marks.
      ruleset: The rules; None for the verdicts of `final/`.
      rejudge: Whether `ruleset` judges; if not, the verdicts are those of `final/`.

    Raises:
      SetupError: No selected image has a mark.
      OSError: A store can't be reached any more.
    """
    result = MarkedComparison(truth)
    for id in chosen.ids:
        if rejudge and ruleset is not None and ruleset.strict_ids and not ruleset.has_camera(id):
            result.refused.append(id)
            continue
        judge = ruleset if rejudge else None
        looked_for = frozenset() if ruleset is None else alerting_rules(ruleset.for_camera(id))
        for image, alerted in _verdicts(chosen, id, judge):
            timestamp = image.timestamp
            if alerted is None:
                result.without_verdict += 1
                continue
            if judge is not None:
                result.other_tiles += has_other_tiles(image, judge.for_camera(id))
            facts = truth.facts.get((id, timestamp))
            labels = frozenset(label for label, _ in alerted.alerted)
            result.rows.append(MarkedImage(id, timestamp, labels, alerted.suppressed_by, facts))
            if facts is not None and facts.says_something:
                result.images.append(
                    EvaluatedImage(
                        id,
                        timestamp,
                        dict.fromkeys(facts.present),
                        alerted.alerted,
                        alerted.suppressed_by,
                        looked_for,
                        known=frozenset({*facts.present, *facts.absent}),
                    )
                )
    if not any(row.facts is not None for row in result.rows):
        shown = first_names([f"{id} {time}" for id, time in sorted(truth.facts)])
        raise SetupError(f"the marks are of no selected image of the archive, but of {shown}")
    return result


def _verdicts(
    chosen: Selection, id: str, judge: rules.Rules | None
) -> Iterator[tuple[DetectedImage, AlertedLabels | None]]:
    """Yields the selected images of a camera, each with its verdict."""
    history = rules.History()
    for archived in chosen.archive.images(id, earliest(chosen, judge, id), chosen.until):
        image = archived.image
        alerted: AlertedLabels | None = None
        if judge is not None:
            alerted = alerted_by_verdict(judge.judge(image.for_rules(), history))
        elif archived.threat is not None:
            try:
                alerted = alerted_in_json(archived.threat)
            except (KeyError, TypeError, AttributeError) as error:
                problem = f"final/: no valid 'threat': {error!r}"
                chosen.archive.problems.append((image.uri, problem))
        if is_in_period(chosen, parse_time(image.timestamp)):
            yield image, alerted


# Counting


def tally(rows: Iterable[MarkedImage]) -> MarkTally:
    """Counts images as wholes: an alert is right if one of its labels is there."""
    listed = list(rows)
    return _tally(listed, _false_alerts(listed))


def by_id(rows: Sequence[MarkedImage]) -> dict[str, MarkTally]:
    """Counts the images of each camera."""
    cameras: dict[str, list[MarkedImage]] = {}
    for row in rows:
        cameras.setdefault(row.id, []).append(row)
    return {id: tally(own) for id, own in sorted(cameras.items())}


def by_label(rows: Sequence[MarkedImage]) -> dict[str, MarkTally]:
    """Counts, for each label, what verdicts and marks say of this label alone."""
    false = _false_alerts(rows)
    known = {
        label for row in rows if row.facts for label in (*row.facts.present, *row.facts.absent)
    }
    labels = known | {label for row in rows for label in row.labels}
    return {
        label: _tally([_of_label(row, label) for row in rows], false) for label in sorted(labels)
    }


def _of_label(row: MarkedImage, label: str) -> MarkedImage:
    facts = row.facts
    if facts is not None:
        present = {label: facts.present[label]} if label in facts.present else {}
        facts = Facts(present, facts.absent & {label})
    return MarkedImage(row.id, row.timestamp, row.labels & {label}, row.suppressed_by, facts)


def _false_alerts(rows: Iterable[MarkedImage]) -> frozenset[str]:
    return frozenset(
        rules.alert_id(row.id, row.timestamp, "alert")
        for row in rows
        if row.is_sent and row.is_right is False
    )


def _tally(rows: Sequence[MarkedImage], false_alerts: frozenset[str]) -> MarkTally:
    sent = [row.is_right for row in rows if row.is_sent]
    threats = [row for row in rows if row.facts is not None and row.facts.is_threat]
    covered = missed = 0
    for row in threats:
        if not row.labels or row.is_right is False or row.suppressed_by in false_alerts:
            missed += 1
        elif not row.is_sent and row.is_right:
            covered += 1
    return MarkTally(
        images=len(rows),
        alerts=len(sent),
        right=sum(is_right is True for is_right in sent),
        false=sum(is_right is False for is_right in sent),
        threats=len(threats),
        caught=sum(row.is_sent and row.is_right is True for row in threats),
        covered=covered,
        missed=missed,
        not_caught=sum(not row.is_sent or row.is_right is False for row in threats),
    )
