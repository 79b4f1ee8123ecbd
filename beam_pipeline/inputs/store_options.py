"""Beam's options for stores, beside a command's own."""

from __future__ import annotations

from collections.abc import Sequence

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, S3Options

from beam_pipeline.console.parsing import OneLineParser


def take_store_options(
    command: str, words: Sequence[str], argument: str | None = None
) -> str | None:
    """Makes options for S3 and Google Cloud those of this process; any other ends the command.

    Args:
      command: What the line of a wrong option begins with.
      words: The command line without the command's own options.
      argument: The name of an argument that may be among them; None if none may.

    Returns:
      The argument; None if it is not there.
    """
    parser = OneLineParser(prog=command, add_help=False, allow_abbrev=False)
    for group in (S3Options, GoogleCloudOptions):
        group._add_argparse_args(parser)
    if argument is not None:
        parser.add_argument(argument, nargs="?")
    parsed = parser.parse_args(words)
    FileSystems.set_options(PipelineOptions(words))
    return None if argument is None else getattr(parsed, argument)
