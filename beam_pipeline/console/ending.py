"""Ends a command on a signal: within seconds, with one line, and with no partial file.

SIGINT and SIGTERM are handled from the first import on, also where nothing would handle them
otherwise: the kernel drops a signal to process 1, which each container's program is, unless that
process has a handler for it.

Nothing but the standard library is imported here, so that the handlers are installed
before anything else.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SECONDS = 4.0
"""The process ends after this many seconds, even if work is left."""
_SECONDS_FOR_CHILDREN = 2.0

_standard_error = 2
"""A copy of it, once :func:`install` has made one: while TensorFlow is loaded, descriptor 2 leads
elsewhere, and the last line must not go there."""

_last_lines = ["stopped"]
_cleanups: list[Callable[[], object]] = []


def install() -> None:
    """Handles SIGINT and SIGTERM in this process. Called in the main thread."""
    global _standard_error
    with suppress(OSError):  # It is closed.
        _standard_error = os.dup(2)
    for number in _SIGNALS:
        signal.signal(number, _stop)


@contextmanager
def last_line(line: str) -> Iterator[None]:
    """Sets the line that the process writes last if a signal ends it during this block."""
    _last_lines.append(line)
    try:
        yield
    finally:
        _last_lines.pop()


@contextmanager
def before_end(work: Callable[[], object]) -> Iterator[None]:
    """Does some work if the process ends by a signal, or by :func:`end`, during this block.

    Args:
      work: Takes at most a second or two, in any thread.
    """
    _cleanups.append(work)
    try:
        yield
    finally:
        _cleanups.remove(work)


def end(code: int, line: str) -> NoReturn:
    """Ends the process at once, from any thread, with one line on standard error.

    Its child processes end too. Threads are not waited for: what they write appears whole or not
    at all.

    Args:
      code: The exit code.
      line: The line.
    """
    for number in _SIGNALS:
        with suppress(ValueError):  # Not in the main thread: the first of two ends wins.
            signal.signal(number, signal.SIG_IGN)
    # Threads of a runner whose other end has gone would complain.
    threading.excepthook = lambda _: None
    try:
        with suppress(RuntimeError):  # Python itself is ending, and starts no thread any more.
            timer = threading.Timer(_SECONDS, os._exit, (code,))
            timer.daemon = True
            timer.start()
        # Not by `print`, which must not be called while it is at work: this may be a handler.
        with suppress(OSError):
            os.write(_standard_error, f"{_new_line()}{line}\n".encode(errors="backslashreplace"))
        for work in reversed(_cleanups):
            with suppress(Exception):
                work()
        _end_children()
    finally:
        os._exit(code)


def _stop(number: int, _: object) -> NoReturn:
    end(128 + number, _last_lines[-1])


def _new_line() -> str:
    """Leaves the line of a progress bar, and of what a terminal shows for Ctrl-C."""
    return "\n" if os.isatty(_standard_error) else ""


def _end_children() -> None:
    """Ends the processes that this one has started, and theirs."""
    left = _descendants(os.getpid())
    for number, seconds in ((signal.SIGTERM, _SECONDS_FOR_CHILDREN), (signal.SIGKILL, 0.5)):
        for pid in left:
            with suppress(OSError):
                os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while left and time.monotonic() < deadline:
            time.sleep(0.02)
            left = [pid for pid in left if _state(pid) not in (None, "Z")]
        if not left:
            return


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdecimal() and (status := _status(int(name))) is not None:
            children.setdefault(int(status[1]), []).append(int(name))
    descendants, parents = [], [pid]
    while parents:
        parents = [child for parent in parents for child in children.get(parent, ())]
        descendants += parents
    return descendants


def _status(pid: int) -> list[str] | None:
    """Returns a process's state and parent from the kernel; None if the process has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()  # The name before may hold anything.
    except OSError:
        return None


def _state(pid: int) -> str | None:
    status = _status(pid)
    return None if status is None else status[0]


class _UntilClosed(io.FileIO):
    """A stream that drops the rest once it can't be written.

    Attributes:
      error: Why it can't; None also where its reader has gone away, as in `| head`.
    """

    error: OSError | None = None

    def write(self, data: object, /) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            if not isinstance(error, BrokenPipeError):
                self.error = error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(memoryview(data).cast("B"))  # type: ignore[arg-type]


def tolerate_closed_readers() -> None:
    """Makes a reader of standard output or error that goes away no error of the command."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            setattr(sys, name, _reopened(stream))


def flush_stdout(code: int) -> int:
    """Returns the exit code of a command, once standard output has taken all that was printed.

    The command is done then: a signal while Python takes itself down changes nothing any more.

    Args:
      code: The command's own; where standard output can't be written, 1 takes the place of 0.
    """
    sys.stdout.flush()
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, _UntilClosed) and raw.error is not None:
        print(f"beam_pipeline: standard output: {raw.error.strerror}", file=sys.stderr)
        return code or 1
    return code


def _reopened(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    raw = _UntilClosed(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        # Python writes through to the raw stream (PYTHONUNBUFFERED); here is a buffer between.
        line_buffering=stream.line_buffering or stream.write_through,
        write_through=stream.write_through,
    )
