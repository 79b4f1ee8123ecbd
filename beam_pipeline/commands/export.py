"""The command ``export``: detections in MegaDetector's format."""

from __future__ import annotations

from collections.abc import Sequence

from beam_pipeline.commands.arguments import (
    add_archive_and_target,
    command_parser,
    parse,
    settle_target,
)
from beam_pipeline.console.parsing import OneLineParser


def parser() -> OneLineParser:
    """Returns the command's parser."""
    parser = command_parser(
        "export",
        "Writes the detections as one JSON file in MegaDetector's format 1.6, for review tools.",
    )
    add_archive_and_target(parser, "FILE", "the JSON file to write, on a local disk or in a store")
    parser.add_argument(
        "--paths",
        choices=("archive", "uri"),
        default="archive",
        help="how `file` names an image: archive, by its path under the job's output "
        "(validated/ID/FILE, invalid/REASON/FILE), or uri, by its original address (default: "
        "%(default)s)",
    )
    return parser


def main(words: Sequence[str]) -> int:
    """Writes the file; returns the exit code."""
    command = parser()
    parsed = parse(command, words)
    settle_target(command, parsed)
    from beam_pipeline.evaluation.export import export  # A store's client takes a second to import.

    return export(parsed)
