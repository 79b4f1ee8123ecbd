"""Selects the log lines that a person sees: this program's own warnings, and others on request."""

from __future__ import annotations

import logging
import sys

_OWN_LOGGERS = ("beam_pipeline", "transforms", "rules", "__main__")
_NEVER = 1 + logging.CRITICAL


class _Notes(logging.Handler):
    """Prints lines on standard error.

    Attributes:
      library_level: The lowest level of a line of Beam, a runner or another library.
    """

    library_level = _NEVER

    def emit(self, record: logging.LogRecord) -> None:
        is_own = record.name.split(".")[0] in _OWN_LOGGERS and record.levelno >= logging.WARNING
        if is_own or record.levelno >= self.library_level:
            print(self.format(record), file=sys.stderr)


_notes = _Notes()


def install() -> None:
    """Shows this program's own warnings, and nothing else."""
    _notes.library_level = _NEVER
    root = logging.getLogger()
    if _notes not in root.handlers:  # With one there, Beam adds none of its own.
        root.addHandler(_notes)


def show_library_logs(level: str) -> None:
    """Shows the lines of Beam, the runner and other libraries too, from a level on.

    Args:
      level: Its name, or its number as text.
    """
    number = int(level) if level.isdecimal() else getattr(logging, level.upper(), logging.INFO)
    _notes.library_level = number
    root = logging.getLogger()
    root.setLevel(min(root.level, number))
