"""The command ``names check``: which preset reads the names of images."""

from __future__ import annotations

from collections.abc import Sequence

from beam_pipeline.commands.arguments import STORES_EPILOG, command_parser, parse
from beam_pipeline.console.parsing import OneLineParser, add_name_pattern, add_timezone


def parser() -> OneLineParser:
    """Returns the command's parser."""
    parser = command_parser("names", epilog=None)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=OneLineParser)
    check = commands.add_parser(
        "check",
        help="print which preset reads how many names of images, and the options to use",
        description="Reads the names of images by every preset, and prints how many each one "
        "reads, examples with the camera and the time in UTC, and the options to use. It looks at "
        "the first 100,000 files.",
        epilog=STORES_EPILOG,
        allow_abbrev=False,
    )
    check.add_argument(
        "input",
        metavar="DIR",
        help="the images: a directory (everything beneath it), a glob or a file, as for --input",
    )
    add_name_pattern(check)
    add_timezone(check)
    check.add_argument(
        "--follow_links", action="store_true", help="follow links, as for the job (default: no)"
    )
    return parser


def main(words: Sequence[str]) -> int:
    """Prints what the names look like; returns the exit code."""
    parsed = parse(parser(), words)
    from beam_pipeline.console.tables import write_stdout
    from beam_pipeline.inputs import name_commands  # It reads stores, which is slow to import.

    write_stdout(
        name_commands.check(
            parsed.input,
            parsed.timezone,
            parsed.name_pattern,
            follow_links=parsed.follow_links,
        )
    )
    return 0
