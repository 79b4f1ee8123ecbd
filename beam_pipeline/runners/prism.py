"""Finds Prism, Beam's own runner for a stream on one machine, without Java or a cluster.

Prism keeps its state in memory. After a crash or a restart, the job therefore lists all images of
its input again, uses the detections that its output holds, and sends no alert a second time that a
target has accepted.
"""

from __future__ import annotations

import os
from pathlib import Path

from apache_beam.options.pipeline_options import PipelineOptions, PrismRunnerOptions
from apache_beam.runners.portability.prism_runner import PrismJobServer

from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.runners import launching
from transforms.records.text import one_line

VERSION = "2.77.0"
"""The version that `make prism` builds. It runs the jobs of each Beam in `constraints.txt`."""


def is_prism(options: PipelineOptions) -> bool:
    """Returns whether the job runs on Prism."""
    return launching.runner_name(options) == launching.PRISM_RUNNER


def built_program() -> Path:
    """Returns the path of the program that `make prism` builds."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(caches) / "beam_pipeline" / f"prism-{VERSION}" / "prism"


def prism_arguments(options: PipelineOptions) -> list[str]:
    """Returns the arguments that let a job run on Prism: the runner, and where its program is.

    The program is the one of `--prism_location`, else the one that `make prism` has built, else the
    one that Beam downloads. Other programs are named `prism` too, so the path is not searched.

    Prism splits bundles that take long. If such a bundle holds timers, or several elements of one
    key, it processes some of them twice or without the state of the others (apache/beam#35771), so
    this is turned off.

    Args:
      options: Beam's options on the command line.

    Raises:
      SetupError: There is no such program.
    """
    given: str | None = options.view_as(PrismRunnerOptions).prism_location
    if given is None:
        given = str(built_program()) if built_program().exists() else None
    elif "://" not in given and not (os.path.isfile(given) and os.access(given, os.X_OK)):
        raise SetupError(f"--prism_location {given}: is no program; give the path of Prism's")
    if given is None or "://" in given:
        asked = options.view_as(PrismRunnerOptions)
        asked.prism_beam_version_override = asked.prism_beam_version_override or f"v{VERSION}"
        try:
            given = PrismJobServer(options).path_to_binary()
        except Exception as error:  # Beam raises many types.
            raise SetupError(
                f"--streaming: Prism, which runs a stream on one machine, can't be fetched "
                f"({one_line(error)}); build it with `make prism`, give --prism_location FILE, or "
                "use --runner FlinkRunner (--flink_master '[local]' needs no cluster)"
            ) from None
    location = ["--runner", launching.PRISM_RUNNER, "--prism_location", given]
    return [*location, "--experiments=prism_disable_sdf_split"]
