"""Stores the pictures that cameras send by mail in a folder, under names that the job reads.

A camera sends to ``<id>@…``. Each attached JPEG becomes ``<id>_<time>.jpg``; the time is that at
which the mail came, in UTC. The job judges a picture once it is whole, so it can be written in
place. If that fails, it is deleted, and the camera is told to try again later.

    .venv/bin/pip install aiosmtpd
    .venv/bin/python examples/mail_to_folder.py --host 127.0.0.1 --port 2525 /srv/pictures
"""

from __future__ import annotations

import argparse
import email
import email.policy
import re
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LARGEST = 30 << 20


class Pictures:
    """Handles mails: see https://aiosmtpd.aio-libs.org.

    Args:
        folder: Where the pictures go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._newest = 0

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, _: Any
    ) -> str:
        """Accepts a recipient whose name is the id of a camera."""
        if not _ID.fullmatch(address.partition("@")[0]):
            return "553 the name before the @ must be the id of a camera, such as hall"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Stores the pictures of a mail."""
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        pictures = [
            part.get_payload(decode=True)
            for part in mail.walk()
            if part.get_content_type() == "image/jpeg"
            or (part.get_filename() or "").lower().endswith((".jpg", ".jpeg"))
        ]
        try:
            for address in envelope.rcpt_tos:
                for picture in filter(None, pictures):
                    self._store(address.partition("@")[0], picture)
        except OSError as error:
            return f"451 can't be stored now: {error.strerror}"
        return f"250 {len(pictures)} stored"

    def _store(self, camera: str, picture: bytes) -> None:
        # Pictures of one mail get times a microsecond apart, so that each has a name of its own.
        self._newest = max(time.time_ns() // 1000, self._newest + 1)
        moment = datetime.fromtimestamp(self._newest // 1_000_000, timezone.utc)
        name = f"{camera}_{moment:%Y%m%dT%H%M%S}.{self._newest % 1_000_000:06}Z.jpg"
        file = self._folder / name
        try:
            file.write_bytes(picture)
        except OSError:
            file.unlink(missing_ok=True)
            raise


def main() -> None:
    """Serves until it is interrupted."""
    parser = argparse.ArgumentParser(description="Stores pictures of mails in a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=2525)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    controller = Controller(
        Pictures(args.folder), hostname=args.host, port=args.port, data_size_limit=_LARGEST
    )
    controller.start()
    print(f"listening on {args.host}:{args.port}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
