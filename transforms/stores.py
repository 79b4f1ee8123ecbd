"""Reading, writing and listing files on any of Beam's filesystems, and the layout of the output.

Local files appear whole or not at all: they are written under a temporary name beside the target
and renamed. The temporary name follows from the target's, so that what a killed run left behind
is overwritten by the next. Object stores, whose writes are atomic, get the final key at once: S3
and GCS by :mod:`transforms.object_stores`, others through Beam.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import mimetypes
import os
import re
import tempfile
from collections.abc import Iterator
from typing import IO, Any

from apache_beam.io.filesystem import CompressionTypes, FileMetadata
from apache_beam.io.filesystems import FileSystems

from transforms.object_stores import ObjectStore, matching, object_store
from transforms.text import printable

_CHUNK = 1 << 20
_IN_ONE_REQUEST = 8 << 20
"""Bytes of an object that is written in one request; more are written from a file on disk."""
_RESERVED = re.compile(r"\.+|\..*\.partial")  # Folders, and the names of files being written.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_LONGEST_NAME = 180  # Bytes; leaves room for endings within the 255 that filesystems take.


def is_local(uri: str) -> bool:
    """Whether an address is a path on this machine."""
    return "://" not in uri


def join(base: str, *parts: str) -> str:
    """An address beneath another one."""
    return "/".join([base.rstrip("/"), *parts])


def detections_uri(output: str, camera: str, stem: str) -> str:
    """Where the object data of one image is kept."""
    return join(output, "detections", camera, f"{stem}.json")


def final_uri(output: str, camera: str, stem: str) -> str:
    """Where the object data with the threat information is kept."""
    return join(output, "final", camera, f"{stem}.json")


def validated_uri(output: str, camera: str, name: str) -> str:
    """Where a valid image is kept as it was received."""
    return join(output, "validated", camera, name)


def invalid_uri(output: str, reason: str, name: str) -> str:
    """Where an invalid image is kept; its record is beside it, with `.json` at the end."""
    return join(output, "invalid", reason, name)


def alert_uri(output: str, camera: str, alert_id: str) -> str:
    """Where an alert, and what became of it, is kept."""
    return join(output, "alerts", camera, f"{alert_id}.json")


def digest_uri(output: str, window: str, alert_id: str) -> str:
    """Where a message about many alerts of a window is kept, like an alert."""
    return join(output, "alerts", "digests", window, f"{alert_id}.json")


def undelivered_folder(output: str) -> str:
    """Beneath it lie the alerts that wait to be sent again."""
    return join(output, "alerts", "undelivered")


def undelivered_uri(output: str, target: str, timestamp: str, alert_id: str) -> str:
    """Where an alert waits that a target has not taken.

    Args:
      output: The job's output.
      target: The target's name, whatever is in it.
      timestamp: The alert's, canonical.
      alert_id: The alert's id.
    """
    folder = target
    if not _PLAIN_NAME.fullmatch(target):
        digits = hashlib.sha256(target.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        folder = f"{re.sub('[^A-Za-z0-9.-]+', '_', target)[:60]}-{digits}"
    name = f"{time_in_name(timestamp)}_{alert_id}.json"
    return join(undelivered_folder(output), folder, name)


def time_in_name(timestamp: str) -> str:
    """A canonical time as it stands in names: `20260131T235959Z`."""
    return timestamp.replace("-", "").replace(":", "")


def late_uri(output: str, camera: str, stem: str) -> str:
    """Where an image is counted that came too late for its window."""
    return join(output, "late", camera, f"{stem}.json")


def counts_uri(output: str, window: str, shard: int, shards: int) -> str:
    """Where the count rows of one window are kept.

    Args:
      output: The job's output.
      window: First moment and first moment after it, e.g. `20260131T235500Z_20260201T000000Z`.
      shard: Which of its files, from 0.
      shards: How many files a window has.
    """
    part = f"-{shard}-of-{shards}" if shards > 1 else ""
    return join(output, "counts", f"{window}{part}.jsonl")


def name_in_store(name: str, uri: str, *, shared: bool) -> str:
    """A name under which a file of any name can be kept.

    Args:
      name: The file's own name, hostile or not; holds no separator.
      uri: Where the file is.
      shared: Another file is kept under the same name, so that it needs a hash of the address.
    """
    kept = printable(name)
    as_it_is = kept == name and len(name.encode()) <= _LONGEST_NAME
    if as_it_is and not shared and not _RESERVED.fullmatch(name):
        return name
    digits = hashlib.sha256(uri.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    stem, dot, extension = kept.rpartition(".")
    if not dot or len(extension) > 8:
        stem, dot, extension = kept, "", ""
    short = stem.encode()[: _LONGEST_NAME - 18].decode("utf-8", "ignore")
    return f"{short}-{digits}{dot}{extension}"


def json_bytes(value: Any) -> bytes:
    """A JSON document as it is written: the keys in the order given, a newline at the end."""
    return (json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def read_bytes(uri: str, at_most: int = -1) -> bytes:
    """A file's bytes as they are, whatever its name says about compression.

    Args:
      uri: The file.
      at_most: Only the first so many of them; -1 for all.

    Raises:
      OSError: It can't be read.
    """
    if store := object_store(uri):
        return store.read(uri, at_most)
    with _open_to_read(uri) as file:
        return file.read(at_most)


def _open_to_read(uri: str) -> IO[bytes]:
    return FileSystems.open(  # type: ignore[no-any-return]
        uri, compression_type=CompressionTypes.UNCOMPRESSED
    )


def _chunks(uri: str) -> Iterator[bytes]:
    if store := object_store(uri):
        yield from store.chunks(uri)
        return
    with _open_to_read(uri) as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def match(pattern: str) -> list[FileMetadata]:
    """The files that a glob of Beam's names, or the one that an address does.

    Raises:
      OSError: The store can't be listed.
    """
    if store := object_store(pattern):
        found = list(matching(store, pattern))
    else:
        (result,) = FileSystems.match([pattern])
        found = result.metadata_list
    return _without_folders(found)


def list_beneath(folder: str) -> list[FileMetadata]:
    """All files beneath a folder.

    Raises:
      OSError: The store can't be listed.
    """
    base = folder.rstrip("/")
    if store := object_store(base):
        return _without_folders(list(store.list(f"{base}/")))
    return match(f"{glob.escape(base)}/**")


def _without_folders(found: list[FileMetadata]) -> list[FileMetadata]:
    # Some clients make empty keys that stand for folders.
    return [one for one in found if not one.path.endswith("/")]


def write_bytes(uri: str, data: bytes) -> None:
    """Writes a whole file, in place of what was there.

    Raises:
      OSError: It can't be written.
    """
    write_chunks(uri, iter((data,)))


def delete(uri: str) -> None:
    """Deletes a file; one that is not there is no error.

    Raises:
      OSError: It is there and can't be deleted.
    """
    if store := object_store(uri):
        store.delete(uri)
    elif FileSystems.exists(uri):
        FileSystems.delete([uri])


def copy(source: str, target: str) -> tuple[str, int]:
    """Copies a file of any size from any store to any other; its sha256 and its bytes.

    Raises:
      OSError: It can't be read or written.
    """
    digest, size = hashlib.sha256(), 0

    def chunks() -> Iterator[bytes]:
        nonlocal size
        for chunk in _chunks(source):
            digest.update(chunk)
            size += len(chunk)
            yield chunk

    write_chunks(target, chunks())
    return digest.hexdigest(), size


def write_chunks(uri: str, chunks: Iterator[bytes]) -> None:
    """Writes a whole file of any size, in place of what was there.

    Args:
      uri: The file.
      chunks: Its bytes, some at a time.

    Raises:
      OSError: It can't be written.
    """
    if not is_local(uri):
        _write_remote(uri, chunks)
        return
    folder, name = os.path.split(os.path.abspath(uri))
    partial = os.path.join(folder, f".{name}.partial")
    os.makedirs(folder, exist_ok=True)
    with _locked(partial) as file:
        try:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.replace(partial, uri)
        except BaseException:
            if os.path.exists(partial):
                os.unlink(partial)
            raise


def _locked(partial: str) -> IO[bytes]:
    """The temporary file, empty, for one writer at a time; closing it lets the next one in.

    A stream may judge two files of one name at once, in two processes. The lock of a process that
    was killed goes with it.
    """
    while True:
        file = open(partial, "ab")  # noqa: SIM115 - the caller closes it
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # A filesystem without locks.
            pass
        try:
            if os.path.samestat(os.fstat(file.fileno()), os.stat(partial)):
                file.truncate(0)
                return file
        except FileNotFoundError:  # The writer before has renamed it.
            pass
        file.close()


def _write_remote(uri: str, chunks: Iterator[bytes]) -> None:
    kind = mimetypes.guess_type(uri)[0] or "application/octet-stream"
    if store := object_store(uri):
        _write_object(store, uri, chunks, kind)
        return
    first = next(chunks, b"")  # A source that can't be opened leaves no empty object behind.
    file = FileSystems.create(uri, kind, CompressionTypes.UNCOMPRESSED)
    whole = False
    try:
        with file:
            file.write(first)
            for chunk in chunks:
                file.write(chunk)
            whole = True
    except BaseException:
        if not whole:  # Closing the file may have kept the part that was written.
            try:
                FileSystems.delete([uri])
            except Exception:  # It was not kept, or the store is write-only.
                pass
        raise


def _write_object(store: ObjectStore, uri: str, chunks: Iterator[bytes], kind: str) -> None:
    with tempfile.SpooledTemporaryFile(max_size=_IN_ONE_REQUEST) as spool:
        for chunk in chunks:
            spool.write(chunk)
        size = spool.tell()
        spool.seek(0)
        if size <= _IN_ONE_REQUEST:
            store.write(uri, spool.read(), kind)
        else:
            store.write_file(uri, spool, kind)
