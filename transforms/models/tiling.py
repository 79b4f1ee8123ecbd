"""Merges what a model has detected in a whole image and in its tiles.

A box that reaches an inner border of a tile may show a part of an object only; the neighbouring
tile or the whole image shows all of it. Of several boxes around one object, the one with the
highest score stands. How the two numbers were chosen: docs/evaluate.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import rules
from rules.geometry import iou

SAME_OBJECT = 0.5
"""Two boxes of one label with a larger intersection over union show the same object."""
BORDER = 0.02
"""A box that is closer to an inner border than this part of the tile is taken to be cut by it."""

Region = tuple[float, float, float, float]
"""A part of an image: left, top, right and bottom, as fractions of the image."""


def order(detection: rules.Detection) -> tuple[float, int, tuple[float, ...]]:
    """Returns the key by which the detections of an image are sorted: the highest score first."""
    return -detection.conf, int(detection.category), detection.bbox


def is_cut(detection: rules.Detection, region: Region) -> bool:
    """Returns whether a box reaches a border of a tile that is not one of the image."""
    left, top, right, bottom = region
    x_min, y_min, width, height = detection.bbox
    near_x, near_y = BORDER * (right - left), BORDER * (bottom - top)
    return (
        (left > 0 and x_min - left < near_x)
        or (top > 0 and y_min - top < near_y)
        or (right < 1 and right - (x_min + width) < near_x)
        or (bottom < 1 and bottom - (y_min + height) < near_y)
    )


def merge(
    whole: Sequence[rules.Detection],
    tiles: Iterable[tuple[Region, Sequence[rules.Detection]]],
) -> tuple[rules.Detection, ...]:
    """Returns the detections of an image, each object once, in the order of :func:`order`.

    Boxes of the same input are not compared with each other: the model has decided on them.

    Args:
      whole: The detections in the whole image.
      tiles: For each tile its place in the image, and the detections in it, in the image's
        coordinates.
    """
    found = [(detection, 0) for detection in whole]
    for number, (region, detections) in enumerate(tiles, start=1):
        found += [(one, number) for one in detections if not is_cut(one, region)]
    found.sort(key=lambda one: (order(one[0]), one[1]))
    kept: list[rules.Detection] = []
    kept_by_category: dict[str, list[tuple[rules.Detection, int]]] = defaultdict(list)
    for detection, source in found:
        others = kept_by_category[detection.category]
        if any(
            source != other_source and iou(detection.bbox, other.bbox) > SAME_OBJECT
            for other, other_source in others
        ):
            continue
        others.append((detection, source))
        kept.append(detection)
    return tuple(kept)
