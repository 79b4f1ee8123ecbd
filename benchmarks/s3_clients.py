"""Clients of S3: the processor time of a request, and where obstore differs from boto3.

`python -m benchmarks.s3_clients` measures the job's own reads and writes (boto3), requests by
botocore's signer and connections alone, and those of obstore, if it is installed. Then boto3 and
obstore make the same requests to a server whose answers tell them apart.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote

from benchmarks.processor_time import ProcessorTime
from tests.stores.bucket import Bucket, s3_client
from tests.stores.servers import KEY_ID, SECRET, s3proxy
from transforms.storage.object_stores import S3Settings, S3Store

_THREADS = 16
_REGION = "us-east-1"
_READ, _WRITTEN = 100_000, 3_000
_SIGNAL, _SLOW = 0.5, 3.0
_HANGS = 5.0


@dataclass(frozen=True)
class Client:
    """Reads and writes objects of one bucket.

    Attributes:
      name: For the tables.
      read: Returns the bytes of a key.
      write: Writes bytes under a key.
    """

    name: str
    read: Callable[[str], bytes]
    write: Callable[[str, bytes], object]


def boto3_client(url: str, bucket: str) -> Client:
    """The job's own reads and writes."""
    store = S3Store(S3Settings(url, _REGION, KEY_ID, SECRET), patient=False)
    return Client(
        "boto3",
        lambda key: store.read(f"s3://{bucket}/{key}"),
        lambda key, data: store.write(f"s3://{bucket}/{key}", data, "application/json"),
    )


def signer_client(url: str, bucket: str) -> Client:
    """botocore's signature and connections, without what boto3 does around them."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials
    from botocore.httpsession import URLLib3Session

    session = URLLib3Session(max_pool_connections=_THREADS)
    signer = S3SigV4Auth(Credentials(KEY_ID, SECRET), "s3", _REGION)

    def request(method: str, key: str, data: bytes | None = None) -> bytes:
        address = f"{url}/{bucket}/{quote(key, safe='/~')}"
        made = AWSRequest(method=method, url=address, data=data)
        signer.add_auth(made)
        answer = session.send(made.prepare())
        if answer.status_code != 200:
            raise OSError(answer.status_code)
        return bytes(answer.content)

    return Client(
        "botocore's signer and connections",
        lambda key: request("GET", key),
        lambda key, data: request("PUT", key, data),
    )


def obstore_client(url: str, bucket: str) -> Client | None:
    """obstore, if it is installed."""
    try:
        from obstore.store import S3Store as Obstore  # type: ignore[import-not-found]
    except ImportError:
        return None
    store = Obstore(
        bucket,
        endpoint=url,
        region=_REGION,
        access_key_id=KEY_ID,
        secret_access_key=SECRET,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    kind = {"Content-Type": "application/json"}
    return Client(
        "obstore",
        lambda key: bytes(store.get(key).bytes()),
        lambda key, data: store.put(key, data, attributes=kind, use_multipart=False),
    )


def clients(url: str, bucket: str) -> list[Client]:
    """All that are installed."""
    made = [make(url, bucket) for make in (boto3_client, signer_client, obstore_client)]
    return [client for client in made if client]


def costs(requests: int, rounds: int) -> None:
    """The processor time of this process for a read and a write, in turn."""
    measured: dict[str, tuple[list[float], list[float]]] = {}
    with s3proxy() as server, ThreadPoolExecutor(_THREADS) as pool:
        bucket = Bucket.make(server, "requests-to-measure")
        data = os.urandom(_READ)
        s3_client(server).put_object(Bucket=bucket.name, Key="one.jpg", Body=data)
        made = clients(server.url, bucket.name)
        for turn in range(rounds + 1):
            for client in made:
                times = []
                for one in (
                    lambda number, read=client.read: read("one.jpg"),
                    lambda number, write=client.write: write(f"{number}.json", data[:_WRITTEN]),
                ):
                    processor = ProcessorTime()
                    list(pool.map(one, range(requests)))
                    times.append(processor.ms_per(requests))
                if turn:  # The first one warms up the server and the connections.
                    for row, value in zip(
                        measured.setdefault(client.name, ([], [])), times, strict=True
                    ):
                        row.append(value)
    print(f"\n### Clients of S3: {rounds} rounds of {requests} requests in turn, s3proxy\n")
    print(f"| ms of processor time, {_THREADS} threads | read of 100 kB | write of 3 kB |")
    print("|---|---|---|")
    for name, both in measured.items():
        cells = (f"{statistics.median(v):.2f} ({min(v):.2f} to {max(v):.2f})" for v in both)
        print(f"| {name} | {' | '.join(cells)} |")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path.removeprefix("/b/"), dict(self.headers)))
        if self.path.endswith("slow"):
            time.sleep(_SLOW)
        redirected = self.path.endswith("moved")
        body = b"" if redirected else b"bytes"
        self.send_response(302 if redirected else 200)
        if redirected:
            self.send_header("Location", "/elsewhere")
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Sat, 31 Jan 2026 18:00:00 GMT")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    """Keeps the path and the headers of each request."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, dict[str, str]]] = []


def differences() -> None:
    """What each client makes of the same, on a server of its own."""
    with _Server() as server, _session_token():
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        made = [make(url, "b") for make in (boto3_client, obstore_client)]
        columns = {client.name: _answers(client, server) for client in made if client}
        server.shutdown()
    print(f"\n| | {' | '.join(columns)} |")
    print(f"|---|{'---|' * len(columns)}")
    for what in next(iter(columns.values())):
        print(f"| {what} | {' | '.join(column[what] for column in columns.values())} |")


@contextlib.contextmanager
def _session_token() -> Iterator[None]:
    before = os.environ.get("AWS_SESSION_TOKEN")
    os.environ["AWS_SESSION_TOKEN"] = "of-other-keys"
    try:
        yield
    finally:
        del os.environ["AWS_SESSION_TOKEN"]
        if before is not None:
            os.environ["AWS_SESSION_TOKEN"] = before


def _answers(client: Client, server: _Server) -> dict[str, str]:
    def asked_for(key: str) -> str:
        server.asked.clear()
        try:
            client.read(key)
        except (OSError, ValueError) as error:
            return type(error).__name__
        return f"`GET {server.asked[-1][0]}`"

    answers = {f"read of the key `{key}`": asked_for(key) for key in ("a/", "/a", "a//b", "a/./b")}
    answers["read that is answered with a redirection (302)"] = _outcome(client, "moved")
    tokens = any("x-amz-security-token" in map(str.lower, h) for _, h in server.asked)
    answers["AWS_SESSION_TOKEN, with keys that do not come from the environment"] = (
        "is sent" if tokens else "is not sent"
    )
    answers["signal while a read waits"] = (
        "is handled at once" if _seconds_to_handle(client) < _SLOW else "is handled after the read"
    )
    answers["read in a forked process"] = _in_fork(client)
    return answers


def _outcome(client: Client, key: str) -> str:
    try:
        return f"{len(client.read(key))} bytes from elsewhere"
    except OSError as error:
        return type(error).__name__


def _seconds_to_handle(client: Client) -> float:
    handled: list[float] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: handled.append(time.monotonic()))
    begun = time.monotonic()
    threading.Timer(_SIGNAL, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    client.read("slow")
    signal.signal(signal.SIGUSR1, before)
    return handled[0] - begun


def _in_fork(client: Client) -> str:
    child = os.fork()
    if not child:
        os._exit(0 if client.read("a") == b"bytes" else 1)
    deadline = time.monotonic() + _HANGS
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return "its bytes" if status == 0 else "fails"
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "never ends"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.s3_clients", description=__doc__)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if args.rounds:
        costs(args.requests, args.rounds)
    differences()


if __name__ == "__main__":
    main()
