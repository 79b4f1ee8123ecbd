"""The row that a window's counts are written as is the row that is read."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from tests.transforms.results import judged
from transforms.count_threats import SumTallies, count_rows, tally_image
from transforms.records.count_rows import CountRow, sum_by_id, sum_total
from transforms.records.times import parse_time
from transforms.storage import stores

START = parse_time("2026-01-31T23:55:00Z")
END = START + timedelta(minutes=5)
LABELS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)
THREATS = st.lists(st.tuples(LABELS, st.sampled_from(["alert", "detection"])), max_size=4)
IMAGES = st.lists(st.tuples(st.sampled_from(["hall", "yard.2", "Gate-1"]), THREATS), max_size=12)


@given(IMAGES)
def test_a_written_row_is_read_back(images):
    sums = SumTallies()
    tallies = sums.create_accumulator()
    for camera, threats in images:
        tallies = sums.add_input(tallies, (camera, tally_image(judged(camera, threats=threats))))
    rows = count_rows(tallies, START, END)
    lines = [stores.json_bytes(row.to_json()) for row in rows]
    assert tuple(CountRow.from_json(json.loads(line)) for line in lines) == rows
    assert Counter({row.id: row.images for row in rows}) == Counter(id for id, _ in images)
    assert sum_by_id(rows) == list(rows)
    threats = sum(row.threats for row in sum_total(rows))
    assert threats == sum(len(threats_of_image) for _, threats_of_image in images)
