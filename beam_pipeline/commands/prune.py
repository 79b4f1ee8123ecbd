"""The command ``prune``: deletes what is older than it needs to be kept."""

from __future__ import annotations

from collections.abc import Sequence

from beam_pipeline.commands.arguments import command_parser, parse
from beam_pipeline.console.parsing import DEFAULT_OUTPUT, OneLineParser, add_labels, age


def parser() -> OneLineParser:
    """Returns the command's parser."""
    parser = command_parser(
        "prune",
        "Deletes images and their records that are older than a given age, and shortens the "
        "records of alerts. Prints what it would delete, unless --delete is given. Counts, marks, "
        "and alerts that wait to be sent stay.",
    )
    parser.add_argument(
        "--output",
        "--archive",
        metavar="DIR",
        default=DEFAULT_OUTPUT,
        help="the job's output, on a local disk or in a store (default: %(default)s)",
    )
    parser.add_argument(
        "--older_than",
        type=age,
        metavar="AGE",
        help="delete what was taken longer ago than this: a whole number and h or d, such as 30d "
        "(default: as --rules says)",
    )
    parser.add_argument(
        "--rules",
        metavar="FILE",
        help="the rule file whose section `retention` says how long what is kept",
    )
    add_labels(parser)
    parser.add_argument(
        "--keep",
        action="append",
        nargs="+",
        default=[],
        metavar=("WHAT", "AGE"),
        help="keep this longer: WHAT is a folder (validated, detections, final, invalid), alerts "
        "(all files of images with an alert, and its record), threats (all files of images with a "
        "threat) or marked (all files of images with a mark). Without AGE, it is kept for good. "
        "May be given several times; the longest time counts",
    )
    parser.add_argument(
        "--delete", action="store_true", help="delete; without it, only print what would be deleted"
    )
    return parser


def main(words: Sequence[str]) -> int:
    """Deletes, or prints what it would delete; returns the exit code."""
    parsed = parse(parser(), words)
    from beam_pipeline.fleet.pruning import prune  # It reads stores, which is slow to import.

    return prune(parsed)
