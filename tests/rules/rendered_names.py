"""Paths that a camera would write, made from a pattern without the code that reads them."""

from __future__ import annotations

import re
from datetime import datetime, timezone

_TOKEN = re.compile(r"(\*\*/|\*|\{[^{}]*\})")


def render(
    pattern: str,
    camera: str,
    time: datetime,
    *,
    channel: str = "01",
    sequence: str = "7",
    star: str = "x",
    folders: str = "",
) -> str:
    """Returns the path of an image with these parts; the time is written as its digits are."""
    parts = []
    for token in _TOKEN.split(pattern):
        if token.startswith("{time:"):
            parts.append(_written(time, token[6:-1]))
        else:
            texts = {
                "{camera}": camera,
                "{channel}": channel,
                "{sequence}": sequence,
                "*": star,
                "**/": folders,
            }
            parts.append(texts.get(token, token))
    return "".join(parts)


def _written(time: datetime, form: str) -> str:
    form = form.replace("%3f", f"{time.microsecond // 1000:03d}").replace("%T", "%H:%M:%S")
    form = form.replace("%f", f"{time.microsecond:06d}").replace("%F", "%Y-%m-%d")
    if "%s" in form:
        seconds = int(time.replace(tzinfo=timezone.utc, microsecond=0).timestamp())
        form = form.replace("%s", f"{seconds:010d}")
    return time.strftime(form.replace("%Y", f"{time.year:04d}"))


def precision(pattern: str, time: datetime) -> datetime:
    """Returns the time as far as the pattern can write it."""
    if "%f" in pattern:
        return time
    if "%3f" in pattern:
        return time.replace(microsecond=time.microsecond // 1000 * 1000)
    return time.replace(microsecond=0)
