"""The numbers that docs/health.md and the docstring of `findings` promise, each from both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from beam_pipeline.fleet import health
from beam_pipeline.fleet.statistics import thresholds
from beam_pipeline.fleet.statistics.findings import findings
from beam_pipeline.fleet.statistics.observations import (
    Finding,
    LookedAtImage,
    Observations,
    RefusedImage,
)
from beam_pipeline.fleet.statistics.shares import refused_flags, threat_flags
from beam_pipeline.fleet.statistics.silent import silent_flags
from transforms.alerting.answers import SendResult
from transforms.alerting.messages import Message
from transforms.records.count_rows import CountRow

END = datetime(2026, 3, 2, tzinfo=timezone.utc)  # A Monday: what is judged is a Sunday.
START = END - timedelta(days=1)
HOUR = timedelta(hours=1)


def row(hours_before: float, images: int, threats: int = 0, *, id: str = "cam") -> CountRow:
    start = END - hours_before * HOUR
    return CountRow(id, start, start + HOUR, images, threats, threats, 0, {})


def kinds_of(observed: Observations, until: datetime = END) -> list[tuple[str, str]]:
    findings_now = findings(observed, since=until - timedelta(days=1), until=until)
    return [(finding.kind, finding.severity) for finding in findings_now]


# Silent


def silent(
    p_values: tuple[float, float], images: tuple[float, float], usual: tuple[float, float]
) -> bool:
    """Whether the only camera is silent, by the whole period and by the time since its last."""
    each, arrived, expected = (np.array([[a], [b]]) for a, b in (p_values, images, usual))
    return bool(silent_flags(each, arrived, expected)[0][0])


@pytest.mark.parametrize(
    ("images", "usual", "is_found"),
    [
        (25, 100, True),
        (26, 100, False),
        (0, 3, True),
        (0, 2.9, False),
        (1, 4, True),
        (1, 3.9, False),
    ],
)
def test_silent_is_at_most_a_quarter_of_what_is_usual_and_of_three_at_the_least(
    images: float, usual: float, is_found: bool
) -> None:
    assert silent((0.0, 1.0), (images, 0), (usual, 0)) is is_found
    assert silent((1.0, 0.0), (usual, images), (usual, usual)) is is_found


@pytest.mark.parametrize(("p_value", "is_found"), [(0.0049, True), (0.0051, False)])
def test_silence_has_a_rate_of_one_in_a_hundred_for_both_ways_together(
    p_value: float, is_found: bool
) -> None:
    assert silent((p_value, 1.0), (0, 50), (50, 50)) is is_found
    assert silent((1.0, p_value), (50, 0), (50, 50)) is is_found


@pytest.mark.parametrize(("weeks", "is_found"), [(4, True), (3, False)])
def test_a_camera_is_held_against_the_same_weekday_where_there_are_four_weeks(
    weeks: int, is_found: bool
) -> None:
    """It sends on Sundays alone, and not on this one: by any day that is nothing unusual."""
    rows = [row(back, 4) for back in range(24 * (7 * weeks + 1), 24, -1)]
    sundays = [row for row in rows if row.window_start.weekday() == 6]
    assert len(sundays) == 24 * weeks
    assert kinds_of(Observations(sundays)) == ([("silent", "fault")] if is_found else [])


def test_a_camera_that_sends_nothing_on_sundays_is_not_silent_on_one() -> None:
    rows = [row(back, 10) for back in range(24 * 36, 24, -1)]
    assert kinds_of(Observations([row for row in rows if row.window_start.weekday() != 6])) == []


@pytest.mark.parametrize(("days", "is_found"), [(4, True), (3, False)])
def test_a_past_has_four_days(days: int, is_found: bool) -> None:
    """Twelve hours of silence are beyond none of its own gaps."""
    rows = [row(back, 10) for back in range(24 * (days + 1), 12, -1)]
    assert kinds_of(Observations(rows)) == ([("silent", "fault")] if is_found else [])


@pytest.mark.parametrize(
    ("gaps", "hours", "is_found"),
    [
        ([1] * 11, 20.0, False),
        ([1] * 11, 20.5, True),  # More than 20 times the median.
        ([1] * 11 + [10], 30.0, False),
        ([1] * 11 + [10], 30.5, True),  # More than 3 times the longest.
        ([1] * 10, 23.0, True),  # Ten gaps are needed.
        ([1] * 9, 23.0, False),
    ],
)
def test_without_a_past_a_camera_is_held_against_its_own_gaps(
    gaps: Sequence[int], hours: float, is_found: bool
) -> None:
    ends = [hours + sum(gaps[at:]) for at in range(len(gaps) + 1)]
    rows = [row(end + 1, 1) for end in ends]
    assert kinds_of(Observations(rows)) == ([("silent", "fault")] if is_found else [])


@pytest.mark.parametrize(("images", "is_found"), [(12, True), (13, False)])
def test_fewer_than_expected_is_by_a_poisson_test_at_one_in_a_hundred(
    images: int, is_found: bool
) -> None:
    """Of 24 to be expected 12 or fewer come once in 184 days, 13 or fewer once in 93."""
    rows = [row(back, 1) for back in range(images, 0, -1)]
    observed = Observations(rows, expected={"cam": 1.0})
    assert kinds_of(observed) == ([("silent", "warning")] if is_found else [])


# Shares


@pytest.mark.parametrize(
    ("events", "usual", "is_found"),
    [
        (51, 1 / 3, True),  # The odds are twice the usual, just.
        (49, 1 / 3, False),
        (49, 2 / 3, True),  # Half.
        (51, 2 / 3, False),
    ],
)
def test_an_unusual_share_of_threats_has_twice_or_half_the_usual_odds(
    events: int, usual: float, is_found: bool
) -> None:
    pair = np.array([float(events)]), np.array([100.0])
    for tails in ((0.0, 1.0), (1.0, 0.0)):
        low, high = (np.array([p]) for p in tails)
        assert bool(threat_flags(*pair, low, high, np.array([usual]))[0][0]) is is_found


@pytest.mark.parametrize(("p_value", "is_found"), [(0.0049, True), (0.0051, False)])
def test_an_unusual_share_of_threats_has_a_rate_of_one_in_a_hundred_for_both_tails(
    p_value: float, is_found: bool
) -> None:
    pair = np.array([90.0]), np.array([100.0])
    tails = np.array([1.0]), np.array([p_value])
    assert bool(threat_flags(*pair, *tails, np.array([0.1]))[0][0]) is is_found


@pytest.mark.parametrize(
    ("events", "trials", "usual", "is_found"),
    [
        (5, 20, 0.001, True),  # At least five images.
        (4, 20, 0.001, False),
        (5, 100, 0.001, True),  # At least 5 % of all.
        (5, 101, 0.001, False),
        (30, 80, 0.125, True),  # At least three times what is usual.
        (29, 80, 0.125, False),
    ],
)
def test_refused_images_that_matter(events: int, trials: int, usual: float, is_found: bool) -> None:
    numbers = (np.array([float(trial)]) for trial in (events, trials))
    flagged, _ = refused_flags(*numbers, np.array([1.0]), np.array([0.0]), np.array([usual]))
    assert bool(flagged[0]) is is_found


@pytest.mark.parametrize(("p_value", "is_found"), [(0.0099, True), (0.0101, False)])
def test_refused_images_have_a_rate_of_one_in_a_hundred(p_value: float, is_found: bool) -> None:
    numbers = np.array([50.0]), np.array([100.0])
    flagged, _ = refused_flags(*numbers, np.array([1.0]), np.array([p_value]), np.array([0.01]))
    assert bool(flagged[0]) is is_found


@pytest.mark.parametrize(
    ("invalid", "valid", "is_found"),
    [(5, 5, True), (4, 6, False), (5, 4, False), (10, 11, False)],
)
def test_half_of_ten_invalid_images_are_a_fault_without_any_test(
    invalid: int, valid: int, is_found: bool
) -> None:
    """It was always so: no test finds it."""
    rows, refused = [], []
    for day in range(6):
        rows.append(row(24 * day + 12, valid))
        refused += [
            RefusedImage("cam", END - (24 * day + 12) * HOUR + at * HOUR / 20, "not_jpeg")
            for at in range(invalid)
        ]
    observed = Observations(rows, refused=refused)
    assert kinds_of(observed) == ([("invalid", "fault")] if is_found else [])


def test_a_single_look_has_a_fifth_of_the_rate_of_a_day() -> None:
    assert thresholds.RATE == 0.01
    assert thresholds.LOOK_RATE == 0.002


# Blind


def images(days: int, run: int, light: tuple[float, float]) -> dict[str, list[LookedAtImage]]:
    """Four an hour, with something in each and one look, until the last ones see nothing."""
    taken = [END - at * HOUR / 4 for at in range(4 * 24 * days, 0, -1)]
    usual = [LookedAtImage(capture_time, True, 0.5, 0.03) for capture_time in taken]
    usual[-run:] = [LookedAtImage(capture_time, False, *light) for capture_time in taken[-run:]]
    return {"cam": usual}


@pytest.mark.parametrize(
    ("run", "light", "is_found"),
    [
        (40, (0.24, 0.03), True),  # Less than half as bright as nine in ten were.
        (40, (0.26, 0.03), False),
        (40, (0.76, 0.03), True),  # More than twice as near to white.
        (40, (0.74, 0.03), False),
        (40, (0.5, 0.0149), True),  # Less than half as sharp.
        (40, (0.5, 0.0151), False),
        (10, (0.0, 0.0), True),  # Ten images.
        (9, (0.0, 0.0), False),
    ],
)
def test_a_blind_camera_looks_other_than_it_did(
    run: int, light: tuple[float, float], is_found: bool
) -> None:
    observed = Observations([], images(8, run, light))
    assert kinds_of(observed) == ([("blind", "fault")] if is_found else [])


@pytest.mark.parametrize(
    ("every", "unlike", "now", "is_found"),
    [
        (9, 0.2, 0.15, False),  # One in nine was as dark: it is not yet half of what is usual.
        (11, 0.2, 0.15, True),  # One in eleven: nine in ten were brighter.
        (9, 0.9, 0.93, False),
        (11, 0.9, 0.93, True),
    ],
)
def test_a_blind_camera_is_held_against_nine_in_ten(
    every: int, unlike: float, now: float, is_found: bool
) -> None:
    taken = images(8, 40, (now, 0.03))["cam"]
    taken[:-40] = [
        replace(image, brightness=unlike) if at % every == 0 else image
        for at, image in enumerate(taken[:-40])
    ]
    assert kinds_of(Observations([], {"cam": taken})) == ([("blind", "fault")] if is_found else [])


@pytest.mark.parametrize(("hours", "is_found"), [({13, 0}, False), ({12, 1}, True)])
def test_a_blind_camera_is_held_against_its_hours_give_or_take_one(
    hours: set[int], is_found: bool
) -> None:
    """It sees nothing from 14:00 to midnight, and is always dark at some other hours."""
    taken = images(8, 40, (0.0, 0.03))["cam"]
    taken[:-40] = [
        replace(image, brightness=0.0) if image.capture_time.hour in hours else image
        for image in taken[:-40]
    ]
    assert kinds_of(Observations([], {"cam": taken})) == ([("blind", "fault")] if is_found else [])


# How far a past reaches


@pytest.mark.parametrize(("weeks_before", "counts"), [(28, True), (29, False)])
def test_a_past_is_of_28_weeks(weeks_before: int, counts: bool) -> None:
    def finding(unlike: int) -> dict[str, object]:
        rows = [
            row(24 * 7 * week + hour, 40 if week == unlike else 4)
            for week in range(1, 31)
            for hour in range(1, 25)
        ]
        (finding_,) = findings(Observations(rows), since=START, until=END)
        return finding_.to_json()

    assert (finding(weeks_before) != finding(-1)) is counts


@pytest.mark.parametrize(("hours_before", "counts"), [(28, True), (29, False)])
def test_what_a_blind_camera_saw_is_of_28_hours_where_days_are_few(
    hours_before: int, counts: bool
) -> None:
    def finding(unlike: int) -> dict[str, object]:
        taken = images(3, 40, (0.0, 0.0))["cam"]
        begin = taken[-40].capture_time
        of_hour = [
            replace(image, has_detections=False)
            if (unlike - 1) * HOUR <= begin - image.capture_time < unlike * HOUR
            else image
            for image in taken
        ]
        (finding_,) = findings(Observations([], {"cam": of_hour}), since=START, until=END)
        return finding_.to_json()

    assert (finding(hours_before) != finding(-1)) is counts


# What the command reads and prints


def test_how_far_back_is_looked_and_how_many_findings_go_in_one_message() -> None:
    assert timedelta(days=56) == health.HISTORY
    assert timedelta(days=14) == health.IMAGE_HISTORY
    assert health.DIGEST_FROM == 10


class AcceptingTarget:
    """A target that accepts every message."""

    name = "guards"

    def __init__(self) -> None:
        self.subjects: list[str] = []

    def send(self, message: Message) -> SendResult:
        self.subjects.append(message.subject)
        return SendResult("delivered")


@pytest.mark.parametrize(("number", "messages"), [(9, 9), (10, 1), (11, 1)])
def test_ten_findings_or_more_go_in_one_message(number: int, messages: int, tmp_path: Path) -> None:
    findings_now = [
        Finding(f"cam-{at}", "silent", START, END, "fault", "has sent nothing")
        for at in range(number)
    ]
    target = AcceptingTarget()
    delivered, failures = health.notify(findings_now, str(tmp_path), [target])
    assert (delivered, failures) == (messages, {})
    assert len(target.subjects) == messages
