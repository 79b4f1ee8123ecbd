"""The command `run`: prepares the job, runs it, draws the chart, and says what came of it."""

from __future__ import annotations

import argparse
import difflib
import logging
import sys
import time
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import PipelineState

from beam_pipeline import chart
from beam_pipeline.errors import SetupError
from beam_pipeline.job import prepare
from beam_pipeline.options import JobOptions
from beam_pipeline.pipeline import build_pipeline
from beam_pipeline.progress import Progress
from beam_pipeline.summary import summarize
from transforms.counters import counted

DIRECT_RUNNER = "DirectRunner"


def run(options: JobOptions, beam_arguments: Sequence[str]) -> int:
    """Runs the job; 0 when it is done, 1 when it failed.

    Args:
      options: The job's own options.
      beam_arguments: The rest of the command line.

    Raises:
      SetupError: The set-up is wrong; no image was read.
    """
    logging.getLogger("apache_beam").setLevel(logging.WARNING)
    pipeline_options = beam_options(beam_arguments)
    job = prepare(options)
    started = time.monotonic()
    pipeline = beam.Pipeline(runner=runner_for(pipeline_options), options=pipeline_options)
    build_pipeline(pipeline, job)
    with Progress(sys.stderr):
        result = pipeline.run()
        state = result.wait_until_finish()
    if state not in (None, PipelineState.DONE):
        print(f"the job ended as {state}; see the runner's log", file=sys.stderr)
        return 1
    seconds = time.monotonic() - started
    picture = chart.write_chart(job.output, options.chart_period_hours, missing_ok=True)
    print(summarize(job, counted(result), seconds, picture))
    return 0


def beam_options(arguments: Sequence[str]) -> PipelineOptions:
    """Beam's options; one that neither Beam nor the job knows is refused.

    Raises:
      SetupError: With the nearest option that exists.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for group in _subclasses(PipelineOptions):
        try:
            group._add_argparse_args(parser)
        except argparse.ArgumentError:
            pass  # Another group has the option already.
    try:
        _, unknown = parser.parse_known_args(list(arguments))
    except SystemExit:  # argparse has said what is wrong.
        raise SetupError("an option of Beam's has a wrong value, see above") from None
    if unknown:
        from beam_pipeline.options import add_arguments

        own = argparse.ArgumentParser(add_help=False)
        add_arguments(own)
        exist = [option for one in (own, parser) for option in one._option_string_actions]
        near = difflib.get_close_matches(unknown[0].split("=")[0], exist, n=1)
        hint = f"; did you mean {near[0]}?" if near else "; see --help"
        raise SetupError(f"no such option: {unknown[0]}{hint}")
    options = PipelineOptions(list(arguments))
    if options.view_as(StandardOptions).streaming and _is_direct(options):
        raise SetupError(
            "--streaming: DirectRunner can't fire event-time windows of a stream; leave it out to "
            "judge the pictures that are there now"
        )
    return options


def _subclasses(of: type[PipelineOptions]) -> list[type[PipelineOptions]]:
    children: list[type[PipelineOptions]] = of.__subclasses__()
    return [one for child in children for one in (child, *_subclasses(child))]


def _is_direct(options: PipelineOptions) -> bool:
    return (options.view_as(StandardOptions).runner or DIRECT_RUNNER) == DIRECT_RUNNER


def runner_for(options: PipelineOptions) -> beam.runners.runner.PipelineRunner | None:
    """The runner of this process for DirectRunner; None for one that Beam finds by its name.

    Beam's own choice under that name is Prism first, for which it would download a program.
    """
    if not _is_direct(options):
        return None
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    options.view_as(StandardOptions).runner = DIRECT_RUNNER
    return FnApiRunner()
