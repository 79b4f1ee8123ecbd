"""Runs a pipeline over the cameras of an archive, for the commands that judge archives again."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from apache_beam.runners.runner import PipelineResult

from beam_pipeline.console.exceptions import CommandFailedError, SetupError
from beam_pipeline.inputs.selection import RESTART_ADVICE
from beam_pipeline.runners import dataflow, launching
from beam_pipeline.runners.beam_options import beam_options
from beam_pipeline.runners.flink import check_flink, check_job_endpoint, is_flink
from transforms.storage import stores


def pipeline_options(
    beam_arguments: Sequence[str], paths: Iterable[tuple[str, str]]
) -> PipelineOptions:
    """Returns Beam's options, checked and made those of this process.

    Args:
      beam_arguments: The command line without the command's own options.
      paths: What workers must be able to see: the option that gives it, without dashes, and it.

    Raises:
      SetupError: An option is wrong, or missing for the runner.
    """
    options = beam_options(beam_arguments)
    launching.show_log_lines(options)
    FileSystems.set_options(options)
    if dataflow.is_dataflow(options):
        dataflow.check_account(options)
        for option, path in paths:
            dataflow.check_visible({option: path})
    check_job_endpoint(options)
    if is_flink(options):
        check_flink(options)
    return options


@contextmanager
def result_file(options: PipelineOptions) -> Iterator[str]:
    """Yields the address where workers leave the result, and removes the file at the end.

    Raises:
      SetupError: There is no place that both can see.
    """
    folder = options.view_as(GoogleCloudOptions).temp_location
    if folder is None:
        if (runner := launching.runner_name(options)) != launching.DIRECT_RUNNER:
            raise SetupError(
                f"--runner {runner}: give --temp_location, a folder that its workers and this "
                "machine can both reach, for the result"
            )
        with tempfile.TemporaryDirectory(prefix="beam-pipeline-") as scratch:
            yield stores.join(scratch, "result.json")
        return
    uri = stores.join(folder, f"result-{uuid.uuid4().hex}.json")
    try:
        yield uri
    finally:
        stores.delete(uri)


def run(build: Callable[[beam.Pipeline], object], options: PipelineOptions) -> PipelineResult:
    """Runs a pipeline to its end.

    Args:
      build: Adds the steps.
      options: Beam's.

    Raises:
      SetupError: The runner does not take it.
      CommandFailedError: It failed.
    """
    pipeline = launching.new_pipeline(options)
    build(pipeline)
    with launching.launched(pipeline, failed="failed", advice=RESTART_ADVICE) as result:
        state = launching.wait(result, options)
    if state not in launching.SUCCESS_STATES:
        raise CommandFailedError(f"ended as {state}; see the runner's log")
    return result
