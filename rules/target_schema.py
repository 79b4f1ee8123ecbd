"""The keys of a rule file about targets, limits and messages, as pydantic models."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo

from rules.errors import suggestion
from rules.schema_types import Count, Expects, KnownNames, Length, Model, custom_error, unset
from rules.target_addresses import (
    Problem,
    broker_address_problem,
    service_address_problem,
    web_address_problem,
)
from rules.targets import REFERENCE
from rules.templates import template_problem


def _check_target(name: str, info: ValidationInfo) -> str:
    names = info.context
    if isinstance(names, KnownNames) and names.targets is not None and name not in names.targets:
        raise custom_error(
            f"there is no target {name!r}", suggestion(name, names.targets, "targets")
        )
    return name


def _check_reference(text: str) -> str:
    if not REFERENCE.fullmatch(text):  # The text may be a secret: the message does not repeat it.
        raise custom_error(
            "the file must not contain a secret",
            "put it into an environment variable and write its name, such as ${GUARD_TOKEN}",
        )
    return text


def _reject_password(text: str) -> str:
    """Rejects an address that contains a password, without repeating it."""
    try:
        password = urlsplit(REFERENCE.sub("x", text)).password
        original_password = urlsplit(text).password
    except ValueError:
        return text  # The client that opens the address reports the error.
    if password and password != "x" and original_password:
        raise custom_error(
            "the file must not contain a password",
            "put it into an environment variable and write its name, such as "
            "mailtos://robot:${MAIL_PASSWORD}@smtp.example.com?to=guard@example.com",
        )
    return text


def _check_web_address(text: str) -> str:
    return _check_address(text, web_address_problem(text))


def _check_service_address(text: str) -> str:
    return _check_address(text, service_address_problem(text))


def _check_broker_address(text: str) -> str:
    return _check_address(text, broker_address_problem(text))


def _check_address(text: str, problem: Problem | None) -> str:
    _reject_password(text)
    if problem is not None:
        raise custom_error(*problem)
    return text


def _check_template(text: str) -> str:
    if problem := template_problem(text):
        raise custom_error(*problem)
    return text


TargetName = Annotated[
    str,
    Field(min_length=1, description="The name of a target of this file."),
    AfterValidator(_check_target),
]
TargetNames = Annotated[
    list[TargetName], Expects("a list of targets of this file, such as [guard, mail]")
]
Secret = Annotated[
    str,
    AfterValidator(_check_reference),
    Expects("the name of an environment variable, such as ${GUARD_TOKEN}"),
]
Template = Annotated[
    str,
    AfterValidator(_check_template),
    Expects("a text in which {{ id }} and so on are filled in"),
]


class TargetSettings(Model):
    """A receiver of alerts: an HTTP service (webhook), an MQTT broker (mqtt), or any service that
    Apprise supports (apprise). ``${NAME}`` is replaced by an environment variable of the machine
    that sends."""

    webhook: Annotated[
        str,
        AfterValidator(_check_web_address),
        Expects("a web address such as https://example.com/hook"),
    ] = Field(
        default_factory=unset,
        title="Webhook",
        description="The address that receives each alert as JSON, by POST.",
    )
    apprise: Annotated[
        str,
        Field(min_length=1),
        AfterValidator(_check_service_address),
        Expects("an address of Apprise's, such as mailtos://… or ${CHAT_URL}"),
    ] = Field(
        default_factory=unset,
        title="Apprise",
        description="An address from https://appriseit.com/services/: mail, Slack, Telegram, SMS "
        "and others.",
    )
    mqtt: Annotated[
        str,
        AfterValidator(_check_broker_address),
        Expects("an address such as mqtt://robot:${MQTT_PASSWORD}@broker.local/cameras"),
    ] = Field(
        default_factory=unset,
        title="MQTT",
        description="The address of an MQTT broker, and the first part of the topics. Home "
        "Assistant discovers each camera there.",
    )
    token: Secret = Field(
        default_factory=unset,
        title="Token",
        description="For a webhook: the variable that holds its bearer token.",
    )
    secret: Secret = Field(
        default_factory=unset,
        title="Secret",
        description="For a webhook: the variable that holds the key for signing bodies "
        "(HMAC-SHA256).",
    )
    ca: Annotated[str, Field(min_length=1), Expects("the path of a PEM file")] = Field(
        default_factory=unset,
        title="Certificate authority",
        description="For a webhook or a broker: a PEM file on the sending machine with the "
        "certificate authorities that replace the usual ones.",
    )
    severities: Annotated[
        list[Literal["alert", "detection"]],
        Field(min_length=1),
        Expects("a list of alert and detection"),
    ] = Field(
        default_factory=unset,
        title="Severities",
        description="The severities of the images that it receives. Default: [alert].",
    )


class LimitSettings(Model):
    """A maximum number of messages in a window of time; the rest is combined in one digest."""

    alerts: Count = Field(
        title="Alerts", description="The number of messages that are sent individually."
    )
    within: Length = Field(title="Within", description="The length of the window, such as 10m.")


class LimitsSettings(Model):
    """Limits on messages, against storms."""

    per_id: Annotated[
        LimitSettings | None, Expects("a mapping, such as {alerts: 10, within: 10m}")
    ] = Field(default=None, title="For each id", description="The limit for each camera.")
    fleet: Annotated[
        LimitSettings | None, Expects("a mapping, such as {alerts: 100, within: 10m}")
    ] = Field(default=None, title="For the fleet", description="The limit for all cameras.")


class MessageSettings(Model):
    """The templates of a message, in Jinja (https://jinja.palletsprojects.com)."""

    subject: Template = Field(
        default_factory=unset, title="Subject", description="The template of its subject."
    )
    body: Template = Field(
        default_factory=unset, title="Body", description="The template of its text."
    )
    link_hours: Annotated[int, Field(ge=1, le=168), Expects("a whole number from 1 to 168")] = (
        Field(
            default_factory=unset,
            title="Link hours",
            description="For how many hours its links open, 1 to 168. Default: 24.",
        )
    )


class ConsoleSettings(Model):
    """The console to which messages link, and the links in them that mark an alert."""

    url: Annotated[
        str,
        AfterValidator(_check_web_address),
        Expects("a web address such as https://console.example.com"),
    ] = Field(title="Address", description="The address under which people reach the console.")
    key: Secret = Field(
        default_factory=unset,
        title="Key",
        description="The variable that holds the key for signing links which mark an alert without "
        "a log-in. Default: there are no such links.",
    )
    link_days: Annotated[int, Field(ge=1, le=30), Expects("a whole number from 1 to 30")] = Field(
        default_factory=unset,
        title="Link days",
        description="For how many days after the capture time these links work, 1 to 30. "
        "Default: 7.",
    )


class HealthSettings(Model):
    """The receivers of findings about silent, blind or flooding cameras."""

    targets: TargetNames = Field(
        default_factory=unset,
        title="Targets",
        description="The targets that receive health findings.",
    )
