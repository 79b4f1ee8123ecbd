"""Reading, writing and listing files on any of Beam's filesystems, and the layout of the output.

Local files appear whole or not at all: they are written under a temporary name beside the target
and renamed. The temporary name follows from the target's, so that what a killed run left behind
is overwritten by the next. Object stores, whose writes are atomic, get the final key at once: S3
and GCS by :mod:`transforms.storage.object_stores`, others through Beam.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import mimetypes
import os
import re
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any

from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileMetadata
from apache_beam.io.filesystems import FileSystems

from transforms.records.text import one_line, printable
from transforms.storage.object_stores import (
    Has,
    ObjectStore,
    folder_of,
    list_some,
    matching,
    name_in,
    object_store,
    store_error,
)

_CHUNK = 1 << 20
_MAX_SINGLE_REQUEST = 8 << 20
"""The largest object that is written in one request; larger ones are written from a file."""
_REFUSED_IN_A_ROW = 3
"""After so many refusals in a row, a store is not asked to copy between two buckets again."""
_RESERVED = re.compile(r"\.+|\..*\.partial")  # Folders, and the names of files being written.
_DIGESTS, _UNDELIVERED = "_digests", "_undelivered"  # No id of a camera begins with an underscore.
_LIMITS, _COOLDOWNS = "_limits", "_cooldowns"
_KNOWN = "_known"
_FORMER_DIGESTS, _FORMER_UNDELIVERED = "digests", "undelivered"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_FOLDERS_MADE = 10
"""How often a folder is made again that is deleted before a file in it can be opened."""
_LOCAL_AT_ONCE = 4
_MAX_NAME_BYTES = 180  # Leaves room for extensions within the 255 bytes of filesystems.

PACKED_NOTE = ".recorded"
"""What the names of a packed stream's notes end with."""


class StoreLostError(OSError):
    """A store can no longer be read: the job must not go on without it."""


class _LocalWrites:
    """The local files that are being written, each by a thread of this process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._active: list[tuple[int, str]] = []  # The thread and its partial file.
        self._ended = False

    @contextmanager
    def writing(self, partial: str) -> Iterator[None]:
        write = threading.get_ident(), partial
        with self._changed:
            while self._ended:  # The process is about to end, and this thread with it.
                self._changed.wait()
            self._active.append(write)
        try:
            yield
        finally:
            with self._changed:
                self._active.remove(write)
                self._changed.notify_all()

    def finish(self, seconds: float) -> None:
        own_thread = threading.get_ident()
        deadline = time.monotonic() + seconds
        with self._changed:
            self._ended = True
            # A write of this thread can't go on, as a signal handler has interrupted it.
            while (
                any(thread != own_thread for thread, _ in self._active)
                and (remaining := deadline - time.monotonic()) > 0
            ):
                self._changed.wait(remaining)
            for _, partial in self._active:
                with suppress(OSError):
                    os.unlink(partial)


_local_writes = _LocalWrites()


def finish_writes(seconds: float) -> None:
    """Waits for the local files that are being written, and lets no other write begin.

    A process calls it before it ends. Partial files of writes that take longer are deleted.

    Args:
      seconds: How long to wait at most.
    """
    _local_writes.finish(seconds)


def is_local(uri: str) -> bool:
    """Returns whether an address is a path on this machine."""
    return "://" not in uri


def files_at_once(uri: str, most: int) -> int:
    """Returns how many files of a place are best read or written at once.

    A local disk has no latency to hide: more threads would wait for each other and for Python's
    lock. Their start alone takes milliseconds in a busy process.

    Args:
      uri: An address in the place.
      most: The number in a store that is reached by a network.
    """
    return min(most, _LOCAL_AT_ONCE) if is_local(uri) else most


def check_folder(top: str, *, was_read: bool) -> None:
    """Checks that the folder of the input exists on this machine too.

    Args:
      top: The folder.
      was_read: Whether a file in it was read here; then the folder may be empty now.

    Raises:
      StoreLostError: The folder is missing, or is an empty mount point.
    """
    try:
        with os.scandir(top) as entries:
            problem = "" if was_read or next(entries, None) is not None else "is empty"
    except OSError as error:
        problem = f"can't be listed: {error.strerror or error}"
    if problem:
        raise StoreLostError(
            f"{top}, where images were found, {problem} on the worker {socket.gethostname()}; "
            "local paths must be one shared mount, under the same path on all machines"
        )


def join(base: str, *parts: str) -> str:
    """Joins an address and names beneath it."""
    return "/".join([base.rstrip("/"), *parts])


def detections_folder(output: str) -> str:
    """Returns the folder of the object data of all cameras."""
    return join(output, "detections")


def detections_uri(output: str, camera: str, stem: str) -> str:
    """Returns the address of an image's object data."""
    return join(detections_folder(output), camera, f"{stem}.json")


def final_uri(output: str, camera: str, stem: str) -> str:
    """Returns the address of an image's object data with its verdict."""
    return join(final_folder(output, camera), f"{stem}.json")


def final_folder(output: str, *camera: str) -> str:
    """Returns the folder of the verdicts of all cameras or of one."""
    return join(output, "final", *camera)


def packed_folder(output: str) -> str:
    """Returns the folder of the verdicts in packed form."""
    return join(output, "packed")


def packed_detections_folder(output: str) -> str:
    """Returns the folder of what the model has found, in packed form, while the job runs."""
    return join(packed_folder(output), "detections")


def packed_note_uri(output: str, period: str, stem: str) -> str:
    """Returns the address of a packed stream's note that an image is about to get a file in
    `final/`.

    Args:
      output: The job's output.
      period: Its window and shard, as in the names of packed files.
      stem: The stored name of the image, without its ending.
    """
    return join(packed_folder(output), f"{period}_{stem}{PACKED_NOTE}")


def validated_uri(output: str, camera: str, name: str) -> str:
    """Returns the address of a valid image's copy, byte for byte."""
    return join(output, "validated", camera, name)


def invalid_folder(output: str) -> str:
    """Returns the folder of the invalid images and their records."""
    return join(output, "invalid")


def invalid_uri(output: str, reason: str, name: str) -> str:
    """Returns the address of an invalid image; that of its record ends with `.json` after it."""
    return join(output, "invalid", reason, name)


def alert_uri(output: str, camera: str, alert_id: str) -> str:
    """Returns the address of an alert with its delivery to each target."""
    return join(output, "alerts", camera, f"{alert_id}.json")


def marks_folder(output: str, *camera: str) -> str:
    """Returns the folder of what operators said of the alerts of all cameras or of one."""
    return join(output, "marks", *camera)


def shadow_alerts_folder(output: str, *camera: str) -> str:
    """Returns the folder of what the shadow rules say of alerts of all cameras or of one."""
    return join(output, "shadow", "alerts", *camera)


def shadow_alert_uri(output: str, camera: str, timestamp: str, sha256: str) -> str:
    """Returns the address of what the shadow rules say of an image that has an alert.

    Args:
      output: The job's output.
      camera: The camera's id.
      timestamp: The capture time, canonical.
      sha256: The sha256 of the image's bytes in hex.
    """
    name = f"{time_in_name(timestamp)}_{sha256[:12]}.json"
    return join(shadow_alerts_folder(output, camera), name)


def report_uri(output: str) -> str:
    """Returns the address of the report."""
    return join(output, "report", "report.html")


def digest_uri(output: str, window: str, alert_id: str, *, former: bool = False) -> str:
    """Returns the address of a digest: a message about many alerts of a window.

    Args:
      output: The job's output.
      window: The window's start and end.
      alert_id: The digest's id.
      former: Whether to return the address of former releases, whose folders could be cameras.
    """
    folder = _FORMER_DIGESTS if former else _DIGESTS
    return join(output, "alerts", folder, window, f"{alert_id}.json")


def limits_uri(output: str, window: str, name: str) -> str:
    """Returns the address of a stream's decisions on the alerts of a window.

    Args:
      output: The job's output.
      window: The window's start and end.
      name: A name for the target, and the camera or the fleet.
    """
    return join(output, "alerts", _LIMITS, window, f"{name}.json")


def cooldowns_uri(output: str, camera: str) -> str:
    """Returns the address of a camera's alerts that suppress others in a stream."""
    return join(output, "alerts", _COOLDOWNS, camera, "sent.json")


def replacement_uri(output: str, camera: str, alert_id: str) -> str:
    """Returns the address of what says which alert is sent instead of one that was too old."""
    return join(output, "alerts", _COOLDOWNS, camera, f"instead_of_{alert_id}.json")


def undelivered_folders(output: str) -> tuple[str, str]:
    """Returns the folders of alerts to be sent again: the present one, and that of former releases,
    whose folders could be cameras."""
    return join(output, "alerts", _UNDELIVERED), join(output, "alerts", _FORMER_UNDELIVERED)


def undelivered_uri(
    output: str, target: str, timestamp: str, alert_id: str, *, former: bool = False
) -> str:
    """Returns the address of an alert that a target has not accepted yet.

    Args:
      output: The job's output.
      target: The target's name, with any characters.
      timestamp: The capture time, canonical.
      alert_id: The alert's id.
      former: Whether to return the address of former releases, whose folders could be cameras.
    """
    folder = target
    if not _PLAIN_NAME.fullmatch(target):
        digits = hashlib.sha256(target.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        folder = f"{re.sub('[^A-Za-z0-9.-]+', '_', target)[:60]}-{digits}"
    name = f"{time_in_name(timestamp)}_{alert_id}.json"
    return join(undelivered_folders(output)[int(former)], folder, name)


def time_in_name(timestamp: str) -> str:
    """Formats a canonical time for a file name: `20260131T235959Z`."""
    return timestamp.replace("-", "").replace(":", "")


def late_folder(output: str) -> str:
    """Returns the folder of what a stream stores of images that were too late, and for them."""
    return join(output, "late")


def late_uri(output: str, camera: str, stem: str) -> str:
    """Returns the address of the count row of an image that was too late for its window."""
    return join(late_folder(output), camera, f"{stem}.json")


def known_folder(output: str) -> str:
    """Returns the folder of a stream's state of capture times that several files claim."""
    return join(late_folder(output), _KNOWN)


def known_uri(output: str, camera: str, timestamp: str) -> str:
    """Returns the address of a stream's state of a capture time that several files claim.

    Args:
      output: The job's output.
      camera: The camera's id.
      timestamp: The capture time, canonical.
    """
    return join(known_folder(output), camera, f"{time_in_name(timestamp)}.state")


def spare_uri(output: str, camera: str, timestamp: str, sha256: str) -> str:
    """Returns the address of an image's second copy, for a stream in which files share its name.

    Args:
      output: The job's output.
      camera: The camera's id.
      timestamp: The capture time, canonical.
      sha256: The sha256 of the image's bytes in hex.
    """
    return join(known_folder(output), camera, f"{time_in_name(timestamp)}_{sha256}.jpg")


def spare_verdict_uri(output: str, camera: str, timestamp: str, sha256: str) -> str:
    """Returns the address of the second copy of a verdict that a stream is about to replace.

    Args:
      output: The job's output.
      camera: The camera's id.
      timestamp: The capture time, canonical.
      sha256: The first digits of the sha256 of the image's bytes in hex.
    """
    return join(known_folder(output), camera, f"{time_in_name(timestamp)}_{sha256}.verdict")


def counts_uri(output: str, window: str, shard: int, shards: int) -> str:
    """Returns the address of the count rows of a window.

    Args:
      output: The job's output.
      window: The window's start and end, e.g. `20260131T235500Z_20260201T000000Z`.
      shard: The index of the file, from 0.
      shards: How many files a window has.
    """
    part = f"-{shard}-of-{shards}" if shards > 1 else ""
    return join(output, "counts", f"{window}{part}.jsonl")


def name_in_store(name: str, uri: str, *, shared: bool) -> str:
    """Returns a safe name for storing a file.

    Args:
      name: The file's own name, which may be hostile; it has no separator.
      uri: The file's address.
      shared: Whether another file is stored under the same name, so that the name needs a hash of
        the address.
    """
    safe = printable(name)
    is_unchanged = safe == name and len(name.encode()) <= _MAX_NAME_BYTES
    if is_unchanged and not shared and not _RESERVED.fullmatch(name):
        return name
    digits = hashlib.sha256(uri.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    stem, dot, extension = safe.rpartition(".")
    if not dot or len(extension) > 8:
        stem, dot, extension = safe, "", ""
    short = stem.encode()[: _MAX_NAME_BYTES - 18].decode("utf-8", "ignore")
    return f"{short}-{digits}{dot}{extension}"


def json_bytes(value: Any) -> bytes:
    """Encodes a JSON document: the keys keep their order, and a newline ends it."""
    return (json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def read_bytes(uri: str, at_most: int = -1) -> bytes:
    """Reads a file without decompressing it, whatever its name.

    Args:
      uri: The file.
      at_most: How many bytes to read at most; -1 for all.

    Raises:
      OSError: The file can't be read.
    """
    if store := object_store(uri):
        return store.read(uri, at_most)
    with _open_to_read(uri) as file, _as_os_errors(uri):
        return file.read(at_most)


def read_if_there(uri: str) -> bytes | None:
    """Reads a file; returns None if it does not exist.

    Raises:
      OSError: The file can't be read, or it is unknown whether it exists.
    """
    try:
        return read_bytes(uri)
    except (FileNotFoundError, NotADirectoryError):
        return None


@contextmanager
def _as_os_errors(uri: str) -> Iterator[None]:
    """Turns any error of Beam's own clients of a store into an OSError with an errno."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, BeamIOError):
            raise
        raise store_error(_errno_of(error, uri), f"{uri}: {one_line(error)}") from error


def _errno_of(error: Exception, uri: str) -> int:
    """Returns the errno of an error: no such file, no such store, or a failure that may pass."""
    if isinstance(error, ValueError):  # Such as for a scheme that no filesystem of Beam has.
        return errno.EINVAL
    try:
        return errno.EIO if FileSystems.exists(uri) else errno.ENOENT
    except Exception:  # Whether the file exists is unknown.
        return errno.EIO


def _open_to_read(uri: str) -> IO[bytes]:
    if is_local(uri):
        return open(uri, "rb", opener=_open_non_blocking)
    with _as_os_errors(uri):
        return FileSystems.open(  # type: ignore[no-any-return]
            uri, compression_type=CompressionTypes.UNCOMPRESSED
        )


def _open_non_blocking(path: str, flags: int) -> int:
    """Opens a regular file; to open a named pipe would wait for its writer."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    kind = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    raise OSError(kind, "is a directory" if kind == errno.EISDIR else "is no regular file", path)


def read_chunks(uri: str) -> Iterator[bytes]:
    """Reads a file of any size in chunks.

    Raises:
      OSError: The file can't be read.
    """
    if store := object_store(uri):
        yield from store.chunks(uri)
        return
    with _open_to_read(uri) as file, _as_os_errors(uri):
        while chunk := file.read(_CHUNK):
            yield chunk


def match(pattern: str) -> list[FileMetadata]:
    """Lists the files that match a glob of Beam, or the file at an address.

    Raises:
      OSError: The store can't be listed.
    """
    return list(each_match(pattern))


def list_beneath(folder: str) -> list[FileMetadata]:
    """Lists all files beneath a folder.

    Raises:
      OSError: The store can't be listed.
    """
    return list(each_beneath(folder))


def each_match(pattern: str, has: Has | None = None) -> Iterator[FileMetadata]:
    """Yields what :func:`match` returns; of S3 and GCS, no more than a page is held at a time.

    Args:
      pattern: The glob or address.
      has: Whether what is under a name in the glob's folder is yielded; None: all is. S3 and GCS
        then list nothing else.
    """
    if store := object_store(pattern):
        return _without_folders(matching(store, pattern, has))
    with _as_os_errors(pattern):
        (result,) = FileSystems.match([pattern])
    return _without_folders(_some(result.metadata_list, folder_of(pattern), has))


def each_beneath(folder: str, has: Has | None = None) -> Iterator[FileMetadata]:
    """Yields what :func:`list_beneath` returns; see :func:`each_match`."""
    base = folder.rstrip("/")
    if store := object_store(base):
        return _without_folders(list_some(store, f"{base}/", has))
    files = match(f"{glob.escape(base)}/**")
    return _some(files, f"{base}/", has)


def _some(files: Sequence[FileMetadata], folder: str, has: Has | None) -> Iterator[FileMetadata]:
    return (file for file in files if has is None or has(name_in(folder, file.path)))


def list_one_deep(folder: str) -> Iterator[FileMetadata]:
    """Yields the files that lie one folder deep in a folder, without those being written.

    Other than by `list_beneath`, a local folder that can't be listed is an error.

    Raises:
      OSError: The folder, or one in it, can't be listed.
    """
    base = folder.rstrip("/")
    if not is_local(base):
        for file in list_beneath(base):
            if len(parts := file.path[len(base) + 1 :].split("/")) == 2 and parts[1][0] != ".":
                yield file
        return
    for inner in _inner_folders(base):
        for entry in sorted(os.scandir(inner), key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            try:
                if entry.is_file():
                    status = entry.stat()
                    yield FileMetadata(entry.path, status.st_size, status.st_mtime)
            except FileNotFoundError:  # Deleted meanwhile.
                continue


def _inner_folders(base: str) -> list[str]:
    """Returns the folders in a local folder, with those that a link promises and that are not
    there now, so that listing them fails: that does not mean that they are empty."""
    try:
        entries = list(os.scandir(base))
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(base):
            raise
        return []
    return sorted(
        entry.path
        for entry in entries
        if entry.is_dir() or (entry.is_symlink() and not os.path.exists(entry.path))
    )


def has_files(folder: str) -> bool:
    """Returns whether a folder has any entry.

    Raises:
      OSError: The folder can't be listed.
    """
    if is_local(folder):
        try:
            with os.scandir(folder) as entries:
                return next(entries, None) is not None
        except (FileNotFoundError, NotADirectoryError):
            return False
    base = f"{folder.rstrip('/')}/"
    store = object_store(base)
    return next(store.list(base), None) is not None if store else bool(list_beneath(base))


def names_with_prefix(folder: str, prefixes: Sequence[str]) -> list[str]:
    """Returns the sorted names of the files in a folder that have one of some prefixes.

    A local folder is listed once; an object store is listed by each prefix.

    Raises:
      OSError: The folder can't be listed.
    """
    if is_local(folder):
        try:
            names = os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in names if name.startswith(tuple(prefixes)))
    base = f"{folder.rstrip('/')}/"
    files: list[FileMetadata] = []
    for prefix in prefixes:
        if store := object_store(base):
            files += store.list(f"{base}{prefix}")
        else:
            files += match(f"{glob.escape(base + prefix)}*")
    names = [file.path.removeprefix(base) for file in files]
    return sorted(name for name in names if "/" not in name)


def _without_folders(files: Iterator[FileMetadata]) -> Iterator[FileMetadata]:
    # Some clients make empty keys that stand for folders.
    return (file for file in files if not file.path.endswith("/"))


def write_bytes(uri: str, data: bytes) -> None:
    """Writes a file, and replaces an existing one.

    Raises:
      OSError: The file can't be written.
    """
    write_chunks(uri, iter((data,)))


class _RefusedCopies:
    """Counts how often in a row a store has not copied between two buckets. A cache.

    A store may be unable to, or its objects' tags may not be the hashes of their bytes.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}

    def are_likely(self, source: str, target: str) -> bool:
        return self._counts.get(_buckets(source, target), 0) >= _REFUSED_IN_A_ROW

    def note(self, source: str, target: str, *, copied: bool) -> None:
        buckets = _buckets(source, target)
        self._counts[buckets] = 0 if copied else self._counts.get(buckets, 0) + 1


def _buckets(source: str, target: str) -> tuple[str, str]:
    return source.split("/", 3)[2], target.split("/", 3)[2]


_refused_copies = _RefusedCopies()


def write_copy(uri: str, data: bytes, source: str) -> None:
    """Writes a file that has the bytes of another one, and replaces an existing one.

    If both are in one store, the store copies it, so that the bytes are not uploaded. If the other
    file has changed or the store refuses, they are.

    Args:
      uri: The file.
      data: Its bytes.
      source: The other file.

    Raises:
      OSError: The file can't be written.
    """
    store = object_store(uri)
    scheme = uri.partition("://")[0]
    if (
        store is not None
        and source.startswith(f"{scheme}://")
        and not _refused_copies.are_likely(source, uri)
    ):
        copied = store.copy_if_same(source, uri, data, _kind_of(uri))
        _refused_copies.note(source, uri, copied=copied)
        if copied:
            return
    write_bytes(uri, data)


def write_if_new(uri: str, data: bytes) -> bool:
    """Writes a file, unless it exists.

    A store of S3's protocol that ignores conditions replaces an existing file. Of two writers at
    once, one may replace what the other has written in a store that only Beam's filesystems read.

    Returns:
      Whether the file was written.

    Raises:
      OSError: The file can't be written.
    """
    if is_local(uri):
        return _write_locally(uri, iter((data,)), only_new=True)
    if store := object_store(uri):
        return store.write_if_new(uri, data, _kind_of(uri))
    with _as_os_errors(uri):
        if FileSystems.exists(uri):
            return False
        _write_by_beam(uri, data, iter(()), _kind_of(uri))
    return True


def delete(uri: str) -> None:
    """Deletes a file, if it exists.

    Raises:
      OSError: The file exists and can't be deleted.
    """
    if store := object_store(uri):
        store.delete(uri)
    elif is_local(uri):
        with suppress(FileNotFoundError):
            os.unlink(uri)
    else:
        with _as_os_errors(uri):
            if FileSystems.exists(uri):
                FileSystems.delete([uri])


def make_durable(uri: str) -> None:
    """Waits until a local file and its name are on the disk; those of a store are already.

    Raises:
      OSError: The file is gone, or can't be written to the disk.
    """
    if not is_local(uri):
        return
    for path in (uri, os.path.dirname(uri)):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def copy(source: str, target: str) -> tuple[str, int]:
    """Copies a file of any size from any store to any other.

    Returns:
      The sha256 and the number of bytes.

    Raises:
      OSError: The file can't be read or written.
    """
    digest, size = hashlib.sha256(), 0

    def chunks() -> Iterator[bytes]:
        nonlocal size
        for chunk in read_chunks(source):
            digest.update(chunk)
            size += len(chunk)
            yield chunk

    write_chunks(target, chunks())
    return digest.hexdigest(), size


def write_chunks(uri: str, chunks: Iterator[bytes]) -> None:
    """Writes a file of any size, and replaces an existing one.

    Args:
      uri: The file.
      chunks: Its bytes.

    Raises:
      OSError: The file can't be written.
    """
    if is_local(uri):
        _write_locally(uri, chunks)
    else:
        _write_remote(uri, chunks)


def _write_locally(uri: str, chunks: Iterator[bytes], *, only_new: bool = False) -> bool:
    """Writes a local file; returns False if it is to be new and exists."""
    try:
        return _write_local(uri, chunks, only_new)
    except OSError as error:
        if error.filename is None and error.strerror is not None:  # Such as of a full disk.
            raise OSError(error.errno, error.strerror, uri) from error
        raise


def _write_local(uri: str, chunks: Iterator[bytes], only_new: bool) -> bool:
    folder, name = os.path.split(os.path.abspath(uri))
    partial = os.path.join(folder, f".{name}.partial")
    with _local_writes.writing(partial), _locked(partial) as file:
        try:
            if only_new and os.path.exists(uri):  # Known while no other writer can write it.
                os.unlink(partial)
                return False
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.replace(partial, uri)
            return True
        except BaseException:
            if os.path.exists(partial):
                os.unlink(partial)
            raise


def _locked(partial: str) -> IO[bytes]:
    """Opens the temporary file, empty, for one writer at a time until it is closed.

    A stream may judge two files of one name at once, in two processes. The lock ends with its
    process. The folder is made if it is missing.
    """
    made = 0
    while True:
        try:
            file = open(partial, "ab")  # noqa: SIM115 - the caller closes it
        except (FileNotFoundError, NotADirectoryError):
            if made == _FOLDERS_MADE:  # It is not the folder that is missing.
                raise
            made += 1
            os.makedirs(os.path.dirname(partial), exist_ok=True)
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # A filesystem without locks.
            pass
        held = os.fstat(file.fileno())
        try:
            if os.path.samestat(held, os.stat(partial)):
                if held.st_size:  # Truncating it would make ext4 write it to the disk at its end.
                    file.truncate(0)
                return file
        except FileNotFoundError:  # The previous writer has renamed it.
            pass
        file.close()


def _kind_of(uri: str) -> str:
    return mimetypes.guess_type(uri)[0] or "application/octet-stream"


def _write_remote(uri: str, chunks: Iterator[bytes]) -> None:
    kind = _kind_of(uri)
    if store := object_store(uri):
        _write_object(store, uri, chunks, kind)
        return
    first = next(chunks, b"")  # If the source can't be opened, no empty object is written.
    with _as_os_errors(uri):
        _write_by_beam(uri, first, chunks, kind)


def _write_by_beam(uri: str, first: bytes, chunks: Iterator[bytes], kind: str) -> None:
    file = FileSystems.create(uri, kind, CompressionTypes.UNCOMPRESSED)
    is_complete = False
    try:
        with file:
            file.write(first)
            for chunk in chunks:
                file.write(chunk)
            is_complete = True
    except BaseException:
        if not is_complete:  # Closing the file may have stored the partial content.
            with suppress(Exception):  # It was not stored, or the store is write-only.
                FileSystems.delete([uri])
        raise


def _write_object(store: ObjectStore, uri: str, chunks: Iterator[bytes], kind: str) -> None:
    with tempfile.SpooledTemporaryFile(max_size=_MAX_SINGLE_REQUEST) as spool:
        for chunk in chunks:
            spool.write(chunk)
        size = spool.tell()
        spool.seek(0)
        if size <= _MAX_SINGLE_REQUEST:
            store.write(uri, spool.read(), kind)
        else:
            store.write_file(uri, spool, kind)
