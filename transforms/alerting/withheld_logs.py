"""Log lines of libraries that are handed secrets: that there was one is logged, not what it said.

requests, smtplib, boto3 and Apprise log addresses, and at the level DEBUG paths, queries and
signatures. Which of their loggers do, at which level and how they write a secret down, changes with
their versions, so that nothing that they log meanwhile is let through.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

WITHHELD = "(withheld: it may hold a secret)"

_withheld: ContextVar[bool] = ContextVar("logs_withheld", default=False)


def _withholding(make: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    def make_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        if _withheld.get():
            record.msg, record.args = WITHHELD, ()
            record.exc_info = record.exc_text = record.stack_info = None
        return record

    return make_record


# There is no nearer place: filters of loggers don't hold for those beneath them, and handlers come
# and go.
logging.setLogRecordFactory(_withholding(logging.getLogRecordFactory()))


@contextmanager
def logs_withheld() -> Iterator[None]:
    """Whatever is logged in this thread meanwhile, by anyone, is logged without its text."""
    token = _withheld.set(True)
    try:
        yield
    finally:
        _withheld.reset(token)
