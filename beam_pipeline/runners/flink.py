"""What a job on Flink needs, looked at before it starts: a fault is one line, no Java stack."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence

import requests
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    JobServerOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
)

from beam_pipeline.errors import SetupError

RUNNERS = ("FlinkRunner", "PortableRunner")
CHECKPOINTING_INTERVAL_MS = 10_000
"""How often a stream is checkpointed where `--checkpointing_interval` says nothing."""
MAX_BUNDLE_TIME_MS = 200
"""How long a stream's step gathers pictures where `--max_bundle_time_mills` says nothing."""
OLDEST_JAVA = 11
_NO_CLUSTER = ("[local]", "[auto]")

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


def joined(arguments: Sequence[str]) -> list[str]:
    """The same arguments with the Java part's options in one word with their values.

    Beam's Python side does not know those options, and takes a value that stands in a word of its
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
    """Whether the job goes to Flink through Beam's own job server."""
    return (options.view_as(StandardOptions).runner or "").endswith("FlinkRunner")


def is_here(options: PipelineOptions) -> bool:
    """Whether the workers of a job on Flink run on this machine, in this environment."""
    if not is_flink(options):
        return False
    kind = options.view_as(PortableOptions).environment_type
    return kind == "LOOPBACK" or (
        not kind and options.view_as(FlinkRunnerOptions).flink_master.strip() in _NO_CLUSTER
    )


def stream_arguments(arguments: Sequence[str]) -> list[str]:
    """What a stream on Flink must have, where the command line does not say it.

    Without checkpoints a machine that dies loses pictures. Bundles of a second each, which is
    Beam's default, would add up over the steps between a picture and its alert. Without bundles
    that end before a checkpoint, what a bundle puts out waits for the next bundle, and after the
    one impulse of a source none comes (apache/beam pull request 12345).
    """
    given = {one.split("=")[0] for one in arguments}
    needed = {
        "--checkpointing_interval": f"--checkpointing_interval={CHECKPOINTING_INTERVAL_MS}",
        "--max_bundle_time_mills": f"--max_bundle_time_mills={MAX_BUNDLE_TIME_MS}",
        "--finish_bundle_before_checkpointing": "--finish_bundle_before_checkpointing",
    }
    return [argument for name, argument in needed.items() if name not in given]


def check_flink(options: PipelineOptions) -> None:
    """Looks for Java, the job server's jar, and a cluster that fits and has room.

    Raises:
      SetupError: What is missing, and what to do.
    """
    flink = options.view_as(FlinkRunnerOptions)
    master = flink.flink_master.strip()
    if not flink.flink_submit_uber_jar:
        _check_java(options.view_as(JobServerOptions).job_server_java_launcher)
    jar = flink.flink_job_server_jar
    if jar and "://" not in jar and not os.path.isfile(jar):
        raise SetupError(
            f"--flink_job_server_jar {jar}: no such file; `make flink-args` prints where it is "
            "after `make flink-up`"
        )
    if master not in _NO_CLUSTER:
        _check_cluster(master, flink.flink_version, flink.parallelism)


def _check_java(launcher: str) -> None:
    what = "FlinkRunner starts Beam's job server, a Java program"
    program = shutil.which(launcher)
    if program is None:
        raise SetupError(
            f"{what}, and there is no {launcher}; install Java {OLDEST_JAVA} or later, such as "
            "Debian's openjdk-17-jre-headless"
        )
    said = subprocess.run([program, "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(?:1\.)?(\d+)', said.stderr + said.stdout)
    if found is None or int(found[1]) < OLDEST_JAVA:
        version = found[1] if found else "of an unknown version"
        raise SetupError(
            f"{what}, and {program} is Java {version}; it needs {OLDEST_JAVA} or later"
        )


def _check_cluster(master: str, version: str, parallelism: int) -> None:
    address = master if re.match("https?://", master) else f"http://{master}"
    try:
        answer = requests.get(f"{address}/overview", timeout=5)
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
            f"--flink_master {master}: what answers there is no Flink JobManager's REST address"
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
