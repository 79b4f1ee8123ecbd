"""The keys of a rule file that say whom alerts go to, as pydantic models."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo

from rules.errors import suggestion
from rules.schema_types import Count, Duration, Expects, Model, Names, custom_error, unset
from rules.targets import REFERENCE, template_problem


def _known_target(name: str, info: ValidationInfo) -> str:
    names = info.context
    if isinstance(names, Names) and names.targets is not None and name not in names.targets:
        raise custom_error(
            f"there is no target {name!r}", suggestion(name, names.targets, "targets")
        )
    return name


def _reference(text: str) -> str:
    if not REFERENCE.fullmatch(text):  # What stands there instead may be a secret: not repeated.
        raise custom_error(
            "a secret must not stand in the file",
            "put it into an environment variable and write its name, such as ${GUARD_TOKEN}",
        )
    return text


def _no_password(text: str) -> str:
    """Refuses an address with a password in it, without repeating it."""
    try:
        password = urlsplit(REFERENCE.sub("x", text)).password
        written = urlsplit(text).password
    except ValueError:
        return text  # Told by who opens it.
    if password and password != "x" and written:
        raise custom_error(
            "a password must not stand in the file",
            "put it into an environment variable and write its name, such as "
            "mailtos://robot:${MAIL_PASSWORD}@smtp.example.com?to=guard@example.com",
        )
    return text


def _web_address(text: str) -> str:
    whole = REFERENCE.fullmatch(text)
    if not whole and not text.startswith(("http://", "https://")):
        raise custom_error(
            "is not a web address", "write one such as https://alerts.example.com/hook"
        )
    return _no_password(text)


def _template(text: str) -> str:
    if problem := template_problem(text):
        raise custom_error(*problem)
    return text


TargetName = Annotated[
    str,
    Field(min_length=1, description="The name of a target of this file."),
    AfterValidator(_known_target),
]
TargetNames = Annotated[
    list[TargetName], Expects("a list of targets of this file, such as [guard, mail]")
]
Secret = Annotated[
    str,
    AfterValidator(_reference),
    Expects("the name of an environment variable, such as ${GUARD_TOKEN}"),
]
Template = Annotated[
    str, AfterValidator(_template), Expects("a text in which {{ id }} and so on are filled in")
]


class TargetSettings(Model):
    """One that alerts go to: an HTTP service (webhook), or any service that Apprise knows
    (apprise). ``${NAME}`` stands for an environment variable of the machine that sends."""

    webhook: Annotated[
        str, AfterValidator(_web_address), Expects("a web address such as https://example.com/hook")
    ] = Field(
        default_factory=unset,
        title="Webhook",
        description="The address that each alert is sent to as JSON, by POST.",
    )
    apprise: Annotated[
        str,
        Field(min_length=1),
        AfterValidator(_no_password),
        Expects("an address of Apprise's, such as mailtos://… or ${CHAT_URL}"),
    ] = Field(
        default_factory=unset,
        title="Apprise",
        description="An address by https://appriseit.com/services/: mail, Slack, Telegram, SMS "
        "and others.",
    )
    token: Secret = Field(
        default_factory=unset,
        title="Token",
        description="Of a webhook: the variable that holds its bearer token.",
    )
    secret: Secret = Field(
        default_factory=unset,
        title="Secret",
        description="Of a webhook: the variable that holds the key by which bodies are signed "
        "(HMAC-SHA256).",
    )
    ca: Annotated[str, Field(min_length=1), Expects("the path of a PEM file")] = Field(
        default_factory=unset,
        title="Certificate authority",
        description="Of a webhook: a PEM file on the machine that sends, by which its certificate "
        "is checked in place of the usual authorities.",
    )
    severities: Annotated[
        list[Literal["alert", "detection"]],
        Field(min_length=1),
        Expects("a list of alert and detection"),
    ] = Field(
        default_factory=unset,
        title="Severities",
        description="Which pictures it is told of, by their severity. [alert] where nothing is "
        "said.",
    )


class LimitSettings(Model):
    """At most so many messages in so long a time; the rest are told of in one digest."""

    alerts: Count = Field(title="Alerts", description="How many messages are sent one by one.")
    within: Duration = Field(title="Within", description="In which time, such as 10m.")


class LimitsSettings(Model):
    """Limits on messages, against storms."""

    per_id: Annotated[
        LimitSettings | None, Expects("a mapping, such as {alerts: 10, within: 10m}")
    ] = Field(default=None, title="For each id", description="The limit for each camera.")
    fleet: Annotated[
        LimitSettings | None, Expects("a mapping, such as {alerts: 100, within: 10m}")
    ] = Field(default=None, title="For the fleet", description="The limit for all cameras.")


class MessageSettings(Model):
    """How a message reads, by templates of Jinja (https://jinja.palletsprojects.com)."""

    subject: Template = Field(
        default_factory=unset, title="Subject", description="The template of its subject."
    )
    body: Template = Field(
        default_factory=unset, title="Body", description="The template of its text."
    )


class HealthSettings(Model):
    """Who is told of cameras that are silent, blind or flooding."""

    targets: TargetNames = Field(
        default_factory=unset, title="Targets", description="The targets that are told."
    )
