"""Chart, report and health list an output once, and read each file once and of their time alone."""

from __future__ import annotations

import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest

import rules
from beam_pipeline import cli
from beam_pipeline.fleet import health
from beam_pipeline.fleet.output_scan import CountsError, OutputScan
from beam_pipeline.job.run import _write_pages
from beam_pipeline.pages.report.gathering import INVALID_SHOWN
from tests.beam_pipeline.fleets import write_fleet
from tests.transforms import memory_store
from tests.transforms.archives import OLD, seen
from tests.transforms.memory_store import MemoryFileSystem
from transforms.records.count_rows import CountRow
from transforms.records.times import canonical_time
from transforms.storage import stores

OUTPUT = "memory://scanned/out"
END = datetime(2026, 2, 10, 12, tzinfo=timezone.utc)
DAY = timedelta(days=1)
BACK = {
    "of the period": timedelta(hours=3),
    "of the history": 20 * DAY,
    "older": health.HISTORY + 40 * DAY,
}
INVALID = 2 * INVALID_SHOWN
FOLDERS = ("counts", "late", "invalid", "alerts")


def file_name(time: datetime) -> str:
    return f"hall_{time:%Y%m%dT%H%M%SZ}.jpg"


@dataclass
class Requests:
    """How often each file was opened, and each folder listed."""

    opened: Counter[str] = field(default_factory=Counter)
    listed: Counter[str] = field(default_factory=Counter)

    def files(self, folder: str) -> list[str]:
        return [path for path in self.opened if path.startswith(f"{OUTPUT}/{folder}/")]


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[Requests]:
    """What is asked of the store, which holds a fleet: three cameras, a day now, one in the history
    and one before it, each with invalid and late images."""
    images = [
        seen(camera, canonical_time(END - back - minute * timedelta(minutes=1)), ("person", 0.9))
        for back in BACK.values()
        for camera in ("gate", "hall", "yard")
        for minute in range(1, 4)
    ]
    invalid = [
        (reason, file_name(END - back - timedelta(seconds=second)), "no JPEG")
        for back in BACK.values()
        for reason in ("not_jpeg", "empty_file")
        for second in range(1, INVALID + 1)
    ]
    write_fleet(OUTPUT, images, invalid=[*invalid, ("bad_name", "holiday.jpg", "no underscore")])
    for back in BACK.values():
        start = END - back - timedelta(hours=1)
        row = CountRow("hall", start, start + timedelta(hours=1), 1, 0, 0, 0, {})
        uri = stores.late_uri(OUTPUT, "hall", file_name(start).removesuffix(".jpg"))
        stores.write_bytes(uri, stores.json_bytes({"file": file_name(start), **row.to_json()}))
    counted = Requests()
    opening, listing = MemoryFileSystem.open, MemoryFileSystem._list

    def opened(self: MemoryFileSystem, path: str, *args: str) -> object:
        counted.opened[path] += 1
        return opening(self, path, *args)

    def listed(self: MemoryFileSystem, prefix: str) -> object:
        counted.listed[prefix.removeprefix(f"{OUTPUT}/").split("/")[0]] += 1
        return listing(self, prefix)

    monkeypatch.setattr(MemoryFileSystem, "open", opened)
    monkeypatch.setattr(MemoryFileSystem, "_list", listed)
    yield counted
    for address in [uri for uri in memory_store.OBJECTS if uri.startswith(OUTPUT)]:
        del memory_store.OBJECTS[address]


def times_in(names: list[str]) -> list[datetime]:
    matches = (re.search(r"\d{8}T\d{6}Z", name) for name in names)
    return [
        datetime.strptime(item[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
        for item in matches
        if item is not None
    ]


def check_each_once(requests: Requests) -> None:
    opened = [path for folder in FOLDERS for path in requests.files(folder)]
    assert [path for path in opened if requests.opened[path] > 1] == []
    assert [folder for folder in FOLDERS if requests.listed[folder] > 1] == []


def test_the_end_of_a_batch_reads_the_output_once(requests: Requests) -> None:
    job = SimpleNamespace(
        output=OUTPUT,
        options=SimpleNamespace(chart_period_hours=24.0),
        rules=SimpleNamespace(current=rules.parse_rules(OLD, "rules")),
    )
    assert _write_pages(job) == (f"{OUTPUT}/chart/threats.png", f"{OUTPUT}/report/report.html")
    check_each_once(requests)
    assert {folder: requests.listed[folder] for folder in FOLDERS} == dict.fromkeys(FOLDERS, 1)
    assert len(requests.files("counts")) == 2
    assert requests.files("late") == []
    # Those that the page shows, and no other.
    shown = requests.files("invalid")
    assert len(shown) == 2 * INVALID_SHOWN + 1
    assert min(times_in(shown)) >= END - DAY


def test_the_report_reads_each_file_of_its_time_once(requests: Requests, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    assert cli.main(["report", "--output", OUTPUT, "--file", str(file)]) == 0
    assert file.exists()
    check_each_once(requests)
    assert len(requests.files("counts")) == 2
    assert requests.files("late") == []
    invalid = requests.files("invalid")
    assert len(invalid) == 2 * INVALID + 1
    assert min(times_in(invalid)) >= END - DAY


def test_health_reads_each_file_of_its_time_once(requests: Requests) -> None:
    assert cli.main(["health", "--output", OUTPUT]) == 0
    check_each_once(requests)
    assert len(requests.files("counts")) == 2
    assert requests.files("late") == []
    invalid = requests.files("invalid")
    assert len(invalid) == 2 * INVALID
    assert min(times_in(invalid)) >= END - DAY


def test_the_chart_reads_nothing_but_the_counts_of_its_period(
    requests: Requests, tmp_path: Path
) -> None:
    file = tmp_path / "chart.png"
    assert cli.main(["chart", "--output", OUTPUT, "--file", str(file)]) == 0
    check_each_once(requests)
    assert [*requests.opened] == requests.files("counts")
    assert len(requests.opened) == 1
    assert not {"late", "invalid", "alerts"} & requests.listed.keys()


def test_a_late_image_counts_by_its_window_not_by_its_name(tmp_path: Path) -> None:
    """The window of a day has begun before the period, and its image came in it."""
    midnight = END.replace(hour=0)
    row = CountRow("hall", midnight, midnight + DAY, 1, 0, 0, 0, {})
    uri = stores.late_uri(str(tmp_path), "hall", file_name(END).removesuffix(".jpg"))
    stores.write_bytes(uri, stores.json_bytes(row.to_json()))
    scan = OutputScan(str(tmp_path))
    hour = timedelta(hours=1)
    assert [archived.images for archived in scan.late(since=midnight, until=midnight + hour)] == [1]
    assert scan.late(since=midnight + hour, until=END + hour) == []


@pytest.mark.parametrize("command", ["health", "report"])
def test_no_row_of_a_camera_at_1970_is_read(
    requests: Requests, tmp_path: Path, command: str
) -> None:
    """It has sent an image a second, all of which are late."""
    first = datetime(1970, 1, 1, tzinfo=timezone.utc)
    for second in range(500):
        name = f"gate_{first + timedelta(seconds=second):%Y%m%dT%H%M%SZ}"
        stores.write_bytes(stores.late_uri(OUTPUT, "gate", name), b"never read")
    file = tmp_path / "found"
    assert cli.main([command, "--output", OUTPUT, "--file", str(file)]) == 0
    assert (
        "has sent 500 images dated 1970-01-01 00:00 UTC to 1970-01-01 00:08 UTC" in file.read_text()
    )
    assert requests.files("late") == []
    assert requests.listed["late"] == 1


def test_late_rows_are_read_several_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    row = CountRow("hall", END, END + DAY, 1, 0, 0, 0, {})
    for second in range(32):
        name = file_name(END + timedelta(seconds=second)).removesuffix(".jpg")
        uri = stores.late_uri(str(tmp_path), "hall", name)
        stores.write_bytes(uri, stores.json_bytes(row.to_json()))
    both = threading.Barrier(16, timeout=30)
    reading = stores.read_bytes

    def read(uri: str) -> bytes:
        both.wait()
        return reading(uri)

    monkeypatch.setattr(stores, "read_bytes", read)
    assert [row.images for row in OutputScan(str(tmp_path)).late()] == [32]


def test_an_image_whose_name_ends_in_json_is_no_record(tmp_path: Path) -> None:
    for name in ("list.json", "list.json.json", "note.txt.json"):
        stores.write_bytes(stores.invalid_uri(str(tmp_path), "bad_name", name), b"{}")
    assert [file.name for file in OutputScan(str(tmp_path)).invalid] == ["list.json", "note.txt"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_reported(tmp_path: Path) -> None:
    (tmp_path / "late").mkdir(mode=0)
    with pytest.raises(CountsError, match="cannot list"):
        OutputScan(str(tmp_path)).late()


def test_no_thread_is_left_once_a_record_could_not_be_read(tmp_path: Path) -> None:
    """The threads of an abandoned generator end whenever it is collected, and can hang then."""
    for second in range(32):
        name = file_name(END + timedelta(seconds=second)).removesuffix(".jpg")
        stores.write_bytes(stores.late_uri(str(tmp_path), "hall", name), b"{")
    before = threading.active_count()
    with pytest.raises(CountsError):
        OutputScan(str(tmp_path)).late()
    assert threading.active_count() == before


@pytest.mark.parametrize("command", ["counts", "health", "report"])
def test_an_output_of_late_images_alone_says_so(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It said "run the job first" to whoever tried a stream with an old image."""
    name = file_name(END).removesuffix(".jpg")
    row = CountRow("hall", END, END + DAY, 1, 0, 0, 0, {})
    uri = stores.late_uri(str(tmp_path), "hall", name)
    stores.write_bytes(uri, stores.json_bytes(row.to_json()))
    assert cli.main([command, "--output", str(tmp_path)]) == 2
    assert "all images so far, 1, were older than the open windows" in capsys.readouterr().err
