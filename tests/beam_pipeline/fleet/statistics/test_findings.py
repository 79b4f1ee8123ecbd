"""The tests of camera health: on quiet fleets they hold their rate, and planted faults are found.

The rates are measured on drawn fleets whose cameras differ widely in how many images they send,
and in the share with a threat, and whose days vary more than chance alone lets them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy.stats import betabinom, binom, nbinom

from beam_pipeline.fleet.statistics import predictive
from beam_pipeline.fleet.statistics.findings import findings, with_those_of_pictures
from beam_pipeline.fleet.statistics.observations import (
    LATE,
    Finding,
    LookedAtImage,
    Observations,
    RefusedImage,
)
from beam_pipeline.fleet.statistics.shares import refused_flags, threat_flags
from beam_pipeline.fleet.statistics.silent import silent_flags
from beam_pipeline.fleet.statistics.thresholds import LOOK_RATE
from transforms.records.count_rows import CountRow

look_threat_flags = partial(threat_flags, rate=LOOK_RATE)
"""As `findings` decides."""
FLEETS, CAMERAS, DAYS = 1_000, 20, 28
RATE = 0.01
MOST_MARKED = int(binom.isf(0.001, FLEETS, RATE))
"""Of 1,000 fleets of which 1 % are marked by chance, no more are, but for one such run in 1,000."""


class Fleets:
    """1,000 fleets: images and events of each camera in days before, and in the last, which is
    judged. The rate of images varies from day to day as a gamma distribution, the share of events
    as a beta distribution."""

    def __init__(
        self,
        seed: int,
        *,
        fleets: int = FLEETS,
        days: int = DAYS,
        share: float = 0.1,
        correlation: float = 0.03,
        spread: float = 0.2,
    ) -> None:
        drawn = np.random.default_rng(seed)
        all_days = (fleets, CAMERAS, days + 1)
        mean = np.exp(drawn.normal(np.log(60), 1, (fleets, CAMERAS, 1)))
        rate = drawn.gamma(1 / spread, spread * mean, all_days)
        odds = share / (1 - share) * np.exp(drawn.normal(0, 1, (fleets, CAMERAS, 1)))
        size = (1 - correlation) / correlation
        shares = drawn.beta(size * odds / (1 + odds), size / (1 + odds), all_days)
        images = drawn.poisson(rate)
        self.images = images.astype(float)
        self.events = drawn.binomial(images, shares).astype(float)
        # Since the last image, in days; and how many came in so long a time on days before.
        self.gap = np.minimum(drawn.exponential(1 / rate[..., -1]), 1.0)
        self.in_gap = drawn.binomial(images[..., :-1], self.gap[..., None]).astype(float)

    def parts(self) -> Iterator[slice]:
        """A hundred fleets at a time: all of them would need much memory."""
        return (slice(at, at + 100) for at in range(0, len(self.images), 100))

    def unusual(self, *flags: Callable[..., Any]) -> np.ndarray:
        """What each of the decisions makes of the same tails."""
        flagged = []
        for part in self.parts():
            y, n = self.events[part], self.images[part]
            now = y[..., -1], n[..., -1]
            tails = predictive.share_tails(*now, y[..., :-1], n[..., :-1])
            flagged.append([decide(*now, *tails)[0] for decide in flags])
        return np.concatenate(flagged, axis=1)

    def silent(self) -> np.ndarray:
        flagged = []
        for part in self.parts():
            n, in_gap = self.images[part], self.in_gap[part]
            images = np.stack([n[..., -1], np.zeros(n.shape[:-1])])
            judged = [
                predictive.count_at_most(images[at], past, np.ones(past.shape, dtype=bool))
                for at, past in enumerate((n[..., :-1], in_gap))
            ]
            p_values, usual = (np.stack(of) for of in zip(*judged, strict=True))
            flagged.append(silent_flags(p_values, images, usual, LOOK_RATE)[0])
        return np.concatenate(flagged)


@pytest.mark.parametrize(
    ("days", "share", "correlation"), [(DAYS, 0.1, 0.03), (4, 0.1, 0.1), (8, 0.02, 1e-6)]
)
def test_of_quiet_fleets_one_in_a_hundred_has_an_unusual_share(days, share, correlation):
    fleets = Fleets(1, days=days, share=share, correlation=correlation)
    for flagged in fleets.unusual(look_threat_flags, refused_flags):
        assert flagged.any(axis=-1).sum() <= MOST_MARKED


@pytest.mark.parametrize(("days", "spread"), [(DAYS, 0.2), (4, 0.5), (8, 0.01)])
def test_of_quiet_fleets_one_in_a_hundred_has_a_silent_camera(days, spread):
    flagged = Fleets(2, days=days, spread=spread).silent()
    assert flagged.any(axis=-1).sum() <= MOST_MARKED


def test_without_the_variance_between_days_quiet_fleets_would_be_marked(monkeypatch):
    """What the tests above would say of a test that takes days to differ by chance alone."""
    monkeypatch.setattr(predictive, "_CORRELATIONS", np.array([1e-6, 2e-6]))
    (flagged,) = Fleets(1, fleets=200, days=8).unusual(threat_flags)
    assert flagged.any(axis=-1).mean() > 10 * RATE


def first_camera(fleets: Fleets) -> tuple[np.ndarray, np.ndarray]:
    """Of the first camera of each fleet: its images on the last day, and its usual share."""
    y, n = fleets.events[:, 0, :-1].sum(axis=-1), fleets.images[:, 0, :-1].sum(axis=-1)
    return fleets.images[:, 0, -1].astype(int), y / n


@pytest.mark.parametrize(("times", "at_least"), [(5, 0.4), (8, 0.65)])
def test_floods_are_found(times, at_least):
    """One camera of each fleet shows several times its usual share: some 15 images or more."""
    fleets = Fleets(3, fleets=400)
    images, usual = first_camera(fleets)
    planted = (images * times * usual >= 15) & (times * usual <= 0.95)
    assert planted.sum() > 100
    fleets.events[planted, 0, -1] = np.random.default_rng(0).binomial(
        images[planted], times * usual[planted]
    )
    for flagged in fleets.unusual(look_threat_flags, refused_flags):
        assert flagged[planted, 0].mean() >= at_least


def test_too_few_threats_are_found():
    """One camera of each fleet shows none any more, of which it would have shown 30."""
    fleets = Fleets(4, fleets=400, share=0.3)
    images, usual = first_camera(fleets)
    planted = images * usual >= 30
    assert planted.sum() > 50
    fleets.events[planted, 0, -1] = 0
    (flagged,) = fleets.unusual(look_threat_flags)
    assert flagged[planted, 0].mean() >= 0.9


@pytest.mark.parametrize(("hours", "at_least"), [(8, 0.25), (20, 0.6)])
def test_cameras_that_fall_silent_are_found(hours, at_least):
    """One camera of each fleet, of at least 24 images a day, has sent none for some hours."""
    fleets = Fleets(5, fleets=400)
    drawn = np.random.default_rng(0)
    days = fleets.images[:, 0].astype(int)
    planted = days[:, :-1].mean(axis=-1) >= 24
    assert planted.sum() > 100
    fleets.in_gap[:, 0] = drawn.binomial(days[:, :-1], hours / 24)
    fleets.images[:, 0, -1] = drawn.binomial(days[:, -1], 1 - hours / 24)
    assert fleets.silent()[planted, 0].mean() >= at_least


# The formulas


def test_the_tails_are_those_of_the_beta_binomial_distribution():
    y, n = np.array([3.0, 97, 0, 40, 500]), np.array([100.0, 100, 50, 100, 2_000])
    a, b = np.array([2.0, 30, 1, 9, 0.4]), np.array([40.0, 2, 30, 12, 900])
    low, high = predictive._beta_binomial_tails(y, n, a[:, None], b[:, None])
    # 500 of 2,000 tell no more than 250 of 1,000.
    y[-1], n[-1] = 250, 1_000
    np.testing.assert_allclose(low[:, 0], betabinom.cdf(y, n, a, b), rtol=1e-9)
    np.testing.assert_allclose(high[:, 0], betabinom.sf(y - 1, n, a, b), rtol=1e-6, atol=1e-14)


def test_a_number_is_predicted_as_its_docstring_says(monkeypatch):
    monkeypatch.setattr(predictive, "_DISPERSIONS", np.array([0.5]))
    past = np.array([[10.0, 20, 30, 99]])
    is_past = np.array([[True, True, True, False]])
    p, mean = predictive.count_at_most(np.array([4.0]), past, is_past)
    assert mean == pytest.approx(60.5 / 3)
    size = 1 / (0.5 + (3 / 60.5 + 0.5) / 3)
    assert p == pytest.approx(nbinom.cdf(4, size, size / (size + 60.5 / 3)))


@pytest.mark.parametrize(
    ("p_values", "passing"),
    [
        ([], []),
        ([0.02], [False]),
        ([0.01], [True]),
        ([0.004, 0.9, 0.006, 0.007], [True, False, True, True]),
        ([0.004, 0.9, 0.9, 0.9], [False] * 4),
    ],
)
def test_discoveries_are_those_of_benjamini_and_hochberg(p_values, passing):
    assert predictive.discoveries(np.array(p_values), 0.01).tolist() == passing


# What is made of it

END = datetime(2026, 3, 2, tzinfo=timezone.utc)
START = END - timedelta(days=1)
HOUR = timedelta(hours=1)


def row(id: str, hours_before: int, images: int, threats: int = 0) -> CountRow:
    start = END - hours_before * HOUR
    by_label = {"person": threats} if threats else {}
    return CountRow(id, start, start + HOUR, images, threats, threats, 0, by_label)


def fleet(
    *, cameras: int = 8, days: int = 15, seed: int = 0, share: float = 0.15
) -> dict[str, list[CountRow]]:
    """Cameras that send some 12 images an hour, and 2 at night; oldest first."""
    drawn = np.random.default_rng(seed)
    rows: dict[str, list[CountRow]] = {}
    for camera in range(cameras):
        for back in range(24 * days, 0, -1):
            images = int(drawn.poisson(12 if 6 <= (24 - back) % 24 < 20 else 2))
            archived = row(f"cam-{camera}", back, images, int(drawn.binomial(images, share)))
            rows.setdefault(archived.id, []).append(archived)
    return rows


def found_in(rows: dict[str, list[CountRow]], **observed: Any) -> list[Finding]:
    windows = [row for of_camera in rows.values() for row in of_camera]
    return findings(Observations(windows, **observed), since=START, until=END)


def kinds_of(findings_of: Sequence[Finding]) -> list[tuple[str, str, str]]:
    return [(finding.id, finding.kind, finding.severity) for finding in findings_of]


def test_nothing_is_found_in_a_fleet_in_which_all_is_as_usual():
    for seed in range(5):
        rows = fleet(seed=seed)
        assert found_in(rows, named=frozenset(rows), images=drawn_pictures()) == []


def test_a_camera_that_the_rules_name_and_that_never_sent_is_silent():
    (finding,) = found_in(fleet(), named=frozenset(["cam-0", "yard"]))
    assert kinds_of([finding]) == [("yard", "silent", "fault")]
    assert "never sent" in finding.sentence
    assert (finding.p_value, finding.since, finding.until) == (None, START, END)


@pytest.mark.parametrize("silent_hours", [8, 30, 24 * 5])
def test_a_silent_camera_is_found_with_since_when(silent_hours):
    rows = fleet()
    rows["cam-3"] = rows["cam-3"][:-silent_hours]
    (finding,) = found_in(rows)
    assert kinds_of([finding]) == [("cam-3", "silent", "fault")]
    assert finding.since == END - silent_hours * HOUR
    assert finding.since.strftime("nothing since %Y-%m-%d %H:%M UTC") in finding.sentence
    assert finding.share == 0
    usual = sum(12 if 6 <= hour < 20 else 2 for hour in range(24 - min(silent_hours, 24), 24))
    assert finding.expected == pytest.approx(usual, rel=0.2)


def test_quiet_hours_of_the_night_are_no_silence():
    """At 04:00 nothing has come for eight hours from a camera that never sends by night."""
    rows = {
        id: [row for row in of if 6 <= row.window_start.hour < 20] for id, of in fleet().items()
    }
    windows = [row for of in rows.values() for row in of]
    until = END + 4 * HOUR
    assert findings(Observations(windows), since=until - 24 * HOUR, until=until) == []


def test_far_fewer_images_than_usual_are_found():
    rows = fleet()
    rows["cam-3"][-24:] = [row("cam-3", back, 1) for back in range(24, 0, -1)]
    (finding,) = found_in(rows)
    assert kinds_of([finding]) == [("cam-3", "silent", "warning")]
    assert finding.share == pytest.approx(24 / (14 * 12 + 10 * 2), rel=0.1)


def test_images_that_are_invalid_or_late_are_no_silence():
    rows = fleet()
    rows["cam-3"] = rows["cam-3"][:-8]
    late_images = [RefusedImage("cam-3", END - at * HOUR / 4, LATE) for at in range(1, 24)]
    assert [finding.kind for finding in found_in(rows, refused=late_images)] == ["clock_skew"]


@pytest.mark.parametrize(("silent", "is_found"), [(60, True), (12, False)])
def test_without_a_past_of_days_a_camera_is_silent_by_its_own_gaps(silent, is_found):
    """It has sent every other hour at the most for two days, and then not."""
    rows = {"cam": [row("cam", silent + back, 1) for back in range(48, 0, -1) if back % 3]}
    findings_now = found_in(rows)
    assert kinds_of(findings_now) == ([("cam", "silent", "fault")] if is_found else [])


@pytest.mark.parametrize(("an_hour", "severity"), [(5.0, None), (12.0, "warning"), (0.5, None)])
def test_a_camera_that_sends_fewer_than_expected_is_silent(an_hour, severity):
    findings_now = found_in(fleet(cameras=3), expected={"cam-1": an_hour})
    assert kinds_of(findings_now) == ([("cam-1", "silent", severity)] if severity else [])


@pytest.mark.parametrize(("share", "kind"), [(0.6, "flooding"), (0.0, "too_few")])
@pytest.mark.parametrize("days", [15, 36])
def test_an_unusual_share_of_threats_is_found(share, kind, days):
    rows = fleet(days=days)
    rows["cam-5"][-24:] = [
        row("cam-5", one_back, 10, round(10 * share)) for one_back in range(24, 0, -1)
    ]
    (finding,) = found_in(rows)
    assert kinds_of([finding]) == [("cam-5", kind, "warning")]
    assert (finding.share, finding.usual) == (share, pytest.approx(0.15, abs=0.02))
    assert finding.p_value is not None
    assert finding.p_value < 1e-4


def test_what_is_usual_on_that_weekday_is_not_unusual():
    """Sundays, of which the day that is judged is one, always show more."""
    rows = fleet(days=36)
    for at in range(len(rows["cam-5"])):
        cell = rows["cam-5"][at]
        if cell.window_start.weekday() == START.weekday():
            back = (END - cell.window_start) // HOUR
            rows["cam-5"][at] = row("cam-5", back, 10, 6)
    assert found_in(rows) == []


def test_a_new_camera_is_judged_by_its_peers():
    rows = fleet()
    rows["new"] = [row("new", back, 20, 18) for back in range(20, 0, -1)]
    (finding,) = found_in(rows)
    assert kinds_of([finding]) == [("new", "flooding", "warning")]
    assert finding.p_value is None
    assert "peers" in finding.sentence


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("corrupt_jpeg", "invalid"),
        ("resolution_too_low", "invalid"),
        (LATE, "clock_skew"),
        ("duplicate", "clock_skew"),
        ("timestamp_in_future", "clock_skew"),
    ],
)
def test_many_refused_images_are_found(reason, kind):
    """Every fourth image of the last day or so; a hundredth is usual for all."""
    usual = [
        RefusedImage(f"cam-{camera}", END - at * 7 * HOUR, "corrupt_jpeg")
        for camera in range(8)
        for at in range(4, 50)
    ]
    ahead = 48 * HOUR if reason == "timestamp_in_future" else timedelta()
    many = [RefusedImage("cam-2", END - at * HOUR / 3 + ahead, reason) for at in range(1, 61)]
    (finding,) = found_in(fleet(), refused=[*usual, *many])
    assert kinds_of([finding]) == [("cam-2", kind, "warning")]
    assert finding.share == pytest.approx(60 / 240, abs=0.05)


def test_a_camera_of_which_most_is_invalid_is_a_fault_even_where_it_always_was():
    refused = [
        RefusedImage("cam-2", END - at * HOUR / 20, "not_jpeg") for at in range(1, 20 * 24 * 15)
    ]
    (finding,) = found_in(fleet(), refused=refused)
    assert kinds_of([finding]) == [("cam-2", "invalid", "fault")]
    assert "not_jpeg" in finding.sentence


# Images


def drawn_pictures(
    seed: int = 0, days: int = 8, cameras: int = 6
) -> dict[str, list[LookedAtImage]]:
    """Four an hour: dark by night, something in two of three."""
    drawn = np.random.default_rng(seed)
    return {
        f"cam-{camera}": [
            LookedAtImage(
                capture_time := END - at * HOUR / 4,
                bool(drawn.random() < 0.66),
                round((0.5 if 6 <= capture_time.hour < 20 else 0.1) + 0.05 * drawn.random(), 4),
                round(0.03 + 0.01 * drawn.random(), 4),
            )
            for at in range(4 * 24 * days, 0, -1)
        ]
        for camera in range(cameras)
    }


@pytest.mark.parametrize(
    ("light", "word"),
    [((0.01, 0.0), "dark"), ((0.5, 0.002), "blurred"), ((0.97, 0.03), "bright")],
)
@pytest.mark.parametrize("days", [2, 8])
def test_a_camera_that_is_covered_or_out_of_focus_is_blind(light, word, days):
    images = drawn_pictures(days=days)
    images["cam-1"][-60:] = [
        LookedAtImage(image.capture_time, False, *light) for image in images["cam-1"][-60:]
    ]
    (finding,) = found_in({}, images=images)
    assert kinds_of([finding]) == [("cam-1", "blind", "fault")]
    assert word in finding.sentence
    assert finding.since >= END - 17 * HOUR
    assert finding.p_value is not None
    assert finding.p_value < RATE


@pytest.mark.parametrize(
    ("light", "has_detections"),
    [((0.52, 0.035), False), ((None, None), False), ((0.01, 0.0), True)],
    ids=["looks as usual", "not measured", "something is seen"],
)
def test_a_camera_that_sees_nothing_or_looks_odd_alone_is_not_blind(light, has_detections):
    images = drawn_pictures()
    images["cam-1"][-40:-15] = [
        LookedAtImage(image.capture_time, has_detections, *light)
        for image in images["cam-1"][-40:-15]
    ]
    del images["cam-1"][-15:]
    assert found_in({}, images=images) == []


def test_a_night_is_not_a_cover():
    """Nothing is seen from sunset on, and it is as dark as every night."""
    images = drawn_pictures()
    images["cam-1"][-16:] = [
        LookedAtImage(image.capture_time, False, 0.1, 0.035) for image in images["cam-1"][-16:]
    ]
    assert found_in({}, images=images) == []


def test_faults_come_first():
    rows = fleet()
    rows["cam-5"][-24:] = [row("cam-5", back, 10, 6) for back in range(24, 0, -1)]
    del rows["cam-6"][-12:]
    findings_now = found_in(rows, named=frozenset(["attic"]))
    assert kinds_of(findings_now) == [
        ("attic", "silent", "fault"),
        ("cam-6", "silent", "fault"),
        ("cam-5", "flooding", "warning"),
    ]


def test_a_finding_keeps_its_id_while_it_began_on_the_same_day():
    finding = Finding("hall", "silent", START, END, "fault", "has sent nothing")
    later = Finding("hall", "silent", START + HOUR, END + HOUR, "fault", "still nothing")
    others = [
        Finding("hall", "blind", START, END, "fault", ""),
        Finding("yard", "silent", START, END, "fault", ""),
        Finding("hall", "silent", END, END + HOUR, "fault", ""),
    ]
    assert later.finding_id == finding.finding_id
    assert finding.finding_id not in {item.finding_id for item in others}


def of_kind(kind: Any, id: str) -> Finding:
    start = datetime(2026, 2, 9, tzinfo=timezone.utc)
    severity: Any = "warning" if kind in ("flooding", "too_few") else "fault"
    return Finding(id, kind, start, start + timedelta(days=1), severity, "a sentence")


def test_findings_of_pictures_join_the_others_in_order_and_a_frozen_camera_floods_nobody() -> None:
    others = [of_kind("silent", "yard"), of_kind("flooding", "hall"), of_kind("too_few", "attic")]
    pictures = [of_kind("blind", "attic"), of_kind("frozen", "hall")]
    joined = with_those_of_pictures(others, pictures)
    assert [(finding.id, finding.kind) for finding in joined] == [
        ("yard", "silent"),
        ("hall", "frozen"),
        ("attic", "blind"),
        ("attic", "too_few"),
    ]
