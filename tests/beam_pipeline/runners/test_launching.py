"""What Beam's threads print beside a job."""

from __future__ import annotations

import threading

import grpc
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.runners import launching


class Closed(grpc.RpcError):
    """What a reader raises whose channel is closed."""


@pytest.mark.parametrize(
    ("thread", "error", "is_shown"),
    [
        ("read_grpc_client_inputs", Closed(), False),
        ("read_grpc_client_inputs", ValueError("no number"), True),
        ("another", Closed(), True),
    ],
)
def test_a_channel_that_is_closed_at_the_end_of_a_job_is_no_traceback(
    thread: str, error: Exception, is_shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", shown.append)
    launching._ignore_closed_channels()

    def work() -> None:
        raise error

    raising = threading.Thread(target=work, name=thread)
    raising.start()
    raising.join()
    assert [hook_arguments.exc_value for hook_arguments in shown] == ([error] if is_shown else [])


class FailedJob:
    """A job that the cluster has failed and does not start again."""

    _job_id = "job_0b7a5a86-8d3c-4a3c-9c4e-0f6f8a1f2b3d"

    def __init__(self, error: str) -> None:
        self._error = error

    def wait_until_finish(self) -> str:
        raise RuntimeError(self._error)


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        ("ModelError: /m: no such file", SetupError, "a worker: /m: no such file"),
        ("KeyError: 'a'", RuntimeError, "KeyError"),
    ],
)
def test_a_set_up_error_for_which_the_cluster_fails_the_job_is_one_too(
    error: str, raised: type[Exception], message: str
) -> None:
    options = PipelineOptions(["--runner", "FlinkRunner", "--flink_master", "127.0.0.1:1"])
    said = f"Pipeline job failed in state FAILED: java.lang.RuntimeException: \nTraceback\n{error}"
    with pytest.raises(raised, match=message):
        launching.wait(FailedJob(said), options)
