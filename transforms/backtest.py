"""Backtest: which alerts other rules would have sent for the images of an archive.

The images of each camera are judged in the order of time, with the camera's history, and without
the model. An image's alert is *gained* if the rules send one and the baseline sent none; it is
*lost* in the opposite case. An alert that a cooldown suppresses is not sent.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

import apache_beam as beam
import orjson

import rules
from transforms.models.runtime_names import DETECTIONS
from transforms.records.images import DetectedImage
from transforms.records.times import parse_time
from transforms.runtime.counters import count
from transforms.storage import stores
from transforms.storage.archive import Archive, ArchivedImage, Problem

Kind = Literal["gained", "lost"]

UNKNOWN_CAMERA = "unknown_camera"
"""The reason for no alert if strict rules don't name the camera: the job refuses its images."""

_COOLDOWN, _SEVERITY = "cooldown", "severity"
_GROUPS, _EXAMPLES = 12, 4


@dataclass
class AlertTally:
    """Alerts of one camera, or of one rule.

    Attributes:
      before: Alerts by the baseline.
      after: Alerts by the rules.
      gained: Images with an alert only by the rules.
      lost: Images with an alert only by the baseline.
      gained_from: The filters of the baseline that rejected the gained alerts, with counts.
      lost_to: The filters of the rules that reject the lost alerts, with counts.
    """

    before: int = 0
    after: int = 0
    gained: int = 0
    lost: int = 0
    gained_from: Counter[str] = field(default_factory=Counter)
    lost_to: Counter[str] = field(default_factory=Counter)

    def change(self, kind: Kind, filter_name: str) -> None:
        """Counts an image whose alert was gained or lost."""
        if kind == "gained":
            self.gained += 1
            self.gained_from[filter_name] += 1
        else:
            self.lost += 1
            self.lost_to[filter_name] += 1

    def add(self, other: AlertTally) -> None:
        """Adds the numbers of another tally."""
        self.before += other.before
        self.after += other.after
        self.gained += other.gained
        self.lost += other.lost
        self.gained_from += other.gained_from
        self.lost_to += other.lost_to


@dataclass(frozen=True)
class Box:
    """A detection that calls for the alert that was gained, or called for the lost one."""

    label: str
    conf: float
    bbox: tuple[float, float, float, float]


@dataclass(frozen=True)
class Example:
    """An image whose alert was gained or lost."""

    timestamp: str
    file: str
    uri: str
    sha256: str
    score: float
    by: str
    boxes: tuple[Box, ...]


@dataclass
class AlertChange:
    """The images of one camera whose alerts one rule has gained or lost.

    Attributes:
      rule: The rule that sends the gained alerts, or sent the lost ones.
      pictures: The number of images.
      examples: A few of the images, the highest scores first.
    """

    id: str
    rule: str
    kind: Kind
    pictures: int = 0
    examples: list[Example] = field(default_factory=list)

    def add(self, example: Example) -> None:
        """Counts an image."""
        self.pictures += 1
        self.examples = heapq.nsmallest(
            _EXAMPLES,
            [*self.examples, example],
            key=lambda example: (-example.score, example.timestamp),
        )

    @property
    def size(self) -> tuple[int, float, str, str, str]:
        """A sort key; no two changes have the same."""
        return self.pictures, self.examples[0].score, self.id, self.rule, self.kind


@dataclass
class CameraResult:
    """The result of one camera.

    Attributes:
      id: The camera.
      images: Images that were judged and compared.
      not_compared: Images that were judged, and that `final/` lacks.
      other_tiles: Images that the model has not looked at by the tiles of the rules.
      first: The capture time of the first image that was judged; None if there is none.
      last: The capture time of the last.
      alerts: The camera's alerts.
      by_rule: The alerts of each rule; an image counts for every rule that sends its alert.
      problems: The files that could not be read.
    """

    id: str
    images: int = 0
    not_compared: int = 0
    other_tiles: int = 0
    first: str | None = None
    last: str | None = None
    alerts: AlertTally = field(default_factory=AlertTally)
    by_rule: defaultdict[str, AlertTally] = field(default_factory=lambda: defaultdict(AlertTally))
    problems: list[Problem] = field(default_factory=list)


class _Decision(Protocol):
    """A decision on an image."""

    alerts: bool

    @property
    def rules(self) -> Mapping[int, str]:
        """The rules of the detections with an alert."""

    def reason(self, detection: int) -> str:
        """Returns the filter that rejects the alert of a detection."""


class _Judged:
    """A decision by the verdict of rules."""

    def __init__(self, verdict: rules.Verdict) -> None:
        self.alerts = verdict.alerts
        self._verdict = verdict

    @property
    def rules(self) -> Mapping[int, str]:
        return {
            threat.detection: threat.rule
            for threat in self._verdict.threats
            if threat.severity == "alert"
        }

    def reason(self, detection: int) -> str:
        for rejected in self._verdict.rejected:
            if rejected.detection == detection:
                return rejected.by
        return _COOLDOWN if self._verdict.suppressed_by is not None else _SEVERITY


class _Archived:
    """A decision recorded in `final/`; old archives lack cooldowns."""

    def __init__(self, threat: dict[str, Any]) -> None:
        self._suppressed = threat.get("suppressed_by") is not None
        self.alerts = threat["severity"] == "alert" and not self._suppressed
        self._threat = threat

    @property
    def rules(self) -> Mapping[int, str]:
        return {
            threat["detection"]: str(threat["rule"])
            for threat in self._threat["threats"]
            if threat["severity"] == "alert"
        }

    def reason(self, detection: int) -> str:
        for rejected in self._threat["rejected"]:
            if rejected["detection"] == detection:
                return str(rejected["by"])
        return _COOLDOWN if self._suppressed else _SEVERITY


class _Refused:
    """A decision by strict rules that don't name the camera."""

    alerts = False
    rules: Mapping[int, str] = {}

    def reason(self, detection: int) -> str:
        return UNKNOWN_CAMERA


class _Judge:
    """Judges the images of one camera in order."""

    def __init__(self, ruleset: rules.Rules, id: str) -> None:
        self._rules = ruleset
        self.refuses = ruleset.strict_ids and not ruleset.has_camera(id)
        self._history = rules.History() if ruleset.needs_history(id) else None

    def __call__(self, image: rules.Image) -> _Decision:
        if self.refuses:
            return _Refused()
        return _Judged(self._rules.judge(image, self._history))


def look_back(ruleset: rules.Rules, id: str) -> timedelta:
    """Returns how far back in time the verdict of an image may depend on other images.

    Consecutive cooldowns reach farther back, but only the last of them counts.
    """
    camera = ruleset.for_camera(id)
    return (
        (camera.repeats.within if camera.repeats else timedelta())
        + (camera.track.looks_back if camera.track else timedelta())
        + (camera.confirm.within if camera.confirm else timedelta())
        + (camera.cooldown or timedelta())
    )


def has_other_tiles(image: DetectedImage, camera: rules.CameraRules | None) -> bool:
    """Returns whether the model has looked at an image by other tiles than those of the rules.

    It has not if there was no model.
    """
    tiles = None if camera is None else camera.tiles
    wanted = tiles.name if tiles and tiles.fit(image.width, image.height) else None
    return image.model.runtime != DETECTIONS and image.model.tiling != wanted


def backtest_camera(
    id: str,
    archive: Archive,
    ruleset: rules.Rules,
    against: rules.Rules | None = None,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> tuple[CameraResult, list[AlertChange]]:
    """Judges the images of one camera, and compares the alerts.

    Args:
      id: The camera.
      archive: The archive with its images.
      ruleset: The rules.
      against: The baseline; None for the verdicts in `final/`.
      since: The start of the period; images shortly before it are judged too, as rules may look
        back on them.
      until: The end of the period, exclusive.

    Returns:
      The result, and the changes in it.

    Raises:
      OSError: A store can't be reached any more.
    """
    result = CameraResult(id)
    changes: dict[tuple[str, Kind], AlertChange] = {}
    judge = _Judge(ruleset, id)
    camera = ruleset.for_camera(id)
    judge_before = None if against is None else _Judge(against, id)
    earliest = since
    if since is not None:
        look_back_time = max(look_back(used, id) for used in (ruleset, against) if used is not None)
        earliest = since - min(look_back_time, since - datetime.min.replace(tzinfo=since.tzinfo))
    archive.problems.clear()
    for archived in archive.images(id, earliest, until):
        image = archived.image
        judged_image = image.for_rules()
        after = judge(judged_image)
        before = None if judge_before is None else judge_before(judged_image)
        if earliest is not since and since is not None and parse_time(image.timestamp) < since:
            continue
        result.first = result.first or image.timestamp
        result.last = image.timestamp
        result.other_tiles += not judge.refuses and has_other_tiles(image, camera)
        try:
            before = before or _archived(archived)
            if before is None:
                result.not_compared += 1
            else:
                _compare(image, before, after, result, changes)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            result.problems.append((image.uri, f"final/: no valid 'threat': {error!r}"))
            result.not_compared += 1
    result.problems += archive.problems
    return result, list(changes.values())


def _archived(archived: ArchivedImage) -> _Decision | None:
    return None if archived.threat is None else _Archived(archived.threat)


def _compare(
    image: DetectedImage,
    before: _Decision,
    after: _Decision,
    result: CameraResult,
    changes: dict[tuple[str, Kind], AlertChange],
) -> None:
    rules_before = before.rules if before.alerts else {}
    rules_after = after.rules if after.alerts else {}
    kind: Kind | None = None
    examples: dict[str, Example] = {}
    if before.alerts != after.alerts:
        kind = "gained" if after.alerts else "lost"
        examples = _examples(image, rules_before or rules_after, before if after.alerts else after)
    result.images += 1
    result.alerts.before += before.alerts
    result.alerts.after += after.alerts
    for rule in set(rules_before.values()):
        result.by_rule[rule].before += 1
    for rule in set(rules_after.values()):
        result.by_rule[rule].after += 1
    if kind is None:
        return
    first = max(examples.values(), key=lambda example: example.score)
    result.alerts.change(kind, first.by)
    for rule, example in examples.items():
        result.by_rule[rule].change(kind, example.by)
        key = rule, kind
        changes.setdefault(key, AlertChange(image.id, rule, kind)).add(example)


def _examples(
    image: DetectedImage, alerted: Mapping[int, str], silent: _Decision
) -> dict[str, Example]:
    """Makes the image an example for each rule that has gained or lost its alert.

    Args:
      image: The image.
      alerted: The rules of the detections with the alert, by index.
      silent: The decision without an alert.
    """
    detections = {index: image.detections[index] for index in alerted}
    boxes = tuple(
        Box(detection.label, detection.conf, detection.bbox) for detection in detections.values()
    )
    examples: dict[str, Example] = {}
    for index in sorted(detections, key=lambda index: detections[index].conf):
        examples[alerted[index]] = Example(
            timestamp=image.timestamp,
            file=image.file,
            uri=image.uri,
            sha256=image.sha256,
            score=detections[index].conf,
            by=silent.reason(index),
            boxes=boxes,
        )
    return examples


class _BacktestCamera(beam.DoFn):
    CHANGES = "changes"

    def __init__(self, *arguments: Any, **period: Any) -> None:
        self._arguments = arguments
        self._period = period

    def process(self, element: str) -> Iterator[Any]:
        result, changes = backtest_camera(element, *self._arguments, **self._period)
        count("images.judged_again", result.images + result.not_compared)
        yield result
        for change in changes:
            yield beam.pvalue.TaggedOutput(self.CHANGES, change)


class Backtest(beam.PTransform):
    """Judges the images of an archive by other rules, compares the alerts, and writes the result.

    The result file holds a JSON object: `cameras`, a :class:`CameraResult` each, in the order of
    their ids, and `changes`, the largest :class:`AlertChange`\\ s, largest first.

    Output: `PCollection[None]`, once the file is written.

    Args:
      archive: The archive with the images.
      ruleset: The rules.
      against: The baseline; None for the verdicts in `final/`.
      ids: The cameras.
      since: As in :func:`backtest_camera`.
      until: The same.
      result: The address of the result file.
    """

    def __init__(
        self,
        archive: Archive,
        ruleset: rules.Rules,
        against: rules.Rules | None,
        *,
        ids: tuple[str, ...],
        since: datetime | None,
        until: datetime | None,
        result: str,
    ) -> None:
        super().__init__()
        self._ids = ids
        self._judge = _BacktestCamera(archive, ruleset, against, since=since, until=until)
        self._result = result

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[None]:
        cameras, changes = (
            begin
            | "Cameras" >> beam.Create(self._ids)
            | "ShareOut" >> beam.Reshuffle()
            | "Judge" >> beam.ParDo(self._judge).with_outputs(_BacktestCamera.CHANGES, main="main")
        )
        largest = changes | "Largest" >> beam.combiners.Top.Of(
            _GROUPS, key=lambda change: change.size
        )
        return (
            begin
            | "Once" >> beam.Create([self._result])
            | "Write"
            >> beam.Map(_write, beam.pvalue.AsList(cameras), beam.pvalue.AsSingleton(largest))
        )


def _write(uri: str, cameras: list[CameraResult], changes: list[AlertChange]) -> None:
    value = {"cameras": sorted(cameras, key=lambda result: result.id), "changes": changes}
    stores.write_bytes(uri, orjson.dumps(value, option=orjson.OPT_SORT_KEYS))
