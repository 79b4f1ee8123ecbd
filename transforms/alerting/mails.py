"""Mails by Apprise: HTML with the picture inside, next to the plain text.

Apprise makes the plain text of a mail from its HTML, and drops the links. Here the message's own
text takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, wraps
from typing import Any

_plain_text: ContextVar[str | None] = ContextVar("plain_text", default=None)


def is_html_mail(service: Any) -> bool:
    """Returns whether a service of Apprise sends HTML mails; it then shows pictures inside.

    Args:
      service: What Apprise makes of an address.
    """
    from apprise import NotifyFormat
    from apprise.plugins.email import NotifyEmail

    is_mail = isinstance(service, NotifyEmail)
    if not is_mail or service.resolve_format(NotifyFormat.HTML) != NotifyFormat.HTML:
        return False
    _use_plain_text()
    service.inline = True
    return True


@contextmanager
def plain_text(text: str) -> Iterator[None]:
    """Sets the plain text of the HTML mails that this thread sends during the block."""
    token = _plain_text.set(text)
    try:
        yield
    finally:
        _plain_text.reset(token)


@cache
def _use_plain_text() -> None:
    """Lets Apprise take the text of `plain_text`; this hook is global, as its mails have none."""
    from apprise.plugins.email import base

    module: Any = base
    module.convert_between = _with_plain_text(module.convert_between)


def _with_plain_text(convert: Callable[..., str]) -> Callable[..., str]:
    @wraps(convert)
    def converted(*args: Any, **kwargs: Any) -> str:
        text = _plain_text.get()
        return convert(*args, **kwargs) if text is None else text

    return converted
