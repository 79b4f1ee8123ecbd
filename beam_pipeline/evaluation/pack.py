"""The command ``pack``: an archive as Parquet."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from beam_pipeline import archive_job
from beam_pipeline.errors import SetupError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    archive_job.add_arguments(parser)
    parser.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="where the packed archive goes, here or in a store: a Parquet file a camera",
    )


def main(parsed: argparse.Namespace, beam_arguments: Sequence[str]) -> int:
    """Packs an archive.

    Raises:
      SetupError: What is wrong, where, and what to do.
      CommandFailed: The pipeline failed.
    """
    options = archive_job.pipeline_options(
        beam_arguments,
        [*(("archive", uri) for uri in parsed.archive), ("output", parsed.output)],
    )
    from beam_pipeline.preflight import check_writable
    from transforms import stores
    from transforms.counters import counted
    from transforms.pack import Pack, read_problems
    from transforms.packed import ENDING

    chosen = archive_job.select(parsed)
    packed = archive_job.absolute("--output", parsed.output)
    if packed in chosen.archive.uris:
        raise SetupError(f"--output {packed}: is the archive itself; choose another folder")
    if stores.is_local(packed):
        archive_job.writable_folder("--output", packed)
    check_writable("--output", packed)
    if any(one.path.endswith(ENDING) for one in stores.list_beneath(packed)):
        raise SetupError(
            f"--output {packed}: holds a packed archive already; choose another folder for each, "
            "as several are read together"
        )
    result = archive_job.run(
        lambda pipeline: (
            pipeline
            | "Pack"
            >> Pack(
                chosen.archive,
                packed,
                ids=chosen.ids,
                since=chosen.since,
                until=chosen.until,
            )
        ),
        options,
    )
    problems = read_problems(packed)
    archive_job.tell_problems(problems, f"all are in {packed}/problems.jsonl")
    images = counted(result)["images.packed"]
    print(f"{images:,} pictures of {len(chosen.ids):,} cameras packed into {packed}")
    return 0
