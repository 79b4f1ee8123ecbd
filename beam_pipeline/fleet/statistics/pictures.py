"""Finds cameras whose images do not change, or show nothing any more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from beam_pipeline.fleet.statistics import predictive
from beam_pipeline.fleet.statistics.frozen import frozen_run
from beam_pipeline.fleet.statistics.histories import TimeSpan, stacked
from beam_pipeline.fleet.statistics.observations import Finding, LookedAtImage
from beam_pipeline.fleet.statistics.thresholds import (
    DAY,
    HOUR,
    MAX_PERIODS,
    MIN_PERIODS,
    MIN_RUN,
    RATE,
)
from beam_pipeline.fleet.statistics.words import in_words, percent, rounded

if TYPE_CHECKING:
    from beam_pipeline.fleet.statistics.predictive import Array


def frozen(images: Mapping[str, Sequence[LookedAtImage]], period: TimeSpan) -> Iterator[Finding]:
    """Yields the cameras that are frozen (see `findings`)."""
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
                f"{in_words(run.start.timestamp())}; at most {run.usual:,} in a row are usual "
                "for it",
            )


def blind(images: Mapping[str, Sequence[LookedAtImage]], period: TimeSpan) -> Iterator[Finding]:
    """Yields the cameras that are blind (see `findings`)."""
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
    past_events, past_trials = (stacked([past[k] for *_, past in cases]) for k in (0, 1))
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
                f"{in_words(start.timestamp())}; something is in {percent(float(usual[index]))} "
                "of them otherwise",
                p_value=float(p[index]),
                share=1.0,
                usual=rounded(1 - float(usual[index])),
            )


def _detections_before(before: Sequence[LookedAtImage], end: float) -> tuple[Array, Array] | None:
    """Images with a detection, and all, in each day before; in each hour where days are few."""
    times = np.array([image.capture_time.timestamp() for image in before])
    has_detections = np.array([float(image.has_detections) for image in before])
    for length in (DAY, HOUR):
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
