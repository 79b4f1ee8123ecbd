"""Polygons, the boxes that belong to them, and the overlap of two boxes."""

import itertools
import math
import pickle
from fractions import Fraction

import pytest
import shapely
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rules.geometry import Area, iou, polygon_problem

DRIVE = ((0.0, 0.5), (1.0, 0.5), (1.0, 1.0), (0.0, 1.0))
"""The lower half of the image."""

ARROW = ((0.1, 0.1), (0.9, 0.5), (0.1, 0.9), (0.5, 0.5))
"""A shape with a concave corner."""


def rounded(value):
    return round(value, 4)


fractions = st.integers(0, 10_000).map(lambda units: units / 10_000)
# A coarse grid, so that corners, edges and boxes often touch.
coarse = st.integers(0, 10).map(lambda tenths: tenths / 10)
coordinates = st.integers(-3_000, 12_000).map(lambda units: units / 10_000)
boxes = st.tuples(coordinates, coordinates, fractions, fractions)
coarse_boxes = st.tuples(coarse, coarse, coarse, coarse)


@st.composite
def polygons(draw, values=fractions):
    """Draws points in order around one of them or their middle.

    Few of these polygons cross themselves, and many are concave.
    """
    points = draw(st.lists(st.tuples(values, values), min_size=3, max_size=7, unique=True))
    middle = (sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points))
    around = draw(st.sampled_from([middle, points[0]]))
    points.sort(key=lambda point: math.atan2(point[1] - around[1], point[0] - around[0]))
    assume(polygon_problem(points) is None)
    return tuple(points)


def clipped_areas(polygon, box):
    """Computes the area of a polygon in a box in the frame, and the box's area there.

    The fractions are exact. The polygon is clipped by each side of the box (Sutherland and
    Hodgman, 1974).
    """
    x, y, width, height = (Fraction(round(value * 10_000), 10_000) for value in box)
    low = (max(x, Fraction(0)), max(y, Fraction(0)))
    high = (min(x + width, Fraction(1)), min(y + height, Fraction(1)))
    points = [tuple(Fraction(round(value * 10_000), 10_000) for value in p) for p in polygon]
    for axis, bound, sign in ((0, low[0], 1), (0, high[0], -1), (1, low[1], 1), (1, high[1], -1)):
        kept = []
        for a, b in itertools.pairwise([*points, points[0]] if points else []):
            a_in, b_in = sign * (a[axis] - bound) >= 0, sign * (b[axis] - bound) >= 0
            if a_in:
                kept.append(a)
            if a_in != b_in:
                share = (bound - a[axis]) / (b[axis] - a[axis])
                kept.append(tuple(a[i] + share * (b[i] - a[i]) for i in (0, 1)))
        points = kept
    twice = sum(a[0] * b[1] - b[0] * a[1] for a, b in itertools.pairwise([*points, *points[:1]]))
    return abs(twice) / 2, max(0, high[0] - low[0]) * max(0, high[1] - low[1])


def point_box(x, y):
    """Returns a box without area, whose anchors are one point."""
    return (x, y, 0.0, 0.0)


@pytest.mark.parametrize(
    ("anchor", "bbox", "inside"),
    [
        # the middle of the lower edge is on the boundary, outside, inside
        ("bottom_center", (0.4, 0.3, 0.2, 0.2), True),
        ("bottom_center", (0.4, 0.3, 0.2, 0.1999), False),
        ("bottom_center", (0.4, 0.3, 0.2, 0.3), True),
        ("center", (0.4, 0.4, 0.2, 0.2), True),
        ("center", (0.4, 0.3999, 0.2, 0.2), False),
        # the middle of an uneven number of ten-thousandths lies between two of them
        ("center", (0.4, 0.4, 0.2, 0.2001), True),
        ("center", (0.4, 0.4, 0.2, 0.1999), False),
        ("overlap", (0.4, 0.4, 0.2, 0.2), True),
        ("overlap", (0.4, 0.4, 0.2, 0.1999), False),
        ("overlap", (0.4, 0.4, 0.2, 0.2001), True),
        ("overlap", (0.4, 0.1, 0.2, 0.2), False),
        ("overlap", (0.4, 0.7, 0.2, 0.2), True),
        # without area: by the center
        ("overlap", (0.4, 0.5, 0.2, 0.0), True),
        ("overlap", (0.4, 0.4999, 0.2, 0.0), False),
        ("overlap", (0.5, 0.2, 0.0, 0.6), True),
        # below and beside the frame: moved to its edge
        ("bottom_center", (0.4, 0.9, 0.2, 0.3), True),
        ("bottom_center", (-0.4, 0.5, 0.2, 0.3), True),
        ("center", (1.1, 0.6, 0.2, 0.1), True),
        ("center", (1.1, 0.2, 0.2, 0.1), False),
        ("overlap", (1.1, 0.6, 0.2, 0.1), True),
        ("overlap", (1.1, 0.2, 0.2, 0.1), False),
        # only the part of the box in the frame counts: half of it lies in the drive
        ("overlap", (0.9, 0.4, 0.9, 0.2), True),
        ("overlap", (0.9, 0.3999, 0.9, 0.2), False),
        ("overlap", (0.4, 0.4, 0.2, -0.1), False),
        ("overlap", (0.4, 0.8, 0.2, 0.9), True),
    ],
)
def test_a_box_belongs_to_an_area_by_its_anchor(anchor, bbox, inside):
    assert Area(DRIVE, anchor).contains(bbox) is inside


@pytest.mark.parametrize("anchor", ["bottom_center", "center"])
def test_the_anchor_is_half_the_width_to_the_right(anchor):
    """The anchor is at 0.45."""
    left = ((0.0, 0.0), (0.4499, 0.0), (0.4499, 1.0), (0.0, 1.0))
    right = ((0.45, 0.0), (1.0, 0.0), (1.0, 1.0), (0.45, 1.0))
    box = (0.3, 0.4, 0.3, 0.2)
    assert [Area(side, anchor).contains(box) for side in (left, right)] == [False, True]


@pytest.mark.parametrize(
    ("min_overlap", "inside"), [(0.1, True), (0.3, True), (0.3001, False), (1.0, False)]
)
def test_an_overlap_equal_to_the_minimum_is_enough(min_overlap, inside):
    assert Area(DRIVE, "overlap", min_overlap).contains((0.1, 0.36, 0.3, 0.2)) is inside


def test_the_minimum_overlap_can_be_the_whole_box():
    whole = Area(DRIVE, "overlap", 1.0)
    assert whole.contains((0.2, 0.5, 0.3, 0.5))
    assert whole.contains((0.2, 0.5, 0.3, 0.9))
    assert not whole.contains((0.2, 0.4999, 0.3, 0.5))


@pytest.mark.parametrize(
    ("x", "y", "inside"),
    [(0.3, 0.5, False), (0.4999, 0.5, False), (0.5, 0.5, True), (0.7, 0.5, True), (0.9, 0.5, True)],
)
def test_a_bay_is_outside(x, y, inside):
    assert Area(ARROW, "center").contains(point_box(x, y)) is inside


@settings(deadline=None, max_examples=150)
@given(polygons() | polygons(coarse), boxes | coarse_boxes, st.data())
def test_the_order_of_the_corners_and_a_repeated_last_one_change_nothing(polygon, bbox, data):
    first = data.draw(st.integers(0, len(polygon) - 1))
    turned = polygon[first:] + polygon[:first]
    for anchor in ("bottom_center", "center", "overlap"):
        expected = Area(polygon, anchor).contains(bbox)
        for same in (turned, turned[::-1], (*turned, turned[0])):
            assert Area(same, anchor).contains(bbox) is expected


@settings(deadline=None, max_examples=150)
@given(polygons() | polygons(coarse), st.data())
def test_a_point_on_the_boundary_is_inside(polygon, data):
    """Draws points of an edge with 4 decimals: its corners, and equal steps between them."""
    (ax, ay), (bx, by) = data.draw(
        st.sampled_from(list(itertools.pairwise([*polygon, polygon[0]])))
    )
    across, down = round((bx - ax) * 10_000), round((by - ay) * 10_000)
    steps = math.gcd(across, down)
    step = data.draw(st.integers(0, steps))
    x = rounded(ax + across // steps * step / 10_000)
    y = rounded(ay + down // steps * step / 10_000)
    for anchor in ("bottom_center", "center", "overlap"):
        assert Area(polygon, anchor).contains(point_box(x, y))


@settings(deadline=None, max_examples=150)
@given(polygons() | polygons(coarse), st.lists(st.tuples(fractions | coarse, fractions | coarse)))
def test_a_point_is_inside_if_shapely_covers_it(polygon, points):
    area = Area(polygon)
    grid = shapely.Polygon([(round(x * 10_000), round(y * 10_000)) for x, y in polygon])
    for x, y in points:
        covered = grid.covers(shapely.Point(round(x * 10_000), round(y * 10_000)))
        assert area.contains(point_box(x, y)) is covered


@settings(deadline=None, max_examples=200)
@given(polygons() | polygons(coarse), boxes | coarse_boxes)
def test_overlap_is_the_exact_fraction_of_the_box(polygon, bbox):
    inside, whole = clipped_areas(polygon, bbox)
    assume(whole > 0)
    share = inside / whole
    if share > 0:
        assert Area(polygon, "overlap", min(1.0, float(share))).contains(bbox)
    if share < 0.999999:
        assert not Area(polygon, "overlap", float(share) + 1e-6).contains(bbox)


@settings(deadline=None, max_examples=25)
@given(polygons(), st.integers(0, 8_000), st.integers(0, 8_000), st.integers(1_000, 2_000))
def test_overlap_agrees_with_counted_points(polygon, left, top, size):
    """Counts 40 by 40 points of the box; the boundary can make a difference of a few points."""
    area = Area(polygon, "center")
    steps = [round((number + 0.5) * size / 40) for number in range(40)]
    inside = [
        area.contains(point_box((left + x) / 10_000, (top + y) / 10_000))
        for x in steps
        for y in steps
    ]
    counted = sum(inside) / len(inside)
    bbox = (left / 10_000, top / 10_000, size / 10_000, size / 10_000)
    # An edge of the polygon crosses at most 80 of the 1,600 cells.
    error = len(polygon) * 80 / 1_600
    if counted - error > 0:
        assert Area(polygon, "overlap", counted - error).contains(bbox)
    if counted + error < 1:
        assert not Area(polygon, "overlap", counted + error).contains(bbox)


def test_an_area_is_equal_hashable_and_pickled_without_its_cache():
    area = Area(ARROW, "overlap", 0.3)
    before = pickle.dumps(area)
    assert area.contains((0.4, 0.4, 0.3, 0.3))
    assert pickle.dumps(area) == before
    copy = pickle.loads(before)
    assert copy.contains((0.4, 0.4, 0.3, 0.3))
    assert {copy, area} == {Area(ARROW, "overlap", 0.3)}
    assert len({Area(ARROW), Area(ARROW, "center"), Area(DRIVE)}) == 3


@pytest.mark.parametrize(
    ("points", "problem", "remedy"),
    [
        ([], "0 different points", "must be at least 3, the corners of an area"),
        ([[0, 0], [1, 1]], "2 different points", "must be at least 3"),
        ([[0.1, 0.1]] * 4, "1 different point", "must be at least 3"),
        # the same once they have 4 decimals
        ([[0.1, 0.1], [0.10001, 0.1], [0.5, 0.5]], "2 different points", "must be at least 3"),
        ([[0, 0], [0.5, 0.5], [1, 1]], "all points lie on one line", "must go around an area"),
        ([[0, 0.3], [1, 0.3], [0.5, 0.30004]], "all points lie on one line", "must go around"),
        ([[0, 0], [1, 1], [1, 0], [0, 1]], "crosses or touches itself at [0.5, 0.5]", "in order"),
        (
            [[0, 0], [0.4, 0], [0.2, 0.2], [0.4, 0.4], [0, 0.4], [0.2, 0.2]],
            "crosses or touches itself at [0.2, 0.2]",
            "two areas apart from each other",
        ),
        (
            [[0, 0], [0.5, 0], [0.5, 0.5], [0.9, 0.9], [0.5, 0.5], [0, 0.5]],
            "crosses or touches itself at [0.5, 0.5]",
            "in order",
        ),
        (
            [[0, 0], [1, 0], [1, 1.0001]],
            "point 3, [1, 1.0001], lies outside the frame",
            "both numbers must be fractions of the frame, from 0 to 1",
        ),
        ([[0, -0.1], [1, 0], [1, 1]], "point 1, [0, -0.1], lies outside the frame", "from 0 to 1"),
        ([[640, 480], [1, 0], [1, 1]], "point 1, [640, 480], lies outside the frame", "fractions"),
        ([[0, math.inf], [1, 0], [1, 1]], "point 1, [0, inf], lies outside the frame", "fraction"),
        ([[0, 0], [1, math.nan], [1, 1]], "point 2 is not a pair of numbers", "write [x, y], as"),
        ([[0, 0], [1, True], [1, 1]], "point 2 is not a pair of numbers", "write [x, y], as"),
        ([[0, 0], [1, "1"], [1, 1]], "point 2 is not a pair of numbers", "write [x, y], as"),
        ([[0, 0], [1, 1, 1], [1, 1]], "point 2 is not a pair of numbers", "write [x, y], as"),
        ([0, 0, 1, 1], "point 1 is not a pair of numbers", "write [x, y], as"),
        ("0,0,1,1,0,1", "not a list of points", "write [x, y] for each corner"),
        (None, "not a list of points", "write [x, y] for each corner"),
    ],
)  # fmt: skip
def test_a_wrong_polygon_is_reported_with_a_remedy(points, problem, remedy):
    problem_and_remedy = polygon_problem(points)
    assert problem_and_remedy is not None
    assert problem_and_remedy[0] == problem
    assert remedy in problem_and_remedy[1]


@pytest.mark.parametrize("points", [DRIVE, ARROW, [*ARROW, ARROW[0]], [[0, 0], [1, 0], [0, 1]]])
def test_valid_polygons_are_accepted(points):
    assert polygon_problem(points) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"polygon": ((0, 0), (1, 1), (1, 0), (0, 1))}, "polygon: crosses or touches itself"),
        ({"polygon": DRIVE, "min_overlap": 0.0}, "min_overlap must be above 0"),
        ({"polygon": DRIVE, "min_overlap": 1.1}, "min_overlap must be above 0"),
        ({"polygon": DRIVE, "min_overlap": math.nan}, "min_overlap must be above 0"),
    ],
)
def test_a_wrong_area_is_rejected(values, message):
    with pytest.raises(ValueError, match=message):
        Area(**values)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0.1, 0.1, 0.2, 0.2), (0.1, 0.1, 0.2, 0.2), 1.0),
        ((0.1, 0.1, 0.2, 0.2), (0.2, 0.1, 0.2, 0.2), 1 / 3),
        ((0.1, 0.1, 0.2, 0.2), (0.2, 0.2, 0.2, 0.2), 1 / 7),
        ((0.0, 0.0, 1.0, 1.0), (0.1, 0.1, 0.2, 0.2), 0.04),
        # 17 of 20 parts
        ((0.0, 0.0, 0.2, 0.1), (0.0, 0.0, 0.17, 0.1), 0.85),
        ((0.1, 0.1, 0.3, 0.3), (0.1, 0.1, 0.3, 0.255), 0.85),
        # they only touch
        ((0.1, 0.1, 0.2, 0.2), (0.3, 0.1, 0.2, 0.2), 0.0),
        ((0.1, 0.1, 0.2, 0.2), (0.1, 0.3, 0.2, 0.2), 0.0),
        ((0.1, 0.1, 0.2, 0.2), (0.3, 0.3, 0.2, 0.2), 0.0),
        # one above the other, one far to the side
        ((0.1, 0.1, 0.2, 0.2), (0.1, 0.7, 0.2, 0.2), 0.0),
        ((0.1, 0.1, 0.2, 0.2), (0.7, 0.1, 0.2, 0.2), 0.0),
        # without area
        ((0.1, 0.1, 0.0, 0.2), (0.1, 0.1, 0.0, 0.2), 0.0),
        ((0.1, 0.1, 0.2, 0.2), (0.15, 0.15, 0.0, 0.0), 0.0),
        ((0.1, 0.1, 0.2, 0.2), (0.3, 0.3, -0.1, -0.1), 0.0),
        # out of the frame on both sides
        ((-0.1, 0.1, 0.2, 0.2), (-0.1, 0.1, 0.2, 0.2), 1.0),
    ],
)
def test_iou(a, b, expected):
    assert iou(a, b) == expected


@given(boxes | coarse_boxes, boxes | coarse_boxes)
def test_iou_is_symmetric_and_agrees_with_shapely(a, b):
    assert iou(a, b) == iou(b, a)
    shapes = [
        shapely.box(*(round(value * 10_000) for value in (x, y, x + width, y + height)))
        for x, y, width, height in (a, b)
    ]
    whole = shapes[0].union(shapes[1]).area
    flat = 0 in (*a[2:], *b[2:])
    expected = 0 if flat else shapes[0].intersection(shapes[1]).area / whole
    assert iou(a, b) == pytest.approx(expected, abs=1e-9)


@given(boxes)
def test_a_box_has_an_iou_of_1_with_itself(bbox):
    assume(bbox[2] > 0 and bbox[3] > 0)
    assert iou(bbox, bbox) == 1
