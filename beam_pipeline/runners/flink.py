"""Checks a job on Flink before it starts, and reports problems in one line without a Java stack."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Mapping, Sequence
from urllib.parse import unquote, urlsplit

import grpc
import requests
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    JobServerOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
)
from apache_beam.runners.portability.job_server import JavaJarJobServer
from apache_beam.utils.subprocess_server import JavaJarServer

from beam_pipeline.console.exceptions import SetupError
from transforms.storage.stores import is_local

RUNNERS = ("FlinkRunner", "PortableRunner")
CHECKPOINTING_INTERVAL_MS = 10_000
"""How often a stream is checkpointed where `--checkpointing_interval` says nothing."""
MAX_BUNDLE_TIME_MS = 200
"""How long a stream's step gathers images where `--max_bundle_time_mills` says nothing."""
OLDEST_JAVA = 11
FLINK_VERSION = "1.20"
"""The Flink of `make flink-up`, of the manifests, and of the job server in the image."""
_NO_CLUSTER = ("[local]", "[auto]")
_SECONDS_TO_ANSWER = 5

JAVA_OPTIONS = (
    "allow_non_restored_state",
    "attached_mode",
    "auto_balance_write_files_sharding_enabled",
    "auto_watermark_interval",
    "checkpoint_timeout_millis",
    "checkpointing_interval",
    "checkpointing_mode",
    "disable_metrics",
    "enable_stable_input_drain",
    "execution_mode_for_batch",
    "execution_retry_delay",
    "externalized_checkpoints_enabled",
    "fail_on_checkpointing_errors",
    "faster_copy",
    "files_to_stage",
    "finish_bundle_before_checkpointing",
    "flink_conf_dir",
    "force_slot_sharing_group",
    "force_unaligned_checkpoint_enabled",
    "job_check_interval_in_secs",
    "latency_tracking_interval",
    "max_bundle_size",
    "max_bundle_time_mills",
    "min_pause_between_checkpoints",
    "num_concurrent_checkpoints",
    "number_of_execution_retries",
    "object_reuse",
    "operator_chaining",
    "re_iterable_group_by_key_result",
    "report_checkpoint_duration",
    "retain_externalized_checkpoints_on_cancellation",
    "savepoint_path",
    "shutdown_sources_after_idle_ms",
    "state_backend",
    "state_backend_factory",
    "state_backend_storage_path",
    "unaligned_checkpoint_enabled",
    "use_data_stream_for_batch",
)
"""Options of Beam's Flink runner that live in its Java part, which Python's help does not list."""


def join_java_options(arguments: Sequence[str]) -> list[str]:
    """Returns the same arguments with the Java part's options in one word with their values.

    Beam's Python side does not know those options, and takes a value that is in a word of its
    own for none of theirs.
    """
    words: list[str] = []
    for word in arguments:
        before = words[-1] if words else ""
        if before.removeprefix("--") in JAVA_OPTIONS and not word.startswith("--"):
            words[-1] = f"{before}={word}"
        else:
            words.append(word)
    return words


def is_flink(options: PipelineOptions) -> bool:
    """Returns whether the job goes to Flink through Beam's own job server."""
    return (options.view_as(StandardOptions).runner or "").endswith("FlinkRunner")


def has_local_workers(options: PipelineOptions) -> bool:
    """Returns whether the workers of a job on Flink run on this machine, in this environment."""
    if not is_flink(options):
        return False
    kind = options.view_as(PortableOptions).environment_type
    return kind == "LOOPBACK" or (
        not kind and options.view_as(FlinkRunnerOptions).flink_master.strip() in _NO_CLUSTER
    )


def version_arguments(arguments: Sequence[str]) -> list[str]:
    """Returns the option that names Flink's version, where the command line does not.

    Beam's own default is the newest Flink that it knows, which changes with Beam.
    """
    is_given = any(argument.split("=")[0] == "--flink_version" for argument in arguments)
    return [] if is_given else ["--flink_version", FLINK_VERSION]


def stream_arguments(arguments: Sequence[str]) -> list[str]:
    """Returns what a stream on Flink must have, where the command line does not say it.

    Without checkpoints a machine that dies loses images. Bundles of a second each, which is
    Beam's default, would add up over the steps between an image and its alert. Without bundles
    that end before a checkpoint, what a bundle puts out waits for the next bundle, and after the
    one impulse of a source none comes (apache/beam pull request 12345).
    """
    names_given = {argument.split("=")[0] for argument in arguments}
    needed = {
        "--checkpointing_interval": f"--checkpointing_interval={CHECKPOINTING_INTERVAL_MS}",
        "--max_bundle_time_mills": f"--max_bundle_time_mills={MAX_BUNDLE_TIME_MS}",
        "--finish_bundle_before_checkpointing": "--finish_bundle_before_checkpointing",
    }
    return [argument for name, argument in needed.items() if name not in names_given]


def is_without_cluster(options: PipelineOptions) -> bool:
    """Returns whether Flink runs inside the job server."""
    return options.view_as(FlinkRunnerOptions).flink_master.strip() in _NO_CLUSTER


def rest_address(options: PipelineOptions) -> str:
    """Returns the address of the cluster's REST interface."""
    return _with_scheme(options.view_as(FlinkRunnerOptions).flink_master.strip())


def is_on_this_machine(options: PipelineOptions) -> bool:
    """Returns whether Flink runs on this machine, by its address, so that workers see its files."""
    if is_without_cluster(options):
        return True
    host = urlsplit(rest_address(options)).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def shared_paths(options: PipelineOptions, paths: Mapping[str, str]) -> str | None:
    """Returns a note about local paths that the workers on another machine must also see, or None.

    Args:
      options: Beam's options.
      paths: The paths, by the name of their option without dashes.
    """
    local = [f"--{option} {path}" for option, path in paths.items() if is_local(path)]
    if not is_flink(options) or is_on_this_machine(options) or not local:
        return None
    master = options.view_as(FlinkRunnerOptions).flink_master.strip()
    return (
        f"--flink_master {master} is another machine: {', '.join(local)} must be one shared mount, "
        "at the same path here and on every worker"
    )


def check_flink(options: PipelineOptions) -> None:
    """Looks for Java, the job server's jar, and a cluster that fits and has room.

    Raises:
      SetupError: What is missing, and what to do.
    """
    flink = options.view_as(FlinkRunnerOptions)
    master = flink.flink_master.strip()
    if not (flink.flink_submit_uber_jar or options.view_as(PortableOptions).job_endpoint):
        _check_java(options.view_as(JobServerOptions).job_server_java_launcher)
        _check_jar(flink, options.view_as(JobServerOptions).jar_cache_dir)
    if is_on_this_machine(options):
        _check_savepoint(options)
    if master not in _NO_CLUSTER:
        _check_cluster(master, flink.flink_version, flink.parallelism)


def check_concurrent_checkpoints(options: PipelineOptions) -> None:
    """Refuses concurrent checkpoints, for a job that acknowledges messages.

    The second of two may have begun before a message that is acknowledged when it is complete.

    Raises:
      SetupError: Several checkpoints may be made at a time.
    """
    given = options.get_all_options(retain_unknown_options=True).get("num_concurrent_checkpoints")
    if given is not None and str(given) != "1":
        raise SetupError(
            f"--num_concurrent_checkpoints {given}: with --notifications, messages could be lost, "
            "as they are acknowledged once two checkpoints in a row are complete; leave it out"
        )


def check_job_endpoint(options: PipelineOptions) -> None:
    """Checks whether a job service answers at `--job_endpoint`, if there is one.

    Raises:
      SetupError: None does.
    """
    endpoint = options.view_as(PortableOptions).job_endpoint
    if not endpoint or endpoint == "embed":
        return
    with grpc.insecure_channel(endpoint) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_SECONDS_TO_ANSWER)
        except grpc.FutureTimeoutError:
            raise SetupError(
                f"--job_endpoint {endpoint}: no Beam job service answers there; is the address "
                "right, and is the job server started?"
            ) from None


def _check_jar(flink: FlinkRunnerOptions, cache: str | None) -> None:
    jar = flink.flink_job_server_jar
    hint = "`make flink-up` builds one, and `make flink-args` prints its path"
    if not jar:
        target = f":runners:flink:{flink.flink_version}:job-server:shadowJar"
        jar = JavaJarJobServer.path_to_beam_jar(target)
        cached = os.path.join(cache or JavaJarServer.JAR_CACHE, os.path.basename(jar))
        if os.path.isfile(jar) or os.path.isfile(cached):
            return
        try:
            requests.head(jar, timeout=_SECONDS_TO_ANSWER).raise_for_status()
        except requests.RequestException as error:
            raise SetupError(
                "--flink_job_server_jar is missing, and Beam's own job server can't be fetched "
                f"from {jar} ({type(error).__name__}); {hint}"
            ) from None
        return
    if "://" in jar:
        return
    if not os.path.isfile(jar):
        raise SetupError(f"--flink_job_server_jar {jar}: no such file; {hint}")
    try:
        with zipfile.ZipFile(jar) as archive:
            is_program = b"Main-Class:" in archive.read("META-INF/MANIFEST.MF")
    except (OSError, KeyError, zipfile.BadZipFile):
        is_program = False
    if not is_program:
        raise SetupError(f"--flink_job_server_jar {jar}: is not an executable jar; {hint}")


def _check_savepoint(options: PipelineOptions) -> None:
    uri = str(options.get_all_options(retain_unknown_options=True).get("savepoint_path") or "")
    path = unquote(urlsplit(uri).path) if uri.startswith("file:") else uri
    if not path or not is_local(path):
        return  # Only Flink has the rights to it.
    folder = path.removesuffix("/_metadata")
    if not os.path.isfile(os.path.join(folder, "_metadata")):
        raise SetupError(
            f"--savepoint_path {uri}: no savepoint is there; give the folder that holds its "
            "_metadata, such as file:///srv/savepoints/savepoint-…"
        )


def _with_scheme(master: str) -> str:
    return master if re.match("https?://", master) else f"http://{master}"


def _check_java(launcher: str) -> None:
    what = "FlinkRunner starts Beam's job server, a Java program"
    program = shutil.which(launcher)
    if program is None:
        raise SetupError(
            f"{what}, and there is no {launcher}; install Java {OLDEST_JAVA} or later, such as "
            "Debian's openjdk-17-jre-headless"
        )
    result = subprocess.run([program, "-version"], capture_output=True, text=True, check=False)
    match = re.search(r'version "(?:1\.)?(\d+)', result.stderr + result.stdout)
    if match is None or int(match[1]) < OLDEST_JAVA:
        version = match[1] if match else "of an unknown version"
        raise SetupError(
            f"{what}, and {program} is Java {version}; it needs {OLDEST_JAVA} or later"
        )


def _check_cluster(master: str, version: str, parallelism: int) -> None:
    try:
        answer = requests.get(f"{_with_scheme(master)}/overview", timeout=_SECONDS_TO_ANSWER)
        answer.raise_for_status()
        overview = json.loads(answer.content)
        runs, free = str(overview["flink-version"]), int(overview["slots-available"])
    except requests.RequestException as error:
        raise SetupError(
            f"--flink_master {master}: no Flink answers there ({type(error).__name__}); "
            "`make flink-up` starts one on this machine"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise SetupError(
            f"--flink_master {master}: the answer is not that of a Flink JobManager's REST service"
        ) from None
    if not runs.startswith(f"{version}."):
        raise SetupError(
            f"--flink_master {master} runs Flink {runs}, and the job server is for Flink "
            f"{version}; start Flink {version}, or give --flink_version and a job server for it"
        )
    needed = max(parallelism, 1)
    if free < needed:
        raise SetupError(
            f"--flink_master {master} has {free} free task slots, and the job needs {needed}; "
            "cancel a job, start another task manager, or give a smaller --parallelism"
        )
