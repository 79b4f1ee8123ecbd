"""What a person is told of an alert: a subject, a text, a picture and links."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import StrictUndefined, Template
from jinja2.sandbox import SandboxedEnvironment

import rules
from transforms import stores
from transforms.drawing import with_boxes
from transforms.records import detection_from_json
from transforms.signed_links import LINK_HOURS, LONGEST_LINK_HOURS, signed_link
from transforms.text import one_line, printable
from transforms.times import parse_time

LONGEST_SIDE = 1024
"""Pixels of a message's picture."""

LARGEST_PICTURE = 200_000
"""Bytes of a message's picture."""

SUBJECT = "{{ labels | join(', ') }} at {{ id }}, {{ local_time }} ({{ timezone }})"
"""The built-in template of a subject."""

TEXT = """\
{{ labels | join(', ') }} at {{ id }}, {{ local_time }} ({{ timezone }})
{% if timezone != 'UTC' %}
By UTC: {{ timestamp }}
{% endif %}

{% for threat in threats %}
- {{ threat.label }}, score {{ '%.2f' % threat.conf }}
  {%- if threat.zone %}, in {{ threat.zone }}{% endif %}
, severity {{ threat.severity }}, by {{ threat.rule }}
{% endfor %}

Picture: {{ links.picture or image_uri }}
What was seen: {{ links.data or final_uri }}
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
_SHOWN_THREATS = 50
_NEITHER_SEEN_NOR_SENT = {"Cc", "Cs", "Zl", "Zp"}
_WRITING_DIRECTIONS = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Message:
    """An alert as it is sent. Never stored: its links open for anyone who has them.

    Attributes:
      alert_id: The same for the same event in every run, by which a receiver knows it again.
      camera: The camera's id; empty for what is about several.
      timestamp: When it happened, canonical.
      severity: Of the picture.
      subject: One line.
      text: Plain text for a person, with the links.
      links: Addresses that open for a while, by what is there: `picture`, `data`.
      picture: A JPEG with the boxes drawn; None where there is none.
      body: The alert as a program reads it, and as it is recorded.
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


@dataclass(frozen=True)
class _Picture:
    """The picture of an alert, or why there is none; and where the file is, or should be."""

    uri: str
    jpeg: bytes | None = None
    missing: str | None = None


def bare(alert: Mapping[str, Any]) -> Message:
    """An alert without anything for a person: all that a `url_courier` sends."""
    return Message(
        alert_id=alert["alert_id"],
        camera=alert["id"],
        timestamp=alert["timestamp"],
        severity=alert["severity"],
        subject="",
        text="",
        body=alert,
    )


def compose(
    alert: Mapping[str, Any],
    by: rules.Rules,
    *,
    image: Mapping[str, Any] | None = None,
    link_hours: float = LINK_HOURS,
) -> Message:
    """The message for an alert.

    Reads the picture, and the image JSON where it is not given, from their stores. What can't be
    read, decoded, linked to or rendered is left out, and the text says so.

    Args:
      alert: As it is recorded (`Alert.body`).
      by: The rules, with the templates and the cameras' time zones.
      image: The picture's image JSON, where it is at hand; else it is read from `final_uri`.
      link_hours: How long the links open; a week at most.
    """
    picture = _picture(alert, _read_image_json(alert) if image is None else image)
    hours = round(min(link_hours, LONGEST_LINK_HOURS), 1)
    found = {
        "picture": None if picture.jpeg is None else signed_link(picture.uri, hours),
        "data": signed_link(alert["final_uri"], hours),
    }
    links = {name: link for name, link in found.items() if link is not None}
    timezone = by.for_camera(alert["id"]).timezone
    threats = [dict(threat) for threat in alert["threats"]]
    values = {
        **{name: alert[name] for name in ("alert_id", "id", "timestamp", "severity", "final_uri")},
        **{name: alert[name] for name in ("rules_version", "model_version")},
        "image_uri": picture.uri,
        "local_time": _local_time(alert["timestamp"], timezone),
        "timezone": timezone,
        "threats": threats[:_SHOWN_THREATS],
        "labels": list(dict.fromkeys(threat["label"] for threat in threats)),
        "links": {"picture": None, "data": None, **links},
        "link_hours": f"{hours:g}" if links else None,
        "no_picture": picture.missing,
    }
    subject, _ = _rendered(by.alerting.subject, SUBJECT, values, "subject")
    text, failed = _rendered(by.alerting.body, TEXT, values, "body")
    if failed:
        text += f"\n(The rule file's template of the body failed: {failed}.)\n"
    return Message(
        alert_id=alert["alert_id"],
        camera=alert["id"],
        timestamp=alert["timestamp"],
        severity=alert["severity"],
        subject=one_line_of(subject),
        text=lines_of(text),
        links=links,
        picture=picture.jpeg,
        body=alert,
    )


def _local_time(timestamp: str, timezone: str) -> str:
    moment = parse_time(timestamp).replace(microsecond=0)
    try:
        moment = moment.astimezone(ZoneInfo(timezone))
    except OverflowError:  # The calendar's first and last days.
        pass
    return moment.replace(tzinfo=None).isoformat(" ")


def one_line_of(text: str) -> str:
    """A text as one line that can't break a mail's header or run the other way."""
    line = " ".join(_readable(text).split())
    return line if len(line) <= _LONGEST_SUBJECT else line[: _LONGEST_SUBJECT - 1] + "…"


def lines_of(text: str) -> str:
    """A text as lines without control characters, of a bounded length."""
    lines = (_readable(line).rstrip() for line in text.splitlines())
    whole = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n") + "\n"
    return whole if len(whole) <= _LONGEST_TEXT else whole[: _LONGEST_TEXT - 2] + "…\n"


def _readable(text: str) -> str:
    shown = (
        " " if unicodedata.category(letter) in _NEITHER_SEEN_NOR_SENT else letter
        for letter in _WRITING_DIRECTIONS.sub("", text)
    )
    return "".join(shown)


def _rendered(
    template: str | None, built_in: str, values: Mapping[str, Any], what: str
) -> tuple[str, str | None]:
    """What a template makes of the values, and why it was the built-in one instead."""
    failed = None
    if template is not None:
        try:
            return _compiled(template).render(values), None
        except Exception as error:  # A template can do much that is not foreseen.
            failed = one_line(error)
            _say_once(what, failed)
    return _compiled(built_in).render(values), failed


@functools.lru_cache(maxsize=16)
def _compiled(template: str) -> Template:
    environment = SandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template)


@functools.lru_cache(maxsize=64)
def _say_once(what: str, failed: str) -> None:
    _log.warning("the template message.%s failed, the built-in one is used (%s)", what, failed)


def _read_image_json(alert: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        image = json.loads(stores.read_bytes(alert["final_uri"], _LARGEST_FILE))
    except Exception:  # Not there yet, or each store's own kinds of error.
        return {}
    return image if isinstance(image, dict) else {}


def _picture(alert: Mapping[str, Any], image: Mapping[str, Any]) -> _Picture:
    """The picture from `validated/`, or from where it came."""
    sha256 = image.get("sha256")
    why = ""
    for place in _places(alert):
        try:
            data = stores.read_bytes(place, _LARGEST_FILE)
        except Exception as error:  # Each store's client has its own kinds of error.
            why = why or f"{place} can't be read ({type(error).__name__})"
            continue
        if sha256 and hashlib.sha256(data).hexdigest() != sha256:
            why = f"{place} holds another picture by now"
            continue
        try:
            jpeg = with_boxes(
                data,
                _boxes(alert, image),
                _COLOUR,
                longest_side=LONGEST_SIDE,
                largest=LARGEST_PICTURE,
            )
        except Exception as error:  # Pillow has many kinds of error for what it can't decode.
            why = f"{place} can't be decoded ({type(error).__name__})"
            continue
        return _Picture(place, jpeg)
    return _Picture(alert["image_uri"], missing=printable(why))


def _places(alert: Mapping[str, Any]) -> Sequence[str]:
    came_from: str = alert["image_uri"]
    output, folder, rest = alert["final_uri"].rpartition("/final/")
    if not folder or not rest.startswith(f"{alert['id']}/"):
        return (came_from,)
    return (stores.validated_uri(output, alert["id"], came_from.rsplit("/", 1)[-1]), came_from)


def _boxes(alert: Mapping[str, Any], image: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The boxes of the threats. None where the image JSON is not there, or is not what it should
    be: a picture without boxes is better than none."""
    try:
        seen = [detection_from_json(entry) for entry in image["detections"]]
        return [
            {"label": one["label"], "conf": one["conf"], "bbox": seen[one["detection"]].bbox}
            for one in alert["threats"][:_SHOWN_THREATS]
        ]
    except (KeyError, IndexError, TypeError, ValueError):
        return []
