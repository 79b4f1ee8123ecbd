"""A bucket in memory with a clock, for the watching source."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from beam_pipeline.sources import buckets
from transforms.storage import stores
from transforms.storage.object_stores import ObjectMetadata

BUCKET = "s3://pictures/in"
NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc).timestamp()


class SimulatedBucket:
    """Objects by their addresses, with a clock, listed in pages."""

    def __init__(self, page: int = 1000) -> None:
        self.page = page
        self.now = NOON
        self.objects: dict[str, ObjectMetadata] = {}
        self.requests = 0
        self.lists_after = True
        self._written = 0

    def put(self, name: str, age: float = 0.0) -> ObjectMetadata:
        self._written += 1
        uri = f"{BUCKET}/{name}"
        self.objects[uri] = ObjectMetadata(uri, 1, self.now - age, str(self._written))
        return self.objects[uri]

    def list(self, prefix: str, after: str | None = None) -> Iterator[ObjectMetadata]:
        """Lists as a store does."""
        if not self.lists_after:
            after = None
        for uri in self._pages(set(self.objects), prefix, after):
            yield self.objects[uri]

    def list_folder(self, prefix: str, after: str | None = None) -> Iterator[ObjectMetadata | str]:
        """Lists as a store does that shows folders."""
        shown = {
            prefix + "".join(uri.removeprefix(prefix).partition("/")[:2])
            for uri in self.objects
            if uri.startswith(prefix)
        }
        for address in self._pages(shown, prefix, after):
            yield self.objects.get(address, address)

    def _pages(self, addresses: set[str], prefix: str, after: str | None) -> Iterator[str]:
        found = sorted(one for one in addresses if one.startswith(prefix) and one > (after or ""))
        for start in range(0, max(len(found), 1), self.page):
            self.requests += 1
            yield from found[start : start + self.page]


def use_bucket(simulated: SimulatedBucket, patch: Any) -> None:
    """Makes it the store of all addresses, until the patch is undone."""
    for module in (buckets, stores):
        patch.setattr(module, "object_store", lambda uri: simulated)
