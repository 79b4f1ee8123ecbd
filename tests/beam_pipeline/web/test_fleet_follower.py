"""The console gathers the fleet again and again, in bounded memory."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from beam_pipeline.fleet.output_scan import OutputScan
from beam_pipeline.pages.report.gathering import Fleet, ReportOptions, gather
from beam_pipeline.web import following
from beam_pipeline.web.following import FleetFollower, RulesFollower
from tests.beam_pipeline.dated_output import DatedOutput


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
