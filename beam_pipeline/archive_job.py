"""What the commands on archives share: their options, and running a pipeline over cameras.

Apache Beam is imported only where it is used, so that ``--help`` is quick.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from beam_pipeline.counts import CountsError, parse_time
from beam_pipeline.errors import SetupError
from transforms.text import printable
from transforms.times import canonical_time

if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.runner import PipelineResult

    from transforms.archive import Archive, Problem

_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say which pictures of which archive."""
    parser.add_argument(
        "--archive",
        action="append",
        required=True,
        metavar="DIR",
        help="the --output of a job, or what `pack` has written, here or in a store; may be given "
        "again: several are read as one",
    )
    parser.add_argument(
        "--id",
        action="append",
        dest="ids",
        metavar="ID",
        help="only this camera; may be given again for more",
    )
    parser.add_argument(
        "--since",
        metavar="TIME",
        help="only pictures from this moment on, such as 2026-01-31T00:00:00Z",
    )
    parser.add_argument("--until", metavar="TIME", help="only pictures before this moment")


@dataclass(frozen=True)
class Selection:
    """Which pictures of which archive.

    Attributes:
      archive: Where they are.
      ids: The cameras, sorted.
      by_id: Whether they were asked for by their ids.
      since: The first moment; None for all.
      until: The first moment that is not asked for any more.
    """

    archive: Archive
    ids: tuple[str, ...]
    by_id: bool
    since: datetime | None
    until: datetime | None


def select(parsed: argparse.Namespace) -> Selection:
    """Opens the archive that the options name (see :func:`add_arguments`).

    Raises:
      SetupError: There is none, or nothing of it is asked for.
    """
    since, until = (
        _moment(option, text)
        for option, text in (("--since", parsed.since), ("--until", parsed.until))
    )
    if since is not None and until is not None and since >= until:
        raise SetupError(
            f"the period is empty: it begins {canonical_time(since)} and ends "
            f"{canonical_time(until)}"
        )
    from beam_pipeline.preflight import check_readable
    from transforms.archive import ArchiveError, open_archive

    uris = [absolute("--archive", uri) for uri in parsed.archive]
    for uri in uris:
        check_readable("--archive", uri)
    try:
        archive = open_archive(*uris)
    except ArchiveError as error:
        raise SetupError(f"--archive {error}") from None
    for id in parsed.ids or ():
        if id not in archive.ids:
            raise SetupError(
                f"--id {id}: no such camera in the archive; there are {listed(archive.ids)}"
            )
    ids = tuple(sorted(set(parsed.ids))) if parsed.ids else archive.ids
    return Selection(archive, ids, bool(parsed.ids), since, until)


def absolute(option: str, uri: str) -> str:
    """An address that workers see as this process does.

    Raises:
      SetupError: It is empty.
    """
    from transforms.stores import is_local

    uri = uri.removeprefix("file://")
    if not uri:
        raise SetupError(f"{option} is empty; give a folder")
    return os.path.abspath(uri) if is_local(uri) else uri.rstrip("/")


def writable_file(option: str, uri: str) -> str:
    """The absolute address of a file that can be written, as far as can be told before.

    Raises:
      SetupError: It can't be.
    """
    from beam_pipeline.preflight import check_writable
    from transforms.stores import is_local

    file = absolute(option, uri)
    folder = file.rpartition("/")[0]
    check_writable(option, folder)
    if is_local(file):
        if os.path.isdir(file):
            raise SetupError(f"{option} {file}: is a folder; give the name of a file")
        writable_folder(option, folder)
    return file


def writable_folder(option: str, folder: str) -> None:
    """Makes sure that there is a folder of this machine, and that files can be made in it.

    Raises:
      SetupError: They can't be.
    """
    try:
        os.makedirs(folder or "/", exist_ok=True)
        tempfile.TemporaryFile(dir=folder or "/").close()
    except OSError as error:
        raise SetupError(
            f"{option} {folder}: can't be written ({error.strerror}); choose another"
        ) from None


def _moment(option: str, text: str | None) -> datetime | None:
    try:
        return None if text is None else parse_time(text)
    except CountsError as error:
        raise SetupError(f"{option}: {error}") from None


def listed(names: Sequence[str]) -> str:
    """Names for a message; of many, the first."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def tell_problems(problems: Iterable[Problem], where_all_are: str) -> None:
    """Says on standard error what could not be read."""
    told = list(problems)
    if not told:
        return
    print(f"problems with the archive, passed over: {len(told)}", file=sys.stderr)
    for uri, why in told[:_SHOWN]:
        print(f"  {printable(uri)}: {printable(why)}", file=sys.stderr)
    if len(told) > _SHOWN:
        print(f"  and {len(told) - _SHOWN} more; {where_all_are}", file=sys.stderr)


def pipeline_options(
    beam_arguments: Sequence[str], paths: Iterable[tuple[str, str]]
) -> PipelineOptions:
    """Beam's options, looked at and made those of this process.

    Args:
      beam_arguments: The command line without the command's own options.
      paths: What workers must be able to see: the option that gives it, without dashes, and it.

    Raises:
      SetupError: An option is wrong, or missing for the runner.
    """
    from apache_beam.io.filesystems import FileSystems

    from beam_pipeline import dataflow
    from beam_pipeline.flink import check_flink, is_flink
    from beam_pipeline.run import beam_options

    _quiet()
    options = beam_options(beam_arguments)
    FileSystems.set_options(options)
    if dataflow.is_dataflow(options):
        dataflow.check_account(options)
        for option, path in paths:
            dataflow.check_visible({option: path})
    if is_flink(options):
        check_flink(options)
    return options


def _quiet() -> None:
    import logging

    logging.getLogger("apache_beam").setLevel(logging.WARNING)
    logging.getLogger("apache_beam.options.pipeline_options").setLevel(logging.ERROR)
    # What is raised there is told in one line.
    logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)


@contextmanager
def result_file(options: PipelineOptions) -> Iterator[str]:
    """Where workers leave what came of the pipeline for this process; removed in the end.

    Raises:
      SetupError: There is no place that both can see.
    """
    from apache_beam.options.pipeline_options import GoogleCloudOptions

    from beam_pipeline.run import DIRECT_RUNNER, runner_name
    from transforms import stores

    place = options.view_as(GoogleCloudOptions).temp_location
    if place is None:
        if (runner := runner_name(options)) != DIRECT_RUNNER:
            raise SetupError(
                f"--runner {runner}: give --temp_location, a folder that its workers and this "
                "machine can both reach, for the result"
            )
        with tempfile.TemporaryDirectory(prefix="beam-pipeline-") as scratch:
            yield stores.join(scratch, "result.json")
        return
    uri = stores.join(place, f"result-{uuid.uuid4().hex}.json")
    try:
        yield uri
    finally:
        stores.delete(uri)


class CommandFailed(Exception):
    """The work was begun and did not come to its end: one line that says why. Exit code 1."""


@contextmanager
def failing() -> Iterator[None]:
    """Makes a store that fails in mid-work the end of the command.

    Raises:
      CommandFailed: In place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise CommandFailed(f"failed: {error}") from None


def run(build: Callable[[beam.Pipeline], object], options: PipelineOptions) -> PipelineResult:
    """Runs a pipeline to its end.

    Args:
      build: Adds the steps.
      options: Beam's.

    Raises:
      SetupError: The runner does not take it.
      CommandFailed: It failed.
    """
    import apache_beam as beam
    from apache_beam.runners.runner import PipelineState

    from beam_pipeline import dataflow
    from beam_pipeline.run import runner_for
    from transforms.text import one_line

    try:
        pipeline = beam.Pipeline(runner=runner_for(options), options=options)
    except ValueError as error:  # Beam's own check of its options.
        raise SetupError(one_line(error)) from None
    build(pipeline)
    on_dataflow = dataflow.is_dataflow(options)
    with _interruptible():
        try:
            result = dataflow.submit(pipeline) if on_dataflow else pipeline.run()
            state = dataflow.wait(result) if on_dataflow else result.wait_until_finish()
        except (OSError, RuntimeError) as error:
            what = str(error).split(" [while running", 1)[0]
            raise CommandFailed(f"failed: {' '.join(what.split())[:500]}") from None
    if state not in (None, PipelineState.DONE):
        raise CommandFailed(f"ended as {state}; see the runner's log")
    return result


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends at once: the runner's threads would go on to the end of their bundle."""

    def stop(*_: object) -> None:
        print("\nstopped", file=sys.stderr, flush=True)
        os._exit(130)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
