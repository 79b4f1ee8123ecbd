"""An S3 server on the loopback: moto's, in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from typing import Any

import boto3

REGION = "us-east-1"
KEY_ID, KEY = "testing", "testing"


class S3Server:
    """The server.

    Attributes:
      url: Where it answers.
      client: Boto's client for it.
    """

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.url = f"http://127.0.0.1:{port}"
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=KEY,
            region_name=REGION,
        )
        deadline = time.monotonic() + 60
        while True:
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    return
            assert self._process.poll() is None, "moto.server ended at its start"
            assert time.monotonic() < deadline, "moto.server does not answer within 60 s"
            time.sleep(0.1)

    @property
    def beam_options(self) -> list[str]:
        """Beam's options for it."""
        return [
            *("--s3_endpoint_url", self.url),
            *("--s3_access_key_id", KEY_ID),
            *("--s3_secret_access_key", KEY),
            *("--s3_region_name", REGION),
        ]

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=10)
