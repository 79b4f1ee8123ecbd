"""The grid of tiles of a camera, and where its tiles lie in an image."""

import dataclasses
import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules import Region, RulesError, Tiles, parse_rules
from tests.search import search

SIDES = st.integers(1, 8192)
GRIDS = st.builds(
    Tiles,
    st.integers(1, 8),
    st.integers(1, 8),
    st.one_of(st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.5]), st.floats(0, 0.5)),
    st.sampled_from([0.0, 0.3, 0.35, 1.0]),
)


def tiles_of(layers: str, camera: str = "a") -> Tiles | None:
    return parse_rules(f"version: 1\n{layers}\n", "rules.yaml").for_camera(camera).tiles


@pytest.mark.parametrize(
    ("layers", "grid"),
    [
        ("cameras: {a: }", None),
        ("cameras: {a: {tiles: }}", (3, 2, 0.2, 0.3)),
        ("defaults: {tiles: }", (3, 2, 0.2, 0.3)),
        ("defaults: {tiles: {columns: 4, rows: 3, overlap: 0}}\ncameras: {a: }", (4, 3, 0, 0.3)),
        (
            "defaults: {tiles: {columns: 4}}\nprofiles: {p: {tiles: {rows: 1}}}\n"
            "cameras: {a: {profile: p, tiles: {overlap: 0.5, min_score: 0.4}}}",
            (4, 1, 0.5, 0.4),
        ),
        ("defaults: {tiles: }\ncameras: {a: {tiles: {enabled: false}}}", None),
        ("defaults: {tiles: {columns: 8, rows: 2, enabled: false}}\ncameras: {a: }", None),
        ("defaults: {tiles: {columns: 1}}\ncameras: {a: }", (1, 2, 0.2, 0.3)),
    ],
)
def test_tiles_are_inherited_value_by_value(layers, grid):
    tiles = tiles_of(layers)
    assert (tiles and (tiles.columns, tiles.rows, tiles.overlap, tiles.min_score)) == grid


@pytest.mark.parametrize(
    ("layers", "place"),
    [
        ("defaults: {tiles: {columns: 1}}\ncameras: {a: {tiles: {rows: 1}}}", "3: cameras.a.tiles"),
        (
            "defaults: {tiles: {columns: 8, rows: 1}}\nprofiles: {p: {tiles: {rows: 3}}}",
            "3: profiles.p.tiles",
        ),
        (
            "defaults: {tiles: {columns: 8}}\ncameras: {a: {resolution: {max: [409, 400]}}}",
            "3: cameras.a.resolution",
        ),
        (
            "defaults: {resolution: {max: [409, 400]}}\ncameras: {a: {tiles: {columns: 8}}}",
            "3: cameras.a.tiles",
        ),
    ],
)
def test_tiles_that_layers_make_together_are_refused_where_the_last_one_is(layers, place):
    with pytest.raises(RulesError, match=rf"^rules\.yaml:{re.escape(place)}: "):
        tiles_of(layers)


def test_a_largest_image_whose_tiles_are_just_large_enough_is_accepted():
    layers = "defaults: {tiles: {columns: 8}, resolution: {max: [423, 400]}}"
    assert tiles_of(layers).regions(423, 400)


def test_the_tiles_of_an_image_lie_row_by_row():
    assert Tiles().regions(640, 360) == (
        *(Region(0, 0, 246, 200), Region(197, 0, 443, 200), Region(394, 0, 640, 200)),
        *(Region(0, 160, 246, 360), Region(197, 160, 443, 360), Region(394, 160, 640, 360)),
    )
    assert Tiles(2, 1, 0.0).regions(640, 360) == (Region(0, 0, 320, 360), Region(320, 0, 640, 360))


@pytest.mark.parametrize(
    ("tiles", "size", "number"),
    [
        (Tiles(2, 1, 0.0), (128, 64), 2),
        (Tiles(2, 1, 0.0), (127, 64), 0),
        (Tiles(2, 1, 0.0), (128, 63), 0),
        (Tiles(1, 2, 0.5), (64, 96), 2),
        (Tiles(8, 8, 0.5), (10, 10), 0),
    ],
)
def test_an_image_is_not_divided_into_tiles_of_less_than_64_pixels(tiles, size, number):
    assert len(tiles.regions(*size)) == number
    assert tiles.fit(*size) == bool(number)


@pytest.mark.search
@search(500)
@given(GRIDS, SIDES, SIDES)
def test_tiles_cover_the_image_overlap_as_stated_and_are_of_one_size(tiles, width, height):
    regions = tiles.regions(width, height)
    assert len(regions) in (0, tiles.columns * tiles.rows)
    across, down = tiles.size(width, height)
    assert bool(regions) == (across >= 64 and down >= 64)
    if not regions:
        return
    columns, rows = regions[: tiles.columns], regions[:: tiles.columns]
    assert regions == tuple(
        Region(column.left, row.top, column.right, row.bottom) for row in rows for column in columns
    )
    for spans, end, side in (
        ([(region.left, region.right) for region in columns], width, across),
        ([(region.top, region.bottom) for region in rows], height, down),
    ):
        assert (spans[0][0], spans[-1][1]) == (0, end)
        for start, stop in spans:
            assert abs((stop - start) - side) <= 1
        for (_, stop), (start, _) in itertools.pairwise(spans):
            assert abs((stop - start) - tiles.overlap * side) <= 1


@pytest.mark.search
@search(300)
@given(GRIDS, GRIDS)
def test_grids_have_the_same_name_if_and_only_if_they_are_the_same(one, other):
    values = [(grid.columns, grid.rows, grid.overlap, grid.min_score) for grid in (one, other)]
    assert (one.name == other.name) == (values[0] == values[1])
    assert dataclasses.replace(one, origins={"rows": "defaults.tiles"}).name == one.name


def test_the_name_of_a_grid_is_legible():
    assert Tiles().name == "tiles 3x2 overlap 0.2 min_score 0.3"


def test_tiles_are_immutable_because_cameras_share_them():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Tiles().columns = 4
