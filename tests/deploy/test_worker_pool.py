"""The pool of Python workers beside Flink leaves no worker behind that serves nobody."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
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
        monkeypatch.setattr(worker_pool, "_is_connected", lambda pid, port: False)
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


CONNECTED = """
import signal, socket, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
connection.recv(1)  # Returns when the task manager closes it, as the control stream of a worker.
connection.close()
time.sleep(600)
"""


@pytest.fixture
def hanging_worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A worker that hangs once its connection breaks; yields where it connects to."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as task_manager:
        port = task_manager.getsockname()[1]
        popen = subprocess.Popen

        def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
            return popen([sys.executable, "-c", CONNECTED, str(port)], **options)

        monkeypatch.setattr(subprocess, "Popen", start)
        yield task_manager


def test_a_worker_that_hangs_after_its_connection_is_closed_is_ended(
    worker_pool: Any,
    hanging_worker: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Its task manager lives on, so somebody listens; and the worker ignores SIGTERM."""
    descriptor = f'url: "127.0.0.1:{hanging_worker.getsockname()[1]}"'
    environment = {"CONTROL_API_SERVICE_DESCRIPTOR": descriptor}
    monkeypatch.setattr(worker_pool, "_environment", lambda request: environment)
    monkeypatch.setattr(worker_pool, "_STOP_SECONDS", 0.5)
    pool = worker_pool.WorkerPool(tmp_path, look_seconds=0.2)
    assert pool.StartWorker(SimpleNamespace(worker_id="1-1"), None).error == ""
    ((worker,),) = pool._workers.values()
    connection, _ = hanging_worker.accept()
    time.sleep(2)  # Ten looks.
    assert worker.poll() is None, "a worker that is connected is not ended"
    connection.close()
    wait_until_ended(worker.pid)
    deadline = time.monotonic() + 10
    while pool._workers:
        assert time.monotonic() < deadline, "the pool still has the worker"
        time.sleep(0.05)


def test_a_connection_is_seen_on_a_kernel_without_ipv6(
    worker_pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: path.name != "tcp6" and exists(path))
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()),
    ):
        port = server.getsockname()[1]
        assert worker_pool._is_connected(os.getpid(), port)
        assert not worker_pool._is_connected(os.getpid(), port + 1)
