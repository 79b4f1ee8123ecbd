"""The command ``pack``: an archive as Parquet."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.inputs import paths, selection
from beam_pipeline.inputs.preflight import check_readable, check_writable
from beam_pipeline.inputs.store_options import take_store_options
from beam_pipeline.runners import archive_job
from rules.text import number_of
from transforms.pack import Pack, read_problems
from transforms.runtime.counters import counted
from transforms.storage import stores
from transforms.storage.packed import ENDING
from transforms.storage.packed_output import is_packed, merge_by_day


def pack(parsed: argparse.Namespace, beam_arguments: Sequence[str]) -> int:
    """Packs an archive.

    Raises:
      SetupError: What is wrong, where, and what to do.
      CommandFailedError: The pipeline failed.
    """
    options = archive_job.pipeline_options(
        beam_arguments,
        [*(("output", uri) for uri in parsed.archive), ("to", parsed.to)],
    )
    chosen = selection.select(parsed)
    packed = paths.absolute("--to", parsed.to)
    if packed in chosen.archive.uris:
        raise SetupError(f"--to {packed}: is the archive itself; choose another folder")
    if stores.is_local(packed):
        paths.writable_folder("--to", packed)
    check_writable("--to", packed)
    if any(file.path.endswith(ENDING) for file in stores.list_beneath(packed)):
        raise SetupError(
            f"--to {packed}: holds a packed archive already; choose another folder for each, "
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
    selection.print_problems(problems, f"all are in {packed}/problems.jsonl")
    images = counted(result)["images.packed"]
    cameras = number_of(len(chosen.ids), "camera")
    print(f"{number_of(images, 'image')} of {cameras} packed into {packed}")
    return 0


def merge(prog: str, output: str, store_arguments: Sequence[str]) -> int:
    """Merges the files of a packed output day by day; returns the exit code.

    Args:
      prog: The command, for messages.
      output: The job's output.
      store_arguments: Beam's options for stores.

    Raises:
      SetupError: What is wrong, where, and what to do; nothing was written.
      CommandFailedError: The store failed; what was merged before stays merged.
    """
    if store_arguments:
        take_store_options(prog, store_arguments)
    output = paths.absolute("--output", output)
    check_readable("--output", output)
    with selection.store_errors_as_failures():
        if not is_packed(output):
            raise SetupError(
                f"--output {output}: has no packed/; give the --output of a job with --repository "
                "packed"
            )
        check_writable("--output", output)
        merged = merge_by_day(output)
    folder = stores.packed_folder(output)
    selection.print_problems(merged.problems, f"they stay in {folder}")
    print(f"{folder} had {number_of(merged.files, 'file')}, and has {merged.left:,} now")
    return int(bool(merged.problems))
