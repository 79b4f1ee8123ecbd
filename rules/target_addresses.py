"""Checks of the addresses of targets: what can never work is rejected before anything is sent.

Only what is written literally is checked: a reference such as ``${NAME}`` may stand for anything.
No message repeats an address, because it may contain a secret. The exception is a plain mail
address, which is public.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from urllib.parse import parse_qs, unquote, urlsplit

from rules.errors import suggestion
from rules.targets import REFERENCE
from rules.text import shortened

Problem = tuple[str, str]
"""What is wrong, and what would be right."""

WEB_EXAMPLE = "https://alerts.example.com/hook"
BROKER_EXAMPLE = "mqtt://robot:${MQTT_PASSWORD}@broker.local/cameras"
SERVICE_EXAMPLE = "mailtos://robot:${MAIL_PASSWORD}@smtp.example.com?to=guard@example.com"
_SERVICES = "https://appriseit.com/services/"
_MAIL_ADDRESS = re.compile(r"(?:mailto:)?([\w.%+-]+)@((?:[\w-]+\.)+[A-Za-z]{2,})", re.ASCII)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_NO_HOST_CHARACTER = re.compile(r"[\s\x00-\x1f\x7f\"<>\\^`{|}]")

_quiet_lock = Lock()


def web_address_problem(text: str) -> Problem | None:
    """Returns what is wrong with the address of an HTTP service; None if nothing is."""
    if REFERENCE.match(text):
        return None
    if not text.lower().startswith(("http://", "https://")):
        return "is not a web address", f"write one such as {WEB_EXAMPLE}"
    return _host_problem(text, WEB_EXAMPLE)


def service_address_problem(text: str) -> Problem | None:
    """Returns what is wrong with an address for Apprise; None if nothing is.

    An address with references is only checked as far as its scheme.
    """
    if REFERENCE.match(text):
        return None
    if mail_form := mail_address_form(text):
        return "is a mail address, and says nothing of the mail server", f"write {mail_form}"
    scheme, separator, rest = text.partition("://")
    if not separator or not rest or not _SCHEME.fullmatch(scheme):
        return (
            "is not an address for Apprise",
            f"write one such as {SERVICE_EXAMPLE}; {_SERVICES} lists the services",
        )
    return _scheme_problem(scheme.lower(), text)


def broker_address_problem(text: str) -> Problem | None:
    """Returns what is wrong with the address of an MQTT broker; None if nothing is."""
    if REFERENCE.match(text):
        return None
    remedy = f"write one such as {BROKER_EXAMPLE}"
    if not text.lower().startswith(("mqtt://", "mqtts://")):
        return "is not the address of an MQTT broker", remedy
    if problem := _host_problem(text, BROKER_EXAMPLE):
        return problem
    parts = urlsplit(text)
    queries = parse_qs(parts.query, keep_blank_values=True)
    if unknown := sorted(set(queries) - {"discovery"}):
        return f"has the unknown part ?{shortened(unknown[0])}=", "leave it out; discovery is known"
    topics = (unquote(parts.path), *queries.get("discovery", ()))
    if any(letter in topic for topic in topics for letter in "+#\0"):
        return "has a wildcard (+ or #) in a topic", remedy
    return None


def mail_address_form(text: str) -> str | None:
    """Returns the address for Apprise that sends to a plain mail address; None if it is none."""
    match = _MAIL_ADDRESS.fullmatch(text.strip())
    if match is None:
        return None
    user, domain = match[1], match[2]
    return f"mailtos://{user}:${{MAIL_PASSWORD}}@{domain}?smtp=smtp.{domain}"


def rule_file_form(text: str) -> str | None:
    """Returns how the rule file names a receiver that is no HTTP service.

    Args:
        text: An address where only that of an HTTP service is possible.

    Returns:
        The form of a target for mail and the other services of Apprise; None for anything else.
    """
    if mail_form := mail_address_form(text):
        return f"{{apprise: '{mail_form}'}}"
    scheme, separator, _ = text.partition("://")
    if separator and scheme.lower() in _service_schemes():
        return f"{{apprise: '{scheme.lower()}://…'}}"
    return None


def _host_problem(text: str, example: str) -> Problem | None:
    try:
        parts = urlsplit(REFERENCE.sub("1", text))
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or _NO_HOST_CHARACTER.search(host) or port == 0:
        return "names no host that can exist", f"write one such as {example}"
    return None


def _service_schemes() -> tuple[str, ...]:
    from apprise.manager_plugins import NotificationManager  # Slow: it loads all services.

    return tuple(sorted(NotificationManager().schemas()))


def _scheme_problem(scheme: str, text: str) -> Problem | None:
    import apprise  # As above.
    from apprise.manager_plugins import NotificationManager

    is_web = scheme in ("http", "https")
    schemes = _service_schemes()
    if scheme not in schemes and not is_web:
        near = suggestion(scheme, schemes, "services")
        hint = f"{near}; " if near.startswith("did") else ""
        return f"Apprise has no service {scheme}://", f"{hint}{_SERVICES} lists the services"
    if REFERENCE.search(text):
        return None
    with _apprise_silenced():
        if apprise.Apprise.instantiate(text, suppress_exceptions=True) is not None:
            return None
    if is_web:
        return (
            "is a web address that belongs to no service of Apprise",
            "for an HTTP service of your own, write webhook: in place of apprise:",
        )
    service = NotificationManager()[scheme]
    if not service.enabled:
        return None  # The library of the service may be on the machine that sends.
    return (
        f"is not a complete address for {service.service_name}",
        f"{_SERVICES} has the form of each service",
    )


@contextmanager
def _apprise_silenced() -> Iterator[None]:
    """Drops the log lines of Apprise, which repeat parts of addresses."""
    logger = logging.getLogger("apprise")
    with _quiet_lock:
        was_disabled, logger.disabled = logger.disabled, True
        try:
            yield
        finally:
            logger.disabled = was_disabled
