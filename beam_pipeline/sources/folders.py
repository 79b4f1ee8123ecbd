"""Local folders as one listing finds them: their files, their links, and what can't be listed.

The batch lists them once and the stream again and again, both by :func:`walk`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from apache_beam.io.filesystems import FileSystems

from beam_pipeline.sources.listed_files import ListedFile, ListedFiles
from beam_pipeline.sources.parts import WHOLE, Part

WILDCARD = re.compile(r"[*?\[]")
_CROSSES_FOLDERS = re.compile(r"\*\*|[?\[]")
_LOCAL = frozenset(("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs"))
"""Filesystems of this machine on which a rename moves on a file's time of change, so that no file
comes with an old one."""
_DATES_FOLDERS = _LOCAL | {"nfs", "nfs4"}
"""Filesystems on which a folder's time changes when an entry is added or removed."""
_JPEG_BEGIN, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_SCAN = 0xDA
"""The marker before the data of the image."""
_MOST_SEGMENTS = 1000
_GONE = (errno.ENOENT, errno.ENOTDIR)


def digest_of(*facts: object) -> bytes:
    """Returns eight bytes that differ where one of the facts does."""
    text = "\n".join(map(str, facts)).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=8).digest()


def version_of(path: str, status: os.stat_result, link: float = 0.0) -> bytes:
    """Returns eight bytes that differ where a local file has changed.

    Args:
      path: The file.
      status: Its status.
      link: When the link to it changed, in seconds of Unix time, if `path` is one.
    """
    return digest_of(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, link)


@dataclass(frozen=True)
class Filesystem:
    """What is known of the filesystem that a folder is on.

    Attributes:
      number: Identifies it.
      is_local: Its times are of this machine's clock, and a file that is renamed gets a new one.
      dates_folders: A folder's time changes when an entry is added or removed.
    """

    number: int
    is_local: bool
    dates_folders: bool


class Entry(Protocol):
    """What is used of :class:`os.DirEntry`."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str: ...
    def is_symlink(self) -> bool: ...
    def is_dir(self, *, follow_symlinks: bool = True) -> bool: ...
    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result: ...


class Disk:
    """The operating system's filesystems, as far as they are listed."""

    def __init__(self) -> None:
        self._kinds: dict[int, Filesystem] = {}

    def forget_mounts(self) -> None:
        """Forgets what was mounted where."""
        self._kinds = {}

    def stat(self, path: str) -> os.stat_result:
        """Returns the status of a file or folder; a link is followed."""
        return os.stat(path)

    def scan(self, path: str) -> Iterator[Entry]:
        """Yields what is in a folder, in no order."""
        with os.scandir(path) as entries:
            yield from entries

    def realpath(self, path: str) -> str:
        """Returns the path without links."""
        return os.path.realpath(path)

    def filesystem(self, path: str, status: os.stat_result) -> Filesystem:
        """Returns the filesystem that a folder is on."""
        known = self._kinds.get(status.st_dev)
        if known is None:
            kind = _mounted_kind(self.realpath(path))
            number = digest_of(status.st_dev, os.statvfs(path).f_fsid)
            known = Filesystem(
                int.from_bytes(number, "big"), kind in _LOCAL, kind in _DATES_FOLDERS
            )
            self._kinds[status.st_dev] = known
        return known

    def ends_as_jpeg(self, path: str) -> bool:
        """Returns whether a file ends as a JPEG does, behind the beginning of its image; False if
        it can't be read.

        A preview in the data before the image ends in the same way.
        """
        try:
            with open(path, "rb") as file:
                if not _begins_image(file):
                    return False
                file.seek(-len(_JPEG_END), os.SEEK_END)
                return file.read(len(_JPEG_END)) == _JPEG_END
        except OSError:
            return False


def _begins_image(file: BinaryIO) -> bool:
    """Returns whether the segments at the beginning of a JPEG lead to its image."""
    if file.read(2) != _JPEG_BEGIN:
        return False
    for _ in range(_MOST_SEGMENTS):
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or not 0xC0 <= head[1] <= 0xFE:
            return False
        if head[1] == _SCAN:
            return True
        file.seek(max(int.from_bytes(head[2:], "big") - 2, 0), os.SEEK_CUR)
    return False


def _mounted_kind(path: str) -> str | None:
    """Returns the type of the filesystem at a path by Linux's name; None where it is unknown."""
    kinds: dict[str, str] = {}
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                mount, _, kind = line.partition(" - ")
                point = mount.split(" ")[4]
                mount_point = re.sub(r"\\([0-7]{3})", lambda escape: chr(int(escape[1], 8)), point)
                kinds[mount_point] = kind.split(" ")[0]
    except OSError:
        return None
    while path not in kinds and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return kinds.get(path)


@dataclass(frozen=True)
class Source:
    """What a local `--input` names.

    Attributes:
      top: The folder under which its files lie.
      matches: Whether a file's path is one of its.
      may_hold: Whether files of its may lie in a folder, or beneath it.
      is_whole: Whether all beneath the folder is its.
      is_file: Whether it is one file, which is read also if it is a link.
    """

    top: str
    matches: Callable[[str], object]
    may_hold: Callable[[str], object]
    is_whole: bool = False
    is_file: bool = False


def source_of(source: str) -> Source:
    """Returns what a file, directory or glob of Beam's names; what exists under that very name is
    no glob.

    Args:
      source: A local path.
    """
    source = os.path.abspath(source)
    wildcard = WILDCARD.search(source)
    if os.path.isdir(source) or (wildcard is None and not os.path.lexists(source)):
        return Source(source, lambda path: True, lambda folder: True, is_whole=True)
    if wildcard is None or os.path.lexists(source):
        return Source(os.path.dirname(source), source.__eq__, lambda folder: False, is_file=True)
    translate = FileSystems.get_filesystem(source).translate_pattern
    matches = re.compile(translate(source)).match
    folders = []  # A pattern for the folders of each depth, as far as the glob tells.
    parts = source.split("/")
    for depth, part in enumerate(parts[:-1], 1):
        if _CROSSES_FOLDERS.search(part):
            break
        folders.append(re.compile(translate("/".join(parts[:depth])) if depth > 1 else r"\Z"))
    is_deep = bool(_CROSSES_FOLDERS.search("/".join(parts[len(folders) :])))

    def may_hold(folder: str) -> object:
        depth = folder.count("/")
        return folders[depth].match(folder) if depth < len(folders) else is_deep

    return Source(os.path.dirname(source[: wildcard.start()]), matches, may_hold)


@dataclass
class Folder:
    """What a listing found in one folder.

    Attributes:
      path: The folder.
      parent: The folder that it is in; itself at the top.
      number: Its inode's.
      changed: When an entry was last added or removed, by its filesystem's clock.
      filesystem: The filesystem that it is on.
      files: Its regular files, in no order.
      folders: The folders in it, in the order of their names, as are the following.
      unread: Entries whose status can't be read, and why.
      dangling: Links that lead to nothing.
      links: Links that are not followed.
      has_linked_files: Whether some of `files` are links.
      is_unchanged: It was not listed, as nothing has come or gone; `files` is empty.
      is_partial: `files` are those that may be new; the others were not listed again.
      has_other_parts: It has entries that belong to other parts of the source.
      status_changed: As `changed`, and nobody can set it back: a program that copies folders sets
        `changed` to what it was elsewhere.
    """

    path: str
    parent: str
    number: int
    changed: float
    filesystem: Filesystem
    files: ListedFiles = field(default_factory=ListedFiles)
    folders: list[str] = field(default_factory=list)
    unread: list[tuple[str, OSError]] = field(default_factory=list)
    dangling: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    has_linked_files: bool = False
    is_unchanged: bool = False
    is_partial: bool = False
    has_other_parts: bool = False
    status_changed: float = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all is in it."""
        found = self.files or self.folders or self.unread or self.dangling or self.links
        return not (found or self.has_other_parts)


@dataclass(frozen=True)
class UnlistableFolder:
    """A folder that can't be listed.

    Attributes:
      path: The folder.
      parent: The folder that it is in.
      error: What the operating system says.
    """

    path: str
    parent: str
    error: OSError


Unchanged = Callable[[Folder], "list[str] | None"]


def _always_list(folder: Folder) -> None:
    return None


def walk(
    source: Source,
    disk: Disk,
    *,
    part: Part = WHOLE,
    follow_links: bool = False,
    unchanged: Unchanged = _always_list,
) -> Iterator[Folder | UnlistableFolder]:
    """Yields the folders of a source, the top first, each before those in it.

    Links that lead out of the source, and linked folders, are followed only on request. A
    folder to which several links lead is then listed once, where it lies if that is within the
    source: so links that lead round and round end. With a glob only such links end, as the glob
    may match under one of the addresses alone.

    Args:
      source: What to list.
      disk: Where it is.
      part: Which entries of the top folder are listed, with all beneath them. A folder to which
        links in several parts lead is listed by each of these.
      follow_links: Whether links are followed wherever they lead.
      unchanged: Gives the folders in a folder that need not be listed again, or None.

    Raises:
      OSError: The top can't be listed.
    """
    disk.forget_mounts()
    walking = _Walk(source, disk, part, follow_links)
    listed: set[str] = set()
    pending: list[tuple[str, str, frozenset[str]]] = [(source.top, source.top, frozenset())]
    pending_links: list[tuple[str, str, frozenset[str]]] = []
    while pending or pending_links:
        path, parent, ancestors = pending.pop() if pending else pending_links.pop(0)
        if follow_links:
            real = disk.realpath(path)
            if real in (listed if source.is_whole else ancestors):
                continue
            listed.add(real)
            ancestors |= {real}
        try:
            folder = walking.status(path, parent)
            known = unchanged(folder)
            if known is not None:
                folder.folders, folder.is_unchanged = known, True
            else:
                walking.fill(folder)
        except OSError as error:
            if path == source.top:
                raise
            if error.errno not in _GONE:
                yield UnlistableFolder(path, parent, error)
            continue
        yield folder
        linked = walking.linked_folders.pop(path, ())
        pending += [
            (child, path, ancestors) for child in reversed(folder.folders) if child not in linked
        ]
        pending_links += [(child, path, ancestors) for child in folder.folders if child in linked]


class _Walk:
    def __init__(self, source: Source, disk: Disk, part: Part, follow_links: bool) -> None:
        self._source = source
        self._disk = disk
        self._part = part
        self._follow_links = follow_links
        self._real_top = disk.realpath(source.top)
        self.linked_folders: dict[str, set[str]] = {}

    def status(self, path: str, parent: str) -> Folder:
        status = self._disk.stat(path)
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        filesystem = self._disk.filesystem(path, status)
        return Folder(
            *(path, parent, status.st_ino, status.st_mtime, filesystem),
            status_changed=status.st_ctime,
        )

    def fill(self, folder: Folder) -> None:
        # Not as a list: an entry and its status are larger than what is kept of them.
        is_divided = folder.path == self._source.top and self._part != WHOLE
        for entry in self._disk.scan(folder.path):
            if is_divided and not self._part.has(entry.name):
                folder.has_other_parts = True
                continue
            try:
                if entry.is_symlink():
                    self._link(folder, entry)
                elif entry.is_dir(follow_symlinks=False):
                    if self._source.may_hold(entry.path):
                        folder.folders.append(entry.path)
                elif self._source.matches(entry.path):
                    self._file(folder, entry.path, entry.stat(follow_symlinks=False))
            except OSError as error:
                if error.errno not in _GONE:  # It went since the folder was read.
                    folder.unread.append((entry.path, error))
        folder.unread.sort(key=lambda unread: unread[0])
        for paths in (folder.folders, folder.dangling, folder.links):
            paths.sort()

    def _link(self, folder: Folder, entry: Entry) -> None:
        path = entry.path
        is_folder = entry.is_dir()
        if not (self._source.may_hold(path) if is_folder else self._source.matches(path)):
            return
        follows = self._follow_links or self._source.is_file
        if not follows and (is_folder or self._leads_out(path)):
            folder.links.append(path)
        elif is_folder:
            folder.folders.append(path)
            self.linked_folders.setdefault(folder.path, set()).add(path)
        else:
            link_changed = entry.stat(follow_symlinks=False).st_ctime
            try:
                status = entry.stat()
            except FileNotFoundError:
                folder.dangling.append(path)
                return
            folder.has_linked_files = True
            self._file(folder, path, status, link_changed)

    def _leads_out(self, path: str) -> bool:
        target = self._disk.realpath(path)
        return os.path.commonpath((self._real_top, target)) != self._real_top

    def _file(self, folder: Folder, path: str, status: os.stat_result, link: float = 0.0) -> None:
        if not stat.S_ISREG(status.st_mode):  # To read a pipe or a device would wait forever.
            return
        changed = max(status.st_ctime, link)
        if not folder.filesystem.is_local:
            changed = max(changed, status.st_mtime)
        size = status.st_size
        version = version_of(path, status, link)
        folder.files.append(ListedFile(path, size, changed, version, status.st_mtime))
