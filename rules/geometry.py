"""Decides whether a box lies in an area of the image, or in the same place as an earlier box.

All decisions are made with whole numbers, because corners and boxes have 4 decimals: a grid of
20,000 units contains each of them and the middle between any two, so that a point on a boundary is
inside on every machine. Shapely checks and clips polygons. Integer arithmetic decides on points: it
is as exact and, for the few corners of a zone, several times faster than a call of shapely for one
point. `Area.contains` is called for every detection and every zone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import shapely

Anchor = Literal["bottom_center", "center", "overlap"]
"""The part of a box that must lie in an area: the middle of its lower edge, its center, or a
fraction of its area."""

Bbox = tuple[float, float, float, float]
Point = tuple[float, float]

_DECIMALS = 10_000
_FRAME = 2 * _DECIMALS
"""The sides of the frame in units of the grid."""

_TOLERANCE = 1e-9
"""The tolerance for shapely's binary fractions; the largest measured error was about 1e-13."""


@dataclass(frozen=True)
class Area:
    """A polygon in the image, and the condition for a box to belong to it.

    Immutable, hashable and picklable. The form that makes it fast is computed once in each process.

    Attributes:
        polygon: The corners as fractions of the frame, origin top left, in order around the area
            in either direction; rounded to 4 decimals.
        anchor: ``bottom_center``, where an object touches the ground; ``center``; or ``overlap``.
        min_overlap: For ``overlap``, the minimum fraction of the box that lies in the polygon,
            above 0 and at most 1.

    Raises:
        ValueError: `polygon_problem` rejects the polygon, or ``min_overlap`` is out of range.
    """

    polygon: tuple[Point, ...]
    anchor: Anchor = "bottom_center"
    min_overlap: float = 0.5

    def __post_init__(self) -> None:
        problem = polygon_problem(self.polygon)
        if problem is not None:
            raise ValueError("polygon: {}; {}".format(*problem))
        if not 0 < self.min_overlap <= 1:
            raise ValueError(f"min_overlap must be above 0 and at most 1, not {self.min_overlap!r}")

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def contains(self, bbox: Bbox) -> bool:
        """Returns whether a box of ``(x_min, y_min, width, height)`` belongs to the area.

        With ``bottom_center`` or ``center``, that point must lie in the polygon or on its boundary;
        a point outside the frame is moved to the frame's edge first. With ``overlap``, at least
        ``min_overlap`` of the part of the box in the frame must lie in the polygon; a box without
        area in the frame is judged by its center.
        """
        left, top, width, height = bbox
        x = 2 * round(left * _DECIMALS)
        y = 2 * round(top * _DECIMALS)
        half_width = round(width * _DECIMALS)
        half_height = round(height * _DECIMALS)
        if self.anchor == "overlap":
            x_min, x_max = _in_frame(x), _in_frame(x + 2 * half_width)
            y_min, y_max = _in_frame(y), _in_frame(y + 2 * half_height)
            if x_min < x_max and y_min < y_max:
                return self._outline.fraction_inside(x_min, y_min, x_max, y_max) >= (
                    self.min_overlap - _TOLERANCE
                )
        y += 2 * half_height if self.anchor == "bottom_center" else half_height
        return self._outline.contains(_in_frame(x + half_width), _in_frame(y))

    @cached_property
    def _outline(self) -> _Outline:
        return _Outline(_on_grid(self.polygon))


def polygon_problem(points: object) -> tuple[str, str] | None:
    """Returns what is wrong with the corners of a polygon, and what would be right.

    The corners are rounded to 4 decimals first. The last corner may be equal to the first.

    Returns:
        The problem and the remedy; None for a valid polygon.
    """
    if not isinstance(points, Sequence) or isinstance(points, str):
        return "not a list of points", "write [x, y] for each corner, as fractions of the frame"
    for number, point in enumerate(points, start=1):
        if not _is_pair_of_numbers(point):
            return (
                f"point {number} is not a pair of numbers",
                "write [x, y], as fractions of the frame",
            )
        if not all(0 <= value <= 1 for value in point):
            return (
                f"point {number}, [{point[0]}, {point[1]}], lies outside the frame",
                "both numbers must be fractions of the frame, from 0 to 1",
            )
    corners = _on_grid(points)
    distinct = len(set(corners))
    if distinct < 3:
        return (
            f"{distinct} different {'point' if distinct == 1 else 'points'}",
            "must be at least 3, the corners of an area",
        )
    if _are_on_one_line(corners):
        return "all points lie on one line", "must go around an area"
    crossing = re.search(r"\[(\S+) (\S+)\]", shapely.is_valid_reason(shapely.Polygon(corners)))
    if crossing is not None:
        x, y = (round(float(value) / _FRAME, 4) for value in crossing.groups())
        return (
            f"crosses or touches itself at [{x}, {y}]",
            "give the corners in order around the area, and two areas apart from each other",
        )
    return None


def overlap_outside(a: Area, b: Area, others: Iterable[Area]) -> bool:
    """Returns whether the polygons of two areas overlap anywhere outside those of other areas.

    Areas that only touch do not overlap.
    """
    first, second, *rest = (shapely.Polygon(_on_grid(area.polygon)) for area in (a, b, *others))
    remaining = first.intersection(second).difference(shapely.union_all(rest))
    return bool(remaining.area > _TOLERANCE * _FRAME**2)


def iou(a: Bbox, b: Bbox) -> float:
    """Returns the intersection over union of two boxes of ``(x_min, y_min, width, height)``.

    It is 1 for equal boxes, and 0 for boxes that do not overlap or of which one has no area. It is
    computed from whole ten-thousandths, so that it compares as it is written: 17 of 20 parts are
    ``>= 0.85``.
    """
    a_left, a_top, a_width, a_height = a
    b_left, b_top, b_width, b_height = b
    # Boxes far apart, the most frequent case, need no exact numbers.
    if a_left > b_left + b_width + 1 / _DECIMALS or b_left > a_left + a_width + 1 / _DECIMALS:
        return 0.0
    ax, ay, aw, ah = (
        round(a_left * _DECIMALS),
        round(a_top * _DECIMALS),
        round(a_width * _DECIMALS),
        round(a_height * _DECIMALS),
    )
    bx, by, bw, bh = (
        round(b_left * _DECIMALS),
        round(b_top * _DECIMALS),
        round(b_width * _DECIMALS),
        round(b_height * _DECIMALS),
    )
    width = min(ax + aw, bx + bw) - max(ax, bx)
    height = min(ay + ah, by + bh) - max(ay, by)
    if width <= 0 or height <= 0:
        return 0.0
    intersection = width * height
    return intersection / (aw * ah + bw * bh - intersection)


_SAME_OBJECT = 0.5
_NEAR = 2
_LEAST_MOVED = 10
"""An object has moved by a tenth of its longer side. For the figures behind these numbers, see
docs/evaluate.md."""


def is_same_object(a: Bbox, b: Bbox) -> bool:
    """Returns whether two boxes of one label, in images shortly after each other, can be of one
    object that has not moved: an intersection over union of at least 0.5.
    """
    return iou(a, b) >= _SAME_OBJECT


def has_moved(before: Bbox, after: Bbox, size: tuple[int, int]) -> bool:
    """Returns whether two boxes can be of one object that has moved.

    The centers are apart by 0.1 to 2 times the longer side of the boxes (the mean of the two, in
    pixels), the longer side of neither is more than twice that of the other, and both have an area:
    the place of a box without area can't be compared. The caller knows that they are not in the
    same place. It is computed from whole ten-thousandths of pixels.

    Args:
        before: The box in the earlier image.
        after: The box in the later image.
        size: The width and height of the images in pixels.
    """
    ax, ay, aw, ah = _in_pixel_units(before, size)
    bx, by, bw, bh = _in_pixel_units(after, size)
    if min(aw, ah, bw, bh) <= 0:
        return False
    sides = max(aw, ah), max(bw, bh)
    if 2 * min(sides) < max(sides):
        return False
    # Doubled, because centers lie on half units; and so are the sides, as a sum of two.
    squared_distance = (2 * ax + aw - 2 * bx - bw) ** 2 + (2 * ay + ah - 2 * by - bh) ** 2
    squared_side = sum(sides) ** 2
    return (
        squared_side <= _LEAST_MOVED**2 * squared_distance
        and squared_distance <= _NEAR**2 * squared_side
    )


def _in_pixel_units(box: Bbox, size: tuple[int, int]) -> tuple[int, int, int, int]:
    left, top, width, height = (round(side * _DECIMALS) for side in box)
    return left * size[0], top * size[1], width * size[0], height * size[1]


class _Outline:
    """A polygon on the grid, in a form that is fast to query."""

    def __init__(self, corners: list[tuple[int, int]]) -> None:
        self._shape = shapely.Polygon(corners)
        self._x_min, self._x_max = min(x for x, _ in corners), max(x for x, _ in corners)
        self._y_min, self._y_max = min(y for _, y in corners), max(y for _, y in corners)
        # Each edge goes from its upper end to its lower end, a horizontal one from left to right.
        self._edges = [
            (*min(edge, key=_downwards), *max(edge, key=_downwards))
            for edge in pairwise([*corners, corners[0]])
        ]

    def contains(self, x: int, y: int) -> bool:
        """Returns whether a point lies inside or on the boundary.

        A ray from a point inside crosses the boundary an odd number of times:
        https://wrfranklin.org/Research/Short_Notes/pnpoly.html
        """
        if not (self._x_min <= x <= self._x_max and self._y_min <= y <= self._y_max):
            return False
        inside = False
        for upper_x, upper_y, lower_x, lower_y in self._edges:
            if upper_y <= y <= lower_y:
                side = (lower_x - upper_x) * (y - upper_y) - (lower_y - upper_y) * (x - upper_x)
                if side == 0 and (upper_y != lower_y or upper_x <= x <= lower_x):
                    return True
                if side > 0 and y < lower_y:
                    inside = not inside
        return inside

    def fraction_inside(self, x_min: int, y_min: int, x_max: int, y_max: int) -> float:
        """Returns the fraction of a box, of an area above 0, that lies inside: 0 to 1."""
        if (
            x_max <= self._x_min
            or self._x_max <= x_min
            or y_max <= self._y_min
            or self._y_max <= y_min
        ):
            return 0.0
        inside: float = shapely.clip_by_rect(self._shape, x_min, y_min, x_max, y_max).area
        return inside / ((x_max - x_min) * (y_max - y_min))


def _downwards(corner: tuple[int, int]) -> tuple[int, int]:
    x, y = corner
    return y, x


def _in_frame(value: int) -> int:
    return 0 if value < 0 else _FRAME if value > _FRAME else value


def _on_grid(points: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    return [(2 * round(x * _DECIMALS), 2 * round(y * _DECIMALS)) for x, y in points]


def _is_pair_of_numbers(point: object) -> bool:
    return (
        isinstance(point, Sequence)
        and len(point) == 2
        and all(
            isinstance(value, (int, float))
            and not isinstance(value, bool)
            and not math.isnan(value)
            for value in point
        )
    )


def _are_on_one_line(corners: list[tuple[int, int]]) -> bool:
    first_x, first_y = corners[0]
    other_x, other_y = next(corner for corner in corners if corner != corners[0])
    return all(
        (other_x - first_x) * (y - first_y) == (other_y - first_y) * (x - first_x)
        for x, y in corners
    )
