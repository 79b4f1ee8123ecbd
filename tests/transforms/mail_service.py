"""A mail server on the loopback that keeps what it receives."""

from __future__ import annotations

import email
import email.message
import email.policy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from tests.stores.servers import free_port


class Mails:
    """What the server has received.

    Attributes:
      url: The server's address for Apprise, with a reference to `MAIL_PASSWORD`.
      envelopes: The mails.
      reply: The server's reply to each mail.
    """

    url: str

    def __init__(self) -> None:
        self.envelopes: list[Any] = []
        self.reply = "250 kept"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.envelopes.append(envelope)
        return self.reply

    def authenticate(
        self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any
    ) -> AuthResult:
        known = (data.login, data.password) == (b"robot", b"pa55@word")
        return AuthResult(success=known, handled=False)

    def parsed(self) -> email.message.EmailMessage:
        """The only mail."""
        (envelope,) = self.envelopes
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(mail, email.message.EmailMessage)
        return mail


@contextmanager
def mail_server() -> Iterator[Mails]:
    """Runs a server that accepts the user `robot` with the password `pa55@word`."""
    kept = Mails()
    controller = Controller(
        kept,
        hostname="127.0.0.1",
        port=free_port(),
        authenticator=kept.authenticate,
        auth_require_tls=False,
    )
    controller.start()
    kept.url = (
        f"mailto://robot:${{MAIL_PASSWORD}}@127.0.0.1:{controller.port}"
        "?from=cameras@example.com&to=guard@example.com"
    )
    try:
        yield kept
    finally:
        controller.stop()
