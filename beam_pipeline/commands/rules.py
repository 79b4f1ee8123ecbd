"""The commands ``rules check``, ``explain``, ``propose`` and ``shadow``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from beam_pipeline.commands.arguments import (
    STORES_EPILOG,
    add_archive,
    add_ids,
    add_table_or_json,
    command_parser,
    parse,
)
from beam_pipeline.console.parsing import (
    DEFAULT_OUTPUT,
    OneLineParser,
    add_labels,
    at_least_1,
    score,
)


def parser() -> OneLineParser:
    """Returns the commands' parser."""
    parser = command_parser("rules", epilog=None)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=OneLineParser)
    check = commands.add_parser(
        "check",
        help="print the effective rules of each camera",
        description="Checks a rule file and prints the effective rules of each camera, and the "
        "layer that sets each value.",
        epilog=STORES_EPILOG,
        allow_abbrev=False,
    )
    check.add_argument("rules", metavar="FILE", help="the rule file, on any of Beam's filesystems")
    check.add_argument(
        "--min_score_kept",
        type=score,
        default=0.05,
        metavar="SCORE",
        help="the --min_score_kept of the job, which track.min_score must not be below "
        "(default: %(default)s)",
    )
    check.add_argument(
        "--output",
        "--archive",
        action="append",
        dest="archive",
        default=[],
        metavar="DIR",
        help="the --output of a job, or the --to of `pack`: warn of cameras whose events in it "
        "have fewer images than confirm needs; may be given several times",
    )
    explain = commands.add_parser(
        "explain",
        help="print the effective rules of one camera, and why an image raised an alert or did not",
        description="Prints the effective rules of a camera, and the layer that sets each value. "
        "With an image, prints why it raised an alert or did not.",
        epilog=STORES_EPILOG,
        allow_abbrev=False,
    )
    explain.add_argument("id", metavar="ID", help="the camera")
    explain.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        help="an image: its stored name, such as hall_20260131T235959Z.jpg, whose verdict is in "
        "--output, packed or not; or its JSON in final/",
    )
    explain.add_argument(
        "--rules",
        metavar="FILE",
        help="the rule file (default: none with an image's FILE; otherwise that by which the "
        "newest image of the camera in --output was judged, or the bundled one if there is no "
        "output)",
    )
    explain.add_argument(
        "--output",
        "--archive",
        metavar="DIR",
        help="the job's output, where the verdict on an image is looked up by its name; without "
        "--rules, the rule file is looked for here and beside it "
        f"(default: {DEFAULT_OUTPUT}, if there is one)",
    )
    propose = commands.add_parser(
        "propose",
        help="propose changes of the rules that silence the alerts which people marked false",
        description="Proposes, for each camera, changes of the rules that would have silenced "
        "alerts which people marked false, the smallest first, and tests each on the archive: "
        "what it silences, which right alerts it keeps, and what else it changes. Writes nothing "
        "without --write.",
        epilog=STORES_EPILOG,
        allow_abbrev=False,
    )
    add_archive(propose)
    propose.add_argument("--rules", required=True, metavar="FILE", help="the rule file to improve")
    propose.add_argument(
        "--write",
        nargs="?",
        type=at_least_1,
        const=0,
        metavar="NUMBER",
        help="write this proposal for the camera of --id to the rule file, with its comments "
        "(without NUMBER: the first one, if it loses no alert that is marked right)",
    )
    add_table_or_json(propose)
    for command in (check, explain, propose):
        add_labels(command)
    shadow = commands.add_parser(
        "shadow",
        help="print which alerts the shadow rules would have sent, beside those of the rules",
        description="Prints for each camera how many alerts the rules have sent, how many the "
        "--shadow_rules of the job would have sent, and which of them differ, with what marks say "
        "of them.",
        epilog=STORES_EPILOG,
        allow_abbrev=False,
    )
    shadow.add_argument(
        "--output",
        "--archive",
        default=DEFAULT_OUTPUT,
        metavar="DIR",
        help="the job's output, on a local disk or in a store (default: %(default)s)",
    )
    add_ids(shadow)
    shadow.add_argument(
        "--since",
        metavar="TIME",
        help="only images from this time on, such as 2026-01-31T00:00:00Z",
    )
    shadow.add_argument("--until", metavar="TIME", help="only images before this time")
    shadow.add_argument(
        "--version",
        metavar="VERSION",
        help="the version of the shadow rules (default: that of the newest image with an alert)",
    )
    add_table_or_json(shadow)
    return parser


def main(words: Sequence[str]) -> int:
    """Checks, explains or proposes rules; returns the exit code."""
    parsed = parse(parser(), words, last="file")
    from beam_pipeline.inputs import rule_commands  # A store's client takes a second to import.

    if parsed.command == "check":
        text, warnings = rule_commands.check(
            parsed.rules, parsed.labels, parsed.min_score_kept, parsed.archive
        )
        print(text)
        for warning in warnings:
            print(warning, file=sys.stderr)
    elif parsed.command == "propose":
        from beam_pipeline.evaluation.propose import propose_rules

        return propose_rules(parsed)
    elif parsed.command == "shadow":
        from beam_pipeline.evaluation.shadow import print_shadow

        return print_shadow(parsed)
    else:
        explanation = rule_commands.explain(
            parsed.id, parsed.file, parsed.rules, parsed.labels, parsed.output
        )
        print(explanation, end="")
    return 0
