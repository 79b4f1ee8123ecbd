"""The set-up of the command `serve`, and its server."""

from __future__ import annotations

import argparse
import errno
import hashlib
import ipaddress
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from beam_pipeline.console import ending
from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.fleet.marking import user_name
from beam_pipeline.inputs import paths
from beam_pipeline.inputs.preflight import check_arguments
from beam_pipeline.web.access.guarding import LOCAL_HOSTS, Access, Network
from beam_pipeline.web.access.users import ADMIN, Person, Users
from beam_pipeline.web.app import make_app
from beam_pipeline.web.output.following import FleetFollower, Follower, RulesFollower
from beam_pipeline.web.output.index import Index
from beam_pipeline.web.output.pictures import COPIES, Pictures
from beam_pipeline.web.pages.console import Console, Live
from transforms.records.text import one_line
from transforms.storage import stores

_FOLDERS = ("final", "detections", "packed", "counts", "alerts", "invalid")
_LOOPBACK = ("127.0.0.0/8", "::1/128")
_SECONDS_FOR_WRITES = 2.0
_HEADER = re.compile(r"[A-Za-z0-9-]{1,100}")


class _Server(uvicorn.Server):
    """A server that says where it listens, and leaves signals to the command."""

    def __init__(self, config: uvicorn.Config, line: str) -> None:
        super().__init__(config)
        self._line = line

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to `beam_pipeline.console.ending`."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts, and says where it listens."""
        await super().startup(sockets)
        print(self._line, flush=True)


@dataclass(frozen=True)
class Prepared:
    """A console that can be served.

    Attributes:
      console: What its routes share.
      server: The server.
      listening: The socket on which it listens already.
    """

    console: Console
    server: uvicorn.Server
    listening: socket.socket

    @property
    def address(self) -> str:
        """The address of the console on this machine."""
        return _address(self.listening)

    def run(self) -> None:
        """Serves until the server is told to exit."""
        self.server.run([self.listening])


def prepare(parsed: argparse.Namespace) -> Prepared:
    """Checks the set-up, and listens.

    Raises:
      SetupError: What a person must correct, in one line.
    """
    output = paths.absolute("--output", parsed.output)
    check_arguments([output], rules=parsed.rules, labels=parsed.labels)
    _check_output(output)
    access = _access(parsed)
    rules_file = RulesFollower(parsed.rules, parsed.labels)
    index = _open_index(parsed.index, output)
    listening = _listen(parsed.bind, parsed.port)
    live = Live()
    follower = Follower(index, parsed.poll_interval_seconds, rules_file, live.publish)
    console = Console(
        output=output,
        labels=parsed.labels,
        index=index,
        follower=follower,
        fleet=FleetFollower(output, parsed.report_period_hours, rules_file),
        rules_file=rules_file,
        live=live,
        pictures=Pictures(output),
    )
    config = uvicorn.Config(
        make_app(console, access, threading.Event()),
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        ws="none",
        loop="asyncio",
        http="h11",
    )
    line = f"serving {output} at {_address(listening)}"
    return Prepared(console, _Server(config, line), listening)


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def serve(parsed: argparse.Namespace) -> int:
    """Serves the console until a signal ends the process.

    Raises:
      SetupError: What a person must correct, in one line.
    """
    prepared = prepare(parsed)
    with (
        ending.last_line("serve: stopped"),
        ending.before_end(COPIES.delete),
        ending.before_end(lambda: stores.finish_writes(_SECONDS_FOR_WRITES)),
    ):
        prepared.run()
    return 0


def _check_output(output: str) -> None:
    try:
        is_one = any(stores.has_files(stores.join(output, folder)) for folder in _FOLDERS)
    except OSError as error:
        raise SetupError(f"--output {output}: can't be listed ({one_line(error)})") from None
    if not is_one:
        raise SetupError(
            f"--output {output}: is no output of a job, as none of {', '.join(_FOLDERS)} is in it; "
            f"run the job first: python -m beam_pipeline run --input IMAGES --output {output}"
        )


def _access(parsed: argparse.Namespace) -> Access:
    users = None if parsed.users is None else Users(parsed.users)
    if users is not None and not users.names():
        raise SetupError(f"--users {parsed.users}: names no user; add one by `serve users add`")
    is_local = _is_loopback(parsed.bind)
    if users is None and parsed.trusted_header is None:
        if not is_local:
            raise SetupError(
                f"--bind {parsed.bind}: other machines reach this address, so give --users FILE "
                "with those who may log in (`serve users add` makes one), or --trusted_header NAME "
                "behind a proxy that logs people in"
            )
        return Access(local=Person(user_name(), ADMIN), hosts=frozenset(LOCAL_HOSTS))
    if parsed.trusted_header is not None and not _HEADER.fullmatch(parsed.trusted_header):
        raise SetupError("--trusted_header: give the name of a header, such as X-Forwarded-User")
    proxies = tuple(_network(text) for text in parsed.trusted_proxies or _LOOPBACK)
    return Access(users=users, trusted_header=parsed.trusted_header, proxies=proxies)


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise SetupError(
            f"--trusted_proxy {text}: is no address or network, such as 10.0.0.0/8"
        ) from None


def _is_loopback(bind: str) -> bool:
    if bind == "localhost":
        return True
    try:
        return ipaddress.ip_address(bind).is_loopback
    except ValueError:
        return False


def _open_index(folder: str | None, output: str) -> Index:
    if folder is None:
        caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        folder = os.path.join(caches, "beam_pipeline", "console")
    paths.writable_folder("--index", folder)
    name = hashlib.sha256(output.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    try:
        return Index(Path(folder) / f"{name}.sqlite", output)
    except OSError as error:
        raise SetupError(f"--index {error}") from None


def _listen(bind: str, port: int) -> socket.socket:
    """Returns a socket that listens.

    Raises:
      SetupError: The port is in use, or the address is not one of this machine.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            bind, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(socket.SOMAXCONN)
        return listening
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SetupError(
                f"--port {port}: another program listens there on {bind}; choose another port"
            ) from None
        raise SetupError(
            f"--bind {bind} --port {port}: can't listen there ({error.strerror or error})"
        ) from None
