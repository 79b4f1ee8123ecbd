"""Checks a job on Dataflow before it starts, and describes it afterwards."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    StandardOptions,
    TestOptions,
    WorkerOptions,
)
from apache_beam.runners.runner import PipelineResult, PipelineState
from apache_beam.utils.retry import PermanentException

from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.inputs.preflight import check_writable
from transforms.records.text import one_line
from transforms.storage.stores import is_local

RIGHT_FITTING = "enable_streaming_rightfitting"
"""The experiment by which Dataflow heeds resource hints in a stream."""


def is_dataflow(options: PipelineOptions) -> bool:
    """Returns whether the job goes to Google Cloud Dataflow."""
    return (options.view_as(StandardOptions).runner or "").lower().endswith("dataflowrunner")


def with_dry_run_value(arguments: Sequence[str]) -> list[str]:
    """Returns the same arguments with `--dry_run` as Beam takes it: with a value."""
    return ["--dry_run=True" if argument == "--dry_run" else argument for argument in arguments]


def check_dataflow(options: PipelineOptions, paths: Mapping[str, str], *, has_hints: bool) -> None:
    """Checks what Beam would miss late or in many lines, and for paths that no worker can see.

    What follows from them is set in Beam's options: a default region, and experiments.

    Args:
      options: Beam's options.
      paths: What workers read and write, by the options that give it.
      has_hints: Whether a step has resource hints for its workers.

    Raises:
      SetupError: What is missing, and what to do.
    """
    check_account(options)
    check_visible(paths)
    if has_hints:
        _check_hints(options)


def check_account(options: PipelineOptions) -> None:
    """Checks what every job on Dataflow needs: a project, a region, buckets, and its code.

    Raises:
      SetupError: What is missing, and what to do.
    """
    dry_run = bool(options.view_as(TestOptions).dry_run)
    _check_cloud(options.view_as(GoogleCloudOptions), dry_run=dry_run)
    _check_code(options)


def _check_cloud(cloud: GoogleCloudOptions, *, dry_run: bool) -> None:
    if not cloud.project:
        raise SetupError("DataflowRunner needs --project, the id of a Google Cloud project")
    from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner

    cloud.region = cloud.region or DataflowRunner().get_default_gcp_region()
    if not cloud.region:
        raise SetupError("DataflowRunner needs --region, such as europe-west1")
    if not (cloud.temp_location or cloud.staging_location):
        raise SetupError("DataflowRunner needs --temp_location gs://BUCKET/FOLDER")
    for option in ("temp_location", "staging_location"):
        uri = getattr(cloud, option)
        if uri and not uri.startswith("gs://"):
            raise SetupError(f"--{option} {uri}: Dataflow needs an address like gs://BUCKET/FOLDER")
    if not dry_run:
        for option in ("temp_location", "staging_location", "template_location"):
            if uri := getattr(cloud, option):  # Beam would try for ten minutes.
                check_writable(f"--{option}", uri)


def _check_code(options: PipelineOptions) -> None:
    setup = options.view_as(SetupOptions)
    brought = (
        options.view_as(WorkerOptions).sdk_container_image,
        *(setup.setup_file, setup.extra_packages, setup.prebuild_sdk_container_engine),
    )
    if not any(brought):
        raise SetupError(
            "DataflowRunner needs --sdk_container_image, an image with this program in it for the "
            "workers (docs/dataflow.md says how to build it)"
        )
    if setup.save_main_session is None:
        setup.save_main_session = False  # Nothing that workers need lives in `__main__`.


def check_visible(paths: Mapping[str, str]) -> None:
    """Refuses paths of this machine, by the options that give them.

    Raises:
      SetupError: The first of them.
    """
    for option, path in paths.items():
        if is_local(path.removeprefix("file://")):
            what = f"--{option} {path}" if path else f"--{option} is missing"
            raise SetupError(
                f"{what}: Dataflow's workers can't see this machine's files; copy them to a bucket "
                "and give gs://BUCKET/FOLDER"
            )


def _check_hints(options: PipelineOptions) -> None:
    cloud = options.view_as(GoogleCloudOptions)
    if any(
        "worker_accelerator" in service_option
        for service_option in cloud.dataflow_service_options or []
    ):
        raise SetupError(
            "--model_min_ram and --model_accelerator don't go with the service option "
            "worker_accelerator, which is for every worker; leave one of them out"
        )
    if cloud.flexrs_goal:
        raise SetupError(
            "--model_min_ram and --model_accelerator don't go with --flexrs_goal; leave one of "
            "them out"
        )
    if options.view_as(StandardOptions).streaming:
        options.view_as(DebugOptions).add_experiment(RIGHT_FITTING)


def has_job_to_wait_for(options: PipelineOptions) -> bool:
    """Returns whether there is a job to wait for once the pipeline was run."""
    return not (
        options.view_as(TestOptions).dry_run
        or options.view_as(GoogleCloudOptions).template_location
        or options.view_as(StandardOptions).no_wait_until_finish
    )


def submit(pipeline: beam.Pipeline) -> PipelineResult:
    """Stages the pipeline, and starts a job or writes a template.

    Raises:
      SetupError: Google Cloud did not take it; no job was started.
    """
    from apitools.base.py.exceptions import Error as ApiError
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from google.resumable_media import InvalidResponse

    faults = (OSError, ApiError, GoogleAPIError, GoogleAuthError, InvalidResponse)
    # It logs each refusal over many lines, and raises it too.
    logging.getLogger("apache_beam.runners.dataflow.internal.apiclient").disabled = True
    try:
        return pipeline.run()
    except (*faults, PermanentException) as error:
        raise SetupError(f"no job was started: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Returns what Google's answer says in words; otherwise the error itself."""
    try:
        return str(json.loads(getattr(error, "content", ""))["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return one_line(error)


def describe_result(options: PipelineOptions, result: PipelineResult) -> str:
    """Returns one line on the result of running the pipeline: nothing, a template, or a job and its
    page.
    """
    cloud = options.view_as(GoogleCloudOptions)
    if options.view_as(TestOptions).dry_run:
        return "dry run: the pipeline is sound; nothing was staged and no job was started"
    if cloud.template_location:
        return f"template written to {cloud.template_location}; no job was started"
    page = f"https://console.cloud.google.com/dataflow/jobs/{cloud.region}/{result.job_id()}"
    return f"job {result.job_id()} was submitted: {page}?project={cloud.project}"


def wait(result: PipelineResult) -> str | None:
    """Waits for the end of a job; the state that it ended in.

    Raises:
      RuntimeError: It failed.
    """
    from apache_beam.runners.dataflow.dataflow_runner import DataflowRuntimeException

    try:
        state: str | None = result.wait_until_finish()
    except DataflowRuntimeException as error:
        state = result.state
        if state == PipelineState.FAILED:
            raise RuntimeError(error) from None
    return state
