"""The command ``evaluate``: the alerts of an archive measured against a truth file."""

from __future__ import annotations

from collections.abc import Sequence

from beam_pipeline.commands.arguments import (
    add_table_or_json,
    add_truth,
    command_parser,
    parse,
)
from beam_pipeline.console.parsing import OneLineParser


def parser() -> OneLineParser:
    """Returns the command's parser."""
    parser = command_parser(
        "evaluate",
        "Compares the alerts of an archive with a truth file: precision, recall and false alerts "
        "per camera and day, by camera, label and rule. With the marks of operators in place of a "
        "file, it also says what they can't tell.",
    )
    add_truth(parser)
    parser.add_argument(
        "--rules",
        metavar="FILE",
        help="judge the archive again by this rule file, which also defines what a threat is "
        "(default: use the stored verdicts)",
    )
    parser.add_argument(
        "--verdicts",
        choices=("anew", "final"),
        help="with --rules: anew judges by these rules; final uses the stored verdicts, and "
        "the rules only define what a threat is (default: anew)",
    )
    add_table_or_json(parser)
    return parser


def main(words: Sequence[str]) -> int:
    """Measures the alerts; returns the exit code."""
    parsed = parse(parser(), words)
    from beam_pipeline.evaluation.evaluate import evaluate  # numpy takes a while to import.

    return evaluate(parsed)
