"""What was seen of each camera over time, to be compared with what was usual for it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
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
                Series(images),
                Series(zip(starts, (row.threat_images for row in windows), strict=True)),
                {reason: Series(entries) for reason, entries in others.items()},
                arrived=Series([*images, *refused_entries]),
                first=min((*starts, *(time for time, _ in refused_entries)), default=math.inf),
                last=min(max(ends, default=-math.inf), period.end),
                ends=np.sort(np.array(ends, dtype=float)),
            )
        )
    return cameras


def stacked(rows: Sequence[Array]) -> Array:
    """Returns rows of different lengths as one array, filled up with zeros."""
    stacked = np.zeros((len(rows), max(map(len, rows), default=0)))
    for row, values in zip(stacked, rows, strict=True):
        row[: len(values)] = values
    return stacked


NO_SHIFT = np.zeros(1)
"""Moves a period back by nothing (`Series.within`)."""
