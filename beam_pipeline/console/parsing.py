"""Parsers of arguments, and the types and options that several commands share."""

from __future__ import annotations

import argparse
import math
from datetime import timedelta
from typing import NoReturn

from beam_pipeline.console.exceptions import SetupError

DEFAULT_OUTPUT = "output"
LONGEST_WINDOW = timedelta(days=366)


class OneLineParser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise SetupError(f"{message} (see {self.prog} --help)")


def integer(text: str, minimum: int) -> int:
    """Returns a whole number of at least a minimum."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < minimum:
        raise argparse.ArgumentTypeError(f"{value} is less than {minimum}")
    return value


def at_least_1(text: str) -> int:
    """Returns a whole number of at least 1."""
    return integer(text, 1)


def at_least_0(text: str) -> int:
    """Returns a whole number of at least 0."""
    return integer(text, 0)


def number(text: str) -> float:
    """Returns a number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def score(text: str) -> float:
    """Returns a number from 0 to 1."""
    value = number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def hours(text: str) -> float:
    """Returns hours: more than 0, at most a year."""
    value = number(text)
    if not 0 < value <= 24 * 366:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0 and at most {24 * 366}")
    return value


def max_age(text: str) -> float:
    """Returns seconds of an age such as `30s` or `24h`; infinite for `off`.

    Raises:
      argparse.ArgumentTypeError: It is no age.
    """
    # Imported here, as the rules bring pydantic, and `--help` answers at once.
    from rules.schedule import UnreadableError, parse_duration

    if text == "off":
        return math.inf
    try:
        return parse_duration(text).total_seconds()
    except UnreadableError as error:
        raise argparse.ArgumentTypeError(f"{error}; or off") from None


def add_labels(parser: argparse.ArgumentParser) -> None:
    """Adds ``--labels`` to a command that reads a rule file."""
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="names of the model's classes, as for the job (default: COCO's)",
    )


def add_alert_url(group: argparse._ActionsContainer) -> None:
    """Adds `--alert_url`, which may be given several times."""
    group.add_argument(
        "--alert_url",
        action="append",
        default=[],
        metavar="URL",
        help="POST each alert to this address as JSON; may be given several times. Write secrets "
        "in it as ${NAME}, the name of an environment variable of the machine that sends: the list "
        "of processes shows the address. The environment variable ALERT_TOKEN holds the bearer "
        "token (default: only the targets of the rule file receive alerts)",
    )
