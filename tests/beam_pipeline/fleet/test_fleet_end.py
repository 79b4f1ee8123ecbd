"""Where the period of a fleet ends, and whose clock is ahead."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipeline import cli
from beam_pipeline.fleet import chart, fleet_end
from beam_pipeline.fleet.fleet_end import find_end
from beam_pipeline.fleet.output_scan import OutputScan
from beam_pipeline.pages.report.gathering import ReportOptions, gather
from tests.beam_pipeline.fleets import write_fleet
from tests.transforms.archives import seen
from transforms.records.count_rows import CountRow
from transforms.records.times import canonical_time

BEGIN = datetime(2026, 1, 10, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
WINDOW = timedelta(minutes=5)
LONG_AFTER = BEGIN + timedelta(days=100)


class InMemory(OutputScan):
    """The windows of some cameras, each with one image, at hours after `BEGIN`."""

    def __init__(self, hours: Mapping[str, Iterable[float]]) -> None:
        super().__init__("nowhere")
        self.all = [
            CountRow(id, start, start + WINDOW, 1, 0, 0, 0, {})
            for id, of_id in hours.items()
            for start in sorted({BEGIN + hour * HOUR for hour in of_id})
        ]

    def windows(self) -> list[tuple[datetime, datetime]]:
        return sorted({(row.window_start, row.window_end) for row in self.all})

    def counts(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        ids: Iterable[str] | None = None,
    ) -> list[CountRow]:
        assert ids is None
        rows = [
            row
            for row in self.all
            if (since is None or since <= row.window_start)
            and (until is None or row.window_start < until)
        ]
        return sorted(rows, key=lambda row: (row.window_start, row.id))


def six(hours: Iterable[float] = range(30), **others: Iterable[float]) -> InMemory:
    """Six cameras that send at some hours, of which some send at others."""
    hours = list(hours)
    return InMemory({**{f"cam-{number}": hours for number in range(6)}, **others})


def end_of(scan: OutputScan, now: datetime = LONG_AFTER) -> tuple[float, dict[str, int]]:
    """The end in hours after `BEGIN`, and the images that are ahead, by camera."""
    end = find_end(scan, now)
    assert end is not None
    assert end.start < end.time or end.start == end.time == now
    return (end.time - BEGIN) / HOUR, {camera.id: camera.images for camera in end.ahead}


LAST = 29 + 1 / 12
"""The end of the last window of `six`."""


@pytest.mark.parametrize(
    "hours",
    [
        [*range(30), 49],
        [*range(30), 33],
        [*range(30), 29 + 48],
        [*range(30), 24 * 90],
        [*range(30), 49, 50, 51, 52],
        [*range(20), *range(40, 50)],  # Its clock went ahead by 20 hours, and stayed there.
        [*range(5), *range(17, 42)],
        range(20, 50),  # Its clock was always ahead.
        range(6, 36),
    ],
)
def test_one_camera_whose_clock_is_ahead_does_not_move_the_end(hours: Sequence[float]) -> None:
    later = [hour for hour in hours if hour >= 30]
    end, ahead = end_of(six(**{"cam-3": hours}))
    assert end == pytest.approx(LAST)
    assert ahead == {"cam-3": len(later)}


@pytest.mark.parametrize(
    "hours",
    [
        range(29),
        range(30),
        [*range(30), 29.5],
        [*range(30), 30.0],  # Within an hour of the others.
        range(50),  # It goes on, and the others have stopped.
        range(400),
        [hour for hour in range(100) if hour % 24 < 14],
    ],
)
def test_a_camera_that_goes_on_without_a_jump_is_not_doubted(hours: Sequence[float]) -> None:
    end, ahead = end_of(six(**{"cam-3": hours}))
    assert end == pytest.approx(max(LAST, max(hours) + 1 / 12))
    assert ahead == {}


def test_a_camera_that_replaces_the_only_other_one_is_not_doubted() -> None:
    assert end_of(InMemory({"hall": range(30), "hall-2": range(32, 60)})) == (59 + 1 / 12, {})


def test_a_single_camera_ends_the_period() -> None:
    assert end_of(InMemory({"hall": [*range(30), 49]})) == (49 + 1 / 12, {})


def test_a_camera_that_seldom_sends_is_not_doubted() -> None:
    assert end_of(six(range(45), **{"cam-3": [0, 20, 40, 60]})) == (60 + 1 / 12, {})


def test_a_camera_may_be_ahead_of_the_fleet_and_of_the_clock() -> None:
    scan = six(**{"cam-3": [*range(30), 49, 60]})
    assert end_of(scan, BEGIN + 55 * HOUR) == (pytest.approx(LAST), {"cam-3": 2})


def test_after_a_pause_of_the_whole_fleet_the_first_camera_is_not_doubted() -> None:
    """Nothing comes by night, from nobody; one camera is the first of the morning."""
    hours = [hour for hour in range(62) if hour % 24 < 14]
    for of_first in ([*hours, 72], [*range(62), 72]):
        assert end_of(six(hours, **{"cam-3": of_first})) == (72 + 1 / 12, {})


def test_a_few_images_say_nothing_of_a_clock() -> None:
    scan = InMemory({"hall": [0, 1, 12], "gate": [0, 1, 2], "yard": [3]})
    assert end_of(scan) == (12 + 1 / 12, {})


def test_the_present_proves_a_clock_right() -> None:
    """All but one camera have stopped, and that one is quiet as a rule."""
    scan = six(**{"cam-3": [*range(30), 49]})
    assert end_of(scan, BEGIN + 49.5 * HOUR) == (49 + 1 / 12, {})
    assert end_of(scan, BEGIN + 51 * HOUR) == (pytest.approx(LAST), {"cam-3": 1})


@pytest.mark.parametrize("cameras", [1, 2, 6])
def test_the_period_never_ends_after_the_clock(cameras: int) -> None:
    now = BEGIN + 29.5 * HOUR
    ahead = {f"cam-{number}": [*range(30), 31, 40] for number in range(cameras)}
    expected = dict.fromkeys(ahead, 2)
    assert end_of(six(**ahead), now) == (pytest.approx(LAST), expected)
    within_window = BEGIN + 29 * HOUR + timedelta(minutes=2)
    assert end_of(six(**ahead), within_window) == (pytest.approx(29 + 1 / 30), expected)


def test_where_all_is_after_the_clock_the_period_ends_with_the_clock() -> None:
    end, ahead = end_of(six(), BEGIN - HOUR)
    assert (end, set(ahead.values())) == (-1, {30})


def test_of_windows_of_two_lengths_the_last_to_end_ends_the_period() -> None:
    """`hall` has [12:00, 24:00), and `gate` windows of 5 minutes up to [12:00, 12:05)."""
    noon = datetime(2026, 1, 11, 12, tzinfo=timezone.utc)
    scan = InMemory({})
    scan.all = [
        CountRow("hall", noon, noon + 12 * HOUR, 1, 0, 0, 0, {}),
        *(
            CountRow("gate", start := noon - back * WINDOW, start + WINDOW, 1, 0, 0, 0, {})
            for back in range(100)
        ),
    ]
    end = find_end(scan, noon + timedelta(days=2.5))
    assert end is not None
    assert (end.start, end.time, end.ahead) == (noon, noon + 12 * HOUR, ())


@given(
    windows=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 90), st.sampled_from([1 / 12, 1, 12, 24])),
        min_size=1,
        max_size=30,
    ),
    now=st.integers(-5, 120),
)
def test_with_windows_of_any_lengths_no_image_is_lost(
    windows: list[tuple[int, int, float]], now: int
) -> None:
    scan = InMemory({})
    scan.all = [
        CountRow(f"cam-{id}", start := BEGIN + hour * HOUR, start + hours * HOUR, 1, 0, 0, 0, {})
        for id, hour, hours in windows
    ]
    end = find_end(scan, BEGIN + now * HOUR)
    assert end is not None
    assert end.time <= BEGIN + now * HOUR
    before = sum(row.window_start < end.time for row in scan.all)
    assert before + sum(camera.images for camera in end.ahead) == len(scan.all)


def test_without_windows_there_is_no_end() -> None:
    assert find_end(InMemory({}), LONG_AFTER) is None


@given(
    hours=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    others=st.lists(st.lists(st.integers(0, 90), max_size=6), max_size=4),
    now=st.integers(-5, 120),
)
def test_no_fleet_has_a_period_after_its_clock_or_loses_an_image(
    hours: list[int], others: list[list[int]], now: int
) -> None:
    """Each image lies before the end, or is one of those that are ahead."""
    scan = InMemory({f"cam-{number}": of_id for number, of_id in enumerate([hours, *others])})
    clock = BEGIN + now * HOUR
    end = find_end(scan, clock)
    assert end is not None
    assert end.time <= clock
    before = sum(row.window_start < end.time for row in scan.all)
    assert before + sum(camera.images for camera in end.ahead) == len(scan.all)
    reaching = {row.id for row in scan.all if row.window_start >= end.time}
    assert reaching == {camera.id for camera in end.ahead}
    assert sum(camera.of == "fleet" for camera in end.ahead) <= 1


@given(
    lead=st.integers(2, 1000),
    every=st.sampled_from([0.25, 0.5, 1]),
    length=st.integers(12, 60),
    cameras=st.integers(2, 12),
)
def test_one_image_ahead_of_a_fleet_that_sends_steadily_never_moves_the_end(
    lead: int, every: float, length: int, cameras: int
) -> None:
    hours = [at * every for at in range(int(length / every))]
    ids = [f"cam-{number}" for number in range(cameras)]
    scan = InMemory({**dict.fromkeys(ids, hours), ids[0]: [*hours, hours[-1] + lead]})
    assert end_of(scan) == (pytest.approx(hours[-1] + 1 / 12), {ids[0]: 1})


def test_only_the_newest_windows_are_read_as_a_rule(tmp_path: Path) -> None:
    write_fleet(tmp_path, case_1())
    oldest, *_ = sorted((tmp_path / "counts").iterdir())
    oldest.write_text("broken")
    assert find_end(OutputScan(str(tmp_path))) is not None


# The case that was reported: an image an hour of six cameras, and one that is dated 20 hours ahead.


def case_1() -> list[Any]:
    images = [
        seen(f"cam-{number}", canonical_time(BEGIN + hour * HOUR), ("person", 0.9))
        if (hour + number) % 5 == 0
        else seen(f"cam-{number}", canonical_time(BEGIN + hour * HOUR))
        for number in range(6)
        for hour in range(30)
    ]
    return [*images, seen("cam-2", canonical_time(BEGIN + 49 * HOUR), ("person", 0.9))]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    write_fleet(tmp_path, case_1())
    return tmp_path


def test_the_report_keeps_the_images_and_alerts_of_the_others(output: Path) -> None:
    fleet = gather(OutputScan(str(output)), ReportOptions())
    assert fleet.total is not None
    assert (fleet.total.images, fleet.total.alerts) == (144, 28)
    assert len(fleet.alerts) == 28
    (finding,) = fleet.findings
    assert (finding.id, finding.kind) == ("cam-2", "misdated")
    assert finding.sentence == (
        "has 1 image dated up to 2026-01-12T02:00:00Z, 20 hours ahead of all other cameras: its "
        "clock is probably wrong"
    )


def test_the_chart_names_the_camera_whose_clock_is_ahead(output: Path) -> None:
    scan = OutputScan(str(output))
    end = find_end(scan)
    assert end is not None
    model = chart.chart_model(scan.counts(), end=end)
    assert "144 images from 6 ids" in model.subtitle
    assert "2026-01-10 06:00 to 2026-01-11 06:00 UTC (24 h)" in model.subtitle
    (note,) = [note for note in model.notes if "clock" in note]
    assert note.startswith("cam-2 has 1 image dated up to 2026-01-12T02:00:00Z, 20 hours ahead")
    target = output / "chart.png"
    assert chart.write_chart(scan, file=str(target)) == str(target)
    assert target.read_bytes() == chart.draw_chart(scan.counts(), end=end)


def test_of_many_clocks_that_are_ahead_the_chart_names_five() -> None:
    ids = [f"cam-{number}" for number in range(8)]
    scan = InMemory({"hall": range(30), **{id: [*range(30), 40] for id in ids}})
    end = find_end(scan, BEGIN + 32 * HOUR)
    assert end is not None
    notes = chart.ahead_notes(end)
    assert [note.split()[0] for note in notes[:-1]] == ids[:5]
    assert notes[-1] == "The clocks of 3 more cameras are ahead."


def test_health_names_it_and_finds_no_silent_camera(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["health", "--output", str(output), "--format", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["until"] == "2026-01-11T06:00:00Z"
    assert [(one["id"], one["kind"]) for one in report["findings"]] == [("cam-2", "misdated")]


def test_with_a_history_too_no_healthy_camera_is_silent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [
        seen(f"cam-{number}", canonical_time(BEGIN + hour * HOUR))
        for number in range(6)
        for hour in range(24 * 9)
    ]
    ahead = seen("cam-2", canonical_time(BEGIN + (24 * 9 + 19) * HOUR))
    write_fleet(tmp_path, [*images, ahead])
    assert cli.main(["health", "--output", str(tmp_path), "--format", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [(one["id"], one["kind"]) for one in report["findings"]] == [("cam-2", "misdated")]


def test_health_up_to_the_present_names_a_clock_that_is_ahead_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    now = datetime.now(timezone.utc).replace(microsecond=0)
    ahead = now + 20 * HOUR
    hours = (now - back * HOUR for back in range(1, 31))
    images = [seen("hall", canonical_time(hour)) for hour in hours]
    write_fleet(tmp_path, [*images, seen("gate", canonical_time(ahead))])
    command = ["health", "--output", str(tmp_path), "--format", "json", "--until"]
    assert cli.main([*command, canonical_time(now)]) == 0
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["id"], finding["kind"]) == ("gate", "misdated")
    assert "ahead of this machine's clock" in finding["sentence"]
    assert cli.main([*command, canonical_time(now - 2 * HOUR)]) == 0
    assert json.loads(capsys.readouterr().out)["findings"] == []


def test_limits() -> None:
    assert timedelta(hours=1) == fleet_end.LEAST_LEAD
    assert fleet_end.MOST_WINDOWS == 256
