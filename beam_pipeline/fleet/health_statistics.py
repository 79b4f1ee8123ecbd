"""Which cameras are broken, by what the job has seen of them: statistics alone, no I/O.

    for finding in findings(observed, since=since, until=until):
        print(finding.sentence)

:mod:`beam_pipeline.health` reads what is observed from a job's output.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from beam_pipeline import chart, predictive
from beam_pipeline.counts import CountRow
from transforms import reasons
from transforms.times import canonical_time, from_unix

if TYPE_CHECKING:
    from beam_pipeline.predictive import Array, Flags

Kind = Literal["silent", "invalid", "blind", "flooding", "too_few", "clock_skew"]
KINDS: tuple[Kind, ...] = ("silent", "blind", "invalid", "clock_skew", "flooding", "too_few")
"""In the order in which they matter."""

RATE = 0.01
"""The false discovery rate of each kind."""
MIN_PERIODS, MAX_PERIODS = 4, 28
"""So many comparable periods make a past; no more are looked at."""
SILENT_SHARE, MIN_EXPECTED = 0.25, 3.0
MIN_GAPS, MIN_REFUSED, MIN_RUN = 10, 5, 10
_HOUR, _DAY, _WEEK = 3600.0, 86_400.0, 604_800.0


@dataclass(frozen=True)
class Finding:
    """Something about one camera that a person should look at.

    Attributes:
      id: The camera.
      kind: What it is.
      since: The first moment (UTC) of what was judged.
      until: The first moment after it.
      severity: "fault": the camera gives nothing to judge by; "warning": it is unusual.
      sentence: What it is in plain words, without the camera's id.
      p_value: How likely so much or more is on a camera that is all right, before the correction
        for the number of cameras; None where no test was needed to see it.
      share: Of the pictures, where the finding is about a share of them: with a threat (flooding,
        too_few), invalid (invalid), without any detection (blind), misdated (clock_skew); of the
        expected pictures those that came (silent). 0 to 1 (silent: may exceed it); None where it
        can't be said.
      usual: What that share usually is; None where it can't be said.
      expected: Pictures that were to be expected, of silent alone.
    """

    id: str
    kind: Kind
    since: datetime
    until: datetime
    severity: Literal["fault", "warning"]
    sentence: str
    p_value: float | None = None
    share: float | None = None
    usual: float | None = None
    expected: float | None = None

    @property
    def finding_id(self) -> str:
        """32 hex digits: the same for one camera and kind as long as it began on the same day of
        UTC, so that a look each hour at the last 24 hours finds it once a day at most."""
        parts = (self.id, self.kind, f"{self.since:%Y-%m-%d}")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def to_json(self) -> dict[str, Any]:
        """The finding as a JSON object; the keys in a fixed order."""
        return {
            "finding_id": self.finding_id,
            "id": self.id,
            "kind": self.kind,
            "severity": self.severity,
            "since": canonical_time(self.since),
            "until": canonical_time(self.until),
            "sentence": self.sentence,
            "p_value": self.p_value,
            "share": self.share,
            "usual": self.usual,
            "expected": self.expected,
        }


@dataclass(frozen=True)
class Picture:
    """One picture that was looked at.

    Attributes:
      moment: When it was taken.
      seen: Whether anything at all was detected, down to the lowest score that is kept.
      brightness: 0 (black) to 1 (white); None where it was not measured.
      sharpness: 0 (blank) to 1; None where it was not measured.
    """

    moment: datetime
    seen: bool
    brightness: float | None = None
    sharpness: float | None = None


@dataclass(frozen=True)
class Refused:
    """One picture that was invalid, or late.

    Attributes:
      id: The camera, by the picture's name.
      moment: When it was taken, by its name.
      reason: One of :mod:`transforms.reasons`, or `LATE`.
    """

    id: str
    moment: datetime
    reason: str


LATE = "late"


@dataclass(frozen=True)
class Observed:
    """What was seen of a fleet, in the period that is judged and before it.

    Attributes:
      windows: The windowed counts, in any order.
      pictures: By camera, in order of time; empty where they were not read: no camera is found
        blind then.
      refused: Invalid and late pictures whose names say the camera and the time.
      named: The cameras that must be there (those of the rule file).
      expected: Pictures an hour that a camera sends at the least, whatever it did before.
    """

    windows: Sequence[CountRow]
    pictures: Mapping[str, Sequence[Picture]] = field(default_factory=dict)
    refused: Sequence[Refused] = ()
    named: frozenset[str] = frozenset()
    expected: Mapping[str, float] = field(default_factory=dict)


def findings(observed: Observed, *, since: datetime, until: datetime) -> list[Finding]:
    """What is wrong with the cameras in a period, by what they were like before it.

    Each kind is held to a false discovery rate of `RATE` over the cameras (Benjamini and Hochberg),
    so that of fleets in which all is as usual at most one in a hundred has a finding of a kind, and
    one in twenty has any. The tests are those of :mod:`beam_pipeline.predictive`, against the
    camera's own past in comparable periods: the same hours on the same weekday, where there are
    `MIN_PERIODS` of them, or else on any day. So that a finding also
    matters, each asks for a difference of a certain size as well.

    - silent: far fewer pictures (invalid and late ones count too) than the negative binomial
      prediction, at most a quarter of it; either in the whole period, or none at all since the last
      one (the chance of so long a silence at those hours); p is twice the smaller. Without a past
      of days: no picture for 20 times the camera's median gap and 3 times its longest. Where it is
      `expected` to send so many an hour at the least: fewer than that by a Poisson test at `RATE`.
      Without any test: `named`, and never seen.
    - blind: nothing was detected in any picture since some moment (the beta-binomial chance of
      that), and those pictures are dark, bright or blurred for the camera at those hours of the
      day: their median brightness or sharpness is less than half of what nine in ten had before,
      or they are more than twice as near to white.
    - invalid, clock_skew: by the beta-binomial upper tail for each reason. At least five pictures,
      5 % of all, and three times what was to be expected. Without any test: half of at least ten
      pictures are invalid.
    - flooding, too_few: the share of pictures with a threat, by the beta-binomial tails; p is twice
      the smaller. The odds are at least twice, or at most half, the usual.

    A camera without a past is judged for invalid, clock_skew, flooding and too_few by its peers in
    the same period, with :func:`beam_pipeline.chart.unusual_ids` at a rate of `RATE`.

    What can't be seen: what was always wrong with a camera (but for half of its pictures invalid);
    a change so slow that the past has it too; a camera that is covered where hardly anything is
    ever detected; a clock that is wrong by less than the job lets pass.

    Args:
      observed: The fleet, in the period and as long before it as there is.
      since: The first moment of the period (UTC).
      until: The first moment after it.

    Returns:
      Faults first, in the order of `KINDS`, and by camera.
    """
    period = _Period(since.timestamp(), until.timestamp())
    tracks = _tracks(observed, period)
    found = [
        *_silent(tracks, observed, period),
        *_blind(observed.pictures, period),
        *_refused(tracks, period),
        *_threats(tracks, period),
    ]
    return sorted(found, key=lambda one: (one.severity, KINDS.index(one.kind), one.id))


# What was seen of a camera


class _Period(NamedTuple):
    """From a moment to another, in seconds since 1970."""

    start: float
    end: float

    @property
    def times(self) -> tuple[datetime, datetime]:
        return from_unix(self.start), from_unix(self.end)


class _Series:
    """Numbers in order of time, that can be added up over any periods at once."""

    def __init__(self, entries: Iterable[tuple[float, int]]) -> None:
        ordered = sorted(entries)
        self.moments = np.array([moment for moment, _ in ordered], dtype=float)
        self._sums = np.cumsum([0, *(number for _, number in ordered)], dtype=float)

    def within(self, period: _Period, back: Array) -> Array:
        """The sums over the period, moved back by so many seconds each."""
        start, end = (
            np.searchsorted(self.moments, moment - back, side="left") for moment in period
        )
        total: Array = self._sums[end] - self._sums[start]
        return total


@dataclass(frozen=True)
class _Track:
    """One camera up to the end of the period.

    Attributes:
      images: Valid pictures.
      threats: Those with a threat.
      refused: Invalid and late ones, by reason.
      arrived: All of them.
      first: When it was first heard of; infinite where it never was.
      last: When it was last.
      ends: When each of its windows with pictures ended, or a refused picture was taken, in order.
    """

    id: str
    images: _Series
    threats: _Series
    refused: Mapping[str, _Series]
    arrived: _Series
    first: float
    last: float
    ends: Array

    def past(self, period: _Period) -> Array:
        """By how many seconds to move a period back to the comparable ones before it, within what
        is known of the camera; empty where they are too few to judge by."""
        if not math.isfinite(self.first):
            return np.empty(0)
        length = period.end - period.start
        for step in (_WEEK, _DAY):
            back = step * np.arange(math.ceil(length / step), MAX_PERIODS + 1)
            known = (period.end - back <= self.last) & (period.start - back >= self.first)
            if known.sum() >= MIN_PERIODS:
                return back[known]
        return np.empty(0)


def _tracks(observed: Observed, period: _Period) -> list[_Track]:
    rows: dict[str, list[CountRow]] = {}
    for row in observed.windows:
        if row.images and row.window_start.timestamp() < period.end:
            rows.setdefault(row.id, []).append(row)
    refused: dict[str, dict[str, list[tuple[float, int]]]] = {}
    for one in observed.refused:
        moment = one.moment.timestamp()
        if one.reason == reasons.TIMESTAMP_IN_FUTURE:
            # When it came is not known, only that it was before it says.
            moment = min(moment, np.nextafter(period.end, 0))
        if moment < period.end:
            by_reason = refused.setdefault(one.id, {})
            by_reason.setdefault(one.reason, []).append((moment, 1))
    tracks = []
    for id in sorted({*rows, *refused, *observed.named, *observed.expected}):
        windows, others = rows.get(id, []), refused.get(id, {})
        starts = [row.window_start.timestamp() for row in windows]
        came = [entry for entries in others.values() for entry in entries]
        images = list(zip(starts, (row.images for row in windows), strict=True))
        ends = [*(row.window_end.timestamp() for row in windows), *(moment for moment, _ in came)]
        tracks.append(
            _Track(
                id,
                _Series(images),
                _Series(zip(starts, (row.threat_images for row in windows), strict=True)),
                {reason: _Series(entries) for reason, entries in others.items()},
                arrived=_Series([*images, *came]),
                first=min((*starts, *(moment for moment, _ in came)), default=math.inf),
                last=min(max(ends, default=-math.inf), period.end),
                ends=np.sort(np.array(ends, dtype=float)),
            )
        )
    return tracks


def _stacked(rows: Sequence[Array]) -> Array:
    """Rows of different lengths as one array, filled up with zeros."""
    stacked = np.zeros((len(rows), max(map(len, rows), default=0)))
    for row, values in zip(stacked, rows, strict=True):
        row[: len(values)] = values
    return stacked


_NOW = np.zeros(1)


# Silent


def _silent(tracks: Sequence[_Track], observed: Observed, period: _Period) -> Iterator[Finding]:
    judged: list[_Silence] = []
    for track in tracks:
        if not len(track.ends):
            sentence = f"has never sent a picture, as far as is known at {_text(period.end)}"
            yield Finding(track.id, "silent", *period.times, "fault", sentence, share=0.0)
            continue
        wanted = observed.expected.get(track.id)
        if wanted is not None:
            yield from _below_expected(track, wanted, period)
            continue
        gap = _Period(max(track.last, period.end - _DAY), period.end)
        back = track.past(period), track.past(gap) if gap.end > gap.start else np.empty(0)
        if len(back[0]):
            judged.append(_Silence(track, gap, back))
        else:
            yield from _beyond_own_gaps(track, period)
    if not judged:
        return
    found = [_silence(judged, at, period) for at in (0, 1)]
    flags, p, since_last = silent_flags(*(np.stack(of) for of in zip(*found, strict=True)))
    for at in np.flatnonzero(flags):
        track = judged[at].track
        _, came, usual = (float(of[at]) for of in found[int(since_last[at])])
        start, sentence = period.times[0], f"has sent {came:,.0f} pictures"
        if not came:
            start, sentence = from_unix(track.last), f"has sent nothing since {_text(track.last)}"
        judged_by = judged[at].gap if since_last[at] else period
        length = _length(judged_by.end - judged_by.start)
        sentence += f"; about {usual:,.0f} are usual in {length} at these hours"
        yield Finding(
            track.id,
            "silent",
            start,
            period.times[1],
            "warning" if came else "fault",
            sentence,
            p_value=float(p[at]),
            share=_rounded(came / usual),
            expected=_rounded(usual),
        )


class _Silence(NamedTuple):
    track: _Track
    gap: _Period
    """Since its last picture, or the last 24 hours where that is longer ago."""
    back: tuple[Array, Array]
    """To the comparable periods before the period, and before the gap."""


def _silence(judged: Sequence[_Silence], at: int, period: _Period) -> tuple[Array, Array, Array]:
    """P(so few) in the period (`at` 0) or in the gap (1), how many came, and were expected."""
    periods = [(period, one.gap)[at] for one in judged]
    pairs = list(zip(judged, periods, strict=True))
    pasts = [one.track.arrived.within(of, one.back[at]) for one, of in pairs]
    came = np.array([one.track.arrived.within(of, _NOW)[0] for one, of in pairs])
    is_past = _stacked([np.ones(len(past)) for past in pasts]) > 0
    p, usual = predictive.count_at_most(came, _stacked(pasts), is_past)
    return np.where(is_past.any(axis=-1), p, 1.0), came, usual


def silent_flags(each: Array, seen: Array, expected: Array) -> tuple[Flags, Array, Flags]:
    """Which cameras are silent (see `findings`), with what p-value, and whether it is the time
    since the last picture that tells, or else the whole period.

    Args:
      each: `[2, ..., cameras]`: the p-values of the whole period, and of the time since then.
      seen: Pictures in each.
      expected: Pictures that were to be expected.
    """
    since_last = each[1] < each[0]
    came, usual = (np.where(since_last, of[1], of[0]) for of in (seen, expected))
    p = np.minimum(1.0, 2 * np.minimum(each[0], each[1]))
    matters = (came <= SILENT_SHARE * usual) & (usual >= MIN_EXPECTED)
    return predictive.discoveries(p, RATE) & matters, p, since_last


def _below_expected(track: _Track, an_hour: float, period: _Period) -> Iterator[Finding]:
    from scipy.special import pdtr

    came = float(track.arrived.within(period, _NOW)[0])
    wanted = an_hour * (period.end - period.start) / _HOUR
    p = float(pdtr(came, wanted))
    if p <= RATE:
        yield Finding(
            track.id,
            "silent",
            *period.times,
            "warning" if came else "fault",
            f"has sent {came:,.0f} pictures, where at least {wanted:,.0f} were to be expected",
            p_value=p,
            share=_rounded(came / wanted),
            expected=_rounded(wanted),
        )


def _beyond_own_gaps(track: _Track, period: _Period) -> Iterator[Finding]:
    gaps = np.diff(track.ends)
    gaps = gaps[gaps > 0]
    silence = period.end - track.last
    if len(gaps) < MIN_GAPS or silence <= max(20 * np.median(gaps), 3 * gaps.max()):
        return
    sentence = (
        f"has sent nothing since {_text(track.last)}; it had sent a picture every "
        f"{_length(float(np.median(gaps)))}, and never none for more than "
        f"{_length(float(gaps.max()))}"
    )
    times = from_unix(track.last), period.times[1]
    yield Finding(track.id, "silent", *times, "fault", sentence, share=0.0)


# Shares: threats, and pictures that were refused


class _Case(NamedTuple):
    """Pictures of one camera, of all that are tried, that show something."""

    track: _Track
    reason: str
    events: _Series
    trials: _Series


class _Share(NamedTuple):
    """An unusual share.

    Attributes:
      against: What it is held against.
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
    period: _Period,
    flags: Callable[[Array, Array, Array, Array, Array], tuple[Flags, Array]],
) -> Iterator[_Share]:
    own: list[tuple[_Case, Array, Array]] = []
    new: dict[str, set[str]] = {}
    for case in cases:
        if case.trials.within(period, _NOW)[0]:
            back = case.track.past(period)
            events, trials = case.events.within(period, back), case.trials.within(period, back)
            if (trials > 0).sum() >= MIN_PERIODS:
                own.append((case, events, trials))
            else:
                new.setdefault(case.reason, set()).add(case.track.id)
    if own:
        y = np.array([case.events.within(period, _NOW)[0] for case, *_ in own])
        n = np.array([case.trials.within(period, _NOW)[0] for case, *_ in own])
        past_y, past_n = (_stacked(pasts) for pasts in list(zip(*own, strict=True))[1:])
        low, high, usual = predictive.share_tails(y, n, past_y, past_n)
        found, p = flags(y, n, low, high, usual)
        for at in np.flatnonzero(found):
            numbers = int(y[at]), int(n[at]), float(usual[at])
            yield _Share(own[at][0], "past", float(p[at]), *numbers)
    for reason in sorted(new):
        of_reason = [case for case in cases if case.reason == reason]
        yield from _unlike_peers(of_reason, new[reason], period)


def _unlike_peers(
    cases: Sequence[_Case], judged: Collection[str], period: _Period
) -> Iterator[_Share]:
    rows = {}
    for case in cases:
        y, n = (int(of.within(period, _NOW)[0]) for of in (case.events, case.trials))
        rows[case.track.id] = CountRow(case.track.id, *period.times, n, y, y, 0, {})
    marks = chart.unusual_ids(rows, rate=RATE)
    peers = [row for id, row in rows.items() if id not in marks]
    usual = sum(row.threat_images for row in peers) / max(1, sum(row.images for row in peers))
    for case in cases:
        if case.track.id in marks and case.track.id in judged:
            row = rows[case.track.id]
            yield _Share(case, "peers", None, row.threat_images, row.images, usual)


def threat_flags(
    events: Array, trials: Array, low: Array, high: Array, usual: Array
) -> tuple[Flags, Array]:
    """Which shares of pictures with a threat are unusual, and their p-values (see `findings`)."""
    p = np.minimum(1.0, 2 * np.minimum(low, high))
    odds = (events + 0.5) / (trials - events + 0.5) / (usual / (1 - usual))
    return predictive.discoveries(p, RATE) & ((odds >= 2) | (odds <= 0.5)), p


def refused_flags(
    events: Array, trials: Array, _: Array, high: Array, usual: Array
) -> tuple[Flags, Array]:
    """Which shares of invalid pictures are unusual, and their p-values (see `findings`)."""
    found: Flags = predictive.discoveries(high, RATE) & _matters(events, trials, usual)
    return found, high


def _matters(events: Any, trials: Any, usual: Any) -> Any:
    return (events >= MIN_REFUSED) & (events >= np.maximum(0.05, 3 * usual) * trials)


def _threats(tracks: Sequence[_Track], period: _Period) -> Iterator[Finding]:
    cases = [_Case(track, "", track.threats, track.images) for track in tracks]
    for found in _unusual_shares(cases, period, threat_flags):
        usual = "are usual for it at these hours"
        if found.against == "peers":
            usual = "are what its peers show"
        yield Finding(
            found.case.track.id,
            "flooding" if found.now > found.usual else "too_few",
            *period.times,
            "warning",
            f"shows a threat in {_percent(found.now)} of its pictures, where "
            f"{_percent(found.usual)} {usual}",
            p_value=found.p,
            share=_rounded(found.now),
            usual=_rounded(found.usual),
        )


_CLOCK = frozenset((LATE, reasons.TIMESTAMP_IN_FUTURE, reasons.DUPLICATE))
_WORDS = {
    LATE: "too late for their windows",
    reasons.TIMESTAMP_IN_FUTURE: "in the future",
    reasons.DUPLICATE: "of one moment with another",
}


def _refused(tracks: Sequence[_Track], period: _Period) -> Iterator[Finding]:
    names = {reason for track in tracks for reason in track.refused}
    kinds: tuple[tuple[Kind, set[str]], ...] = (
        ("invalid", names - _CLOCK),
        ("clock_skew", names & _CLOCK),
    )
    empty = _Series(())
    for kind, of_kind in kinds:
        cases = [
            _Case(track, reason, track.refused.get(reason, empty), track.arrived)
            for track in tracks
            for reason in sorted(of_kind)
        ]
        unusual: dict[str, list[_Share]] = {}
        for found in _unusual_shares(cases, period, refused_flags):
            if _matters(found.events, found.trials, found.usual):
                unusual.setdefault(found.case.track.id, []).append(found)
        for track in tracks:
            numbers = {
                reason: int(track.refused[reason].within(period, _NOW)[0])
                for reason in sorted(of_kind & track.refused.keys())
            }
            came = int(track.arrived.within(period, _NOW)[0])
            yield from _one_refused(kind, track.id, numbers, came, unusual.get(track.id), period)


def _one_refused(
    kind: Kind,
    id: str,
    numbers: Mapping[str, int],
    came: int,
    unusual: Sequence[_Share] | None,
    period: _Period,
) -> Iterator[Finding]:
    total = sum(numbers.values())
    mostly = kind == "invalid" and came >= MIN_RUN and 2 * total >= came
    if not unusual and not mostly:
        return
    listed = ", ".join(
        f"{number:,} {_WORDS.get(reason, reason)}" for reason, number in numbers.items() if number
    )
    what = "are invalid" if kind == "invalid" else "have times that can't be right"
    sentence = f"{total:,} of {came:,} pictures {what}: {listed}"
    p_value = usual = None
    if unusual:
        worst = min(unusual, key=lambda one: (one.p is None, one.p or 0.0))
        p_value, usual = worst.p, _rounded(worst.usual)
        whose = "for it" if worst.against == "past" else "among its peers"
        reason = _WORDS.get(worst.case.reason, worst.case.reason)
        sentence += f"; {_percent(worst.usual)} {reason} are usual {whose}"
    yield Finding(
        id,
        kind,
        *period.times,
        "fault" if mostly else "warning",
        sentence,
        p_value=p_value,
        share=_rounded(total / came),
        usual=usual,
    )


# Blind


def _blind(pictures: Mapping[str, Sequence[Picture]], period: _Period) -> Iterator[Finding]:
    cases = []
    for id in sorted(pictures):
        taken = [one for one in pictures[id] if one.moment.timestamp() < period.end]
        at = next((at for at in range(len(taken), 0, -1) if taken[at - 1].seen), 0)
        before, run = taken[:at], taken[at:]
        if len(run) < MIN_RUN or run[-1].moment.timestamp() < period.start:
            continue
        past = _seen_before(before, run[0].moment.timestamp())
        if past is not None:
            cases.append((id, before, run, past))
    if not cases:
        return
    none = np.zeros(len(cases))
    sizes = np.array([float(len(run)) for _, _, run, _ in cases])
    past_events, past_trials = (_stacked([past[k] for *_, past in cases]) for k in (0, 1))
    p, _, usual = predictive.share_tails(none, sizes, past_events, past_trials)
    # Cameras without so long a run are judged too, and pass.
    everyone = np.append(p, np.ones(len(pictures) - len(cases)))
    flags = predictive.discoveries(everyone, RATE)
    for at, (id, before, run, _) in enumerate(cases):
        look = _unusual_look(before, run) if flags[at] else None
        if look is not None:
            start = run[0].moment
            yield Finding(
                id,
                "blind",
                start,
                period.times[1],
                "fault",
                f"is {look}, and nothing was detected in its last {len(run):,} pictures, since "
                f"{_text(start.timestamp())}; something is in {_percent(float(usual[at]))} "
                "of them otherwise",
                p_value=float(p[at]),
                share=1.0,
                usual=_rounded(1 - float(usual[at])),
            )


def _seen_before(before: Sequence[Picture], end: float) -> tuple[Array, Array] | None:
    """Pictures with a detection, and all, in each day before; in each hour where days are few."""
    moments = np.array([one.moment.timestamp() for one in before])
    seen = np.array([float(one.seen) for one in before])
    for length in (_DAY, _HOUR):
        number, at = np.unique(((end - moments) // length).astype(int), return_inverse=True)
        if len(number) >= MIN_PERIODS:
            days = range(min(len(number), MAX_PERIODS))
            of_day = [seen[at == day] for day in days]
            return np.array([of.sum() for of in of_day]), np.array(
                [float(len(of)) for of in of_day]
            )
    return None


def _unusual_look(before: Sequence[Picture], run: Sequence[Picture]) -> str | None:
    """How pictures look other than those before at the same hours, within one hour."""
    hours = {(one.moment.hour + by) % 24 for one in run for by in (-1, 0, 1)}
    usual = [one for one in before if one.moment.hour in hours]
    looks = []
    for name in ("brightness", "sharpness"):
        old, new = (
            [value for one in some if (value := getattr(one, name)) is not None]
            for some in (usual, run)
        )
        if len(old) < MIN_RUN or len(new) < MIN_RUN:
            continue
        now = float(np.median(new))
        low, high = (float(np.quantile(old, share)) for share in (0.1, 0.9))
        if now < low / 2:
            word = "dark" if name == "brightness" else "blurred"
            looks.append(f"{word} ({name} {now:.4g}, usually from {low:.4g} on)")
        elif name == "brightness" and 1 - now < (1 - high) / 2:
            looks.append(f"bright ({name} {now:.4g}, usually up to {high:.4g})")
    return " and ".join(looks) or None


# Words


def _rounded(value: float) -> float:
    return round(float(value), 4)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def _text(moment: float) -> str:
    return from_unix(moment).strftime("%Y-%m-%d %H:%M UTC")


def _length(seconds: float) -> str:
    for unit, name in ((_DAY, "days"), (_HOUR, "hours"), (60.0, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} seconds"
