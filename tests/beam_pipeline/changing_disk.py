"""A simulated disk to which all happens that may happen to an input, by rules of a search."""

from __future__ import annotations

from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tests.beam_pipeline.simulated_disk import TOP, Node, SimulatedDisk

NAMES = st.sampled_from(["a.jpg", "b.jpg", "c.jpg", ".d.jpg.part"])
PICK = st.integers(0, 1000)
_FOLDERS = st.sampled_from(["1", "4"])  # In different parts of an input in two or three.

Version = tuple[str, int, float]
"""A file's path, size and date."""


class ChangingDisk(RuleBasedStateMachine):
    """A disk with files and folders that come, change, move and go, and whose listings fail.

    Attributes:
      disk: The disk.
      came: How often each version of a file came into sight.
      complete: The versions that end as a JPEG does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.disk = SimulatedDisk()
        self.outside: list[Node] = []
        self.came: Counter[Version] = Counter()
        self.complete: set[Version] = set()

    def begin_with(self, files: int, *, is_local: bool, ahead: float) -> None:
        """Begins with some old files, on this machine or on a server whose clock is ahead."""
        self.disk = SimulatedDisk(is_local=is_local, server_ahead=0.0 if is_local else ahead)
        for number in range(files):
            self.disk.put(f"{TOP}/old{number}.jpg", self.disk.node(age=7200))
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

    @rule(pick=PICK, name=NAMES, ends_as_jpeg=st.booleans())
    def write(self, pick: int, name: str, ends_as_jpeg: bool) -> None:
        self.disk.write(f"{self._folder(pick)}/{name}", ends_as_jpeg=ends_as_jpeg)
        self.note()

    @rule(pick=PICK)
    def touch(self, pick: int) -> None:
        if file := self._file(pick):
            self.disk.touch(file)
            self.note()

    @rule(pick=PICK, to=PICK, name=NAMES)
    def rename(self, pick: int, to: int, name: str) -> None:
        if file := self._file(pick):
            folder = self._folder(to)
            self.disk.put(f"{folder}/{name}", self.disk.take(file))
            self.note()

    @rule(pick=PICK, name=NAMES, age=st.sampled_from([0.0, 50.0, 5000.0]))
    def move_in(self, pick: int, name: str, age: float) -> None:
        self.disk.put(f"{self._folder(pick)}/{name}", self.disk.node(age=age))
        self.note()

    @rule(
        change=st.sampled_from(["write", "touch", "rename", "move_in", "delete"]),
        pick=PICK,
        to=PICK,
        name=NAMES,
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

    @rule(pick=PICK)
    def delete(self, pick: int) -> None:
        if file := self._file(pick):
            self.disk.take(file)
            self.note()

    @rule(pick=PICK, name=_FOLDERS)
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

    @rule(pick=PICK)
    def move_folder_out(self, pick: int) -> None:
        folder = self._folder(pick)
        if folder != TOP:
            self.outside.append(self.disk.take(folder))
            self.note()

    @precondition(lambda self: self.outside)
    @rule(pick=PICK, name=_FOLDERS)
    def move_folder_back(self, pick: int, name: str) -> None:
        self.disk.put(f"{TOP}/{name}", self.outside.pop(pick % len(self.outside)))
        self.note()

    # What happens to listings.

    @rule(pick=PICK, is_stat=st.booleans())
    def fail_folder(self, pick: int, is_stat: bool) -> None:
        folder = self._folder(pick)
        self.disk.failing.add(f"stat {folder}" if is_stat else folder)

    @rule(pick=PICK)
    def fail_file(self, pick: int) -> None:
        if file := self._file(pick):
            self.disk.failing.add(f"stat {file}")

    @rule()
    def heal(self) -> None:
        self.disk.failing.clear()
