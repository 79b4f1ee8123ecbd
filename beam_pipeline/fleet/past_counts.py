"""Counts of the time before a period, as arrays: a row takes 20 bytes, an object about 1 KB."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from transforms.records.count_rows import CountRow

if TYPE_CHECKING:
    from beam_pipeline.fleet.statistics.predictive import Array

_ROW = np.dtype([("camera", np.uint32), ("images", np.float64), ("threat_images", np.float64)])

Window = tuple[datetime, datetime, str]
"""A window's start and end, and the output that it is of."""
Version = tuple[tuple[str, float], ...]
"""The files of a window, and when each was last modified."""


@dataclass(frozen=True)
class PastCounts:
    """What one camera sent in windows before a period: arrays of the same length, in order of time.

    Attributes:
      starts: The start of each window in seconds since 1970.
      ends: Its end, exclusive.
      images: The number of valid images in it.
      threat_images: The number of those with a threat.
    """

    starts: Array
    ends: Array
    images: Array
    threat_images: Array


class PastWindows:
    """The counts of windows, each as one array with an entry per camera."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        """Each camera's number in the arrays."""
        self._windows: dict[Window, tuple[Version | None, Any]] = {}

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(len(entries) for _, entries in self._windows.values())

    def length(self, window: Window) -> int:
        """Returns how many rows a window has."""
        return len(self._windows[window][1])

    def has(self, window: Window, version: Version) -> bool:
        """Whether a window is there as its files are now."""
        return window in self._windows and self._windows[window][0] == version

    def put(self, window: Window, rows: Iterable[CountRow], version: Version | None) -> None:
        """Adds or replaces a window.

        Args:
          window: The window.
          rows: Its rows, one for each camera.
          version: Its files; None if they may change without another date.
        """
        entries = [
            (self._codes.setdefault(row.id, len(self._codes)), row.images, row.threat_images)
            for row in rows
        ]
        self._windows[window] = version, np.array(entries, dtype=_ROW)

    def keep_only(self, windows: Sequence[Window]) -> None:
        """Forgets all other windows."""
        self._windows = {window: self._windows[window] for window in windows}

    def by_camera(self) -> Mapping[str, PastCounts]:
        """Returns the counts of each camera, by id."""
        in_order = sorted(self._windows)
        if not in_order:
            return {}
        entries = [self._windows[window][1] for window in in_order]
        lengths = [len(of_window) for of_window in entries]
        rows = np.concatenate(entries)
        by_camera = np.argsort(rows["camera"], kind="stable")
        rows = rows[by_camera]
        starts = np.repeat([start.timestamp() for start, _, _ in in_order], lengths)[by_camera]
        ends = np.repeat([end.timestamp() for _, end, _ in in_order], lengths)[by_camera]
        bounds = np.searchsorted(rows["camera"], np.arange(len(self._codes) + 1))
        return {
            id: PastCounts(starts[own], ends[own], rows["images"][own], rows["threat_images"][own])
            for id, code in self._codes.items()
            if (own := slice(bounds[code], bounds[code + 1])).start < own.stop
        }
