"""A camera that has lost its clock is misdated, not silent; and its alerts are shown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from beam_pipeline import cli
from beam_pipeline.fleet.fleet_end import find_end
from beam_pipeline.fleet.health import examine
from beam_pipeline.fleet.output_scan import OutputScan
from beam_pipeline.fleet.statistics.findings import findings
from beam_pipeline.fleet.statistics.observations import Finding, MisdatedImages, Observations
from beam_pipeline.pages.report.gathering import ReportOptions, gather
from beam_pipeline.pages.report.page import make_page
from tests.beam_pipeline.fleets import write_fleet
from tests.transforms.archives import seen
from transforms.records.count_rows import CountRow
from transforms.records.images import DetectedImage
from transforms.records.times import canonical_time
from transforms.storage import stores

END = datetime(2026, 3, 2, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
NEW_YEARS = [datetime(year, 1, 1, tzinfo=timezone.utc) for year in (1970, 1980, 2000, 2015)]


def hourly(
    id: str, first: datetime, hours: Iterable[int], images: int = 6, person: bool = False
) -> list[DetectedImage]:
    """So many images in each hour after a time, with a person in the first one."""
    return [
        seen(
            id,
            canonical_time(first + hour * HOUR + number * HOUR / images),
            *([("person", 0.9)] if person and not number else []),
        )
        for hour in hours
        for number in range(images)
    ]


def images_of(reset: datetime, days: int, wrong_hours: int) -> list[DetectedImage]:
    """Three cameras, of which `gate` has lost its clock some hours before the end."""
    first = END - days * 24 * HOUR
    right = [
        image for id in ("hall", "yard") for image in hourly(id, first, range(24 * days), images=2)
    ]
    before = hourly("gate", first, range(24 * days - wrong_hours), images=2)
    return [*right, *before, *hourly("gate", reset, range(wrong_hours), images=2, person=True)]


def found(output: Path, *arguments: str) -> list[dict[str, object]]:
    file = output / "health.json"
    command = ["health", "--output", str(output), "--format", "json", "--file", str(file)]
    assert cli.main([*command, *arguments]) == 0
    report = json.loads(file.read_text())
    assert report["problems"] == []
    return report["findings"]


def kinds(output: Path, *arguments: str) -> list[tuple[object, object]]:
    return [(finding["id"], finding["kind"]) for finding in found(output, *arguments)]


@pytest.mark.parametrize("reset", NEW_YEARS, ids=str)
def test_a_camera_that_falls_back_while_it_sends_is_misdated(reset: datetime, tmp_path: Path):
    write_fleet(tmp_path, images_of(reset, days=6, wrong_hours=20))
    (finding,) = found(tmp_path)
    assert (finding["id"], finding["kind"], finding["severity"]) == ("gate", "misdated", "fault")
    assert finding["since"] == "2026-03-01T04:00:00Z"
    year = reset.year
    assert finding["sentence"] == (
        f"has sent 40 images dated {year}-01-01 00:00 UTC to {year}-01-01 19:00 UTC; its last one "
        "with a credible time is of 2026-03-01 04:00 UTC. Its clock is wrong"
    )


def test_without_a_past_of_days_it_is_misdated_after_an_unusual_gap(tmp_path: Path) -> None:
    write_fleet(tmp_path, images_of(NEW_YEARS[0], days=1, wrong_hours=3))
    assert kinds(tmp_path, "--until", canonical_time(END)) == [("gate", "misdated")]


def test_a_camera_that_never_had_the_time_is_misdated(tmp_path: Path) -> None:
    write_fleet(tmp_path, images_of(NEW_YEARS[2], days=1, wrong_hours=24))
    (finding,) = found(tmp_path, "--until", canonical_time(END))
    assert (finding["id"], finding["kind"]) == ("gate", "misdated")
    assert "and none with a credible time. Its clock is wrong" in str(finding["sentence"])


def test_images_that_a_stream_recorded_as_late_count_too(tmp_path: Path) -> None:
    """Event time is that of the machine: images of 1970 are too late for any window."""
    images = images_of(NEW_YEARS[0], days=6, wrong_hours=20)
    write_fleet(tmp_path, images)
    for file in (tmp_path / "counts").glob("1970*"):
        file.unlink()
    for image in images:
        if image.timestamp < "2000":
            start = datetime.fromisoformat(image.timestamp.replace("Z", "+00:00"))
            row = CountRow("gate", start, start + HOUR, 1, 0, 0, 0, {})
            name = image.timestamp.replace("-", "").replace(":", "")
            path = tmp_path / "late" / "gate" / f"gate_{name}.json"
            stores.write_bytes(str(path), stores.json_bytes(row.to_json()))
    (finding,) = found(tmp_path)
    assert (finding["id"], finding["kind"]) == ("gate", "misdated")
    assert "has sent 40 images dated 1970-01-01" in str(finding["sentence"])


def test_a_power_failure_of_the_whole_site_is_found_with_and_without_until(tmp_path: Path) -> None:
    first = END - 6 * 24 * HOUR
    images = [
        image
        for id in ("hall", "gate")
        for image in (
            *hourly(id, first, range(24 * 6), images=2),
            *hourly(id, NEW_YEARS[0], range(20), images=2),
        )
    ]
    write_fleet(tmp_path, images)
    expected = [("gate", "misdated"), ("hall", "misdated")]
    assert kinds(tmp_path) == expected
    assert kinds(tmp_path, "--until", canonical_time(END + 20 * HOUR)) == expected


def test_a_camera_that_had_lost_its_clock_and_sends_again_has_no_finding(tmp_path: Path) -> None:
    right = images_of(NEW_YEARS[0], days=6, wrong_hours=0)
    write_fleet(tmp_path, [*right, *hourly("gate", NEW_YEARS[0], range(20))])
    assert kinds(tmp_path, "--until", canonical_time(END)) == []


def test_a_dead_camera_is_silent_though_it_once_sent_a_few_wrong_times(tmp_path: Path) -> None:
    right = [
        image
        for image in images_of(NEW_YEARS[0], days=6, wrong_hours=20)
        if image.timestamp > "1971"
    ]
    write_fleet(tmp_path, [*right, *hourly("gate", NEW_YEARS[0], range(2), images=2)])
    assert kinds(tmp_path) == [("gate", "silent")]


def test_new_year_in_an_archive_of_years_is_no_wrong_clock(tmp_path: Path) -> None:
    """`gate` was there at the end of 2014, and was taken down in 2015."""
    images = images_of(NEW_YEARS[3], days=6, wrong_hours=0)
    right = [image for image in images if image.id != "gate"]
    december = NEW_YEARS[3] - 100 * HOUR
    write_fleet(tmp_path, [*right, *hourly("gate", december, range(148), images=2)])
    assert kinds(tmp_path) == []


def write_counts(output: Path, ends: Mapping[str, datetime]) -> None:
    """Cameras that send 30 images in each 6 hours from 2024-01-01 up to some time."""
    start, length = datetime(2024, 1, 1, tzinfo=timezone.utc), 6 * HOUR
    while ids := [id for id, end in ends.items() if start < end]:
        end = start + length
        rows = [CountRow(id, start, end, 30, 0, 0, 0, {}) for id in ids]
        path = output / "counts" / f"{start:%Y%m%dT%H%M%SZ}_{end:%Y%m%dT%H%M%SZ}.jsonl"
        stores.write_bytes(str(path), b"".join(stores.json_bytes(row.to_json()) for row in rows))
        start = end


def kinds_by_counts(output: Path, now: datetime) -> list[tuple[str, str]]:
    scan = OutputScan(str(output))
    end = find_end(scan, now)
    assert end is not None
    since = end.time - 24 * HOUR
    health = examine(scan, since=since, until=end.time, each_image=False, end=end)
    assert health.problems == ()
    return [(finding.id, finding.kind) for finding in health.findings]


def test_an_archive_that_begins_on_1_january_has_no_wrong_clock(tmp_path: Path) -> None:
    """Three healthy cameras, from 2024-01-01 to 2025-06-30."""
    end = datetime(2025, 7, 1, tzinfo=timezone.utc)
    write_counts(tmp_path, dict.fromkeys(("gate", "hall", "yard"), end))
    assert kinds_by_counts(tmp_path, END) == []


def test_a_camera_that_was_installed_on_1_january_and_died_is_silent(tmp_path: Path) -> None:
    """`gate` dies on 2025-06-28, and the others go on."""
    now = datetime(2025, 7, 1, tzinfo=timezone.utc)
    died = datetime(2025, 6, 28, tzinfo=timezone.utc)
    write_counts(tmp_path, {"gate": died, "hall": now, "yard": now})
    assert kinds_by_counts(tmp_path, now) == [("gate", "silent")]


def test_a_camera_that_falls_back_to_2_years_ago_is_misdated(tmp_path: Path) -> None:
    """Of the same fleet, but `gate` has sent nothing in 2024 but on 1 January."""
    now = datetime(2025, 7, 1, tzinfo=timezone.utc)
    write_counts(
        tmp_path, {"gate": datetime(2024, 1, 2, tzinfo=timezone.utc), "hall": now, "yard": now}
    )
    assert kinds_by_counts(tmp_path, now) == [("gate", "misdated")]


def observed(arrived: int, misdated: int, expected: float | None = None) -> list[Finding]:
    """One camera of 24 images a day, of which some came on the last day."""
    rows = [
        CountRow("gate", start := END - back * HOUR, start + HOUR, 1, 0, 0, 0, {})
        for back in range(24 * 9, 24 - arrived, -1)
    ]
    reset = NEW_YEARS[0]
    images = MisdatedImages("gate", misdated, reset, reset + 5 * HOUR)
    return findings(
        Observations(
            rows,
            expected={} if expected is None else {"gate": expected},
            misdated={"gate": images},
        ),
        since=END - 24 * HOUR,
        until=END,
    )


@pytest.mark.parametrize(("misdated", "kind"), [(7, "misdated"), (5, "silent")])
@pytest.mark.parametrize("expected", [None, 1.0])
def test_a_quarter_of_the_usual_number_makes_a_silent_camera_misdated(
    misdated: int, kind: str, expected: float | None
) -> None:
    (finding,) = observed(0, misdated, expected)
    assert finding.kind == kind


def test_a_camera_with_its_usual_number_of_right_times_has_no_finding() -> None:
    assert observed(24, 1000) == []


def test_a_camera_with_a_past_that_may_be_silent_by_chance_has_no_finding() -> None:
    assert observed(22, 1000) == []


# Reports


def test_the_report_shows_the_alerts_of_a_camera_that_has_lost_its_clock(tmp_path: Path) -> None:
    write_fleet(tmp_path, images_of(NEW_YEARS[2], days=6, wrong_hours=20))
    fleet = gather(OutputScan(str(tmp_path)), ReportOptions())
    assert [finding.kind for finding in fleet.findings] == ["misdated"]
    times = [alert.timestamp for alert in fleet.misdated_alerts]
    assert times == [f"2000-01-01T{hour:02}:00:00Z" for hour in range(19, -1, -1)]
    assert fleet.alerts == []
    page = make_page(fleet)
    assert "Alerts with a wrong time" in page
    assert page.count("2000-01-01 19:00:00") == 1


def test_the_report_shows_alerts_that_are_dated_after_its_end(tmp_path: Path) -> None:
    images = images_of(NEW_YEARS[0], days=2, wrong_hours=0)
    ahead = seen("yard", canonical_time(END + 20 * HOUR), ("person", 0.9))
    write_fleet(tmp_path, [*images, ahead])
    fleet = gather(OutputScan(str(tmp_path)), ReportOptions())
    assert [(alert.camera, alert.timestamp) for alert in fleet.misdated_alerts] == [
        ("yard", "2026-03-02T20:00:00Z")
    ]
    until = gather(OutputScan(str(tmp_path)), ReportOptions(until=END))
    assert until.misdated_alerts == []


def test_the_report_without_wrong_times_has_no_such_section(tmp_path: Path) -> None:
    write_fleet(tmp_path, images_of(NEW_YEARS[0], days=2, wrong_hours=0))
    assert "Alerts with a wrong time" not in make_page(
        gather(OutputScan(str(tmp_path)), ReportOptions())
    )


def test_a_report_from_the_beginning_begins_with_the_first_credible_window(
    tmp_path: Path,
) -> None:
    write_fleet(tmp_path, images_of(NEW_YEARS[0], days=2, wrong_hours=3))
    fleet = gather(OutputScan(str(tmp_path)), ReportOptions(until=END))
    assert fleet.period is not None
    assert fleet.period.start == END - 48 * HOUR
