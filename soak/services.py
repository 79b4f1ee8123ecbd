"""An alert service that can be made to fail, and keeps a log of what it has taken."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from soak.recount import Accepted

RATE, RATE_SECONDS = 5, 2.0
"""What a busy service takes: so many messages in so many seconds."""


class AlertService:
    """Takes messages at an address that stays the same.

    Args:
      name: For the log.
      log: A JSON object a line for each message that was taken.

    Attributes:
      target: The name by which records call it; the caller sets it.
      accepted: What it has taken, in order.
      refused: How many it has not.
    """

    def __init__(self, name: str, log: Path) -> None:
        self.name, self.target = name, name
        self.accepted: list[Accepted] = []
        self.refused = 0
        self._log = log.open("a")
        self._lock = threading.Lock()
        self._mode = "well"
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self._lately: deque[float] = deque()
        self.listen()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}/{self.name}"

    def listen(self) -> None:
        """Listens, at the port that it had."""
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with contextlib.suppress(OSError):
                    service._answer(self, body)

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads, block_on_close, request_queue_size = True, False, 64

            def handle_error(self, *_: Any) -> None:
                """A client that goes away is no news."""

        self._server = Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def stop(self) -> None:
        """Listens no more: connections are refused."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """Connections are refused."""
        self.stop()
        try:
            yield
        finally:
            self.listen()

    @contextlib.contextmanager
    def answering(self, mode: str) -> Iterator[None]:
        """Answers otherwise: `503`, or `429` with a pause, but for a few messages a second."""
        self._mode = mode
        try:
            yield
        finally:
            self._mode = "well"

    def _answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        with self._lock:
            code = 200 if self._mode == "well" else 503
            if self._mode == "429":
                now = time.monotonic()
                while self._lately and self._lately[0] < now - RATE_SECONDS:
                    self._lately.popleft()
                code = 429 if len(self._lately) >= RATE else 200
                if code == 200:
                    self._lately.append(now)
            if code == 200:
                self._take(handler, body)
            else:
                self.refused += 1
        handler.send_response(code)
        if code == 429:
            handler.send_header("Retry-After", "1")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def _take(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        said = json.loads(body)
        kept = {
            name: said.get(name) for name in ("alert_id", "id", "timestamp", "severity", "digest")
        }
        key = handler.headers.get("Idempotency-Key", "")
        self.accepted.append(Accepted(self.target, key, kept))
        self._log.write(json.dumps({"at": time.time(), "key": key, **kept}) + "\n")
        self._log.flush()
