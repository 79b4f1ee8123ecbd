"""Reads a service's answer: the message is delivered, refused, or to be sent again.

The status decides, with the header `Retry-After`, by which a service requests a pause.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Literal

LONGEST_RETRY_AFTER_SECONDS = 86400.0
"""A service that requests a longer pause is tried again after this time."""

_PAUSING = (429, 503)
"""Statuses with which a service may request a pause, by `Retry-After`."""
_TRANSIENT = (408, 425, 429)
_SECONDS = re.compile(r"-?[0-9]+(\.[0-9]*)?|-?\.[0-9]+", re.ASCII)
_SMTP_REFUSALS = (530, 534, 535, 538, 550, 551, 552, 553, 554, 555, 556, 571)
"""Replies of mail servers that another attempt would not change. Other 5xx replies answer commands
by which a client finds out what the server supports."""


@dataclass(frozen=True)
class Answer:
    """A service's answer to one request.

    Attributes:
      protocol: `HTTP` or `SMTP`.
      status: The status code.
      headers: The headers of an HTTP answer.
    """

    protocol: Literal["HTTP", "SMTP"]
    status: int
    headers: Mapping[str, str]


@dataclass(frozen=True)
class SendResult:
    """The result of one attempt.

    Attributes:
      outcome: `delivered`; `refused`, which no further attempt would change; `paused`, if the
        target requests a pause; or `unavailable`, which a later attempt may change.
      detail: Why the message was not delivered, for a person; never a secret.
      retry_after: The requested pause in seconds; None if there is none.
      is_explained: Whether the cause of the failure is known. A failure of unknown cause may be as
        final as a refusal, and is retried less often.
      answer: The answer of the service that accepted the message, for a person; empty if the
        service gives none. It is not part of the comparison of results.
    """

    outcome: Literal["delivered", "refused", "paused", "unavailable"]
    detail: str = ""
    retry_after: float | None = None
    is_explained: bool = True
    answer: str = field(default="", compare=False)


def result_of(answer: Answer) -> SendResult:
    """Returns the result that an answer means."""
    status, detail = answer.status, f"{answer.protocol} status {answer.status}"
    if answer.protocol == "SMTP":
        if status in _SMTP_REFUSALS:
            return SendResult("refused", detail)
        if 400 <= status < 500:
            return SendResult("unavailable", detail)
        return SendResult("delivered", answer=detail)
    if 200 <= status < 300:
        return SendResult("delivered", answer=detail)
    pause_seconds = retry_after_seconds(answer.headers.get("Retry-After"))
    if status in _PAUSING and pause_seconds is not None:
        return SendResult("paused", f"{detail}: the target asks for a pause", pause_seconds)
    if status in _TRANSIENT or status >= 500:
        return SendResult("unavailable", detail)
    return SendResult("refused", detail)


def retry_after_seconds(header: str | None) -> float | None:
    """Reads the seconds of a `Retry-After` header (RFC 9110, 10.2.3), from 0 to a day.

    Args:
      header: A number of seconds, which may have a fraction, or a date.

    Returns:
      The seconds; None if the header is missing or invalid.
    """
    text = (header or "").strip()
    if _SECONDS.fullmatch(text):
        return _bounded(float(text))
    try:
        date = parsedate_to_datetime(text)
        if date.tzinfo is None:  # The obsolete form of a date names no zone, and means GMT.
            date = date.replace(tzinfo=timezone.utc)
        return _bounded(date.timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def _bounded(seconds: float) -> float:
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER_SECONDS)
