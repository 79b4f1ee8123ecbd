"""What the JSON of health and the report say of every camera, findings or none."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipeline import cli
from beam_pipeline.fleet.figures import figures
from beam_pipeline.fleet.output_scan import OutputScan
from beam_pipeline.fleet.statistics.observations import (
    LATE,
    LookedAtImage,
    Observations,
    RefusedImage,
)
from beam_pipeline.pages.report.gathering import ReportOptions, gather
from beam_pipeline.pages.report.page import make_page
from tests.beam_pipeline.fleets import write_fleet
from tests.transforms.archives import seen
from transforms.records.count_rows import CountRow
from transforms.records.times import canonical_time, parse_time

END = datetime(2026, 3, 2, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def row(id: str, back: int, images: int, threats: int = 0) -> CountRow:
    start = END - back * HOUR
    return CountRow(id, start, start + HOUR, images, threats, threats, 0, {})


def observed() -> Observations:
    """`hall` sends 4 images an hour, of which one shows a threat, and twice as many by day; in the
    last hour it sent two images with threats, one broken and one late one. `new` has no past."""
    rows = [
        row("hall", back, 8 if back % 24 < 12 else 4, 2 if back % 24 < 12 else 1)
        for back in range(24 * 6, 1, -1)
    ]
    refused = [
        RefusedImage("hall", END - HOUR / 2, "corrupt_jpeg"),
        RefusedImage("hall", END - HOUR / 3, LATE),
    ]
    images = [
        LookedAtImage(END - HOUR, True, 0.1, 0.01),
        LookedAtImage(END - HOUR / 2, True, 0.3, None),
        LookedAtImage(END - HOUR / 4, True, 0.4, 0.03),
    ]
    rows += [row("hall", 1, 2, 2), row("new", 1, 3)]
    return Observations(rows, {"hall": images}, refused, expected={"new": 5.0})


def test_the_figures_of_a_window() -> None:
    hall, never, new = figures(observed(), ["never", "new", "hall"], since=END - DAY, until=END)
    assert [hall.id, never.id, new.id] == ["hall", "never", "new"]
    assert hall.windows[-1].to_json() == {
        "start": "2026-03-01T23:00:00Z",
        "end": "2026-03-02T00:00:00Z",
        "expected": 8.0,
        "seen": 4,
        "images": 2,
        "invalid": {"corrupt_jpeg": 0.25, "late": 0.25},
        "brightness": 0.3,
        "sharpness": 0.02,
        "threat_share": 1.0,
        "usual_threat_share": 0.25,
    }


def test_the_figures_of_a_period_come_first() -> None:
    (hall,) = figures(observed(), ["hall"], since=END - DAY, until=END)
    assert hall.to_json() | {"windows": len(hall.windows)} == {
        "id": "hall",
        "start": "2026-03-01T00:00:00Z",
        "end": "2026-03-02T00:00:00Z",
        "expected": 144.0,
        "seen": 140,
        "images": 138,
        "invalid": {"corrupt_jpeg": 0.0071, "late": 0.0071},
        "brightness": 0.3,
        "sharpness": 0.02,
        "threat_share": 0.2609,
        "usual_threat_share": 0.25,
        "windows": 24,
    }


def test_a_camera_without_a_past_has_no_usual_figures() -> None:
    new, never = figures(observed(), ["new", "never"], since=END - DAY, until=END)[::-1]
    assert (new.whole.seen, new.whole.expected, new.whole.usual_threat_share) == (3, 120.0, None)
    assert (never.whole.seen, never.whole.expected, never.whole.threat_share) == (0, None, None)
    assert never.whole.invalid == {}
    assert never.whole.brightness is None


@pytest.mark.parametrize(
    ("length", "number", "last"),
    [
        (timedelta(hours=1.5), 2, timedelta(minutes=30)),
        (2 * DAY, 48, HOUR),
        (2 * DAY + HOUR, 3, HOUR),
    ],
)
def test_a_period_is_divided_into_hours_or_days(
    length: timedelta, number: int, last: timedelta
) -> None:
    (hall,) = figures(observed(), ["hall"], since=END - length, until=END)
    assert len(hall.windows) == number
    assert hall.windows[-1].end - hall.windows[-1].start == last
    assert hall.windows[0].start == END - length


@pytest.mark.parametrize("since", ["0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z"])
def test_a_long_period_begins_and_ends_with_the_data(since: str) -> None:
    """Of 20 cameras, of which one has sent an image on 2026-01-02, and another on 2026-01-09."""
    first = datetime(2026, 1, 2, 3, tzinfo=timezone.utc)
    rows = [
        CountRow("cam-3", first, first + HOUR, 1, 0, 0, 0, {}),
        CountRow("cam-7", first + 7 * DAY, first + 7 * DAY + HOUR, 2, 0, 0, 0, {}),
    ]
    ids = [f"cam-{number}" for number in range(20)]
    of_each = figures(Observations(rows), ids, since=parse_time(since), until=END)
    assert {len(camera.windows) for camera in of_each} == {8}
    (cam_7,) = (camera for camera in of_each if camera.id == "cam-7")
    assert canonical_time(cam_7.windows[0].start) == "2026-01-02T00:00:00Z"
    assert canonical_time(cam_7.windows[-1].end) == "2026-01-10T00:00:00Z"
    assert [window.seen for window in cam_7.windows] == [0, 0, 0, 0, 0, 0, 0, 2]
    assert (cam_7.whole.start, cam_7.whole.end) == (parse_time(since), END)


@pytest.mark.parametrize(
    ("days", "number", "length"),
    [
        (2, 48, HOUR),
        (3, 3, DAY),
        (400, 400, DAY),
        (401, 58, 7 * DAY),
        (2800, 400, 7 * DAY),
        (2801, 201, 14 * DAY),
        (20_000, 358, 56 * DAY),
    ],
)
def test_there_are_never_more_than_400_windows(days: int, number: int, length: timedelta) -> None:
    """A camera that has sent an image on the first and the last day."""
    first = END - days * DAY
    rows = [CountRow("hall", start, start + HOUR, 1, 0, 0, 0, {}) for start in (first, END - HOUR)]
    (hall,) = figures(
        Observations(rows), ["hall"], since=datetime(1, 1, 1, tzinfo=timezone.utc), until=END
    )
    assert len(hall.windows) == number
    assert hall.windows[0].end - hall.windows[0].start == length
    assert (hall.windows[0].start, hall.windows[-1].end) == (first, END)
    assert sum(window.seen for window in hall.windows) == 2


def test_a_long_period_without_data_has_no_windows() -> None:
    since = datetime(1970, 1, 1, tzinfo=timezone.utc)
    (hall,) = figures(Observations([]), ["hall"], since=since, until=END)
    assert (hall.windows, hall.whole.seen, hall.whole.start) == ((), 0, since)


@given(
    st.lists(st.integers(0, 20_000), max_size=6),
    st.integers(401, 20_000),
)
def test_windows_of_a_long_period_hold_all_images_of_it(days: list[int], length: int) -> None:
    rows = [
        CountRow("hall", start := END - day * DAY - HOUR, start + HOUR, 1, 0, 0, 0, {})
        for day in sorted(set(days))
    ]
    (hall,) = figures(Observations(rows), ["hall"], since=END - length * DAY, until=END)
    assert len(hall.windows) <= 400
    assert sum(window.seen for window in hall.windows) == hall.whole.seen
    assert hall.whole.seen == sum(day < length for day in set(days))
    edges = [window.start for window in hall.windows][1:]
    assert [window.end for window in hall.windows][:-1] == edges


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 5)), max_size=30),
    st.integers(1, 72),
)
def test_windows_add_up_to_the_period(sent: list[tuple[int, int]], hours: int) -> None:
    rows = [row("hall", back, images) for back, images in dict(sent).items()]
    (hall,) = figures(Observations(rows), ["hall"], since=END - hours * HOUR, until=END)
    assert sum(window.seen for window in hall.windows) == hall.whole.seen
    edges = [window.start for window in hall.windows] + [END]
    assert [window.end for window in hall.windows] == edges[1:]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    images = [
        seen(id, canonical_time(END - back * HOUR), *([("person", 0.9)] if back % 4 == 0 else []))
        for id in ("hall", "yard")
        for back in range(24 * 6, 0, -1)
    ]
    write_fleet(tmp_path, images, invalid=[("not_jpeg", "hall_20260301T233000Z.jpg", "a PNG")])
    return tmp_path


def test_health_has_the_figures_of_every_camera(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["health", "--output", str(output), "--format", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["findings"] == []
    hall, yard = report["figures"]
    assert [hall["id"], yard["id"]] == ["hall", "yard"]
    assert (hall["seen"], hall["expected"], yard["seen"]) == (25, 24.0, 24)
    assert hall["invalid"] == {"not_jpeg": 0.04}
    assert (yard["brightness"], yard["sharpness"]) == (0.25, 0.0312)
    assert (yard["threat_share"], yard["usual_threat_share"]) == (0.25, 0.25)
    assert len(hall["windows"]) == 24
    assert hall["windows"][-1]["invalid"] == {"not_jpeg": 0.5}
    assert [window["threat_share"] for window in yard["windows"][:4]] == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("since", ["1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z"])
def test_health_and_the_report_of_all_times_have_the_days_with_data(
    output: Path, capsys: pytest.CaptureFixture[str], since: str
) -> None:
    command = ["health", "--output", str(output), "--format", "json", "--since", since]
    assert cli.main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert [len(camera["windows"]) for camera in report["figures"]] == [6, 6]
    assert report["figures"][0]["windows"][0]["start"] == "2026-02-24T00:00:00Z"
    page = make_page(gather(OutputScan(str(output)), ReportOptions(since=parse_time(since))))
    assert page.count('<td class="time">2026-02-24<td>') == 2


def test_the_report_of_all_times_of_a_new_fleet_shows_hours(tmp_path: Path) -> None:
    write_fleet(tmp_path, [seen("hall", "2026-03-01T05:00:00Z")])
    since = datetime(1970, 1, 1, tzinfo=timezone.utc)
    page = make_page(gather(OutputScan(str(tmp_path)), ReportOptions(since=since)))
    assert page.count('<td class="time">03-01 05:00<td>') == 1


def test_the_report_has_the_figures_of_every_camera(output: Path) -> None:
    page = make_page(gather(OutputScan(str(output)), ReportOptions()))
    _, _, section = page.partition('<section id="each"')
    section, _, _ = section.partition('<section id="hours"')
    assert section.count('<details class="camera"') == 2
    assert (
        "25 seen, 24 expected; invalid 4.0 % not_jpeg; brightness 0.25, "
        "sharpness 0.031; threats in 25 %, usually 25 %" in section
    )
    assert section.count('<td class="time">03-01 ') == 48
    # Images, with a threat, threats, alerts; seen, expected, invalid, brightness and so on.
    last = ("1", "0", "0", "0", "2", "1", "50 % not_jpeg", "0.25", "0.031", "0 %")
    assert f'<td class="time">03-01 23:00<td>{"<td>".join(last)}' in section


def test_a_report_that_reads_no_images_has_the_other_figures(output: Path) -> None:
    page = make_page(gather(OutputScan(str(output)), ReportOptions(each_image=False)))
    assert "24 seen, 24 expected; invalid 0 %; brightness -, sharpness -; threats in 25 %" in page
