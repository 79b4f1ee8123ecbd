"""A stream writes its report anew while it runs."""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beam_pipeline.fleet.output_scan import OutputScan
from beam_pipeline.job import background, regular_reports
from beam_pipeline.job.regular_reports import reported_regularly
from beam_pipeline.pages.report import write_report
from beam_pipeline.pages.report.gathering import ReportOptions
from rules import parse_rules
from tests.beam_pipeline.dated_output import DatedOutput
from transforms.runtime.live_rules import LiveRules

LIVE = LiveRules.of(parse_rules("version: 1\ndefaults: {objects: {person: }}\n", "rules.yaml"))


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_report_shows_what_has_come_meanwhile(tmp_path: Path) -> None:
    output = DatedOutput(tmp_path)
    output.count(0, 4_321, 1000)
    page = tmp_path / "report" / "report.html"
    with reported_regularly(str(tmp_path), LIVE, period_hours=24, seconds_between=0.05):
        until(lambda: page.exists() and "4,321" in page.read_text())
        output.count(1, 1_234, 0)
        until(lambda: "5,555" in page.read_text())
    page.unlink()
    time.sleep(0.2)
    assert not page.exists()
    assert not any(thread.name == "report" for thread in threading.enumerate())


def test_what_fails_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    DatedOutput(tmp_path).count(0, 4_321, 1000)
    asked = 0

    def failing_twice(scan: OutputScan, options: ReportOptions, **others: Any) -> str:
        nonlocal asked
        asked += 1
        if asked <= 2:
            raise ConnectionError("no answer from the store")
        return write_report(scan, options, **others)

    monkeypatch.setattr(regular_reports, "write_report", failing_twice)
    with reported_regularly(str(tmp_path), LIVE, period_hours=24, seconds_between=0.05):
        until((tmp_path / "report" / "report.html").exists)
    assert "no report, which is tried again later: ConnectionError: no answer" in caplog.text


def test_without_an_interval_there_is_none(tmp_path: Path) -> None:
    DatedOutput(tmp_path).count(0, 4_321, 1000)
    with reported_regularly(str(tmp_path), LIVE, period_hours=24, seconds_between=math.inf):
        time.sleep(0.2)
    assert not (tmp_path / "report").exists()


def test_between_two_reports_no_scan_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    DatedOutput(tmp_path).count(0, 4_321, 1000)
    scans: list[weakref.ref[OutputScan]] = []

    def noting(scan: OutputScan, options: ReportOptions, **others: Any) -> str:
        assert options.past_rows == 2_000_000
        scans.append(weakref.ref(scan))
        return write_report(scan, options, **others)

    monkeypatch.setattr(regular_reports, "write_report", noting)
    with reported_regularly(str(tmp_path), LIVE, period_hours=24, seconds_between=5):
        until(lambda: bool(scans))
        until(lambda: scans[0]() is None)
        assert len(scans) == 1


def test_a_report_that_is_not_done_at_the_end_of_the_stream_replaces_no_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    DatedOutput(tmp_path).count(0, 4_321, 1000)
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def slow(scan: OutputScan, options: ReportOptions, **others: Any) -> str:
        begun.set()
        assert go_on.wait(20)
        try:
            return write_report(scan, options, **others)
        finally:
            done.set()

    monkeypatch.setattr(regular_reports, "write_report", slow)
    monkeypatch.setattr(background, "_SECONDS_TO_END", 0.01)
    with reported_regularly(str(tmp_path), LIVE, period_hours=24, seconds_between=0.01):
        assert begun.wait(20)
    page = tmp_path / "report" / "report.html"
    page.parent.mkdir()
    page.write_text("the last one")
    go_on.set()
    assert done.wait(20)
    assert page.read_text() == "the last one"
