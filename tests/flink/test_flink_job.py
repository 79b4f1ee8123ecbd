"""What a submitter learns of its job from a cluster's REST interface."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from beam_pipeline.runners.flink_job import FlinkJob
from tests.flink.stream_job import wait_for

NAME = "BeamApp-root-1125110705-4903a565"
ID = f"{NAME}_0b7a5a86-8d3c-4a3c-9c4e-0f6f8a1f2b3d"


class Flink:
    """A JobManager that answers what a test says."""

    def __init__(self) -> None:
        self.says: dict[str, Any] = {}
        self.asked: list[str] = []
        self.cancelled: list[str] = []
        flink = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                flink.asked.append(self.path)
                answer = flink.says.get(self.path)
                self.send_response(404 if answer is None else 200)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def do_PATCH(self) -> None:
                flink.cancelled.append(self.path)
                self.send_response(202)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.rest = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def overview(*jobs: tuple[str, str, int, str]) -> dict[str, Any]:
    names = ("jid", "name", "start-time", "state")
    return {"jobs": [dict(zip(names, job, strict=True)) for job in jobs]}


@pytest.fixture
def flink() -> Iterator[Flink]:
    simulated = Flink()
    simulated.says["/jobs/overview"] = overview(
        ("other", "BeamApp-root-1125110705-ffffffff", 9, "RUNNING"),
        ("prefix", NAME.rpartition("-")[0], 8, "RUNNING"),
        ("old", NAME, 1, "FAILED"),
        ("mine", NAME, 2, "RUNNING"),
    )
    yield simulated
    simulated.server.shutdown()
    simulated.server.server_close()


def exceptions(*stacks: str) -> dict[str, Any]:
    return {"exceptionHistory": {"entries": [{"stacktrace": stack} for stack in stacks]}}


def test_a_workers_set_up_error_cancels_the_job(flink: Flink) -> None:
    flink.says["/jobs/other/exceptions"] = exceptions("ModelError: /other: of another job")
    flink.says["/jobs/mine/exceptions"] = exceptions(
        "java.lang.RuntimeException: a TaskManager was lost",
        "java.lang.RuntimeException: Error received from SDK harness\nTraceback\n"
        "transforms.models.model_files.ModelError: /m: no such file or directory "
        "[while running 'Detect']",
    )
    with FlinkJob(flink.rest, ID, progress=False) as job:
        wait_for("it is cancelled", lambda: flink.cancelled)
    assert job.setup_error == "/m: no such file or directory"
    assert flink.cancelled == ["/jobs/mine?mode=cancel"]


def test_a_set_up_error_of_an_earlier_job_of_that_name_is_not_this_job_s(flink: Flink) -> None:
    """The cluster shows the earlier job for a moment before it shows this one."""
    flink.says["/jobs/old/exceptions"] = exceptions("ModelError: /old: no such file")
    flink.says["/jobs/mine/exceptions"] = exceptions("ModelError: /m: no such file")
    both = flink.says["/jobs/overview"]
    flink.says["/jobs/overview"] = overview(("old", NAME, 1, "FAILED"))
    with FlinkJob(flink.rest, ID, progress=False) as job:
        wait_for("it has looked", lambda: flink.asked.count("/jobs/overview") > 1)
        assert (job.setup_error, flink.cancelled) == (None, [])
        job.cancel()
        assert flink.cancelled == []
        flink.says["/jobs/overview"] = both
        wait_for("it is cancelled", lambda: flink.cancelled)
    assert flink.cancelled == ["/jobs/mine?mode=cancel"]


def test_of_two_jobs_of_that_name_the_newer_one_is_watched_as_soon_as_it_is_shown(
    flink: Flink,
) -> None:
    old = ("old", NAME, 1, "RUNNING")
    flink.says["/jobs/overview"] = overview(old)
    flink.says["/jobs/old/exceptions"] = exceptions()
    flink.says["/jobs/mine/exceptions"] = exceptions()
    with FlinkJob(flink.rest, ID, progress=False) as job:
        wait_for("it has looked", lambda: "/jobs/old/exceptions" in flink.asked)
        flink.says["/jobs/overview"] = overview(old, ("mine", NAME, 2, "RUNNING"))
        wait_for("it has looked again", lambda: "/jobs/mine/exceptions" in flink.asked)
        job.cancel()
    assert flink.cancelled == ["/jobs/mine?mode=cancel"]


def test_what_a_runner_can_mend_by_trying_again_is_left_to_it(flink: Flink) -> None:
    flink.says["/jobs/mine/exceptions"] = exceptions(
        "RuntimeError: OSError: [Errno 28] No space left on device: '/out/a'"
    )
    metrics = "/jobs/mine/vertices/v1/subtasks/metrics"
    flink.says["/jobs/mine"] = {"vertices": [{"id": "v1"}, {"id": "ended"}]}
    flink.says["/jobs/mine/vertices/ended/subtasks/metrics"] = []
    names = {
        "1.Step.threats_images_found": ("images.found", 9),
        "2.Step.threats_images_valid": ("images.valid", 4),
        "2.Step.threats_images_with_threat": ("images.with_threat", 1),
        "3.Step.threats_images_invalid_bad_name": ("images.invalid.bad_name", 2),
    }
    flink.says[metrics] = [{"id": name} for name in (*names, "numRecordsIn")]
    asked = f"{metrics}?get={'%2C'.join(names)}"
    flink.says[asked] = [{"id": name, "sum": float(counter[1])} for name, counter in names.items()]
    with FlinkJob(flink.rest, ID, progress=True) as job:
        wait_for("it is counted", job.counts)
        assert dict(job.counts()) == dict(names.values())
        flink.says[metrics] = []  # A task that has ended is shown no more.
    assert (job.setup_error, flink.cancelled) == (None, [])
    assert job.counts()["images.found"] == 9


def test_a_cluster_that_answers_nothing_of_use_ends_nothing(flink: Flink) -> None:
    flink.says = {"/jobs/overview": ["unexpected"]}
    with FlinkJob(flink.rest, ID, progress=True) as job:
        pass
    assert (job.setup_error, flink.cancelled) == (None, [])
