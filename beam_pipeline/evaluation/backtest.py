"""The command ``backtest``: what other rules would have made of an archive."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

import rules
from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.console.tables import write_stdout
from beam_pipeline.evaluation.backtest_page import make_page
from beam_pipeline.evaluation.backtest_report import (
    FORMATS,
    NO_ALERTS,
    Report,
    ResultJson,
    TallyJson,
    add_tallies,
)
from beam_pipeline.evaluation.comparison import other_tiles_note
from beam_pipeline.inputs import paths, selection
from beam_pipeline.inputs.preflight import check_readable
from beam_pipeline.inputs.rule_files import read_rules
from beam_pipeline.runners import archive_job
from transforms.backtest import Backtest
from transforms.records.times import canonical_time
from transforms.storage import stores


def backtest(parsed: argparse.Namespace, beam_arguments: Sequence[str]) -> int:
    """Judges an archive again, and prints the result.

    Raises:
      SetupError: What is wrong, where, and what to do.
      CommandFailedError: The pipeline failed, or the page could not be written.
    """
    options = archive_job.pipeline_options(
        beam_arguments, [("output", uri) for uri in parsed.archive]
    )
    for option in ("rules", "against", "labels"):
        check_readable(f"--{option}", getattr(parsed, option), is_file=True)
    ruleset = read_rules(parsed.rules, parsed.labels)
    against = parsed.against and read_rules(parsed.against, parsed.labels, "--against")
    page = parsed.html and paths.writable_file("--html", parsed.html)
    chosen = selection.select(parsed)
    if against is None and not chosen.archive.has_verdicts:
        raise SetupError(
            f"--output {', '.join(parsed.archive)}: has no verdicts to compare with; give rules to "
            "compare with by --against"
        )
    with archive_job.result_file(options) as result:
        archive_job.run(
            lambda pipeline: (
                pipeline
                | "Backtest"
                >> Backtest(
                    chosen.archive,
                    ruleset,
                    against,
                    ids=chosen.ids,
                    since=chosen.since,
                    until=chosen.until,
                    result=result,
                )
            ),
            options,
        )
        outcome: ResultJson = json.loads(stores.read_bytes(result))
    report = _report(parsed, chosen, ruleset, against, outcome)
    _print_notes(report)
    if page:
        with selection.store_errors_as_failures():
            stores.write_bytes(page, make_page(report).encode())
    write_stdout(FORMATS[parsed.format](report))
    return 0


def _report(
    parsed: argparse.Namespace,
    chosen: selection.Selection,
    ruleset: rules.Rules,
    against: rules.Rules | None,
    outcome: ResultJson,
) -> Report:
    cameras = outcome["cameras"]
    by_rule: dict[str, TallyJson] = {}
    for camera in cameras:
        for rule, numbers in camera["by_rule"].items():
            by_rule[rule] = add_tallies(by_rule.get(rule, NO_ALERTS), numbers)
    total = NO_ALERTS
    for camera in cameras:
        total = add_tallies(total, camera["alerts"])
    files = {parsed.rules: ruleset} | ({parsed.against: against} if against is not None else {})
    return Report(
        archive=tuple(parsed.archive),
        rules=(parsed.rules, ruleset.version),
        against=None if against is None else (parsed.against, against.version),
        since=None if chosen.since is None else canonical_time(chosen.since),
        until=None if chosen.until is None else canonical_time(chosen.until),
        total=total,
        cameras=cameras,
        by_rule={rule: by_rule[rule] for rule in sorted(by_rule)},
        changes=outcome["changes"],
        problems=[(uri, why) for camera in cameras for uri, why in camera["problems"]],
        cameras_not_in_archive=[id for id in ruleset.cameras if id not in chosen.archive.ids],
        cameras_not_in_rules={
            file: unknown
            for file, rules_of_file in files.items()
            if rules_of_file.strict_ids
            and (unknown := [id for id in chosen.ids if not rules_of_file.has_camera(id)])
        },
    )


def _print_notes(report: Report) -> None:
    """Says on standard error what a person should know of the set-up and of the archive."""
    selection.print_problems(report.problems, "--format json lists all")
    if report.not_compared:
        print(
            f"{report.not_compared:,} images have no stored verdict to compare with",
            file=sys.stderr,
        )
    if report.other_tiles:
        print(other_tiles_note(report.other_tiles), file=sys.stderr)
    if missing := report.cameras_not_in_archive:
        print(
            f"{report.rules[0]} names cameras that the archive does not have: "
            f"{selection.list_names(missing)}",
            file=sys.stderr,
        )
    for file, unknown in report.cameras_not_in_rules.items():
        print(
            f"{file} is strict and does not name {selection.list_names(unknown)}: the job would "
            "refuse their images, so their alerts are lost",
            file=sys.stderr,
        )
