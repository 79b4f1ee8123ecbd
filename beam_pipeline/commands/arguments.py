"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import timedelta

from beam_pipeline.console.parsing import OneLineParser, add_labels

BEAM_EPILOG = (
    "Every option of Apache Beam is accepted too: --runner, --direct_num_workers, --temp_location "
    "and so on."
)
STORES_EPILOG = (
    "Beam's options for S3 and Google Cloud are accepted too: --s3_endpoint_url, "
    "--s3_region_name, --no_auth and so on."
)


def command_parser(
    command: str, description: str | None = None, epilog: str | None = STORES_EPILOG
) -> OneLineParser:
    """Returns the parser of a command, without its arguments.

    Args:
      command: Its name.
      description: What it does.
      epilog: Which other options it takes.
    """
    return OneLineParser(
        prog=f"python -m beam_pipeline {command}",
        description=description,
        epilog=epilog,
        allow_abbrev=False,
    )


def parse(parser: OneLineParser, words: Sequence[str]) -> argparse.Namespace:
    """Returns a command's own arguments; Beam's options for S3 and Google Cloud are taken beside
    them.
    """
    parsed, rest = parser.parse_known_args(words)
    if rest:
        # Beam takes a second to import, and few calls give one of its options.
        from beam_pipeline.inputs.store_options import take_store_options

        take_store_options(parser.prog, rest)
    return parsed


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Adds ``--output`` as it is for commands that read what one run or several have written."""
    parser.add_argument(
        "--output",
        action="append",
        dest="outputs",
        metavar="DIR",
        help="the job's output directory, on a local disk or in a store, or a quoted glob; may be "
        "given several times: the rows of one camera and window are added up (default: output)",
    )


def add_period(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say which windows."""
    parser.add_argument(
        "--since",
        metavar="TIME",
        help="only windows that begin at or after this time, such as 2026-01-31T00:00:00Z",
    )
    parser.add_argument("--until", metavar="TIME", help="only windows that begin before this time")


def add_ids(parser: argparse.ArgumentParser) -> None:
    """Adds ``--id``."""
    parser.add_argument(
        "--id",
        action="append",
        dest="ids",
        metavar="ID",
        help="only this camera; may be given several times",
    )


def add_archive(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say which images of which archive."""
    parser.add_argument(
        "--archive",
        action="append",
        required=True,
        metavar="DIR",
        help="the --output of a job or of `pack`, on a local disk or in a store; may be given "
        "several times: the archives are read as one",
    )
    add_ids(parser)
    parser.add_argument(
        "--since",
        metavar="TIME",
        help="only images from this time on, such as 2026-01-31T00:00:00Z",
    )
    parser.add_argument("--until", metavar="TIME", help="only images before this time")


def add_table_or_json(parser: argparse.ArgumentParser) -> None:
    """Adds the option that says how a result is printed."""
    parser.add_argument(
        "--format",
        choices=("table", "json"),
        default="table",
        help="table for people, json for programs (default: %(default)s)",
    )


def add_truth(parser: argparse.ArgumentParser) -> None:
    """Adds the options of an archive and of what is known to be in its images."""
    add_archive(parser)
    parser.add_argument(
        "--truth",
        metavar="FILE",
        help="the truth file: a CSV with the columns file, main_class and count, or boxes in "
        "COCO's JSON; or marks, for what operators have said with `alerts mark` (default: marks)",
    )
    add_labels(parser)
    parser.add_argument(
        "--incident_gap",
        type=_duration,
        default="5m",
        metavar="TIME",
        help="the maximum time between two consecutive threat images of one incident: a whole "
        "number and s, m, h or d (default: %(default)s)",
    )


def _duration(text: str) -> timedelta:
    # The rules take half a second to import, and --help does without.
    from rules.schedule import UnreadableError, parse_duration

    try:
        return parse_duration(text)
    except UnreadableError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
