"""A real Flink session cluster on the loopback, and stream jobs on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import once, warm
from tests.absent import give_up
from tests.flink.stream_job import StreamJob, flink_cluster


@pytest.fixture(scope="package")
def cluster() -> Iterator[Any]:
    """One JobManager, one TaskManager of two slots and its Python workers, for all tests here."""
    try:
        flink_cluster.fetch()
    except flink_cluster.ClusterError as error:
        give_up(f"no Flink here: {error}")
    # Stopped from there if this process is killed, as pytest-xdist's are on Ctrl-C.
    run_dir = once.path(f"flink-{os.getpid()}")
    run_dir.mkdir()
    try:
        yield flink_cluster.up(
            run_dir, rest_port=0, worker_pool_port=0, metrics_ports="20250-20999"
        )
    finally:
        flink_cluster.down(run_dir)


@pytest.fixture
def stream(cluster: Any, tmp_path: Path) -> Iterator[Callable[..., StreamJob]]:
    """Submits stream jobs, and ends them after the test."""
    jobs: list[StreamJob] = []

    def submit(*arguments: str | os.PathLike[str]) -> StreamJob:
        log = tmp_path / "submitted.log"
        job = StreamJob(cluster, log, *arguments, interpreter=warm.interpreter())
        jobs.append(job)
        return job

    yield submit
    for job in jobs:
        job.cancel()
