"""Clients that send one message to one target: a webhook, a broker, a service of Apprise, or
`--alert_url`.

A client makes one attempt and returns the result; its caller decides on retries. Results go to
records and logs. They never hold an address, a token, or the text of an error, which may repeat
these.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import requests

import rules
from rules.target_addresses import (
    BROKER_EXAMPLE,
    WEB_EXAMPLE,
    broker_address_problem,
    web_address_problem,
)
from rules.targets import REFERENCE
from transforms.alerting.answers import Answer, SendResult, result_of
from transforms.alerting.exchanges import (
    Exchange,
    Exchanges,
    NoAnswerError,
    TooManyExchangesError,
)
from transforms.alerting.mails import is_html_mail, plain_text
from transforms.alerting.messages import Message
from transforms.alerting.mqtt import Announced, publish

_NO_ANSWER = "no answer in time"
_SMTP_GOODBYE = 221


class TargetClient(Protocol):
    """Sends messages to one target. Thread-safe.

    Attributes:
      name: The target's name for records and logs; it holds no secret.
    """

    name: str

    def send(self, message: Message) -> SendResult:
        """Makes one attempt, and returns in bounded time; never raises."""


@dataclass(frozen=True)
class TimeLimits:
    """How long one attempt may take.

    Attributes:
      connect_seconds: The limit for a connection.
      read_seconds: The limit for an answer, or a part of one.
      exchange_seconds: The limit for the whole exchange with a webhook or an `--alert_url`.
      apprise_seconds: The limit for all that Apprise does for one message.
    """

    connect_seconds: float = 5
    read_seconds: float = 10
    exchange_seconds: float = 20
    apprise_seconds: float = 60

    @property
    def longest_seconds(self) -> float:
        """The longest time that any attempt takes."""
        return max(self.exchange_seconds, self.apprise_seconds)


def client_for(
    target: rules.Target, environ: Mapping[str, str], limits: TimeLimits = TimeLimits()
) -> TargetClient:
    """Makes the client of a target of the rule file.

    Args:
      target: The target.
      environ: The variables for its references, which are read for each message (`os.environ`).
      limits: How long one attempt may take.
    """
    kinds: dict[str, Callable[..., TargetClient]] = {
        "webhook": _Webhook,
        "mqtt": _Broker,
        "apprise": _Apprise,
    }
    return kinds[target.kind](target, environ, limits)


def url_client(
    name: str,
    url: str,
    token_variable: str,
    environ: Mapping[str, str],
    limits: TimeLimits = TimeLimits(),
) -> TargetClient:
    """Makes the client of an `--alert_url`, which sends the same as a webhook of the rule file.

    Args:
      name: The target's name, by :func:`named_urls`.
      url: The http or https address; it may have references.
      token_variable: The environment variable of a bearer token, which may be unset.
      environ: The variables for references and the token, which are read for each message.
      limits: How long one attempt may take.
    """
    return _Webhook(rules.Target(name, "webhook", url), environ, limits, token_variable)


def _attempt_result(exchanges: Exchanges, attempt: Callable[[Exchange], SendResult]) -> SendResult:
    """Makes an attempt, and returns its result."""
    try:
        return exchanges.run(attempt)
    except NoAnswerError:
        return SendResult("unavailable", _NO_ANSWER)
    except TooManyExchangesError:
        return SendResult("unavailable", "not tried: earlier attempts have not ended")
    except Exception as error:  # Its message may repeat an address, and with it a secret.
        return SendResult("unavailable", f"it could not be sent ({type(error).__name__})")


class _Webhook:
    """Sends each message as JSON to a service.

    Args:
      target: The target.
      environ: The variables for its references.
      limits: How long one attempt may take.
      token_variable: The variable of the bearer token of a target that names none; it may be unset.
    """

    def __init__(
        self,
        target: rules.Target,
        environ: Mapping[str, str],
        limits: TimeLimits,
        token_variable: str | None = None,
    ) -> None:
        self.name = target.name
        self._target = target
        self._environ = environ
        self._limits = limits
        self._token_variable = token_variable
        self._exchanges = Exchanges(limits.exchange_seconds)

    def send(self, message: Message) -> SendResult:
        target = self._target
        try:
            url, token, secret = (
                None if text is None else rules.expand(text, self._environ)
                for text in (target.url, target.token, target.secret)
            )
        except rules.MissingVariableError as error:
            return SendResult("unavailable", str(error))
        if token is None and self._token_variable is not None:
            token = self._environ.get(self._token_variable, "").strip() or None
        picture = message.picture
        body = json_body(
            {
                **message.content,
                "picture": None if picture is None else base64.b64encode(picture).decode(),
            }
        )
        headers = {"Idempotency-Key": message.alert_id}
        if secret is not None:
            headers |= signature(body, secret.encode(), int(time.time()))
        return _attempt_result(
            self._exchanges,
            lambda _: _post(url or "", body, headers, token, target.ca, self._limits),
        )


class _Broker:
    """Publishes to an MQTT broker."""

    def __init__(
        self, target: rules.Target, environ: Mapping[str, str], limits: TimeLimits
    ) -> None:
        self.name = target.name
        self._target = target
        self._environ = environ
        self._announced = Announced()
        self._exchanges = Exchanges(limits.exchange_seconds)

    def send(self, message: Message) -> SendResult:
        try:
            url = rules.expand(self._target.url, self._environ)
        except rules.MissingVariableError as error:
            return SendResult("unavailable", str(error))
        if broker_address_problem(url) is not None:
            return SendResult("unavailable", f"not an address like {BROKER_EXAMPLE}")
        ca = self._target.ca
        if missing := _missing_ca(ca):
            return missing
        return _attempt_result(
            self._exchanges, lambda _: publish(message, url, ca, self._announced)
        )


class _Apprise:
    """Sends to any service that the library Apprise supports."""

    def __init__(
        self, target: rules.Target, environ: Mapping[str, str], limits: TimeLimits
    ) -> None:
        self.name = target.name
        self._url = target.url
        self._environ = environ
        self._exchanges = Exchanges(limits.apprise_seconds)

    def send(self, message: Message) -> SendResult:
        try:
            url = rules.expand(self._url, self._environ)
        except rules.MissingVariableError as error:
            return SendResult("unavailable", str(error))
        return _attempt_result(self._exchanges, lambda exchange: _notify(exchange, url, message))


def _missing_ca(ca: str | None) -> SendResult | None:
    """Returns the result of a target whose file of certificate authorities is not there."""
    if ca is None or os.path.isfile(ca):
        return None
    return SendResult("unavailable", f"there is no file {ca}, which it names as its ca")


def json_body(value: Mapping[str, Any]) -> bytes:
    """Encodes a JSON document for a POST."""
    return json.dumps(value, allow_nan=False).encode()


def signature(body: bytes, secret: bytes, timestamp: int) -> dict[str, str]:
    """Makes the headers by which a receiver verifies the origin and the age of a body.

    Args:
      body: The body.
      secret: The key that both sides share.
      timestamp: The time of sending, in Unix seconds.
    """
    signed = hmac.new(secret, b"%d." % timestamp + body, hashlib.sha256).hexdigest()
    return {"X-Signature-Timestamp": str(timestamp), "X-Signature-256": f"sha256={signed}"}


class _Bearer(requests.auth.AuthBase):
    """Sets a bearer token, which no ~/.netrc can replace; as bytes, which can hold any text."""

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
) -> SendResult:
    try:
        check_url(url)
    except ValueError as error:
        return SendResult("unavailable", str(error))
    if missing := _missing_ca(ca):
        return missing
    try:
        with requests.post(
            url,
            data=body,
            headers={"Content-Type": "application/json", **headers},
            auth=_authorization(url, token),
            timeout=(limits.connect_seconds, limits.read_seconds),
            allow_redirects=False,
            verify=True if ca is None else ca,
            stream=True,  # The status is the answer; the body is not read.
        ) as response:
            return result_of(Answer("HTTP", response.status_code, response.headers))
    except requests.Timeout:
        return SendResult("unavailable", _NO_ANSWER)
    except requests.exceptions.SSLError:
        return SendResult("unavailable", "no secure connection: its certificate is not trusted")
    except requests.RequestException as error:
        # The message of an error may repeat the address, and with it a secret.
        return SendResult("unavailable", f"no connection ({type(error).__name__})")


def _notify(exchange: Exchange, url: str, message: Message) -> SendResult:
    import apprise
    from apprise.attachment.memory import AttachMemory

    asset = apprise.AppriseAsset(
        app_id="Threat detection",
        app_desc="Alerts of security cameras",
        async_mode=False,
        service_timeout=0,  # Apprise's time limit would use threads that all services share.
        http_redirects=False,
        storage_mode=apprise.PersistentStoreMode.MEMORY,  # Files could hold tokens.
    )
    service = apprise.Apprise.instantiate(url, asset=asset)
    if service is None:
        return SendResult(
            "unavailable", "not an address that Apprise knows: appriseit.com/services"
        )
    sender = apprise.Apprise(asset=asset)
    sender.add(service)
    picture = message.picture and AttachMemory(
        content=message.picture, name=message.picture_name, mimetype="image/jpeg"
    )
    html = message.html if is_html_mail(service) else None
    with plain_text(message.text):
        delivered = sender.notify(
            title=message.subject,
            body=message.text if html is None else html,
            body_format=apprise.NotifyFormat.TEXT if html is None else apprise.NotifyFormat.HTML,
            notify_type=apprise.NotifyType.WARNING,
            attach=picture or None,
        )
    if delivered:
        return SendResult("delivered", answer=_last_answer(exchange))
    return _failed_by_apprise(exchange, str(service.service_name))


def _last_answer(exchange: Exchange) -> str:
    """Returns the service's answer to the message; empty if it was not observed."""
    results = [result_of(answer) for answer in exchange.answers if answer.status != _SMTP_GOODBYE]
    return next((result.answer for result in reversed(results) if result.answer), "")


def _failed_by_apprise(exchange: Exchange, service: str) -> SendResult:
    """Returns why Apprise has not delivered a message, by the service's answers.

    Apprise may have sent several requests. The result is only a refusal if there was no other
    failure.
    """
    detail = f"Apprise could not deliver it by {service}"
    failures = [
        result for result in map(result_of, exchange.answers) if result.outcome != "delivered"
    ]
    worst = {result.outcome: result for result in failures}
    if (paused := worst.get("paused")) is not None:
        return paused
    if exchange.unanswered or (exchange.connections and not exchange.answers):
        return SendResult("unavailable", f"{detail}: no answer")
    for failure in (worst.get("unavailable"), worst.get("refused")):
        if failure is not None:
            return SendResult(failure.outcome, f"{detail}: {failure.detail}")
    return SendResult(
        "unavailable",
        f"{detail}: try its command `apprise -vv` with that address",
        is_explained=False,
    )


def named_urls(urls: Iterable[str]) -> dict[str, str]:
    """Maps the names of targets to the addresses of `--alert_url`, for records and logs.

    A name is the scheme, the host and the port. The user, path and query may hold a secret, which
    even a hash of them could disclose. Further addresses with the same name are numbered in their
    order: `https://alerts.example.com#2`. If an address begins with a reference, the reference is
    its name.
    """
    named: dict[str, str] = {}
    for url in dict.fromkeys(urls):
        name = base = _public_name(url)
        number = 1
        while name in named:
            number += 1
            name = f"{base}#{number}"
        named[name] = url
    return named


def _public_name(url: str) -> str:
    """Returns the part of an address that is no secret."""
    if reference := REFERENCE.match(url):
        return reference[0]
    scheme, _, rest = url.partition("://")
    host = re.split("[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    return f"{scheme.lower()}://{host if REFERENCE.search(host) else host.lower()}"


def former_name(url: str) -> str:
    """Returns the name that earlier releases gave an address; it had a hash of the address."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}#{hashlib.sha256(url.encode()).hexdigest()[:8]}"


def check_url(url: str) -> None:
    """Checks that an address is http or https. The error does not repeat it, as it may be secret.

    Args:
      url: The address; its references are not expanded.

    Raises:
      ValueError: The address is not http or https.
    """
    if web_address_problem(url) is not None:
        raise ValueError(f"not an address like {WEB_EXAMPLE}")
