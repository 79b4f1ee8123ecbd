"""The command `evaluate`: how good the alerts of an archive are, measured against a truth file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from beam_pipeline import archive_job, counts
from beam_pipeline.errors import SetupError
from beam_pipeline.options import add_labels
from beam_pipeline.tables import aligned

if TYPE_CHECKING:
    import rules
    from beam_pipeline.archive_job import Selection
    from beam_pipeline.evaluation.beside_truth import Compared
    from beam_pipeline.evaluation.metrics import AveragePrecision, Interval, Tally
    from beam_pipeline.evaluation.truth import Truth
    from transforms.archive import Archive

HEADER = (
    *("pictures", "threats", "alerts", "false", "precision", "recall"),
    *("suppressed", "recall + covered", "incidents", "false/camera/day"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command ``evaluate``."""
    add_shared_arguments(parser)
    parser.add_argument(
        "--rules",
        metavar="FILE",
        help="judge the archive anew by this rule file, which also says what is a threat; without "
        "it the verdicts of final/ are taken",
    )
    parser.add_argument(
        "--verdicts",
        choices=("anew", "final"),
        help="with --rules: anew judges by them, final takes the verdicts of final/, and the rules "
        "only say what is a threat (default: anew)",
    )
    parser.add_argument(
        "--format",
        choices=("table", "json"),
        default="table",
        help="table to read, json for a program (default: %(default)s)",
    )


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that ``evaluate`` and ``tune`` have in common."""
    archive_job.add_arguments(parser)
    parser.add_argument(
        "--truth",
        required=True,
        metavar="FILE",
        help="what is in the pictures: a CSV with the columns file, main_class, count, or boxes in "
        "COCO's JSON",
    )
    add_labels(parser)
    parser.add_argument(
        "--incident_gap",
        type=_duration,
        default="5m",
        metavar="TIME",
        help="pictures with a threat of one camera are one incident where no more than this lies "
        "between one and the next: a whole number and s, m, h or d (default: %(default)s)",
    )


def _duration(text: str) -> timedelta:
    from rules.schedule import Unreadable, parse_duration

    try:
        return parse_duration(text)
    except Unreadable as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def open_inputs(args: argparse.Namespace) -> tuple[Selection, Truth]:
    """What the options of `add_shared_arguments` name.

    Raises:
      SetupError: Something of it is wrong.
    """
    from beam_pipeline.evaluation.truth import parse_truth
    from beam_pipeline.job import load_labels, read_file

    labels = load_labels(args.labels).values()
    truth = parse_truth(read_file(args.truth, "--truth"), args.truth, labels)
    return archive_job.select(args), truth


def main(args: argparse.Namespace) -> int:
    """Prints what `args` (see `add_arguments`) asks for; returns the exit code.

    Raises:
      SetupError: What a person must put right, in one line; nothing has been printed then.
      CommandFailed: A store can't be reached any more.
    """
    from beam_pipeline.evaluation.beside_truth import compare
    from beam_pipeline.evaluation.metrics import average_precision
    from beam_pipeline.job import read_rules

    if args.verdicts is not None and args.rules is None:
        raise SetupError("--verdicts is for use with --rules FILE; give one, or leave it out")
    chosen, truth = open_inputs(args)
    archive = chosen.archive
    by = None if args.rules is None else read_rules(args.rules, args.labels)
    anew = by is not None and args.verdicts != "final"
    if not anew and not archive.has_verdicts:
        raise SetupError(
            f"--archive {archive.uris[0]}: there is no final/, so nothing was judged; give --rules "
            "FILE to judge it"
        )
    with archive_job.failing():
        compared = compare(chosen, truth, by=by, anew=anew)
    precision = average_precision(compared.boxes) if truth.has_boxes else {}
    if args.format == "json":
        text = _json(compared, precision, args.incident_gap, by, archive)
    else:
        text = _table(compared, precision, args.incident_gap)
    counts.write_stdout(text)
    notes = [*compared.notes(), *_rules_notes(compared, by, archive)]
    for line in notes:
        print(line, file=sys.stderr)
    archive_job.tell_problems(archive.problems, "--format json lists all")
    return 0


def _rules_notes(compared: Compared, by: rules.Rules | None, archive: Archive) -> list[str]:
    from beam_pipeline.evaluation.beside_truth import absent_cameras

    if by is None:
        return []
    lines = absent_cameras(by, archive)
    others = compared.versions - {by.version}
    if others:
        lines.append(
            f"final/ was judged by rules {', '.join(sorted(others))}; those given ({by.version}) "
            "only say what is a threat"
        )
    return lines


# Printing


def _groups(compared: Compared, gap: timedelta) -> dict[str, dict[str, Tally]]:
    from beam_pipeline.evaluation import metrics

    return {
        "id": metrics.by_id(compared.pictures, gap),
        "label": metrics.by_label(compared.pictures, gap),
        "rule": metrics.by_rule(compared.pictures, gap),
    }


def _json(
    compared: Compared,
    precision: Mapping[str, AveragePrecision],
    gap: timedelta,
    by: rules.Rules | None,
    archive: Archive,
) -> str:
    from beam_pipeline.evaluation import metrics

    versions = sorted(compared.versions) if compared.versions or by is None else [by.version]
    document: dict[str, Any] = {
        "rules_versions": versions,
        "confidence": metrics.CONFIDENCE,
        "incident_gap_seconds": int(gap.total_seconds()),
        "total": metrics.total(compared.pictures, gap).to_json(),
        **{
            f"by_{kind}": [{kind: name, **tally.to_json()} for name, tally in groups.items()]
            for kind, groups in _groups(compared, gap).items()
        },
        "average_precision": [
            {"label": label, "boxes": one.boxes, "ap": one.ap, "ap50": one.ap50}
            for label, one in precision.items()
        ],
        "left_out": {
            "without_truth": compared.without_truth,
            "without_verdict": compared.without_verdict,
            "disarmed": compared.disarmed,
            "refused_cameras": compared.refused,
            "not_in_archive": compared.not_there,
        },
        "supposed_threats": [{"id": id, "label": label} for id, label in sorted(compared.supposed)],
        "problems": [{"uri": uri, "why": why} for uri, why in archive.problems],
    }
    return json.dumps(document, indent=2) + "\n"


def _table(compared: Compared, precision: Mapping[str, AveragePrecision], gap: timedelta) -> str:
    from beam_pipeline.evaluation import metrics

    whole = metrics.total(compared.pictures, gap)
    blocks = []
    for kind, groups in _groups(compared, gap).items():
        named = [*groups.items(), *([("total", whole)] if kind == "id" else [])]
        rows = [(name, *tally_cells(tally)) for name, tally in named]
        blocks.append(ruled([(kind, *HEADER), *rows]))
    if precision:
        boxes = [
            (label, f"{one.boxes:,}", f"{one.ap:.3f}", f"{one.ap50:.3f}")
            for label, one in precision.items()
        ]
        blocks.append(ruled([("label", "boxes", "AP", "AP50"), *boxes]))
    if whole.behind_false:
        blocks.append(
            f"{whole.behind_false} threats came in the cooldown of a false alert: missed.\n"
        )
    return "\n".join(blocks)


def tally_cells(tally: Tally) -> tuple[str, ...]:
    """The cells of a table's line under `HEADER`."""
    from beam_pipeline.evaluation.metrics import wilson

    rate = tally.false_per_camera_day
    return (
        f"{tally.pictures:,}",
        f"{tally.threats:,}",
        f"{tally.alerts:,}",
        f"{tally.false_alerts:,}",
        share_text(tally.precision, wilson(tally.right, tally.alerts)),
        share_text(tally.recall, wilson(tally.caught, tally.threats)),
        f"{tally.suppressed:,}",
        share_text(tally.recall_covered, wilson(tally.caught + tally.covered, tally.threats)),
        f"{tally.incidents_caught} of {tally.incidents}",
        "-" if rate is None else f"{rate:,.2f}",
    )


def share_text(share: float | None, interval: Interval | None) -> str:
    """A share with the ends of its interval, for a table."""
    if share is None or interval is None:
        return "-"
    return f"{share:.3f} [{interval[0]:.2f}, {interval[1]:.2f}]"


def ruled(rows: Sequence[Sequence[str]]) -> str:
    """A table with a rule beneath its header."""
    lines = aligned(rows)
    lines.insert(1, "-" * max(map(len, lines)))
    return "".join(f"{line}\n" for line in lines)
