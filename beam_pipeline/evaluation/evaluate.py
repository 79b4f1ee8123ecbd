"""The command `evaluate`: how good the alerts of an archive are, measured against a truth file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import rules
from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.console.tables import align, write_stdout
from beam_pipeline.evaluation import marked, metrics
from beam_pipeline.evaluation.comparison import Comparison, absent_cameras, compare
from beam_pipeline.evaluation.marked import MarkedTruth
from beam_pipeline.evaluation.metrics import (
    AveragePrecision,
    EvaluationTally,
    Interval,
    average_precision,
    wilson,
)
from beam_pipeline.evaluation.truth import Truth, parse_truth
from beam_pipeline.inputs import selection
from beam_pipeline.inputs.preflight import check_readable
from beam_pipeline.inputs.rule_files import load_labels, read_file, read_rules
from beam_pipeline.inputs.selection import Selection
from transforms.storage.archive import Archive

HEADER = (
    *("images", "threats", "alerts", "false", "false labels", "precision", "recall"),
    *("suppressed", "recall + covered", "incidents", "covered", "first alert", "false/camera/day"),
)


def open_inputs(args: argparse.Namespace) -> tuple[Selection, Truth | MarkedTruth]:
    """Returns what the options of an archive and its truth name: a file, or the archive's marks.

    Raises:
      SetupError: Something of it is wrong.
    """
    by_marks = args.truth in (None, marked.OPTION)
    for option in ("rules", "labels") if by_marks else ("truth", "rules", "labels"):
        check_readable(f"--{option}", getattr(args, option), is_file=True)
    labels = load_labels(args.labels).values()
    if not by_marks:
        truth = parse_truth(read_file(args.truth, "--truth"), args.truth, labels)
        return selection.select(args), truth
    chosen = selection.select(args)
    return chosen, marked.read_truth(chosen.archive.uris)


def evaluate(args: argparse.Namespace) -> int:
    """Prints what the arguments ask for; returns the exit code.

    Raises:
      SetupError: What a person must correct, in one line; nothing has been printed then.
      CommandFailedError: A store can't be reached any more.
    """
    if args.verdicts is not None and args.rules is None:
        raise SetupError("--verdicts is for use with --rules FILE; give one, or leave it out")
    chosen, truth = open_inputs(args)
    archive = chosen.archive
    ruleset = None if args.rules is None else read_rules(args.rules, args.labels)
    rejudge = ruleset is not None and args.verdicts != "final"
    if not rejudge and not archive.has_verdicts:
        raise SetupError(
            f"--output {archive.uris[0]}: there is no final/, so nothing was judged; give --rules "
            "FILE to judge it"
        )
    if isinstance(truth, MarkedTruth):
        return _evaluate_by_marks(args, chosen, truth, ruleset, rejudge=rejudge)
    with selection.store_errors_as_failures():
        comparison = compare(chosen, truth, ruleset=ruleset, rejudge=rejudge)
    precision = average_precision(comparison.boxes) if truth.has_boxes else {}
    if args.format == "json":
        text = _json(comparison, precision, args.incident_gap, ruleset, archive)
    else:
        text = _table(comparison, precision, args.incident_gap)
    write_stdout(text)
    notes = [*comparison.notes(), *_rules_notes(comparison, ruleset, archive)]
    for line in notes:
        print(line, file=sys.stderr)
    selection.print_problems(archive.problems, "--format json lists all")
    return 0


def _evaluate_by_marks(
    args: argparse.Namespace,
    chosen: Selection,
    truth: MarkedTruth,
    ruleset: rules.Rules | None,
    *,
    rejudge: bool,
) -> int:
    archive = chosen.archive
    with selection.store_errors_as_failures():
        comparison = marked.compare_marks(chosen, truth, ruleset=ruleset, rejudge=rejudge)
    rows, notes = comparison.rows, comparison.notes()
    groups = {"id": marked.by_id(rows), "label": marked.by_label(rows)}
    problems = [*archive.problems, *truth.problems]
    if args.format == "json":
        document = {
            "truth": marked.OPTION,
            "marks": len(truth.marks),
            "confidence": metrics.CONFIDENCE,
            "total": marked.tally(rows).to_json(),
            **{
                f"by_{kind}": [{kind: name, **tally.to_json()} for name, tally in tallies.items()]
                for kind, tallies in groups.items()
            },
            "notes": notes,
            "problems": [{"uri": uri, "why": why} for uri, why in problems],
        }
        write_stdout(json.dumps(document, indent=2) + "\n")
    else:
        named = [*groups["id"].items(), ("total", marked.tally(rows))]
        write_stdout(
            "\n".join(
                with_header_rule(
                    [(kind, *marked.HEADER), *((name, *tally.cells()) for name, tally in tallies)]
                )
                for kind, tallies in (("id", named), ("label", groups["label"].items()))
            )
        )
    absent = [] if ruleset is None else absent_cameras(ruleset, archive)
    for line in [*notes, *absent]:
        print(line, file=sys.stderr)
    selection.print_problems(problems, "--format json lists all")
    return 0


def _rules_notes(
    comparison: Comparison, ruleset: rules.Rules | None, archive: Archive
) -> list[str]:

    if ruleset is None:
        return []
    lines = absent_cameras(ruleset, archive)
    others = comparison.versions - {ruleset.version}
    if others:
        lines.append(
            f"final/ was judged by rules {', '.join(sorted(others))}; those given "
            f"({ruleset.version}) only define what a threat is"
        )
    return lines


# Printing


def _groups(comparison: Comparison, gap: timedelta) -> dict[str, dict[str, EvaluationTally]]:

    return {
        "id": metrics.by_id(comparison.images, gap),
        "label": metrics.by_label(comparison.images, gap),
        "rule": metrics.by_rule(comparison.images, gap),
    }


def _json(
    comparison: Comparison,
    precision: Mapping[str, AveragePrecision],
    gap: timedelta,
    ruleset: rules.Rules | None,
    archive: Archive,
) -> str:

    versions = (
        sorted(comparison.versions) if comparison.versions or ruleset is None else [ruleset.version]
    )
    document: dict[str, Any] = {
        "rules_versions": versions,
        "confidence": metrics.CONFIDENCE,
        "incident_gap_seconds": int(gap.total_seconds()),
        "total": metrics.total(comparison.images, gap).to_json(),
        **{
            f"by_{kind}": [{kind: name, **tally.to_json()} for name, tally in groups.items()]
            for kind, groups in _groups(comparison, gap).items()
        },
        "average_precision": [
            {"label": label, "boxes": average.boxes, "ap": average.ap, "ap50": average.ap50}
            for label, average in precision.items()
        ],
        "left_out": {
            "without_truth": comparison.without_truth,
            "without_verdict": comparison.without_verdict,
            "disarmed": comparison.disarmed,
            "refused_cameras": comparison.refused,
            "not_in_archive": comparison.not_in_archive,
        },
        "supposed_threats": [
            {"id": id, "label": label} for id, label in sorted(comparison.supposed)
        ],
        "problems": [{"uri": uri, "why": why} for uri, why in archive.problems],
    }
    return json.dumps(document, indent=2) + "\n"


def _table(
    comparison: Comparison, precision: Mapping[str, AveragePrecision], gap: timedelta
) -> str:

    whole = metrics.total(comparison.images, gap)
    blocks = []
    for kind, groups in _groups(comparison, gap).items():
        named = [*groups.items(), *([("total", whole)] if kind == "id" else [])]
        rows = [(name, *tally_cells(tally)) for name, tally in named]
        blocks.append(with_header_rule([(kind, *HEADER), *rows]))
    if precision:
        boxes = [
            (label, f"{average.boxes:,}", f"{average.ap:.3f}", f"{average.ap50:.3f}")
            for label, average in precision.items()
        ]
        blocks.append(with_header_rule([("label", "boxes", "AP", "AP50"), *boxes]))
    if whole.behind_false:
        blocks.append(
            f"{whole.behind_false} threats fell into the cooldown of a false alert, and count as "
            "missed.\n"
        )
    return "\n".join(blocks)


def tally_cells(tally: EvaluationTally) -> tuple[str, ...]:
    """Returns the cells of a table's line under `HEADER`."""

    rate = tally.false_per_camera_day
    return (
        f"{tally.images:,}",
        f"{tally.threats:,}",
        f"{tally.alerts:,}",
        f"{tally.false_alerts:,}",
        f"{tally.false_labels:,}",
        share_text(tally.precision, wilson(tally.right, tally.alerts)),
        share_text(tally.recall, wilson(tally.caught, tally.threats)),
        f"{tally.suppressed:,}",
        share_text(tally.recall_covered, wilson(tally.caught + tally.covered, tally.threats)),
        f"{tally.incidents_caught} of {tally.incidents}",
        f"{tally.incidents_covered:,}",
        _first_alert_text(tally),
        "-" if rate is None else f"{rate:,.2f}",
    )


def _first_alert_text(tally: EvaluationTally) -> str:
    middle, p95 = tally.first_alert_median, tally.first_alert_p95
    if middle is None or p95 is None:
        return "-"
    return f"{_seconds_text(middle)}, p95 {_seconds_text(p95)}"


def _seconds_text(seconds: float) -> str:
    for length, unit in ((3600, "h"), (60, "m")):
        if seconds >= length:
            return f"{seconds / length:.3g}{unit}"
    return f"{seconds:.3g}s"


def share_text(share: float | None, interval: Interval | None) -> str:
    """Returns a share with the ends of its interval, for a table."""
    if share is None or interval is None:
        return "-"
    return f"{share:.3f} [{interval[0]:.2f}, {interval[1]:.2f}]"


def with_header_rule(rows: Sequence[Sequence[str]]) -> str:
    """Returns a table with a rule beneath its header."""
    lines = align(rows)
    lines.insert(1, "-" * max(map(len, lines)))
    return "".join(f"{line}\n" for line in lines)
