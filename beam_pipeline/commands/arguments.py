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


_ARCHIVE = (
    "the --output of a job, or the --to of `pack`, on a local disk or in a store; may be given "
    "several times: the archives are read as one"
)


def parse(
    parser: OneLineParser, words: Sequence[str], last: str | None = None
) -> argparse.Namespace:
    """Returns a command's own arguments; Beam's options for S3 and Google Cloud are taken beside
    them.

    Args:
      parser: The command's parser.
      words: The command line after the name of the command.
      last: The name of an optional argument. Options may stand between it and the argument before
        it, which `argparse` does not know by itself.
    """
    parsed, rest = parser.parse_known_args(words)
    if rest:
        # Beam takes a second to import, and few calls give one of its options.
        from beam_pipeline.inputs.store_options import take_store_options

        command = " ".join([parser.prog, *filter(None, [getattr(parsed, "command", None)])])
        may_follow = last is not None and getattr(parsed, last, "") is None
        argument = take_store_options(command, rest, last if may_follow else None)
        if last is not None and argument is not None:
            setattr(parsed, last, argument)
    return parsed


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Adds ``--output`` as it is for commands that read what one run or several have written."""
    parser.add_argument(
        "--output",
        "--archive",
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
        "--output",
        "--archive",
        action="append",
        dest="archive",
        required=True,
        metavar="DIR",
        help=_ARCHIVE,
    )
    _add_images(parser)


def add_archive_and_target(parser: argparse.ArgumentParser, metavar: str, target: str) -> None:
    """Adds the options that say which images of which archive, and what is written of them.

    In earlier releases, ``--output`` was what is written, beside ``--archive``. It still is where
    there is no ``--to``.

    Args:
      parser: The parser of a command; `settle_target` completes what it has parsed.
      metavar: What is written, for the help.
      target: The help of ``--to``.
    """
    parser.add_argument(
        "--output", action="append", dest="outputs", default=[], metavar="DIR", help=_ARCHIVE
    )
    parser.add_argument("--to", metavar=metavar, help=target)
    parser.add_argument(
        "--archive",
        action="append",
        default=[],
        metavar="DIR",
        help="the same as --output; without --to, --output is then what is written",
    )
    _add_images(parser)


def settle_target(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> None:
    """Sets `archive` and `to`, in the form of this release or in that of earlier ones."""
    if parsed.to is None and parsed.archive and len(parsed.outputs) == 1:
        (parsed.to,) = parsed.outputs
    else:
        parsed.archive += parsed.outputs
    if not parsed.archive:
        parser.error("give the job's output by --output DIR")
    if parsed.to is None:
        parser.error("say by --to what is to be written")


def _add_images(parser: argparse.ArgumentParser) -> None:
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
