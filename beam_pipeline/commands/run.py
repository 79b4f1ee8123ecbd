"""The command ``run``, also without its name: the job."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from beam_pipeline.console.parsing import OneLineParser
from beam_pipeline.job import collector, options

EPILOG = """\
Every option of Apache Beam is accepted too: --runner, --direct_num_workers, --flink_master,
--project, --temp_location and so on (https://beam.apache.org/documentation/runners).

Other commands: counts, chart, report, rules, backtest, pack, export, evaluate, tune, health,
alerts, marks, prune, names, serve; each has its own --help.
--default_sdk_harness_log_level INFO shows the log lines of Beam and of its runner.
--version prints the versions of this program, Python, Beam and TensorFlow.
Exit codes: 0 done (invalid images are not a failure), 1 the job failed, 2 wrong usage or set-up,
130 and 143 after SIGINT and SIGTERM.
"""


def parser() -> OneLineParser:
    """Returns the command's parser."""
    parser = OneLineParser(
        prog="python -m beam_pipeline",
        description="Finds threats in the images of security cameras: validates each image, "
        "detects objects in it, judges them by the rules of its camera, sends alerts, and counts "
        "threats per camera in windows of time. Without options it runs on the bundled samples.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    options.add_arguments(parser)
    return parser


def main(words: Sequence[str]) -> int:
    """Runs the job; returns the exit code."""
    parsed, beam_arguments = parser().parse_known_args(words)
    job_options = options.to_options(parsed)
    with collector.objects_kept():
        from beam_pipeline.job.run import run  # Beam and TensorFlow take seconds to import.
    with collector.kept_until_its_end():
        return run(job_options, beam_arguments)
