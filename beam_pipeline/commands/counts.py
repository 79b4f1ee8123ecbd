"""The command ``counts``: windowed counts to read."""

from __future__ import annotations

from collections.abc import Sequence

from beam_pipeline.commands.arguments import add_ids, add_outputs, add_period, command_parser, parse
from beam_pipeline.console.parsing import OneLineParser


def parser() -> OneLineParser:
    """Returns the command's parser."""
    parser = command_parser(
        "counts",
        "Prints the number of images, threats and alerts by camera and window.",
    )
    add_outputs(parser)
    parser.add_argument(
        "--format",
        choices=("table", "csv", "json"),
        default="table",
        help="table for people, csv for spreadsheets, json for programs (default: %(default)s)",
    )
    add_ids(parser)
    add_period(parser)
    parser.add_argument(
        "--late",
        action="store_true",
        help="only the images of a stream that arrived too late for their windows; they are "
        "judged and stored like all others, but are not part of the other counts",
    )
    parser.add_argument(
        "--by",
        choices=("window", "id", "total"),
        default="window",
        help="one row per camera and window, one per camera, or one in total (default: "
        "%(default)s)",
    )
    return parser


def main(words: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    parsed = parse(parser(), words)
    from beam_pipeline.fleet.counts import print_counts  # Slow: it reads stores.

    return print_counts(parsed)
