"""Numbers of the time before a period: those of the rows, in little memory, read once."""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipeline.fleet import output_scan
from beam_pipeline.fleet.output_scan import Kept, OutputScan
from beam_pipeline.pages.report import write_report
from beam_pipeline.pages.report.gathering import ReportOptions
from tests.search import search
from transforms.records.times import canonical_time

START = datetime(2026, 2, 10, tzinfo=timezone.utc)
WINDOW = timedelta(minutes=5)


def write(
    output: Path, window: int, images: Sequence[int], date: float | None = None, shard: str = ""
) -> None:
    """The counts of cameras c0, c1 and so on in a window; by default 1,000 s ago."""
    times = START + window * WINDOW, START + (window + 1) * WINDOW
    start, end = map(canonical_time, times)
    rows = [
        {"id": f"c{camera}", "window_start": start, "window_end": end, "images": number}
        | {"threat_images": 0, "threats": 0, "alerts": 0, "by_label": {}}
        for camera, number in enumerate(images)
    ]
    name = f"{times[0]:%Y%m%dT%H%M%SZ}_{times[1]:%Y%m%dT%H%M%SZ}{shard}.jsonl"
    path = output / "counts" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    date = time.time() - 1000 if date is None else date
    os.utime(path, (date, date))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The counts files that were read."""
    names: list[str] = []
    read = output_scan._read

    def noting(path: str) -> bytes:
        names.append(Path(path).name)
        return read(path)

    monkeypatch.setattr(output_scan, "_read", noting)
    return names


Entries = list[tuple[str, float, float, float]]


def past(scan: OutputScan, until: int, at_most: int | None = None) -> Entries:
    counts = scan.past(since=START, until=START + until * WINDOW, at_most=at_most)
    return sorted(
        (id, *of_window)
        for id, of_id in counts.items()
        for of_window in zip(
            of_id.starts.tolist(), of_id.ends.tolist(), of_id.images.tolist(), strict=True
        )
    )


def plain(scan: OutputScan, until: int) -> Entries:
    """The same, of the rows."""
    return sorted(
        (row.id, row.window_start.timestamp(), row.window_end.timestamp(), row.images)
        for row in scan.counts(since=START, until=START + until * WINDOW)
    )


STEPS = st.tuples(
    st.integers(0, 2),
    st.lists(st.integers(0, 9), max_size=3),
    st.sampled_from([0, 90]),
    st.sampled_from(["", "", "-0-of-2", "-1-of-2"]),
    st.booleans(),
)


@pytest.mark.search
@search(60)
@given(steps=st.lists(STEPS, min_size=1, max_size=12))
def test_they_are_those_of_the_rows(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[int, list[int], int, str, bool]],
) -> None:
    output = tmp_path_factory.mktemp("counted")
    kept: Kept | None = None
    now = time.time()
    for number, (window, images, seconds_ago, shard, looks) in enumerate(steps):
        # A young file may be written again with the same date; an old one gets another one.
        write(output, window, images, now - (seconds_ago and seconds_ago - number), shard)
        if looks or number == len(steps) - 1:
            scan = OutputScan(str(output), kept)
            assert past(scan, 2) == plain(OutputScan(str(output)), 2)
            kept = scan.kept()


def test_a_young_window_is_read_again_though_its_date_is_the_same(tmp_path: Path) -> None:
    now = time.time()
    write(tmp_path, 0, [1], now)
    scan = OutputScan(str(tmp_path))
    assert [images for *_, images in past(scan, 1)] == [1]
    write(tmp_path, 0, [2], now)
    assert [images for *_, images in past(OutputScan(str(tmp_path), scan.kept()), 1)] == [2]


def test_a_window_is_read_once(tmp_path: Path, opened: list[str]) -> None:
    for window in range(5):
        write(tmp_path, window, [1, 2])
    scan = OutputScan(str(tmp_path))
    assert len(past(scan, 4)) == 8
    assert len(opened) == 4
    opened.clear()
    again = OutputScan(str(tmp_path), scan.kept())
    assert len(past(again, 5)) == 10
    assert opened == ["20260210T002000Z_20260210T002500Z.jsonl"]


def test_no_more_rows_than_asked_for_are_read_and_kept(tmp_path: Path, opened: list[str]) -> None:
    for window in range(600):
        write(tmp_path, window, [1, 2])
    scan = OutputScan(str(tmp_path))
    newest = past(scan, 600, at_most=700)
    assert newest == [entry for entry in plain(scan, 600) if entry[1] >= START.timestamp() + 75_000]
    kept = scan.kept()
    assert kept.past is not None
    assert kept.past.rows == 700
    opened.clear()
    assert past(OutputScan(str(tmp_path), kept), 600, at_most=700) == newest
    assert opened == []
    assert past(OutputScan(str(tmp_path), kept), 600, at_most=1) == []


def test_a_row_takes_little_memory(tmp_path: Path) -> None:
    """The limit of 2,000,000 rows is 40 MB at 20 bytes a row."""
    for window in range(100):
        write(tmp_path, window, [5] * 100)
    scan = OutputScan(str(tmp_path))
    scan.windows()
    tracemalloc.start()
    try:
        past(scan, 100)
        kept = scan.kept()
        del scan
        memory, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept.past is not None
    assert kept.past.rows == 10_000
    assert memory < 40 * 10_000


def test_a_later_report_of_a_long_output_reads_what_is_new(
    tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More rows before the period than rows that are kept of it."""
    monkeypatch.setattr("beam_pipeline.fleet.output_scan._MAX_KEPT", 50)
    for window in range(100):
        write(tmp_path, window, [1, 2])
    options = ReportOptions(period_hours=1, missing_ok=True, each_image=False)
    scan = OutputScan(str(tmp_path))
    write_report(scan, options)
    assert len(opened) == 100
    opened.clear()
    write(tmp_path, 100, [1, 2])
    later = OutputScan(str(tmp_path), scan.kept())
    write_report(later, options)
    # The window that has left the period is read a second time, as numbers.
    assert len(opened) == 2
