"""Parsers of arguments, and the types and options that several commands share."""

from __future__ import annotations

import argparse
import math
from datetime import timedelta
from typing import NoReturn

from beam_pipeline.console.exceptions import SetupError

DEFAULT_OUTPUT = "output"
NAME_PRESETS = (
    *("reolink", "hikvision", "dahua", "amcrest", "axis", "foscam", "vivotek", "synology"),
    *("unifi", "motion", "motioneye", "zoneminder", "frigate", "blueiris", "folders"),
)
"""The names of the presets, without the time that it takes to import the rules."""
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


def interval(text: str) -> float:
    """Returns seconds of an interval such as `30s` or `10m`, at least one; infinite for `off`.

    Raises:
      argparse.ArgumentTypeError: It is no interval.
    """
    seconds = max_age(text)
    if seconds < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than a second")
    return seconds


def age(text: str) -> timedelta:
    """Returns an age such as `30d` or `12h`.

    Raises:
      argparse.ArgumentTypeError: It is none.
    """
    from rules import parse_age  # As in `max_age`.
    from rules.schedule import UnreadableError

    try:
        return parse_age(text)
    except UnreadableError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _name_preset(text: str) -> str:
    from rules import preset_problem  # As in `max_age`.

    return _without_problem(text, preset_problem(text))


def _name_pattern(text: str) -> str:
    from rules import parse_pattern  # As in `max_age`.
    from rules.schedule import UnreadableError

    try:
        parse_pattern(text)
    except UnreadableError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _timezone(text: str) -> str:
    from rules.schedule import timezone_problem  # As in `max_age`.

    return _without_problem(text, timezone_problem(text))


def _without_problem(text: str, problem: tuple[str, str] | None) -> str:
    if problem is not None:
        raise argparse.ArgumentTypeError("; ".join(problem))
    return text


def add_name_options(group: argparse._ActionsContainer) -> None:
    """Adds the options that say how names of images are read."""
    group.add_argument(
        "--name_preset",
        type=_name_preset,
        metavar="NAME",
        help=f"read names as these cameras or recorders write them: {', '.join(NAME_PRESETS)} "
        "(docs/names.md). Canonical names are read too; the rule file can set another preset for a "
        "camera (default: <id>_<timestamp>.jpg)",
    )
    add_name_pattern(group)
    add_timezone(group)


def add_name_pattern(group: argparse._ActionsContainer) -> None:
    """Adds ``--name_pattern``."""
    group.add_argument(
        "--name_pattern",
        type=_name_pattern,
        metavar="PATTERN",
        help="read names by a pattern that is matched against the path below --input, such as "
        "'{camera}/{time:%%Y/%%m/%%d}/*_{time:%%H%%M%%S}.jpg' (docs/names.md) (default: "
        "<id>_<timestamp>.jpg)",
    )


def add_timezone(group: argparse._ActionsContainer) -> None:
    """Adds ``--timezone``."""
    group.add_argument(
        "--timezone",
        type=_timezone,
        metavar="ZONE",
        help="the time zone in which names without an offset are written, such as Europe/Berlin "
        "(default: UTC)",
    )


def add_labels(parser: argparse.ArgumentParser) -> None:
    """Adds ``--labels`` to a command that reads a rule file."""
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="names of the model's classes, as for the job, or the .json file that the job had as "
        "--detections (default: COCO's)",
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
