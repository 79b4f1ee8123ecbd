"""Sending one message to one target: a webhook, a service that Apprise knows, or `--alert_url`.

A courier tries once and says what came of it; when to try again is decided by who calls it. What
it says goes to records and logs, and so never holds an address, a token, or the text of an error,
which may repeat them.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Literal, Protocol
from urllib.parse import urlsplit

import rules
from transforms.messages import Message


@dataclass(frozen=True)
class Sent:
    """What came of one try.

    Attributes:
      outcome: `delivered`; `refused`, which no further try would change; or `unavailable`, which a
        later try may.
      detail: Why it was not delivered, for a person; never a secret.
      retry_after: Seconds that the target asks to be left alone for; None where it says nothing.
    """

    outcome: Literal["delivered", "refused", "unavailable"]
    detail: str = ""
    retry_after: float | None = None


class Courier(Protocol):
    """Sends messages to one target, from any number of threads.

    Attributes:
      name: The target's name for records and logs; holds no secret.
    """

    name: str

    def send(self, message: Message) -> Sent:
        """Tries once, and comes back in a bounded time; never raises."""


@dataclass(frozen=True)
class TimeLimits:
    """How long one try may take.

    Attributes:
      connect_seconds: Waiting for a connection.
      read_seconds: Waiting for an answer, or a part of one.
      in_all_seconds: For the whole try.
    """

    connect_seconds: float = 5
    read_seconds: float = 10
    in_all_seconds: float = 60


def courier_for(
    target: rules.Target, environ: Mapping[str, str], limits: TimeLimits = TimeLimits()
) -> Courier:
    """The courier of a target of the rule file.

    Args:
      target: The target.
      environ: Where its references are looked up, anew for each message (`os.environ`).
      limits: How long one try may take.
    """
    raise NotImplementedError


def url_courier(url: str, token_variable: str, limits: TimeLimits = TimeLimits()) -> Courier:
    """The courier of an `--alert_url`: it sends `Message.body` and nothing else.

    Args:
      url: Where to POST; http or https.
      token_variable: The environment variable of a bearer token, if it is set.
      limits: How long one try may take.
    """
    raise NotImplementedError


def target_name(url: str) -> str:
    """A service's name for records and logs.

    The scheme, host and port, and a hash of the whole address: user, path and query may hold a
    secret.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}#{hashlib.sha256(url.encode()).hexdigest()[:8]}"


def check_url(url: str) -> None:
    """Refuses what is no address to POST to, without repeating it: it may hold a secret.

    Raises:
      ValueError: Not an http or https address.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("not an address like https://alerts.example.com/hook")


def retry_after_seconds(header: str | None) -> float | None:
    """Seconds that a `Retry-After` header asks for (RFC 9110, 10.2.3); None where it says nothing.

    Args:
      header: A number of seconds, or a date.
    """
    if not header:
        return None
    try:
        return max(0.0, float(int(header)))
    except OverflowError:
        return math.inf
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(header)
        if date.tzinfo is None:  # The obsolete form of a date names no zone, and means GMT.
            date = date.replace(tzinfo=timezone.utc)
        return max(0.0, date.timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None
