"""A search for a file that the watching source misses, or emits twice.

Whatever happens to files, folders, listings, clocks and workers: a file that stays is emitted in
its last version. On a local filesystem no version is emitted twice, and a new name is found at the
next look; on others, only a version that was gone and came back is emitted twice. And each poll
gives what a slow twin makes of the same listing.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from beam_pipeline.sources import listed_files, watching
from beam_pipeline.sources.watching import KNOWN_FILES_CODER, KnownFiles, Watcher
from tests.beam_pipeline.changing_disk import NAMES, PICK, ChangingDisk, Version
from tests.beam_pipeline.simple_watcher import SimpleWatcher
from tests.beam_pipeline.simulated_disk import TOP
from tests.search import quiet, search

# No time that the source takes for anything decides what is emitted: with short ones it does more
# within an example.
_HASTY = {
    "FOLD_AFTER_SECONDS": 1.0,
    "QUIET_AFTER_SECONDS": 3.0,
    "QUIET_EVERY_SECONDS": 60.0,
    "QUIET_EVERY_ELSEWHERE_SECONDS": 10.0,
}
_USUAL = {name: getattr(watching, name) for name in _HASTY}
# So small that the few files of an example are compressed, and sorted in several runs.
_SMALL = {"BLOCK_ROWS": 2, "RUN_ROWS": 4}
_LARGE = {name: getattr(listed_files, name) for name in _SMALL}
_MAX_FILES = 2


class Watched(ChangingDisk):
    """A disk, a worker, and a runner that keeps the worker's state."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[tuple[bytes, list[Version]]] = []
        self.doubts: Counter[str] = Counter()
        self.new_worker()

    @initialize(
        hasty=st.booleans(),
        is_local=st.booleans(),
        ahead=st.sampled_from([0.0, 5.0, -5.0]),
        files=st.integers(0, 3),
    )
    def begin(self, hasty: bool, is_local: bool, ahead: float, files: int) -> None:
        for name, seconds in _HASTY.items():
            setattr(watching, name, seconds if hasty else _USUAL[name])
        for name, rows in _SMALL.items():
            setattr(listed_files, name, rows)
        self.begin_with(files, is_local=is_local, ahead=ahead)
        self.new_worker()
        self.kept = [(KNOWN_FILES_CODER.encode(KnownFiles()), [])]

    # The worker and its runner.

    @rule()
    def new_worker(self) -> None:
        self.watcher = Watcher(
            TOP, disk=self.disk, max_files=_MAX_FILES, clock=lambda: self.disk.now
        )
        self.twin = SimpleWatcher(self.watcher, self.disk, _MAX_FILES)

    @rule(pick=PICK, same_worker=st.booleans())
    def crash(self, pick: int, same_worker: bool) -> None:
        """The runner goes back to a state that it has kept, and to what was emitted by then."""
        del self.kept[pick % len(self.kept) + 1 :]
        if not same_worker:
            self.new_worker()

    @rule()
    def poll(self) -> None:
        encoded, emitted = self.kept[-1]
        known = KNOWN_FILES_CODER.decode(encoded)
        assert known is not None
        try:
            result = self.watcher.poll(known)
        except OSError:
            assert {TOP, f"stat {TOP}"} & self.disk.failing
            self.twin.fail()
            return
        assert result == self.twin.poll(known)
        for file in result.ready:
            if self.disk.is_local:
                version = (file.uri, file.size_bytes, file.changed)
                rested = 0.25 if version in self.complete and ".part" not in file.uri else 1
                assert self.disk.now - file.changed >= rested, "it may still be written"
        new = [(file.uri, file.size_bytes, file.changed) for file in result.ready]
        self.kept.append((KNOWN_FILES_CODER.encode(result.known), [*emitted, *new]))
        self.more = result.has_more
        self.check_twice()

    @rule(seconds=st.sampled_from([1.3, 4.6, 905.1]))
    def catch_up(self, seconds: float) -> None:
        """Time passes in which nothing happens, and the worker looks until nothing is left."""
        if self.disk.during_scans:
            self.poll()
            self.disk.during_scans.clear()
        for second in (0.1, seconds):
            self.disk.now += second
            self.more = True
            while self.more and not {TOP, f"stat {TOP}"} & self.disk.failing:
                self.poll()
        if seconds > 4 and self.disk.is_local and not self.disk.failing:
            emitted = {path for path, _, _ in self.kept[-1][1]}
            late = {path for path in self.disk.files() if ".part" not in path} - emitted
            assert not late, f"not found at once: {late}"

    def check_twice(self) -> None:
        for version, times in Counter(self.kept[-1][1]).items():
            once = 1 if self.disk.is_local else self.came[version]
            assert times <= once + self.doubts[os.path.dirname(version[0])]

    @rule(pick=PICK, name=NAMES, age=st.sampled_from([50.0, 5000.0]))
    def move_in_with_an_old_date(self, pick: int, name: str, age: float) -> None:
        """A file comes while the clock is set back: its folder is in doubt.

        The source finds that at the next look, unless an older file of the folder has gone by then:
        so no look after it is taken back.
        """
        if self.disk.failing:
            return
        self.catch_up(1.3)
        folder = self._folder(pick)
        node = self.disk.node(age=age)
        if name in self.disk.find(folder).entries:
            return
        self.disk.put(f"{folder}/{name}", node)
        node.changed = node.modified
        self.doubts[folder] += 1
        self.note()
        self.catch_up(1.3)
        del self.kept[:-1]

    def teardown(self) -> None:
        """In the end all is well for a while, and what is there was emitted."""
        if self.kept:
            self.end()
        for name, seconds in _USUAL.items():
            setattr(watching, name, seconds)
        for name, rows in _LARGE.items():
            setattr(listed_files, name, rows)

    def end(self) -> None:
        self.heal()
        self.disk.during_scans.clear()
        for seconds in (1.0, 2.5, 3601.3, 3601.3):
            self.disk.now += seconds
            self.more = True
            while self.more:
                self.poll()
        missed = self.disk.versions() - set(self.kept[-1][1])
        assert not missed, f"never handed on: {missed}"


_quiet = quiet("beam_pipeline.sources.watching")


Watched.TestCase.settings = search(1500, stateful_step_count=40)
TestNoFileIsMissedOrTakenTwice = pytest.mark.search(Watched.TestCase)
