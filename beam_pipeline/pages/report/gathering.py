"""Gathers the data of the report from the output of a job.

Numbers come from the counts, and invalid images are counted by their names in ``invalid/``. The
only records that are opened are those of the alerts that are shown and, to find blind cameras,
those that `health` reads. An alert's id follows from the name of its image, so the records of
alerts of other times are not opened.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import orjson

import rules
from beam_pipeline.fleet.chart import recent_period
from beam_pipeline.fleet.figures import CameraFigures
from beam_pipeline.fleet.fleet_end import FleetEnd, find_end
from beam_pipeline.fleet.health import examine
from beam_pipeline.fleet.output_scan import NoCountsError, OutputScan, camera_and_time
from beam_pipeline.fleet.statistics.findings import with_those_of_pictures
from beam_pipeline.fleet.statistics.observations import Finding
from beam_pipeline.inputs.name_survey import describe_local_times
from rules.local_times import local_words
from transforms.alerting.alerts import known_zone
from transforms.alerting.ledger import SUPPRESSED
from transforms.alerting.messages import alert_anchor
from transforms.records import reasons
from transforms.records.clocks import seems_reset
from transforms.records.count_rows import CountRow, sum_by_id, sum_total
from transforms.records.text import one_line, printable
from transforms.records.times import canonical_time, parse_time
from transforms.storage import stores

INVALID_SHOWN = 20
"""The number of invalid images of each reason whose details are shown."""
MOST_PAST_ROWS = 2_000_000
"""Count rows of the time before the period with which a repeated report compares, 20 bytes each.
124 cameras with windows of five minutes have as many in 56 days."""
_ALERT_FILE = re.compile(r"[0-9a-f]{32}\.json")
_HOURS_SHOWN_ONE_BY_ONE = 48


@dataclass(frozen=True)
class ReportOptions:
    """What a report is about.

    Attributes:
      period_hours: Length of the period up to the fleet's end, without the next two.
      since: Start of the period (UTC).
      until: End of the period (UTC), exclusive.
      ruleset: The rules, which name the cameras that never sent an image.
      missing_ok: Whether an output without counts, as of a job without a valid image, has a report.
      each_image: Whether to read the record of each image, to find blind cameras.
      picture_findings: Those of blind and frozen cameras, if they were found before; None
        otherwise.
      alerts: Whether to read the alerts.
      past_rows: As for `examine`.
    """

    period_hours: float = 24
    since: datetime | None = None
    until: datetime | None = None
    ruleset: rules.Rules | None = None
    missing_ok: bool = False
    each_image: bool = True
    picture_findings: Sequence[Finding] | None = None
    alerts: bool = True
    past_rows: int | None = None


@dataclass(frozen=True)
class ReportPeriod:
    """The windows that begin from `start` on and before `end` (UTC)."""

    start: datetime
    end: datetime

    def __contains__(self, time: datetime) -> bool:
        return self.start <= time < self.end


@dataclass(frozen=True)
class CameraRow:
    """One row of the fleet.

    Attributes:
      id: The camera.
      counted: Its counts, summed; None where it has no valid image in the period.
      invalid: Invalid images whose names give this camera.
      late: Images that arrived too late for their windows.
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
      hours: The start of each column.
      by_time_of_day: Whether a column is that hour of every day of the period.
      rows: For each camera, most threats first, the threats of each hour; None where no image
        was counted.
      most: The largest number.
    """

    hours: tuple[datetime, ...]
    by_time_of_day: bool
    rows: tuple[tuple[str, tuple[int | None, ...]], ...]
    most: int


@dataclass(frozen=True)
class InvalidRecord:
    """What the report shows of the record of an invalid image.

    Attributes:
      file: The name of the image.
      detail: What is wrong with it.
      camera: The camera in its name; None if it names none.
      timestamp: The capture time in its name, canonical; None if it names none.
    """

    file: str
    detail: str
    camera: str | None = None
    timestamp: str | None = None


@dataclass(frozen=True)
class InvalidImages:
    """The invalid images of one reason: how many, and some of their records."""

    reason: str
    number: int
    shown: tuple[InvalidRecord, ...]


@dataclass(frozen=True)
class AlertRecord:
    """One file of ``alerts/``.

    Attributes:
      output: The job's output that it is of.
      alert_id: Its id.
      camera: The camera's.
      timestamp: Of the image, canonical.
      timezone: The camera's time zone.
      labels: What the threats are, with the highest score of each.
      outcomes: Target (None for none), outcome and detail, each.
      image_uri: Where the image was.
      final_uri: Where its image JSON is.
      belongs_to: The id of the alert that covers it, or of the first one of its incident; None if
        its record names neither.
    """

    output: str
    alert_id: str
    camera: str
    timestamp: str
    timezone: str
    labels: Mapping[str, float]
    outcomes: tuple[tuple[str | None, str, str], ...]
    image_uri: str
    final_uri: str
    belongs_to: str | None = None

    @property
    def when(self) -> str:
        """The local time of the camera."""
        return local_words(parse_time(self.timestamp), self.timezone)

    @property
    def anchor(self) -> str:
        """The name of its place on the page."""
        return alert_anchor(self.camera, self.timestamp)

    @property
    def is_suppressed(self) -> bool:
        """Whether it was suppressed in the cooldown of another."""
        return any(outcome == SUPPRESSED for _, outcome, _ in self.outcomes)


@dataclass(frozen=True)
class Fleet:
    """Everything that the page shows.

    Attributes:
      period: The period; None where nothing was counted: the report is then of all times.
      rows: The windowed counts.
      cameras: All that were seen, are named by the rules or have a finding, by id.
      heat: Threats by camera and hour.
      findings: What is wrong with cameras, faults first.
      figures: What each camera sent, and what is usual for it.
      each_image: Whether blind cameras were looked for.
      invalid: Invalid images, the most frequent reason first.
      alerts: Newest first.
      misdated_alerts: Those of cameras that are misdated whose times are wrong, newest first.
      problems: Files that could not be read, and why.
      local_times: A line for each group of cameras whose names seem to be in local time.
    """

    period: ReportPeriod | None
    rows: Sequence[CountRow]
    cameras: Sequence[CameraRow]
    heat: HeatMap
    findings: Sequence[Finding]
    figures: Sequence[CameraFigures]
    each_image: bool
    invalid: Sequence[InvalidImages]
    alerts: Sequence[AlertRecord]
    misdated_alerts: Sequence[AlertRecord]
    problems: Sequence[tuple[str, str]]
    local_times: Sequence[str]

    @property
    def total(self) -> CountRow | None:
        """All counts, summed."""
        return next(iter(sum_total(self.rows)), None)

    @property
    def unreadable_names(self) -> int:
        """Images whose names can't be read, if these are more than half of all; otherwise 0."""
        number = sum(images.number for images in self.invalid if images.reason in reasons.OF_NAMES)
        valid = 0 if self.total is None else self.total.images
        found = valid + sum(images.number for images in self.invalid)
        return number if number * 2 > found else 0

    @property
    def late(self) -> int:
        """Images that arrived too late for their windows."""
        return sum(camera.late for camera in self.cameras)

    @property
    def suppressed(self) -> int:
        """Alerts that were suppressed in the cooldown of another."""
        return sum(alert.is_suppressed for alert in self.alerts)

    @property
    def outcomes(self) -> Mapping[str | None, Mapping[str, int]]:
        """The number of alerts of each outcome, by target."""
        counts: dict[str | None, Counter[str]] = defaultdict(Counter)
        for alert in self.alerts:
            for target, outcome, _ in alert.outcomes:
                counts[target][outcome] += 1
        return {name: dict(sorted(counts[name].items())) for name in sorted(counts, key=str)}


def gather(scan: OutputScan, options: ReportOptions) -> Fleet:
    """Reads what the report shows of one output or several.

    Args:
      scan: The output, or several.
      options: What the report is about.

    Raises:
      CountsError: No counts, or wrong ones.
      OSError: A store can't be listed.
    """
    period, end = _period(scan, options)
    rows: list[CountRow] = []
    findings: Sequence[Finding] = ()
    figures: Sequence[CameraFigures] = ()
    local_times: Sequence[str] = ()
    contents = _OutputContents(
        period, scan, has_end=options.until is not None, ruleset=options.ruleset
    )
    if period is not None:
        rows = scan.counts(since=period.start, until=period.end)
        health = examine(
            scan,
            since=period.start,
            until=period.end,
            ruleset=options.ruleset,
            each_image=options.each_image,
            end=end,
            past_rows=options.past_rows,
        )
        findings, figures = health.findings, health.figures
        if options.picture_findings is not None:
            findings = with_those_of_pictures(findings, options.picture_findings)
        local_times = describe_local_times(health.local_times)
        contents.misdated = {one.id for one in findings if one.kind == "misdated"}
        for uri, why in health.problems:
            contents.add_problem(uri, why)
    contents.add_invalid()
    for output in scan.outputs if options.alerts else ():
        contents.add_alerts(output)
    late = Counter(
        image.camera for image in scan.late_images if period is None or image.capture_time in period
    )
    invalid = sorted(contents.invalid.items(), key=lambda item: (-len(item[1]), item[0]))
    return Fleet(
        period=period,
        rows=rows,
        cameras=_cameras(rows, contents.invalid_by_id, late, findings, options.ruleset),
        heat=heat_map(rows),
        findings=findings,
        figures=figures,
        each_image=options.each_image or options.picture_findings is not None,
        invalid=[
            InvalidImages(
                reason,
                len(uris),
                tuple(contents.records(sorted(uris)[:INVALID_SHOWN])),
            )
            for reason, uris in invalid
        ],
        alerts=_newest_first(contents.alerts),
        misdated_alerts=_newest_first(contents.misdated_alerts),
        problems=sorted(contents.problems.items()),
        local_times=local_times,
    )


def _newest_first(alerts: Sequence[AlertRecord]) -> list[AlertRecord]:
    return sorted(
        alerts, key=lambda alert: (parse_time(alert.timestamp), alert.camera), reverse=True
    )


def _period(
    scan: OutputScan, options: ReportOptions
) -> tuple[ReportPeriod | None, FleetEnd | None]:
    """Returns the period, and the end of the fleet where the period ends with it."""
    try:
        windows, found_end = scan.windows(), find_end(scan)
    except NoCountsError:
        if not options.missing_ok:
            raise
        windows, found_end = [], None
    if found_end is not None and options.since is None and options.until is None:
        return ReportPeriod(*recent_period(found_end, options.period_hours)), found_end
    starts = [start for start, _ in windows]
    credible = (start for start in starts if not seems_reset(start))
    start = options.since or min(credible, default=min(starts, default=None))
    end = options.until or (None if found_end is None else found_end.time)
    if start is None or end is None:
        return None, None
    return ReportPeriod(start, end), found_end if options.until is None else None


def _cameras(
    rows: Sequence[CountRow],
    invalid: Mapping[str, int],
    late: Mapping[str, int],
    findings: Sequence[Finding],
    ruleset: rules.Rules | None,
) -> list[CameraRow]:
    counted = {row.id: row for row in sum_by_id(rows)}
    of_each: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        of_each[finding.id].append(finding)
    ids = counted.keys() | invalid.keys() | late.keys() | of_each.keys()
    if ruleset is not None:
        ids |= set(ruleset.cameras)
    return [
        CameraRow(
            id, counted.get(id), invalid.get(id, 0), late.get(id, 0), tuple(of_each.get(id, ()))
        )
        for id in sorted(ids)
    ]


def heat_map(rows: Sequence[CountRow]) -> HeatMap:
    """Threats by camera and hour: each hour of up to two days, otherwise the hours of the day.

    A window that is longer than an hour counts for the hour in which it begins.
    """
    if not rows:
        return HeatMap((), False, (), 0)

    def hour(time: datetime) -> datetime:
        return time.replace(minute=0, second=0, microsecond=0)

    first, last = (hour(choose(row.window_start for row in rows)) for choose in (min, max))
    number = (last - first) // timedelta(hours=1) + 1
    by_time_of_day = number > _HOURS_SHOWN_ONE_BY_ONE
    if by_time_of_day:
        first, number = first.replace(hour=0), 24
    threats: dict[str, list[int | None]] = {}
    for row in rows:
        of_id = threats.setdefault(row.id, [None] * number)
        column = (hour(row.window_start) - first) // timedelta(hours=1) % number
        if row.images:
            of_id[column] = (of_id[column] or 0) + row.threats
    in_order = sorted(
        threats,
        key=lambda id: (-sum(number_of_threats or 0 for number_of_threats in threats[id]), id),
    )
    return HeatMap(
        hours=tuple(first + timedelta(hours=k) for k in range(number)),
        by_time_of_day=by_time_of_day,
        rows=tuple((id, tuple(threats[id])) for id in in_order),
        most=max(
            number_of_threats or 0 for of_id in threats.values() for number_of_threats in of_id
        ),
    )


@dataclass
class _OutputContents:
    """The contents of the folders of outputs.

    Attributes:
      period: The period; None for all times.
      scan: The outputs.
      misdated: Cameras whose clock is wrong.
      has_end: Whether the end of the period was requested. Otherwise it is the end of the newest
        window, and as no window counts invalid images, later ones belong to the period too.
      ruleset: The rules, with the time zones of cameras whose alerts name none.
    """

    period: ReportPeriod | None
    scan: OutputScan
    has_end: bool
    ruleset: rules.Rules | None
    invalid: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    invalid_by_id: Counter[str] = field(default_factory=Counter)
    alerts: list[AlertRecord] = field(default_factory=list)
    misdated: Collection[str] = ()
    misdated_alerts: list[AlertRecord] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)

    def add_problem(self, uri: str, why: str) -> None:
        """Adds a file that could not be read, without its output's address."""
        shortened = (without(output, uri) for output in self.scan.outputs)
        self.problems.setdefault(printable(next((s for s in shortened if s != uri), uri)), why)

    def add_invalid(self) -> None:
        """Adds the invalid images of the period, and those of which the time is not known."""
        for file in self.scan.invalid:
            time = None if file.reason == reasons.TIMESTAMP_IN_FUTURE else file.capture_time
            is_newest = time is not None and not self.has_end and self._is_after_period(time)
            if time is not None and not is_newest and not self._is_in_period(time):
                continue
            self.invalid[file.reason].append(file.uri)
            if file.camera is not None:
                self.invalid_by_id[file.camera] += 1

    def add_alerts(self, output: str) -> None:
        """The alerts of the period."""
        elsewhere = self._alerts_of_other_times(output)
        uris = [
            stores.join(output, "alerts", camera, name)
            for camera, name in self.scan.files(output, "alerts")
            if _ALERT_FILE.fullmatch(name) and name.removesuffix(".json") not in elsewhere
        ]
        for uri, record in zip(uris, self.scan.read(uris), strict=True):
            try:
                alert = alert_record(output, _object(record), self.ruleset)
                capture_time = parse_time(alert.timestamp)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                self.add_problem(uri, _describe_error(error))
                continue
            if self._is_in_period(capture_time):
                self.alerts.append(alert)
            elif self._is_misdated(alert.camera, capture_time):
                self.misdated_alerts.append(alert)

    def _is_in_period(self, time: datetime) -> bool:
        return self.period is None or time in self.period

    def _is_after_period(self, time: datetime) -> bool:
        return self.period is not None and time >= self.period.end

    def _is_misdated(self, camera: str, time: datetime) -> bool:
        is_ahead = not self.has_end and self._is_after_period(time)
        until = None if self.period is None else self.period.end
        return camera in self.misdated and (is_ahead or seems_reset(time, until))

    def _alerts_of_other_times(self, output: str) -> frozenset[str]:
        alert_ids = set()
        for _, name in self.scan.files(output, "final"):
            camera, capture_time = camera_and_time(f"{name.removesuffix('.json')}.jpg")
            if (
                camera is not None
                and capture_time is not None
                and not self._is_in_period(capture_time)
                and not self._is_misdated(camera, capture_time)
            ):
                alert_ids.add(rules.alert_id(camera, canonical_time(capture_time), "alert"))
        return frozenset(alert_ids)

    def records(self, uris: Sequence[str]) -> Iterator[InvalidRecord]:
        """Yields the records of some invalid images."""
        for uri, record in zip(uris, self.scan.read(uris), strict=True):
            try:
                fields = _object(record)
                camera, time = camera_and_time(str(fields["file"]))
                yield InvalidRecord(
                    str(fields["file"]),
                    str(fields["detail"]),
                    camera,
                    None if time is None else canonical_time(time),
                )
            except (KeyError, TypeError, ValueError) as error:
                self.add_problem(uri, _describe_error(error))


def alert_record(
    output: str, record: Mapping[str, Any], ruleset: rules.Rules | None
) -> AlertRecord:
    """Returns the record of an alert, as far as a page shows it.

    Args:
      output: The job's output that it is of.
      record: The JSON of its file.
      ruleset: The rules, with the time zones of cameras whose alerts name none; None without.

    Raises:
      KeyError, TypeError, ValueError, AttributeError: It is no record of an alert.
    """
    camera = str(record["id"])
    labels: dict[str, float] = {}
    for threat in record["threats"]:
        label = str(threat["label"])
        labels[label] = max(labels.get(label, 0.0), float(threat["conf"]))
    return AlertRecord(
        output=output,
        alert_id=str(record["alert_id"]),
        camera=camera,
        timestamp=str(record["timestamp"]),
        timezone=known_zone(record, ruleset, camera),
        labels=labels,
        outcomes=tuple(
            (target["target"], str(target["outcome"]), str(target["detail"]))
            for target in record["targets"]
        ),
        image_uri=str(record["image_uri"]),
        final_uri=str(record["final_uri"]),
        belongs_to=_belongs_to(record),
    )


def _belongs_to(record: Mapping[str, Any]) -> str | None:
    alert_id = record.get("suppressed_by") or (record.get("follow_up") or {}).get("incident")
    if not isinstance(alert_id, str | None):
        raise TypeError("the alert that it belongs to is no string")
    return alert_id


def _object(data: bytes | Exception) -> Mapping[str, Any]:
    if isinstance(data, Exception):
        raise ValueError(f"can't be read ({one_line(data)})")
    value = orjson.loads(data)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _describe_error(error: Exception) -> str:
    if isinstance(error, orjson.JSONDecodeError):
        return "not JSON"
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return printable(" ".join(str(error).split()))[:200]


def without(output: str, text: str) -> str:
    """Returns a text in which an output's address is left out of those of its files."""
    return text.replace(f"{output.rstrip('/')}/", "")
