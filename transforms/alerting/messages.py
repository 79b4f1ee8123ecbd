"""Messages about alerts for people: a subject, a text, a picture and links."""

from __future__ import annotations

import functools
import json
import logging
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import rules
from rules.templates import MAX_THREATS, MessageTemplate, MessageValues
from transforms.alerting.alerts import AlertBody
from transforms.alerting.signed_links import signed_link
from transforms.images.annotating import AnnotatedImage, LabelledBox, read_with_boxes
from transforms.records.clocks import is_misdated
from transforms.records.images import detection_from_json
from transforms.records.text import one_line, printable
from transforms.records.times import canonical_time, parse_time
from transforms.storage import stores

LONGEST_SIDE = 1024
"""The longest side of a message's picture, in pixels."""

LARGEST_PICTURE = 200_000
"""The largest size of a message's picture, in bytes."""

SUBJECT = "{{ labels | join(', ') }} at {{ id }}, {{ local_time }} ({{ timezone }})"
"""The built-in template of a subject."""

TEXT = """\
{{ labels | join(', ') }} at {{ id }}, {{ local_time }} ({{ timezone }})
{% if timezone != 'UTC' %}
UTC: {{ timestamp }}
{% endif %}

{% for threat in threats %}
- {{ threat.label }}, score {{ '%.2f' % threat.conf }}
  {%- if threat.zone %}, in {{ threat.zone }}{% endif %}
, severity {{ threat.severity }}, rule {{ threat.rule }}
{% endfor %}

Picture: {{ links.picture or image_uri }}
Data: {{ links.data or final_uri }}
{% if link_hours %}
The links open for {{ link_hours }} hours, for anyone who has them.
{% endif %}
{% if no_picture %}
There is no picture with this message: {{ no_picture }}.
{% endif %}

Alert {{ alert_id }}, rules {{ rules_version }}, model {{ model_version }}
"""
"""The built-in template of a text."""

_COLOUR = (214, 40, 40)
_LARGEST_FILE = 64 << 20
_LONGEST_SUBJECT = 200
_LONGEST_TEXT = 20_000
_DROPPED_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}
_WRITING_DIRECTIONS = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Message:
    """A message as it is sent. It is never stored, as anyone who has its links can open them.

    Attributes:
      alert_id: The id of the event; it is the same in every run, so receivers can deduplicate.
      camera: The camera's id; empty for a message about several cameras.
      timestamp: The capture time, canonical.
      severity: The severity of the image.
      subject: One line.
      text: Plain text for a person, with the links.
      links: Links that are valid for a limited time, by their content: `picture`, `data`.
      picture: The image with boxes, as JPEG; None if there is none.
      body: The alert as programs read it, and as it is recorded.
    """

    alert_id: str
    camera: str
    timestamp: str
    severity: str
    subject: str
    text: str
    links: Mapping[str, str] = field(default_factory=dict)
    picture: bytes | None = None
    body: Mapping[str, Any] = field(default_factory=dict)


def body_only_message(alert: AlertBody, arrived: datetime | None = None) -> Message:
    """Makes a message without texts for people, as a `url_client` sends it.

    Args:
      alert: The body of the alert (`Alert.body`).
      arrived: When the image arrived (UTC); None if that is unknown.
    """
    return Message(
        alert_id=alert["alert_id"],
        camera=alert["id"],
        timestamp=alert["timestamp"],
        severity=alert["severity"],
        subject="",
        text="",
        body=_sent_body(alert, arrived),
    )


def compose(
    alert: AlertBody,
    ruleset: rules.Rules,
    *,
    image: Mapping[str, Any] | None = None,
    arrived: datetime | None = None,
) -> Message:
    """Composes the message for an alert.

    Reads the image, and the image JSON unless it is passed, from their stores. Parts that can't be
    read, decoded, signed or rendered are left out, and the text says so. If a store's client raises
    an unexpected error, the message has only the text.

    Args:
      alert: The body of the alert (`Alert.body`).
      ruleset: The rules, with the templates and the cameras' time zones.
      image: The image JSON; None to read it from `final_uri`.
      arrived: When the image arrived (UTC); None if that is unknown.
    """
    hours = ruleset.alerting.link_hours
    try:
        picture = _annotated_image(alert, _read_image_json(alert) if image is None else image)
        links = _links(alert, picture, hours)
    except Exception as error:  # Each store's client has its own kinds of error.
        reason = f"{alert['image_uri']} can't be read ({type(error).__name__})"
        picture, links = AnnotatedImage(missing=printable(reason)), {}
    image_uri = picture.uri or alert["image_uri"]
    timezone = ruleset.for_camera(alert["id"]).timezone
    threats = [dict(threat) for threat in alert["threats"]]
    values: MessageValues = {
        "id": alert["id"],
        "timestamp": alert["timestamp"],
        "local_time": _local_time(alert["timestamp"], timezone),
        "timezone": timezone,
        "severity": alert["severity"],
        "labels": list(dict.fromkeys(threat["label"] for threat in alert["threats"])),
        "threats": threats[:MAX_THREATS],
        "links": {"picture": None, "data": None, **links},
        "link_hours": str(hours) if links else None,
        "image_uri": image_uri,
        "final_uri": alert["final_uri"],
        "no_picture": picture.missing,
        "alert_id": alert["alert_id"],
        "rules_version": alert["rules_version"],
        "model_version": alert["model_version"],
    }
    subject, _ = _rendered(ruleset.alerting.subject, SUBJECT, values, "subject")
    text, failure = _rendered(ruleset.alerting.body, TEXT, values, "body")
    if failure:
        text += f"\n(The rule file's template of the body failed: {failure}.)\n"
    body = _sent_body(alert, arrived)
    if "time_is_wrong" in body:
        text = f"{_wrong_time(alert, arrived)}\n\n{text}"
    return Message(
        alert_id=alert["alert_id"],
        camera=alert["id"],
        timestamp=alert["timestamp"],
        severity=alert["severity"],
        subject=clean_line(subject),
        text=clean_lines(text),
        links=links,
        picture=picture.jpeg,
        body=body,
    )


def _sent_body(alert: AlertBody, arrived: datetime | None) -> Mapping[str, Any]:
    """Returns the body to send: it says so if the capture time is plainly wrong.

    What is recorded does not, so that a copy of the input has the same output.
    """
    if not is_misdated(parse_time(alert["timestamp"]), arrived):
        return alert
    arrival = None if arrived is None else canonical_time(arrived)
    return {**alert, "time_is_wrong": True, "arrived": arrival}


def _wrong_time(alert: AlertBody, arrived: datetime | None) -> str:
    text = f"The clock of this camera is wrong: its image is dated {alert['timestamp']}"
    if arrived is None:
        return f"{text}."
    return f"{text}, and arrived at {canonical_time(arrived.replace(microsecond=0))}."


def _local_time(timestamp: str, timezone: str) -> str:
    local = parse_time(timestamp).replace(microsecond=0)
    try:
        local = local.astimezone(ZoneInfo(timezone))
    except OverflowError:  # The calendar's first and last days.
        pass
    return local.replace(tzinfo=None).isoformat(" ")


def clean_line(text: str) -> str:
    """Cleans a text to one line that can't break a mail header or reverse the writing direction."""
    line = " ".join(_readable(text).split())
    return line if len(line) <= _LONGEST_SUBJECT else line[: _LONGEST_SUBJECT - 1] + "…"


def clean_lines(text: str) -> str:
    """Cleans a text to lines without control characters, of bounded length."""
    lines = (_readable(line).rstrip() for line in text.splitlines())
    join_parts = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n") + "\n"
    return (
        join_parts if len(join_parts) <= _LONGEST_TEXT else join_parts[: _LONGEST_TEXT - 2] + "…\n"
    )


def _readable(text: str) -> str:
    shown = (
        " " if unicodedata.category(letter) in _DROPPED_CATEGORIES else letter
        for letter in _WRITING_DIRECTIONS.sub("", text)
    )
    return "".join(shown)


def _rendered(
    template: str | None, built_in: str, values: Mapping[str, Any], setting: str
) -> tuple[str, str | None]:
    """Renders a template; returns the text, and why the built-in template was used instead."""
    failure = None
    if template is not None:
        try:
            return _compiled(template).render(values), None
        except Exception as error:  # A template can fail in many ways.
            failure = one_line(error)
            _log_once(setting, failure)
    return _compiled(built_in).render(values, is_built_in=True), failure


@functools.lru_cache(maxsize=16)
def _compiled(template: str) -> MessageTemplate:
    return MessageTemplate(template)


@functools.lru_cache(maxsize=64)
def _log_once(setting: str, failure: str) -> None:
    _LOGGER.warning(
        "the template message.%s failed, the built-in one is used (%s)", setting, failure
    )


def _read_image_json(alert: AlertBody) -> Mapping[str, Any]:
    try:
        image = json.loads(stores.read_bytes(alert["final_uri"], _LARGEST_FILE))
    except (OSError, ValueError):  # It is missing, or invalid.
        return {}
    return image if isinstance(image, dict) else {}


def _annotated_image(alert: AlertBody, image: Mapping[str, Any]) -> AnnotatedImage:
    """Reads the image from `validated/`, or from its source, and draws the boxes."""
    return read_with_boxes(
        _image_uris(alert),
        image.get("sha256") or None,
        _boxes(alert, image),
        _COLOUR,
        longest_side=LONGEST_SIDE,
        max_bytes=LARGEST_PICTURE,
        describe=lambda error: type(error).__name__,
    )


def _links(alert: AlertBody, picture: AnnotatedImage, hours: float) -> dict[str, str]:
    """Signs links to the image and its data, as far as possible."""
    image_uri = picture.uri or alert["image_uri"]
    links = {
        "picture": None if picture.jpeg is None else signed_link(image_uri, hours),
        "data": signed_link(alert["final_uri"], hours),
    }
    return {name: link for name, link in links.items() if link is not None}


def _image_uris(alert: AlertBody) -> Sequence[str]:
    source_uri: str = alert["image_uri"]
    output, folder, rest = alert["final_uri"].rpartition("/final/")
    if not folder or not rest.startswith(f"{alert['id']}/"):
        return (source_uri,)
    return (stores.validated_uri(output, alert["id"], source_uri.rsplit("/", 1)[-1]), source_uri)


def _boxes(alert: AlertBody, image: Mapping[str, Any]) -> list[LabelledBox]:
    """Returns the boxes of the threats; none if the image JSON is missing or invalid.

    A picture without boxes is better than no picture.
    """
    try:
        detections = [detection_from_json(entry) for entry in image["detections"]]
        return [
            {
                "label": threat["label"],
                "conf": threat["conf"],
                "bbox": list(detections[threat["detection"]].bbox),
            }
            for threat in alert["threats"][:MAX_THREATS]
        ]
    except (KeyError, IndexError, TypeError, ValueError):
        return []
