"""Marks in stores: those of people who mark at once are all kept."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

import rules
from beam_pipeline import cli
from tests.stores.bucket import Bucket
from tests.stores.servers import Server
from tests.transforms.archives import seen, write_output
from transforms.storage import stores
from transforms.storage.marks import Mark, read_marks, standing, write_mark

Use = Callable[[Server], None]
TIME = "2026-01-31T10:00:00Z"
ALERT_ID = rules.alert_id("hall", TIME, "alert")


def write(output: str, by: str, mark: str) -> Mark:
    return write_mark(output, id="hall", timestamp=TIME, alert_id=ALERT_ID, mark=mark, by=by)


def test_people_who_mark_at_once_lose_no_mark(bucket: Bucket, use: Use) -> None:
    use(bucket.server)
    output = bucket.uri("out")
    assert read_marks(output) == ([], [])
    people = [f"person {number}" for number in range(6)]
    for said in ("right", "false"):
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda by, said=said: write(output, by, said), people))
    marks, problems = read_marks(output)
    assert problems == []
    assert len(marks) == 12
    assert {(mark.by, mark.mark) for mark in standing(marks)} == {(by, "false") for by in people}
    assert len(bucket.tree("out/marks/hall")) == 12


def test_alerts_of_a_store_are_marked_from_the_command_line(
    bucket: Bucket, use: Use, capsys: pytest.CaptureFixture[str]
) -> None:
    use(bucket.server)
    output, name = bucket.uri("out"), "hall_20260131T100000Z.jpg"
    write_output(output, [seen("hall", TIME, ("person", 0.9), file=name)])
    record = {"alert_id": ALERT_ID, "timestamp": TIME, "threats": [{"label": "person"}]}
    stores.write_bytes(stores.alert_uri(output, "hall", ALERT_ID), stores.json_bytes(record))
    for what, mark, *label in (
        (ALERT_ID, "right"), (name, "false"), (name, "missed", "--label", "dog"),
    ):  # fmt: skip
        words = ["alerts", "mark", what, mark, *label, "--by", "Anna", "--output", output]
        assert cli.main([*words, *bucket.server.options]) == 0, capsys.readouterr().err
    found = [(mark.mark, mark.label) for mark in standing(read_marks(output)[0])]
    assert found == [("false", None), ("missed", "dog")]
    capsys.readouterr()
    for words in (
        ["evaluate", "--archive", output, "--format", "json"],
        ["marks", "export", "--output", output],
    ):
        assert cli.main([*words, *bucket.server.options]) == 0, capsys.readouterr().err
    printed = capsys.readouterr()
    assert '"known_threats": 1' in printed.out
    assert "hall_20260131T100000Z.jpg,dog,1\n" in printed.out
    assert "2 marks of 1 images, by Anna (2)" in printed.err
