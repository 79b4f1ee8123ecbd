"""An FTP server for cameras, and cameras that upload to it as cameras do."""

from __future__ import annotations

import ftplib
import io
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer

_USER, _PASSWORD = "camera", "of the test"


@contextmanager
def ftp_server(folder: Path) -> Iterator[tuple[str, int]]:
    """Serves a folder on a free port of the loopback; yields host and port."""
    authorizer = DummyAuthorizer()
    authorizer.add_user(_USER, _PASSWORD, str(folder), perm="elradfmw")
    handler = type("Handler", (FTPHandler,), {"authorizer": authorizer})
    server = FTPServer(("127.0.0.1", 0), handler)
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            server.serve_forever(timeout=0.05, blocking=False)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server.address
    finally:
        stop.set()
        thread.join()
        server.close_all()


@dataclass(frozen=True)
class Camera:
    """A camera that uploads its images one after the other.

    Each upload goes a way that depends on the name: at once; in pieces; with a pause of seconds in
    the middle; under another name, and then renamed; or the connection breaks in the middle, and
    the camera uploads the image again.

    Attributes:
      address: Host and port of the server.
      name: The camera's id, and its folder.
      images: The bytes of each image by its name.
    """

    address: tuple[str, int]
    name: str
    images: dict[str, bytes]

    def upload(self) -> None:
        """Uploads all images."""
        connection = self._connect(make_folder=True)
        for number, (name, data) in enumerate(sorted(self.images.items())):
            way = (number + len(self.name)) % 5
            if way == 4:
                self._break_off(connection, name, data)
                connection = self._connect()
            pieces = _Pieces(data, at_most=len(data) if way == 0 else 7_000)
            pieces.pause = 6.0 if way == 2 else 0.0
            if way == 3:
                connection.storbinary(f"STOR {name}.part", pieces, blocksize=7_000)
                connection.rename(f"{name}.part", name)
            else:
                connection.storbinary(f"STOR {name}", pieces, blocksize=len(data))
        connection.quit()

    def _connect(self, *, make_folder: bool = False) -> ftplib.FTP:
        connection = ftplib.FTP(timeout=30)
        connection.connect(*self.address)
        connection.login(_USER, _PASSWORD)
        if make_folder:
            connection.mkd(self.name)
        connection.cwd(self.name)
        return connection

    def _break_off(self, connection: ftplib.FTP, name: str, data: bytes) -> None:
        """Loses the connection after a third of an image; the camera notices after a while."""
        transfer = connection.transfercmd(f"STOR {name}")
        transfer.sendall(data[: len(data) // 3])
        transfer.close()
        connection.close()
        time.sleep(random.Random(name).uniform(0.2, 3.0))


class _Pieces(io.BytesIO):
    """Bytes that come in pieces, a fiftieth of a second apart, with a pause in the middle."""

    pause = 0.0

    def __init__(self, data: bytes, at_most: int) -> None:
        super().__init__(data)
        self._at_most = at_most
        self._middle = len(data) // 2

    def read(self, size: int | None = -1) -> bytes:
        before = self.tell()
        if before:
            time.sleep(0.02)
        if before < self._middle <= before + self._at_most:
            time.sleep(self.pause)
        return super().read(min(self._at_most, size) if size and size > 0 else self._at_most)
