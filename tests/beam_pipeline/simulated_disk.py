"""A filesystem in memory with a clock, whose listings can fail, for the watching source."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from beam_pipeline.sources.folders import Disk, Filesystem

TOP = "/nowhere/in"
NOW = 1_770_000_000.25


@dataclass
class Node:
    """A file, or a folder with what is in it."""

    number: int
    is_folder: bool
    size: int
    modified: float
    changed: float
    ends_as_jpeg: bool = False
    entries: dict[str, Node] = field(default_factory=dict)


@dataclass(frozen=True)
class Status:
    """As much of os.stat_result as is looked at."""

    st_mode: int
    st_ino: int
    st_size: int
    st_mtime: float
    st_ctime: float
    st_dev: int = 1

    @property
    def st_mtime_ns(self) -> int:
        return int(self.st_mtime * 10**9)

    @property
    def st_ctime_ns(self) -> int:
        return int(self.st_ctime * 10**9)


class SimulatedDisk(Disk):
    """Folders and files under one top.

    Args:
      is_local: A file that is renamed counts as changed, and dates are of the worker's clock.
      server_ahead: Seconds that the file server's clock is ahead of the worker's.

    Attributes:
      during_scans: What happens while folders are read, one before each entry.
    """

    def __init__(self, *, is_local: bool = True, server_ahead: float = 0.0) -> None:
        super().__init__()
        self.now = NOW
        assert not (is_local and server_ahead), "a local disk has no clock of its own"
        self.is_local = is_local
        self.server_ahead = server_ahead
        self.number = 1
        self.failing: set[str] = set()
        self.scanned: list[str] = []
        self.during_scans: list[Callable[[], None]] = []
        self._numbers = count(100)
        self._sizes = count(1)
        self.top = self.node(is_folder=True)

    @property
    def server_time(self) -> float:
        return self.now + self.server_ahead

    def node(
        self, *, is_folder: bool = False, age: float = 0.0, ends_as_jpeg: bool = False
    ) -> Node:
        """A new file or folder that is nowhere yet; each file has a size of its own."""
        at = self.server_time - age
        size = 0 if is_folder else next(self._sizes)
        return Node(next(self._numbers), is_folder, size, at, at, ends_as_jpeg)

    def find(self, path: str) -> Node:
        node = self.top
        for name in path.removeprefix(TOP).strip("/").split("/"):
            if name:
                if name not in node.entries:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
                node = node.entries[name]
        return node

    def put(self, path: str, node: Node) -> None:
        """Moves a file or folder to a path, over what is there."""
        folder, name = os.path.split(path)
        parent = self.find(folder)
        parent.entries[name] = node
        parent.modified = parent.changed = self.server_time
        if self.is_local:
            node.changed = self.server_time

    def take(self, path: str) -> Node:
        """Moves what is at a path away."""
        folder, name = os.path.split(path)
        parent = self.find(folder)
        parent.modified = parent.changed = self.server_time
        return parent.entries.pop(name)

    def write(self, path: str, *, ends_as_jpeg: bool = False) -> None:
        """Makes a file, or writes more into it."""
        folder, name = os.path.split(path)
        if name not in self.find(folder).entries:
            self.put(path, self.node(ends_as_jpeg=ends_as_jpeg))
        else:
            node = self.find(path)
            node.ends_as_jpeg = ends_as_jpeg
            node.size = next(self._sizes)
            node.modified = node.changed = self.server_time

    def touch(self, path: str) -> None:
        """Changes what a `chmod` changes."""
        self.find(path).changed = self.server_time

    def files(self) -> dict[str, Node]:
        """All files by their paths."""
        return {path: node for path, node in self._all(TOP, self.top) if not node.is_folder}

    def folders(self) -> list[str]:
        """All folders, the top first."""
        return [TOP, *(path for path, node in self._all(TOP, self.top) if node.is_folder)]

    def _all(self, path: str, node: Node) -> Any:
        for name, entry in node.entries.items():
            yield f"{path}/{name}", entry
            yield from self._all(f"{path}/{name}", entry)

    def changed(self, node: Node) -> float:
        return node.changed if self.is_local else max(node.changed, node.modified)

    def versions(self) -> set[tuple[str, int, float]]:
        """All files as they are now."""
        return {(path, file.size, self.changed(file)) for path, file in self.files().items()}

    # What a Disk does.

    def stat(self, path: str) -> Any:
        if f"stat {path}" in self.failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return self.status(self.find(path))

    @staticmethod
    def status(node: Node) -> Status:
        mode = stat.S_IFDIR if node.is_folder else stat.S_IFREG
        return Status(mode, node.number, node.size, node.modified, node.changed)

    def scan(self, path: str) -> Iterator[Any]:
        self.scanned.append(path)
        if path in self.failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        for name, entry in list(self.find(path).entries.items()):
            if self.during_scans:
                self.during_scans.pop(0)()
            yield _Entry(self, path, name, entry)

    def realpath(self, path: str) -> str:
        return path

    def ends_as_jpeg(self, path: str) -> bool:
        try:
            return self.find(path).ends_as_jpeg
        except FileNotFoundError:
            return False

    def filesystem(self, path: str, status: Any) -> Filesystem:
        return Filesystem(self.number, self.is_local, self.is_local)


@dataclass(frozen=True)
class _Entry:
    disk: SimulatedDisk
    folder: str
    name: str
    node: Node

    @property
    def path(self) -> str:
        return f"{self.folder}/{self.name}"

    def is_symlink(self) -> bool:
        return False

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return self.node.is_folder

    def stat(self, *, follow_symlinks: bool = True) -> Any:
        if f"stat {self.path}" in self.disk.failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO), self.path)
        return self.disk.status(self.disk.find(self.path))
