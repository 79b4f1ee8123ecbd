"""Sending one message to one target: a webhook, a service that Apprise knows, or `--alert_url`.

A courier tries once and says what came of it; when to try again is decided by who calls it. What
it says goes to records and logs, and so never holds an address, a token, or the text of an error,
which may repeat them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

import requests

import rules
from transforms.messages import Message
from transforms.withheld_logs import logs_withheld

_TRIES_AT_ONCE = 32
"""Tries of one courier that have not come to an end: each is a thread."""
_NO_ANSWER = "no answer in time"


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
    kind = _Webhook if target.kind == "webhook" else _Apprise
    return kind(target, environ, limits)


def url_courier(url: str, token_variable: str, limits: TimeLimits = TimeLimits()) -> Courier:
    """The courier of an `--alert_url`: it sends `Message.body` and nothing else.

    Args:
      url: Where to POST; http or https.
      token_variable: The environment variable of a bearer token, if it is set.
      limits: How long one try may take.
    """
    return _Url(url, token_variable, limits)


class _Tries:
    """Makes each try in a thread of its own, which is left alone when it takes too long.

    The time-outs of sockets are for one answer or part of one: a server that drips, a name server
    that hangs and Apprise's own pauses go beyond them. Nothing that a library logs there is let
    through.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._free = threading.BoundedSemaphore(_TRIES_AT_ONCE)

    def make(self, attempt: Callable[[], Sent]) -> Sent:
        """What came of a try."""
        if not self._free.acquire(blocking=False):
            return Sent("unavailable", "not tried: earlier tries have not come to an end")
        results: queue.SimpleQueue[Sent] = queue.SimpleQueue()

        def work() -> None:
            try:
                with logs_withheld():
                    results.put(attempt())
            except Exception as error:  # Its message may repeat an address, and with it a secret.
                results.put(Sent("unavailable", f"it could not be sent ({type(error).__name__})"))
            finally:
                self._free.release()

        threading.Thread(target=work, name="courier", daemon=True).start()
        try:
            return results.get(timeout=self._seconds)
        except queue.Empty:
            return Sent("unavailable", _NO_ANSWER)


class _Webhook:
    """A service that gets each message as JSON."""

    def __init__(
        self, target: rules.Target, environ: Mapping[str, str], limits: TimeLimits
    ) -> None:
        self.name = target.name
        self._target = target
        self._environ = environ
        self._limits = limits
        self._tries = _Tries(limits.in_all_seconds)

    def send(self, message: Message) -> Sent:
        target = self._target
        try:
            url, token, secret = (
                None if text is None else rules.expand(text, self._environ)
                for text in (target.url, target.token, target.secret)
            )
        except rules.MissingVariableError as error:
            return Sent("unavailable", str(error))
        picture = message.picture
        body = json_body(
            {
                **message.body,
                "subject": message.subject,
                "text": message.text,
                "links": dict(message.links),
                "picture": None if picture is None else base64.b64encode(picture).decode(),
            }
        )
        headers = {"Idempotency-Key": message.alert_id}
        if secret is not None:
            headers |= signature(body, secret.encode(), int(time.time()))
        return self._tries.make(
            lambda: _post(url or "", body, headers, token, target.ca, self._limits)
        )


class _Url:
    """A service that gets each alert's body."""

    def __init__(self, url: str, token_variable: str, limits: TimeLimits) -> None:
        check_url(url)
        self.name = target_name(url)
        self._url = url
        self._token_variable = token_variable
        self._limits = limits
        self._tries = _Tries(limits.in_all_seconds)

    def send(self, message: Message) -> Sent:
        token = os.environ.get(self._token_variable, "").strip()
        body = json_body(message.body)
        headers = {"Idempotency-Key": message.alert_id}
        return self._tries.make(
            lambda: _post(self._url, body, headers, token or None, None, self._limits)
        )


class _Apprise:
    """Any service that the library Apprise knows."""

    def __init__(
        self, target: rules.Target, environ: Mapping[str, str], limits: TimeLimits
    ) -> None:
        self.name = target.name
        self._url = target.url
        self._environ = environ
        self._tries = _Tries(limits.in_all_seconds)

    def send(self, message: Message) -> Sent:
        try:
            url = rules.expand(self._url, self._environ)
        except rules.MissingVariableError as error:
            return Sent("unavailable", str(error))
        return self._tries.make(lambda: _notify(url, message))


def json_body(value: Mapping[str, Any]) -> bytes:
    """A JSON document as it is POSTed."""
    return json.dumps(value, allow_nan=False).encode()


def signature(body: bytes, secret: bytes, timestamp: int) -> dict[str, str]:
    """The headers by which a receiver knows that a body is ours, and new.

    Args:
      body: What is sent.
      secret: The key that both sides have.
      timestamp: When it is sent, in Unix seconds.
    """
    signed = hmac.new(secret, b"%d." % timestamp + body, hashlib.sha256).hexdigest()
    return {"X-Signature-Timestamp": str(timestamp), "X-Signature-256": f"sha256={signed}"}


class _Bearer(requests.auth.AuthBase):
    """Sets the token where no ~/.netrc can take its place; as bytes, that take any letter."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        header: Any = b"Bearer " + os.fsencode(self._token)
        request.headers["Authorization"] = header
        return request


def _authorization(url: str, token: str | None) -> requests.auth.AuthBase | None:
    user, password = requests.utils.get_auth_from_url(url)
    if user or password:
        return requests.auth.HTTPBasicAuth(user, password)
    return None if token is None else _Bearer(token)


def _post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    token: str | None,
    ca: str | None,
    limits: TimeLimits,
) -> Sent:
    try:
        check_url(url)
    except ValueError as error:
        return Sent("unavailable", str(error))
    if ca is not None and not os.path.isfile(ca):
        return Sent("unavailable", f"there is no file {ca}, which it names as its ca")
    try:
        with requests.post(
            url,
            data=body,
            headers={"Content-Type": "application/json", **headers},
            auth=_authorization(url, token),
            timeout=(limits.connect_seconds, limits.read_seconds),
            allow_redirects=False,
            verify=True if ca is None else ca,
            stream=True,  # The status is the answer; a body that drips is not waited for.
        ) as response:
            status = response.status_code
            asked = retry_after_seconds(response.headers.get("Retry-After"))
    except requests.Timeout:
        return Sent("unavailable", _NO_ANSWER)
    except requests.exceptions.SSLError:
        return Sent("unavailable", "no secure connection: its certificate is not to be trusted")
    except requests.RequestException as error:
        # The message of an error may repeat the address, and with it a secret.
        return Sent("unavailable", f"no connection ({type(error).__name__})")
    if 200 <= status < 300:
        return Sent("delivered")
    if status in (408, 425, 429) or status >= 500:
        return Sent("unavailable", f"HTTP status {status}", asked)
    return Sent("refused", f"HTTP status {status}")


def _notify(url: str, message: Message) -> Sent:
    import apprise
    from apprise.attachment.memory import AttachMemory

    asset = apprise.AppriseAsset(
        app_id="Threat detection",
        app_desc="Alerts of security cameras",
        async_mode=False,
        service_timeout=0,  # Its own would move the work to threads that it shares among all.
        http_redirects=False,
        storage_mode=apprise.PersistentStoreMode.MEMORY,  # It may keep tokens there.
    )
    service = apprise.Apprise.instantiate(url, asset=asset)
    if service is None:
        return Sent("unavailable", "not an address that Apprise knows: appriseit.com/services")
    sender = apprise.Apprise(asset=asset)
    sender.add(service)
    name = f"{message.camera}_{message.timestamp.replace(':', '-')}.jpg"
    picture = message.picture and AttachMemory(
        content=message.picture, name=name, mimetype="image/jpeg"
    )
    delivered = sender.notify(
        title=message.subject,
        body=message.text,
        body_format=apprise.NotifyFormat.TEXT,
        notify_type=apprise.NotifyType.WARNING,
        attach=picture or None,
    )
    if delivered:
        return Sent("delivered")
    return Sent(
        "unavailable",
        f"Apprise could not deliver it by {service.service_name}: try "
        "its command `apprise -vv` with that address",
    )


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
