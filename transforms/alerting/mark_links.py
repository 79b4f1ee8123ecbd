"""Links in messages that mark an alert without a log-in, each signed for one alert and one mark.

    https://console.example.com/m/<payload>.<signature>

The payload says what is marked, as what, by whom and until when; the signature is an HMAC-SHA256 of
the payload's characters by a key that the sender and the console know. The link is the same in each
run: it ends some days after the capture time (of a camera whose clock is wrong: after the arrival),
whatever the clock of the sender says.

Whoever has a link can make this one mark: links belong in messages only, not in records or logs.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import rules
from transforms.records.clocks import is_misdated
from transforms.records.times import EPOCH, parse_time
from transforms.storage.marks import FALSE, MAX_NAME, RIGHT, is_alert_id

LINKED_MARKS = (RIGHT, FALSE)
"""What a message has links for."""
SHORTEST_KEY = 32
LONGEST_TOKEN = 2_000

_PURPOSE = b"beam-threats mark link 1\n"
"""It is signed with the payload, so that no other signature by the same key is one of a link."""
_BY_LINK = " (link)"
_LOGGER = logging.getLogger(__name__)
_logged: set[str] = set()


class LinkKeyError(ValueError):
    """A key that can't sign links; one line, without the key."""


@dataclass(frozen=True)
class MarkLink:
    """What a link does.

    Attributes:
      camera: The camera of the alert.
      alert_id: The alert.
      mark: What it is marked as, one of `LINKED_MARKS`.
      by: Whose mark it is.
      until: When the link ends, in seconds since 1970 (UTC).
    """

    camera: str
    alert_id: str
    mark: str
    by: str
    until: int


def link_keys(reference: str, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the keys that a reference of the rule file stands for; the first one signs.

    Args:
      reference: Such as `${MARK_KEY}`. The variable holds one key, or several with spaces or commas
        between them: a new one, and those of links that are still to be accepted.
      environment: The environment variables.

    Raises:
      MissingVariableError: The variable is not set.
      LinkKeyError: A key is too short.
    """
    keys = tuple(rules.expand(reference, environment).replace(",", " ").split())
    if not keys or any(len(key) < SHORTEST_KEY for key in keys):
        raise LinkKeyError(
            f"a key of links has fewer than {SHORTEST_KEY} characters; make one by: "
            "openssl rand -hex 32"
        )
    return keys


def sign(key: str, link: MarkLink) -> str:
    """Returns the token of a link, of letters, digits, `-`, `_` and one dot."""
    values = [link.until, link.mark, link.alert_id, link.camera, link.by]
    text = json.dumps(values, separators=(",", ":")).encode()
    payload = base64.urlsafe_b64encode(text).decode().rstrip("=")
    return f"{payload}.{_signature(key, payload)}"


def verified(token: str, keys: Sequence[str]) -> MarkLink | None:
    """Returns what a link does, also if it has ended; None if none of the keys has signed it.

    Args:
      token: The last part of its address.
      keys: The keys, of which any may have signed it.
    """
    if not token.isascii() or len(token) > LONGEST_TOKEN:
        return None
    # The characters are compared, not what they stand for: no other writing of them fits.
    payload, _, signature = token.partition(".")
    fits = [hmac.compare_digest(_signature(key, payload), signature) for key in keys]
    return _decoded(payload) if any(fits) else None


def _signature(key: str, payload: str) -> str:
    signed = _PURPOSE + payload.encode()
    return hmac.new(key.encode("utf-8", "surrogateescape"), signed, hashlib.sha256).hexdigest()


def _decoded(payload: str) -> MarkLink | None:
    try:
        values = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        until, mark, alert_id, camera, by = values
        fits = is_alert_id(alert_id) and rules.is_camera_id(camera) and mark in LINKED_MARKS
    except (ValueError, TypeError):  # Another release has signed it.
        return None
    if not fits or type(until) is not int or not isinstance(by, str):
        return None
    return MarkLink(camera, alert_id, mark, by, until)


def link_end(timestamp: str, days: int, arrived: datetime | None) -> datetime | None:
    """Returns when the links of an alert end; None if that can't be said, so that it has none.

    Args:
      timestamp: The capture time of its image.
      days: For how long they work.
      arrived: When the image arrived (UTC); None if that is unknown.
    """
    captured = parse_time(timestamp)
    begins = arrived if is_misdated(captured, arrived) else captured
    try:
        return None if begins is None else begins.replace(microsecond=0) + timedelta(days=days)
    except OverflowError:  # The last days of the year 9999.
        return None


def by_link(target: str | None) -> str:
    """Returns whose mark a link in a message to a target makes, such as `mail (link)`.

    No user has this name by accident, so the mark replaces nobody's.
    """
    name = "".join(letter for letter in target or "" if letter.isprintable()).strip()
    return f"{name[: MAX_NAME - len(_BY_LINK)]}{_BY_LINK}" if name else "link"


def message_links(
    console: rules.ConsoleLinks,
    *,
    camera: str,
    alert_id: str,
    until: datetime | None,
    target: str | None,
    environment: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    """Returns the links of a message to the console: `console`, and `right` and `false` if the rule
    file names a key.

    A key that is missing or too short is logged once; the message then has no links that mark.

    Args:
      console: Where the console is, and what signs its links.
      camera: The camera of the alert.
      alert_id: The alert.
      until: When the links end; None for no links that mark.
      target: The target that receives the message.
      environment: The environment variables.
    """
    links: dict[str, str] = {}
    try:
        url = rules.expand(console.url, environment).rstrip("/")
        links["console"] = f"{url}/alerts/{alert_id}"
        if console.key is None or until is None:
            return links
        key = link_keys(console.key, environment)[0]
    except (rules.MissingVariableError, LinkKeyError) as error:
        if str(error) not in _logged:
            _logged.add(str(error))
            _LOGGER.warning("messages lack links to the console (%s)", error)
        return links
    seconds = (until - EPOCH) // timedelta(seconds=1)
    for mark in LINKED_MARKS:
        link = MarkLink(camera, alert_id, mark, by_link(target), seconds)
        links[mark] = f"{url}/m/{sign(key, link)}"
    return links
