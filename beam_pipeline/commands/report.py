"""The command ``report``: a page about the fleet."""

from __future__ import annotations

from collections.abc import Sequence

from beam_pipeline.commands.arguments import add_outputs, add_period, command_parser, parse
from beam_pipeline.console.parsing import OneLineParser, add_labels


def parser() -> OneLineParser:
    """Returns the command's parser."""
    parser = command_parser(
        "report",
        "Writes one HTML page about the whole fleet in a period: cameras, threats, alerts with "
        "their pictures, invalid images, and health findings.",
    )
    add_outputs(parser)
    parser.add_argument(
        "--report_period_hours",
        type=float,
        metavar="HOURS",
        help="length of the period, which ends with the newest window of more than one camera "
        "(default: 24)",
    )
    add_period(parser)
    parser.add_argument(
        "--file",
        metavar="PATH",
        help="the file to write (default: report/report.html in DIR, if there is only one output)",
    )
    parser.add_argument(
        "--rules",
        metavar="FILE",
        help="the rule file, on a local disk or in a store; the page then includes its cameras "
        "that sent nothing",
    )
    add_labels(parser)
    return parser


def main(words: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    parsed = parse(parser(), words)
    from beam_pipeline.pages.report import print_report  # Slow: it reads stores.

    return print_report(parsed)
