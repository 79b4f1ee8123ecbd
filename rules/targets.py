"""The targets of alerts, as configured in the rule file. Other modules send the alerts.

The file contains no secrets but references such as ``${NAME}``, to environment variables of the
machine that sends. `Target` contains the references, never the values of the variables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from rules.frozen import FrozenMapping
from rules.records import ThreatSeverity

REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

TargetKind = Literal["webhook", "apprise", "mqtt"]


class MissingVariableError(ValueError):
    """An environment variable to which a target refers, and that is not set.

    Attributes:
        variable: Its name.
    """

    def __init__(self, variable: str) -> None:
        super().__init__(f"the environment variable {variable} is not set")
        self.variable = variable


def expand(text: str, environment: Mapping[str, str]) -> str:
    """Replaces each ``${NAME}`` in a text by the value of the variable.

    Raises:
        MissingVariableError: A variable is not set, or empty.
    """

    def value_of(match: re.Match[str]) -> str:
        value = environment.get(match[1], "").strip()  # Mounted secrets often end in a newline.
        if not value:
            raise MissingVariableError(match[1])
        return value

    return REFERENCE.sub(value_of, text)


@dataclass(frozen=True)
class Target:
    """A receiver of alerts.

    Attributes:
        name: Its name in the rule file, which records and logs use.
        kind: ``webhook``, an HTTP service that receives JSON; ``apprise``, any service that the
            library Apprise supports (https://appriseit.com/services/); or ``mqtt``, a broker.
        url: Its address, with references.
        token: A reference to a bearer token; None for none. For a webhook only, like the next one.
        secret: A reference to the key that signs bodies; None for unsigned ones.
        ca: The file with the certificate authorities that replace the usual ones; None for the
            usual ones. For a webhook or a broker.
        severities: The severities of the images that it receives.
    """

    name: str
    kind: TargetKind
    url: str
    token: str | None = None
    secret: str | None = None
    ca: str | None = None
    severities: frozenset[ThreatSeverity] = frozenset(("alert",))

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables to which it refers, in order."""
        texts = (self.url, self.token or "", self.secret or "")
        return tuple(dict.fromkeys(name for text in texts for name in REFERENCE.findall(text)))


@dataclass(frozen=True)
class Limit:
    """A maximum number of messages in a window of time.

    Attributes:
        alerts: The number of messages.
        within: The length of the window, in capture time.
    """

    alerts: int
    within: timedelta


@dataclass(frozen=True)
class ConsoleLinks:
    """Where the console is, for links in messages.

    Attributes:
        url: Its address, with references.
        key: A reference to the key that signs the links that mark an alert without a log-in; None
            for no such links.
        link_days: The days after the capture time for which such links work.
    """

    url: str
    key: str | None = None
    link_days: int = 7

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables to which it refers, in order."""
        texts = (self.url, self.key or "")
        return tuple(dict.fromkeys(name for text in texts for name in REFERENCE.findall(text)))


@dataclass(frozen=True)
class Alerting:
    """The settings of the rule file for alerts.

    Attributes:
        targets: The targets by name, in the order of the file.
        per_id: The limit for each camera; None for no limit.
        fleet: The limit for all cameras together; None for no limit.
        subject: The template of a message's subject; None for the built-in one.
        body: The template of a message's text; None for the built-in one.
        link_hours: The hours for which the links in messages are valid.
        health: The names of the targets that receive health findings.
        console: The console to which messages link; None for none.
    """

    targets: Mapping[str, Target] = field(default_factory=FrozenMapping)
    per_id: Limit | None = None
    fleet: Limit | None = None
    subject: str | None = None
    body: str | None = None
    link_hours: int = 24
    health: tuple[str, ...] = ()
    console: ConsoleLinks | None = None
