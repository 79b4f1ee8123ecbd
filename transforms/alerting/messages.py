"""Messages about alerts for people: a subject, a text, a picture and links."""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import rules
from rules.local_times import local_words
from rules.records import FollowUpJson
from rules.templates import MAX_THREATS, MessageTemplate, MessageValues
from rules.text import number_of
from transforms.alerting.alerts import AlertBody, known_zone
from transforms.alerting.html_messages import html_message
from transforms.alerting.mark_links import link_end, message_links
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

SUBJECT = """\
{% if follow_up and follow_up.new_labels %}
New: {{ follow_up.new_labels | join(', ') }}; {{ '' }}
{%- elif follow_up %}
Still: {{ '' }}
{%- endif %}
{{ labels | join(', ') }} at {{ id }}, {{ when }}"""
"""The built-in template of a subject."""

TEXT = """\
{{ labels | join(', ') }} at {{ id }}
{{ when }}

{% if follow_up %}
{{ follow_up.text }}

{% endif %}
{% for threat in threats %}
- {{ threat.label }}, {{ threat.sure }}
  {%- if threat.zone %}, in {{ threat.zone }}{% endif %}
; rule: {{ threat.rule_name }}
{% endfor %}

{% if no_picture %}
There is no picture with this message: {{ no_picture }}.
{% endif %}
Picture: {{ picture_link }}
{% if report_link %}
This alert in the report: {{ report_link }}
{% endif %}
{% if link_hours %}
{{ 'These' if links.console else 'The' }} links open for {{ link_hours }} hours, for anyone who \
has them.
{% endif %}
{% if mark_until %}

The alert is right: {{ links.right }}
The alert is false: {{ links.false }}
The page asks once more, and needs no log-in. Whoever has this message can mark the alert, until
{{ mark_until }}.
{% endif %}
{% if links.console %}
{{ '' if mark_until else '\n' }}This alert in the console: {{ links.console }}
{% endif %}
"""
"""The built-in template of a text."""

_LINKS = ("picture", "data", "report", "console", "right", "false")
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
      links: Links that are valid for a limited time, by their content: `picture`, `data`, `report`;
        `right` and `false`, which mark the alert; and `console`, its page.
      picture: The image with boxes, as JPEG; None if there is none.
      html: The message as HTML, for mail, with the picture as `cid:` and its name; None if there is
        only the text.
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
    html: str | None = None
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def content(self) -> dict[str, Any]:
        """What programs get: the alert, with the texts and the links of the message."""
        texts = {"subject": self.subject, "text": self.text}
        return {**self.body, **texts, "links": dict(self.links)}

    @property
    def picture_name(self) -> str:
        """The name of the picture's file."""
        return _picture_name(self.camera, self.timestamp)


def _picture_name(camera: str, timestamp: str) -> str:
    return f"{camera}_{timestamp.replace(':', '-')}.jpg"


def compose(
    alert: AlertBody,
    ruleset: rules.Rules,
    *,
    image: Mapping[str, Any] | None = None,
    arrived: datetime | None = None,
    notes: tuple[str, ...] = (),
    target: str | None = None,
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
      notes: Lines that come first.
      target: The target that receives it, in whose name its links mark; None if there is none.
    """
    hours = ruleset.alerting.link_hours
    try:
        picture = _annotated_image(alert, _read_image_json(alert) if image is None else image)
        links = _links(alert, picture, hours)
    except Exception as error:  # Each store's client has its own kinds of error.
        reason = f"{alert['image_uri']} can't be read ({type(error).__name__})"
        picture, links = AnnotatedImage(missing=printable(reason)), {}
    image_uri = picture.uri or alert["image_uri"]
    captured = parse_time(alert["timestamp"])
    timezone = known_zone(alert, ruleset, alert["id"])
    to_console, until = _console_links(alert, ruleset, arrived, target)
    camera = ruleset.for_camera(alert["id"])
    values: MessageValues = {
        "id": alert["id"],
        "timestamp": alert["timestamp"],
        "local_time": local_words(captured, timezone).partition(" (")[0],
        "timezone": timezone,
        "when": local_words(captured, timezone),
        "severity": alert["severity"],
        "labels": list(dict.fromkeys(threat["label"] for threat in alert["threats"])),
        "threats": [
            {
                **threat,
                "rule_name": camera.rule_name(threat["rule"]),
                "sure": f"{threat['conf']:.0%} sure",
            }
            for threat in alert["threats"][:MAX_THREATS]
        ],
        "follow_up": _follow_up(alert.get("follow_up"), timezone),
        "links": {**dict.fromkeys(_LINKS), **links, **to_console},
        "picture_link": links.get("picture") or _address(image_uri),
        "report_link": links.get("report") or _report_address(alert),
        "link_hours": str(hours) if links else None,
        "mark_until": None if until is None else local_words(until, timezone),
        "image_uri": image_uri,
        "final_uri": alert["final_uri"],
        "no_picture": picture.missing,
        "alert_id": alert["alert_id"],
        "rules_version": alert["rules_version"],
        "model_version": alert["model_version"],
    }
    subject, _ = _rendered(ruleset.alerting.subject, SUBJECT, values, "subject")
    text, failure = _rendered(ruleset.alerting.body, TEXT, values, "body")
    own_text = None if ruleset.alerting.body is None or failure else clean_lines(text)
    if failure:
        failure = f"(The rule file's template of the body failed: {failure}.)"
        text += f"\n{failure}\n"
    body = _sent_body(alert, arrived)
    if "time_is_wrong" in body:
        notes = (_wrong_time(captured, arrived, timezone), *notes)
    name = None if picture.jpeg is None else _picture_name(alert["id"], alert["timestamp"])
    html = html_message(
        values,
        subject=clean_line(subject),
        notes=(*notes, failure) if failure else notes,
        own_text=own_text,
        picture_name=name,
    )
    return Message(
        alert_id=alert["alert_id"],
        camera=alert["id"],
        timestamp=alert["timestamp"],
        severity=alert["severity"],
        subject=clean_line(subject),
        text=clean_lines("\n\n".join([*notes, text])),
        links={**links, **to_console},
        picture=picture.jpeg,
        html="\n".join(map(_readable, html.splitlines())),
        body=body,
    )


def _sent_body(alert: AlertBody, arrived: datetime | None) -> Mapping[str, Any]:
    """Returns the body to send: it says so if the capture time is not to be trusted.

    What is recorded does not, so that a copy of the input has the same output.
    """
    if not is_misdated(parse_time(alert["timestamp"]), arrived):
        return alert
    arrival = None if arrived is None else canonical_time(arrived)
    return {**alert, "time_is_wrong": True, "arrived": arrival}


def _follow_up(follow_up: FollowUpJson | None, timezone: str) -> dict[str, Any] | None:
    """Returns what is new in an incident, with local times and in words."""
    if follow_up is None:
        return None
    began, last_alert = (
        local_words(parse_time(follow_up[name]), timezone)  # type: ignore[literal-required]
        for name in ("began", "last_alert")
    )
    news = [number_of(follow_up["images"], "more image")]
    if follow_up["new_labels"]:
        news.append(f"new: {', '.join(follow_up['new_labels'])}")
    news += [
        f"up to {entry['now']} {entry['label']} in one image, before {entry['before']}"
        for entry in follow_up["more"]
    ]
    since = "Since then" if began == last_alert else f"Since the last alert, at {last_alert}"
    text = f"The incident that began at {began} goes on. {since}: {'; '.join(news)}."
    return {**follow_up, "began": began, "last_alert": last_alert, "text": text}


def _wrong_time(captured: datetime, arrived: datetime | None, timezone: str) -> str:
    date = local_words(captured, timezone)
    other = "" if is_misdated(captured) else ", or this is an old image that was copied"
    text = f"The clock of this camera is wrong{other}: the image is dated {date}"
    if arrived is None:
        return f"{text}."
    return f"{text}, and arrived at {local_words(arrived, timezone)}."


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
    """Signs links to the image, its data and the report, as far as possible."""
    image_uri = picture.uri or alert["image_uri"]
    output = _output_of(alert)
    report = None if output is None else signed_link(stores.report_uri(output), hours)
    links = {
        "picture": None if picture.jpeg is None else signed_link(image_uri, hours),
        "data": signed_link(alert["final_uri"], hours),
        "report": report and f"{report}#{alert_anchor(alert['id'], alert['timestamp'])}",
    }
    return {name: link for name, link in links.items() if link is not None}


def _console_links(
    alert: AlertBody, ruleset: rules.Rules, arrived: datetime | None, target: str | None
) -> tuple[dict[str, str], datetime | None]:
    """Returns the links to the console, and until when those that mark work; None without these."""
    console = ruleset.alerting.console
    if console is None:
        return {}, None
    until = link_end(alert["timestamp"], console.link_days, arrived)
    links = message_links(
        console, camera=alert["id"], alert_id=alert["alert_id"], until=until, target=target
    )
    return links, until if "right" in links else None


def _report_address(alert: AlertBody) -> str | None:
    output = _output_of(alert)
    if output is None:
        return None
    anchor = alert_anchor(alert["id"], alert["timestamp"])
    return f"{_address(stores.report_uri(output))}#{anchor}"


def alert_anchor(camera: str, timestamp: str) -> str:
    """Returns the name of an alert's place in the report, for a link to it."""
    return f"{camera}_{stores.time_in_name(timestamp)}"


def _address(uri: str) -> str:
    """Returns an address that a browser opens."""
    return Path(uri).as_uri() if stores.is_local(uri) and os.path.isabs(uri) else uri


def _output_of(alert: AlertBody) -> str | None:
    """Returns the job's output of an alert; None if its image JSON is in no output."""
    output, folder, rest = alert["final_uri"].rpartition("/final/")
    return output if folder and rest.startswith(f"{alert['id']}/") else None


def _image_uris(alert: AlertBody) -> Sequence[str]:
    source_uri: str = alert["image_uri"]
    output = _output_of(alert)
    if output is None:
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
