"""Commands of `python -m beam_pipeline` as processes that need not import anything.

A job of a few images is mostly imports: of five seconds of a processor, TensorFlow and Beam take
four. One process of a test run imports them, and is copied (`fork`) for each command. A command has
a process, arguments, an environment, a directory and standard streams of its own as before, but for
variables that are read by imports, such as `TF_CPP_MIN_LOG_LEVEL`. What happens at the very start
of a process, and at a signal during it, is seen only in a new interpreter.

`python -m tests.warm SOCKET` is that process. A command ends when whoever asked for it does.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests import once
from tests.warm_client import LARGEST, ask

ROOT = Path(__file__).resolve().parents[1]
_SOCKET, _PID = "socket", "pid"


def run(
    arguments: Sequence[str], cwd: Path | None, environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, as `subprocess.run` does.

    Args:
      arguments: What follows `python -m beam_pipeline`.
      cwd: Its directory; None for that of the tests.
      environment: All of its environment.
      timeout: Seconds.

    Raises:
      TimeoutError: It took longer, and was killed.
    """
    with (
        open(os.devnull, "rb") as nothing,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        files = [nothing.fileno(), out.fileno(), err.fileno()]
        code = ask(_server(), arguments, cwd or Path.cwd(), environment, files, timeout)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess(list(arguments), code, *texts)


def interpreter() -> Path:
    """A program that is called as Python is, and runs `-m beam_pipeline` without its imports."""
    program = _server().with_name("python")
    if not program.exists():
        own = [sys.executable, "-S", "-E", str(Path(__file__).with_name("warm_client.py"))]
        partial = program.with_name(f"python-{os.getpid()}")
        partial.write_text(f'#!/bin/sh\nexec {shlex.join([*own, str(_server())])} "$@"\n')
        partial.chmod(0o755)
        partial.rename(program)
    return program


def stop(folder: Path) -> None:
    """Ends the process that was started in a directory."""
    with suppress(OSError, ValueError):
        os.kill(int((folder / _PID).read_text()), signal.SIGKILL)


def _server() -> Path:
    return once.once("warm", _start) / _SOCKET


def _start(folder: Path) -> None:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm", str(folder / _SOCKET)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )
    (folder / _PID).write_text(str(process.pid))
    deadline = time.monotonic() + 200
    while not (folder / _SOCKET).exists():
        assert process.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _import() -> None:
    """What the commands import; each imports the rest itself."""
    from beam_pipeline import cli
    from transforms.models.tensorflow_runtime import load_tensorflow

    for command in cli.COMMANDS:
        importlib.import_module(f"beam_pipeline.commands.{command}")
    for module in (
        *("beam_pipeline.job.run", "beam_pipeline.fleet.chart", "beam_pipeline.pages.report"),
        *("apache_beam.runners.portability.fn_api_runner.fn_runner", "matplotlib.figure"),
        *("matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg"),
    ):
        importlib.import_module(module)
    load_tensorflow()


def _serve(path: Path) -> None:
    """Copies this process for each request, until the socket is removed."""
    _import()
    partial = path.with_name("starting")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
        selectors.DefaultSelector() as waiting,
    ):
        listener.bind(str(partial))
        listener.listen(64)
        partial.rename(path)
        waiting.register(listener, selectors.EVENT_READ)
        running: dict[int, socket.socket] = {}
        while path.exists():
            for key, _ in waiting.select(0.02 if running else 1):
                if key.fileobj is not listener:
                    asking = key.fileobj
                    gone = [pid for pid, connection in running.items() if connection is asking]
                    for pid in gone:
                        os.kill(pid, signal.SIGKILL)
                    waiting.unregister(asking)
                    continue
                connection, _ = listener.accept()
                message, files, _, _ = socket.recv_fds(connection, LARGEST, 3)
                pid = os.fork()
                if pid == 0:
                    waiting.close()
                    listener.close()
                    for other in (connection, *running.values()):
                        other.close()
                    _become(json.loads(message), files)
                for file in files:
                    os.close(file)
                with suppress(OSError):
                    connection.send(str(pid).encode())
                running[pid] = connection
                waiting.register(connection, selectors.EVENT_READ)
            for pid in list(running):
                ended, how = os.waitpid(pid, os.WNOHANG)
                if ended:
                    connection = running.pop(pid)
                    with suppress(OSError):
                        connection.send(str(os.waitstatus_to_exitcode(how)).encode())
                    with suppress(KeyError):
                        waiting.unregister(connection)
                    connection.close()


def _become(request: Mapping[str, object], files: Sequence[int]) -> None:
    """Turns this copy into the command, and ends with it.

    Raises:
      SystemExit: At its end.
    """
    for own, given in enumerate(files):
        os.dup2(given, own)
        os.close(given)
    os.environ.clear()
    os.environ.update(request["environment"])  # type: ignore[call-overload]
    time.tzset()
    os.chdir(str(request["cwd"]))
    sys.argv[1:] = request["arguments"]  # type: ignore[assignment]
    runpy.run_module("beam_pipeline", run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
