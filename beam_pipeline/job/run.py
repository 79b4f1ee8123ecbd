"""The command `run`: prepares the job, runs it, draws the chart, writes the report, and says what
came of it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineState

from beam_pipeline.bundled import BUNDLED
from beam_pipeline.console import ending, failure_messages
from beam_pipeline.console.exceptions import CommandFailedError, SetupError
from beam_pipeline.console.progress import Progress
from beam_pipeline.fleet import chart
from beam_pipeline.fleet.output_scan import OutputScan
from beam_pipeline.job.collector import objects_kept
from beam_pipeline.job.daily_pruning import pruned_daily
from beam_pipeline.job.name_notes import schedules_in_utc
from beam_pipeline.job.options import JobOptions, option_names
from beam_pipeline.job.output_watch import OutputLostError, OutputWatch
from beam_pipeline.job.pipeline import build_pipeline
from beam_pipeline.job.preparation import Job, prepare
from beam_pipeline.job.regular_reports import reported_regularly
from beam_pipeline.job.summary import summarize
from beam_pipeline.pages.report import write_report
from beam_pipeline.pages.report.gathering import ReportOptions
from beam_pipeline.runners import dataflow, launching
from beam_pipeline.runners.beam_options import beam_options
from beam_pipeline.runners.flink import (
    check_concurrent_checkpoints,
    check_flink,
    check_job_endpoint,
    has_local_workers,
    is_flink,
    is_without_cluster,
    shared_paths,
)
from beam_pipeline.runners.prism import is_prism
from transforms.models.model_files import NAMED_MODELS
from transforms.records.text import one_line
from transforms.runtime.counters import counted

_STOPPED_BEFORE_IMAGES = "stopped before an image was read"
_GO_ON_ADVICE = "run the same command to go on"


def run(options: JobOptions, beam_arguments: Sequence[str]) -> int:
    """Runs the job; 0 when it is done, 1 when it failed.

    Args:
      options: The job's own options.
      beam_arguments: The rest of the command line.

    Raises:
      SetupError: The set-up is wrong; no image was read.
    """
    pipeline_options = beam_options(beam_arguments, streaming=options.streaming, own=option_names())
    launching.show_log_lines(pipeline_options)
    FileSystems.set_options(pipeline_options)
    on_dataflow = dataflow.is_dataflow(pipeline_options)
    if on_dataflow:
        dataflow.check_dataflow(
            pipeline_options, _paths_of_workers(options), has_hints=bool(options.model_hints)
        )
    elif options.model_hints:
        raise SetupError(
            "--model_min_ram and --model_accelerator tell Dataflow what its workers need; leave "
            f"them out on {launching.runner_name(pipeline_options)}"
        )
    if options.notifications is not None and is_flink(pipeline_options):
        check_concurrent_checkpoints(pipeline_options)
    here = launching.is_direct(pipeline_options) or is_prism(pipeline_options)
    options = _resuming_on_prism(options, pipeline_options)
    with ending.last_line(_STOPPED_BEFORE_IMAGES), objects_kept():
        job = prepare(options, sends_here=here or has_local_workers(pipeline_options))
        check_job_endpoint(pipeline_options)
        if is_flink(pipeline_options):
            check_flink(pipeline_options)
    _print_notes(job, pipeline_options)
    goes_on = options.streaming and is_prism(pipeline_options)
    advice = _GO_ON_ADVICE if goes_on else failure_messages.RESUME_ADVICE
    stopped = ending.last_line(f"stopped; {advice}")
    try:
        with stopped, OutputWatch(job.output, _end_job_without_output) as watch:
            return _run(job, pipeline_options, watch, advice)
    except CommandFailedError as error:
        print(error, file=sys.stderr)
    except OSError as error:
        print(f"the job failed: {failure_messages.explain(error, advice)}", file=sys.stderr)
    return 1


def _print_notes(job: Job, pipeline_options: PipelineOptions) -> None:
    """Prints what is allowed, and may not be what is meant."""
    paths = {"input": job.input, "output": job.output}
    if job.detections is not None:
        paths["detections"] = job.detections.source
    elif job.options.model not in (None, BUNDLED):
        paths["model"] = job.model.source
    for note in (shared_paths(pipeline_options, paths), schedules_in_utc(job)):
        if note:
            print(note, file=sys.stderr)


def _resuming_on_prism(options: JobOptions, pipeline_options: PipelineOptions) -> JobOptions:
    """Returns the options; a stream on Prism has nothing but its output after a restart."""
    if options.streaming and is_prism(pipeline_options):
        return replace(options, resume=True)
    return options


def _paths_of_workers(options: JobOptions) -> dict[str, str]:
    """Returns what workers read and write, by the options that give it."""
    paths = {"input": options.input or "", "output": options.output}
    if options.model not in (None, BUNDLED) and options.model not in NAMED_MODELS:
        paths["model"] = options.model
    if options.detections is not None:
        paths["detections"] = options.detections
    if options.streaming and options.rules is not None:
        paths["rules"] = options.rules
    if options.streaming and options.shadow_rules is not None:
        paths["shadow_rules"] = options.shadow_rules
    return paths


def _run(job: Job, options: PipelineOptions, watch: OutputWatch, advice: str) -> int:
    """Runs the pipeline, prints its result, and returns the exit code.

    Raises:
      SetupError: The runner does not take it.
      CommandFailedError: It failed.
    """
    started = time.monotonic()
    if not job.options.streaming:
        # While the model is loaded, which does not use all processors.
        threading.Thread(target=_load_for_pages, name="pages", daemon=True).start()
    pipeline = launching.new_pipeline(options)
    build_pipeline(pipeline, job)
    with (
        _progress_here(job, options),
        launching.launched(pipeline, advice=advice) as result,
    ):
        on_dataflow = dataflow.is_dataflow(options)
        if on_dataflow:
            print(dataflow.describe_result(options, result), flush=True)
            if not dataflow.has_job_to_wait_for(options):
                return 0
        if job.options.streaming:
            print(f"watching {job.input}, writing to {job.output}", flush=True)
        leaving = ending.last_line(launching.NOT_WAITED_FOR) if on_dataflow else nullcontext()
        batch = not job.options.streaming
        beside = nullcontext() if batch else _beside_a_stream(job)
        shadow = nullcontext() if job.shadow is None else job.shadow.followed()
        with leaving, job.rules.followed(), shadow, beside:
            state = launching.wait(result, options, sys.stderr if batch else None)
        watch.check()
    cancelled = state == PipelineState.CANCELLED and is_flink(options)
    if cancelled:
        print(f"the job was cancelled; {failure_messages.RESUME_ADVICE}", file=sys.stderr)
    elif state not in launching.SUCCESS_STATES:
        raise CommandFailedError(f"the job ended as {state}; see the runner's log")
    seconds = time.monotonic() - started
    chart_path, report_path = _write_pages(job)
    watch.check()
    counts = counted(result)
    print(summarize(job, counts, seconds, chart_path, report_path))
    if counts["source.unlistable"] and not job.options.streaming:
        raise CommandFailedError(
            f"some folders in --input {job.input} can't be listed, and what is in them was not "
            "judged; let this user read and enter them, and run the same command with --resume"
        )
    # A stream has no end of its own: to cancel it is one of the ways to end it.
    return 1 if cancelled and not job.options.streaming else 0


@contextmanager
def _beside_a_stream(job: Job) -> Iterator[None]:
    """Prunes the output and writes the report while a stream runs."""
    with (
        pruned_daily(job.output, job.rules),
        reported_regularly(
            job.output,
            job.rules,
            period_hours=job.options.chart_period_hours,
            seconds_between=job.options.report_every_seconds,
        ),
    ):
        yield


def _progress_here(job: Job, options: PipelineOptions) -> AbstractContextManager[object]:
    """Shows how far a batch in this process is: nothing to show of others, and of streams."""
    here = launching.is_direct(options) or (is_flink(options) and is_without_cluster(options))
    return Progress(sys.stderr) if here and not job.options.streaming else nullcontext()


def _end_job_without_output(lost: OutputLostError) -> None:
    ending.end(1, f"the job failed: {failure_messages.explain(lost)}")


def _load_for_pages() -> None:
    with suppress(Exception):  # `_write_pages` meets the same error, and says so.
        chart.load_matplotlib()


def _write_pages(job: Job) -> tuple[str, str]:
    """Returns where chart and report are, or why there are none: what is for people must not fail a
    job.
    """
    hours = job.options.chart_period_hours
    scan = OutputScan(job.output)
    try:
        chart_path = chart.write_chart(scan, hours, missing_ok=True)
    except Exception as error:
        chart_path = f"not written ({one_line(error)}); run the command chart to write it"
    try:
        report_path = write_report(
            scan,
            ReportOptions(
                period_hours=hours,
                ruleset=job.rules.current,
                missing_ok=True,
                each_image=False,  # Those of two weeks may be many more than this job's.
            ),
        )
    except Exception as error:
        report_path = f"not written ({one_line(error)}); run the command report to write it"
    return chart_path, report_path
