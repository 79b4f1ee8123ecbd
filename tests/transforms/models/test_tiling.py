"""What was detected in an image and in its tiles is merged: each object once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules import Detection, Tiles
from rules.geometry import iou
from tests.search import search
from transforms.models.tiling import is_cut, merge

UPPER_LEFT = (0.0, 0.0, 0.5, 0.5)


def person(score, bbox, category="1"):
    return Detection(category, "person" if category == "1" else "car", score, bbox)


@pytest.mark.parametrize(
    ("bbox", "cut"),
    [
        pytest.param((0.1, 0.1, 0.2, 0.2), False, id="inside"),
        pytest.param((0.0, 0.0, 0.2, 0.2), False, id="at the borders of the image"),
        pytest.param((0.3, 0.1, 0.2, 0.2), True, id="at the right"),
        pytest.param((0.1, 0.3, 0.2, 0.2), True, id="at the bottom"),
        pytest.param((0.3, 0.1, 0.189, 0.2), False, id="1.1 hundredths of the image before it"),
        pytest.param((0.3, 0.1, 0.191, 0.2), True, id="0.9 hundredths of the image before it"),
    ],
)
def test_a_box_that_reaches_an_inner_border_of_its_tile_is_cut(bbox, cut):
    assert is_cut(person(0.9, bbox), UPPER_LEFT) == cut
    x, y, width, height = bbox
    mirrored = person(0.9, (1 - x - width, 1 - y - height, width, height))
    assert is_cut(mirrored, (0.5, 0.5, 1.0, 1.0)) == cut


def test_the_whole_image_has_no_inner_border():
    assert not is_cut(person(0.9, (0.0, 0.0, 1.0, 1.0)), (0.0, 0.0, 1.0, 1.0))


def test_the_tiles_of_a_grid_cut_nothing_at_the_borders_of_the_image():
    for region in Tiles(3, 3, 0.1).regions(1921, 1081):
        edges = (region.left / 1921, region.top / 1081, region.right / 1921, region.bottom / 1081)
        left, top, right, bottom = edges
        inner = [left > 0, top > 0, right < 1, bottom < 1]
        box = person(0.9, (left, top, right - left, bottom - top))
        assert is_cut(box, edges) == any(inner)
        assert inner.count(True) in (2, 3, 4)


@pytest.mark.search
@search(500)
@given(
    st.builds(Tiles, *[st.integers(1, 5)] * 2, st.floats(0.1, 0.5)),
    *(st.integers(640, 4000), st.integers(480, 3000)),
    *[st.floats(0, 1)] * 4,
)
def test_an_object_smaller_than_the_overlap_less_4_percent_is_whole_in_a_tile(
    tiles, width, height, x, y, across, down
):
    tile_width, tile_height = tiles.size(width, height)
    rounding = 3  # pixels: of both borders of a tile, and of the box.
    box_width = max(1, across * ((tiles.overlap - 0.04) * tile_width - rounding)) / width
    box_height = max(1, down * ((tiles.overlap - 0.04) * tile_height - rounding)) / height
    bbox = (x * (1 - box_width), y * (1 - box_height), box_width, box_height)
    box = person(0.9, tuple(round(value, 4) for value in bbox))

    def shows_whole(region):
        left, top, right, bottom = region
        inside = left <= bbox[0] and top <= bbox[1]
        inside = inside and bbox[0] + box_width <= right and bbox[1] + box_height <= bottom
        return inside and not is_cut(box, region)

    assert any(
        shows_whole((left / width, top / height, right / width, bottom / height))
        for left, top, right, bottom in tiles.regions(width, height)
    )


def test_one_object_that_several_inputs_show_is_detected_once_with_the_best_score():
    whole = [person(0.4, (0.1, 0.1, 0.1, 0.2))]
    tile = [person(0.8, (0.1, 0.1, 0.1, 0.21)), person(0.3, (0.3, 0.1, 0.1, 0.2))]
    assert merge(whole, [(UPPER_LEFT, tile)]) == tuple(tile)


def test_boxes_of_other_classes_and_half_as_large_ones_are_other_objects():
    whole = [person(0.9, (0.1, 0.1, 0.2, 0.2))]
    tile = [person(0.8, (0.1, 0.1, 0.2, 0.2), "3"), person(0.7, (0.1, 0.1, 0.2, 0.1))]
    assert merge(whole, [(UPPER_LEFT, tile)]) == (*whole, *tile)


def test_boxes_of_one_input_are_left_to_the_model():
    whole = [person(0.9, (0.1, 0.1, 0.2, 0.2)), person(0.8, (0.1, 0.1, 0.2, 0.19))]
    assert merge(whole, [(UPPER_LEFT, [])]) == tuple(whole)
    assert merge([], [(UPPER_LEFT, whole)]) == tuple(whole)


def test_a_cut_box_hides_no_whole_one():
    cut, whole = person(0.9, (0.35, 0.1, 0.15, 0.2)), person(0.6, (0.35, 0.1, 0.2, 0.2))
    assert merge([whole], [(UPPER_LEFT, [cut])]) == (whole,)


BOXES = st.builds(
    lambda x, y, width, height, score, category: person(
        score / 10, (x / 20, y / 20, width / 20, height / 20), category
    ),
    *(st.integers(0, 12), st.integers(0, 12), st.integers(1, 8), st.integers(1, 8)),
    *(st.integers(1, 9), st.sampled_from("13")),
)
TILES = st.lists(
    st.tuples(
        st.sampled_from([UPPER_LEFT, (0.5, 0.0, 1.0, 0.5), (0.25, 0.25, 0.75, 0.75)]),
        st.lists(BOXES, max_size=6),
    ),
    max_size=4,
)


def slow_merge(whole, tiles):
    """The best box of all stands, and those of other inputs around its object go; then the next."""
    left = [(box, 0) for box in whole]
    for number, (region, boxes) in enumerate(tiles):
        left += [(box, number + 1) for box in boxes if not is_cut(box, region)]
    kept = []
    while left:
        best = min(left, key=lambda one: (-one[0].conf, int(one[0].category), one[0].bbox, one[1]))
        left.remove(best)
        kept.append(best[0])
        left = [
            (box, source)
            for box, source in left
            if source == best[1]
            or box.category != best[0].category
            or iou(box.bbox, best[0].bbox) <= 0.5
        ]
    return tuple(kept)


@pytest.mark.search
@search(300)
@given(st.lists(BOXES, max_size=6), TILES)
def test_what_is_merged_is_that_of_a_slow_twin_in_any_order(whole, tiles):
    merged = merge(whole, tiles)
    assert merged == slow_merge(whole, tiles)
    assert merge(whole[::-1], [(region, boxes[::-1]) for region, boxes in tiles]) == merged
    for box in merged:
        assert box in whole or any(box in boxes for _, boxes in tiles)
