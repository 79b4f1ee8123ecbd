"""Reads from the output what a stream has forgotten about a camera and capture time.

The state of a capture time ends with the allowed lateness of its window. A file that arrives later
is compared with what the output holds for its capture time, under any file name:

- If several files have claimed the capture time, the stream has written all that it knew
  (:func:`stores.known_uri`), because files with the same bytes leave no other trace.
- Otherwise at most one file is valid. Its verdict is in `final/`, under a name that follows from
  the file's name. A name can write the capture time in several forms, so `final/` is listed by the
  prefixes of these forms.
  If the repositories are packed, it is the row that stands.
- An invalid file affects only itself and files of the same name: its record is in `invalid/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

from transforms.records import reasons
from transforms.records.file_names import name_prefixes
from transforms.records.images import ImageFile, InvalidImage, JudgedImage
from transforms.records.precedence import CAPTURE_TIMES, CaptureTime, Version, key_of, settle
from transforms.records.text import printable
from transforms.repositories import InvalidRepository, judged_in, read_final
from transforms.storage import stores
from transforms.storage.packed_rows import PackedRow

FindRow = Callable[[str, str], PackedRow | None]

MAX_REQUESTS = len(reasons.OF_CONTENT)
"""How many requests to a store are made at once, if the pool has as many threads."""


def is_complete(known: CaptureTime, version: Version) -> bool:
    """Returns whether the arrival of a file depends on nothing that is still unknown.

    Args:
      known: What :func:`known_from_output` has returned for this file or another one.
      version: The version that has arrived.
    """
    return version.invalid is None and (
        version.uri in known.versions or _is_waiting(known, version)
    )


def _is_waiting(known: CaptureTime, version: Version) -> bool:
    """Returns whether the file has arrived already; its record may be of that arrival."""
    return any(waiting.uri == version.uri for waiting in known.waiting)


def known_from_output(
    output: str,
    version: Version,
    pool: Executor,
    known: CaptureTime | None = None,
    *,
    find_row: FindRow | None = None,
) -> CaptureTime:
    """Reads what the output holds of a capture time.

    Args:
      output: The job's output.
      version: The version that has arrived.
      pool: Reads files concurrently, as a store may be slow.
      known: What was read when other files of the capture time arrived.
      find_row: Finds the row of a camera and capture time, if the repositories are packed.

    Raises:
      OSError: The output can't be read.
    """
    if known is None:
        known = _read_known(output, version, pool, find_row)
    if is_complete(known, version):
        return known
    records = {record.uri: record for record in _records(output, version, pool)}
    if _is_waiting(known, version):
        records.pop(version.uri, None)
    return settle({**records, **known.versions}.values(), known)


def _read_known(
    output: str, version: Version, pool: Executor, find_row: FindRow | None
) -> CaptureTime:
    camera, timestamp = key_of(version).split("\n")
    state = stores.read_if_there(stores.known_uri(output, camera, timestamp))
    if state is not None:
        return CAPTURE_TIMES.decode(state)
    row, is_recorded = None if find_row is None else find_row(camera, timestamp), None
    if row is not None:
        verdicts = [judged for judged in (judged_in(row),) if judged is not None]
        if row.has_severity and _is_in_final(output, row):
            is_recorded = True  # Whatever the rules say by now.
    else:
        verdicts = list(_verdicts(output, camera, timestamp, pool))
    row_uris = [stores.late_uri(output, camera, judged.image.stem) for judged in verdicts]
    has_row = any(row is not None for row in pool.map(stores.read_if_there, row_uris))
    known = settle([Version(judged=judged) for judged in verdicts])
    return replace(known, counted=bool(verdicts) and not has_row, is_recorded=is_recorded)


def _is_in_final(output: str, row: PackedRow) -> bool:
    uri = stores.final_uri(output, row.image.id, row.image.stem)
    return stores.read_if_there(uri) is not None


def write_known(output: str, known: CaptureTime) -> None:
    """Writes what is known of a capture time to the output.

    Raises:
      OSError: The file can't be written.
    """
    camera, timestamp = key_of(next(iter(known.versions.values()))).split("\n")
    stores.write_bytes(stores.known_uri(output, camera, timestamp), CAPTURE_TIMES.encode(known))


def _verdicts(output: str, camera: str, timestamp: str, pool: Executor) -> Iterator[JudgedImage]:
    """Reads the verdicts of a capture time in `final/`, whatever their names."""
    folder = stores.final_folder(output, camera)
    prefixes = name_prefixes(camera, timestamp)
    requests = [prefixes] if stores.is_local(output) else [(prefix,) for prefix in prefixes]
    listings = pool.map(lambda request: stores.names_with_prefix(folder, request), requests)
    names = [name for listing in listings for name in listing]
    uris = [stores.join(folder, name) for name in names if name.endswith(".json")]
    for judged in pool.map(read_final, uris):
        if judged is not None and (judged.image.id, judged.image.timestamp) == (camera, timestamp):
            yield judged


def _records(output: str, version: Version, pool: Executor) -> Iterator[Version]:
    """Reads the records in `invalid/` that the arrival of a file depends on.

    They are its own, and that of a file with the same name, reason and bytes.
    """
    repository = InvalidRepository(output)
    camera, timestamp = key_of(version).split("\n")

    def read(reason: str) -> list[dict[str, Any]]:
        return repository.records_named(version.uri, version.name, reason)

    for reason, entries in zip(reasons.OF_CONTENT, pool.map(read, reasons.OF_CONTENT), strict=True):
        for entry in entries:
            is_own = entry["uri"] == printable(version.uri)
            content = version.name, reason, entry["sha256"]
            if is_own or (entry["sha256"] is not None and content == version.content):
                uri = version.uri if is_own else entry["uri"]
                image = InvalidImage(
                    ImageFile(uri, entry["size_bytes"] or 0),
                    reason,
                    entry["detail"],
                    size_bytes=entry["size_bytes"],
                    width=entry["width"],
                    height=entry["height"],
                    sha256=entry["sha256"],
                    camera=camera,
                    timestamp=timestamp,
                )
                yield Version(invalid=image)
