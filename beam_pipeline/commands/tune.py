"""The command ``tune``: proposes scores and areas from a truth file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from beam_pipeline.commands.arguments import (
    add_table_or_json,
    add_truth,
    command_parser,
    parse,
)
from beam_pipeline.console.parsing import OneLineParser, number


def parser() -> OneLineParser:
    """Returns the command's parser."""
    parser = command_parser(
        "tune",
        "Proposes values of min_score, min_area and max_area that keep recall and send the fewest "
        "false alerts, from an archive and its truth file or marks. Writes nothing without "
        "--write.",
    )
    add_truth(parser)
    parser.add_argument("--rules", required=True, metavar="FILE", help="the rule file to improve")
    parser.add_argument(
        "--min_recall",
        type=_above_0,
        default=0.98,
        metavar="SHARE",
        help="the minimum recall, above 0 to 1 (default: %(default)s)",
    )
    parser.add_argument(
        "--recall_of",
        choices=("pictures", "incidents"),
        default="pictures",
        help="what recall counts: images with a threat, or incidents (see --incident_gap), of "
        "which one image must raise the alert (default: %(default)s)",
    )
    parser.add_argument(
        "--per",
        choices=("profile", "camera"),
        default="profile",
        help="values for all cameras of a profile together, or for each camera "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--holdout",
        type=_below_1,
        default=0.3,
        metavar="SHARE",
        help="the share of each camera's images with truth, the latest ones, that is held out of "
        "tuning to test the proposal; 0 for none (default: %(default)s)",
    )
    parser.add_argument(
        "--write",
        metavar="FILE",
        help="write the rules, with the proposals that the truth supports and with their "
        "comments, to a new file",
    )
    parser.add_argument(
        "--write_guesses",
        action="store_true",
        help="also write proposals that are marked TOO FEW or NOT HELD, or that no later image "
        "confirms",
    )
    add_table_or_json(parser)
    return parser


def main(words: Sequence[str]) -> int:
    """Proposes values, and writes them on request; returns the exit code."""
    parsed = parse(parser(), words)
    from beam_pipeline.evaluation.tune import tune  # numpy takes a while to import.

    return tune(parsed)


def _above_0(text: str) -> float:
    value = number(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def _below_1(text: str) -> float:
    value = number(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 0 and below 1")
    return value
