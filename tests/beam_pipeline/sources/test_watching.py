"""Which files the watching source finds new, whole, or known: known cases.

`test_watching_search.py` searches for others.
"""

from __future__ import annotations

import gc
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beam_pipeline.sources.folders import Disk
from beam_pipeline.sources.unbounded import UnboundedTracker
from beam_pipeline.sources.watching import (
    KNOWN_FILES_CODER,
    KnownFiles,
    KnownFolder,
    PollResult,
    Watcher,
    _Watch,
)
from tests.beam_pipeline.conftest import jpeg
from tests.beam_pipeline.simulated_disk import NOW, TOP, SimulatedDisk
from transforms.runtime.counters import counted_here


class Stream:
    """A worker that looks at a disk, and the state that its runner keeps as bytes."""

    def __init__(self, disk: SimulatedDisk, max_files: int = 2000) -> None:
        self.disk = disk
        self.max_files = max_files
        self.known = KNOWN_FILES_CODER.encode(KnownFiles())
        self.polls = 0
        self.new_worker()

    def new_worker(self) -> None:
        self.watcher = Watcher(
            TOP, disk=self.disk, max_files=self.max_files, clock=lambda: self.disk.now
        )

    def poll(self) -> PollResult:
        """Polls once, and keeps the state that follows."""
        known = KNOWN_FILES_CODER.decode(self.known)
        assert known is not None
        look = self.watcher.poll(known)
        self.known = KNOWN_FILES_CODER.encode(look.known)
        self.polls += 1
        return look

    def all(self, after: float = 0.0) -> list[str]:
        """What is emitted after a while until nothing is left, without the folder's path."""
        self.disk.now += after
        files, more = [], True
        while more:
            look = self.poll()
            files += [file.uri.removeprefix(f"{TOP}/") for file in look.ready]
            more = look.has_more
        return sorted(files)


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk()


@pytest.fixture
def stream(disk: SimulatedDisk) -> Stream:
    return Stream(disk)


def folder_of(disk: SimulatedDisk, names: list[str], age: float) -> Any:
    folder = disk.node(is_folder=True, age=age)
    folder.entries = {name: disk.node(age=age) for name in names}
    return folder


def test_a_file_is_emitted_once(disk: SimulatedDisk, stream: Stream) -> None:
    disk.write(f"{TOP}/a.jpg")
    assert stream.all(after=2) == ["a.jpg"]
    assert stream.all(after=2) == []
    disk.write(f"{TOP}/b.jpg")
    assert stream.all(after=2) == ["b.jpg"]


def test_what_was_there_before_the_job_is_emitted_however_old(
    disk: SimulatedDisk, stream: Stream
) -> None:
    disk.top.entries = {"a.jpg": disk.node(age=NOW), "b.jpg": disk.node(age=NOW + 86400)}
    assert stream.all() == ["a.jpg", "b.jpg"]
    assert stream.all(after=10) == []


@pytest.mark.parametrize("workers", ["one worker", "a new worker at each look"])
def test_a_backlog_is_emitted_whole_however_old_its_folder(
    disk: SimulatedDisk, workers: str
) -> None:
    """A stream that was started on 2,300 images two hours old judged 2,000 of them."""
    stream = Stream(disk)
    names = [f"{number}.jpg" for number in range(2300)]
    disk.top.entries = {"day": folder_of(disk, names, age=7200)}
    files: list[str] = []
    for _ in range(3):
        if workers != "one worker":
            stream.new_worker()
        files += [file.uri.removeprefix(f"{TOP}/day/") for file in stream.poll().ready]
    assert Counter(files) == Counter(names)


def test_a_backlog_of_many_folders_is_listed_once(disk: SimulatedDisk, stream: Stream) -> None:
    """Each 2,000 files of a backlog cost a look at all of them."""
    for day in range(10):
        names = [f"{number}.jpg" for number in range(1000)]
        disk.top.entries[str(day)] = folder_of(disk, names, age=7200)
    assert len(stream.all()) == 10_000
    assert stream.polls == 5
    assert len(disk.scanned) == 11


def test_a_backlog_gives_way_to_a_new_listing_after_half_a_minute(disk: SimulatedDisk) -> None:
    stream = Stream(disk, max_files=1)
    disk.top.entries = {"a.jpg": disk.node(age=50), "b.jpg": disk.node(age=50)}
    assert [file.uri for file in stream.poll().ready] == [f"{TOP}/a.jpg"]
    disk.take(f"{TOP}/b.jpg")
    disk.now += 31
    assert stream.all() == []


def test_a_backlog_is_not_listed_again_for_each_part_where_its_listing_takes_minutes(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The half minute began with the listing: after one that took longer, 2,000 files were emitted,
    and all were listed again."""
    stream = Stream(disk)
    scan = disk.scan

    def slow_scan(path: str) -> list[Any]:
        disk.now += 120
        return scan(path)

    monkeypatch.setattr(disk, "scan", slow_scan)
    disk.top.entries = {f"{number}.jpg": disk.node(age=7200) for number in range(7000)}
    files: list[str] = []
    for _ in range(4):
        files += [file.uri for file in stream.poll().ready]
        disk.now += 25
    assert len(set(files)) == len(files) == 7000
    assert disk.scanned == [TOP]


def test_a_folder_in_which_nothing_has_come_is_listed_once_a_minute(
    disk: SimulatedDisk, stream: Stream
) -> None:
    disk.put(f"{TOP}/flat", folder_of(disk, [f"{number}.jpg" for number in range(100)], age=90))
    assert len(stream.all(after=5)) == 100
    assert stream.all(after=5) == []
    del disk.scanned[:]
    for _ in range(10):
        assert stream.all(after=5) == []
    assert disk.scanned == []
    for _ in range(2):
        assert stream.all(after=5) == []
    assert sorted(disk.scanned) == [TOP, f"{TOP}/flat"]
    disk.write(f"{TOP}/flat/more.jpg")
    assert stream.all(after=5) == ["flat/more.jpg"]


def test_a_file_that_was_changed_in_place_is_found_at_once_while_it_is_young(
    disk: SimulatedDisk, stream: Stream
) -> None:
    disk.write(f"{TOP}/a.jpg")
    disk.write(f"{TOP}/b.jpg")
    assert stream.all(after=5) == ["a.jpg", "b.jpg"]
    for _ in range(5):
        assert stream.all(after=5) == []
    disk.write(f"{TOP}/a.jpg")
    assert stream.all(after=5) == ["a.jpg"]
    assert stream.all(after=100) == []
    disk.write(f"{TOP}/b.jpg")
    assert stream.all(after=55) == []
    assert stream.all(after=10) == ["b.jpg"]


def test_an_entry_that_comes_within_the_tick_of_a_folders_date_is_not_missed(
    disk: SimulatedDisk, stream: Stream
) -> None:
    """On ext3, dates are of whole seconds."""
    disk.top.entries["a.jpg"] = disk.node(age=90)
    disk.top.changed = disk.top.modified = disk.now - 0.5
    assert stream.all() == ["a.jpg"]
    assert stream.all() == []
    disk.top.entries["b.jpg"] = disk.node(age=90)
    assert stream.all(after=5) == ["b.jpg"]


def test_an_entry_is_not_missed_though_the_folders_date_was_set_back(
    disk: SimulatedDisk, stream: Stream
) -> None:
    """As rsync does that copies the dates of folders, too."""
    disk.put(f"{TOP}/day", folder_of(disk, ["a.jpg"], age=50_000))
    copied = disk.find(f"{TOP}/day").modified
    assert stream.all(after=5) == ["day/a.jpg"]
    for _ in range(3):
        assert stream.all(after=5) == []
    disk.put(f"{TOP}/day/b.jpg", disk.node(age=50_000))
    disk.find(f"{TOP}/day").modified = copied
    assert stream.all(after=5) == ["day/b.jpg"]


@pytest.mark.parametrize("pause", [1, 5, 100, 600])
def test_a_folder_that_is_moved_in_brings_its_old_files(
    disk: SimulatedDisk, stream: Stream, pause: float
) -> None:
    """Beam closes a worker's instance that is idle for a minute: 0 of 5 were judged."""
    disk.write(f"{TOP}/first.jpg")
    assert stream.all(after=2) == ["first.jpg"]
    names = [f"{number}.jpg" for number in range(5)]
    moved = folder_of(disk, names, age=9000)
    moved.entries["deep"] = folder_of(disk, ["old.jpg"], age=9000)
    disk.put(f"{TOP}/day", moved)
    if pause > 60:
        stream.new_worker()
    assert stream.all(after=pause) == [*(f"day/{name}" for name in names), "day/deep/old.jpg"]
    for _ in range(3):
        stream.new_worker()
        assert stream.all(after=pause) == []


def test_one_failed_listing_loses_nothing(disk: SimulatedDisk, stream: Stream) -> None:
    """One EIO in the first look: 10 of 20 were judged."""
    for day in ("1", "2"):
        disk.top.entries[day] = folder_of(disk, [f"{number}.jpg" for number in range(10)], age=7200)
    disk.failing.add(f"{TOP}/2")
    assert len(stream.all()) == 10
    disk.failing.clear()
    assert stream.all(after=5) == sorted(f"2/{number}.jpg" for number in range(10))


@pytest.mark.parametrize("failing", [TOP, f"stat {TOP}"])
def test_a_top_that_vanishes_is_an_error_and_nothing_is_emitted_again(
    disk: SimulatedDisk, stream: Stream, failing: str
) -> None:
    disk.top.entries = {f"{number}.jpg": disk.node(age=7200) for number in range(300)}
    assert len(stream.all()) == 300
    disk.failing.add(failing)
    with pytest.raises(OSError, match="Input/output error"):
        stream.poll()
    disk.failing.clear()
    assert stream.all(after=5) == []


def test_an_empty_mount_point_in_the_tops_place_is_an_error(
    disk: SimulatedDisk, stream: Stream
) -> None:
    disk.write(f"{TOP}/a.jpg")
    assert stream.all(after=2) == ["a.jpg"]
    mounted, disk.top = disk.top, disk.node(is_folder=True)
    with pytest.raises(OSError, match="is empty, and not the same folder as before"):
        stream.poll()
    disk.top = mounted
    stream.new_worker()
    assert stream.all(after=5) == []


def test_a_disk_that_is_mounted_again_within_a_week_is_known(
    disk: SimulatedDisk, stream: Stream
) -> None:
    disk.put(f"{TOP}/nas", folder_of(disk, ["a.jpg"], age=5))
    assert stream.all() == ["nas/a.jpg"]
    mounted = disk.find(f"{TOP}/nas")
    disk.top.entries["nas"] = disk.node(is_folder=True)
    assert stream.all(after=10) == []
    disk.top.entries["nas"] = mounted
    stream.new_worker()
    assert stream.all(after=6 * 86400) == []


def test_a_file_that_is_being_written_is_left_until_it_rests(
    disk: SimulatedDisk, stream: Stream
) -> None:
    disk.write(f"{TOP}/a.jpg")
    assert stream.all(after=0.5) == []
    disk.write(f"{TOP}/a.jpg")
    assert stream.all(after=0.6) == []
    look = stream.poll()
    assert look.due_in_seconds == pytest.approx(0.4)
    assert stream.all(after=0.5) == ["a.jpg"]


def test_a_file_that_ends_as_a_jpeg_rests_for_a_quarter_of_a_second(
    disk: SimulatedDisk, stream: Stream
) -> None:
    disk.write(f"{TOP}/a.jpg", ends_as_jpeg=True)
    disk.write(f"{TOP}/half.jpg")
    assert stream.all(after=0.2) == []
    assert stream.all(after=0.1) == ["a.jpg"]
    assert stream.all(after=0.8) == ["half.jpg"]
    disk.write(f"{TOP}/a.jpg.part", ends_as_jpeg=True)
    assert stream.all(after=60) == []


def test_a_complete_file_with_a_date_of_whole_seconds_or_on_a_server_rests_longer(
    disk: SimulatedDisk, stream: Stream
) -> None:
    disk.now = float(round(disk.now))
    disk.write(f"{TOP}/a.jpg", ends_as_jpeg=True)
    assert stream.all(after=2.5) == []
    assert stream.all(after=0.6) == ["a.jpg"]
    server = SimulatedDisk(is_local=False)
    stream = Stream(server)
    server.write(f"{TOP}/b.jpg", ends_as_jpeg=True)
    assert stream.all(after=0.5) == []
    assert stream.all(after=0.4) == []
    assert stream.all(after=1.1) == ["b.jpg"]


def test_a_file_that_ends_as_a_jpeg_in_the_middle_is_emitted_again(
    disk: SimulatedDisk, stream: Stream
) -> None:
    disk.write(f"{TOP}/a.jpg", ends_as_jpeg=True)
    assert stream.all(after=0.4) == ["a.jpg"]
    disk.write(f"{TOP}/a.jpg")
    assert stream.all(after=0.4) == []
    assert stream.all(after=0.7) == ["a.jpg"]


PREVIEW = b"\xff\xd8\xff\xe1\0\x09\xff\xd8...\xff\xd9"
"""The beginning of a file up to the end of the preview in its data: there a writer may pause."""


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", False),
        (b"\xd9", False),
        (b"\xff\xd9", False),
        (b"\xff\xd8...\xff\xd9", False),
        (PREVIEW, False),
        (PREVIEW + b"\xff\xc0\0\x04..\xff", False),
        (PREVIEW + b"\xff\xc0\0\x04..\xff\xda\0\x02...\xff\xd9", True),
        (PREVIEW + b"\xff\xc0\0\x04..\xff\xda\0\x02...\xff\xd9\0", False),
        (b"\xff\xd8" + b"\xff\xe1\0\0" * 2000 + b"\xff\xda\xff\xd9", False),
        (jpeg(), True),
        (None, False),
    ],
)
def test_a_file_ends_as_a_jpeg_after_its_image_and_not_after_a_preview(
    content: bytes | None, expected: bool, tmp_path: Path
) -> None:
    path = tmp_path / "a.jpg"
    if content is not None:
        path.write_bytes(content)
    assert Disk().ends_as_jpeg(str(path)) is expected


def test_a_file_that_rests_long_while_it_is_written_is_not_lost(
    disk: SimulatedDisk, stream: Stream
) -> None:
    """It is emitted half, and again when the rest has come."""
    disk.write(f"{TOP}/a.jpg")
    assert stream.all(after=2) == ["a.jpg"]
    disk.write(f"{TOP}/a.jpg")
    assert stream.all(after=2) == ["a.jpg"]


def test_a_file_on_a_server_whose_clock_is_behind_is_still_seen_twice(stream: Stream) -> None:
    disk = SimulatedDisk(is_local=False, server_ahead=-5.0)
    stream = Stream(disk)
    disk.write(f"{TOP}/a.jpg")
    assert stream.all(after=0.1) == []
    disk.write(f"{TOP}/a.jpg")
    assert stream.all(after=0.1) == []
    assert stream.all(after=1.1) == ["a.jpg"]


def test_a_file_dated_by_whole_seconds_rests_longer(disk: SimulatedDisk, stream: Stream) -> None:
    disk.now = float(round(disk.now))
    disk.write(f"{TOP}/a.jpg")
    assert stream.all(after=2.5) == []
    assert stream.all(after=0.6) == ["a.jpg"]


@pytest.mark.parametrize("name", [".a.jpg.x7", "a.jpg.part", "a.jpg.TMP", "a.jpg~"])
def test_a_name_of_an_unfinished_file_is_left_for_an_hour(
    disk: SimulatedDisk, stream: Stream, name: str
) -> None:
    disk.write(f"{TOP}/{name}")
    assert stream.all(after=60) == []
    assert stream.poll().due_in_seconds == pytest.approx(3540)
    stream.new_worker()
    assert stream.all(after=3500) == []
    assert stream.all(after=45) == [name]


def test_a_renamed_file_is_emitted_under_its_last_name(disk: SimulatedDisk, stream: Stream) -> None:
    disk.write(f"{TOP}/.a.jpg.part")
    assert stream.all(after=60) == []
    disk.put(f"{TOP}/a.jpg", disk.take(f"{TOP}/.a.jpg.part"))
    assert stream.all(after=2) == ["a.jpg"]


def test_a_date_far_ahead_hides_nothing(disk: SimulatedDisk, stream: Stream) -> None:
    disk.top.entries["ahead.jpg"] = disk.node(age=-10 * 365 * 86400)
    assert stream.all(after=1) == []  # Whether it rests shows at the next look only.
    disk.write(f"{TOP}/b.jpg")
    assert stream.all(after=2) == ["ahead.jpg", "b.jpg"]
    disk.write(f"{TOP}/c.jpg")
    assert stream.all(after=2) == ["c.jpg"]


def test_a_file_that_can_not_be_looked_at_for_a_while_puts_no_other_in_doubt(
    disk: SimulatedDisk, stream: Stream
) -> None:
    """Found by the search: what is beside it was folded, and emitted again with it."""
    disk.write(f"{TOP}/new.jpg")
    stream.all(after=2)
    disk.put(f"{TOP}/1", folder_of(disk, ["0.jpg", "1.jpg"], age=5000))
    disk.failing.add(f"stat {TOP}/1/0.jpg")
    assert stream.all(after=5) == ["1/1.jpg"]
    assert stream.all(after=5) == []
    disk.failing.clear()
    assert stream.all(after=5) == ["1/0.jpg"]


def test_an_old_date_is_found_where_all_older_files_have_gone(
    disk: SimulatedDisk, stream: Stream
) -> None:
    """Found by the search: no version was folded any more, and what was older was skipped."""
    disk.top.entries["a.jpg"] = disk.node(age=9000)
    disk.write(f"{TOP}/new.jpg")
    assert stream.all(after=2) == ["a.jpg", "new.jpg"]
    assert stream.all(after=5) == []
    disk.take(f"{TOP}/a.jpg")
    assert stream.all(after=5) == []
    odd = disk.node(age=10_000)
    disk.put(f"{TOP}/b.jpg", odd)
    odd.changed = odd.modified
    assert stream.all(after=5) == ["b.jpg"]
    assert stream.all(after=5) == []


def test_an_old_file_that_can_not_be_looked_at_for_a_while_is_not_taken_for_gone(
    disk: SimulatedDisk, stream: Stream
) -> None:
    disk.top.entries = {name: disk.node(age=9000) for name in ("a.jpg", "b.jpg", "c.jpg")}
    assert len(stream.all()) == 3
    assert stream.all(after=5) == []
    disk.failing.add(f"stat {TOP}/a.jpg")
    assert stream.all(after=5) == []
    disk.failing.clear()
    assert stream.all(after=5) == []


@pytest.mark.parametrize("sign", ["another filesystem", "a folder with an older date"])
def test_a_disk_that_takes_the_place_of_a_fuller_one_is_emitted(
    disk: SimulatedDisk, stream: Stream, sign: str
) -> None:
    """Roots have the same inode on all disks of a kind, and here fewer files."""
    disk.top.entries = {name: disk.node(age=9000) for name in ("a.jpg", "b.jpg")}
    assert len(stream.all()) == 2
    assert stream.all(after=5) == []
    disk.top.entries = {"c.jpg": disk.node(age=9500)}
    if sign == "another filesystem":
        disk.number = 2
    else:
        disk.top.modified -= 400
    assert stream.all(after=5) == ["c.jpg"]


def test_a_folder_that_can_not_be_listed_for_long_is_still_known(
    disk: SimulatedDisk, stream: Stream
) -> None:
    disk.put(f"{TOP}/nas", folder_of(disk, ["a.jpg"], age=5))
    disk.put(f"{TOP}/nas/deep", folder_of(disk, ["b.jpg"], age=5))
    assert len(stream.all()) == 2
    disk.failing.add(f"{TOP}/nas")
    for _ in range(10):
        assert stream.all(after=86400) == []
    disk.failing.clear()
    assert stream.all(after=5) == []


def test_a_worker_that_remembers_more_than_the_state_does_hands_on_again(
    disk: SimulatedDisk,
) -> None:
    """The runner has gone back to an earlier state, and what was emitted since with it."""
    stream = Stream(disk, max_files=1)
    disk.top.entries["day"] = folder_of(disk, ["a.jpg", "b.jpg", "c.jpg"], age=9000)
    empty = stream.known
    assert [file.uri for file in stream.poll().ready] == [f"{TOP}/day/a.jpg"]
    stream.known = empty
    assert stream.all() == ["day/a.jpg", "day/b.jpg", "day/c.jpg"]
    for _ in range(3):
        assert stream.all(after=5) == []  # Now the worker takes the folder for quiet.
    stream.known = empty
    assert stream.all(after=5) == ["day/a.jpg", "day/b.jpg", "day/c.jpg"]


@pytest.mark.parametrize("is_local", [True, False])
def test_a_folder_that_is_emptied_bit_by_bit_is_not_emitted_again(is_local: bool) -> None:
    disk = SimulatedDisk(is_local=is_local)
    stream = Stream(disk)
    disk.put(f"{TOP}/day", folder_of(disk, [f"{number}.jpg" for number in range(20)], age=9000))
    disk.write(f"{TOP}/new.jpg")
    assert len(stream.all(after=70)) == 21
    for number in range(20):
        stream.all(after=5)
        disk.take(f"{TOP}/day/{number}.jpg")
        stream.new_worker()
        assert stream.all(after=5) == []


def test_an_old_date_in_a_folder_of_old_files_is_found_at_the_price_of_a_second_look(
    disk: SimulatedDisk, stream: Stream
) -> None:
    """As after this machine's clock was set back."""
    disk.put(f"{TOP}/day", folder_of(disk, ["a.jpg", "b.jpg"], age=9000))
    disk.write(f"{TOP}/new.jpg")
    assert len(stream.all(after=2)) == 3
    assert stream.all(after=5) == []
    odd = disk.node(age=10_000)
    disk.put(f"{TOP}/day/c.jpg", odd)
    odd.changed = odd.modified
    assert stream.all(after=5) == ["day/a.jpg", "day/b.jpg", "day/c.jpg"]
    assert stream.all(after=5) == []


def state_after(disk: SimulatedDisk, files: int, seconds_between: float) -> int:
    stream = Stream(disk)
    for number in range(files):
        disk.write(f"{TOP}/{number}.jpg")
        assert stream.all(after=seconds_between) == [f"{number}.jpg"]
    return len(stream.known)


def test_what_is_kept_levels_off_in_a_flat_folder() -> None:
    few, many = (state_after(SimulatedDisk(), files, 20.0) for files in (100, 300))
    assert many <= few + 8
    assert few < 45 * 8 + 300  # Eight bytes for each file of a quarter of an hour.


def test_what_is_kept_is_eight_bytes_a_file_on_a_file_server() -> None:
    assert state_after(SimulatedDisk(is_local=False), 300, 70.0) < 300 * 8 + 200


def test_a_quiet_folder_takes_less_than_a_hundred_bytes_and_no_listing(
    disk: SimulatedDisk, stream: Stream
) -> None:
    for day in range(50):
        names = [f"{number}.jpg" for number in range(20)]
        disk.put(f"{TOP}/{day}", folder_of(disk, names, age=90_000))
    disk.write(f"{TOP}/new.jpg")
    assert len(stream.all(after=2)) == 1001
    stream.all(after=5)
    assert len(stream.known) < 50 * 100 + 300
    del disk.scanned[:]
    stream.all(after=5)
    assert disk.scanned == []
    disk.write(f"{TOP}/7/more.jpg")
    assert stream.all(after=5) == ["7/more.jpg"]
    disk.write(f"{TOP}/8/3.jpg")  # In place: the folder's date does not move.
    assert stream.all(after=3700) == ["8/3.jpg"]


def test_a_worker_remembers_no_folder_that_the_state_has_forgotten(
    disk: SimulatedDisk, stream: Stream
) -> None:
    """A year of folders that are deleted after a day takes as much memory as a month of them."""

    def remembered() -> int:
        gc.collect()
        return sum(isinstance(kept, KnownFolder) for kept in gc.get_objects())

    after_a_month = 0
    for day in range(60):
        disk.put(f"{TOP}/{day}", folder_of(disk, ["a.jpg"], age=90_000))
        assert stream.all(after=86400) == [f"{day}/a.jpg"]
        stream.all(after=5)
        disk.take(f"{TOP}/{day}")
        if day == 29:
            after_a_month = remembered()
    assert remembered() <= after_a_month


def test_a_file_that_is_changed_in_place_in_a_folder_that_was_moved_in_is_found_soon(
    disk: SimulatedDisk, stream: Stream
) -> None:
    """Found by the soak test: the folder brings its own old date, and is still being written."""
    disk.write(f"{TOP}/new.jpg")
    assert stream.all(after=5) == ["new.jpg"]
    disk.put(f"{TOP}/moved", folder_of(disk, ["a.jpg"], age=2 * 86400))
    assert stream.all(after=5) == ["moved/a.jpg"]
    for _ in range(3):
        assert stream.all(after=60) == []
    disk.write(f"{TOP}/moved/a.jpg")
    assert stream.all(after=61) == ["moved/a.jpg"]


def test_what_can_not_be_listed_is_logged_and_counted_once(
    disk: SimulatedDisk, stream: Stream, caplog: pytest.LogCaptureFixture
) -> None:
    disk.put(f"{TOP}/locked", folder_of(disk, ["a.jpg"], age=5))
    disk.failing.add(f"{TOP}/locked")
    before = counted_here()
    for _ in range(3):
        assert stream.all(after=5) == []
    assert [record.getMessage() for record in caplog.records] == [
        f"{TOP}/locked can't be listed: Input/output error"
    ]
    assert (counted_here() - before)["source.unlistable"] == 1


# On real folders.


def names(look: PollResult, top: Path) -> list[str]:
    return sorted(os.path.relpath(file.uri, top) for file in look.ready)


def later() -> float:
    return time.time() + 120


def test_a_real_folder_is_watched_with_all_beneath_it(tmp_path: Path) -> None:
    (tmp_path / "day").mkdir()
    (tmp_path / "day" / "a.jpg").write_bytes(b"1")
    (tmp_path / "empty.jpg").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    watcher = Watcher(str(tmp_path), clock=later)
    look = watcher.poll(KnownFiles())
    assert names(look, tmp_path) == ["day/a.jpg", "empty.jpg"]
    (tmp_path / "b.jpg").write_bytes(b"")
    look = watcher.poll(look.known)
    assert names(look, tmp_path) == ["b.jpg"]
    assert names(Watcher(str(tmp_path), clock=later).poll(look.known), tmp_path) == []


def test_a_real_folder_that_is_moved_in_with_its_own_old_date(tmp_path: Path) -> None:
    source, outside = tmp_path / "in", tmp_path / "outside"
    source.mkdir()
    outside.mkdir()
    for number in range(5):
        (outside / f"{number}.jpg").write_bytes(b"")
        os.utime(outside / f"{number}.jpg", (1e9, 1e9))
    os.utime(outside, (1e9, 1e9))
    known = Watcher(str(source), clock=later).poll(KnownFiles()).known
    outside.rename(source / "day")
    look = Watcher(str(source), clock=later).poll(known)
    assert names(look, source) == [f"day/{number}.jpg" for number in range(5)]


def test_a_glob_chooses_and_a_top_that_is_not_there_is_an_error_until_it_comes(
    tmp_path: Path,
) -> None:
    watcher = Watcher(str(tmp_path / "in" / "*.jpg"), clock=later)
    with pytest.raises(FileNotFoundError):
        watcher.poll(KnownFiles())
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("a.jpg", "a.txt", "deep/b.jpg"):
        (tmp_path / "in" / name).write_bytes(b"")
    assert names(watcher.poll(KnownFiles()), tmp_path) == ["in/a.jpg"]


def test_links_are_followed_only_on_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, outside = tmp_path / "in", tmp_path / "outside"
    for folder in (source / "deep", outside):
        folder.mkdir(parents=True)
    for path in (source / "a.jpg", source / "deep" / "b.jpg", outside / "c.jpg"):
        path.write_bytes(b"")
    (source / "same.jpg").symlink_to(source / "a.jpg")
    (source / "secret.jpg").symlink_to(outside / "c.jpg")
    (source / "gate").symlink_to(outside)
    (source / "round").symlink_to(source)
    (outside / "back").symlink_to(source / "deep")
    before = counted_here()
    inside = ["a.jpg", "deep/b.jpg", "same.jpg"]
    watcher = Watcher(str(source), clock=later)
    for known in (KnownFiles(), KnownFiles()):
        assert names(watcher.poll(known), source) == inside
    assert [record.getMessage().split(" is a link")[0] for record in caplog.records] == [
        str(source / "gate")
    ]
    assert (counted_here() - before)["source.links_passed_over"] == 3
    followed = Watcher(str(source), follow_links=True, clock=later).poll(KnownFiles())
    assert names(followed, source) == sorted([*inside, "gate/c.jpg", "secret.jpg"])


class _RecordingDisk(Disk):
    def __init__(self) -> None:
        super().__init__()
        self.scanned: list[str] = []

    def scan(self, path: str) -> Any:
        self.scanned.append(path)
        return super().scan(path)


def test_a_real_quiet_folder_is_skipped_but_not_what_is_new_in_it(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
        (folder / f"{folder.name}.jpg").write_bytes(b"")
    now = later()
    os.utime(old, (now - 7200, now - 7200))
    disk = _RecordingDisk()
    watcher = Watcher(str(tmp_path), disk=disk, clock=lambda: now)
    look = watcher.poll(KnownFiles())
    assert names(look, tmp_path) == ["new/new.jpg", "old/old.jpg"]
    look = watcher.poll(look.known)
    del disk.scanned[:]
    look = watcher.poll(look.known)
    assert look.ready == []
    assert str(old) not in disk.scanned
    (old / "more.jpg").write_bytes(b"")
    assert names(watcher.poll(look.known), tmp_path) == ["old/more.jpg"]


# As a splittable DoFn.


class _Clock:
    def __init__(self) -> None:
        self.mark: Any = None

    def current_watermark(self) -> Any:
        return self.mark

    def set_watermark(self, mark: Any) -> None:
        self.mark = mark


class _Tracker(UnboundedTracker):
    paused: float | None = None

    def defer_remainder(self, pause: Any) -> None:
        self.paused = float(pause.micros / 1e6)


def play(
    source: Path, known: Any, clock: _Clock, now: Callable[[], float]
) -> tuple[list[str], _Tracker]:
    watch = _Watch(str(source), 100.0, now, follow_links=False)
    watch.setup()
    tracker = _Tracker(known)
    files = [element.value.uri for element in watch.process(b"", tracker=tracker, estimator=clock)]
    return files, tracker


def test_event_time_waits_while_the_top_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, clock, start = tmp_path / "in", _Clock(), later()
    source.mkdir()
    (source / "a.jpg").write_bytes(b"")
    files, tracker = play(source, KnownFiles(), clock, lambda: start)
    assert files == [str(source / "a.jpg")]
    assert float(clock.mark) == pytest.approx(start - 10, abs=0.01)
    assert tracker.paused == pytest.approx(100.2)
    source.rename(tmp_path / "away")
    known = tracker.current_restriction()
    files, tracker = play(source, known, clock, lambda: start + 100)
    assert (files, tracker.current_restriction()) == ([], known)
    assert tracker.paused == pytest.approx(100.2)
    assert float(clock.mark) == pytest.approx(start - 10, abs=0.01)
    assert "can't be listed: FileNotFoundError" in caplog.text
    (tmp_path / "away").rename(source)
    files, _ = play(source, known, clock, lambda: start + 200)
    assert files == []
    assert float(clock.mark) == pytest.approx(start + 190, abs=0.01)


def test_event_time_waits_for_a_backlog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5001):
        (tmp_path / f"{number}.jpg").write_bytes(b"")
    clock, now = _Clock(), later()
    watch = _Watch(str(tmp_path), 5.0, lambda: now, follow_links=False)
    watch.setup()
    tracker = _Tracker(KnownFiles())
    assert len(list(watch.process(b"", tracker=tracker, estimator=clock))) == 5000
    assert (tracker.paused, clock.mark) == (0, None)
    assert len(list(watch.process(b"", tracker=tracker, estimator=clock))) == 1
    assert float(clock.mark) == pytest.approx(now - 10, abs=0.01)


# What is kept.


@pytest.mark.parametrize(
    "known",
    [
        None,
        KnownFiles(),
        KnownFiles(
            (
                KnownFolder(b"12345678", 2**63 + 1, b"87654321", versions=b"abcdefgh"),
                KnownFolder(
                    b"\0" * 8, 0, b"\n" * 8, 5, 1.5, 2.5, 3.5, NOW + 1 / 3, 9, 2**64 - 1, b""
                ),
            ),
            ((b"\xff" * 8, NOW),),
        ),
    ],
)
def test_what_is_remembered_survives_a_checkpoint(known: KnownFiles | None) -> None:
    assert KNOWN_FILES_CODER.decode(KNOWN_FILES_CODER.encode(known)) == known


def test_what_is_remembered_is_never_taken_for_nothing_left() -> None:
    assert bool(KnownFiles())
    assert bool(KNOWN_FILES_CODER.decode(KNOWN_FILES_CODER.encode(KnownFiles())))


def test_a_claim_after_the_runner_has_split_is_refused() -> None:
    tracker = UnboundedTracker(KnownFiles())
    later_on = KnownFiles(waiting=((b"12345678", 5.0),))
    assert tracker.try_split(0.5) is None
    assert tracker.try_claim(later_on)
    assert tracker.try_split(0) == (None, later_on)
    assert not tracker.try_claim(KnownFiles())
    tracker.check_done()
    assert not tracker.is_bounded()
