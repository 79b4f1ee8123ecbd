"""The exceptions that end a command before its work is done; each is reported in one line."""

from __future__ import annotations

from typing import ClassVar


class CommandError(Exception):
    """Why a command ends: one line.

    Attributes:
      exit_code: With which the process ends.
    """

    exit_code: ClassVar[int]


class SetupError(CommandError, ValueError):
    """A wrong set-up: one line that says what, where and what to do."""

    exit_code = 2


class CommandFailedError(CommandError):
    """The work has started and could not be finished: one line that says why."""

    exit_code = 1
