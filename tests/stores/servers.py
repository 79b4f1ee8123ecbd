"""Object stores on the loopback, each in a process of its own, and a proxy that makes them fail."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

S3PROXY = "org.gaul:s3proxy:2.6.0:jar:jar-with-dependencies"
KEY_ID, SECRET = "camera-tests", "the-secret-of-the-camera-tests"
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "beam_pipeline"


class NoServerError(RuntimeError):
    """A server that can't be had on this machine, and why."""


@dataclass(frozen=True)
class Server:
    """A store.

    Attributes:
      url: Where it listens.
      scheme: Of the addresses of what it keeps.
      environment: What a program must have in its environment to reach it.
      options: The same as options of the job, where there are any.
    """

    url: str
    scheme: str
    environment: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()

    def behind(self, url: str) -> Server:
        """The same store at another address."""

        def there(text: str) -> str:
            return text.replace(self.url, url)

        environment = {name: there(value) for name, value in self.environment.items()}
        return Server(url, self.scheme, environment, tuple(map(there, self.options)))


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        port: int = any_port.getsockname()[1]
        return port


@contextmanager
def _process(command: list[str], url: str, **environment: str) -> Iterator[None]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **environment}
        )
        try:
            deadline = time.monotonic() + 90
            while True:
                try:
                    requests.get(url, timeout=5)
                    break
                except requests.RequestException:
                    if process.poll() is not None or time.monotonic() > deadline:
                        log.seek(0)
                        log_end = log.read().decode(errors="replace")[-2000:]
                        raise NoServerError(f"{command[0]} does not start: {log_end}") from None
                    time.sleep(0.1)
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _s3(url: str) -> Server:
    secrets = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
    options = ("--s3_endpoint_url", url, "--s3_region_name", "us-east-1")
    return Server(url, "s3", secrets, options)


@contextmanager
def moto() -> Iterator[Server]:
    """S3 by moto's server."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with _process([sys.executable, "-m", "moto.server", "-p", str(port)], url):
        yield _s3(url)


@contextmanager
def s3proxy() -> Iterator[Server]:
    """S3 by s3proxy over a directory: another implementation, which checks signatures.

    Raises:
      NoServerError: There is no Java, or Maven can't fetch it.
    """
    java = shutil.which("java")
    if java is None:
        raise NoServerError("s3proxy needs Java, and there is no `java`")
    jar = _maven_jar(S3PROXY, _CACHE / "tests")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "kept").mkdir()
        properties = Path(folder) / "s3proxy.conf"
        properties.write_text(
            f"s3proxy.endpoint={url}\n"
            "s3proxy.authorization=aws-v2-or-v4\n"
            f"s3proxy.identity={KEY_ID}\ns3proxy.credential={SECRET}\n"
            "jclouds.provider=filesystem-nio2\n"
            "jclouds.identity=any\njclouds.credential=any\n"
            f"jclouds.filesystem.basedir={folder}/kept\n"
        )
        command = [java, "-Xmx256m", "-jar", str(jar), "--properties", str(properties)]
        with _process(command, url):
            yield _s3(url)


def _maven_jar(artifact: str, folder: Path) -> Path:
    _, name, version, kind, classifier = artifact.split(":")
    jar = folder / f"{name}-{version}-{classifier}.{kind}"
    if jar.exists():
        return jar
    maven = shutil.which("mvn")
    if maven is None:
        raise NoServerError(f"{artifact} comes by Maven, and there is no `mvn`")
    done = subprocess.run(
        [
            *(maven, "-q", "-B", "dependency:copy"),
            *(f"-Dartifact={artifact}", f"-DoutputDirectory={folder}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NoServerError(f"Maven can't fetch {artifact}: {done.stdout[-500:]}")
    return jar


@contextmanager
def gcs() -> Iterator[Server]:
    """Google Cloud Storage by gcp-storage-emulator."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = ["start", "--host=127.0.0.1", f"--port={port}", "--in-memory"]
    start = f"from gcp_storage_emulator.__main__ import main; main({arguments})"
    with _process([sys.executable, "-c", start], url):
        yield Server(url, "gs", {"STORAGE_EMULATOR_HOST": url})


Decide = Callable[[str, str], int | None]
"""Of a request's method and path: the status to answer with, or None to pass it on."""


class _Handler(BaseHTTPRequestHandler):
    server: _ProxyServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.upstream = http.client.HTTPConnection(self.server.host, timeout=60)

    def finish(self) -> None:
        self.upstream.close()
        super().finish()

    def _pass_on(self) -> None:
        body = self._body()
        with self.server.proxy._lock:
            self.server.proxy.requests.append((self.command, self.path))
            self.server.proxy.received += len(body)
            status = self.server.proxy.decide(self.command, self.path)
            self.server.proxy.refused += status is not None
        time.sleep(self.server.proxy.delay)
        if status is not None:
            self._answer(status, {}, _says(self.server.scheme, status))
            return
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in ("transfer-encoding", "connection", "expect")
        }
        headers["Content-Length"] = str(len(body))
        self.upstream.request(self.command, self.path, body, headers)
        answer = self.upstream.getresponse()
        self._answer(answer.status, dict(answer.getheaders()), answer.read())

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response_only(status)
        left_out = ("transfer-encoding", "connection")
        for name, value in headers.items():
            if name.lower() not in left_out and not (
                name.lower() == "content-length" and self.command != "HEAD"
            ):
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on

    def log_message(self, *_: Any) -> None:
        pass


class _ProxyServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, proxy: Proxy, upstream: Server) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy
        self.host = urlsplit(upstream.url).netloc
        self.scheme = upstream.scheme

    def handle_error(self, *_: Any) -> None:
        """A client that goes away is no news."""


class Proxy:
    """Stands before a store, and delays or refuses what a test says.

    Attributes:
      delay: Seconds that each request is held up.
      decide: Which requests are refused, and how.
      requests: Method and path of each request that came.
      received: The number of bytes in the bodies of all requests.
    """

    def __init__(self, upstream: Server) -> None:
        self.delay = 0.0
        self.decide: Decide = lambda method, path: None
        self.requests: list[tuple[str, str]] = []
        self.received = 0
        self.refused = 0
        self._lock = threading.Lock()
        self._server = _ProxyServer(self, upstream)
        self.server = upstream.behind(f"http://127.0.0.1:{self._server.server_address[1]}")
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _says(scheme: str, status: int) -> bytes:
    """What a store says when it refuses."""
    if scheme == "gs":
        return b'{"error": {"code": %d, "message": "refused by the test"}}' % status
    code = {403: "AccessDenied", 503: "SlowDown"}.get(status, "InternalError")
    return (
        f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code>"
        "<Message>refused by the test</Message></Error>"
    ).encode()
