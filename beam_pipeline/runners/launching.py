"""Starts a pipeline, waits for it and stops it, for the job and for the commands."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, TextIO

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import (
    PipelineOptions,
    StandardOptions,
    WorkerOptions,
)
from apache_beam.runners.portability.flink_runner import FlinkJarJobServer, FlinkRunner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.job_server import JobServer, StopOnExitJobServer
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.portability.prism_runner import PrismJobServer, PrismRunner
from apache_beam.runners.runner import PipelineResult, PipelineRunner, PipelineState

from beam_pipeline.console import ending, failure_messages, notes
from beam_pipeline.console.exceptions import CommandFailedError, SetupError
from beam_pipeline.console.progress import Progress
from beam_pipeline.runners import dataflow
from beam_pipeline.runners.flink import (
    has_local_workers,
    is_flink,
    is_without_cluster,
    rest_address,
)
from beam_pipeline.runners.flink_job import FlinkJob
from transforms.records.text import one_line
from transforms.storage import stores

DIRECT_RUNNER = "DirectRunner"
PRISM_RUNNER = "PrismRunner"
SUCCESS_STATES = (None, PipelineState.DONE, PipelineState.DRAINED, PipelineState.UPDATED)
NOT_WAITED_FOR = "no longer waited for; the job itself continues"
_LOGGER = logging.getLogger(__name__)
_SECONDS_FOR_WRITES = 1.5
_BEAMS_READERS = re.compile(
    "read_grpc_client_inputs|read_state|run_worker_.*|wait_until_finish_read", re.DOTALL
)


def runner_name(options: PipelineOptions) -> str:
    """Returns the name of the runner that the options ask for."""
    return options.view_as(StandardOptions).runner or DIRECT_RUNNER


def is_direct(options: PipelineOptions) -> bool:
    """Returns whether the job runs in this process."""
    return runner_name(options) == DIRECT_RUNNER


def new_pipeline(options: PipelineOptions) -> beam.Pipeline:
    """Returns a pipeline for the runner that the options ask for.

    Raises:
      SetupError: Beam refuses the options.
    """
    try:
        return beam.Pipeline(runner=_runner_for(options), options=options)
    except ValueError as error:  # Beam's own check of its options.
        raise SetupError(one_line(error)) from None


class _JobServer(StopOnExitJobServer):  # type: ignore[misc]
    """Beam's job server, which leaves signals to :mod:`beam_pipeline.console.ending`."""

    def _sigint_handler(self, number: int, frame: FrameType | None) -> None:
        if callable(self._original_sigint_handler):
            self._original_sigint_handler(number, frame)


class _FlinkRunner(FlinkRunner):  # type: ignore[misc]
    def default_job_server(self, options: PipelineOptions) -> JobServer:
        server = super().default_job_server(options)
        if isinstance(server, StopOnExitJobServer):
            return _JobServer(FlinkJarJobServer(options))
        return server


_END_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class _PrismJobServer(PrismJobServer):  # type: ignore[misc]
    """Prism, which ends with this process, also if that is killed."""

    def subprocess_cmd_and_endpoint(self) -> tuple[list[Any], str]:
        command, endpoint = super().subprocess_cmd_and_endpoint()
        if sys.platform == "linux":
            command = [sys.executable, "-c", _END_WITH_PARENT, str(os.getpid()), *command]
        return command, endpoint


class _JobServiceHandle(JobServiceHandle):  # type: ignore[misc]
    """Asks for the state and the messages of a job for as long as it runs.

    Beam's own asks for them within `--job_server_timeout`, 300 s by default, and then fails the
    job. Beam's job server for Flink answers only what is asked later, without a limit.
    """

    def run(self, preparation_id: str) -> Any:
        self.timeout = None
        return super().run(preparation_id)


class _PrismRunner(PrismRunner):  # type: ignore[misc]
    def default_job_server(self, options: PipelineOptions) -> JobServer:
        return _JobServer(_PrismJobServer(options))

    def create_job_service_handle(
        self, job_service: Any, options: PipelineOptions
    ) -> JobServiceHandle:
        return _JobServiceHandle(job_service, options, retain_unknown_options=True)


def _runner_for(options: PipelineOptions) -> PipelineRunner | None:
    """Returns the runner to use where it is not the one that Beam finds by the name.

    Beam's own choice for DirectRunner is Prism first, for which it would download a program.
    """
    if is_flink(options):
        return _FlinkRunner()
    if runner_name(options) == PRISM_RUNNER:
        return _PrismRunner()
    if not is_direct(options):
        return None
    options.view_as(StandardOptions).runner = DIRECT_RUNNER
    return FnApiRunner()


def _ignore_closed_channels() -> None:
    """Shows no traceback of Beam's readers when their channel to the runner is closed.

    A worker in this process outlives a local job server by a moment. What its readers raise then is
    printed by Python. A channel that breaks during the job fails the job.
    """
    shown = threading.excepthook

    def hook(raised: threading.ExceptHookArgs) -> None:
        name = "" if raised.thread is None else raised.thread.name
        if not _BEAMS_READERS.fullmatch(name) or not isinstance(raised.exc_value, grpc.RpcError):
            shown(raised)

    threading.excepthook = hook


@contextmanager
def launched(
    pipeline: beam.Pipeline,
    *,
    failed: str = "the job failed",
    advice: str = failure_messages.RESUME_ADVICE,
) -> Iterator[PipelineResult]:
    """Starts a pipeline, and turns any failure during the block into one line.

    A signal during the block ends the process in order: files that are being written are completed.

    Args:
      pipeline: The pipeline. On DirectRunner, it has already finished when the block begins.
      failed: The beginning of the line about a failure.
      advice: What to do after a failure.

    Raises:
      SetupError: The runner rejects the pipeline.
      CommandFailedError: The pipeline failed.
    """
    options = pipeline.options
    _ignore_closed_channels()
    with ending.before_end(lambda: stores.finish_writes(_SECONDS_FOR_WRITES)):
        try:
            yield dataflow.submit(pipeline) if dataflow.is_dataflow(options) else pipeline.run()
        except (CommandFailedError, SetupError):
            raise
        except Exception as error:  # Runners let through whatever a step raises.
            _LOGGER.debug("as it was raised", exc_info=error)
            raise CommandFailedError(
                f"{failed}: {failure_messages.explain(error, advice)}"
            ) from None


def wait(
    result: PipelineResult, options: PipelineOptions, progress: TextIO | None = None
) -> str | None:
    """Waits for the end of a job; the state that it ended in.

    Args:
      result: That of a pipeline that was started.
      options: Beam's.
      progress: Where to show how far a job on a cluster is; None for nowhere.

    Raises:
      SetupError: A worker has found the set-up wrong.
      RuntimeError: The job failed.
    """
    if dataflow.is_dataflow(options):
        return dataflow.wait(result)
    if not is_flink(options) or is_without_cluster(options):
        return _wait(result)
    with _on_cluster(result, options, progress) as job:
        try:
            state = _wait(result)
        except RuntimeError as error:  # A cluster may fail a job instead of restarting it.
            if message := job.setup_error or failure_messages.setup_error(str(error)):
                raise SetupError(f"a worker: {message}") from None
            raise
    if job.setup_error is not None:
        raise SetupError(f"a worker: {job.setup_error}")
    return state


@contextmanager
def _on_cluster(
    result: PipelineResult, options: PipelineOptions, progress: TextIO | None
) -> Iterator[FlinkJob]:
    with ExitStack() as stack:
        job = FlinkJob(rest_address(options), result._job_id, progress=progress is not None)
        stack.enter_context(job)
        if has_local_workers(options):  # Without its workers it would be started again forever.
            stack.enter_context(ending.before_end(job.cancel))
        else:
            stack.enter_context(ending.last_line(NOT_WAITED_FOR))
        if progress is not None:
            stack.enter_context(Progress(progress, job.counts))
        yield job


def _wait(result: PipelineResult) -> str | None:
    try:
        state: str | None = result.wait_until_finish()
    except RuntimeError as error:
        # Beam's job server takes a job that somebody has cancelled in Flink for one that failed.
        if "JobCancellationException" not in str(error):
            raise
        return str(PipelineState.CANCELLED)
    return state


def show_log_lines(options: PipelineOptions) -> None:
    """Shows the log lines of Beam and its runner that `--default_sdk_harness_log_level` asks for.

    Without it they are not for a person: one line reports a failure. Of a job
    on Dataflow, whose workers nobody here sees, errors are shown in any case.
    """
    level: str | None = options.view_as(WorkerOptions).default_sdk_harness_log_level
    if level is None and dataflow.is_dataflow(options):
        level = "ERROR"
    if level is not None:
        notes.show_library_logs(level)
