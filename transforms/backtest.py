"""Backtest: which alerts other rules would have sent for the pictures of an archive.

Each camera's pictures are judged in the order of time, with what the camera has shown before, and
without the model. A picture's alert is *gained* where the rules send one and what they are compared
with sent none, and *lost* the other way round. An alert that a cooldown holds back is not sent.
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
from transforms import stores
from transforms.archive import Archive, ArchivedImage, Problem
from transforms.counters import count
from transforms.records import DetectedImage
from transforms.times import parse_time

Kind = Literal["gained", "lost"]

UNKNOWN_CAMERA = "unknown_camera"
"""Why there is no alert where strict rules do not name the camera: the job refuses its pictures."""

_COOLDOWN, _SEVERITY = "cooldown", "severity"
_GROUPS, _EXAMPLES = 12, 4


@dataclass
class Tally:
    """Alerts of one camera, or of one rule.

    Attributes:
      before: Alerts by what is compared with.
      after: Alerts by the rules.
      gained: Pictures with an alert only by the rules.
      lost: Pictures with an alert only by what is compared with.
      gained_from: What held the gained ones back before, by filter.
      lost_to: What holds the lost ones back now, by filter.
    """

    before: int = 0
    after: int = 0
    gained: int = 0
    lost: int = 0
    gained_from: Counter[str] = field(default_factory=Counter)
    lost_to: Counter[str] = field(default_factory=Counter)

    def change(self, kind: Kind, by: str) -> None:
        """Counts a picture whose alert was gained or lost."""
        if kind == "gained":
            self.gained += 1
            self.gained_from[by] += 1
        else:
            self.lost += 1
            self.lost_to[by] += 1

    def add(self, other: Tally) -> None:
        """Adds another one's numbers."""
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
    """A picture whose alert was gained or lost."""

    timestamp: str
    file: str
    uri: str
    sha256: str
    score: float
    by: str
    boxes: tuple[Box, ...]


@dataclass
class Change:
    """The pictures of one camera whose alerts one rule has gained or lost.

    Attributes:
      rule: Of a gained alert the rule that calls for it, of a lost one the rule that did.
      pictures: How many there are.
      examples: A few of them, the highest scores first.
    """

    id: str
    rule: str
    kind: Kind
    pictures: int = 0
    examples: list[Example] = field(default_factory=list)

    def add(self, example: Example) -> None:
        """Counts a picture."""
        self.pictures += 1
        self.examples = heapq.nsmallest(
            _EXAMPLES, [*self.examples, example], key=lambda one: (-one.score, one.timestamp)
        )

    @property
    def size(self) -> tuple[int, float, str, str, str]:
        """Orders changes; no two are of one size."""
        return self.pictures, self.examples[0].score, self.id, self.rule, self.kind


@dataclass
class CameraResult:
    """What came of one camera.

    Attributes:
      id: The camera.
      images: Pictures that were judged and compared.
      not_compared: Pictures that were judged, and that `final/` says nothing of.
      first: The time of the first picture that was judged; None without one.
      last: The time of the last.
      alerts: The camera's alerts.
      by_rule: The alerts of each rule; a picture counts for every rule that calls for its alert.
      problems: What could not be read.
    """

    id: str
    images: int = 0
    not_compared: int = 0
    first: str | None = None
    last: str | None = None
    alerts: Tally = field(default_factory=Tally)
    by_rule: defaultdict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    problems: list[Problem] = field(default_factory=list)


class _Decision(Protocol):
    """What was decided on a picture."""

    alerts: bool

    @property
    def rules(self) -> Mapping[int, str]:
        """The rule of each detection that calls for an alert."""

    def reason(self, detection: int) -> str:
        """What holds back the alert for a detection."""


class _Judged:
    """By rules, just now."""

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
    """As `final/` says. Archives written before there were cooldowns say nothing of them."""

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
    """By strict rules that do not name the camera."""

    alerts = False
    rules: Mapping[int, str] = {}

    def reason(self, detection: int) -> str:
        return UNKNOWN_CAMERA


class _Judge:
    """Judges one camera's pictures in their order."""

    def __init__(self, by: rules.Rules, id: str) -> None:
        self._rules = by
        self._refuses = by.strict_ids and not by.knows(id)
        self._history = rules.History() if by.needs_history(id) else None

    def __call__(self, image: rules.Image) -> _Decision:
        if self._refuses:
            return _Refused()
        return _Judged(self._rules.judge(image, self._history))


def look_back(by: rules.Rules, id: str) -> timedelta:
    """How long before a picture others were taken that its verdict may depend on. Cooldowns that
    follow on each other reach farther back; of them only the last counts."""
    camera = by.for_camera(id)
    return (
        (camera.repeats.within if camera.repeats else timedelta())
        + (camera.confirm.within if camera.confirm else timedelta())
        + (camera.cooldown or timedelta())
    )


def backtest_camera(
    id: str,
    archive: Archive,
    by: rules.Rules,
    against: rules.Rules | None = None,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> tuple[CameraResult, list[Change]]:
    """Judges the pictures of one camera and compares.

    Args:
      id: The camera.
      archive: Where its pictures are.
      by: The rules.
      against: What to compare with; None for what `final/` says.
      since: Pictures from this moment on count; those shortly before are judged too, as the rules
        may look back on them.
      until: Pictures before this moment count.

    Returns:
      The result, and the changes that it is made of.

    Raises:
      OSError: A store can't be reached any more.
    """
    result = CameraResult(id)
    changes: dict[tuple[str, Kind], Change] = {}
    judge = _Judge(by, id)
    judge_before = None if against is None else _Judge(against, id)
    earliest = since
    if since is not None:
        back = max(look_back(one, id) for one in (by, against) if one is not None)
        earliest = since - min(back, since - datetime.min.replace(tzinfo=since.tzinfo))
    archive.problems.clear()
    for one in archive.images(id, earliest, until):
        image = one.image
        seen = image.for_rules()
        after = judge(seen)
        before = None if judge_before is None else judge_before(seen)
        if earliest is not since and since is not None and parse_time(image.timestamp) < since:
            continue
        result.first = result.first or image.timestamp
        result.last = image.timestamp
        try:
            before = before or _archived(one)
            if before is None:
                result.not_compared += 1
            else:
                _compare(image, before, after, result, changes)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            result.problems.append((image.uri, f"final/: no sound 'threat': {error!r}"))
            result.not_compared += 1
    result.problems += archive.problems
    return result, list(changes.values())


def _archived(one: ArchivedImage) -> _Decision | None:
    return None if one.threat is None else _Archived(one.threat)


def _compare(
    image: DetectedImage,
    before: _Decision,
    after: _Decision,
    result: CameraResult,
    changes: dict[tuple[str, Kind], Change],
) -> None:
    was = before.rules if before.alerts else {}
    now = after.rules if after.alerts else {}
    kind: Kind | None = None
    by: dict[str, Example] = {}
    if before.alerts != after.alerts:
        kind = "gained" if after.alerts else "lost"
        by = _examples(image, was or now, before if after.alerts else after)
    result.images += 1
    result.alerts.before += before.alerts
    result.alerts.after += after.alerts
    for rule in set(was.values()):
        result.by_rule[rule].before += 1
    for rule in set(now.values()):
        result.by_rule[rule].after += 1
    if kind is None:
        return
    first = max(by.values(), key=lambda one: one.score)
    result.alerts.change(kind, first.by)
    for rule, example in by.items():
        result.by_rule[rule].change(kind, example.by)
        key = rule, kind
        changes.setdefault(key, Change(image.id, rule, kind)).add(example)


def _examples(
    image: DetectedImage, alerted: Mapping[int, str], silent: _Decision
) -> dict[str, Example]:
    """The picture as an example of what each of its rules has gained or lost.

    Args:
      image: The picture.
      alerted: The rules of the detections that call for the alert, by their indices.
      silent: The decision that sends none.
    """
    found = {index: image.detections[index] for index in alerted}
    boxes = tuple(Box(one.label, one.conf, one.bbox) for one in found.values())
    examples: dict[str, Example] = {}
    for index in sorted(found, key=lambda index: found[index].conf):
        examples[alerted[index]] = Example(
            timestamp=image.timestamp,
            file=image.file,
            uri=image.uri,
            sha256=image.sha256,
            score=found[index].conf,
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
    """Judges the pictures of an archive by other rules, compares, and writes what came of it.

    The one file written holds a JSON object: `cameras`, a :class:`CameraResult` each, in the order
    of their ids, and `changes`, the largest :class:`Change`\\ s, largest first.

    Output: `PCollection[None]`, once the file is written.

    Args:
      archive: The pictures.
      by: The rules.
      against: What to compare with; None for what `final/` says.
      ids: The cameras.
      since: As in :func:`backtest_camera`.
      until: The same.
      result: Where the file is to be.
    """

    def __init__(
        self,
        archive: Archive,
        by: rules.Rules,
        against: rules.Rules | None,
        *,
        ids: tuple[str, ...],
        since: datetime | None,
        until: datetime | None,
        result: str,
    ) -> None:
        super().__init__()
        self._ids = ids
        self._judge = _BacktestCamera(archive, by, against, since=since, until=until)
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


def _write(uri: str, cameras: list[CameraResult], changes: list[Change]) -> None:
    value = {"cameras": sorted(cameras, key=lambda one: one.id), "changes": changes}
    stores.write_bytes(uri, orjson.dumps(value, option=orjson.OPT_SORT_KEYS))
