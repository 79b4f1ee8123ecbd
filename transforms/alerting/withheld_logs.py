"""Withholds the text of log lines while libraries work with secrets.

requests, smtplib, boto3 and Apprise log addresses, and at the level DEBUG also paths, queries and
signatures. The loggers, levels and formats change with their versions, so the text of every log
line is withheld.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

WITHHELD = "(withheld: it may hold a secret)"

_withheld: ContextVar[bool] = ContextVar("logs_withheld", default=False)


def _withholding(factory: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    def make_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = factory(*args, **kwargs)
        if _withheld.get():
            record.msg, record.args = WITHHELD, ()
            record.exc_info = record.exc_text = record.stack_info = None
        return record

    return make_record


# This hook is global: filters of a logger don't apply to its children, and handlers may change.
logging.setLogRecordFactory(_withholding(logging.getLogRecordFactory()))


@contextmanager
def logs_withheld() -> Iterator[None]:
    """Withholds the text of all log lines of this thread during the block."""
    token = _withheld.set(True)
    try:
        yield
    finally:
        _withheld.reset(token)
