"""What was seen of each camera over time, to be compared with what was usual for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from beam_pipeline.fleet.statistics.observations import Observations
from beam_pipeline.fleet.statistics.thresholds import DAY, MAX_PERIODS, MIN_PERIODS, WEEK
from transforms.records import reasons
from transforms.records.count_rows import CountRow
from transforms.records.times import from_unix

if TYPE_CHECKING:
    from beam_pipeline.fleet.past_counts import PastCounts
    from beam_pipeline.fleet.statistics.predictive import Array


class TimeSpan(NamedTuple):
    """A period in seconds since 1970."""

    start: float
    end: float

    @property
    def times(self) -> tuple[datetime, datetime]:
        return from_unix(self.start), from_unix(self.end)


class Series:
    """Numbers in order of time, that can be added up over any periods at once."""

    def __init__(self, times: Array, numbers: Array) -> None:
        order = np.argsort(times, kind="stable")
        self._times = times[order]
        self._sums = np.concatenate(([0.0], np.cumsum(numbers[order])))

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
    images: Series
    threats: Series
    refused: Mapping[str, Series]
    arrived: Series
    first: float
    last: float
    ends: Array

    def shifts(self, period: TimeSpan) -> Array:
        """By how many seconds to move a period back to the comparable ones before it, within what
        is known of the camera; empty where they are too few to judge by."""
        if not math.isfinite(self.first):
            return np.empty(0)
        length = period.end - period.start
        for step in (WEEK, DAY):
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
    refused: dict[str, dict[str, list[float]]] = {}
    for refused_image in observed.refused:
        time = refused_image.capture_time.timestamp()
        if refused_image.reason == reasons.TIMESTAMP_IN_FUTURE:
            # Its arrival is not known, only that it was before its capture time.
            time = min(time, np.nextafter(period.end, 0))
        if time < period.end:
            by_reason = refused.setdefault(refused_image.id, {})
            by_reason.setdefault(refused_image.reason, []).append(time)
    cameras = []
    of_past = {id for id, past in observed.past.items() if past.images.any()}
    ids = {*rows, *of_past, *refused, *observed.named, *observed.expected}
    for id in sorted(ids):
        starts, window_ends, images, threats = _windows(observed.past.get(id), rows.get(id, []))
        refused_at = {
            reason: np.array(times, dtype=float) for reason, times in refused.get(id, {}).items()
        }
        refused_times = np.concatenate([np.empty(0), *refused_at.values()])
        arrivals = np.concatenate([starts, refused_times])
        ends = np.sort(np.concatenate([window_ends, refused_times]))
        cameras.append(
            CameraHistory(
                id,
                Series(starts, images),
                Series(starts, threats),
                {
                    reason: Series(times, np.ones(len(times)))
                    for reason, times in refused_at.items()
                },
                arrived=Series(arrivals, np.concatenate([images, np.ones(len(refused_times))])),
                first=float(np.min(arrivals, initial=math.inf)),
                last=min(float(np.max(ends, initial=-math.inf)), period.end),
                ends=ends,
            )
        )
    return cameras


def _windows(past: PastCounts | None, rows: Sequence[CountRow]) -> tuple[Array, ...]:
    """Returns the start, end, images and images with a threat of the windows with images."""
    parts = [
        np.array([row.window_start.timestamp() for row in rows], dtype=float),
        np.array([row.window_end.timestamp() for row in rows], dtype=float),
        np.array([row.images for row in rows], dtype=float),
        np.array([row.threat_images for row in rows], dtype=float),
    ]
    if past is None:
        return tuple(parts)
    has_images = past.images > 0
    earlier = (past.starts, past.ends, past.images, past.threat_images)
    return tuple(
        np.concatenate([array[has_images], part])
        for array, part in zip(earlier, parts, strict=True)
    )


def stacked(rows: Sequence[Array]) -> Array:
    """Returns rows of different lengths as one array, filled up with zeros."""
    stacked = np.zeros((len(rows), max(map(len, rows), default=0)))
    for row, values in zip(stacked, rows, strict=True):
        row[: len(values)] = values
    return stacked


NO_SHIFT = np.zeros(1)
"""Moves a period back by nothing (`Series.within`)."""
