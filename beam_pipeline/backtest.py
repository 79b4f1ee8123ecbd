"""The command ``backtest``: what other rules would have made of an archive."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from beam_pipeline import archive_job
from beam_pipeline.counts import write_stdout
from beam_pipeline.errors import SetupError
from beam_pipeline.options import add_labels
from beam_pipeline.tables import aligned
from transforms.text import printable

if TYPE_CHECKING:
    import rules

Numbers = dict[str, Any]
"""A `Tally` as JSON."""

_RULE_ROWS = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    archive_job.add_arguments(parser)
    parser.add_argument(
        "--rules", required=True, metavar="FILE", help="the rules to judge by, here or in a store"
    )
    parser.add_argument(
        "--against",
        metavar="FILE",
        help="the rules to compare with (default: what the archive's final/ says)",
    )
    add_labels(parser)
    parser.add_argument(
        "--format",
        choices=tuple(FORMATS),
        default="table",
        help="table to read, json for a program (default: %(default)s)",
    )
    parser.add_argument(
        "--html",
        metavar="FILE",
        help="also write a page with pictures of the largest changes, here or in a store",
    )


@dataclass(frozen=True)
class Report:
    """What came of a backtest, as it is told.

    Attributes:
      archive: What was judged.
      rules: File and version of the rules.
      against: The same of what is compared with; None for `final/`.
      since: First moment, canonical; None for all.
      until: First moment that does not count any more.
      total: The numbers of all cameras.
      cameras: Those of each, by id, as :class:`transforms.backtest.CameraResult` in JSON.
      by_rule: Those of each rule.
      changes: The largest changes, as :class:`transforms.backtest.Change` in JSON.
      problems: What could not be read, and why.
      cameras_not_in_archive: Cameras that a rule file names and the archive has not.
      cameras_not_in_rules: Cameras of the archive that strict rules do not name, by rule file.
    """

    archive: tuple[str, ...]
    rules: tuple[str, str]
    against: tuple[str, str] | None
    since: str | None
    until: str | None
    total: Numbers
    cameras: Sequence[Numbers]
    by_rule: Mapping[str, Numbers]
    changes: Sequence[dict[str, Any]]
    problems: Sequence[tuple[str, str]]
    cameras_not_in_archive: Sequence[str]
    cameras_not_in_rules: Mapping[str, Sequence[str]]

    @property
    def images(self) -> int:
        """Pictures that were compared."""
        return sum(camera["images"] for camera in self.cameras)

    @property
    def not_compared(self) -> int:
        """Pictures of which `final/` says nothing."""
        return sum(camera["not_compared"] for camera in self.cameras)

    @property
    def changed_cameras(self) -> list[Numbers]:
        """Cameras with a change, those with most first."""
        changed = [one for one in self.cameras if _changes(one["alerts"])]
        return sorted(changed, key=lambda one: (-_changes(one["alerts"]), one["id"]))

    @property
    def changed_rules(self) -> list[tuple[str, Numbers]]:
        """Rules with a change, those with most first."""
        changed = [one for one in self.by_rule.items() if _changes(one[1])]
        return sorted(changed, key=lambda one: (-_changes(one[1]), one[0]))

    @property
    def compared_with(self) -> str:
        """What is compared with, in words."""
        if self.against is None:
            return "what final/ says"
        return f"{self.against[0]} (version {self.against[1]})"

    def to_json(self) -> dict[str, Any]:
        """All of it, for a program."""
        return {
            "archive": list(self.archive),
            "rules": dict(zip(("file", "version"), self.rules, strict=True)),
            "against": self.against and dict(zip(("file", "version"), self.against, strict=True)),
            "since": self.since,
            "until": self.until,
            "images": self.images,
            "not_compared": self.not_compared,
            "alerts": self.total,
            "by_id": [
                {key: value for key, value in camera.items() if key != "problems"}
                for camera in self.cameras
            ],
            "by_rule": self.by_rule,
            "largest_changes": list(self.changes),
            "cameras_not_in_archive": list(self.cameras_not_in_archive),
            "cameras_not_in_rules": dict(self.cameras_not_in_rules),
            "problems": [{"uri": uri, "why": why} for uri, why in self.problems],
        }


def _changes(numbers: Numbers) -> int:
    return int(numbers["gained"]) + int(numbers["lost"])


def main(parsed: argparse.Namespace, beam_arguments: Sequence[str]) -> int:
    """Judges an archive again, and says what came of it.

    Raises:
      SetupError: What is wrong, where, and what to do.
      CommandFailed: The pipeline failed, or the page could not be written.
    """
    options = archive_job.pipeline_options(
        beam_arguments, [("archive", uri) for uri in parsed.archive]
    )
    from beam_pipeline.job import read_rules
    from beam_pipeline.preflight import check_readable
    from transforms import stores
    from transforms.backtest import Backtest

    for option in ("rules", "against", "labels"):
        check_readable(f"--{option}", getattr(parsed, option), is_file=True)
    by = read_rules(parsed.rules, parsed.labels)
    against = parsed.against and read_rules(parsed.against, parsed.labels, "--against")
    page = parsed.html and archive_job.writable_file("--html", parsed.html)
    chosen = archive_job.select(parsed)
    if against is None and not chosen.archive.has_verdicts:
        raise SetupError(
            f"--archive {', '.join(parsed.archive)}: has no final/ to compare with; give rules to "
            "compare with by --against"
        )
    with archive_job.result_file(options) as result:
        archive_job.run(
            lambda pipeline: (
                pipeline
                | "Backtest"
                >> Backtest(
                    chosen.archive,
                    by,
                    against,
                    ids=chosen.ids,
                    since=chosen.since,
                    until=chosen.until,
                    result=result,
                )
            ),
            options,
        )
        found = json.loads(stores.read_bytes(result))
    report = _report(parsed, chosen, by, against, found)
    _tell(report)
    if page:
        from beam_pipeline.backtest_page import make_page

        with archive_job.failing():
            stores.write_bytes(page, make_page(report).encode())
    write_stdout(FORMATS[parsed.format](report))
    return 0


def _report(
    parsed: argparse.Namespace,
    chosen: archive_job.Selection,
    by: rules.Rules,
    against: rules.Rules | None,
    found: dict[str, Any],
) -> Report:
    from transforms.times import canonical_time

    cameras = found["cameras"]
    by_rule: dict[str, Numbers] = {}
    for camera in cameras:
        for rule, numbers in camera["by_rule"].items():
            by_rule[rule] = _sum(by_rule.get(rule), numbers)
    total = _sum(None, _ZERO)
    for camera in cameras:
        total = _sum(total, camera["alerts"])
    files = {parsed.rules: by} | ({parsed.against: against} if against is not None else {})
    return Report(
        archive=tuple(parsed.archive),
        rules=(parsed.rules, by.version),
        against=None if against is None else (parsed.against, against.version),
        since=None if chosen.since is None else canonical_time(chosen.since),
        until=None if chosen.until is None else canonical_time(chosen.until),
        total=total,
        cameras=cameras,
        by_rule={rule: by_rule[rule] for rule in sorted(by_rule)},
        changes=found["changes"],
        problems=[(uri, why) for camera in cameras for uri, why in camera["problems"]],
        cameras_not_in_archive=[id for id in by.cameras if id not in chosen.archive.ids],
        cameras_not_in_rules={
            file: unknown
            for file, one in files.items()
            if one.strict_ids and (unknown := [id for id in chosen.ids if not one.knows(id)])
        },
    )


_ZERO: Numbers = {
    **dict.fromkeys(("before", "after", "gained", "lost"), 0),
    "gained_from": {},
    "lost_to": {},
}


def _sum(one: Numbers | None, other: Numbers) -> Numbers:
    one = one or _ZERO
    return {
        key: one[key] + value
        if isinstance(value, int)
        else dict(sorted((Counter(one[key]) + Counter(value)).items()))
        for key, value in other.items()
    }


def _tell(report: Report) -> None:
    """Says on standard error what a person should know of the set-up and of the archive."""
    archive_job.tell_problems(report.problems, "--format json lists all")
    if report.not_compared:
        print(
            f"{report.not_compared:,} pictures have no verdict in final/ to compare with",
            file=sys.stderr,
        )
    if missing := report.cameras_not_in_archive:
        print(
            f"{report.rules[0]} names cameras that the archive does not have: "
            f"{archive_job.listed(missing)}",
            file=sys.stderr,
        )
    for file, unknown in report.cameras_not_in_rules.items():
        print(
            f"{file} is strict and does not name {archive_job.listed(unknown)}: the job would "
            "refuse their pictures, so they have no alerts by it",
            file=sys.stderr,
        )


def reasons(numbers: Numbers) -> str:
    """What held alerts back, in words."""
    parts = []
    for what, key in (("lost to", "lost_to"), ("gained from", "gained_from")):
        by = sorted(numbers[key].items(), key=lambda one: (-one[1], one[0]))
        if by:
            parts.append(f"{what} " + ", ".join(f"{name} {count:,}" for name, count in by))
    return "; ".join(parts)


def format_table(report: Report) -> str:
    """The report for a person."""
    period = "".join(
        f", {word} {moment}"
        for word, moment in (("from", report.since), ("before", report.until))
        if moment
    )
    lines = [
        f"{report.rules[0]} (version {report.rules[1]}) against {report.compared_with}",
        f"{report.images:,} pictures of {len(report.cameras):,} cameras in "
        f"{', '.join(report.archive)}{period}",
        "",
    ]
    cameras = report.changed_cameras
    rows = [_row(one["id"], one["alerts"], one["images"]) for one in cameras]
    if same := len(report.cameras) - len(cameras):
        rest = [one for one in report.cameras if not _changes(one["alerts"])]
        numbers = _sum(None, _ZERO)
        for one in rest:
            numbers = _sum(numbers, one["alerts"])
        rows.append(_row(f"({same:,} unchanged)", numbers, sum(one["images"] for one in rest)))
    rows.append(_row("total", report.total, report.images))
    changes = ("alerts before", "after", "gained", "lost", "")
    lines += aligned([("id", "pictures", *changes), *rows], prose=True)
    rules_changed = report.changed_rules
    if rules_changed:
        rows = [_row(rule, numbers) for rule, numbers in rules_changed[:_RULE_ROWS]]
        lines += ["", *aligned([("rule", *changes), *rows], prose=True)]
        if len(rules_changed) > _RULE_ROWS:
            lines.append(f"and {len(rules_changed) - _RULE_ROWS} more; --format json has all")
    return "".join(f"{line}\n" for line in lines)


def _row(name: str, numbers: Numbers, images: int | None = None) -> tuple[str, ...]:
    counted = [numbers[key] for key in ("before", "after", "gained", "lost")]
    values = counted if images is None else [images, *counted]
    return (printable(name), *(f"{value:,}" for value in values), printable(reasons(numbers)))


def format_json(report: Report) -> str:
    """The report for a program."""
    return json.dumps(report.to_json(), indent=2) + "\n"


FORMATS: Mapping[str, Callable[[Report], str]] = {"table": format_table, "json": format_json}
