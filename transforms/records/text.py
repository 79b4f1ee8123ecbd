"""Text for people, logs and JSON."""

from __future__ import annotations

import re


def printable(text: str) -> str:
    """Makes a file name or address printable for every store, log and JSON reader.

    Control characters and bytes that are not UTF-8 (lone surrogates in Python) become `%XX`.
    """
    return re.sub(
        r"[\x00-\x1f\x7f\ud800-\udfff]",
        lambda match: f"%{ord(match[0]) & 0xFF:02X}",
        text,
    )


def one_line(error: Exception) -> str:
    """Describes the innermost cause of an error in one short line."""
    while causes := [
        cause
        for cause in (getattr(error, "reason", None), error.__cause__, *error.args[:1])
        if isinstance(cause, Exception)
    ]:
        error = causes[0]
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
