"""The files of a listing, in a few dozen bytes each.

A path, a status and a tuple take some 500 bytes as objects of Python, so a folder of a million
files would take half a gigabyte. Here what decides whether a file is new is kept in arrays, eight
bytes for its date and eight for its version. Everything else is compressed in blocks, and becomes
objects again only where it is needed.
"""

from __future__ import annotations

import heapq
import marshal
import zlib
from array import array
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

VERSION_BYTES = 8
"""The size of a version."""
BLOCK_ROWS = 1024
"""How many files are compressed together."""
RUN_ROWS = 32 * BLOCK_ROWS
"""How many rows are sorted at once, as objects of Python."""

Mask = npt.NDArray[np.bool_]
"""For each of some files, whether it is one of those that are meant."""
Versions = npt.NDArray[np.uint64]
"""Versions as numbers."""


class ListedFile(NamedTuple):
    """A file as a listing shows it.

    Attributes:
      uri: Where it is.
      size_bytes: Its size.
      changed: When it changed last, in seconds of Unix time, by the clock of its filesystem.
      version: Eight bytes that differ where the file has changed.
      modified: When its bytes were written, in seconds of Unix time, by whoever wrote or copied it;
        None if unknown.
    """

    uri: str
    size_bytes: int
    changed: float
    version: bytes
    modified: float | None = None


def versions_of(packed: bytes) -> Versions:
    """Returns versions that follow each other in bytes as numbers.

    Args:
      packed: Eight bytes for each.
    """
    return np.frombuffer(packed, dtype=">u8").astype(np.uint64)


def packed_versions(versions: Versions) -> bytes:
    """Returns versions as bytes, eight for each; the inverse of :func:`versions_of`."""
    return versions.astype(">u8").tobytes()


def is_among(versions: Versions, others: Versions) -> Mask:
    """Returns for each version whether it is one of the others."""
    found = np.zeros(len(versions), dtype=np.bool_)
    if not len(others):
        return found
    ordered = np.sort(others)
    for first in range(0, len(versions), RUN_ROWS):
        part = versions[first : first + RUN_ROWS]
        places = np.searchsorted(ordered, part)
        places[places == len(ordered)] = 0
        found[first : first + RUN_ROWS] = ordered[places] == part
    return found


class ListedFiles:
    """Files in the order in which they were listed."""

    def __init__(self) -> None:
        self._changed = array("d")
        self._versions = array("Q")
        self._blocks: list[bytes] = []
        self._last: tuple[list[str], list[int], list[float | None]] = ([], [], [])
        """Addresses, sizes, and when their bytes were written, of what is not compressed yet."""

    def append(self, file: ListedFile) -> None:
        """Adds a file."""
        self._changed.append(file.changed)
        self._versions.append(int.from_bytes(file.version, "big"))
        uris, sizes, modified = self._last
        uris.append(file.uri)
        sizes.append(file.size_bytes)
        modified.append(file.modified)
        if len(uris) == BLOCK_ROWS:
            self._blocks.append(_compress(self._last))
            self._last = ([], [], [])

    def __len__(self) -> int:
        return len(self._changed)

    def __iter__(self) -> Iterator[ListedFile]:
        return self.where(np.ones(len(self), dtype=np.bool_))

    @property
    def changed(self) -> npt.NDArray[np.float64]:
        """When each file changed last, in Unix time; no file is added while it is used."""
        return np.frombuffer(self._changed, dtype=np.float64)

    @property
    def versions(self) -> Versions:
        """The version of each file; no file is added while it is used."""
        return np.frombuffer(self._versions, dtype=np.uint64)

    def where(self, mask: Mask) -> Iterator[ListedFile]:
        """Yields some of the files, in their order.

        Args:
          mask: Says for each file whether it is yielded.
        """
        first = 0
        for number in range(len(self._blocks) + 1):
            is_last = number == len(self._blocks)
            rows = np.flatnonzero(mask[first:] if is_last else mask[first : first + BLOCK_ROWS])
            if len(rows):
                columns = self._last if is_last else _decompress(self._blocks[number])
                uris, sizes, modified = columns
                for row in rows.tolist():
                    at = first + row
                    version = self._versions[at].to_bytes(VERSION_BYTES, "big")
                    yield ListedFile(
                        *(uris[row], sizes[row], self._changed[at], version, modified[row])
                    )
            first += BLOCK_ROWS


class SortedRows:
    """Sorts rows of which there may be more than should be objects of Python at once.

    They are sorted in runs, which are compressed, and merged as they are taken out.
    """

    def __init__(self) -> None:
        self._count = 0
        self._runs: list[list[bytes]] = []
        self._last: list[tuple[Any, ...]] = []

    def add(self, row: tuple[Any, ...]) -> None:
        """Adds a tuple of texts, numbers, bytes and None, whose order is that of its fields."""
        self._last.append(row)
        self._count += 1
        if len(self._last) == RUN_ROWS:
            self._last.sort()
            starts = range(0, RUN_ROWS, BLOCK_ROWS)
            blocks = [_compress(self._last[start : start + BLOCK_ROWS]) for start in starts]
            self._runs.append(blocks[::-1])
            self._last = []

    def __len__(self) -> int:
        """How many rows were added."""
        return self._count

    def drain(self) -> Iterator[tuple[Any, ...]]:
        """Yields the rows in ascending order, and forgets them on the way."""
        self._last.sort()
        runs, self._runs = self._runs, []
        last, self._last = self._last, []
        return heapq.merge(*map(_rows_of, runs), last)


def _rows_of(run: list[bytes]) -> Iterator[tuple[Any, ...]]:
    while run:
        yield from _decompress(run.pop())


def _compress(rows: Any) -> bytes:
    # Unlike MessagePack, marshal also writes names that are not UTF-8. Only this process reads it.
    return zlib.compress(marshal.dumps(rows, 2), 1)


def _decompress(block: bytes) -> Any:
    return marshal.loads(zlib.decompress(block))
