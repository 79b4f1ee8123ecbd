"""Finds cameras that send far too few images, or whose images have plainly wrong times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from beam_pipeline.fleet.statistics import predictive
from beam_pipeline.fleet.statistics.histories import NO_SHIFT, CameraHistory, TimeSpan, stacked
from beam_pipeline.fleet.statistics.observations import Finding, MisdatedImages, Observations
from beam_pipeline.fleet.statistics.thresholds import (
    DAY,
    HOUR,
    LOOK_RATE,
    MIN_EXPECTED,
    MIN_GAPS,
    RATE,
    SILENT_SHARE,
    WEEK,
)
from beam_pipeline.fleet.statistics.words import in_words, length_in_words, rounded
from rules.text import number_of
from transforms.records.times import from_unix

if TYPE_CHECKING:
    from beam_pipeline.fleet.statistics.predictive import Array, Flags

_SATURDAY = 5
_LONGEST_WEEKEND = 60 * HOUR
"""From Friday evening to Monday morning."""


def _silent(
    cameras: Sequence[CameraHistory], observed: Observations, period: TimeSpan
) -> Iterator[Finding]:
    judged: list[_Silence] = []
    for camera in cameras:
        if not len(camera.ends):
            sentence = f"has never sent an image, as far as is known at {in_words(period.end)}"
            yield Finding(camera.id, "silent", *period.times, "fault", sentence, share=0.0)
            continue
        expected = observed.expected.get(camera.id)
        if expected is not None:
            yield from _below_expected(camera, expected, period)
            continue
        gap = TimeSpan(max(camera.last, period.end - DAY), period.end)
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
            start, sentence = (
                from_unix(camera.last),
                f"has sent nothing since {in_words(camera.last)}",
            )
        judged_by = judged[index].gap if since_last[index] else period
        length = length_in_words(judged_by.end - judged_by.start)
        sentence += f"; about {usual:,.0f} are usual in {length} at these hours"
        yield Finding(
            camera.id,
            "silent",
            start,
            period.times[1],
            "warning" if arrived else "fault",
            sentence,
            p_value=float(p[index]),
            share=rounded(arrived / usual),
            expected=rounded(usual),
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
    is_past = stacked([np.ones(len(past)) for past in pasts]) > 0
    p, usual = predictive.count_at_most(arrived, stacked(pasts), is_past)
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
    if not np.any(back % WEEK):
        return False
    weeks = back[back % WEEK == 0]
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
    expected = images_an_hour * (period.end - period.start) / HOUR
    p = float(pdtr(arrived, expected))
    if p <= RATE:
        yield Finding(
            camera.id,
            "silent",
            *period.times,
            "warning" if arrived else "fault",
            f"has sent {arrived:,.0f} images, where at least {expected:,.0f} were expected",
            p_value=p,
            share=rounded(arrived / expected),
            expected=rounded(expected),
        )


def _beyond_own_gaps(camera: CameraHistory, period: TimeSpan) -> Iterator[Finding]:
    gaps = np.diff(camera.ends)
    gaps = gaps[gaps > 0]
    silence = period.end - camera.last
    if len(gaps) < MIN_GAPS or silence <= max(20 * np.median(gaps), 3 * gaps.max()):
        return
    known, of_silence = (
        {from_unix(time).weekday() >= _SATURDAY for time in (*np.arange(*span, DAY), span[1] - 1)}
        for span in ((camera.first, camera.last), (camera.last, period.end))
    )
    if not of_silence <= known and silence < _LONGEST_WEEKEND:
        return
    sentence = (
        f"has sent nothing since {in_words(camera.last)}; it had sent an image every "
        f"{length_in_words(float(np.median(gaps)))}, and never none for more than "
        f"{length_in_words(float(gaps.max()))}"
    )
    times = from_unix(camera.last), period.times[1]
    yield Finding(camera.id, "silent", *times, "fault", sentence, share=0.0)


def silent_or_misdated(
    cameras: Sequence[CameraHistory], observed: Observations, period: TimeSpan
) -> Iterator[Finding]:
    """Yields the cameras that are silent, or misdated instead (see `findings`)."""
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
    return period.end - camera.last > max(longest_gap, HOUR)


def _misdated(
    images: MisdatedImages,
    camera: CameraHistory | None,
    finding: Finding | None,
    period: TimeSpan,
) -> Finding:
    number = number_of(images.images, "image")
    dates = " to ".join(in_words(time.timestamp()) for time in (images.first, images.last))
    sentence = f"has sent {number} dated {dates}"
    since = period.times[0]
    if camera is None or not len(camera.ends):
        sentence += ", and none with a credible time"
    else:
        since = from_unix(camera.last)
        sentence += f"; its last one with a credible time is of {in_words(camera.last)}"
    return Finding(
        images.id,
        "misdated",
        since,
        period.times[1],
        "fault",
        f"{sentence}. Its clock is wrong",
        p_value=None if finding is None else finding.p_value,
    )


def ahead(observed: Observations, period: TimeSpan) -> Iterator[Finding]:
    """Yields the cameras whose images are dated after the end of the period."""
    for images in observed.ahead:
        sentence = images.describe(period.times[1])
        yield Finding(images.id, "misdated", *period.times, "warning", sentence)
