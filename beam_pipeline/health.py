"""The command ``health``: which cameras are silent, blind, misdated, or unusual in what they send.

`examine` reads what a job has written of its cameras and says what is wrong with them (see
:mod:`beam_pipeline.health_statistics` for how); ``--notify`` tells the rule file's health targets
what they have not been told.

Apache Beam, NumPy and SciPy are imported only where they are used, so that ``--help`` is quick.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from beam_pipeline import archive_job, counts
from beam_pipeline.errors import SetupError
from beam_pipeline.options import add_labels
from transforms.text import one_line, printable
from transforms.times import canonical_time

if TYPE_CHECKING:
    import rules
    from beam_pipeline.health_statistics import Finding, Picture, Refused
    from transforms.couriers import Courier
    from transforms.messages import Message

HISTORY = timedelta(days=56)
"""How far before the period is looked for what is usual of a camera."""
PICTURE_HISTORY = timedelta(days=14)
"""The same for its pictures, each of which is a file to read."""
DIGEST_FROM = 10
"""So many new findings, or more, are told in one message."""
_GIVE_UP_AFTER = 3
_READERS = 16

Problem = tuple[str, str]


@dataclass(frozen=True)
class Health:
    """What was found in a period.

    Attributes:
      since: The first moment of the period.
      until: The first moment after it.
      cameras: How many there are.
      findings: Faults first.
      unplaced: Invalid pictures whose names say no camera and time, by reason, of all times.
      problems: What could not be read, and why.
    """

    since: datetime
    until: datetime
    cameras: int
    findings: tuple[Finding, ...]
    unplaced: Mapping[str, int]
    problems: tuple[Problem, ...]

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object."""
        return {
            "since": canonical_time(self.since),
            "until": canonical_time(self.until),
            "cameras": self.cameras,
            "findings": [one.to_json() for one in self.findings],
            "unplaced": dict(self.unplaced),
            "problems": [{"uri": uri, "why": why} for uri, why in self.problems],
        }


def examine(
    outputs: str | Sequence[str],
    *,
    since: datetime,
    until: datetime,
    by: rules.Rules | None = None,
    expected: Mapping[str, float] | None = None,
    each_picture: bool = True,
) -> Health:
    """What is wrong with the cameras of one output or several in a period.

    Args:
      outputs: The job's output directory, or several, on any filesystem that Beam knows.
      since: The first moment of the period (UTC).
      until: The first moment after it.
      by: The rule file: cameras that it names and that never sent are silent.
      expected: Pictures an hour that a camera sends at the least; under `counts.TOTAL_ID` those of
        each camera that is not named.
      each_picture: Whether to read what was detected in each picture, a file a picture: without it
        no camera is found blind.

    Raises:
      CountsError: No counts, or wrong ones.
      OSError: A store was lost.
    """
    from beam_pipeline import health_statistics
    from beam_pipeline.health_statistics import LATE, Observed, Refused

    outputs = [outputs] if isinstance(outputs, str) else outputs
    rows = counts.read_counts(outputs, since=since - HISTORY, until=until)
    late = [
        Refused(row.id, row.window_start, LATE)
        for row in counts.read_late(outputs, since=since - HISTORY, until=until)
        for _ in range(row.images)
    ]
    problems: list[Problem] = []
    refused, unplaced = _read_refused(outputs, since - HISTORY, problems)
    pictures = (
        _read_pictures(outputs, since - PICTURE_HISTORY, until, problems) if each_picture else {}
    )
    named = frozenset() if by is None else frozenset(by.cameras)
    expected = dict(expected or {})
    each = expected.pop(counts.TOTAL_ID, None)
    ids = named | {row.id for row in rows} | pictures.keys() | expected.keys()
    if each is not None:
        expected = {**dict.fromkeys(ids, each), **expected}
    observed = Observed(rows, pictures, [*late, *refused], named, expected)
    found = health_statistics.findings(observed, since=since, until=until)
    return Health(since, until, len(ids), tuple(found), unplaced, tuple(problems))


def _read_refused(
    outputs: Sequence[str], since: datetime, problems: list[Problem]
) -> tuple[list[Refused], dict[str, int]]:
    """Invalid pictures by camera and time, and how many have neither in their names."""
    from beam_pipeline.health_statistics import Refused
    from transforms import stores
    from transforms.parse_filename import InvalidName, parse_name

    def read(place: str) -> Refused | str | Problem:
        try:
            record = json.loads(stores.read_bytes(place))
            name, reason = str(record["file"]), str(record["reason"])
        except ConnectionError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            return place, f"no record of an invalid picture: {one_line(error)}"
        try:
            return Refused(*parse_name(name), reason)
        except InvalidName:
            return reason

    places = sorted(
        one.path
        for output in outputs
        for one in stores.list_beneath(stores.join(output, "invalid"))
        if one.path.endswith(".json")
    )
    refused: list[Refused] = []
    unplaced: Counter[str] = Counter()
    with ThreadPoolExecutor(_READERS, thread_name_prefix="health") as pool:
        for found in pool.map(read, places):
            if isinstance(found, Refused):
                refused += [found] if found.moment >= since else []
            elif isinstance(found, str):
                unplaced[found] += 1
            else:
                problems.append(found)
    return refused, dict(sorted(unplaced.items()))


def _read_pictures(
    outputs: Sequence[str], since: datetime, until: datetime, problems: list[Problem]
) -> dict[str, list[Picture]]:
    from beam_pipeline.health_statistics import Picture
    from transforms.archive import ArchiveError, open_archive
    from transforms.times import parse_time

    try:
        archive = open_archive(*outputs)
    except ArchiveError as error:
        problems.append((", ".join(outputs), f"no camera can be found blind: {error}"))
        return {}
    pictures = {}
    for id in archive.ids:
        pictures[id] = [
            Picture(
                parse_time(one.image.timestamp),
                bool(one.image.detections),
                one.image.brightness,
                one.image.sharpness,
            )
            for one in archive.images(id, since, until)
        ]
    problems += archive.problems
    return pictures


# Printing


def format_table(health: Health) -> str:
    """The findings for a person."""
    head = (
        f"{canonical_time(health.since)} to {canonical_time(health.until)}: "
        f"{health.cameras:,} cameras, {len(health.findings):,} findings"
    )
    lines = [head, ""] if health.findings else [head]
    width = max((len(one.id) for one in health.findings), default=0)
    for one in health.findings:
        kind = one.kind.replace("_", " ")
        lines.append(f"{one.severity:<7}  {kind:<10}  {one.id.ljust(width)}  {one.sentence}")
    if health.unplaced:
        listed = ", ".join(f"{reason} {number:,}" for reason, number in health.unplaced.items())
        lines += ["", f"invalid pictures whose names say no camera and time: {listed}"]
    return "".join(f"{printable(line)}\n" for line in lines)


def format_json(health: Health) -> str:
    """The findings for a program."""
    return json.dumps(health.to_json(), indent=2) + "\n"


FORMATS: Mapping[str, Callable[[Health], str]] = {"table": format_table, "json": format_json}


# Telling


def notify(
    found: Sequence[Finding], output: str, couriers: Sequence[Courier]
) -> tuple[int, dict[str, str]]:
    """Tells each target what it has not been told yet, and keeps what became of it in
    ``<output>/health/<id>/<finding_id>.json``.

    What was delivered or refused is not sent again; what a target was not there for is, by the
    next call. `DIGEST_FROM` new findings or more go in one message.

    Returns:
      How many messages were delivered, and by target why the last one was not.

    Raises:
      OSError: The ledger can't be read or written.
    """
    from transforms import stores

    ledgers = {one.finding_id: _ledger(output, one) for one in found}
    delivered, failures = 0, {}
    for courier in couriers:
        new = [one for one in found if courier.name not in ledgers[one.finding_id]]
        groups = [[one] for one in new] if len(new) < DIGEST_FROM else [new]
        in_a_row = 0
        for group in groups:
            sent = courier.send(_message(group))
            in_a_row = in_a_row + 1 if sent.outcome == "unavailable" else 0
            if sent.outcome == "delivered":
                delivered += 1
            else:
                failures[courier.name] = f"{sent.outcome}: {sent.detail}"
            if sent.outcome != "unavailable":
                for one in group:
                    told = ledgers[one.finding_id]
                    told[courier.name] = {"outcome": sent.outcome, "detail": sent.detail}
                    targets = [{"target": name, **told[name]} for name in sorted(told)]
                    record = {**one.to_json(), "targets": targets}
                    stores.write_bytes(_ledger_uri(output, one), stores.json_bytes(record))
            if in_a_row == _GIVE_UP_AFTER:
                break
    return delivered, failures


def _ledger_uri(output: str, finding: Finding) -> str:
    from transforms import stores

    return stores.join(output, "health", finding.id, f"{finding.finding_id}.json")


def _ledger(output: str, finding: Finding) -> dict[str, dict[str, str]]:
    """What became of a finding, by target."""
    from transforms import stores

    try:
        record = json.loads(stores.read_bytes(_ledger_uri(output, finding)))
        return {
            one["target"]: {"outcome": one["outcome"], "detail": one["detail"]}
            for one in record["targets"]
        }
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError):
        return {}  # Cut short by a crash: better told twice than never.


_SUBJECTS: Mapping[str, str] = {
    "silent": "Camera silent",
    "blind": "Camera blind",
    "invalid": "Camera sends invalid pictures",
    "clock_skew": "Camera's clock is wrong",
    "flooding": "Camera shows unusually many threats",
    "too_few": "Camera shows unusually few threats",
}


def _message(group: Sequence[Finding]) -> Message:
    from transforms.messages import Message

    first = group[0]
    text = "".join(f"{one.id} {one.sentence}.\n" for one in group)
    if len(group) == 1:
        body: dict[str, Any] = {"alert_id": first.finding_id, **first.to_json()}
        subject, camera = f"{_SUBJECTS[first.kind]}: {first.id}", first.id
    else:
        ids = "\n".join(sorted(one.finding_id for one in group))
        alert_id = hashlib.sha256(ids.encode()).hexdigest()[:32]
        body = {"alert_id": alert_id, "findings": [one.to_json() for one in group]}
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command ``health``."""
    counts.add_output_argument(parser)
    parser.add_argument(
        "--rules",
        metavar="FILE",
        help="the rule file: a camera that it names and that never sent is silent, and --notify "
        "tells its health targets",
    )
    add_labels(parser)
    parser.add_argument(
        "--since",
        metavar="TIME",
        help="the first moment of what is judged, such as 2026-01-31T00:00:00Z (default: 24 hours "
        "before its end)",
    )
    parser.add_argument(
        "--until",
        metavar="TIME",
        help="the first moment after it; give the present one to find a fleet that has stopped "
        "(default: the end of the newest window)",
    )
    parser.add_argument(
        "--expected",
        action="append",
        metavar="[ID=]NUMBER",
        help="pictures an hour that a camera, or each, sends at the least; may be given again "
        "(default: what is usual for it at these hours)",
    )
    parser.add_argument(
        "--format",
        choices=tuple(FORMATS),
        default="table",
        help="table to read, json for a program (default: %(default)s)",
    )
    parser.add_argument("--file", metavar="FILE", help="where to write it (default: here)")
    parser.add_argument(
        "--notify",
        action="store_true",
        help="send what is new to the rule file's health targets (alerts: health: targets), and "
        "keep what became of it in health/ under the output",
    )


def main(parsed: argparse.Namespace) -> int:
    """Prints or writes what is wrong with the cameras; returns the exit code.

    Raises:
      SetupError: What is wrong, where, and what to do.
      CountsError: The same, of counts.
      CommandFailed: A store was lost, or can't be written.
    """
    since, until = (
        archive_job.moment(f"--{name}", getattr(parsed, name)) for name in ("since", "until")
    )
    expected = _expected(parsed.expected or ())
    by = None
    if parsed.rules is not None:
        from beam_pipeline.job import read_rules

        by = read_rules(parsed.rules, parsed.labels)
    outputs = counts.named_outputs(parsed)
    couriers = _couriers(by, outputs) if parsed.notify else ()
    target = None if parsed.file is None else archive_job.writable_file("--file", parsed.file)
    until = until or _newest(outputs)
    since = since or until - timedelta(hours=24)
    if since >= until:
        raise SetupError(
            f"the period is empty: it begins {canonical_time(since)} and ends "
            f"{canonical_time(until)}"
        )
    with archive_job.failing():
        health = examine(outputs, since=since, until=until, by=by, expected=expected)
        text = FORMATS[parsed.format](health)
        if target is None:
            counts.write_stdout(text)
        else:
            from transforms import stores

            stores.write_bytes(target, text.encode())
            print(f"{len(health.findings):,} findings written to {target}")
        archive_job.tell_problems(health.problems, "--format json lists all")
        if parsed.notify:
            delivered, failures = notify(health.findings, outputs[0], couriers)
            print(f"{delivered:,} health messages delivered", file=sys.stderr)
            for name, why in failures.items():
                print(f"  not to {name}: {why}", file=sys.stderr)
    return 0


def _newest(outputs: Sequence[str]) -> datetime:
    windows = counts.list_windows(outputs)
    if not windows:
        raise SetupError(
            f"no counts under {', '.join(outputs)}: give --until, or run the job first"
        )
    return max(end for _, end in windows)


def _expected(texts: Sequence[str]) -> dict[str, float]:
    expected = {}
    for text in texts:
        id, _, number = text.rpartition("=")
        try:
            an_hour = float(number)
        except ValueError:
            an_hour = math.nan
        if not 0 < an_hour < math.inf or (id and not counts.is_id(id)):
            raise SetupError(
                f"--expected {printable(text)}: give pictures an hour, above 0, such as 12 or "
                "hall=0.5"
            )
        expected[id or counts.TOTAL_ID] = an_hour
    return expected


def _couriers(by: rules.Rules | None, outputs: Sequence[str]) -> list[Courier]:
    from beam_pipeline.preflight import check_writable
    from transforms.couriers import courier_for

    if by is None or not by.alerting.health:
        raise SetupError(
            "--notify needs --rules with health targets; name them in the file under health: "
            "targets"
        )
    if len(outputs) > 1:
        raise SetupError("--notify takes one --output: what was sent is kept there")
    check_writable("--output", outputs[0])
    return [courier_for(by.alerting.targets[name], os.environ) for name in by.alerting.health]
