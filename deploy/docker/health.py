"""Whether a container of the image is well: exit code 0, or 1 if its worker pool does not listen.

A batch job or a single worker has nothing to be asked by: it is well as long as it runs.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

WORKER_POOL_PORT = 50000
_TIMEOUT_SECONDS = 5


def is_worker_pool(command: bytes) -> bool:
    """Returns whether a process's command line, as in /proc/PID/cmdline, is that of boot's worker
    pool.
    """
    return any(
        argument.lstrip(b"-").partition(b"=")[0] == b"worker_pool"
        for argument in command.split(b"\0")
        if argument.startswith(b"-")
    )


def main() -> int:
    """Looks at the container's first process, and at the port if that is a worker pool."""
    if not is_worker_pool(Path("/proc/1/cmdline").read_bytes()):
        return 0
    with socket.socket() as connection:
        connection.settimeout(_TIMEOUT_SECONDS)
        return int(connection.connect_ex(("127.0.0.1", WORKER_POOL_PORT)) != 0)


if __name__ == "__main__":
    sys.exit(main())
