"""Finds cameras with an unusual share of threats, or of images that were refused."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from beam_pipeline.fleet.statistics import predictive
from beam_pipeline.fleet.statistics.histories import (
    NO_SHIFT,
    CameraHistory,
    Series,
    TimeSpan,
    stacked,
)
from beam_pipeline.fleet.statistics.observations import LATE, Finding, Kind
from beam_pipeline.fleet.statistics.outliers import unusual_ids
from beam_pipeline.fleet.statistics.thresholds import (
    LOOK_RATE,
    MIN_PERIODS,
    MIN_REFUSED,
    MIN_RUN,
    RATE,
)
from beam_pipeline.fleet.statistics.words import percent, rounded
from transforms.records import reasons
from transforms.records.count_rows import CountRow

if TYPE_CHECKING:
    from beam_pipeline.fleet.statistics.predictive import Array, Flags


class _Case(NamedTuple):
    """Images of one camera, of all that are tried, that show something."""

    camera: CameraHistory
    reason: str
    events: Series
    trials: Series


class _Share(NamedTuple):
    """An unusual share.

    Attributes:
      against: What it is compared with.
      p: None where that is its peers.
    """

    case: _Case
    against: Literal["past", "peers"]
    p: float | None
    events: int
    trials: int
    usual: float

    @property
    def now(self) -> float:
        return self.events / self.trials


def _unusual_shares(
    cases: Sequence[_Case],
    period: TimeSpan,
    flags: Callable[[Array, Array, Array, Array, Array, float], tuple[Flags, Array]],
    rate: float,
) -> Iterator[_Share]:
    with_past: list[tuple[_Case, Array, Array]] = []
    without_past: dict[str, set[str]] = {}
    for case in cases:
        if case.trials.within(period, NO_SHIFT)[0]:
            shifts = case.camera.shifts(period)
            events, trials = case.events.within(period, shifts), case.trials.within(period, shifts)
            if (trials > 0).sum() >= MIN_PERIODS:
                with_past.append((case, events, trials))
            else:
                without_past.setdefault(case.reason, set()).add(case.camera.id)
    if with_past:
        y = np.array([case.events.within(period, NO_SHIFT)[0] for case, *_ in with_past])
        n = np.array([case.trials.within(period, NO_SHIFT)[0] for case, *_ in with_past])
        past_y, past_n = (stacked(pasts) for pasts in list(zip(*with_past, strict=True))[1:])
        low, high, usual = predictive.share_tails(y, n, past_y, past_n)
        is_unusual, p = flags(y, n, low, high, usual, rate)
        for index in np.flatnonzero(is_unusual):
            numbers = int(y[index]), int(n[index]), float(usual[index])
            yield _Share(with_past[index][0], "past", float(p[index]), *numbers)
    for reason in sorted(without_past):
        of_reason = [case for case in cases if case.reason == reason]
        yield from _unlike_peers(of_reason, without_past[reason], period, rate)


def _unlike_peers(
    cases: Sequence[_Case], judged: Collection[str], period: TimeSpan, rate: float
) -> Iterator[_Share]:
    rows = {}
    for case in cases:
        y, n = (int(series.within(period, NO_SHIFT)[0]) for series in (case.events, case.trials))
        rows[case.camera.id] = CountRow(case.camera.id, *period.times, n, y, y, 0, {})
    marks = unusual_ids(rows, rate=rate)
    peers = [row for id, row in rows.items() if id not in marks]
    usual = sum(row.threat_images for row in peers) / max(1, sum(row.images for row in peers))
    for case in cases:
        if case.camera.id in marks and case.camera.id in judged:
            row = rows[case.camera.id]
            yield _Share(case, "peers", None, row.threat_images, row.images, usual)


def threat_flags(
    events: Array, trials: Array, low: Array, high: Array, usual: Array, rate: float = RATE
) -> tuple[Flags, Array]:
    """Returns which shares of images with a threat are unusual, and their p-values (see
    `findings`).
    """
    p = np.minimum(1.0, 2 * np.minimum(low, high))
    odds = (events + 0.5) / (trials - events + 0.5) / (usual / (1 - usual))
    return predictive.discoveries(p, rate) & ((odds >= 2) | (odds <= 0.5)), p


def refused_flags(
    events: Array, trials: Array, _: Array, high: Array, usual: Array, rate: float = RATE
) -> tuple[Flags, Array]:
    """Returns which shares of invalid images are unusual, and their p-values (see `findings`)."""
    flagged: Flags = predictive.discoveries(high, rate) & _matters(events, trials, usual)
    return flagged, high


def _matters(events: Any, trials: Any, usual: Any) -> Any:
    return (events >= MIN_REFUSED) & (events >= np.maximum(0.05, 3 * usual) * trials)


def threats(cameras: Sequence[CameraHistory], period: TimeSpan) -> Iterator[Finding]:
    """Yields the cameras that are flooding or too_few (see `findings`)."""
    cases = [_Case(camera, "", camera.threats, camera.images) for camera in cameras]
    for share in _unusual_shares(cases, period, threat_flags, LOOK_RATE):
        usual = "are usual for it at these hours"
        if share.against == "peers":
            usual = "are what its peers show"
        yield Finding(
            share.case.camera.id,
            "flooding" if share.now > share.usual else "too_few",
            *period.times,
            "warning",
            f"shows a threat in {percent(share.now)} of its images, where "
            f"{percent(share.usual)} {usual}",
            p_value=share.p,
            share=rounded(share.now),
            usual=rounded(share.usual),
        )


_CLOCK = frozenset((LATE, reasons.TIMESTAMP_IN_FUTURE, reasons.DUPLICATE))
_WORDS = {
    LATE: "too late for their windows",
    reasons.TIMESTAMP_IN_FUTURE: "in the future",
    reasons.DUPLICATE: "of the same capture time as another",
}


def refused(cameras: Sequence[CameraHistory], period: TimeSpan) -> Iterator[Finding]:
    """Yields the cameras that are invalid or clock_skew (see `findings`)."""
    names = {reason for camera in cameras for reason in camera.refused}
    kinds: tuple[tuple[Kind, set[str]], ...] = (
        ("invalid", names - _CLOCK),
        ("clock_skew", names & _CLOCK),
    )
    empty = Series(np.empty(0), np.empty(0))
    for kind, of_kind in kinds:
        cases = [
            _Case(camera, reason, camera.refused.get(reason, empty), camera.arrived)
            for camera in cameras
            for reason in sorted(of_kind)
        ]
        unusual: dict[str, list[_Share]] = {}
        for share in _unusual_shares(cases, period, refused_flags, RATE):
            if _matters(share.events, share.trials, share.usual):
                unusual.setdefault(share.case.camera.id, []).append(share)
        for camera in cameras:
            numbers = {
                reason: int(camera.refused[reason].within(period, NO_SHIFT)[0])
                for reason in sorted(of_kind & camera.refused.keys())
            }
            arrived = int(camera.arrived.within(period, NO_SHIFT)[0])
            yield from _one_refused(
                kind, camera.id, numbers, arrived, unusual.get(camera.id), period
            )


def _one_refused(
    kind: Kind,
    id: str,
    numbers: Mapping[str, int],
    arrived: int,
    unusual: Sequence[_Share] | None,
    period: TimeSpan,
) -> Iterator[Finding]:
    total = sum(numbers.values())
    mostly = kind == "invalid" and arrived >= MIN_RUN and 2 * total >= arrived
    if not unusual and not mostly:
        return
    listed = ", ".join(
        f"{number:,} {_WORDS.get(reason, reason)}" for reason, number in numbers.items() if number
    )
    what = "are invalid" if kind == "invalid" else "have times that can't be right"
    sentence = f"{total:,} of {arrived:,} images {what}: {listed}"
    p_value = usual = None
    if unusual:
        worst = min(unusual, key=lambda share: (share.p is None, share.p or 0.0))
        p_value, usual = worst.p, rounded(worst.usual)
        whose = "for it" if worst.against == "past" else "among its peers"
        reason = _WORDS.get(worst.case.reason, worst.case.reason)
        sentence += f"; {percent(worst.usual)} {reason} are usual {whose}"
    yield Finding(
        id,
        kind,
        *period.times,
        "fault" if mostly else "warning",
        sentence,
        p_value=p_value,
        share=rounded(total / arrived),
        usual=usual,
    )
