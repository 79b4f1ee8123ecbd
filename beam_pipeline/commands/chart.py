"""The command ``chart``: a picture of the threats per camera."""

from __future__ import annotations

from collections.abc import Sequence

from beam_pipeline.commands.arguments import add_outputs, command_parser, parse
from beam_pipeline.console.parsing import OneLineParser


def parser() -> OneLineParser:
    """Returns the command's parser."""
    parser = command_parser(
        "chart",
        "Draws the threats per camera in the recent period, and marks cameras with unusually many "
        "or few threats for their number of images.",
    )
    add_outputs(parser)
    parser.add_argument(
        "--chart_period_hours",
        type=float,
        default=24,
        metavar="HOURS",
        help="length of the period, which ends with the newest window of more than one camera "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--file",
        metavar="PATH",
        help="the file to write (default: chart/threats.png in DIR, if there is only one output)",
    )
    return parser


def main(words: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    parsed = parse(parser(), words)
    from beam_pipeline.fleet.chart import print_chart  # Slow: it reads stores.

    return print_chart(parsed)
