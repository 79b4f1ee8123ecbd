"""A search for a file that the watching source misses, or emits twice.

Whatever happens to files, folders, listings, clocks and workers: a file that stays is emitted in
its last version. On a local filesystem no version is emitted twice, and a new name is found at the
next look; on others, only a version that was gone and came back is emitted twice. And each poll
gives what a slow twin makes of the same listing.
"""

from __future__ import annotations

import logging
import os
from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from beam_pipeline.sources import listed_files, watching
from beam_pipeline.sources.watching import KNOWN_FILES_CODER, KnownFiles, Watcher
from tests.beam_pipeline.simple_watcher import SimpleWatcher
from tests.beam_pipeline.simulated_disk import TOP, Node, SimulatedDisk
from tests.search import search

_NAMES = st.sampled_from(["a.jpg", "b.jpg", "c.jpg", ".d.jpg.part"])
_FOLDERS = st.sampled_from(["1", "2"])
_PICK = st.integers(0, 1000)
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


class Watched(RuleBasedStateMachine):
    """A disk, a worker, and a runner that keeps the worker's state."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = SimulatedDisk()
        self.outside: list[Node] = []
        self.kept: list[tuple[bytes, list[tuple[str, int, float]]]] = []
        self.came: Counter[tuple[str, int, float]] = Counter()
        self.doubts: Counter[str] = Counter()
        self.complete: set[tuple[str, int, float]] = set()
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
        self.disk = SimulatedDisk(is_local=is_local, server_ahead=0.0 if is_local else ahead)
        for number in range(files):
            self.disk.put(f"{TOP}/old{number}.jpg", self.disk.node(age=7200))
        self.new_worker()
        self.kept = [(KNOWN_FILES_CODER.encode(KnownFiles()), [])]
        self.note()

    def note(self) -> None:
        """Counts how often each version came into sight."""
        there = self.disk.versions()
        for version in there - getattr(self, "there", set()):
            self.came[version] += 1
        self.there = there
        self.complete |= {
            (path, node.size, self.disk.changed(node))
            for path, node in self.disk.files().items()
            if node.ends_as_jpeg
        }

    # The worker and its runner.

    @rule()
    def new_worker(self) -> None:
        self.watcher = Watcher(
            TOP, disk=self.disk, max_files=_MAX_FILES, clock=lambda: self.disk.now
        )
        self.twin = SimpleWatcher(self.watcher, self.disk, _MAX_FILES)

    @rule(pick=_PICK, same_worker=st.booleans())
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

    @rule(seconds=st.sampled_from([0.2, 0.3, 1.1, 5.3, 100.4, 601.7, 1000.1, 4000.3]))
    def pass_time(self, seconds: float) -> None:
        self.disk.now += seconds

    # What happens to files.

    def _folder(self, pick: int) -> str:
        folders = self.disk.folders()
        return folders[pick % len(folders)]

    def _file(self, pick: int) -> str | None:
        files = sorted(self.disk.files())
        return files[pick % len(files)] if files else None

    @rule(pick=_PICK, name=_NAMES, ends_as_jpeg=st.booleans())
    def write(self, pick: int, name: str, ends_as_jpeg: bool) -> None:
        self.disk.write(f"{self._folder(pick)}/{name}", ends_as_jpeg=ends_as_jpeg)
        self.note()

    @rule(pick=_PICK)
    def touch(self, pick: int) -> None:
        if file := self._file(pick):
            self.disk.touch(file)
            self.note()

    @rule(pick=_PICK, to=_PICK, name=_NAMES)
    def rename(self, pick: int, to: int, name: str) -> None:
        if file := self._file(pick):
            folder = self._folder(to)
            self.disk.put(f"{folder}/{name}", self.disk.take(file))
            self.note()

    @rule(pick=_PICK, name=_NAMES, age=st.sampled_from([0.0, 50.0, 5000.0]))
    def move_in(self, pick: int, name: str, age: float) -> None:
        self.disk.put(f"{self._folder(pick)}/{name}", self.disk.node(age=age))
        self.note()

    @rule(pick=_PICK, name=_NAMES, age=st.sampled_from([50.0, 5000.0]))
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

    @rule(
        change=st.sampled_from(["write", "touch", "rename", "move_in", "delete"]),
        pick=_PICK,
        to=_PICK,
        name=_NAMES,
    )
    def change_during_the_next_walk(self, change: str, pick: int, to: int, name: str) -> None:
        """A file comes, goes, is replaced or rewritten between two entries that are read."""

        def happen() -> None:
            if change == "write":
                self.write(pick, name, ends_as_jpeg=bool(to % 2))
            elif change == "rename":
                self.rename(pick, to, name)
            elif change == "move_in":
                self.move_in(pick, name, age=50.0)
            elif change == "touch":
                self.touch(pick)
            else:
                self.delete(pick)

        self.disk.during_scans.append(happen)

    @rule(pick=_PICK)
    def delete(self, pick: int) -> None:
        if file := self._file(pick):
            self.disk.take(file)
            self.note()

    @rule(pick=_PICK, name=_FOLDERS)
    def make_folder(self, pick: int, name: str) -> None:
        folder = self._folder(pick)
        if name not in self.disk.find(folder).entries and folder.count("/") < 5:
            self.disk.put(f"{folder}/{name}", self.disk.node(is_folder=True))

    @rule(name=_FOLDERS, files=st.integers(1, 3), age=st.sampled_from([5.0, 5000.0]))
    def move_folder_in(self, name: str, files: int, age: float) -> None:
        """A folder comes with files, all with their own old dates."""
        folder = self.disk.node(is_folder=True, age=age)
        folder.entries = {f"{file}.jpg": self.disk.node(age=age) for file in range(files)}
        self.disk.put(f"{TOP}/{name}", folder)
        self.note()

    @rule(pick=_PICK)
    def move_folder_out(self, pick: int) -> None:
        folder = self._folder(pick)
        if folder != TOP:
            self.outside.append(self.disk.take(folder))
            self.note()

    @precondition(lambda self: self.outside)
    @rule(pick=_PICK, name=_FOLDERS)
    def move_folder_back(self, pick: int, name: str) -> None:
        self.disk.put(f"{TOP}/{name}", self.outside.pop(pick % len(self.outside)))
        self.note()

    # What happens to listings.

    @rule(pick=_PICK, is_stat=st.booleans())
    def fail_folder(self, pick: int, is_stat: bool) -> None:
        folder = self._folder(pick)
        self.disk.failing.add(f"stat {folder}" if is_stat else folder)

    @rule(pick=_PICK)
    def fail_file(self, pick: int) -> None:
        if file := self._file(pick):
            self.disk.failing.add(f"stat {file}")

    @rule()
    def heal(self) -> None:
        self.disk.failing.clear()

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


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """What can't be listed is said in each of thousands of examples."""
    caplog.set_level(logging.CRITICAL, "beam_pipeline.sources.watching")


Watched.TestCase.settings = search(1500, stateful_step_count=40)
TestNoFileIsMissedOrTakenTwice = pytest.mark.search(Watched.TestCase)
