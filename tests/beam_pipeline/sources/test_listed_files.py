"""Files of a listing in little memory: the same files, in the same order, as in a list."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipeline.sources import listed_files, listing
from beam_pipeline.sources.folders import source_of, walk
from beam_pipeline.sources.listed_files import (
    ListedFile,
    ListedFiles,
    SortedRows,
    is_among,
    packed_versions,
    versions_of,
)
from beam_pipeline.sources.watching import KnownFiles, Watcher
from tests.beam_pipeline.simulated_bucket import BUCKET, SimulatedBucket, use_bucket
from tests.beam_pipeline.simulated_disk import NOW, TOP, Node, SimulatedDisk
from tests.search import search
from transforms.storage.object_stores import ObjectMetadata

_URIS = st.text(st.sampled_from("ab/\0\n\udc80é"), max_size=4)
_DATES = st.sampled_from([0.0, -1.5, NOW, NOW + 1 / 3, 1e300])
_VERSIONS = st.sampled_from([bytes(8), b"\xff" * 8, b"12345678", b"87654321"])
_FILES = st.lists(
    st.builds(
        ListedFile,
        *(_URIS, st.integers(0, 2**40), _DATES, _VERSIONS, st.none() | _DATES),
    ),
    max_size=12,
)


@pytest.fixture
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listed_files, "BLOCK_ROWS", 2)
    monkeypatch.setattr(listed_files, "RUN_ROWS", 4)


@pytest.mark.search
@pytest.mark.usefixtures("_small_blocks")
@search(300)
@given(_FILES, st.lists(st.booleans(), min_size=12, max_size=12))
def test_files_are_those_that_were_added(files: list[ListedFile], chosen: list[bool]) -> None:
    kept = ListedFiles()
    for file in files:
        kept.append(file)
    assert list(kept) == files
    assert (len(kept), bool(kept)) == (len(files), bool(files))
    assert kept.changed.tolist() == [file.changed for file in files]
    assert packed_versions(kept.versions) == b"".join(file.version for file in files)
    mask = np.array(chosen[: len(files)], dtype=np.bool_)
    assert list(kept.where(mask)) == [
        file for file, is_in in zip(files, mask, strict=True) if is_in
    ]


@pytest.mark.search
@pytest.mark.usefixtures("_small_blocks")
@search(300)
@given(st.lists(st.tuples(_DATES, _URIS, _VERSIONS), max_size=20))
def test_rows_are_sorted(rows: list[tuple[Any, ...]]) -> None:
    kept = SortedRows()
    for row in rows:
        kept.add(row)
    assert len(kept) == len(rows)
    assert list(kept.drain()) == sorted(rows)
    assert list(kept.drain()) == []


@pytest.mark.search
@pytest.mark.usefixtures("_small_blocks")
@search(300)
@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 9)), st.lists(st.integers(0, 9)))
def test_versions_are_found_among_others(some: list[int], others: list[int]) -> None:
    others += some[::3]
    found = is_among(np.array(some, np.uint64), np.array(others, np.uint64))
    assert found.tolist() == [number in set(others) for number in some]
    packed = b"".join(number.to_bytes(8, "big") for number in some)
    assert versions_of(packed).tolist() == some


# What a file takes.


class _LargeFolder(SimulatedDisk):
    """A flat folder whose files take no memory of their own."""

    def __init__(self, files: int) -> None:
        super().__init__()
        self.files_there = files

    def scan(self, path: str) -> Iterator[Any]:
        # In no order, as a large folder of ext4 is read.
        return (_File(self, number * 7919 % self.files_there) for number in range(self.files_there))


class _File:
    def __init__(self, disk: SimulatedDisk, number: int) -> None:
        self._disk = disk
        self._number = number
        self.name = f"camera-{number % 9}_20260101T{number:06}Z.jpg"
        self.path = f"{TOP}/{self.name}"

    def is_symlink(self) -> bool:
        return False

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return False

    def stat(self, *, follow_symlinks: bool = True) -> Any:
        at = NOW - 9000 + self._number / 1000
        return self._disk.status(Node(self._number, False, 100_000 + self._number, at, at))


class _LargeBucket(SimulatedBucket):
    """A bucket whose pages are made as they are asked for."""

    def __init__(self, objects: int) -> None:
        super().__init__()
        self._there = objects

    def list(self, prefix: str, after: str | None = None) -> Iterator[ObjectMetadata]:
        for number in range(self._there):
            uri = f"{BUCKET}/camera-{number * 9 // self._there}_20260101T{number:06}Z.jpg"
            if uri.startswith(prefix):
                yield ObjectMetadata(uri, 100_000 + number, NOW - 9000, f'"{number:032x}"')


def _peak_of_watching(files: int) -> int:
    """Returns the most bytes that a stream takes for a backlog and a look after it."""
    disk = _LargeFolder(files)
    return _peak_of_looks(Watcher(TOP, disk=disk, max_files=200, clock=lambda: disk.now), files)


def _peak_of_watching_a_bucket(files: int) -> int:
    """Returns the same of a bucket."""
    with pytest.MonkeyPatch.context() as patch:
        bucket = _LargeBucket(files)
        use_bucket(bucket, patch)
        return _peak_of_looks(Watcher(BUCKET, max_files=200, clock=lambda: NOW), files)


def _peak_of_looks(watcher: Watcher, files: int) -> int:
    known, found = KnownFiles(), 0
    tracemalloc.start()
    for listings in range(2):
        more = True
        while more:
            result = watcher.poll(known)
            known, more = result.known, result.has_more
            found += len(result.ready)
        assert found == files, f"after {listings + 1} listings"
    return tracemalloc.get_traced_memory()[1]


def _peak_of_listing(files: int) -> int:
    """Returns the most bytes that a batch takes to list a folder."""
    disk = _LargeFolder(files)
    tracemalloc.start()
    (folder,) = walk(source_of(TOP), disk)
    last, found = "", 0
    for file in listing.files_in(folder):  # type: ignore[arg-type]
        assert file.uri > last
        last, found = file.uri, found + 1
    assert found == files
    return tracemalloc.get_traced_memory()[1]


def _peak_of_listing_a_bucket(files: int) -> int:
    """Returns the most bytes that a batch takes to list a bucket."""
    with pytest.MonkeyPatch.context() as patch:
        use_bucket(_LargeBucket(files), patch)
        tracemalloc.start()
        assert sum(1 for _ in listing.list_images(BUCKET)) == files
    return tracemalloc.get_traced_memory()[1]


@pytest.mark.parametrize(
    "peak",
    [
        _peak_of_watching,
        _peak_of_watching_a_bucket,
        _peak_of_listing,
        _peak_of_listing_a_bucket,
    ],
)
def test_a_file_of_a_large_folder_takes_a_hundred_bytes_at_most(
    peak: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took 530, so that a million files or objects took half a gigabyte."""
    monkeypatch.setattr(listed_files, "BLOCK_ROWS", 128)
    monkeypatch.setattr(listed_files, "RUN_ROWS", 1024)
    peaks = []
    for files in (2_500, 10_000):
        gc.collect()
        try:
            peaks.append(peak(files))
        finally:
            tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 7_500 <= 100
