"""The command ``backtest``: what other rules would have made of an archive."""

from __future__ import annotations

from collections.abc import Sequence

from beam_pipeline.commands.arguments import (
    BEAM_EPILOG,
    add_archive,
    add_table_or_json,
    command_parser,
)
from beam_pipeline.console.parsing import OneLineParser, add_labels


def parser() -> OneLineParser:
    """Returns the command's parser."""
    parser = command_parser(
        "backtest",
        "Judges every image of an archive by other rules, without the model and without sending "
        "anything, and prints which alerts these rules would gain and lose.",
        BEAM_EPILOG,
    )
    add_archive(parser)
    parser.add_argument(
        "--rules",
        required=True,
        metavar="FILE",
        help="the new rules, on a local disk or in a store",
    )
    parser.add_argument(
        "--against",
        metavar="FILE",
        help="the rules to compare with (default: the verdicts of the archive)",
    )
    add_labels(parser)
    add_table_or_json(parser)
    parser.add_argument(
        "--html",
        metavar="FILE",
        help="also write a page with pictures of the largest changes, on a local disk or in a "
        "store",
    )
    return parser


def main(words: Sequence[str]) -> int:
    """Judges an archive again; returns the exit code."""
    parsed, beam_arguments = parser().parse_known_args(words)
    from beam_pipeline.evaluation.backtest import backtest  # Beam takes seconds to import.

    return backtest(parsed, beam_arguments)
