"""Finds cameras that send one picture again and again: the same bytes, or all but the same.

A camera that has frozen goes on to send, so that it is not silent, and what is in its picture stays
in it. A scene in which nothing moves looks much the same for hours too, so that a run of pictures
that are all but the same is compared with the longest one before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Protocol

MIN_SAME_BYTES, MIN_SIMILAR = 5, 10
"""The minimum number of images in a run of the same bytes, and of similar images."""
TIMES_LONGEST = 3
"""A run is unusual if it has more than so many times the images of the longest one before it, and
lasts so many times as long."""
MIN_BEFORE = 10
"""The minimum number of images before the run."""
MIN_PAST = timedelta(hours=24)
"""Similar images are judged only if so much time before them is known: a night is part of it."""
_BRIGHTNESS, _SHARPNESS = 0.001, 0.0005
"""The largest differences between similar images: noise and a clock in the picture have less."""


class Picture(Protocol):
    """What is compared of an image; see `observations.LookedAtImage`."""

    @property
    def capture_time(self) -> datetime:
        """When it was taken."""

    @property
    def brightness(self) -> float | None:
        """0 to 1."""

    @property
    def sharpness(self) -> float | None:
        """0 to 1."""

    @property
    def sha256(self) -> str | None:
        """The hash of its bytes."""

    @property
    def labels(self) -> tuple[str, ...]:
        """What was detected in it with some certainty."""


@dataclass(frozen=True)
class FrozenRun:
    """A run of images that is longer than is usual for the camera.

    Attributes:
      start: The capture time of the first image.
      images: How many there are.
      is_same_bytes: Whether they have the same bytes.
      usual: The number of images in the longest run before.
    """

    start: datetime
    images: int
    is_same_bytes: bool
    usual: int


def frozen_run(images: Sequence[Picture]) -> FrozenRun | None:
    """Returns the run at the end of a camera's images if it is unusual; otherwise None.

    Args:
      images: The images of one camera, in order of time.
    """
    same = _unusual_run(images, _have_same_bytes, MIN_SAME_BYTES, timedelta())
    return same or _unusual_run(images, _are_similar, MIN_SIMILAR, MIN_PAST)


def _unusual_run(
    images: Sequence[Picture],
    are_alike: Callable[[Picture, Picture], bool],
    least: int,
    past: timedelta,
) -> FrozenRun | None:
    if not images:
        return None
    starts = [0]
    for index, image in enumerate(images):
        if not are_alike(images[starts[-1]], image):
            starts.append(index)
    first, number = starts[-1], len(images) - starts[-1]
    begin = images[first].capture_time
    if number < least or first < MIN_BEFORE or begin - images[0].capture_time < past:
        return None
    runs = list(pairwise(starts))
    usual = max(end - start for start, end in runs)
    longest = max(images[end - 1].capture_time - images[start].capture_time for start, end in runs)
    lasts = images[-1].capture_time - begin
    if number <= TIMES_LONGEST * usual or lasts <= TIMES_LONGEST * longest:
        return None
    return FrozenRun(begin, number, are_alike is _have_same_bytes, usual)


def _have_same_bytes(one: Picture, other: Picture) -> bool:
    return one is other or (one.sha256 is not None and one.sha256 == other.sha256)


def _are_similar(one: Picture, other: Picture) -> bool:
    if _have_same_bytes(one, other):
        return True
    if one.sha256 is None or other.sha256 is None or one.labels != other.labels:
        return False
    brightness = _difference(one.brightness, other.brightness)
    sharpness = _difference(one.sharpness, other.sharpness)
    return brightness <= _BRIGHTNESS and sharpness <= _SHARPNESS


def _difference(one: float | None, other: float | None) -> float:
    """Returns by how much two values of four decimals differ; infinity if one is not known."""
    if one is None or other is None:
        return math.inf
    return round(abs(one - other), 4)
