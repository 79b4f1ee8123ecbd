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


class Flink:
    """A JobManager that answers what a test says."""

    def __init__(self) -> None:
        self.says: dict[str, Any] = {}
        self.cancelled: list[str] = []
        flink = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
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


@pytest.fixture
def flink() -> Iterator[Flink]:
    simulated = Flink()
    simulated.says["/jobs/overview"] = {
        "jobs": [
            {"jid": "other", "name": "BeamApp-root-1125110705-ffffffff", "start-time": 9},
            {"jid": "old", "name": NAME, "start-time": 1},
            {"jid": "mine", "name": NAME, "start-time": 2},
        ]
    }
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
    with FlinkJob(flink.rest, f"{NAME}_uuid", progress=False) as job:
        wait_for("it is cancelled", lambda: flink.cancelled)
    assert job.setup_error == "/m: no such file or directory"
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
    with FlinkJob(flink.rest, f"{NAME}_uuid", progress=True) as job:
        wait_for("it is counted", job.counts)
        assert dict(job.counts()) == dict(names.values())
        flink.says[metrics] = []  # A task that has ended is shown no more.
    assert (job.setup_error, flink.cancelled) == (None, [])
    assert job.counts()["images.found"] == 9


def test_a_cluster_that_answers_nothing_of_use_ends_nothing(flink: Flink) -> None:
    flink.says = {"/jobs/overview": ["unexpected"]}
    with FlinkJob(flink.rest, f"{NAME}_uuid", progress=True) as job:
        pass
    assert (job.setup_error, flink.cancelled) == (None, [])
