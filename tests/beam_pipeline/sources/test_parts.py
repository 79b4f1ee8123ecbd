"""An input in parts: what each of them lists, says and remembers. Known cases.

`test_parts_search.py` searches for others.
"""

from __future__ import annotations

import copy
import errno
import itertools
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipeline.sources.folders import Disk, Entry
from beam_pipeline.sources.parts import Part, parts_of
from beam_pipeline.sources.watching import KnownFiles, PollResult, Watcher, WatchImages, _Watch
from tests.beam_pipeline.simulated_disk import TOP, SimulatedDisk
from transforms.records.images import ImageFile
from transforms.runtime.counters import counted_here

NUMBERS = (2, 3, 7)


def later() -> float:
    return time.time() + 120


def looks(source: Path | str, number: int, **how: Any) -> list[PollResult]:
    return [
        Watcher(str(source), part=part, clock=later, **how).poll(KnownFiles())
        for part in parts_of(number)
    ]


def names(found: list[PollResult], top: Path) -> list[str]:
    return sorted(os.path.relpath(file.uri, top) for look in found for file in look.ready)


@given(name=st.text(st.characters(codec=None)) | st.just("\udce9.jpg"), number=st.integers(1, 9))
def test_each_name_belongs_to_one_part(name: str, number: int) -> None:
    assert sum(part.has(name) for part in parts_of(number)) == 1


@pytest.mark.parametrize("form", ["camera-{:04}", "cam{}", "{}", "gate_{:06x}.jpg", "d{:03}/"])
@pytest.mark.parametrize("number", [2, 3, 4, 8, 16])
def test_names_are_spread_evenly(form: str, number: int) -> None:
    shares = [sum(part.has(form.format(n)) for n in range(1000)) for part in parts_of(number)]
    assert max(shares) <= 1.15 * 1000 / number


def test_the_parts_of_a_name_are_the_same_in_each_release() -> None:
    """A savepoint holds them."""
    shares = {part.index: [n for n in range(9) if part.has(f"cam{n}")] for part in parts_of(3)}
    assert shares == {0: [3, 4], 1: [0, 1, 2, 7], 2: [5, 6, 8]}


def tree(top: Path) -> Path:
    """A folder with all that an input may hold, and one beside it to which links lead."""
    source, outside = top / "in", top / "outside"
    for number, folder in itertools.product(range(9), (source, source / "a", source / "b" / "c")):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(b"")
    outside.mkdir()
    (outside / "out.jpg").write_bytes(b"")
    for number in range(5):
        (source / f"folder-{number}").symlink_to(source / "a")
        (source / f"file-{number}.jpg").symlink_to(source / "a" / f"{number}.jpg")
        (source / f"out-{number}.jpg").symlink_to(outside / "out.jpg")
        (source / f"nowhere-{number}").symlink_to(outside / "nothing")
        os.mkfifo(source / f"pipe-{number}")
    return source


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("source", ["", "*", "*/*", "**.jpg", "[ab]/**", "a", "b/c/3.jpg", "none*"])
def test_the_parts_of_an_input_are_all_of_it_and_each_file_is_in_one(
    source: str, number: int, tmp_path: Path
) -> None:
    pattern = tree(tmp_path) / source
    counts = []
    found = []
    for way in (1, number):
        before = counted_here()
        found.append(names(looks(pattern, way), tmp_path))
        counts.append((counted_here() - before)["source.links_passed_over"])
    assert found[0] == found[1]
    assert counts[0] == counts[1]
    assert bool(found[0]) == (source != "none*")


def test_files_of_a_flat_folder_are_divided_too(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"{number}.jpg").write_bytes(b"")
    found = looks(tmp_path, 2)
    assert min(len(look.ready) for look in found) > 30
    assert len(names(found, tmp_path)) == 100


@pytest.mark.parametrize("number", NUMBERS)
def test_links_that_are_followed_from_several_parts_lose_nothing(
    number: int, tmp_path: Path
) -> None:
    source = tree(tmp_path)
    whole, *_ = looks(source, 1, follow_links=True)
    found = looks(source, number, follow_links=True)
    real = {os.path.realpath(file.uri) for look in found for file in look.ready}
    assert real == {os.path.realpath(file.uri) for file in whole.ready}


def test_a_part_without_files_is_not_taken_for_an_empty_mount() -> None:
    disk = SimulatedDisk()
    disk.write(f"{TOP}/a.jpg")
    disk.now += 60
    watchers = [Watcher(TOP, part=part, disk=disk, clock=lambda: disk.now) for part in parts_of(2)]
    known = [watcher.poll(KnownFiles()).known for watcher in watchers]
    mounted, disk.top = disk.top, disk.node(is_folder=True)
    for watcher, state in zip(watchers, known, strict=True):
        with pytest.raises(OSError, match="is empty, and not the same folder as before"):
            watcher.poll(state)
    disk.top.entries = {"b.jpg": disk.node(age=60)}
    states = zip(watchers, known, strict=True)
    found = [file.uri for watcher, state in states for file in watcher.poll(state).ready]
    assert found == [f"{TOP}/b.jpg"]
    disk.top = mounted


def test_a_folder_that_can_not_be_listed_holds_no_other_part_up() -> None:
    disk = SimulatedDisk()
    for number in range(8):
        folder = disk.node(is_folder=True)
        folder.entries = {"a.jpg": disk.node(age=60)}
        disk.put(f"{TOP}/{number}", folder)
    disk.failing.add(f"{TOP}/5")
    before = counted_here()
    watchers = [Watcher(TOP, part=part, disk=disk, clock=lambda: disk.now) for part in parts_of(3)]
    known = [KnownFiles()] * 3
    found: Counter[str] = Counter()

    def look() -> None:
        for index, watcher in enumerate(watchers):
            result = watcher.poll(known[index])
            known[index] = result.known
            found.update(file.uri for file in result.ready)

    look()
    look()
    assert sorted(found) == [f"{TOP}/{number}/a.jpg" for number in range(8) if number != 5]
    assert (counted_here() - before)["source.unlistable"] == 1
    disk.failing.clear()
    look()
    assert found == Counter(f"{TOP}/{number}/a.jpg" for number in range(8))


def test_a_folder_that_is_renamed_into_another_part_is_emitted_under_its_new_name(
    tmp_path: Path,
) -> None:
    first, second = (
        next(name for name in map(str, range(9)) if part.has(name)) for part in parts_of(2)
    )
    (tmp_path / first).mkdir()
    (tmp_path / first / "a.jpg").write_bytes(b"")
    watchers = [Watcher(str(tmp_path), part=part, clock=later) for part in parts_of(2)]
    found = [watcher.poll(KnownFiles()) for watcher in watchers]
    assert [len(look.ready) for look in found] == [1, 0]
    (tmp_path / first).rename(tmp_path / second)
    found = [w.poll(look.known) for w, look in zip(watchers, found, strict=True)]
    assert [[file.uri for file in look.ready] for look in found] == [
        [],
        [f"{tmp_path}/{second}/a.jpg"],
    ]


# The step of a stream.


class Tracker:
    def __init__(self) -> None:
        self.known = KnownFiles()

    def current_restriction(self) -> KnownFiles:
        return self.known

    def try_claim(self, known: KnownFiles) -> bool:
        self.known = known
        return True

    def defer_remainder(self, pause: Any) -> None:
        pass


class Clock:
    mark: Any = None

    def current_watermark(self) -> Any:
        return self.mark

    def set_watermark(self, mark: Any) -> None:
        self.mark = mark


class Step:
    """The step on one process that has two instances of it, and what the runner keeps of it."""

    def __init__(self, source: Path, parts: int) -> None:
        self.now = later()
        step = _Watch(str(source), 5.0, lambda: self.now, parts=parts, follow_links=False)
        self._instances = itertools.cycle([step, copy.copy(step)])
        for _ in range(2):
            next(self._instances).setup()
        self._trackers: dict[Any, Tracker] = {}
        self.clocks: dict[Any, Clock] = {}

    def poll(self, element: Any) -> list[ImageFile]:
        """What one of the instances emits."""
        tracker = self._trackers.setdefault(element, Tracker())
        clock = self.clocks.setdefault(element, Clock())
        step: Any = next(self._instances)
        return [one.value for one in step.process(element, tracker=tracker, estimator=clock)]


def test_a_part_that_is_ahead_makes_no_image_of_another_late(tmp_path: Path) -> None:
    """Each image carries the event time of its own part, and that waits for the part's backlog."""
    ahead, behind = parts_of(2)
    (mine,), (folder,) = (
        [name for name in ("cam0", "cam1", "cam3", "cam4", "cam6") if part.has(name)][:1]
        for part in (ahead, behind)
    )
    for name in (mine, folder):
        (tmp_path / name).mkdir()
    for number in range(5001):
        (tmp_path / folder / f"{number}.jpg").write_bytes(b"")
    step = Step(tmp_path, 2)
    assert step.poll(ahead) == []
    emitted = step.poll(behind)
    assert len(emitted) == 5000
    (tmp_path / mine / "new.jpg").write_bytes(b"")
    step.now += 20
    (file,) = step.poll(ahead)
    assert file.stream_time is not None
    assert step.clocks[behind].mark is None
    emitted += step.poll(behind)
    assert {file.stream_time for file in emitted} == {None}
    assert len(emitted) == 5001
    assert step.clocks[behind].mark is not None


def test_a_part_whose_looks_fail_holds_its_own_event_time_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First before it has emitted anything, and then while it is watched."""
    failing, other = parts_of(2)
    scan = Disk.scan
    is_failing = False

    def scan_or_fail(disk: Disk, path: str) -> Iterator[Entry]:
        if is_failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return scan(disk, path)

    monkeypatch.setattr(Disk, "scan", scan_or_fail)
    step = Step(tmp_path, 2)
    mark: Any = None
    for round_ in range(2):
        for number in range(20):
            (tmp_path / f"{round_}-{number}.jpg").write_bytes(b"")
        step.now += 100
        is_failing = True
        assert step.poll(failing) == []
        assert step.clocks[failing].mark == mark
        is_failing = False
        found = step.poll(other)
        assert found
        assert step.clocks[other].mark != mark
        found += step.poll(failing)
        assert len({file.uri for file in found}) == len(found) == 20
        mark = step.clocks[failing].mark
        assert mark == step.clocks[other].mark


def test_what_is_remembered_of_a_part_is_kept_from_instance_to_instance(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    step = Step(tmp_path, 3)
    listed: Counter[Part] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        make = Watcher.__init__

        def note(watcher: Watcher, *words: Any, **how: Any) -> None:
            listed[how["part"]] += 1
            make(watcher, *words, **how)

        patch.setattr(Watcher, "__init__", note)
        for part in parts_of(3) * 5:
            step.poll(part)
    assert listed == Counter(parts_of(3))


@pytest.mark.parametrize(
    ("begun", "asked", "says"),
    [(3, 3, 0), (1, 1, 0), (3, 5, 1), (3, 1, 1), (1, 3, 1)],
)
def test_a_stream_goes_on_with_the_parts_with_which_it_began_and_says_so_once(
    begun: int, asked: int, says: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(20):
        (tmp_path / f"{number}.jpg").write_bytes(b"")
    step = Step(tmp_path, asked)
    elements = [b""] if begun == 1 else parts_of(begun)
    assert sum(len(step.poll(element)) for element in elements * 2) == 20
    line = f"--input_parts {asked} has no effect: this stream has begun with {begun}"
    assert [line in record.getMessage() for record in caplog.records] == [True] * says


@pytest.mark.parametrize("number", [1, 3])
def test_the_elements_of_the_step_are_the_parts_and_a_whole_has_none(number: int) -> None:
    """Flink keeps state by element, and the whole goes on from what earlier releases kept."""
    pipeline = beam.Pipeline(runner="DirectRunner")
    found = pipeline | WatchImages("/nowhere", parts=number)
    (watch,) = found.producer.inputs
    assert watch.element_type == (bytes if number == 1 else Part)
    coder = beam.coders.registry.get_coder(Part)
    encoded = [coder.encode(part) for part in parts_of(number)]
    assert len(set(encoded)) == number
