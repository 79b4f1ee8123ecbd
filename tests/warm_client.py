"""`python` for documented commands: `-m beam_pipeline` without its imports (tests/warm.py).

It imports next to nothing itself, and leaves everything else to Python.
"""

import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence

LARGEST = 1 << 20
"""Bytes of a request."""


def ask(
    server: str | os.PathLike[str],
    arguments: Sequence[str],
    cwd: str | os.PathLike[str],
    environment: Mapping[str, str],
    files: Sequence[int],
    timeout: float | None = None,
    hands_on: Sequence[signal.Signals] = (),
) -> int:
    """Has a command run; returns its exit code, negative for a signal.

    Args:
      server: The socket of the process that is copied.
      arguments: What follows `python -m beam_pipeline`.
      cwd: Its directory.
      environment: All of its environment.
      files: The descriptors of its standard input, output and error.
      timeout: After how many seconds it is killed; None: never.
      hands_on: Signals to this process that are for the command.

    Raises:
      TimeoutError: It was.
    """
    request = {
        "arguments": list(arguments),
        "cwd": os.fspath(cwd),
        "environment": dict(environment),
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGEST)
        connection.settimeout(timeout)
        connection.connect(os.fspath(server))
        socket.send_fds(connection, [json.dumps(request).encode()], list(files))
        pid = int(connection.recv(16))
        for number in hands_on:
            signal.signal(number, lambda received, _: os.kill(pid, received))
        answer = connection.recv(16)
    assert answer, "the process that is copied has ended"
    return int(answer)


if __name__ == "__main__":
    _, server, *words = sys.argv
    if words[:2] != ["-m", "beam_pipeline"]:
        os.execv(sys.executable, [sys.executable, *words])
    told = (signal.SIGINT, signal.SIGTERM)
    sys.exit(ask(server, words[2:], os.getcwd(), os.environ, (0, 1, 2), hands_on=told))
