"""The command `run`: prepares the job, runs it, draws the chart, writes the report, and says what
came of it."""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NoReturn

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import (
    GoogleCloudOptions,
    PipelineOptions,
    StandardOptions,
)
from apache_beam.runners.runner import PipelineState

from beam_pipeline import chart, dataflow
from beam_pipeline.errors import SetupError
from beam_pipeline.flink import (
    JAVA_OPTIONS,
    RUNNERS,
    check_flink,
    is_flink,
    is_here,
    joined,
    stream_arguments,
)
from beam_pipeline.job import Job, prepare
from beam_pipeline.options import JobOptions, OneLineParser, add_arguments
from beam_pipeline.pipeline import build_pipeline
from beam_pipeline.progress import Progress
from beam_pipeline.report import write_report
from beam_pipeline.summary import summarize
from transforms.counters import counted
from transforms.model_files import ModelError
from transforms.text import one_line

DIRECT_RUNNER = "DirectRunner"
_GOOD_ENDS = (None, PipelineState.DONE, PipelineState.DRAINED, PipelineState.UPDATED)


def run(options: JobOptions, beam_arguments: Sequence[str]) -> int:
    """Runs the job; 0 when it is done, 1 when it failed.

    Args:
      options: The job's own options.
      beam_arguments: The rest of the command line.

    Raises:
      SetupError: The set-up is wrong; no image was read.
    """
    logging.getLogger("apache_beam").setLevel(logging.WARNING)
    # It would warn of each option of Flink's own part; what nobody knows is refused below.
    logging.getLogger("apache_beam.options.pipeline_options").setLevel(logging.ERROR)
    pipeline_options = beam_options(beam_arguments, streaming=options.streaming)
    FileSystems.set_options(pipeline_options)
    on_dataflow = dataflow.is_dataflow(pipeline_options)
    if on_dataflow:
        dataflow.check_dataflow(pipeline_options, options)
    elif options.model_hints:
        raise SetupError(
            "--model_min_ram and --model_accelerator tell Dataflow what its workers need; leave "
            f"them out on {runner_name(pipeline_options)}"
        )
    if is_flink(pipeline_options):
        check_flink(pipeline_options)
    job = prepare(options, sends_here=_is_direct(pipeline_options) or is_here(pipeline_options))
    started = time.monotonic()
    try:
        pipeline = beam.Pipeline(runner=runner_for(pipeline_options), options=pipeline_options)
    except ValueError as error:  # Beam's own check of its options.
        raise SetupError(one_line(error)) from None
    build_pipeline(pipeline, job)
    if _is_direct(pipeline_options):
        signal.signal(signal.SIGINT, _stop)
        # It would log with a traceback what is raised here and told below.
        logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)
    with Progress(sys.stderr) if _is_direct(pipeline_options) else nullcontext():
        try:
            result = dataflow.submit(pipeline) if on_dataflow else pipeline.run()
        except (OSError, ModelError) as error:  # A store or the model was lost in mid-run.
            print(_failed(error), file=sys.stderr)
            return 1
        if on_dataflow:
            print(dataflow.told(pipeline_options, result), flush=True)
            if not dataflow.is_waited_for(pipeline_options):
                return 0
        if options.streaming:
            print(f"watching {job.input}, writing to {job.output}", flush=True)
        try:
            state = dataflow.wait(result) if on_dataflow else result.wait_until_finish()
        except RuntimeError as error:  # Of Beam's portable runners, with all that Java has said.
            state = result.state
            print(f"the job failed: {one_line(error)}", file=sys.stderr)
        except KeyboardInterrupt:
            if not on_dataflow:
                raise
            print("\nnot waited for any longer; the job itself goes on", file=sys.stderr)
            return 130
    if state not in _GOOD_ENDS:
        print(f"the job ended as {state}; see the runner's log", file=sys.stderr)
        return 1
    seconds = time.monotonic() - started
    picture = chart.write_chart(job.output, options.chart_period_hours, missing_ok=True)
    print(summarize(job, counted(result), seconds, picture, _write_report(job)))
    return 0


def _write_report(job: Job) -> str:
    """Where the report is, or why there is none: what is for people must not fail a job."""
    try:
        return write_report(
            [job.output],
            period_hours=job.options.chart_period_hours,
            by=job.rules.now,
            missing_ok=True,
            each_picture=False,  # Those of two weeks may be many more than this job's.
        )
    except Exception as error:
        return f"not written ({one_line(error)}); the command report writes it"


def _failed(error: Exception) -> str:
    what = str(error).split(" [while running", 1)[0]  # Beam adds the step and a traceback.
    return f"the job failed: {what}; once that is mended, the same command with --resume goes on"


def _stop(*_: object) -> NoReturn:
    """Ends at once: what is written is whole, and `--resume` finds it, as after any crash."""
    print("\nstopped; the same command with --resume goes on", file=sys.stderr, flush=True)
    os._exit(130)


def beam_options(arguments: Sequence[str], *, streaming: bool = False) -> PipelineOptions:
    """Beam's options; one that neither Beam nor the job knows is refused.

    Args:
      arguments: The command line without the job's own options.
      streaming: Whether the job is a stream.

    Raises:
      SetupError: With the nearest option that exists, or where the runner has no streams.
    """
    arguments = [*joined(dataflow.spelled(arguments)), *(["--streaming"] if streaming else [])]
    parser = OneLineParser(prog="python -m beam_pipeline", add_help=False, allow_abbrev=False)
    for group in _subclasses(PipelineOptions):
        try:
            group._add_argparse_args(parser)
        except argparse.ArgumentError:
            pass  # Another group has the option already.
    options = PipelineOptions(arguments)
    if runner_name(options) in RUNNERS:
        for name in {f"--{one}" for one in JAVA_OPTIONS} - parser._option_string_actions.keys():
            parser.add_argument(name, nargs="?")
    _, unknown = parser.parse_known_args(arguments)
    if unknown:
        own = argparse.ArgumentParser(add_help=False)
        add_arguments(own)
        exist = [option for one in (own, parser) for option in one._option_string_actions]
        near = difflib.get_close_matches(unknown[0].split("=")[0], exist, n=1)
        hint = f"; did you mean {near[0]}?" if near else "; see --help"
        fault = f"no such option: {unknown[0]}{hint}"
        if not options.view_as(GoogleCloudOptions).template_location:
            raise SetupError(fault)
        # A Flex Template's launcher adds options of its own, and Dataflow has checked the user's.
        print(f"passed over: {fault}", file=sys.stderr)
    _check_runner(runner_name(options))
    if streaming and _is_direct(options):
        raise SetupError(
            "--streaming: DirectRunner can't fire event-time windows of a stream; give "
            "--runner FlinkRunner (--flink_master '[local]' needs no cluster), or leave "
            "--streaming out to judge the pictures that are there now"
        )
    if streaming and is_flink(options):
        return PipelineOptions([*arguments, *stream_arguments(arguments)])
    return options


def _subclasses(of: type[PipelineOptions]) -> list[type[PipelineOptions]]:
    children: list[type[PipelineOptions]] = of.__subclasses__()
    return [one for child in children for one in (child, *_subclasses(child))]


def runner_name(options: PipelineOptions) -> str:
    """The name of the runner that the options ask for."""
    return options.view_as(StandardOptions).runner or DIRECT_RUNNER


def _check_runner(name: str) -> None:
    names = StandardOptions.KNOWN_RUNNER_NAMES
    if "." in name or name.lower() in map(str.lower, names):
        return
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
    raise SetupError(f"--runner {name}: no such runner; {hint}")


def _is_direct(options: PipelineOptions) -> bool:
    return runner_name(options) == DIRECT_RUNNER


def runner_for(options: PipelineOptions) -> beam.runners.runner.PipelineRunner | None:
    """The runner of this process for DirectRunner; None for one that Beam finds by its name.

    Beam's own choice under that name is Prism first, for which it would download a program.
    """
    if not _is_direct(options):
        return None
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    options.view_as(StandardOptions).runner = DIRECT_RUNNER
    return FnApiRunner()
