"""Text for people, logs and JSON."""

from __future__ import annotations

import re


def printable(text: str) -> str:
    """A file name or address as text that every store, log and JSON reader takes.

    Control characters and bytes that are not UTF-8 (lone surrogates in Python) become `%XX`.
    """
    return re.sub(
        r"[\x00-\x1f\x7f\ud800-\udfff]",
        lambda found: f"%{ord(found[0]) & 0xFF:02X}",
        text,
    )


def one_line(error: Exception) -> str:
    """The innermost cause of an error, short."""
    while causes := [
        one
        for one in (getattr(error, "reason", None), error.__cause__, *error.args[:1])
        if isinstance(one, Exception)
    ]:
        error = causes[0]
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
