"""A runner and a store in this process that fail as clusters do, for tests that search.

The runner keeps state and timers in the bytes that a runner keeps, goes back to its last checkpoint
when a bundle fails, and then does its work again in another order. The store forgets nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam


class StoreFailureError(OSError):
    """The store has failed, as a test has asked for."""


class Store:
    """Files by their address, of which reads and writes fail when a test says so."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.fails_after: int | None = None
        self.writes = 0

    def read_if_there(self, uri: str) -> bytes | None:
        self._maybe_fail()
        return self.files.get(uri)

    def write_bytes(self, uri: str, data: bytes) -> None:
        """Half of the writes that fail have been done."""
        self.writes += 1
        is_done = self.writes % 2 == 0
        if is_done:
            self.files[uri] = data
        self._maybe_fail()
        self.files[uri] = data

    def _maybe_fail(self) -> None:
        if self.fails_after is None:
            return
        if self.fails_after == 0:
            self.fails_after = None
            raise StoreFailureError("the store has failed")
        self.fails_after -= 1


@dataclass
class Bag:
    """A bag of a runner's state, in bytes."""

    coder: beam.coders.Coder
    kept: list[bytes] = field(default_factory=list)

    def read(self) -> list[Any]:
        return [self.coder.decode(encoded) for encoded in self.kept]

    def add(self, value: Any) -> None:
        self.kept.append(self.coder.encode(value))

    def clear(self) -> None:
        self.kept.clear()

    def copy(self) -> Bag:
        return Bag(self.coder, list(self.kept))


@dataclass
class Cell:
    """A cell of a runner's state, in bytes."""

    coder: beam.coders.Coder
    kept: bytes | None = None

    def read(self) -> Any:
        return None if self.kept is None else self.coder.decode(self.kept)

    def write(self, value: Any) -> None:
        self.kept = self.coder.encode(value)

    def clear(self) -> None:
        self.kept = None

    def copy(self) -> Cell:
        return Cell(self.coder, self.kept)


@dataclass
class Timer:
    """When a timer comes, in Unix seconds."""

    at: float | None = None

    def set(self, timestamp: Any) -> None:
        self.at = float(timestamp)

    def clear(self) -> None:
        self.at = None

    def copy(self) -> Timer:
        return Timer(self.at)
