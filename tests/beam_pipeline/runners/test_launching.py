"""What Beam's threads print beside a job."""

from __future__ import annotations

import threading

import grpc
import pytest

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
