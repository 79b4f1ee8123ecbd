"""The command ``health``: what is wrong with which camera."""

from __future__ import annotations

from collections.abc import Sequence

from beam_pipeline.commands.arguments import add_outputs, add_table_or_json, command_parser, parse
from beam_pipeline.console.parsing import OneLineParser, add_labels


def parser() -> OneLineParser:
    """Returns the command's parser."""
    parser = command_parser(
        "health",
        "Finds cameras that are silent, blind or frozen, send invalid or misdated images, or show "
        "unusually many or few threats, compared with what is usual for each camera at these "
        "hours.",
    )
    add_outputs(parser)
    parser.add_argument(
        "--rules",
        metavar="FILE",
        help="the rule file: its cameras that never sent an image are silent, and --notify uses "
        "its health targets",
    )
    add_labels(parser)
    parser.add_argument(
        "--since",
        metavar="TIME",
        help="the start of the period, such as 2026-01-31T00:00:00Z (default: 24 hours before its "
        "end)",
    )
    parser.add_argument(
        "--until",
        metavar="TIME",
        help="the end of the period; pass the present time to find a fleet that has stopped "
        "(default: the end of the newest window that more than one camera has reached)",
    )
    parser.add_argument(
        "--expected",
        action="append",
        metavar="[ID=]NUMBER",
        help="the minimum number of images per hour of one camera or of each; may be given "
        "several times (default: the usual number of the camera at these hours)",
    )
    add_table_or_json(parser)
    parser.add_argument(
        "--file", metavar="FILE", help="the file to write (default: standard output)"
    )
    parser.add_argument(
        "--notify",
        action="store_true",
        help="send new findings to the targets that the rule file lists under health, and record "
        "the outcome in health/ under the output",
    )
    return parser


def main(words: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    parsed = parse(parser(), words)
    from beam_pipeline.fleet.health import print_health  # Slow: it reads stores.

    return print_health(parsed)
