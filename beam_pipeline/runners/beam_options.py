"""Beam's own options on the command line of a job."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Collection, Sequence

from apache_beam.options.pipeline_options import (
    GoogleCloudOptions,
    PipelineOptions,
    StandardOptions,
)

from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.console.parsing import OneLineParser
from beam_pipeline.runners import dataflow, launching
from beam_pipeline.runners.flink import (
    JAVA_OPTIONS,
    RUNNERS,
    is_flink,
    join_java_options,
    stream_arguments,
    version_arguments,
)
from beam_pipeline.runners.prism import is_prism, prism_arguments


def beam_options(
    arguments: Sequence[str], *, streaming: bool = False, own: Collection[str] = ()
) -> PipelineOptions:
    """Returns Beam's options; one that neither Beam nor the job knows is refused.

    Args:
      arguments: The command line without the job's own options.
      streaming: Whether the job is a stream.
      own: The command's own options, to name the nearest to one that does not exist.

    Raises:
      SetupError: With the nearest option that exists, or where the runner has no streams.
    """
    arguments = [
        *join_java_options(dataflow.with_dry_run_value(arguments)),
        *(["--streaming"] if streaming else []),
    ]
    parser = OneLineParser(prog="python -m beam_pipeline", add_help=False, allow_abbrev=False)
    for group in _subclasses(PipelineOptions):
        try:
            group._add_argparse_args(parser)
        except argparse.ArgumentError:
            pass  # Another group has the option already.
    options = PipelineOptions(arguments)
    if launching.runner_name(options) in RUNNERS:
        for name in {
            f"--{option}" for option in JAVA_OPTIONS
        } - parser._option_string_actions.keys():
            parser.add_argument(name, nargs="?")
    _, unknown = parser.parse_known_args(arguments)
    if unknown:
        exist = [*own, *parser._option_string_actions]
        near = difflib.get_close_matches(unknown[0].split("=")[0], exist, n=1)
        hint = f"; did you mean {near[0]}?" if near else "; see --help"
        fault = f"no such option: {unknown[0]}{hint}"
        if not options.view_as(GoogleCloudOptions).template_location:
            raise SetupError(fault)
        # A Flex Template's launcher adds options of its own, and Dataflow has checked the user's.
        print(f"skipped: {fault}", file=sys.stderr)
    _check_runner(launching.runner_name(options))
    if streaming and (launching.is_direct(options) or is_prism(options)):
        return PipelineOptions([*arguments, *prism_arguments(options)])
    if is_flink(options):
        more = stream_arguments(arguments) if streaming else []
        return PipelineOptions([*arguments, *version_arguments(arguments), *more])
    return options


def _subclasses(parent: type[PipelineOptions]) -> list[type[PipelineOptions]]:
    children: list[type[PipelineOptions]] = parent.__subclasses__()
    return [option_class for child in children for option_class in (child, *_subclasses(child))]


def _check_runner(name: str) -> None:
    names = StandardOptions.KNOWN_RUNNER_NAMES
    if "." in name or name.lower() in map(str.lower, names):
        return
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
    raise SetupError(f"--runner {name}: no such runner; {hint}")
