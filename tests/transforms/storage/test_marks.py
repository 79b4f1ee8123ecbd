"""Marks: none is lost, and the newest of each person stands, whoever marks at once."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.search import search
from transforms.storage import marks as marking
from transforms.storage import stores
from transforms.storage.marks import Mark, read_marks, read_marks_of, standing, write_mark

NOON = datetime(2026, 2, 1, 12, tzinfo=timezone.utc)
TIME = "2026-01-31T23:59:59Z"
ALERTS = ("a" * 32, "0123456789abcdef" * 2)


def write(output: Path | str, mark: str = "right", **others: Any) -> Mark:
    given_values = {"id": "hall", "timestamp": TIME, "alert_id": ALERTS[0], "by": "Anna"}
    return write_mark(str(output), mark=mark, **{**given_values, "now": NOON, **others})


def files(output: Path) -> list[str]:
    return sorted(path.name for path in (output / "marks").rglob("*") if path.is_file())


def test_a_mark_is_a_file_of_its_own(tmp_path: Path) -> None:
    box = (0.1, 0.2, 0.05, 0.3)
    write(tmp_path, "missed", label="person", bboxes=[box], note="at the gate")
    (path,) = (tmp_path / "marks" / "hall").iterdir()
    assert path.name.startswith(f"{'a' * 32}_20260201T120000000000Z_")
    assert json.loads(path.read_bytes()) == {
        "format_version": "1.0",
        "id": "hall",
        "timestamp": "2026-01-31T23:59:59Z",
        "alert_id": "a" * 32,
        "mark": "missed",
        "label": "person",
        "bboxes": [[0.1, 0.2, 0.05, 0.3]],
        "threats": [],
        "note": "at the gate",
        "by": "Anna",
        "at": "2026-02-01T12:00:00Z",
    }
    assert read_marks(str(tmp_path)) == (
        [Mark("hall", TIME, "a" * 32, "missed", "person", (box,), "at the gate", "Anna",
              "2026-02-01T12:00:00Z")], [],
    )  # fmt: skip


def test_without_marks_there_are_none(tmp_path: Path) -> None:
    assert read_marks(str(tmp_path)) == ([], [])
    assert read_marks_of(str(tmp_path), "hall", ALERTS[0]) == ([], [])


def test_the_newest_mark_of_each_person_stands(tmp_path: Path) -> None:
    write(tmp_path, "right")
    write(tmp_path, "right", by="Ben")
    write(tmp_path, "false", alert_id=ALERTS[1])
    write(tmp_path, "false", now=NOON - timedelta(days=1))  # By a clock that is slow.
    marks, _ = read_marks(str(tmp_path))
    assert [(mark.alert_id[0], mark.by, mark.mark) for mark in standing(marks)] == [
        ("0", "Anna", "false"),
        ("a", "Ben", "right"),
        ("a", "Anna", "false"),
    ]
    assert len(files(tmp_path)) == 4
    own, _ = read_marks_of(str(tmp_path), "hall", ALERTS[0])
    assert [mark.mark for mark in own] == ["right", "right", "false"]


def test_a_mark_of_the_whole_alert_replaces_those_of_its_labels_but_not_what_was_missed(
    tmp_path: Path,
) -> None:
    write(tmp_path, "false", label="car")
    write(tmp_path, "missed", label="person")
    write(tmp_path, "right")
    write(tmp_path, "unsure", label="dog")

    def stands() -> list[tuple[str, str | None]]:
        return [(mark.mark, mark.label) for mark in standing(read_marks(str(tmp_path))[0])]

    assert stands() == [("missed", "person"), ("right", None), ("unsure", "dog")]
    write(tmp_path, "unsure", label="person")
    write(tmp_path, "false")
    assert stands() == [("false", None)]


def test_a_box_that_reaches_the_edge_may_be_rounded(tmp_path: Path) -> None:
    mark = write(tmp_path, "missed", label="car", bboxes=[(0.3334, 0.0, 0.6667, 1.0)])
    assert read_marks(str(tmp_path))[0] == [mark]


def test_a_note_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        write(tmp_path, note="\udcff")
    assert files(tmp_path) == []


def test_a_clock_at_the_end_of_time_does_not_end_marking(tmp_path: Path) -> None:
    write(tmp_path, "right", now=datetime.max.replace(tzinfo=timezone.utc))
    write(tmp_path, "false")
    assert len(files(tmp_path)) == 2


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"id": "../hall"}, "no id of a camera"),
        ({"alert_id": "../" + "a" * 29}, "no id of an alert"),
        ({"alert_id": "A" * 32}, "no id of an alert"),
        ({"mark": "wrong"}, "mark must be one of right, false, unsure, missed"),
        ({"mark": "missed"}, "a missed threat needs a label"),
        ({"note": "x" * 1001}, "note has 1,001 characters; 1,000 are allowed"),
        ({"by": "x" * 101}, "by has 101 characters; 100 are allowed"),
        ({"by": " "}, "by is empty"),
        ({"by": "An\x1bna"}, "by is empty, or holds what can't be printed"),
        ({"label": "x" * 101}, "label has 101 characters"),
        ({"bboxes": [(0.0, 0.0, 0.5, 0.5)]}, "only what was missed has boxes"),
        ({"mark": "missed", "label": "car", "bboxes": [(0.9, 0.0, 0.2, 0.5)]}, "inside the image"),
        ({"mark": "missed", "label": "car", "bboxes": [(0.1, 0.1, 0.0, 0.5)]}, "has a width"),
        ({"mark": "missed", "label": "car", "bboxes": [(0.1, 0.1, 0.5)]}, "four numbers"),
        ({"mark": "missed", "label": "car", "bboxes": [(0.1, 0.1, 0.1, float("nan"))]}, "numbers"),
        ({"mark": "missed", "label": "car", "bboxes": [(0.1,) * 4] * 101}, "101 boxes"),
        ({"timestamp": "yesterday"}, "not a time"),
    ],
)
def test_wrong_values_are_refused_and_nothing_is_written(
    tmp_path: Path, values: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        write(tmp_path, **values)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "damage",
    [
        b"", b"{", b"[]", b"\xff", b"[" * 60_000, b'{"id": 5}', b"null",
        {"id": "gate"}, {"alert_id": "b" * 32}, {"mark": "wrong"}, {"label": 5}, {"bboxes": 5},
        {"mark": "missed"},
        {"threats": None}, {"threats": [5]}, {"threats": [{"label": "car", "bbox": [1]}]},
        {"bboxes": [5]}, {"bboxes": [["a"] * 4]}, {"at": "soon"}, {"note": "x" * 1001}, {"by": 1},
    ],
    ids=lambda damage: str(damage)[:20],
)  # fmt: skip
def test_a_damaged_mark_is_named_and_hides_no_other(tmp_path: Path, damage: Any) -> None:
    write(tmp_path, "right")
    (path,) = (tmp_path / "marks" / "hall").iterdir()
    write(tmp_path, "false")
    content = json.loads(path.read_bytes())
    path.write_bytes(
        damage if isinstance(damage, bytes) else json.dumps({**content, **damage}).encode()
    )
    marks, problems = read_marks(str(tmp_path))
    assert [mark.mark for mark in marks] == ["false"]
    assert [uri for uri, _ in problems] == [str(path)]


# People who mark at once

PEOPLE = ("Anna", "Ben", "Dora")
SAID = st.tuples(
    st.sampled_from(("right", "false", "unsure", "missed")),
    st.sampled_from((None, "person", "car")),
).filter(lambda said: said != ("missed", None))


def recount(history: list[Mark]) -> set[tuple[str, str, str, str | None]]:
    """What stands, by what people did in which order: slow and plain."""
    found = set()
    for mark in history:
        later = [
            other
            for other in history[history.index(mark) + 1 :]
            if (other.alert_id, other.by) == (mark.alert_id, mark.by)
        ]
        replaced = any(other.label == mark.label for other in later)
        if mark.mark != "missed":
            replaced |= any(other.label is None for other in later)
        if not replaced:
            found.add((mark.alert_id, mark.by, mark.mark, mark.label))
    return found


class PeopleMark(RuleBasedStateMachine):
    """People mark on machines with wrong clocks; each may be stopped before the file is written,
    while others go on."""

    def __init__(self) -> None:
        super().__init__()
        self.output = Path(tempfile.mkdtemp())
        self.history: list[Mark] = []
        self.begun: list[tuple[Callable[[], None], Mark]] = []

    def teardown(self) -> None:
        shutil.rmtree(self.output)

    def _write(self, by: str, said: tuple[str, str | None], alert: str, skew: int) -> Mark:
        now = NOON + timedelta(microseconds=skew, seconds=len(self.history))
        return write(self.output, said[0], label=said[1], alert_id=alert, by=by, now=now)

    @rule(by=st.sampled_from(PEOPLE), said=SAID, alert=st.sampled_from(ALERTS),
          skew=st.sampled_from((0, 1, -1, 10**9, -(10**9))))  # fmt: skip
    def mark(self, by: str, said: tuple[str, str | None], alert: str, skew: int) -> None:
        self.history.append(self._write(by, said, alert, skew))

    @rule(
        both=st.lists(st.tuples(SAID, st.sampled_from(ALERTS)), min_size=2, max_size=len(PEOPLE)),
        order=st.permutations(range(len(PEOPLE))),
    )
    def people_mark_at_once(
        self, both: list[tuple[tuple[str, str | None], str]], order: list[int]
    ) -> None:
        """Each of them has looked before any has written; they write in any order."""
        pending: list[Callable[[], None]] = []
        really = stores.write_bytes

        def put_off(uri: str, data: bytes) -> None:
            pending.append(lambda: really(uri, data))

        stores.write_bytes = put_off
        try:
            for person, (said, alert) in zip(PEOPLE, both, strict=False):
                self.history.append(self._write(person, said, alert, 0))
        finally:
            stores.write_bytes = really
        for number in order:
            if number < len(pending):
                pending[number]()

    @rule(number=st.integers(0, 50))
    def a_file_arrives_twice(self, number: int) -> None:
        """As when a store was asked again because its answer was lost."""
        if self.history:
            mark = self.history[number % len(self.history)]
            for path in (self.output / "marks").rglob(f"{mark.alert_id}_*"):
                stores.write_bytes(str(path), path.read_bytes())

    @invariant()
    def none_is_lost_and_the_newest_of_each_person_stands(self) -> None:
        marks, problems = read_marks(str(self.output))
        assert problems == []
        assert len(marks) == len(self.history)
        assert sorted(map(repr, marks)) == sorted(map(repr, self.history))
        found = {(mark.alert_id, mark.by, mark.mark, mark.label) for mark in standing(marks)}
        assert found == recount(self.history)


TestPeopleMark = PeopleMark.TestCase
TestPeopleMark.settings = search(40, stateful_step_count=12)
TestPeopleMark = pytest.mark.search(TestPeopleMark)


@pytest.mark.search
@search(300)
@given(st.lists(st.tuples(st.sampled_from(PEOPLE), SAID, st.sampled_from(ALERTS)), max_size=12))
def test_what_stands_is_what_a_plain_recount_says(
    said: list[tuple[str, tuple[str, str | None], str]],
) -> None:
    first = Mark("hall", TIME, ALERTS[0], "right", None, (), "", "Anna", TIME)
    history = [
        replace(first, by=by, mark=mark, label=label, alert_id=alert, note=str(number))
        for number, (by, (mark, label), alert) in enumerate(said)
    ]
    stands = standing(history)
    assert {(mark.alert_id, mark.by, mark.mark, mark.label) for mark in stands} == recount(history)
    assert [history.index(mark) for mark in stands] == sorted(map(history.index, stands))


@pytest.mark.parametrize("first", [0, 1])
def test_of_two_marks_of_one_person_at_once_the_same_stands_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    pending: list[tuple[str, bytes]] = []
    with monkeypatch.context() as patch:
        patch.setattr(stores, "write_bytes", lambda uri, data: pending.append((uri, data)))
        for mark in ("right", "false"):
            write(tmp_path, mark)
    for uri, data in (pending[first], pending[1 - first]):
        stores.write_bytes(uri, data)
    marks, _ = read_marks(str(tmp_path))
    assert sorted(mark.mark for mark in marks) == ["false", "right"]
    last = max((tmp_path / "marks" / "hall").iterdir())
    assert [mark.mark for mark in standing(marks)] == [json.loads(last.read_bytes())["mark"]]


def test_threads_of_one_and_of_many_people_lose_no_mark(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        done = list(
            pool.map(
                lambda number: write(tmp_path, by=f"p{number % 4}", note=str(number), now=None),
                range(64),
            )
        )
    marks, problems = read_marks(str(tmp_path))
    assert problems == []
    assert {mark.note for mark in marks} == {mark.note for mark in done}
    assert len(standing(marks)) == 4


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_can_not_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "marks").mkdir(mode=0o500)
    with pytest.raises(PermissionError):
        write(tmp_path)


def test_the_limits_are_those_of_the_documentation() -> None:
    assert (marking.MAX_NOTE, marking.MAX_NAME, marking.MAX_BOXES) == (1000, 100, 100)
