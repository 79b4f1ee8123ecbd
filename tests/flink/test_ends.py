"""How jobs on Flink end: told to, or found wrong by a worker."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from beam_pipeline import bundled
from tests.absent import give_up
from tests.flink.stream_job import StreamJob, flink_cluster, wait_for

GO_ON = "run the same command with --resume to continue"


def start(*arguments: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*before, sys.executable, "-m", "beam_pipeline", "--runner", "FlinkRunner", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def running(program: str) -> list[str]:
    """The ids of the processes that have a word on their command lines."""
    return [
        path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if program in _words(path)
    ]


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").split("\0")
    except OSError:
        return []


@pytest.mark.parametrize("number", [signal.SIGINT])
def test_a_flink_without_a_cluster_ends_with_its_job(
    number: signal.Signals, tmp_path: Path
) -> None:
    try:
        jar = flink_cluster.fetch().job_server_jar
    except flink_cluster.ClusterError as error:
        give_up(f"no Flink here: {error}")
    mine = tmp_path / "job-server.jar"
    mine.symlink_to(jar)
    job = start(
        *("--flink_master", "[local]", "--flink_job_server_jar", str(mine)),
        *("--output", str(tmp_path / "out"), "--parallelism", "1"),
    )
    wait_for("a result", lambda: job.poll() is not None or (tmp_path / "out" / "final").exists())
    assert running(str(mine))
    told_at = time.monotonic()
    job.send_signal(number)
    _, stderr = job.communicate(timeout=60)
    assert time.monotonic() - told_at < 5
    lines = [line for line in stderr.splitlines() if " images done, " not in line]
    assert (job.returncode, lines) == (128 + number, [f"stopped; {GO_ON}"])
    assert not running(str(mine))


def test_a_submitter_that_is_told_to_end_leaves_the_job_on_the_cluster(
    cluster: Any, stream: Callable[..., StreamJob], tmp_path: Path
) -> None:
    images = tmp_path / "in"
    images.mkdir()
    job = stream("--input", str(images), "--output", str(tmp_path / "out"), "--model", "bundled")
    time_told = time.monotonic()
    wait_for("it waits", lambda: "watching" in job._log.read_text())
    job._client.send_signal(signal.SIGTERM)
    assert job._client.wait(timeout=60) == 143
    assert time.monotonic() - time_told < 20
    stderr = job._log.read_text().splitlines()
    assert stderr[-1] == "no longer waited for; the job itself continues"
    assert cluster.get(f"/jobs/{job.id}")["state"] == "RUNNING"


def test_a_model_that_only_workers_lack_ends_the_job_at_once(cluster: Any, tmp_path: Path) -> None:
    """The submitter has a mount that the workers have not."""
    alone = ["unshare", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], check=False).returncode:
        give_up("no mount namespaces here")
    mount = tmp_path / "mount"
    mount.mkdir()
    model = tmp_path / "model"
    shutil.copytree(bundled.BUNDLED_MODEL, model)
    (model / "note.txt").write_text("of another version, so that no worker has it in its cache")
    script = f'mount -t tmpfs tmpfs {mount} && cp -r {model} {mount}/m && exec "$@"'
    images = tmp_path / "in"
    shutil.copytree(bundled.BUNDLED_SAMPLES / "hall", images)
    before = {job["id"] for job in cluster.get("/jobs")["jobs"]}
    job = start(
        *cluster.pipeline_options(),
        *("--streaming", "--input", str(images), "--output", str(tmp_path / "out")),
        *("--model", str(mount / "m")),
        before=(*alone, "bash", "-c", script, "alone"),
    )
    _, stderr = job.communicate(timeout=200)
    lines = stderr.splitlines()
    assert (job.returncode, len(lines)) == (2, 1), stderr
    assert lines[0].startswith(f"beam_pipeline: a worker: {mount}/m: no such file or directory")
    states = {job["id"]: job["status"] for job in cluster.get("/jobs")["jobs"]}
    assert {states[job_id] for job_id in states.keys() - before} <= {"CANCELED", "CANCELLING"}
    assert not (tmp_path / "out" / "final").exists()


def test_a_batch_shows_its_progress(cluster: Any, tmp_path: Path) -> None:
    job = start(*cluster.pipeline_options(), "--output", str(tmp_path / "out"))
    _, stderr = job.communicate(timeout=280)
    assert job.returncode == 0, stderr
    done = re.findall(r"^(\d+) of (\d+) images done, [\d.]+ images/s", stderr, re.MULTILINE)
    assert done, stderr
    assert requests.get(f"{cluster.rest}/jobs", timeout=10).ok
