"""A search for a file that an input in parts misses, or emits twice.

Each part has its worker and its state, and they look at different times. Whatever happens to the
disk: together they emit what the watcher of the undivided input emits, each version once; a version
that was gone and came back is emitted twice where the undivided input does so.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from beam_pipeline.sources.parts import WHOLE, Part, parts_of
from beam_pipeline.sources.watching import KNOWN_FILES_CODER, KnownFiles, Watcher
from tests.beam_pipeline.changing_disk import PICK, ChangingDisk, Version
from tests.beam_pipeline.simulated_disk import TOP, SimulatedDisk
from tests.search import quiet, search


class Stream:
    """The worker of a part, and what its runner has kept: states, and what was emitted by then."""

    def __init__(self, part: Part, disk: SimulatedDisk) -> None:
        self._part, self._disk = part, disk
        self.kept: list[tuple[bytes, list[Version]]] = [
            (KNOWN_FILES_CODER.encode(KnownFiles()), [])
        ]
        self.new_worker()

    def new_worker(self) -> None:
        self._watcher = Watcher(
            TOP, part=self._part, disk=self._disk, max_files=2, clock=lambda: self._disk.now
        )

    @property
    def emitted(self) -> list[Version]:
        return self.kept[-1][1]

    def poll(self) -> bool:
        """Polls once; whether there is more."""
        encoded, emitted = self.kept[-1]
        known = KNOWN_FILES_CODER.decode(encoded)
        assert known is not None
        result = self._watcher.poll(known)
        new = [(file.uri, file.size_bytes, file.changed) for file in result.ready]
        self.kept.append((KNOWN_FILES_CODER.encode(result.known), [*emitted, *new]))
        return result.has_more


class InParts(ChangingDisk):
    """A disk, watched in parts and as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.start(2)

    @initialize(
        number=st.sampled_from([2, 3]),
        is_local=st.booleans(),
        ahead=st.sampled_from([0.0, 5.0, -5.0]),
        files=st.integers(0, 3),
    )
    def begin(self, number: int, is_local: bool, ahead: float, files: int) -> None:
        self.begin_with(files, is_local=is_local, ahead=ahead)
        self.start(number)

    def start(self, number: int) -> None:
        self.parts = [Stream(part, self.disk) for part in parts_of(number)]
        self.whole = Stream(WHOLE, self.disk)
        self.marks = [(1, [1] * number)]

    @property
    def together(self) -> list[Version]:
        return [version for part in self.parts for version in part.emitted]

    @rule(pick=PICK)
    def one_part_looks(self, pick: int) -> None:
        if self.is_there:
            self.parts[pick % len(self.parts)].poll()
            self.check_twice()

    @rule()
    def all_look(self) -> None:
        """All parts and the undivided input are looked at until nothing is left."""
        if not self.is_there:
            for stream in (self.whole, *self.parts):
                with pytest.raises(OSError, match="Input/output error"):
                    stream.poll()
            return
        while self.disk.during_scans:  # What changes during a walk is seen by some of them only.
            self.disk.during_scans.pop()()
        for stream in (self.whole, *self.parts):
            while stream.poll():
                pass
        self.check_twice()
        lacking = (Counter(self.whole.emitted) - Counter(self.together)).keys()
        assert not lacking & self.disk.versions(), "the undivided input has emitted it"
        self.marks.append((len(self.whole.kept), [len(part.kept) for part in self.parts]))

    @rule(pick=PICK, same_workers=st.booleans())
    def crash(self, pick: int, same_workers: bool) -> None:
        """The runner goes back to what all had kept after a common look."""
        del self.marks[pick % len(self.marks) + 1 :]
        whole, parts = self.marks[-1]
        for stream, length in zip((self.whole, *self.parts), (whole, *parts), strict=True):
            del stream.kept[length:]
            if not same_workers:
                stream.new_worker()

    @rule(pick=PICK)
    def one_part_crashes(self, pick: int) -> None:
        """Its worker is lost, and what it has done since the last common look with it."""
        index = pick % len(self.parts)
        del self.parts[index].kept[self.marks[-1][1][index] :]
        self.parts[index].new_worker()

    @property
    def is_there(self) -> bool:
        return not {TOP, f"stat {TOP}"} & self.disk.failing

    def check_twice(self) -> None:
        for version, times in Counter(self.together).items():
            assert times <= (1 if self.disk.is_local else self.came[version])

    def teardown(self) -> None:
        """In the end all is well for a while, and what is there was emitted."""
        self.heal()
        for seconds in (1.0, 2.5, 3601.3, 3601.3):
            self.disk.now += seconds
            self.all_look()
        missed = self.disk.versions() - set(self.together)
        assert not missed, f"never handed on: {missed}"


_quiet = quiet("beam_pipeline.sources.watching")


InParts.TestCase.settings = search(250, stateful_step_count=40)
TestPartsEmitWhatTheWholeEmits = pytest.mark.search(InParts.TestCase)
