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
from beam_pipeline.fleet.health_statistics import (
    LATE,
    LookedAtImage,
    Observations,
    RefusedImage,
)
from beam_pipeline.fleet.output_scan import OutputScan
from beam_pipeline.pages.report.gathering import ReportOptions, gather
from beam_pipeline.pages.report.page import make_page
from tests.beam_pipeline.fleets import write_fleet
from tests.transforms.archives import seen
from transforms.records.count_rows import CountRow
from transforms.records.times import canonical_time

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


def test_the_report_has_the_figures_of_every_camera(output: Path) -> None:
    page = make_page(gather(OutputScan(str(output)), ReportOptions()))
    _, _, section = page.partition('<section id="figures"')
    section, _, _ = section.partition("</section>")
    assert section.count("<details") == 2
    assert (
        "<strong>hall</strong> 25 seen, 24 expected; invalid 4.0 % not_jpeg; brightness 0.25, "
        "sharpness 0.031; threats in 25 %, usually 25 %" in section
    )
    assert section.count("<tr><td>03-01 ") == 48
    last = ("03-01 23:00", "1", "2", "50 % not_jpeg", "0.25", "0.031", "0 %", "0 %")
    assert f"<tr><td>{'<td>'.join(last)}" in section


def test_a_report_that_reads_no_images_has_the_other_figures(output: Path) -> None:
    page = make_page(gather(OutputScan(str(output)), ReportOptions(each_image=False)))
    assert "24 seen, 24 expected; invalid 0 %; brightness -, sharpness -; threats in 25 %" in page
