"""A web server on the loopback that answers as a test wants, and keeps what it was asked."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Request:
    """What was asked, and when by the monotonic clock."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float


Answer = Callable[[BaseHTTPRequestHandler, Request], None]


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    """An answer of this status; `retry_after` becomes the header `Retry-After`."""

    def answer(handler: BaseHTTPRequestHandler, request: Request) -> None:
        handler.send_response(code)
        for name, value in {"content_length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-").title(), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


class WebService:
    """The server.

    Args:
      tls: The server's side of TLS; None for plain HTTP.

    Attributes:
      answers: The answers to the next requests, in order; the last one stays. A function may be
        given instead of a list, which is called for each request.
      requests: What was asked.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.answers: list[Answer] = [status(200)]
        self.requests: list[Request] = []
        self.ended = threading.Event()
        self._lock = threading.Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                request = Request(
                    self.command, self.path, dict(self.headers), body, time.monotonic()
                )
                with service._lock:
                    service.requests.append(request)
                    answers = service.answers
                    answer = answers.pop(0) if len(answers) > 1 else answers[0]
                with contextlib.suppress(OSError):  # The client may have gone.
                    answer(self, request)

            do_GET = do_POST = _answer

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 64  # Connections at once, before a client has to knock again.

            def handle_error(self, *_: Any) -> None:
                """A client that goes away is no news."""

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> WebService:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def hang(self, handler: BaseHTTPRequestHandler, request: Request) -> None:
        """No answer, until the server ends."""
        self.ended.wait(60)
        handler.close_connection = True

    def drip(self, handler: BaseHTTPRequestHandler, request: Request) -> None:
        """An answer whose headers come a letter at a time, until the server ends."""
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while not self.ended.wait(0.05):
            handler.wfile.write(b".")
        handler.close_connection = True

    def stop(self) -> None:
        """Ends the server: connections are refused from now on."""
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
