"""Exchanges with a service: one deadline for the whole exchange, and the service's answers.

Socket timeouts apply to one answer or a part of one. A server that sends bytes slowly, a name
server that hangs, or Apprise's own pauses can exceed them. So each exchange runs in its own thread.
At the deadline, its connections are shut down, whichever library has opened them, and new
connections are refused, so that the thread ends too. It is a daemon: no process waits for it.

Connections are observed by Python's audit event `socket.connect`. Answers are observed where
`requests` and `smtplib` read them: Apprise sends by these libraries, and reports only that it
failed.
"""

from __future__ import annotations

import functools
import os
import queue
import smtplib
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, TypeVar

import requests

from transforms.alerting.answers import Answer
from transforms.alerting.withheld_logs import logs_withheld

T = TypeVar("T")

_MAX_CONCURRENT = 32
"""The number of unfinished exchanges with one service; each has a thread."""


class NoAnswerError(Exception):
    """An exchange did not end by its deadline."""


class TooManyExchangesError(Exception):
    """Too many earlier exchanges with the service have not ended."""


class Exchange:
    """The state of one exchange.

    Attributes:
      answers: The answers, in order.
      connections: The number of connections that were started.
      unanswered: The number of HTTP requests without an answer.
    """

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.connections = 0
        self.unanswered = 0
        self._lock = threading.Lock()
        self._open: list[int] = []
        self._has_ended = False

    def add_connection(self, connecting: socket.socket) -> None:
        """Records a connection.

        Raises:
          TimeoutError: The exchange has ended.
        """
        with self._lock:
            if self._has_ended:
                raise TimeoutError("the exchange has ended")
            self.connections += 1
            # A copy: TLS detaches the socket from the object that was connected.
            with suppress(OSError):
                self._open.append(os.dup(connecting.fileno()))

    def shut_down(self) -> None:
        """Shuts its connections down, which wakes all readers and writers."""
        self._end(shut_down=True)

    def close(self) -> None:
        """Releases its connections, which the libraries that opened them have closed."""
        self._end(shut_down=False)

    def _end(self, *, shut_down: bool) -> None:
        with self._lock:
            self._has_ended = True
            for copy in self._open:
                with suppress(OSError), socket.socket(fileno=copy) as connection:
                    if shut_down:
                        connection.shutdown(socket.SHUT_RDWR)
            self._open.clear()


_current: ContextVar[Exchange | None] = ContextVar("exchange", default=None)


class Exchanges:
    """Runs exchanges with one service. Thread-safe.

    Args:
      seconds: The time limit of each exchange.
      max_concurrent: The number of unfinished exchanges, with those that exceeded their deadline.
    """

    def __init__(self, seconds: float, max_concurrent: int = _MAX_CONCURRENT) -> None:
        self._seconds = seconds
        self._slots = threading.BoundedSemaphore(max_concurrent)

    def run(self, work: Callable[[Exchange], T]) -> T:
        """Runs an exchange and returns its result. Log lines of libraries are withheld meanwhile.

        Raises:
          NoAnswerError: The exchange did not end in time, and was shut down.
          TooManyExchangesError: The exchange was not started.
          RuntimeError: The process can't start another thread.
          Exception: The exception that the work raises.
        """
        if not self._slots.acquire(blocking=False):
            raise TooManyExchangesError
        exchange = Exchange()
        ended: queue.SimpleQueue[Callable[[], T]] = queue.SimpleQueue()

        def work_in_thread() -> None:
            _current.set(exchange)
            try:
                with logs_withheld():
                    result = work(exchange)
                ended.put(lambda: result)
            except Exception as error:
                ended.put(functools.partial(_raise, error))
            finally:
                exchange.close()
                self._slots.release()

        try:
            threading.Thread(target=work_in_thread, name="exchange", daemon=True).start()
        except RuntimeError:
            self._slots.release()
            raise
        try:
            return ended.get(timeout=self._seconds)()
        except queue.Empty:
            exchange.shut_down()
            raise NoAnswerError from None


def _raise(error: Exception) -> Any:
    raise error


def _record_connection(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.connect" and (exchange := _current.get()) is not None:
        exchange.add_connection(args[0])


def _recording_answers(send: Callable[..., requests.Response]) -> Callable[..., requests.Response]:
    @functools.wraps(send)
    def recording(*args: Any, **kwargs: Any) -> requests.Response:
        exchange = _current.get()
        if exchange is None:
            return send(*args, **kwargs)
        try:
            response = send(*args, **kwargs)
        except BaseException:
            exchange.unanswered += 1
            raise
        exchange.answers.append(Answer("HTTP", response.status_code, response.headers))
        return response

    return recording


def _recording_replies(
    read: Callable[[smtplib.SMTP], tuple[int, bytes]],
) -> Callable[[smtplib.SMTP], tuple[int, bytes]]:
    @functools.wraps(read)
    def recording(self: smtplib.SMTP) -> tuple[int, bytes]:
        code, text = read(self)
        if (exchange := _current.get()) is not None:
            exchange.answers.append(Answer("SMTP", code, {}))
        return code, text

    return recording


# These hooks are global, as Apprise's services create a session for each request.
sys.addaudithook(_record_connection)
_Adapter = requests.adapters.HTTPAdapter
setattr(_Adapter, "send", _recording_answers(_Adapter.send))  # noqa: B010
setattr(smtplib.SMTP, "getreply", _recording_replies(smtplib.SMTP.getreply))  # noqa: B010
