"""Whom alerts go to, as the rule file says it; sending is not done here.

Secrets are not in the file: what stands there is ``${NAME}``, the name of an environment variable
of the machine that sends. `Target` holds those references, never what they stand for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from jinja2 import TemplateSyntaxError, meta
from jinja2.sandbox import SandboxedEnvironment

from rules.errors import suggestion
from rules.frozen import FrozenMapping
from rules.records import ThreatSeverity

REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

Kind = Literal["webhook", "apprise"]


class MissingVariableError(ValueError):
    """An environment variable that a target refers to, and that is not set.

    Attributes:
        variable: its name.
    """

    def __init__(self, variable: str) -> None:
        super().__init__(f"the environment variable {variable} is not set")
        self.variable = variable


def expand(text: str, environment: Mapping[str, str]) -> str:
    """A text with what its ``${NAME}`` stand for.

    Raises:
        MissingVariableError: a variable is not set, or empty.
    """

    def value_of(match: re.Match[str]) -> str:
        value = environment.get(match[1], "").strip()  # Mounted secrets often end in a line feed.
        if not value:
            raise MissingVariableError(match[1])
        return value

    return REFERENCE.sub(value_of, text)


VARIABLES = (
    "id",
    "timestamp",
    "local_time",
    "timezone",
    "severity",
    "labels",
    "threats",
    "links",
    "link_hours",
    "image_uri",
    "final_uri",
    "no_picture",
    "alert_id",
    "rules_version",
    "model_version",
)
"""What a message's templates may name."""


def template_problem(text: str) -> tuple[str, str] | None:
    """What is wrong with a template of Jinja, and what would be right; None where it is right."""
    jinja = SandboxedEnvironment()
    try:
        names = meta.find_undeclared_variables(jinja.parse(text))
    except TemplateSyntaxError as error:
        return f"not a template: {error.message}", "see https://jinja.palletsprojects.com"
    for name in sorted(names - {*VARIABLES, *jinja.globals}):
        return f"nothing is called {name!r} here", suggestion(name, VARIABLES, "names")
    return None


@dataclass(frozen=True)
class Target:
    """One that alerts go to.

    Attributes:
        name: its name in the rule file, which records and logs call it by.
        kind: ``webhook``, an HTTP service that gets JSON, or ``apprise``, any service that the
            library Apprise knows (https://appriseit.com/services/).
        url: its address, with references.
        token: a reference to a bearer token; None for none. Of a webhook only, as the next two.
        secret: a reference to the key by which bodies are signed; None for unsigned ones.
        ca: the file of the certificate authority that its certificate is checked by; None for the
            usual ones.
        severities: of the pictures that it is told of.
    """

    name: str
    kind: Kind
    url: str
    token: str | None = None
    secret: str | None = None
    ca: str | None = None
    severities: frozenset[ThreatSeverity] = frozenset(("alert",))

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables that it needs, in order."""
        texts = (self.url, self.token or "", self.secret or "")
        return tuple(dict.fromkeys(name for text in texts for name in REFERENCE.findall(text)))


@dataclass(frozen=True)
class Limit:
    """At most so many messages in so long a time.

    Attributes:
        alerts: how many.
        within: in which time, by the pictures' clock.
    """

    alerts: int
    within: timedelta


@dataclass(frozen=True)
class Alerting:
    """What the rule file says of alerts beside their targets.

    Attributes:
        targets: by name, in the order of the file.
        per_id: the limit for each camera; None for no limit.
        fleet: the limit for all cameras together.
        subject: the template of a message's subject; None for the built-in one.
        body: the template of its text.
        health: the names of the targets that are told of broken cameras.
    """

    targets: Mapping[str, Target] = field(default_factory=FrozenMapping)
    per_id: Limit | None = None
    fleet: Limit | None = None
    subject: str | None = None
    body: str | None = None
    health: tuple[str, ...] = ()
