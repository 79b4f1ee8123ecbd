"""Which ids stand out from their peers."""

import math
from datetime import datetime, timezone

import numpy as np
import pytest

from beam_pipeline.fleet.statistics import outliers
from beam_pipeline.fleet.statistics.outliers import unusual_ids
from transforms.records.count_rows import CountRow

START = datetime(2026, 1, 31, tzinfo=timezone.utc)
END = datetime(2026, 2, 1, tzinfo=timezone.utc)


def marks(events, images):
    rows = {}
    for k, (y, n) in enumerate(zip(events, images, strict=True)):
        rows[f"c{k}"] = CountRow(f"c{k}", START, END, int(n), int(y), int(y), 0, {})
    return unusual_ids(rows)


def fleet(rng, size, spread, share=0.05):
    """Images and threat images of cameras whose log-odds differ by `spread`."""
    images = np.maximum(rng.lognormal(math.log(150), 1, size).astype(int), 1)
    centre = math.log(share / (1 - share))
    odds = np.exp(centre + spread * rng.standard_normal(size))
    return images, rng.binomial(images, odds / (1 + odds))


@pytest.mark.parametrize(
    ("size", "fleets", "spread", "share"),
    [(4, 50, 1.0, 0.05), (12, 40, 0.0, 0.05), (12, 50, 1.0, 0.05), (12, 30, 0.5, 0.003),
     (40, 40, 0.7, 0.05), (150, 10, 0.7, 0.05)],
)  # fmt: skip
def test_quiet_fleets_are_seldom_marked(size, fleets, spread, share):
    rng = np.random.default_rng(20260131)
    marked = 0
    for _ in range(fleets):
        images, events = fleet(rng, size, spread, share)
        marked += bool(marks(events, images))
    # 5 % are meant; with this many fleets, more than 15 % would not be chance.
    assert marked <= 0.15 * fleets


@pytest.mark.parametrize(
    ("size", "spread", "many", "few", "least_share"),
    [(8, 0.3, 1, 0, 0.6), (12, 0.3, 2, 0, 0.8), (40, 0.3, 3, 1, 0.9), (150, 0.5, 5, 3, 0.9)],
)
def test_planted_ids_are_found_on_their_side(size, spread, many, few, least_share):
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(8):
        images, events = fleet(rng, size, spread)
        images[:many], events[:many] = 250, rng.binomial(250, 0.5, many)
        images[many : many + few], events[many : many + few] = 900, 0
        expected = {f"c{k}": "many" if k < many else "few" for k in range(many + few)}
        marked = marks(events, images)
        hits += sum(marked.get(id_) == mark for id_, mark in expected.items())
    assert hits >= least_share * 8 * (many + few)


def test_one_outlier_does_not_hide_another():
    images = [240, 145, 332, 210, 247, 151, 83, 700]
    events = [149, 22, 19, 13, 14, 6, 4, 0]
    assert marks(events, images) == {"c0": "many", "c7": "few"}


def test_many_threats_in_many_images_are_not_unusual():
    assert marks([5, 6, 4, 5, 7, 500], [100, 110, 95, 105, 120, 10000]) == {}


@pytest.mark.parametrize(
    ("events", "images"),
    [([], []), ([9], [9]), ([0, 100], [100, 100]), ([0, 0, 0, 0], [10, 500, 5000, 100000]),
     ([7, 9, 11], [7, 9, 11]), ([1000000, 990000, 1010000], [2000000] * 3),
     ([0, 100, 0], [100, 100, 0])],
    ids=["none", "one", "two", "no threats", "all threats", "huge", "two with images"],
)  # fmt: skip
def test_nothing_is_marked_where_nothing_can_be_decided(events, images):
    assert marks(events, images) == {}


def test_ids_without_images_are_neither_judged_nor_peers():
    events, images = [3, 4, 5, 3, 4, 5, 3, 90], [100] * 8
    assert marks(events, images) == marks([*events, 0], [*images, 0]) == {"c7": "many"}


def test_tails_agree_with_an_exact_binomial_sum():
    equal, low, high = outliers._binomial_tables(3, 12, np.array([math.log(0.3 / 0.7)]))
    pmf = [math.comb(12, k) * 0.3**k * 0.7 ** (12 - k) for k in range(13)]
    assert (equal[0], low[0], high[0]) == pytest.approx((pmf[3], sum(pmf[:4]), sum(pmf[3:])))
