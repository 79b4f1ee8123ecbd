"""The command ``health``: which cameras are silent, blind, misdated, or unusual in what they send.

`examine` reads what a job has written of its cameras and says what is wrong with them (see
:mod:`beam_pipeline.fleet.statistics.findings` for how); ``--notify`` sends the rule file's health
targets the findings that they have not received.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import rules
from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.console.tables import write_stdout
from beam_pipeline.fleet import counts
from beam_pipeline.fleet.figures import CameraFigures, figures
from beam_pipeline.fleet.fleet_end import FleetEnd, ahead_of_clock, find_end
from beam_pipeline.fleet.output_scan import (
    NAMES_HINT,
    CountsError,
    NoValidImageError,
    OutputScan,
)
from beam_pipeline.fleet.statistics.findings import findings
from beam_pipeline.fleet.statistics.observations import (
    LATE,
    Finding,
    LookedAtImage,
    MisdatedImages,
    Observations,
    RefusedImage,
)
from beam_pipeline.inputs import paths, selection
from beam_pipeline.inputs.name_survey import describe_local_times
from beam_pipeline.inputs.preflight import check_arguments, check_writable
from beam_pipeline.inputs.rule_files import read_rules
from beam_pipeline.inputs.stored_names import OF_EACH_CAMERA, stored_local_times
from rules import is_camera_id
from rules.local_offsets import offset_text
from rules.text import number_of
from transforms.alerting.messages import Message
from transforms.alerting.target_clients import TargetClient, client_for
from transforms.records import reasons
from transforms.records.clocks import FIRST_CREDIBLE, LARGEST_OFFSET, SINCE_NEW_YEAR, seems_reset
from transforms.records.count_rows import TOTAL_ID
from transforms.records.images import DetectedImage
from transforms.records.text import one_line, printable
from transforms.records.times import canonical_time, parse_time
from transforms.storage import stores
from transforms.storage.archive import ArchiveError, open_archive

HISTORY = timedelta(days=56)
"""How much time before the period shows what is usual of a camera."""
IMAGE_HISTORY = timedelta(days=14)
"""The same for its images, each of which is a file to read."""
DIGEST_FROM = 10
"""So many new findings, or more, are reported in one message."""
_GIVE_UP_AFTER = 3
_CERTAIN = 0.5
_WEEK = timedelta(days=7)
_RECENT = timedelta(hours=1)
"""A period that ended no longer ago is about the present, and so about images of the future."""

Problem = tuple[str, str]


@dataclass(frozen=True)
class Health:
    """What was found in a period.

    Attributes:
      since: The start of the period.
      until: Its end, exclusive.
      cameras: How many there are.
      findings: Faults first.
      figures: What each camera sent, and what is usual, by id.
      unplaced: Invalid images whose names say no camera and time, by reason, of all times.
      problems: What could not be read, and why.
      local_times: The offset that names of a camera seem to have, though they were read as UTC, and
        a time zone that fits, by id.
    """

    since: datetime
    until: datetime
    cameras: int
    findings: tuple[Finding, ...]
    figures: tuple[CameraFigures, ...]
    unplaced: Mapping[str, int]
    problems: tuple[Problem, ...]
    local_times: Mapping[str, tuple[timedelta, str | None]]

    def to_json(self) -> dict[str, Any]:
        """Returns the report as a JSON object."""
        return {
            "since": canonical_time(self.since),
            "until": canonical_time(self.until),
            "cameras": self.cameras,
            "findings": [finding.to_json() for finding in self.findings],
            "figures": [camera.to_json() for camera in self.figures],
            "unplaced": dict(self.unplaced),
            "problems": [{"uri": uri, "why": why} for uri, why in self.problems],
            "local_times": {
                id: {"offset": offset_text(offset), "timezone": zone}
                for id, (offset, zone) in self.local_times.items()
            },
        }


def examine(
    scan: OutputScan,
    *,
    since: datetime,
    until: datetime,
    ruleset: rules.Rules | None = None,
    expected: Mapping[str, float] | None = None,
    each_image: bool = True,
    end: FleetEnd | None = None,
    past_rows: int | None = None,
) -> Health:
    """Returns what is wrong with the cameras of one output or several in a period.

    Of the `HISTORY` before the period, which says what is usual, the counts are read, and the names
    of invalid and late images: none of their records.

    Args:
      scan: The output, or several.
      since: The start of the period (UTC).
      until: Its end, exclusive.
      ruleset: The rule file: cameras that it names and that never sent are silent.
      expected: Images an hour that a camera sends at the least; under `TOTAL_ID` those of
        each camera that is not named.
      each_image: Whether to read what is kept of each image, a file an image: what was detected,
        without which no camera is found blind or frozen, and the period's records of invalid
        images, without which broken ones are not found.
      end: The end of the fleet, where the period ends with it.
      past_rows: How many count rows of the time before the period to read, the newest; None for
        all.

    Raises:
      CountsError: No counts, or wrong ones.
      OSError: A store was lost.
    """
    history_since = _earlier(since, HISTORY)
    scan.refuse_overlaps(since=history_since, until=until)
    rows = scan.counts(since=since, until=until)
    past = (
        scan.past(since=history_since, until=since, at_most=past_rows)
        if history_since < since
        else {}
    )
    late = [
        RefusedImage(image.camera, image.capture_time, LATE)
        for image in scan.late_images
        if history_since <= image.capture_time < until
    ]
    problems: list[Problem] = []
    refused = [
        RefusedImage(file.camera, file.capture_time, file.reason)
        for file in scan.invalid
        if file.camera is not None
        and file.capture_time is not None
        and file.capture_time >= history_since
    ]
    images: dict[str, list[LookedAtImage]] = {}
    newest: dict[str, Sequence[DetectedImage]] = {}
    if each_image:
        problems += _broken_records(scan, since, until)
        images, newest = _read_images(scan.outputs, _earlier(since, IMAGE_HISTORY), until, problems)
    named = frozenset() if ruleset is None else frozenset(ruleset.cameras)
    expected = dict(expected or {})
    each = expected.pop(TOTAL_ID, None)
    ids = named | {row.id for row in rows} | past.keys() | images.keys() | expected.keys()
    end = end or FleetEnd(until, until)
    misdated = _misdated_images(scan, since, problems)
    ids |= {camera.id for camera in end.ahead} | misdated.keys()
    if each is not None:
        expected = {**dict.fromkeys(ids, each), **expected}
    observed = Observations(
        rows,
        images,
        [*late, *refused],
        named,
        expected,
        end.ahead,
        misdated,
        is_over=end.is_over,
        past=past,
    )
    found = findings(observed, since=since, until=until)
    unplaced = Counter(file.reason for file in scan.invalid if file.camera is None)
    return Health(
        since,
        until,
        len(ids),
        tuple(found),
        tuple(figures(observed, ids, since=since, until=until)),
        dict(sorted(unplaced.items())),
        tuple(problems),
        stored_local_times(newest),
    )


def _earlier(time: datetime, by: timedelta) -> datetime:
    first = datetime.min.replace(tzinfo=timezone.utc)
    return max(time, first + by) - by


def _misdated_images(
    scan: OutputScan, since: datetime, problems: list[Problem]
) -> dict[str, MisdatedImages]:
    """Returns the images whose capture times are plainly wrong, by camera; those of a stream are
    late, and none of their rows is read. One at the beginning of a year counts only if windows of
    the weeks before and after show no image of its camera: it may be of an archive, or the first of
    a new camera."""

    def is_wrong(time: datetime) -> bool:
        return seems_reset(time, since)

    starts = [start for start, _ in scan.windows() if is_wrong(start)]
    try:
        rows = [
            row
            for begin, end in _runs(starts)
            for row in scan.counts(since=begin, until=end)
            if is_wrong(row.window_start)
        ]
        images = [(row.id, row.window_start, row.images) for row in rows if row.images]
        images += [
            (late.camera, late.capture_time, 1)
            for late in scan.late_images
            if is_wrong(late.capture_time)
        ]
        new_years = {time + LARGEST_OFFSET for _, time, _ in images if time >= FIRST_CREDIBLE}
        of_healthy = {
            (row.id, year)
            for year in {time.year for time in new_years}
            for begin, end in _weeks_around(datetime(year, 1, 1, tzinfo=timezone.utc))
            for row in scan.counts(since=begin, until=end)
            if row.images
        }
    except CountsError as error:
        problems.append((", ".join(scan.outputs), f"no camera can be found misdated: {error}"))
        return {}
    by_id: dict[str, list[tuple[datetime, int]]] = {}
    for id, time, number in images:
        if time < FIRST_CREDIBLE or (id, (time + LARGEST_OFFSET).year) not in of_healthy:
            by_id.setdefault(id, []).append((time, number))
    return {
        id: MisdatedImages(
            id,
            sum(number for _, number in of_id),
            min(time for time, _ in of_id),
            max(time for time, _ in of_id),
        )
        for id, of_id in sorted(by_id.items())
    }


def _weeks_around(new_year: datetime) -> tuple[tuple[datetime, datetime], ...]:
    """Returns the weeks before and after the days in which capture times may be misdated."""
    before, after = new_year - LARGEST_OFFSET, new_year + SINCE_NEW_YEAR
    return (new_year - _WEEK, before), (after, after + _WEEK)


def _runs(starts: Sequence[datetime]) -> Iterator[tuple[datetime, datetime]]:
    """Yields periods that hold some starts of windows, by year."""
    for _, of_year in itertools.groupby(starts, key=lambda start: start.year):
        in_order = list(of_year)
        yield in_order[0], in_order[-1] + timedelta(microseconds=1)


def _broken_records(scan: OutputScan, since: datetime, until: datetime) -> list[Problem]:
    """Returns the records of a period's invalid images that are none, and why."""
    uris = [
        file.uri
        for file in scan.invalid
        if file.capture_time is not None and since <= file.capture_time < until
    ]
    problems = []
    for uri, data in zip(uris, scan.read(uris), strict=True):
        if isinstance(data, ConnectionError):
            raise data
        try:
            if isinstance(data, Exception):
                raise data
            record = json.loads(data)
            record["file"], record["reason"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            problems.append((uri, f"no record of an invalid image: {one_line(error)}"))
    return problems


def _read_images(
    outputs: Sequence[str], since: datetime, until: datetime, problems: list[Problem]
) -> tuple[dict[str, list[LookedAtImage]], dict[str, Sequence[DetectedImage]]]:
    """Returns the images of each camera, and the newest of them with their names."""
    try:
        archive = open_archive(*outputs)
    except ArchiveError as error:
        problems.append((", ".join(outputs), f"no camera can be found blind or frozen: {error}"))
        return {}, {}
    images: dict[str, list[LookedAtImage]] = {}
    newest: dict[str, Sequence[DetectedImage]] = {}
    for id in archive.ids:
        images[id] = []
        with_names: deque[DetectedImage] = deque(maxlen=OF_EACH_CAMERA)
        for archived in archive.images(id, since, until):
            images[id].append(_looked_at(archived.image))
            with_names.append(archived.image)
        newest[id] = tuple(with_names)
    problems += archive.problems
    return images, newest


def _looked_at(image: DetectedImage) -> LookedAtImage:
    return LookedAtImage(
        parse_time(image.timestamp),
        bool(image.detections),
        image.brightness,
        image.sharpness,
        image.sha256 or None,
        tuple(
            sorted(detection.label for detection in image.detections if detection.conf >= _CERTAIN)
        ),
    )


# Printing


def format_table(health: Health) -> str:
    """Returns the findings for a person."""
    head = (
        f"{canonical_time(health.since)} to {canonical_time(health.until)}: "
        f"{number_of(health.cameras, 'camera')}, {number_of(len(health.findings), 'finding')}"
    )
    lines = [head, ""] if health.findings else [head]
    width = max((len(finding.id) for finding in health.findings), default=0)
    for finding in health.findings:
        kind = finding.kind.replace("_", " ")
        lines.append(
            f"{finding.severity:<7}  {kind:<10}  {finding.id.ljust(width)}  {finding.sentence}"
        )
    if health.unplaced:
        listed = ", ".join(f"{reason} {number:,}" for reason, number in health.unplaced.items())
        lines += ["", f"invalid images without a camera or capture time in their names: {listed}"]
        if not health.unplaced.keys().isdisjoint(reasons.OF_NAMES):
            lines.append(NAMES_HINT)
    if health.local_times:
        lines += ["", *describe_local_times(health.local_times)]
    return "".join(f"{printable(line)}\n" for line in lines)


def format_json(health: Health) -> str:
    """Returns the findings for a program."""
    return json.dumps(health.to_json(), indent=2) + "\n"


FORMATS: Mapping[str, Callable[[Health], str]] = {"table": format_table, "json": format_json}


# Telling


def notify(
    findings: Sequence[Finding], output: str, clients: Sequence[TargetClient]
) -> tuple[int, dict[str, str]]:
    """Sends each target the findings that it has not received, and keeps the outcomes in
    ``<output>/health/<id>/<finding_id>.json``.

    What was delivered or refused is not sent again; what a target was not there for is, by the
    next call. `DIGEST_FROM` new findings or more go in one message.

    Returns:
      How many messages were delivered, and by target why the last one was not.

    Raises:
      OSError: The ledger can't be read or written.
    """
    ledgers = {finding.finding_id: _ledger(output, finding) for finding in findings}
    delivered, failures = 0, {}
    for client in clients:
        unsent = [finding for finding in findings if client.name not in ledgers[finding.finding_id]]
        groups = [[finding] for finding in unsent] if len(unsent) < DIGEST_FROM else [unsent]
        failures_in_a_row = 0
        for group in groups:
            sent = client.send(_message(group))
            failures_in_a_row = failures_in_a_row + 1 if sent.outcome == "unavailable" else 0
            if sent.outcome == "delivered":
                delivered += 1
            else:
                failures[client.name] = f"{sent.outcome}: {sent.detail}"
            if sent.outcome != "unavailable":
                for finding in group:
                    outcomes = ledgers[finding.finding_id]
                    outcomes[client.name] = {"outcome": sent.outcome, "detail": sent.detail}
                    targets = [{"target": name, **outcomes[name]} for name in sorted(outcomes)]
                    record = {**finding.to_json(), "targets": targets}
                    stores.write_bytes(_ledger_uri(output, finding), stores.json_bytes(record))
            if failures_in_a_row == _GIVE_UP_AFTER:
                break
    return delivered, failures


def _ledger_uri(output: str, finding: Finding) -> str:

    return stores.join(output, "health", finding.id, f"{finding.finding_id}.json")


def _ledger(output: str, finding: Finding) -> dict[str, dict[str, str]]:
    """Returns the outcome of a finding, by target."""

    try:
        record = json.loads(stores.read_bytes(_ledger_uri(output, finding)))
        return {
            target["target"]: {"outcome": target["outcome"], "detail": target["detail"]}
            for target in record["targets"]
        }
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError):
        return {}  # Cut short by a crash: better told twice than never.


_SUBJECTS: Mapping[str, str] = {
    "silent": "Camera silent",
    "misdated": "Camera's clock is wrong",
    "frozen": "Camera frozen",
    "blind": "Camera blind",
    "invalid": "Camera sends invalid images",
    "clock_skew": "Camera's clock is wrong",
    "flooding": "Camera shows unusually many threats",
    "too_few": "Camera shows unusually few threats",
}


def _message(group: Sequence[Finding]) -> Message:

    first = group[0]
    text = "".join(f"{finding.id} {finding.sentence}.\n" for finding in group)
    if len(group) == 1:
        body: dict[str, Any] = {"alert_id": first.finding_id, **first.to_json()}
        subject, camera = f"{_SUBJECTS[first.kind]}: {first.id}", first.id
    else:
        ids = "\n".join(sorted(finding.finding_id for finding in group))
        alert_id = hashlib.sha256(ids.encode()).hexdigest()[:32]
        body = {"alert_id": alert_id, "findings": [finding.to_json() for finding in group]}
        subject, camera = f"{len(group):,} findings on the health of cameras", ""
    return Message(
        alert_id=body["alert_id"],
        camera=camera,
        timestamp=canonical_time(first.since),
        severity=first.severity,
        subject=subject,
        text=text,
        body=body,
    )


# The command


def print_health(parsed: argparse.Namespace) -> int:
    """Prints or writes what is wrong with the cameras; returns the exit code.

    Raises:
      SetupError: What is wrong, where, and what to do.
      CountsError: The same, of counts.
      CommandFailedError: A store was lost, or can't be written.
    """
    check_arguments(parsed.outputs, rules=parsed.rules, labels=parsed.labels)
    since, until = (
        selection.time_option(f"--{name}", getattr(parsed, name)) for name in ("since", "until")
    )
    expected = _expected(parsed.expected or ())
    ruleset = None
    if parsed.rules is not None:
        ruleset = read_rules(parsed.rules, parsed.labels)
    scan = OutputScan(counts.named_outputs(parsed))
    clients = _clients(ruleset, scan.outputs) if parsed.notify else ()
    target = None if parsed.file is None else paths.writable_file("--file", parsed.file)
    try:
        end = _end(scan, until)
    except NoValidImageError as error:
        write_stdout(f"{error}\n")
        return 0
    until = end.time
    since = since or until - timedelta(hours=24)
    if since >= until:
        raise SetupError(
            f"the period is empty: it begins {canonical_time(since)} and ends "
            f"{canonical_time(until)}"
        )
    with selection.store_errors_as_failures():
        health = examine(
            scan, since=since, until=until, ruleset=ruleset, expected=expected, end=end
        )
        text = FORMATS[parsed.format](health)
        if target is None:
            write_stdout(text)
        else:
            stores.write_bytes(target, text.encode())
            print(f"{len(health.findings):,} findings written to {target}")
        selection.print_problems(health.problems, "--format json lists all")
        if parsed.notify:
            delivered, failures = notify(health.findings, scan.outputs[0], clients)
            print(f"{delivered:,} health messages delivered", file=sys.stderr)
            for name, why in failures.items():
                print(f"  not to {name}: {why}", file=sys.stderr)
    return 0


def _end(scan: OutputScan, until: datetime | None) -> FleetEnd:
    if until is not None:
        now = datetime.now(timezone.utc)
        is_present = now - until <= _RECENT
        return FleetEnd(until, until, ahead_of_clock(scan, now) if is_present else ())
    end = find_end(scan)
    if end is None:
        raise SetupError(
            f"no counts under {', '.join(scan.outputs)}: give --until, or run the job on images "
            "first"
        )
    return end


def _expected(texts: Sequence[str]) -> dict[str, float]:

    expected = {}
    for text in texts:
        id, _, number = text.rpartition("=")
        try:
            images_an_hour = float(number)
        except ValueError:
            images_an_hour = math.nan
        if not 0 < images_an_hour < math.inf or (id and not is_camera_id(id)):
            raise SetupError(
                f"--expected {printable(text)}: give images an hour, above 0, such as 12 or "
                "hall=0.5"
            )
        expected[id or TOTAL_ID] = images_an_hour
    return expected


def _clients(ruleset: rules.Rules | None, outputs: Sequence[str]) -> list[TargetClient]:

    if ruleset is None or not ruleset.alerting.health:
        raise SetupError(
            "--notify needs --rules with health targets; name them in the file under health: "
            "targets"
        )
    if len(outputs) > 1:
        raise SetupError("--notify takes one --output: the record of what was sent is kept there")
    check_writable("--output", outputs[0])
    return [
        client_for(ruleset.alerting.targets[name], os.environ) for name in ruleset.alerting.health
    ]
