"""The command ``pack``: an archive as Parquet."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.inputs import paths, selection
from beam_pipeline.inputs.preflight import check_writable
from beam_pipeline.runners import archive_job
from transforms.pack import Pack, read_problems
from transforms.runtime.counters import counted
from transforms.storage import stores
from transforms.storage.packed import ENDING


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
    print(f"{images:,} images of {len(chosen.ids):,} cameras packed into {packed}")
    return 0
