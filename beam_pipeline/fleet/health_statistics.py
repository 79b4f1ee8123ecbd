"""Finds broken cameras by statistics of what the job has recorded of them, without any I/O.

    for finding in findings(observed, since=since, until=until):
        print(finding.sentence)

:mod:`beam_pipeline.fleet.health` reads what is observed from a job's output.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from beam_pipeline.fleet import predictive
from beam_pipeline.fleet.frozen import frozen_run
from beam_pipeline.fleet.outliers import unusual_ids
from transforms.records import reasons
from transforms.records.count_rows import CountRow
from transforms.records.times import canonical_time, from_unix

if TYPE_CHECKING:
    from beam_pipeline.fleet.fleet_end import AheadImages
    from beam_pipeline.fleet.predictive import Array, Flags

Kind = Literal[
    "silent", "misdated", "frozen", "invalid", "blind", "flooding", "too_few", "clock_skew"
]
KINDS: tuple[Kind, ...] = (
    *("silent", "misdated", "frozen", "blind", "invalid", "clock_skew", "flooding", "too_few"),
)
"""The kinds, most important first."""

RATE = 0.01
"""The false discovery rate of each kind on a day with a look in every hour."""
LOOK_RATE = 0.002
"""The rate of a single look that keeps it: 24 looks a day find about five times as much."""
MIN_PERIODS, MAX_PERIODS = 4, 28
"""The minimum and maximum number of comparable earlier periods that are used."""
SILENT_SHARE, MIN_EXPECTED = 0.25, 3.0
MIN_GAPS, MIN_REFUSED, MIN_RUN = 10, 5, 10
_HOUR, _DAY, _WEEK = 3600.0, 86_400.0, 604_800.0
_SATURDAY = 5
_LONGEST_WEEKEND = 60 * _HOUR
"""From Friday evening to Monday morning."""


@dataclass(frozen=True)
class Finding:
    """Something about one camera that a person should look at.

    Attributes:
      id: The camera.
      kind: The kind of finding.
      since: The start (UTC) of the period that was judged.
      until: Its end, exclusive.
      severity: "fault": the camera gives nothing to judge by, or its times are plainly wrong;
        "warning": it is unusual.
      sentence: A description in plain words, without the camera's id.
      p_value: The probability of this much or more for a healthy camera, before the correction for
        the number of cameras; None if no test was needed.
      share: Of the images, where the finding is about a share of them: with a threat (flooding,
        too_few), invalid (invalid), without any detection (blind), misdated (clock_skew); of the
        expected images those that came (silent). 0 to 1 (silent: may exceed it); None where it
        can't be said.
      usual: What that share usually is; None where it can't be said.
      expected: Images that were expected, of silent alone.
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
        UTC, so that an hourly run over the last 24 hours finds it at most once a day."""
        parts = (self.id, self.kind, f"{self.since:%Y-%m-%d}")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def to_json(self) -> dict[str, Any]:
        """Returns the finding as a JSON object; the keys in a fixed order."""
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
class LookedAtImage:
    """One image in which objects were detected or not.

    Attributes:
      capture_time: When it was taken.
      has_detections: Whether anything at all was detected, down to the lowest score that is kept.
      brightness: 0 (black) to 1 (white); None where it was not measured.
      sharpness: 0 (blank) to 1; None where it was not measured.
      sha256: The hash of its bytes; None where it is unknown.
      labels: The labels of the detections with a score of 0.5 or more, sorted.
    """

    capture_time: datetime
    has_detections: bool
    brightness: float | None = None
    sharpness: float | None = None
    sha256: str | None = None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class RefusedImage:
    """One image that was invalid, or late.

    Attributes:
      id: The camera, by the image's name.
      capture_time: When it was taken, by its name.
      reason: One of :mod:`transforms.records.reasons`, or `LATE`.
    """

    id: str
    capture_time: datetime
    reason: str


LATE = "late"


@dataclass(frozen=True)
class MisdatedImages:
    """The images of one camera whose capture times are plainly wrong, of all times.

    Attributes:
      id: The camera.
      images: How many there are.
      first: The earliest capture time, to the window (UTC).
      last: The latest one.
    """

    id: str
    images: int
    first: datetime
    last: datetime


@dataclass(frozen=True)
class Observations:
    """What was seen of a fleet, in the period that is judged and before it.

    Attributes:
      windows: The windowed counts, in any order.
      images: By camera, in order of time; empty where they were not read: no camera is found
        blind then.
      refused: Invalid and late images whose names say the camera and the time.
      named: The cameras that must be there (those of the rule file).
      expected: Images an hour that a camera sends at the least, whatever it did before.
      ahead: Images that are dated after the end of the period.
      misdated: Images of an impossible past, by camera.
      is_over: Whether nothing has come since the end of the period but such images.
    """

    windows: Sequence[CountRow]
    images: Mapping[str, Sequence[LookedAtImage]] = field(default_factory=dict)
    refused: Sequence[RefusedImage] = ()
    named: frozenset[str] = frozenset()
    expected: Mapping[str, float] = field(default_factory=dict)
    ahead: Sequence[AheadImages] = ()
    misdated: Mapping[str, MisdatedImages] = field(default_factory=dict)
    is_over: bool = False


def findings(observed: Observations, *, since: datetime, until: datetime) -> list[Finding]:
    """Returns what is wrong with the cameras in a period, by what they were like before it.

    Each kind is held to a false discovery rate of `RATE` over the cameras (Benjamini and Hochberg),
    so that of fleets in which all is as usual at most one in a hundred has a finding of a kind on a
    day with a look in every hour: a look has a rate of `LOOK_RATE` for silent, flooding and
    too_few, and asks for more than chance of the other kinds
    (:mod:`tools.false_findings` measures it). The tests are those of
    :mod:`beam_pipeline.fleet.predictive`, against the
    camera's own past in comparable periods: the same hours on the same weekday, where there are
    `MIN_PERIODS` of them, or else on any day, unless the camera may be quiet on this weekday
    (`_may_be_its_weekday`). So that a finding also matters, each asks for a difference of a certain
    size as well.

    - silent: far fewer images (invalid and late ones count too) than the negative binomial
      prediction, at most a quarter of it; either in the whole period, or none at all since the last
      one (the chance of so long a silence at those hours); p is twice the smaller. Without a past
      of days: no image for 20 times the camera's median gap and 3 times its longest, and for 60
      hours if it may be its first weekend. Where it is
      `expected` to send so many an hour at the least: fewer than that by a Poisson test at `RATE`.
      Without any test: `named`, and never seen.
    - misdated: a camera that would be silent, but for images whose capture times are plainly wrong
      (:mod:`transforms.records.clocks`) and which would be enough; or one that has sent no others.
      Without a past of days: the last image with a credible time is longer ago than its longest gap
      and an hour. Without any test: where the whole fleet has ended (`is_over`), as all clocks may
      have been lost at once; and images that are dated after the end of the period.
    - frozen, without any test: the last images have the same bytes, at least five, or are all but
      the same, at least ten (:mod:`beam_pipeline.fleet.frozen`): more than three times as many as
      in any such run of the camera before, for more than three times as long. Such a camera is not
      reported as flooding or too_few.
    - blind: nothing was detected in any image since some moment (the beta-binomial chance of
      that), and those images are dark, bright or blurred for the camera at those hours of the
      day: their median brightness or sharpness is less than half of what nine in ten had before,
      or they are more than twice as near to white.
    - invalid, clock_skew: by the beta-binomial upper tail for each reason. At least five images,
      5 % of all, and three times what was to be expected. Without any test: half of at least ten
      images are invalid.
    - flooding, too_few: the share of images with a threat, by the beta-binomial tails; p is twice
      the smaller. The odds are at least twice, or at most half, the usual.

    A camera without a past is judged for invalid, clock_skew, flooding and too_few by its peers in
    the same period, with :func:`beam_pipeline.fleet.outliers.unusual_ids` at the same rate.

    What can't be seen: what was always wrong with a camera (but for half of its images invalid);
    a change so slow that the past has it too; a camera that is covered where hardly anything is
    ever detected; a clock that is wrong by less than the job lets pass.

    Args:
      observed: The fleet, in the period and as long before it as there is.
      since: The start of the period (UTC).
      until: Its end, exclusive.

    Returns:
      Faults first, in the order of `KINDS`, and by camera.
    """
    period = TimeSpan(since.timestamp(), until.timestamp())
    cameras = camera_histories(observed, period)
    frozen = list(_frozen(observed.images, period))
    frozen_ids = {finding.id for finding in frozen}
    unsorted = [
        *_silent_or_misdated(cameras, observed, period),
        *_ahead(observed, period),
        *frozen,
        *_blind(observed.images, period),
        *_refused(cameras, period),
        *(finding for finding in _threats(cameras, period) if finding.id not in frozen_ids),
    ]
    return sorted(
        unsorted, key=lambda finding: (finding.severity, KINDS.index(finding.kind), finding.id)
    )


# What was seen of a camera


class TimeSpan(NamedTuple):
    """A period in seconds since 1970."""

    start: float
    end: float

    @property
    def times(self) -> tuple[datetime, datetime]:
        return from_unix(self.start), from_unix(self.end)


class _Series:
    """Numbers in order of time, that can be added up over any periods at once."""

    def __init__(self, entries: Iterable[tuple[float, int]]) -> None:
        ordered = sorted(entries)
        self._times = np.array([time for time, _ in ordered], dtype=float)
        self._sums = np.cumsum([0, *(number for _, number in ordered)], dtype=float)

    def within(self, period: TimeSpan, back: Array) -> Array:
        """Returns the sums over the period, moved back by so many seconds each."""
        start, end = (np.searchsorted(self._times, time - back, side="left") for time in period)
        total: Array = self._sums[end] - self._sums[start]
        return total

    def span(self, period: TimeSpan) -> TimeSpan | None:
        """Returns the first and the last time within a period; None without any."""
        start, end = np.searchsorted(self._times, period, side="left")
        return TimeSpan(*self._times[[start, end - 1]].tolist()) if start < end else None


@dataclass(frozen=True)
class CameraHistory:
    """One camera up to the end of the period.

    Attributes:
      images: Valid images.
      threats: Those with a threat.
      refused: Invalid and late ones, by reason.
      arrived: All of them.
      first: When it was first heard of; infinite where it never was.
      last: When it was last.
      ends: When each of its windows with images ended, or a refused image was taken, in order.
    """

    id: str
    images: _Series
    threats: _Series
    refused: Mapping[str, _Series]
    arrived: _Series
    first: float
    last: float
    ends: Array

    def shifts(self, period: TimeSpan) -> Array:
        """By how many seconds to move a period back to the comparable ones before it, within what
        is known of the camera; empty where they are too few to judge by."""
        if not math.isfinite(self.first):
            return np.empty(0)
        length = period.end - period.start
        for step in (_WEEK, _DAY):
            back = step * np.arange(math.ceil(length / step), MAX_PERIODS + 1, dtype=np.float64)
            known = (period.end - back <= self.last) & (period.start - back >= self.first)
            if known.sum() >= MIN_PERIODS:
                return back[known]
        return np.empty(0)


def camera_histories(observed: Observations, period: TimeSpan) -> list[CameraHistory]:
    """Returns what was seen of each camera up to the end of a period, in the order of the ids."""
    rows: dict[str, list[CountRow]] = {}
    for row in observed.windows:
        if row.images and row.window_start.timestamp() < period.end:
            rows.setdefault(row.id, []).append(row)
    refused: dict[str, dict[str, list[tuple[float, int]]]] = {}
    for refused_image in observed.refused:
        time = refused_image.capture_time.timestamp()
        if refused_image.reason == reasons.TIMESTAMP_IN_FUTURE:
            # Its arrival is not known, only that it was before its capture time.
            time = min(time, np.nextafter(period.end, 0))
        if time < period.end:
            by_reason = refused.setdefault(refused_image.id, {})
            by_reason.setdefault(refused_image.reason, []).append((time, 1))
    cameras = []
    for id in sorted({*rows, *refused, *observed.named, *observed.expected}):
        windows, others = rows.get(id, []), refused.get(id, {})
        starts = [row.window_start.timestamp() for row in windows]
        refused_entries = [entry for entries in others.values() for entry in entries]
        images = list(zip(starts, (row.images for row in windows), strict=True))
        ends = [
            *(row.window_end.timestamp() for row in windows),
            *(time for time, _ in refused_entries),
        ]
        cameras.append(
            CameraHistory(
                id,
                _Series(images),
                _Series(zip(starts, (row.threat_images for row in windows), strict=True)),
                {reason: _Series(entries) for reason, entries in others.items()},
                arrived=_Series([*images, *refused_entries]),
                first=min((*starts, *(time for time, _ in refused_entries)), default=math.inf),
                last=min(max(ends, default=-math.inf), period.end),
                ends=np.sort(np.array(ends, dtype=float)),
            )
        )
    return cameras


def _stacked(rows: Sequence[Array]) -> Array:
    """Returns rows of different lengths as one array, filled up with zeros."""
    stacked = np.zeros((len(rows), max(map(len, rows), default=0)))
    for row, values in zip(stacked, rows, strict=True):
        row[: len(values)] = values
    return stacked


NO_SHIFT = np.zeros(1)
"""Moves a period back by nothing (`_Series.within`)."""


# Silent


def _silent(
    cameras: Sequence[CameraHistory], observed: Observations, period: TimeSpan
) -> Iterator[Finding]:
    judged: list[_Silence] = []
    for camera in cameras:
        if not len(camera.ends):
            sentence = f"has never sent an image, as far as is known at {_text(period.end)}"
            yield Finding(camera.id, "silent", *period.times, "fault", sentence, share=0.0)
            continue
        expected = observed.expected.get(camera.id)
        if expected is not None:
            yield from _below_expected(camera, expected, period)
            continue
        gap = TimeSpan(max(camera.last, period.end - _DAY), period.end)
        back = camera.shifts(period), camera.shifts(gap) if gap.end > gap.start else np.empty(0)
        if len(back[0]):
            judged.append(_Silence(camera, gap, back))
        else:
            yield from _beyond_own_gaps(camera, period)
    if not judged:
        return
    tests = [_silence(judged, index, period) for index in (0, 1)]
    p_values, images, usual_images = (np.stack(of) for of in zip(*tests, strict=True))
    flags, p, since_last = silent_flags(p_values, images, usual_images, LOOK_RATE)
    for index in np.flatnonzero(flags):
        camera = judged[index].camera
        _, arrived, usual = (float(of[index]) for of in tests[int(since_last[index])])
        start, sentence = period.times[0], f"has sent {arrived:,.0f} images"
        if not arrived:
            start, sentence = from_unix(camera.last), f"has sent nothing since {_text(camera.last)}"
        judged_by = judged[index].gap if since_last[index] else period
        length = _length(judged_by.end - judged_by.start)
        sentence += f"; about {usual:,.0f} are usual in {length} at these hours"
        yield Finding(
            camera.id,
            "silent",
            start,
            period.times[1],
            "warning" if arrived else "fault",
            sentence,
            p_value=float(p[index]),
            share=_rounded(arrived / usual),
            expected=_rounded(usual),
        )


class _Silence(NamedTuple):
    camera: CameraHistory
    gap: TimeSpan
    """Since its last image, or the last 24 hours where that is longer ago."""
    back: tuple[Array, Array]
    """To the comparable periods before the period, and before the gap."""


def _silence(judged: Sequence[_Silence], at: int, period: TimeSpan) -> tuple[Array, Array, Array]:
    """Returns P(so few) in the period (`at` 0) or the gap (1), how many arrived, and the usual."""
    periods = [(period, silence.gap)[at] for silence in judged]
    silences_and_spans = list(zip(judged, periods, strict=True))
    pasts = [
        silence.camera.arrived.within(span, silence.back[at])
        for silence, span in silences_and_spans
    ]
    arrived = np.array(
        [silence.camera.arrived.within(span, NO_SHIFT)[0] for silence, span in silences_and_spans]
    )
    is_past = _stacked([np.ones(len(past)) for past in pasts]) > 0
    p, usual = predictive.count_at_most(arrived, _stacked(pasts), is_past)
    is_usual = np.array(
        [
            _may_be_its_weekday(silence.camera, span, silence.back[at], number)
            for (silence, span), number in zip(silences_and_spans, arrived.tolist(), strict=True)
        ]
    )
    return np.where(is_past.any(axis=-1) & ~is_usual, p, 1.0), arrived, usual


def _may_be_its_weekday(camera: CameraHistory, span: TimeSpan, back: Array, arrived: float) -> bool:
    """Whether so few images may be usual on this weekday, as far as days of any kind can't tell.

    Where the same weekday is known, though less than `MIN_PERIODS` times, it must have had far more
    images; otherwise a day of the same kind, a weekday or one of a weekend, must be known.
    """
    if not np.any(back % _WEEK):
        return False
    weeks = back[back % _WEEK == 0]
    if len(weeks):
        return bool(arrived > SILENT_SHARE * camera.arrived.within(span, weeks).mean())
    kinds = {_kind_of_days(span, shift) for shift in back.tolist()}
    return _kind_of_days(span, 0.0) not in kinds


def _kind_of_days(span: TimeSpan, back: float) -> tuple[bool, bool]:
    """Whether a period begins, and whether it ends, at a weekend (of UTC)."""
    begin, end = (from_unix(time - back) for time in (span.start, span.end - 1))
    return begin.weekday() >= _SATURDAY, end.weekday() >= _SATURDAY


def silent_flags(
    each: Array, images: Array, expected: Array, rate: float = RATE
) -> tuple[Flags, Array, Flags]:
    """Returns which cameras are silent (see `findings`), with what p-value, and whether it is the
    time since the last image that shows it, or else the whole period.

    Args:
      each: `[2, ..., cameras]`: the p-values of the whole period, and of the time since then.
      images: Images in each.
      expected: Images that were expected.
      rate: The false discovery rate.
    """
    since_last = each[1] < each[0]
    arrived, usual = (np.where(since_last, of[1], of[0]) for of in (images, expected))
    p = np.minimum(1.0, 2 * np.minimum(each[0], each[1]))
    matters = (arrived <= SILENT_SHARE * usual) & (usual >= MIN_EXPECTED)
    return predictive.discoveries(p, rate) & matters, p, since_last


def _below_expected(
    camera: CameraHistory, images_an_hour: float, period: TimeSpan
) -> Iterator[Finding]:
    from scipy.special import pdtr

    arrived = float(camera.arrived.within(period, NO_SHIFT)[0])
    expected = images_an_hour * (period.end - period.start) / _HOUR
    p = float(pdtr(arrived, expected))
    if p <= RATE:
        yield Finding(
            camera.id,
            "silent",
            *period.times,
            "warning" if arrived else "fault",
            f"has sent {arrived:,.0f} images, where at least {expected:,.0f} were expected",
            p_value=p,
            share=_rounded(arrived / expected),
            expected=_rounded(expected),
        )


def _beyond_own_gaps(camera: CameraHistory, period: TimeSpan) -> Iterator[Finding]:
    gaps = np.diff(camera.ends)
    gaps = gaps[gaps > 0]
    silence = period.end - camera.last
    if len(gaps) < MIN_GAPS or silence <= max(20 * np.median(gaps), 3 * gaps.max()):
        return
    known, of_silence = (
        {from_unix(time).weekday() >= _SATURDAY for time in (*np.arange(*span, _DAY), span[1] - 1)}
        for span in ((camera.first, camera.last), (camera.last, period.end))
    )
    if not of_silence <= known and silence < _LONGEST_WEEKEND:
        return
    sentence = (
        f"has sent nothing since {_text(camera.last)}; it had sent an image every "
        f"{_length(float(np.median(gaps)))}, and never none for more than "
        f"{_length(float(gaps.max()))}"
    )
    times = from_unix(camera.last), period.times[1]
    yield Finding(camera.id, "silent", *times, "fault", sentence, share=0.0)


# Misdated


def _silent_or_misdated(
    cameras: Sequence[CameraHistory], observed: Observations, period: TimeSpan
) -> Iterator[Finding]:
    silent = {finding.id: finding for finding in _silent(cameras, observed, period)}
    by_id = {camera.id: camera for camera in cameras}
    for id in sorted(silent.keys() | observed.misdated.keys()):
        finding, images = silent.get(id), observed.misdated.get(id)
        if finding is not None and (images is None or not _would_be_enough(images, finding)):
            yield finding
        elif images is not None:
            camera = by_id.get(id)
            if (
                finding is not None
                or observed.is_over
                or camera is None
                or _seems_to_have_stopped(camera, period)
            ):
                yield _misdated(images, camera, finding, period)


def _would_be_enough(images: MisdatedImages, finding: Finding) -> bool:
    """Whether a camera would not be silent if these images had come with the right time."""
    if finding.expected is None or finding.share is None:
        return True
    return images.images + finding.share * finding.expected > SILENT_SHARE * finding.expected


def _seems_to_have_stopped(camera: CameraHistory, period: TimeSpan) -> bool:
    if len(camera.shifts(period)):
        return False
    longest_gap = max(np.diff(camera.ends), default=0.0)
    return period.end - camera.last > max(longest_gap, _HOUR)


def _misdated(
    images: MisdatedImages,
    camera: CameraHistory | None,
    finding: Finding | None,
    period: TimeSpan,
) -> Finding:
    number = f"{images.images:,} image{'' if images.images == 1 else 's'}"
    dates = " to ".join(_text(time.timestamp()) for time in (images.first, images.last))
    sentence = f"has sent {number} dated {dates}"
    since = period.times[0]
    if camera is None or not len(camera.ends):
        sentence += ", and none with a credible time"
    else:
        since = from_unix(camera.last)
        sentence += f"; its last one with a credible time is of {_text(camera.last)}"
    return Finding(
        images.id,
        "misdated",
        since,
        period.times[1],
        "fault",
        f"{sentence}. Its clock is wrong",
        p_value=None if finding is None else finding.p_value,
    )


def _ahead(observed: Observations, period: TimeSpan) -> Iterator[Finding]:
    for images in observed.ahead:
        sentence = images.describe(period.times[1])
        yield Finding(images.id, "misdated", *period.times, "warning", sentence)


# Shares: threats, and images that were refused


class _Case(NamedTuple):
    """Images of one camera, of all that are tried, that show something."""

    camera: CameraHistory
    reason: str
    events: _Series
    trials: _Series


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
        past_y, past_n = (_stacked(pasts) for pasts in list(zip(*with_past, strict=True))[1:])
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


def _threats(cameras: Sequence[CameraHistory], period: TimeSpan) -> Iterator[Finding]:
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
            f"shows a threat in {_percent(share.now)} of its images, where "
            f"{_percent(share.usual)} {usual}",
            p_value=share.p,
            share=_rounded(share.now),
            usual=_rounded(share.usual),
        )


_CLOCK = frozenset((LATE, reasons.TIMESTAMP_IN_FUTURE, reasons.DUPLICATE))
_WORDS = {
    LATE: "too late for their windows",
    reasons.TIMESTAMP_IN_FUTURE: "in the future",
    reasons.DUPLICATE: "of the same capture time as another",
}


def _refused(cameras: Sequence[CameraHistory], period: TimeSpan) -> Iterator[Finding]:
    names = {reason for camera in cameras for reason in camera.refused}
    kinds: tuple[tuple[Kind, set[str]], ...] = (
        ("invalid", names - _CLOCK),
        ("clock_skew", names & _CLOCK),
    )
    empty = _Series(())
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
        share=_rounded(total / arrived),
        usual=usual,
    )


# Frozen


def _frozen(images: Mapping[str, Sequence[LookedAtImage]], period: TimeSpan) -> Iterator[Finding]:
    for id in sorted(images):
        known = [image for image in images[id] if image.capture_time.timestamp() < period.end]
        if not known or known[-1].capture_time.timestamp() < period.start:
            continue
        run = frozen_run(known)
        if run is not None:
            what = "the same bytes" if run.is_same_bytes else "all but the same picture"
            yield Finding(
                id,
                "frozen",
                run.start,
                period.times[1],
                "fault",
                f"has sent {what} in its last {run.images:,} images, since "
                f"{_text(run.start.timestamp())}; at most {run.usual:,} in a row are usual for it",
            )


# Blind


def _blind(images: Mapping[str, Sequence[LookedAtImage]], period: TimeSpan) -> Iterator[Finding]:
    cases = []
    for id in sorted(images):
        until_end = [image for image in images[id] if image.capture_time.timestamp() < period.end]
        index = next(
            (
                index
                for index in range(len(until_end), 0, -1)
                if until_end[index - 1].has_detections
            ),
            0,
        )
        before, run = until_end[:index], until_end[index:]
        if len(run) < MIN_RUN or run[-1].capture_time.timestamp() < period.start:
            continue
        past = _detections_before(before, run[0].capture_time.timestamp())
        if past is not None:
            cases.append((id, before, run, past))
    if not cases:
        return
    none = np.zeros(len(cases))
    sizes = np.array([float(len(run)) for _, _, run, _ in cases])
    past_events, past_trials = (_stacked([past[k] for *_, past in cases]) for k in (0, 1))
    p, _, usual = predictive.share_tails(none, sizes, past_events, past_trials)
    # Cameras without so long a run are judged too, and pass.
    everyone = np.append(p, np.ones(len(images) - len(cases)))
    flags = predictive.discoveries(everyone, RATE)
    for index, (id, before, run, _) in enumerate(cases):
        look = _unusual_look(before, run) if flags[index] else None
        if look is not None:
            start = run[0].capture_time
            yield Finding(
                id,
                "blind",
                start,
                period.times[1],
                "fault",
                f"is {look}, and nothing was detected in its last {len(run):,} images, since "
                f"{_text(start.timestamp())}; something is in {_percent(float(usual[index]))} "
                "of them otherwise",
                p_value=float(p[index]),
                share=1.0,
                usual=_rounded(1 - float(usual[index])),
            )


def _detections_before(before: Sequence[LookedAtImage], end: float) -> tuple[Array, Array] | None:
    """Images with a detection, and all, in each day before; in each hour where days are few."""
    times = np.array([image.capture_time.timestamp() for image in before])
    has_detections = np.array([float(image.has_detections) for image in before])
    for length in (_DAY, _HOUR):
        number, at = np.unique(((end - times) // length).astype(int), return_inverse=True)
        if len(number) >= MIN_PERIODS:
            days = range(min(len(number), MAX_PERIODS))
            of_day = [has_detections[at == day] for day in days]
            return np.array([of.sum() for of in of_day]), np.array(
                [float(len(of)) for of in of_day]
            )
    return None


def _unusual_look(before: Sequence[LookedAtImage], run: Sequence[LookedAtImage]) -> str | None:
    """Returns how images look other than those before at the same hours, within one hour."""
    hours = {
        (image.capture_time.hour + hours_off) % 24 for image in run for hours_off in (-1, 0, 1)
    }
    usual = [image for image in before if image.capture_time.hour in hours]
    looks = []
    for name in ("brightness", "sharpness"):
        old, new = (
            [value for image in some if (value := getattr(image, name)) is not None]
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


def _text(time: float) -> str:
    return from_unix(time).strftime("%Y-%m-%d %H:%M UTC")


def _length(seconds: float) -> str:
    for unit, name in ((_DAY, "days"), (_HOUR, "hours"), (60.0, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} seconds"
