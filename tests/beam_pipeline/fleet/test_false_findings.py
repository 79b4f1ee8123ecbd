"""How often health has a finding in fleets in which all is as usual; see `tools.false_findings`."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from beam_pipeline.fleet.statistics.findings import findings
from beam_pipeline.fleet.statistics.observations import Observations
from tools import false_findings
from tools.false_findings import SCENARIOS, Scenario, kinds_found
from transforms.records.count_rows import CountRow

MONDAY = datetime(2026, 3, 2, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
WEEKDAYS = frozenset(range(5))


def silent_on(
    day: datetime, *, past_days: int, sends_on: frozenset[int], arrived: int = 0, an_hour: int = 10
) -> bool:
    """Whether a camera is silent at the end of a day on which it has sent only some images; before
    it has sent on some weekdays, 0 for Monday, and one image at other noons."""
    until = day + 24 * HOUR
    rows = []
    for back in range(24 * past_days, 0, -1):
        start = day - back * HOUR
        images = an_hour if start.weekday() in sends_on else int(start.hour == 12)
        rows.append(CountRow("cam", start, start + HOUR, images, 0, 0, 0, {}))
    rows += [CountRow("cam", day, day + HOUR, arrived, 0, 0, 0, {})] if arrived else []
    found = findings(Observations(rows), since=day, until=until)
    return [finding.kind for finding in found] == ["silent"]


@pytest.mark.parametrize("past_days", [4, 5, 6, 8, 13, 20, 27, 36])
@pytest.mark.parametrize("weekday", [5, 6])
def test_a_camera_that_is_quiet_at_weekends_is_not_silent_on_one(
    past_days: int, weekday: int
) -> None:
    """On a Sunday after less than a week, only the Saturday is of its kind, and was quiet too."""
    day = MONDAY + timedelta(days=weekday)
    assert not silent_on(day, past_days=past_days, sends_on=WEEKDAYS, arrived=1)


@pytest.mark.parametrize("past_days", [8, 13, 20, 27, 36])
@pytest.mark.parametrize("weekday", [2, 6])
def test_a_camera_that_is_quiet_on_any_weekday_is_not_silent_on_it_again(
    past_days: int, weekday: int
) -> None:
    day = MONDAY + timedelta(days=weekday)
    assert not silent_on(
        day, past_days=past_days, sends_on=frozenset(range(7)) - {weekday}, arrived=1
    )


@pytest.mark.parametrize("past_days", [5, 6, 8, 13, 20, 36])
@pytest.mark.parametrize("weekday", range(7))
def test_a_camera_that_sends_on_every_day_is_silent_on_any(past_days: int, weekday: int) -> None:
    """Before a week is over, a day of the same kind has to be known."""
    day = MONDAY + timedelta(days=weekday)
    known = {(day - timedelta(days=back)).weekday() >= 5 for back in range(1, past_days + 1)}
    is_found = past_days >= 7 or (weekday >= 5) in known
    assert silent_on(day, past_days=past_days, sends_on=frozenset(range(7))) is is_found


def test_a_first_weekend_is_no_silence_by_a_cameras_own_gaps() -> None:
    """It begins on a Thursday, sends every hour by day, and stops on Friday evening."""
    friday = MONDAY + timedelta(days=4)
    starts = [friday + hour * HOUR for hour in range(-24, 20) if hour % 24 >= 8]
    rows = [CountRow("cam", start, start + HOUR, 2, 0, 0, 0, {}) for start in starts]

    def kinds(hours: int) -> list[str]:
        until = friday + hours * HOUR
        found = findings(Observations(rows), since=until - 24 * HOUR, until=until)
        return [finding.kind for finding in found]

    assert [hours for hours in range(20, 20 + 60) if kinds(hours)] == []
    assert kinds(20 + 60) == ["silent"]


def test_the_command_says_how_many_fleets_have_a_finding(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two fleets of each scenario; the command takes 1,000."""
    monkeypatch.setattr(false_findings, "LOOKS", 2)
    assert false_findings.main(["--fleets", "2", "--processes", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "A rate of 1% for each kind allows up to 1." in lines
    assert [line.partition(":")[0] for line in lines[2:]] == [one.name for one in SCENARIOS]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_fleets_in_which_all_is_as_usual_seldom_have_a_finding(scenario: Scenario) -> None:
    assert [seed for seed in range(4) if kinds_found(scenario, seed)] == []


def test_a_fleet_is_drawn_again_by_its_seed() -> None:
    (first, day), (again, same_day), (other, _) = (
        false_findings.quiet_fleet(SCENARIOS[2], seed) for seed in (1, 1, 2)
    )
    assert (first, day) == (again, same_day)
    assert first != other
    assert day.weekday() == 5
