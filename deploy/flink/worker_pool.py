"""Starts Beam's Python workers for the task managers of this machine (environment EXTERNAL).

Beam's own pool (apache_beam.runners.worker.worker_pool_main) listens on every interface, and
whoever reaches it can run code; gives its workers none of the pipeline's options, so that a worker
lacks, for instance, --s3_endpoint_url; and leaves their output in a pipe that nobody reads, which
stops a worker that prints much. This one listens on the loopback, passes the options on, and keeps
a log of each.

The workers are processes of the running interpreter, with what is installed in it: packages that a
job stages (--requirements_file, --setup_file, --save_main_session) are not installed.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import grpc  # type: ignore[import-untyped,unused-ignore]
from apache_beam.portability.api import (
    beam_fn_api_pb2,
    beam_fn_api_pb2_grpc,
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
    endpoints_pb2,
)
from apache_beam.utils import thread_pool_executor
from google.protobuf import (  # type: ignore[import-untyped,unused-ignore]
    json_format,
    text_format,
)

_LOGGER = logging.getLogger("worker_pool")
SDK_WORKER = "apache_beam.runners.worker.sdk_worker_main"
_PROVISION_TIMEOUT_SECONDS = 60
_STOP_SECONDS = 10
_LOOK_SECONDS = 10.0
_MISSED_LOOKS = 3
"""A worker is ended after so many looks in a row that found nobody whom it serves."""
_ESTABLISHED = "01"


class WorkerPool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """Starts a process for each worker that a task manager asks for.

    Args:
      log_dir: Where each worker's output goes.
      mark: An argument that each worker gets, by which others can tell whose it is.
      look_seconds: Between two looks at whether a worker's task manager is still there.
    """

    def __init__(
        self, log_dir: Path, mark: str | None = None, look_seconds: float = _LOOK_SECONDS
    ) -> None:
        self._look_seconds = look_seconds
        self._log_dir = log_dir
        self._mark = [] if mark is None else [mark]
        self._lock = threading.Lock()
        self._workers: dict[str, list[subprocess.Popen[bytes]]] = {}

    def StartWorker(
        self, request: beam_fn_api_pb2.StartWorkerRequest, context: grpc.ServicerContext
    ) -> beam_fn_api_pb2.StartWorkerResponse:
        try:
            environment = {**os.environ, **_environment(request)}
            log = self._log_dir / f"worker-{re.sub('[^A-Za-z0-9_.-]', '_', request.worker_id)}.log"
            with log.open("ab") as output:
                worker = subprocess.Popen(
                    [sys.executable, "-m", SDK_WORKER, *self._mark],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
        except Exception as error:  # The task manager's log is where it is looked for.
            _LOGGER.exception("worker %s could not be started", request.worker_id)
            return beam_fn_api_pb2.StartWorkerResponse(error=f"{type(error).__name__}: {error}")
        _LOGGER.info("worker %s is process %d", request.worker_id, worker.pid)
        with self._lock:
            self._workers.setdefault(request.worker_id, []).append(worker)
        # Whatever ends it, StopWorker or that its task manager is gone, it leaves no zombie.
        address = _address(environment["CONTROL_API_SERVICE_DESCRIPTOR"])
        threading.Thread(
            target=self._wait, args=(request.worker_id, worker, address), daemon=True
        ).start()
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(
        self, request: beam_fn_api_pb2.StopWorkerRequest, context: grpc.ServicerContext
    ) -> beam_fn_api_pb2.StopWorkerResponse:
        with self._lock:
            workers = list(self._workers.get(request.worker_id, ()))
        # Each task manager counts from 1-1. Of several with the same name, the one that is meant
        # ends by itself, as its task manager closes the connection.
        if len(workers) == 1:
            _stop(workers)
        return beam_fn_api_pb2.StopWorkerResponse()

    def stop(self) -> None:
        """Ends all workers."""
        with self._lock:
            workers = [worker for same in self._workers.values() for worker in same]
        _stop(workers)

    def _wait(
        self, worker_id: str, worker: subprocess.Popen[bytes], address: tuple[str, int]
    ) -> None:
        """Waits for a worker's end, and ends it if it serves nobody any more.

        A worker whose connection breaks ends by itself, unless Beam's shutdown hangs. A worker
        whose task manager goes before it has connected would try forever.
        """
        missed, was_connected = 0, False
        while True:
            try:
                code = worker.wait(self._look_seconds)
                break
            except subprocess.TimeoutExpired:
                is_connected = _is_connected(worker.pid, address[1])
                was_connected = was_connected or is_connected
                serves = is_connected if was_connected else _listens(address)
                missed = 0 if serves else missed + 1
            if missed >= _MISSED_LOOKS:
                why = "it has lost its connection to" if was_connected else "nobody listens at"
                _LOGGER.warning("worker %s is ended: %s %s:%d", worker_id, why, *address)
                _stop([worker])
        _LOGGER.info("worker %s, process %d, ended with code %d", worker_id, worker.pid, code)
        with self._lock:
            same = self._workers[worker_id]
            same.remove(worker)
            if not same:
                del self._workers[worker_id]


def _environment(request: beam_fn_api_pb2.StartWorkerRequest) -> dict[str, str]:
    """Returns what Beam's worker reads from its environment: in a container, its boot program sets
    it.
    """
    with grpc.insecure_channel(request.provision_endpoint.url) as channel:
        info = (
            beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
            .GetProvisionInfo(
                beam_provision_api_pb2.GetProvisionInfoRequest(),
                metadata=[("worker_id", request.worker_id)],
                timeout=_PROVISION_TIMEOUT_SECONDS,
                wait_for_ready=True,
            )
            .info
        )
    environment = {
        "WORKER_ID": request.worker_id,
        "PIPELINE_OPTIONS": json_format.MessageToJson(info.pipeline_options),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
        "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(
            info.control_endpoint if info.HasField("control_endpoint") else request.control_endpoint
        ),
        "LOGGING_API_SERVICE_DESCRIPTOR": text_format.MessageToString(
            info.logging_endpoint if info.HasField("logging_endpoint") else request.logging_endpoint
        ),
    }
    if info.HasField("status_endpoint"):
        environment["STATUS_API_SERVICE_DESCRIPTOR"] = text_format.MessageToString(
            info.status_endpoint
        )
    return environment


def _address(descriptor: str) -> tuple[str, int]:
    """Host and port of an endpoint."""
    endpoint = text_format.Parse(descriptor, endpoints_pb2.ApiServiceDescriptor())
    host, _, port = endpoint.url.rpartition(":")
    return host.strip("[]"), int(port)


def _listens(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, timeout=5):
            return True
    except OSError:
        return False


def _is_connected(pid: int, port: int) -> bool:
    """Returns whether a process has a connection to a port of any host.

    It reads Linux's /proc. Where there is none, no process seems to be connected.
    """
    sockets = set()
    try:
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # It was closed meanwhile.
                sockets.add(os.readlink(path))
        tables = [
            path.read_text()
            for path in (Path(f"/proc/{pid}/net/{name}") for name in ("tcp", "tcp6"))
            if path.exists()  # A kernel without IPv6 has no tcp6.
        ]
    except OSError:  # The process has ended.
        return False
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    return any(
        remote.endswith(f":{port:04X}") and state == _ESTABLISHED and f"socket:[{inode}]" in sockets
        for _, _, remote, state, _, _, _, _, _, inode, *_ in rows
    )


def _stop(workers: list[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        worker.terminate()
    for worker in workers:
        try:
            worker.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            worker.kill()


def main() -> int:
    """Serves until a signal ends it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log_dir", type=Path, required=True)
    parser.add_argument("--mark", help="an argument for the workers, to tell them by")
    options, _ = parser.parse_known_args()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)-5s %(message)s", stream=sys.stderr
    )
    pool = WorkerPool(options.log_dir, options.mark)
    server = grpc.server(
        thread_pool_executor.shared_unbounded_instance(),
        options=[
            # Task managers ping for as long as they live.
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.http2.max_ping_strikes", 0),
            # Two pools must not share a port, each getting some of the calls.
            ("grpc.so_reuseport", 0),
        ],
    )
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    server.add_insecure_port(f"{options.host}:{options.port}")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    server.start()
    _LOGGER.info("ready at %s:%d", options.host, options.port)
    ended.wait()
    server.stop(0)
    pool.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
