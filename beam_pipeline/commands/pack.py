"""The command ``pack``: an archive as Parquet."""

from __future__ import annotations

from collections.abc import Sequence

from beam_pipeline.commands.arguments import (
    BEAM_EPILOG,
    add_archive_and_target,
    command_parser,
    settle_target,
)
from beam_pipeline.console.parsing import OneLineParser


def parser() -> OneLineParser:
    """Returns the command's parser."""
    parser = command_parser(
        "pack",
        "Writes an archive as Parquet, one file per camera. backtest and other tools read it many "
        "times as fast as one JSON file per image.",
        BEAM_EPILOG,
    )
    add_archive_and_target(
        parser,
        "DIR",
        "the directory for the packed archive, on a local disk or in a store: one Parquet file per "
        "camera",
    )
    parser.add_argument(
        "--by_day",
        action="store_true",
        help="merge the files of an output in packed form (--repository packed) day by day, in "
        "place: give --output only",
    )
    return parser


def main(words: Sequence[str]) -> int:
    """Packs an archive; returns the exit code."""
    command = parser()
    parsed, beam_arguments = command.parse_known_args(words)
    if parsed.by_day:
        outputs = parsed.archive + parsed.outputs
        if len(outputs) != 1 or parsed.to or parsed.ids or parsed.since or parsed.until:
            command.error("--by_day merges all files of one output; give --output DIR only")
        from beam_pipeline.evaluation.pack import merge  # Beam takes seconds to import.

        return merge(command.prog, outputs[0], beam_arguments)
    settle_target(command, parsed)
    from beam_pipeline.evaluation.pack import pack

    return pack(parsed, beam_arguments)
