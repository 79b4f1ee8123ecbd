"""An object store in this process, under `memory://`, for code that must not need a local path."""

import io
import threading

from apache_beam.io.filesystem import (
    BeamIOError,
    CompressionTypes,
    FileMetadata,
    FileSystem,
)


class StoreError(Exception):
    """An error of a store's own kind: no OSError, as those of cloud clients are not."""


OBJECTS: dict[str, bytes] = {}
"""What the store holds, by address. A test's objects are removed by the `memory` fixture."""

UNREADABLE: set[str] = set()
"""Addresses on which reading fails after the first bytes."""

_lock = threading.Lock()


class _Upload(io.BytesIO):
    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address

    def close(self) -> None:
        if not self.closed:
            with _lock:
                OBJECTS[self._address] = self.getvalue()
        super().close()


class _Broken(io.RawIOBase):
    def __init__(self, data: bytes) -> None:
        self._data = data

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not self._data:
            raise StoreError("403: the connection was reset")
        data, self._data = self._data, b""
        return data


class MemoryFileSystem(FileSystem):
    """What Beam needs of a filesystem, over :data:`OBJECTS`."""

    @classmethod
    def scheme(cls):
        return "memory"

    def join(self, basepath, *paths):
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path):
        head, _, tail = path.rpartition("/")
        return head, tail

    def mkdirs(self, path):
        raise NotImplementedError

    def has_dirs(self):
        return False

    def _list(self, dir_or_prefix):
        for address, data in sorted(OBJECTS.items()):
            if address.startswith(dir_or_prefix):
                yield FileMetadata(address, len(data))

    def create(self, path, mime_type="", compression_type=CompressionTypes.AUTO):
        assert compression_type == CompressionTypes.UNCOMPRESSED
        return _Upload(path)

    def open(self, path, mime_type="", compression_type=CompressionTypes.AUTO):
        assert compression_type == CompressionTypes.UNCOMPRESSED
        if path not in OBJECTS:
            raise StoreError(f"404: {path}")
        if path in UNREADABLE:
            return _Broken(OBJECTS[path])
        return io.BytesIO(OBJECTS[path])

    def copy(self, source_file_names, destination_file_names):
        raise NotImplementedError

    def rename(self, source_file_names, destination_file_names):
        raise NotImplementedError

    def exists(self, path):
        return path in OBJECTS

    def size(self, path):
        return len(OBJECTS[path])

    def last_updated(self, path):
        raise NotImplementedError

    def checksum(self, path):
        raise NotImplementedError

    def metadata(self, path):
        return FileMetadata(path, self.size(path))

    def delete(self, paths):
        missing = [path for path in paths if OBJECTS.pop(path, None) is None]
        if missing:
            raise BeamIOError("nothing to delete", dict.fromkeys(missing, StoreError("404")))
