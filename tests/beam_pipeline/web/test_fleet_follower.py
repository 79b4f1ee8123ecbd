"""The console gathers the fleet again and again, in bounded memory."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from beam_pipeline.fleet.output_scan import OutputScan
from beam_pipeline.pages import parts
from beam_pipeline.pages.report.gathering import Fleet, ReportOptions, gather
from beam_pipeline.web.output import following
from beam_pipeline.web.output.following import FleetFollower, RulesFollower
from beam_pipeline.web.pages.views import fleet_values
from tests.beam_pipeline.dated_output import DatedOutput
from tests.beam_pipeline.drawn_output import END, HOUR, write_counts, write_picture

NOT_YET = "have not been looked for yet since the console was started"
NOT_HERE = "does not check for blind cameras"


def health_page(follower: FleetFollower) -> str:
    """The findings as the console's page of the health shows them."""
    shown = fleet_values(follower.view)
    page = parts.environment("beam_pipeline.web", "beam_pipeline.pages.report")
    of_console = dict.fromkeys(("version", "live", "person", "stale", "reading"))
    of_console |= dict.fromkeys(("rules_problem", "can_mark"))
    return page.get_template("templates/health.html").render(
        **shown, problems=(), page={**of_console, "pages": ()}
    )


def scans_in_memory() -> int:
    gc.collect()
    return sum(isinstance(each, OutputScan) for each in gc.get_objects())


def test_between_two_looks_no_scan_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = scans_in_memory()
    output = DatedOutput(tmp_path)
    output.count(0, 4_321, 1000)
    follower = FleetFollower(str(tmp_path), 24, RulesFollower(None, None))
    past_rows: list[int | None] = []

    def noting(scan: OutputScan, options: ReportOptions) -> Fleet:
        past_rows.append(options.past_rows)
        return gather(scan, options)

    monkeypatch.setattr(following, "gather", noting)
    follower.look()
    output.count(1, 1_234, 0)
    follower.look()
    assert follower.view.fleet is not None
    assert [row.images for row in follower.view.fleet.rows] == [4_321, 1_234]
    assert scans_in_memory() <= before
    assert past_rows == [2_000_000, 2_000_000]


def found_by(follower: FleetFollower) -> list[tuple[str, str]]:
    fleet = follower.view.fleet
    assert fleet is not None
    of_rows = {(row.id, one.kind) for row in fleet.cameras for one in row.findings}
    assert of_rows == {(one.id, one.kind) for one in fleet.findings}
    return [(one.id, one.kind) for one in fleet.findings]


def test_blind_cameras_are_found_as_by_the_report(tmp_path: Path) -> None:
    write_counts(tmp_path, silent=18)
    for back in range(80, 0, -1):
        blurred = back <= 20
        write_picture(tmp_path, END - back * HOUR, not blurred, 0.001 if blurred else 0.03)
    report = gather(OutputScan(str(tmp_path)), ReportOptions(past_rows=2_000_000))
    follower = FleetFollower(str(tmp_path), 24, RulesFollower(None, None))
    follower.look()
    assert found_by(follower) == [("yard", "silent")]
    assert follower.view.fleet is not None
    assert not follower.view.fleet.each_image
    assert (NOT_YET in health_page(follower), NOT_HERE in health_page(follower)) == (True, False)
    follower.look_at_pictures()
    follower.look()
    assert (NOT_YET in health_page(follower), NOT_HERE in health_page(follower)) == (False, False)
    assert found_by(follower) == [("yard", "silent"), ("hall", "blind")]
    assert list(follower.view.fleet.findings) == list(report.findings)
    assert follower.view.fleet.each_image


def test_too_many_images_are_not_read_and_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_counts(tmp_path, silent=0)  # Of two cameras, 288 images in the period.
    follower = FleetFollower(str(tmp_path), 24, RulesFollower(None, None))
    follower.look()
    for most, is_looked_for in ((4319, False), (4320, True), (4319, False)):
        monkeypatch.setattr(following, "_MOST_PICTURES", most)
        follower.look_at_pictures()
        follower.look()
        assert follower.view.fleet is not None
        assert follower.view.fleet.each_image == is_looked_for
        assert NOT_YET not in health_page(follower)
        assert (NOT_HERE in health_page(follower)) == (not is_looked_for)


def test_a_look_that_fails_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_counts(tmp_path, silent=0)
    follower = FleetFollower(str(tmp_path), 24, RulesFollower(None, None))
    follower.look()
    follower.look_at_pictures()

    def failing(*_: object, **__: object) -> None:
        raise OSError("the store is away")

    monkeypatch.setattr(following, "examine", failing)
    follower.look_at_pictures()
    follower.look()
    assert follower.view.fleet is not None
    assert not follower.view.fleet.each_image
    assert "no look for blind and frozen cameras: OSError: the store is away" in caplog.text
