"""Publishes alerts to an MQTT broker, in the form that Home Assistant discovers.

For each camera there are two entities of one device: an event, which fires with each alert, and the
picture of the last one. A retained message on a discovery topic describes each entity; see
https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery.

Home Assistant ignores retained events, so that a restart repeats no alert. It subscribes to the
topic of an event only after it has read the description. Before the first alert of a camera, this
process therefore waits for a moment.
"""

from __future__ import annotations

import json
import re
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from transforms.alerting.answers import SendResult
from transforms.alerting.messages import Message

if TYPE_CHECKING:
    from paho.mqtt.reasoncodes import ReasonCode

DEFAULT_BASE = "beam-threats"
"""The first part of the topics of an address without a path."""

DEFAULT_DISCOVERY = "homeassistant"
"""The first part of the topics on which Home Assistant looks for descriptions."""

ALL_CAMERAS = "_all"
"""What stands for the camera in topics of a message about several; no camera's id begins so."""

EVENT_TYPES = ("alert", "detection", "digest", "fault", "warning", "test")

_SUBSCRIBE_SECONDS = 2.0
_LOOP_SECONDS = 0.1
_UNAVAILABLE = ("Server busy", "Server unavailable", "Quota exceeded", "Unspecified error")
_NO_ID_CHARACTER = re.compile(r"[^A-Za-z0-9_-]")


class Announced:
    """The cameras that this process has described to a broker. Thread-safe.

    It is a cache: a camera that is described again costs a moment only.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[str, float] = {}

    def add(self, camera: str) -> float:
        """Adds a camera; returns for how many seconds its first alert has to wait."""
        with self._lock:
            since = self._since.setdefault(camera, time.monotonic())
        return since + _SUBSCRIBE_SECONDS - time.monotonic()


@dataclass(frozen=True)
class Publication:
    """One message to the broker."""

    topic: str
    payload: bytes
    retain: bool


def descriptions(message: Message, base: str, discovery: str) -> Iterator[Publication]:
    """Yields the descriptions of a camera's entities, for Home Assistant.

    Args:
      message: An alert of the camera.
      base: The first part of the topics of alerts.
      discovery: The first part of the topics of descriptions.
    """
    camera = message.camera or ALL_CAMERAS
    device = _id(f"{base}_{camera}")
    shared = {
        "device": {
            "identifiers": [device],
            "name": message.camera or "All cameras",
            "manufacturer": "beam-threats",
        },
        "origin": {"name": "beam-threats"},
    }
    alert = {
        "name": "Alert",
        "unique_id": f"{device}_alert",
        "state_topic": f"{base}/{camera}/alert",
        "event_types": list(EVENT_TYPES),
        "icon": "mdi:shield-alert",
    }
    picture = {
        "name": "Last alert",
        "unique_id": f"{device}_picture",
        "image_topic": f"{base}/{camera}/picture",
        "content_type": "image/jpeg",
    }
    is_kept = "test" not in message.body
    for component, name, entity in (("event", "alert", alert), ("image", "picture", picture)):
        topic = f"{discovery}/{component}/{device}/{name}/config"
        yield Publication(topic, _json({**entity, **shared}), retain=is_kept)


def event(message: Message, base: str) -> Iterator[Publication]:
    """Yields what an alert is: its picture, and then the event.

    Args:
      message: The alert.
      base: The first part of the topics.
    """
    topic = f"{base}/{message.camera or ALL_CAMERAS}"
    if message.picture is not None:
        is_kept = "test" not in message.body
        yield Publication(f"{topic}/picture", message.picture, retain=is_kept)
    content = {"event_type": _event_type(message), **message.content}
    yield Publication(f"{topic}/alert", _json(content), retain=False)


def publish(message: Message, url: str, ca: str | None, announced: Announced) -> SendResult:
    """Makes one attempt to publish a message; the caller bounds the time.

    Args:
      message: The message.
      url: The address: `mqtt://user:password@host:port/base?discovery=prefix`, or `mqtts://`.
      ca: A file of certificate authorities; None for the usual ones.
      announced: The cameras that were described to this broker.
    """
    parts = urlsplit(url)
    base = unquote(parts.path).strip("/") or DEFAULT_BASE
    discovery = parse_qs(parts.query).get("discovery", [DEFAULT_DISCOVERY])[0].strip("/")
    connection = _Connection(parts, ca)
    try:
        if refused := connection.open():
            return refused
        refused = connection.publish(list(descriptions(message, base, discovery)))
        if refused is None:
            connection.wait(announced.add(message.camera))
        return refused or connection.publish(list(event(message, base))) or _ACCEPTED
    except ssl.SSLError:
        return SendResult("unavailable", "no secure connection: its certificate is not trusted")
    except OSError as error:
        return SendResult("unavailable", f"no connection ({type(error).__name__})")
    finally:
        connection.close()


_ACCEPTED = SendResult("delivered", answer="acknowledged by the broker")


class _Connection:
    """A connection to a broker by MQTT 5, which says why it refuses a message. For one thread."""

    def __init__(self, parts: SplitResult, ca: str | None) -> None:
        import paho.mqtt.client as paho  # Few jobs need it.
        from paho.mqtt.enums import CallbackAPIVersion

        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_connect = self._on_connect
        self._client.on_publish = self._on_publish
        self._answer: ReasonCode | None = None
        self._published: dict[int, ReasonCode] = {}
        is_secure = parts.scheme.lower() == "mqtts"
        if is_secure:
            self._client.tls_set(ca_certs=ca)
        if parts.username is not None:
            password = None if parts.password is None else unquote(parts.password)
            self._client.username_pw_set(unquote(parts.username), password)
        self._host = parts.hostname or ""
        self._port = parts.port or (8883 if is_secure else 1883)

    def open(self) -> SendResult | None:
        """Connects; returns why the broker refuses, or None.

        Raises:
          OSError: There is no connection.
        """
        self._client.connect(self._host, self._port)
        while self._answer is None:
            self._loop()
        return _refusal(self._answer)

    def publish(self, publications: list[Publication]) -> SendResult | None:
        """Publishes messages in order; returns why the broker refuses one, or None.

        Raises:
          OSError: The connection was lost.
        """
        for each in publications:
            number = self._client.publish(each.topic, each.payload, qos=1, retain=each.retain).mid
            while number not in self._published:
                self._loop()
            if refusal := _refusal(self._published[number]):
                return refusal
        return None

    def wait(self, seconds: float) -> None:
        """Keeps the connection for a while."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self._loop()

    def close(self) -> None:
        """Closes the connection."""
        self._client.disconnect()

    def _loop(self) -> None:
        is_lost = self._client.loop(_LOOP_SECONDS) != 0
        if is_lost and not (self._answer and self._answer.is_failure):
            raise ConnectionError

    def _on_connect(self, *args: Any) -> None:
        self._answer = args[3]

    def _on_publish(self, client: Any, data: Any, number: int, code: ReasonCode, *_: Any) -> None:
        self._published[number] = code


def _refusal(code: ReasonCode) -> SendResult | None:
    """Returns the result of a refusal by the broker; None if it accepts."""
    if not code.is_failure:
        return None
    outcome = "unavailable" if str(code) in _UNAVAILABLE else "refused"
    return SendResult(outcome, f"MQTT: {code}")  # type: ignore[arg-type]


def _event_type(message: Message) -> str:
    for kind in ("test", "digest"):
        if kind in message.body:
            return kind
    return message.severity


def _id(text: str) -> str:
    """Returns an id of the characters that Home Assistant allows; different texts differ."""
    return _NO_ID_CHARACTER.sub(lambda match: f"-{ord(match[0]):x}-", text)


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, allow_nan=False).encode()
