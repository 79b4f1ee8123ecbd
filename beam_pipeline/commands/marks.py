"""The commands ``marks list`` and ``marks export``: what operators have said."""

from __future__ import annotations

from collections.abc import Sequence

from beam_pipeline.commands.arguments import STORES_EPILOG, command_parser, parse
from beam_pipeline.console.parsing import DEFAULT_OUTPUT, OneLineParser


def parser() -> OneLineParser:
    """Returns the commands' parser."""
    parser = command_parser("marks", epilog=None)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=OneLineParser)
    show = commands.add_parser(
        "list",
        help="list the marks that stand",
        description="Lists the marks that stand, in the order of the capture times of their "
        "images. `alerts mark` makes them.",
        epilog=STORES_EPILOG,
        allow_abbrev=False,
    )
    export = commands.add_parser(
        "export",
        help="write the marks as a truth file",
        description="Writes the marked images of which it is known what each label of their alert "
        "is, as a truth file: a CSV for `evaluate --truth`, or boxes in COCO's JSON. It says how "
        "many marked images are left out, and why.",
        epilog=STORES_EPILOG,
        allow_abbrev=False,
    )
    for command in (show, export):
        command.add_argument(
            "--output",
            "--archive",
            metavar="DIR",
            default=DEFAULT_OUTPUT,
            help="the job's output (default: %(default)s)",
        )
    export.add_argument(
        "--format",
        choices=("csv", "coco"),
        default="csv",
        help="csv for `evaluate --truth`; coco for boxes in COCO's JSON (default: %(default)s)",
    )
    export.add_argument(
        "--file",
        metavar="FILE",
        help="the file to write, on a local disk or in a store (default: standard output)",
    )
    return parser


def main(words: Sequence[str]) -> int:
    """Runs a command; returns the exit code."""
    parsed = parse(parser(), words)
    from beam_pipeline.evaluation import mark_export  # It reads stores, which is slow to import.

    if parsed.command == "list":
        return mark_export.list_marks(parsed)
    return mark_export.export_marks(parsed)
