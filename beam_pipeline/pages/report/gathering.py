"""What the report tells, gathered from what a job has written.

Numbers come from the counts, and what is invalid from the names in ``invalid/``: of 50,000 pictures
no JSON is opened but those of the alerts that are shown, and, where blind cameras are looked for,
those that `health` reads. Records of alerts of other times are not
opened either, as an alert's id follows from its picture's name.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

import orjson

import rules
from beam_pipeline import counts
from beam_pipeline.chart import recent_period
from beam_pipeline.counts import CountRow
from beam_pipeline.health import examine
from beam_pipeline.health_statistics import Finding
from transforms import reasons, stores
from transforms.ledger import SUPPRESSED
from transforms.parse_filename import InvalidName, parse_name
from transforms.text import one_line, printable
from transforms.times import canonical_time, parse_time

INVALID_SHOWN = 20
"""Of each reason, those of which is told what is wrong."""
_AT_ONCE = 16
_ALERT_FILE = re.compile(r"[0-9a-f]{32}\.json")
_HASH = re.compile(r"-[0-9a-f]{8}(?=\.[^.]+$)")
_UNDATED = frozenset(
    (
        reasons.BAD_NAME,
        reasons.BAD_TIMESTAMP,
        reasons.TIMESTAMP_NOT_UTC,
        reasons.TIMESTAMP_IN_FUTURE,
    )
)
"""Where the name gives no time that can be believed."""
_HOURS_SHOWN_ONE_BY_ONE = 48

One = TypeVar("One")
Other = TypeVar("Other")


@dataclass(frozen=True)
class Period:
    """The windows that begin from `start` on and before `end` (UTC)."""

    start: datetime
    end: datetime

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end


@dataclass(frozen=True)
class Camera:
    """One row of the fleet.

    Attributes:
      id: The camera.
      counted: Its counts, summed; None where it has no valid picture in the period.
      invalid: Invalid pictures whose names say that they are its.
      late: Pictures that came too late for their windows.
      findings: What is wrong with it.
    """

    id: str
    counted: CountRow | None
    invalid: int
    late: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class HeatMap:
    """Threats by camera and hour.

    Attributes:
      hours: The first moment of each column.
      by_time_of_day: Whether a column is that hour of every day of the period.
      rows: For each camera, most threats first, the threats of each hour; None where no picture
        was counted.
      most: The largest number.
    """

    hours: tuple[datetime, ...]
    by_time_of_day: bool
    rows: tuple[tuple[str, tuple[int | None, ...]], ...]
    most: int


@dataclass(frozen=True)
class InvalidImages:
    """The invalid images of one reason: how many, and some of their records."""

    reason: str
    number: int
    shown: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class AlertRecord:
    """One file of ``alerts/``.

    Attributes:
      output: The job's output that it is of.
      alert_id: Its id.
      camera: The camera's.
      timestamp: Of the picture, canonical.
      labels: What the threats are, with the highest score of each.
      outcomes: Target (None for none), outcome and detail, each.
      image_uri: Where the picture was.
      final_uri: Where its image JSON is.
    """

    output: str
    alert_id: str
    camera: str
    timestamp: str
    labels: Mapping[str, float]
    outcomes: tuple[tuple[str | None, str, str], ...]
    image_uri: str
    final_uri: str

    @property
    def is_suppressed(self) -> bool:
        """Whether it came in the cooldown of another and was not sent."""
        return any(outcome == SUPPRESSED for _, outcome, _ in self.outcomes)


@dataclass(frozen=True)
class Fleet:
    """Everything that the page tells.

    Attributes:
      period: What is told of; None where nothing was counted, and then of all times.
      rows: The windowed counts.
      cameras: All that were seen, are named by the rules or have a finding, by id.
      heat: Threats by camera and hour.
      findings: What is wrong with cameras, faults first.
      each_picture: Whether blind cameras were looked for.
      invalid: Invalid images, the most frequent reason first.
      alerts: Newest first.
      problems: Files that could not be read, and why.
    """

    period: Period | None
    rows: Sequence[CountRow]
    cameras: Sequence[Camera]
    heat: HeatMap
    findings: Sequence[Finding]
    each_picture: bool
    invalid: Sequence[InvalidImages]
    alerts: Sequence[AlertRecord]
    problems: Sequence[tuple[str, str]]

    @property
    def total(self) -> CountRow | None:
        """All counts, summed."""
        return next(iter(counts.sum_total(self.rows)), None)

    @property
    def late(self) -> int:
        """Pictures that came too late for their windows."""
        return sum(camera.late for camera in self.cameras)

    @property
    def suppressed(self) -> int:
        """Alerts that were not sent, as they came in the cooldown of another."""
        return sum(alert.is_suppressed for alert in self.alerts)

    @property
    def outcomes(self) -> Mapping[str | None, Mapping[str, int]]:
        """By target, how many alerts came to which outcome."""
        found: dict[str | None, Counter[str]] = defaultdict(Counter)
        for alert in self.alerts:
            for target, outcome, _ in alert.outcomes:
                found[target][outcome] += 1
        return {name: dict(sorted(found[name].items())) for name in sorted(found, key=str)}


def gather(
    outputs: Sequence[str],
    *,
    period_hours: float = 24,
    since: datetime | None = None,
    until: datetime | None = None,
    by: rules.Rules | None = None,
    missing_ok: bool = False,
    each_picture: bool = True,
) -> Fleet:
    """Reads what there is to tell of one output or several.

    Args:
      outputs: The job's output directories, on any filesystem that Beam knows.
      period_hours: Length of the period up to the newest window, without the next two.
      since: First moment of the period (UTC).
      until: First moment after it.
      by: The rules, for what they say of cameras that never sent.
      missing_ok: Whether an output without counts has a report too.
      each_picture: Whether to read what was detected in each picture, to find blind cameras.

    Raises:
      CountsError: No counts, or wrong ones.
      OSError: A store can't be listed.
    """
    period = _period(outputs, period_hours, since, until, missing_ok)
    rows: list[CountRow] = []
    findings: Sequence[Finding] = ()
    found = _Found(period)
    if period is not None:
        rows = counts.read_counts(outputs, since=period.start, until=period.end)
        looked_at = examine(
            outputs, since=period.start, until=period.end, by=by, each_picture=each_picture
        )
        findings = looked_at.findings
        for uri, why in looked_at.problems:
            found.add_problem(uri, why, outputs)
    for output in outputs:
        found.add_invalid(output)
        found.add_alerts(output)
    late = counts.read_late(
        outputs,
        since=None if period is None else period.start,
        until=None if period is None else period.end,
    )
    invalid = sorted(found.invalid.items(), key=lambda one: (-len(one[1]), one[0]))
    return Fleet(
        period=period,
        rows=rows,
        cameras=_cameras(rows, found.invalid_by_id, late, findings, by),
        heat=heat_map(rows),
        findings=findings,
        each_picture=each_picture,
        invalid=[
            InvalidImages(
                reason,
                len(uris),
                tuple(found.records(sorted(uris)[:INVALID_SHOWN], outputs)),
            )
            for reason, uris in invalid
        ],
        alerts=sorted(
            found.alerts, key=lambda one: (parse_time(one.timestamp), one.camera), reverse=True
        ),
        problems=sorted(found.problems.items()),
    )


def _period(
    outputs: Sequence[str],
    period_hours: float,
    since: datetime | None,
    until: datetime | None,
    missing_ok: bool,
) -> Period | None:
    try:
        windows = counts.list_windows(outputs)
    except counts.NoCountsError:
        if not missing_ok:
            raise
        windows = []
    if since is None and until is None:
        return Period(*recent_period(windows, period_hours)) if windows else None
    start = since or min((start for start, _ in windows), default=None)
    end = until or max((end for _, end in windows), default=None)
    return Period(start, end) if start is not None and end is not None else None


def _cameras(
    rows: Sequence[CountRow],
    invalid: Mapping[str, int],
    late: Sequence[CountRow],
    findings: Sequence[Finding],
    by: rules.Rules | None,
) -> list[Camera]:
    counted = {row.id: row for row in counts.sum_by_id(rows)}
    too_late: Counter[str] = Counter()
    for row in late:
        too_late[row.id] += row.images
    of_each: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        of_each[finding.id].append(finding)
    ids = counted.keys() | invalid.keys() | too_late.keys() | of_each.keys()
    if by is not None:
        ids |= set(by.cameras)
    return [
        Camera(id, counted.get(id), invalid.get(id, 0), too_late[id], tuple(of_each.get(id, ())))
        for id in sorted(ids)
    ]


def heat_map(rows: Sequence[CountRow]) -> HeatMap:
    """Threats by camera and hour: each hour of up to two days, otherwise the hours of the day.

    A window that is longer than an hour counts for the hour in which it begins.
    """
    if not rows:
        return HeatMap((), False, (), 0)

    def hour(moment: datetime) -> datetime:
        return moment.replace(minute=0, second=0, microsecond=0)

    first, last = (hour(choose(row.window_start for row in rows)) for choose in (min, max))
    number = (last - first) // timedelta(hours=1) + 1
    by_time_of_day = number > _HOURS_SHOWN_ONE_BY_ONE
    if by_time_of_day:
        first, number = first.replace(hour=0), 24
    threats: dict[str, list[int | None]] = {}
    for row in rows:
        of_id = threats.setdefault(row.id, [None] * number)
        place = (hour(row.window_start) - first) // timedelta(hours=1) % number
        if row.images:
            of_id[place] = (of_id[place] or 0) + row.threats
    in_order = sorted(threats, key=lambda id: (-sum(one or 0 for one in threats[id]), id))
    return HeatMap(
        hours=tuple(first + timedelta(hours=k) for k in range(number)),
        by_time_of_day=by_time_of_day,
        rows=tuple((id, tuple(threats[id])) for id in in_order),
        most=max(one or 0 for of_id in threats.values() for one in of_id),
    )


@dataclass
class _Found:
    """What lies in the folders of outputs."""

    period: Period | None
    invalid: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    invalid_by_id: Counter[str] = field(default_factory=Counter)
    alerts: list[AlertRecord] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)

    def add_problem(self, uri: str, why: str, outputs: Sequence[str]) -> None:
        """What could not be read of one of the outputs, told without that one's address."""
        place = next((short for one in outputs if (short := without(one, uri)) != uri), uri)
        self.problems.setdefault(printable(place), why)

    def add_invalid(self, output: str) -> None:
        """The invalid images of the period, and those of which the time is not known."""
        for reason, name in _files(output, "invalid"):
            if reason not in reasons.ALL or not name.endswith(".json"):
                continue
            camera, moment = _named(name.removesuffix(".json"))
            if moment is not None and reason not in _UNDATED and not self._is_told_of(moment):
                continue
            self.invalid[reason].append(stores.join(output, "invalid", reason, name))
            if camera is not None:
                self.invalid_by_id[camera] += 1

    def add_alerts(self, output: str) -> None:
        """The alerts of the period."""
        elsewhere = self._alerts_of_other_times(output)
        uris = [
            stores.join(output, "alerts", camera, name)
            for camera, name in _files(output, "alerts")
            if _ALERT_FILE.fullmatch(name) and name.removesuffix(".json") not in elsewhere
        ]
        for uri, record in zip(uris, _read(uris), strict=True):
            try:
                alert = _alert(output, _object(record))
                moment = parse_time(alert.timestamp)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                self.add_problem(uri, _why(error), [output])
                continue
            if self._is_told_of(moment):
                self.alerts.append(alert)

    def _is_told_of(self, moment: datetime) -> bool:
        return self.period is None or moment in self.period

    def _alerts_of_other_times(self, output: str) -> frozenset[str]:
        found = set()
        for _, name in _files(output, "final"):
            camera, moment = _named(f"{name.removesuffix('.json')}.jpg")
            if camera is not None and moment is not None and not self._is_told_of(moment):
                found.add(rules.alert_id(camera, canonical_time(moment), "alert"))
        return frozenset(found)

    def records(self, uris: Sequence[str], outputs: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """The records of some invalid images."""
        for uri, record in zip(uris, _read(uris), strict=True):
            try:
                found = _object(record)
                yield {key: str(found[key]) for key in ("file", "detail")}
            except (KeyError, TypeError, ValueError) as error:
                self.add_problem(uri, _why(error), outputs)


def _named(name: str) -> tuple[str | None, datetime | None]:
    """The camera and the moment that the name of a kept picture gives, where it does.

    Of several pictures of one name, all but one have a hash in it.
    """
    for spelled in (name, _HASH.sub("", name)):
        try:
            return parse_name(spelled)
        except InvalidName:
            continue
    return None, None


def _alert(output: str, record: Mapping[str, Any]) -> AlertRecord:
    labels: dict[str, float] = {}
    for threat in record["threats"]:
        label = str(threat["label"])
        labels[label] = max(labels.get(label, 0.0), float(threat["conf"]))
    return AlertRecord(
        output=output,
        alert_id=str(record["alert_id"]),
        camera=str(record["id"]),
        timestamp=str(record["timestamp"]),
        labels=labels,
        outcomes=tuple(
            (one["target"], str(one["outcome"]), str(one["detail"])) for one in record["targets"]
        ),
        image_uri=str(record["image_uri"]),
        final_uri=str(record["final_uri"]),
    )


def _files(output: str, folder: str) -> Iterator[tuple[str, str]]:
    """The files that lie one folder deep in a folder of an output: that folder's name, and theirs.

    Names of files that are being written are left out.
    """
    place = stores.join(output, folder)
    if stores.is_local(output):
        found: Iterable[tuple[str, str]] = (
            (inner.name, name)
            for inner in (os.scandir(place) if os.path.isdir(place) else ())
            if inner.is_dir()
            for name in os.listdir(inner.path)
        )
    else:
        beneath = (one.path[len(place) + 1 :].split("/") for one in stores.list_beneath(place))
        found = ((parts[0], parts[1]) for parts in beneath if len(parts) == 2)
    return ((inner, name) for inner, name in found if not name.startswith("."))


def _read(uris: Sequence[str]) -> Iterator[bytes | Exception]:
    return in_threads(stores.read_bytes, uris)


def in_threads(work: Callable[[One], Other], items: Sequence[One]) -> Iterator[Other | Exception]:
    """What some work makes of each item, or its error, in order; several at once."""

    def safely(item: One) -> Other | Exception:
        try:
            return work(item)
        except Exception as error:  # Each store's client has its own kinds of error.
            return error

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        yield from threads.map(safely, items)


def _object(data: bytes | Exception) -> Mapping[str, Any]:
    if isinstance(data, Exception):
        raise ValueError(f"can't be read ({one_line(data)})")
    value = orjson.loads(data)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _why(error: Exception) -> str:
    if isinstance(error, orjson.JSONDecodeError):
        return "not JSON"
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return printable(" ".join(str(error).split()))[:200]


def without(output: str, text: str) -> str:
    """A text in which an output's address is left out of those of its files."""
    return text.replace(f"{output.rstrip('/')}/", "")
