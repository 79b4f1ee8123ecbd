"""Zones and masks that are drawn: what the rule file says of them, and what they would change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import rules
from beam_pipeline.evaluation.area_trial import (
    AbandonedError,
    SentAlert,
    anchor_points,
    compare,
    judge,
)
from beam_pipeline.evaluation.areas import (
    AreaError,
    DrawnArea,
    find_area,
    labels_of,
    labels_of_camera,
    removal,
)
from beam_pipeline.evaluation.mark_facts import Facts
from beam_pipeline.evaluation.rule_edits import apply_settings
from rules.geometry import polygon_problem
from tests.search import search
from tests.transforms.archives import seen
from transforms.records.times import parse_time

Point = tuple[float, float]
SQUARE = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))
GRID = st.integers(0, 20).map(lambda steps: steps / 20)


@st.composite
def polygons(draw: st.DrawFn) -> tuple[Point, ...]:
    """A polygon of 3 to 8 corners, which may have dents; anchors often lie on its boundary."""
    points = draw(st.lists(st.tuples(GRID, GRID), min_size=3, max_size=8, unique=True))
    middle = [sum(values) / len(points) for values in zip(*points, strict=True)]
    points.sort(key=lambda point: math.atan2(point[1] - middle[1], point[0] - middle[0]))
    assume(polygon_problem(points) is None)
    return tuple(points)


def drawn_areas(camera: str = "hall") -> st.SearchStrategy[DrawnArea]:
    return st.builds(
        DrawnArea,
        st.just(camera),
        st.sampled_from(["zones", "mask"]),
        st.sampled_from(["drive", "bay", "new one", "007", "yes: # 1"]),
        polygons(),
        st.sampled_from(["bottom_center", "center", "overlap"]),
        st.sampled_from([0.25, 0.5, 0.9, 1.0]),
        st.sampled_from([None, frozenset({"person"}), frozenset({"person", "car"})]),
    )


boxes = st.tuples(GRID, GRID, GRID, GRID)
detections = st.tuples(st.sampled_from(["person", "car", "dog"]), st.integers(3, 9), boxes)
archives = st.lists(st.lists(detections, max_size=4), min_size=1, max_size=8)


def images_of(shown: Sequence[Sequence[tuple[str, int, Any]]]) -> list[rules.Image]:
    """An image a minute."""
    images = []
    for minute, found in enumerate(shown):
        image = seen("hall", f"2026-01-31T10:{minute:02d}:00Z").for_rules()
        marked = [rules.Detection("1", label, tenths / 10, box) for label, tenths, box in found]
        images.append(
            rules.Image(image.id, image.timestamp, 640, 480, tuple(marked), f"{minute:064d}", 0.3)
        )
    return images


# A recount, with no part of the rules in it


def crosses(polygon: Sequence[tuple[Fraction, Fraction]], x: Fraction, y: Fraction) -> bool:
    """Whether a point is in a polygon or on its boundary."""
    inside = False
    for (ax, ay), (bx, by) in zip(polygon, (*polygon[1:], polygon[0]), strict=True):
        side = (bx - ax) * (y - ay) - (by - ay) * (x - ax)
        if side == 0 and min(ax, bx) <= x <= max(ax, bx) and min(ay, by) <= y <= max(ay, by):
            return True
        if (ay > y) != (by > y) and x < ax + (y - ay) * (bx - ax) / (by - ay):
            inside = not inside
    return inside


def area_of(polygon: Sequence[tuple[Fraction, Fraction]]) -> Fraction:
    ends = (*polygon[1:], *polygon[:1])
    return abs(sum(ax * by - bx * ay for (ax, ay), (bx, by) in zip(polygon, ends, strict=True))) / 2


def clipped(polygon: list[Any], axis: int, bound: Fraction, sign: int) -> list[Any]:
    """The part of a polygon on one side of a line (Sutherland and Hodgman)."""
    result = []
    for at, end in enumerate(polygon):
        start = polygon[at - 1]
        is_in = [sign * (point[axis] - bound) >= 0 for point in (start, end)]
        if is_in[0] != is_in[1]:
            part = (bound - start[axis]) / (end[axis] - start[axis])
            result.append(tuple(a + part * (b - a) for a, b in zip(start, end, strict=True)))
        if is_in[1]:
            result.append(end)
    return result


def lies_in(area: DrawnArea, box: tuple[float, ...]) -> bool:
    polygon = [(exact(x), exact(y)) for x, y in area.polygon]
    left, top, width, height = map(exact, box)
    if area.anchor == "overlap":
        right, bottom = min(left + width, Fraction(1)), min(top + height, Fraction(1))
        if right > left and bottom > top:
            part: list[Any] = list(polygon)
            for axis, bound, sign in ((0, left, 1), (0, right, -1), (1, top, 1), (1, bottom, -1)):
                part = clipped(part, axis, bound, sign)
            share = area_of(part) / ((right - left) * (bottom - top))
            return share >= exact(area.min_overlap)
    down = height if area.anchor == "bottom_center" else height / 2
    return crosses(polygon, min(left + width / 2, Fraction(1)), min(top + down, Fraction(1)))


def exact(value: float) -> Fraction:
    return Fraction(round(value * 10_000), 10_000)


def alerts(image: rules.Image, areas: Sequence[DrawnArea]) -> list[str]:
    """The labels for which there is an alert if persons and cars need a score of 0.5."""
    found = []
    for one in image.detections:
        about = [area for area in areas if area.labels is None or one.label in area.labels]
        masks = [area for area in about if area.section == "mask"]
        zones = [area for area in about if area.section == "zones"]
        if one.label == "dog" or one.conf < 0.5 or any(lies_in(area, one.bbox) for area in masks):
            continue
        if not zones or any(lies_in(area, one.bbox) for area in zones):
            found.append(one.label)
    return found


PLAIN = "version: 1\ndefaults: {objects: {person: , car: }, cooldown: 0s}\n"


@pytest.mark.search
@search(150)
@given(archives, drawn_areas(), drawn_areas(), st.data())
def test_what_is_counted_is_what_a_slow_recount_finds(
    shown: list[list[tuple[str, int, Any]]], there: DrawnArea, drawn: DrawnArea, data: st.DataObject
) -> None:
    images = images_of(shown)
    before = there.applied(rules.parse_rules(PLAIN.encode(), "rules.yaml"))
    is_same = (there.section, there.name) == (drawn.section, drawn.name)
    areas_after = [drawn] if is_same else [there, drawn]
    marks = data.draw(st.lists(st.sampled_from(["right", "false", None]), min_size=len(images),
                               max_size=len(images)))  # fmt: skip
    facts, right, false, lost, gained, sent = {}, 0, 0, 0, 0, 0
    for image, mark in zip(images, marks, strict=True):
        labels = alerts(image, [there])
        if mark == "right":
            facts["hall", image.timestamp] = Facts(dict.fromkeys(labels, ()), frozenset())
        elif mark == "false":
            facts["hall", image.timestamp] = Facts({}, frozenset(labels))
        sent += bool(labels)
        is_lost = bool(labels) and not alerts(image, areas_after)
        lost += is_lost
        right += is_lost and mark == "right"
        false += is_lost and mark == "false"
        gained += not labels and bool(alerts(image, areas_after))
    about = [
        (one.label, one.bbox)
        for image in images
        for one in image.detections
        if one.label in alerts_of_boxes(image, one, there)
        and (drawn.labels is None or one.label in drawn.labels)
    ]
    judged = judge(images, before, None)
    trial = compare(judged, judge(images, drawn.applied(before), None), facts, drawn)
    assert (trial.images, trial.alerts, trial.lost, trial.gained) == (
        len(images), sent, lost, gained,
    )  # fmt: skip
    assert (trial.lost_right, trial.lost_false) == (right, false)
    assert trial.threats == len(about)
    assert trial.inside == sum(lies_in(drawn, box) for _, box in about)
    dots = anchor_points(judged, drawn, 1000)
    assert sorted(dot[2] for dot in dots) == sorted(lies_in(drawn, box) for _, box in about)


def alerts_of_boxes(image: rules.Image, one: rules.Detection, there: DrawnArea) -> list[str]:
    alone = rules.Image(image.id, image.timestamp, 640, 480, (one,), image.sha256, 0.3)
    return alerts(alone, [there])


FILE = """\
version: 1
# all of them
defaults:
  objects: {person: {min_score: 0.5}, car: }   # as measured
  cooldown: 20m
  mask:
    bay: {polygon: [[0, 0], [0.5, 0], [0.5, 0.5]], objects: [car]}
profiles:
  out:
    zones:
      drive: {polygon: [[0, 0.5], [1, 0.5], [1, 1]], anchor: center}
cameras:
  hall:
    profile: out
    zones:
      # where people walk
      walk:
        polygon:   # clockwise
          - [0.1, 0.1]
          - [0.9, 0.1]
          - [0.9, 0.9]
        objects:
          person: {min_score: 0.7}   # they are near
      # the end
  gate:
    objects: {dog: }
"""


@pytest.mark.search
@search(150)
@given(archives, drawn_areas(), st.sampled_from(["hall", "gate", "elsewhere"]))
def test_the_rule_file_says_what_was_drawn_and_judges_as_the_trial_did(
    shown: list[list[tuple[str, int, Any]]], drawn: DrawnArea, camera: str
) -> None:
    name = "walk" if drawn.name == "007" else drawn.name
    drawn = DrawnArea(camera, drawn.section, name, drawn.polygon, drawn.anchor, drawn.min_overlap,
                      drawn.labels)  # fmt: skip
    ruleset = rules.parse_rules(FILE.encode(), "rules.yaml")
    settings = drawn.settings(ruleset.for_camera(camera))
    changed = apply_settings(FILE, settings)
    written = rules.parse_rules(changed.encode(), "rules.yaml")
    for other in {"hall", "gate", "elsewhere"} - {camera}:
        assert written.for_camera(other) == ruleset.for_camera(other)
    try:
        drawn.check(written.for_camera(camera))
    except AreaError:
        # Labels of a lower layer stay.
        before = find_area(ruleset.for_camera(camera), drawn.section, name)
        assert before is not None
        assert labels_of(before) is not None
        assert drawn.labels is None
        return
    area = find_area(written.for_camera(camera), drawn.section, name)
    assert area is not None
    assert area.area is not None
    assert (area.polygon, area.anchor, labels_of(area)) == (
        drawn.polygon, drawn.anchor, drawn.labels,
    )  # fmt: skip
    if drawn.anchor == "overlap":
        assert area.min_overlap == drawn.min_overlap
    assert drawn.settings(written.for_camera(camera)) == ()
    images = [
        rules.Image(camera, one.timestamp, 640, 480, one.detections, one.sha256, 0.3)
        for one in images_of(shown)
    ]
    assert judge(images, drawn.applied(ruleset), None) == judge(images, written, None)
    kept = [line for line in FILE.splitlines() if "#" in line and "clockwise" not in line]
    if (camera, drawn.section, name, drawn.labels) == ("hall", "zones", "walk", None):
        kept.remove("          person: {min_score: 0.7}   # they are near")  # That is what goes.
    for line in kept:
        assert line in changed.splitlines()


@pytest.mark.parametrize(
    ("area", "added", "gone"),
    [
        (
            DrawnArea("hall", "zones", "bay 2", SQUARE),
            ["      bay 2: {polygon: [[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]]}"],
            [],
        ),
        (
            DrawnArea("gate", "mask", "tree", SQUARE, "overlap", 0.9, frozenset({"dog"})),
            [
                "    mask:",
                "      tree: {polygon: [[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]], "
                "anchor: overlap, min_overlap: 0.9, objects: [dog]}",
            ],
            [],
        ),
        (
            DrawnArea("hall", "zones", "walk", ((0.1, 0.1), (0.9, 0.1), (0.9, 0.9)),
                      labels=frozenset({"person", "car"})),
            ["          car: {}"],
            [],
        ),
        (
            DrawnArea("hall", "mask", "bay", ((0, 0), (0.5, 0), (0.5, 0.25)),
                      labels=frozenset({"car"})),
            ["    mask:", "      bay:", "        polygon: [[0, 0], [0.5, 0], [0.5, 0.25]]"],
            [],
        ),
    ],
)  # fmt: skip
def test_only_what_differs_is_written(area: DrawnArea, added: list[str], gone: list[str]) -> None:
    camera = rules.parse_rules(FILE.encode(), "rules.yaml").for_camera(area.camera)
    changed = apply_settings(FILE, area.settings(camera)).splitlines()
    assert [line for line in changed if line not in FILE.splitlines()] == added
    assert [line for line in FILE.splitlines() if line not in changed] == gone


def test_a_comment_after_a_section_that_goes_stays_where_the_polygon_changes_too() -> None:
    """Found by the search above."""
    camera = rules.parse_rules(FILE.encode(), "rules.yaml").for_camera("hall")
    changed = apply_settings(FILE, DrawnArea("hall", "zones", "walk", SQUARE).settings(camera))
    polygon = (
        "        polygon: [[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]] # clockwise"
    )
    assert f"      walk:\n{polygon}\n      # the end\n  gate:\n" in changed


def test_what_is_removed_leaves_the_other_lines_and_all_comments_between() -> None:
    changed = apply_settings(FILE, removal("hall", "zones", "walk"))
    lines, first = FILE.splitlines(), FILE.splitlines().index("    zones:", 12)
    end = lines.index("      # the end")
    assert changed.splitlines() == [*lines[:first], *lines[end:]]
    assert "walk" not in rules.parse_rules(changed.encode(), "x").for_camera("hall").zones
    further = "      # the end\n      two: {polygon: [[0, 0], [1, 0], [1, 1]]}"
    two = FILE.replace("      # the end", further)
    left = apply_settings(two, removal("hall", "zones", "walk"))
    assert further in left
    # What is not there can't be removed.
    for section, name in (("mask", "bay"), ("zones", "drive"), ("zones", "no such")):
        assert apply_settings(FILE, removal("hall", section, name)) == FILE  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"polygon": ((0, 0), (1, 1), (1, 0), (0, 1))}, "crosses or touches itself at [0.5, 0.5]"),
        ({"polygon": ((0, 0), (1, 1))}, "2 different points; must be at least 3"),
        ({"polygon": ()}, "0 different points"),
        ({"polygon": ((0, 0), (0.5, 0.5), (1, 1))}, "all points lie on one line"),
        ({"polygon": ((0, 0), (0.00001, 0), (0, 0.00001))}, "1 different point"),
        ({"polygon": ((0, 0), (1.01, 0), (0, 1))}, "lies outside the frame"),
        ({"polygon": ((0, 0), (math.nan, 0), (0, 1))}, "is not a pair of numbers"),
        ({"polygon": tuple((n / 200, (n / 200) ** 2) for n in range(101))}, "101 corners"),
        ({"name": ""}, "Give the zone a name"),
        ({"name": "x" * 65}, "Give the zone a name"),
        ({"name": "a\nb"}, "printable"),
        ({"min_overlap": 0.00001}, "from 0.0001 to 1"),
        ({"min_overlap": math.nan}, "from 0.0001 to 1"),
        ({"labels": frozenset()}, "Choose the labels"),
    ],
)
def test_an_area_that_can_not_be_is_refused_in_words(values: dict[str, Any], says: str) -> None:
    with pytest.raises(AreaError) as refused:
        DrawnArea(
            **{"camera": "hall", "section": "zones", "name": "a", "polygon": SQUARE, **values}
        )
    assert says in str(refused.value)


def test_images_before_the_period_are_judged_and_do_not_count() -> None:
    text = PLAIN.replace("cooldown: 0s", "cooldown: 5m, incident_gap: 0s")
    ruleset = rules.parse_rules(text.encode(), "rules.yaml")
    images = images_of([[("person", 9, (0.1, 0.1, 0.1, 0.1))]] * 8)
    assert [one.is_sent for one in judge(images, ruleset, None)] == [
        True, False, False, False, False, True, False, False,
    ]  # fmt: skip
    counted = judge(images, ruleset, parse_time("2026-01-31T10:02:00Z"))
    assert [one.is_sent for one in counted] == [False, False, False, True, False, False]


def test_a_result_that_nobody_waits_for_is_not_made() -> None:
    ruleset = rules.parse_rules(PLAIN.encode(), "rules.yaml")
    with pytest.raises(AbandonedError):
        judge(images_of([[]]), ruleset, None, lambda: False)


def test_the_anchor_is_drawn_where_the_rules_look() -> None:
    threats = (("person", (0.2, 0.2, 0.2, 0.4)), ("car", (0.8, 0.8, 0.6, 0.6)))
    judged = [SentAlert("2026-01-31T10:00:00Z", frozenset({"person"}), True, threats)]
    points = {
        anchor: anchor_points(judged, DrawnArea("hall", "zones", "a", SQUARE, anchor), 10)
        for anchor in ("bottom_center", "center", "overlap")
    }
    assert points["bottom_center"] == [(0.3, 0.6, True), (1.0, 1.0, False)]
    assert points["center"] == [(0.3, 0.4, True), (1.0, 1.0, False)]
    assert points["overlap"] == [(0.3, 0.4, True), (1.0, 1.0, False)]
    about = DrawnArea("hall", "zones", "a", SQUARE, labels=frozenset({"car"}))
    assert anchor_points(judged, about, 10) == [(1.0, 1.0, False)]
    assert len(anchor_points(judged * 20, DrawnArea("hall", "mask", "a", SQUARE), 7)) == 7


def test_an_area_can_be_about_each_label_that_the_rules_of_the_camera_name() -> None:
    ruleset = rules.parse_rules(FILE.encode(), "rules.yaml")
    assert labels_of_camera(ruleset.for_camera("hall")) == ("car", "person")
    assert labels_of_camera(ruleset.for_camera("gate")) == ("car", "dog", "person")
