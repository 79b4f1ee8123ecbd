"""Checks of what targets need of the machine that sends: environment variables and files."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable
from dataclasses import dataclass

import rules
from rules.target_addresses import rule_file_form
from transforms.alerting.mark_links import LinkKeyError, link_keys
from transforms.alerting.target_clients import check_url
from transforms.runtime.live_rules import LiveRules


class TargetError(ValueError):
    """What a target needs is missing on this machine; one line, without a secret."""


@dataclass(frozen=True)
class WorkerCheck:
    """Checks on a worker what the targets of the job need there.

    Targets that an edit of the rule file has changed or removed are not checked: an edit never ends
    a job.

    Attributes:
      ruleset: The rules in force.
      targets: The targets that received alerts when the job started.
      urls: The addresses of `--alert_url`.
      console: The console to which messages linked when the job started; None for none.
    """

    ruleset: LiveRules
    targets: tuple[rules.Target, ...]
    urls: tuple[str, ...]
    console: rules.ConsoleLinks | None = None

    def __call__(self) -> None:
        """Checks this machine.

        Raises:
          TargetError: An environment variable or a file is missing, or the file can't be used.
        """
        self.ruleset.refresh()
        check_alert_urls(self.urls, sends_here=True)
        current = notified_targets(self.ruleset.current)
        check_targets(target for target in self.targets if target in current)
        if self.console == self.ruleset.current.alerting.console:
            check_console(self.console)


def notified_targets(ruleset: rules.Rules) -> tuple[rules.Target, ...]:
    """Returns the targets that receive alerts of any camera, by name."""
    return tuple(ruleset.alerting.targets[name] for name in sorted(ruleset.notified_targets))


def check_alert_urls(urls: Iterable[str], *, sends_here: bool) -> None:
    """Checks whether the addresses of `--alert_url` can be sent to.

    Args:
      urls: The addresses.
      sends_here: Alerts are sent from this machine, so that their variables must be set here.

    Raises:
      TargetError: One is no address, or a variable is missing. Neither the address nor what a
        variable holds is repeated.
    """
    for url in urls:
        try:
            check_url(url)
            if sends_here:
                check_url(rules.expand(url, os.environ))
        except rules.MissingVariableError as error:
            raise TargetError(
                f"--alert_url needs the environment variable {error.variable}, which is not set "
                "here, where alerts are sent; set it"
            ) from None
        except ValueError as error:
            raise TargetError(f"--alert_url: {error}{_other_way(url)}") from None


def _other_way(url: str) -> str:
    """Returns how to reach a receiver that is no HTTP service, after an `--alert_url` names it."""
    form = rule_file_form(url)
    return (
        "" if form is None else f"; write it as a target of the rule file: targets: {{t: {form}}}"
    )


def check_targets(targets: Iterable[rules.Target]) -> None:
    """Checks what targets need of this machine.

    Raises:
      TargetError: An environment variable or a file is missing, or the file can't be used.
    """
    for target in targets:
        for name in target.variables:
            if not os.environ.get(name, "").strip():
                raise TargetError(
                    f"target {target.name!r} of the rules needs the environment variable {name}, "
                    "which is not set here, where alerts are sent; set it"
                )
        if target.ca is not None:
            _check_ca(target.name, target.ca)


def check_console(console: rules.ConsoleLinks | None) -> None:
    """Checks what the links of messages to the console need of this machine.

    Raises:
      TargetError: An environment variable is missing, or the key is too short.
    """
    if console is None:
        return
    try:
        rules.expand(console.url, os.environ)
        if console.key is not None:
            link_keys(console.key, os.environ)
    except rules.MissingVariableError as error:
        raise TargetError(
            f"console of the rules needs the environment variable {error.variable}, which is not "
            "set here, where alerts are sent; set it"
        ) from None
    except LinkKeyError as error:
        raise TargetError(f"console.key of the rules: {error}") from None


def _check_ca(name: str, ca: str) -> None:
    named = f"target {name!r} of the rules"
    if not os.path.isfile(ca):
        raise TargetError(f"{named}: there is no file {ca}, which it names as its ca")
    try:
        ssl.create_default_context(cafile=ca)
    except ssl.SSLError:
        raise TargetError(
            f"{named}: {ca}, which it names as its ca, holds no certificate; give a PEM file"
        ) from None
    except OSError as error:
        raise TargetError(
            f"{named}: {ca}, which it names as its ca, can't be read ({error.strerror or error})"
        ) from None
