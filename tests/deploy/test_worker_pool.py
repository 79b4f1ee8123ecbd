"""The pool of Python workers beside Flink leaves no worker behind that serves nobody."""

from __future__ import annotations

import importlib.util
import os
import socket
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def worker_pool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "worker_pool", ROOT / "deploy" / "flink" / "worker_pool.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wait_until_ended(pid: int) -> None:
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "the worker still runs after 60 s"
        time.sleep(0.05)


def test_a_worker_ends_when_its_task_manager_goes_before_it_has_connected(
    worker_pool: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A real worker, which would try to connect for ever."""
    looks: list[bool] = []
    listens = worker_pool._listens

    def look(address: tuple[str, int]) -> bool:
        looks.append(listens(address))
        return looks[-1]

    with socket.socket() as task_manager:
        task_manager.bind(("127.0.0.1", 0))
        task_manager.listen()  # It never answers, as one that is just being killed.
        descriptor = f'url: "127.0.0.1:{task_manager.getsockname()[1]}"'
        environment = {
            "WORKER_ID": "1-1",
            "PIPELINE_OPTIONS": "{}",
            "CONTROL_API_SERVICE_DESCRIPTOR": descriptor,
            "LOGGING_API_SERVICE_DESCRIPTOR": descriptor,
        }
        monkeypatch.setattr(worker_pool, "_environment", lambda request: environment)
        monkeypatch.setattr(worker_pool, "_listens", look)
        pool = worker_pool.WorkerPool(tmp_path, look_seconds=0.2)
        answer = pool.StartWorker(SimpleNamespace(worker_id="1-1"), None)
        assert answer.error == ""
        ((worker,),) = pool._workers.values()
        deadline = time.monotonic() + 60
        while len(looks) < 6:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert all(looks)
        os.kill(worker.pid, 0)  # It runs as long as somebody listens.
    wait_until_ended(worker.pid)
    assert looks[-3:] == [False] * 3
