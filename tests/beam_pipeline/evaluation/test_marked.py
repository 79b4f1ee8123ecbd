"""What marks say of alerts, against an independent recount, and what they can't tell."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rules
from beam_pipeline import cli
from beam_pipeline.evaluation import marked
from beam_pipeline.evaluation.mark_facts import Facts, facts_of
from beam_pipeline.evaluation.marked import MarkedImage
from tests.beam_pipeline.conftest import refused
from tests.beam_pipeline.evaluation.truths import rules_of
from tests.search import search
from tests.transforms.archives import OLD, seen, write_output
from transforms.records.images import DetectedImage
from transforms.storage.marks import Mark, MarkedThreat, write_mark

LABELS = ("person", "car", "dog")
TIME = "2026-01-31T10:00:00Z"
BOX = (0.1, 0.2, 0.3, 0.4)


def said(
    mark: str,
    label: str | None = None,
    *,
    by: str = "Anna",
    named: Iterable[str] = ("person",),
    boxes: Iterable[Any] = (),
) -> Mark:
    threats = tuple(MarkedThreat(name, BOX) for name in named)
    alert_id = rules.alert_id("hall", TIME, "alert")
    return Mark("hall", TIME, alert_id, mark, label, tuple(boxes), "", by, TIME, threats)


def known(*marks: Mark) -> Facts:
    (facts,) = facts_of(marks).values()
    return facts


# What is known of one image


def test_a_mark_of_an_alert_for_one_label_says_whether_it_is_there() -> None:
    assert known(said("right")).present == {"person": (BOX,)}
    assert known(said("false")).absent == {"person"}
    assert not known(said("unsure")).says_something


def test_a_right_alert_for_several_labels_leaves_open_which_are_right() -> None:
    both = ("person", "car")
    facts = known(said("right", named=both))
    assert (facts.present, facts.absent, facts.some_of) == ({}, set(), ({"person", "car"},))
    assert [facts.is_right(labels) for labels in (both, ["car"], ["person", "car", "dog"])] == [
        True, None, True,
    ]  # fmt: skip
    assert not facts.is_complete
    facts = known(said("right", named=both), said("false", "car", named=both))
    assert (set(facts.present), facts.absent, facts.some_of) == ({"person"}, {"car"}, ())
    assert facts.is_complete
    facts = known(said("right", named=both), said("false", "car", by="Ben", named=both))
    assert (set(facts.present), facts.absent) == ({"person"}, {"car"})


def test_people_who_contradict_each_other_leave_a_label_unknown() -> None:
    facts = known(said("right"), said("false", by="Ben"))
    assert (facts.says_something, facts.disputed) == (False, {"person"})
    assert facts.is_right(["person"]) is None
    facts = known(said("right"), said("unsure", by="Ben"))
    assert set(facts.present) == {"person"}


def test_what_was_missed_is_there_with_its_box() -> None:
    small = (0.5, 0.5, 0.1, 0.1)
    facts = known(said("missed", "dog", boxes=[small]), said("false"))
    assert (facts.present, facts.absent) == ({"dog": (small,)}, {"person"})
    assert facts.is_right(["person"]) is False
    assert facts.is_right([]) is False
    facts = known(said("right"), said("missed", "person", boxes=[small], by="Ben"))
    assert facts.present == {"person": (BOX, small)}


PEOPLE = ("Anna", "Ben", "Dora")
MARKS = st.builds(
    lambda mark, label, by, named: said(mark, label, by=by, named=named),
    st.sampled_from(("right", "false", "unsure")),
    st.none() | st.sampled_from(("person", "car")),
    st.sampled_from(PEOPLE),
    st.just(("person", "car")),
) | st.builds(
    lambda label, by: said("missed", label, by=by, named=("person", "car")),
    st.sampled_from(LABELS),
    st.sampled_from(PEOPLE),
)


def worlds(marks: list[Mark]) -> list[set[str]]:
    """Each set of labels that could be there if everyone is right: the slow, simple twin.

    A person's claims are made of what the person said in order, label by label.
    """
    claims: list[Any] = []
    for by in PEOPLE:
        own = [mark for mark in marks if mark.by == by]
        last = max((n for n, mark in enumerate(own) if mark.label is None), default=-1)
        apart: dict[str | None, str] = {}
        for number, mark in enumerate(own):
            if mark.label is not None:
                apart[mark.label] = mark.mark if mark.mark == "missed" or number > last else ""
        for label, mark_of_label in apart.items():
            if mark_of_label in ("right", "missed"):
                claims.append(lambda world, label=label: label in world)
            elif mark_of_label == "false":
                claims.append(lambda world, label=label: label not in world)
        if last >= 0 and own[last].mark == "false":
            free = [name for name in ("person", "car") if not apart.get(name)]
            claims.append(lambda world, free=free: not world & set(free))
        elif last >= 0 and own[last].mark == "right":
            left = {name for name in ("person", "car") if apart.get(name) != "false"}
            if left:
                claims.append(lambda world, left=left: bool(world & left))
    possible = (
        {label for label, there in zip(LABELS, choice, strict=True) if there}
        for choice in itertools.product((False, True), repeat=3)
    )
    return [world for world in possible if all(claim(world) for claim in claims)]


@pytest.mark.search
@search(600)
@given(st.lists(MARKS, min_size=1, max_size=6))
def test_what_is_known_is_what_holds_in_every_world_in_which_all_people_are_right(
    marks: list[Mark],
) -> None:
    facts, possible = known(*marks), worlds(marks)
    assert not facts.absent & facts.present.keys()
    assert not facts.disputed & {*facts.present, *facts.absent}
    if facts.disputed:
        assert possible == []
        return
    assert possible != []
    assert set(facts.present) == set.intersection(*possible)
    assert facts.absent == set(LABELS) - set.union(*possible)
    for labels in (["person"], ["car"], ["person", "car"], ["person", "car", "dog"]):
        outcomes = {bool(world & set(labels)) for world in possible}
        assert facts.is_right(labels) == (outcomes.pop() if len(outcomes) == 1 else None)


# Counting

IMAGES = st.lists(
    st.tuples(
        st.sampled_from(("hall", "gate")),
        st.sets(st.sampled_from(LABELS)),  # What the alert names; none if there is no alert.
        st.sampled_from((None, None, 0, 1, 2)),  # The image whose cooldown suppresses it.
        st.dictionaries(st.sampled_from(LABELS), st.booleans()),  # What marks say.
    ),
    min_size=1,
    max_size=5,
)


def rows_of(images: list[Any]) -> list[MarkedImage]:
    times = [f"2026-01-31T10:0{number}:00Z" for number in range(len(images))]
    rows = []
    for number, (id, labels, by, says) in enumerate(images):
        is_covered = labels and by is not None and by < number and images[by][1]
        suppressed_by = rules.alert_id(images[by][0], times[by], "alert") if is_covered else None
        present = {label: () for label, is_there in says.items() if is_there}
        facts = Facts(present, frozenset(set(says) - present.keys())) if says else None
        rows.append(MarkedImage(id, times[number], frozenset(labels), suppressed_by, facts))
    return rows


def truths(images: list[Any]) -> Iterator[tuple[set[str], ...]]:
    """Ways in which the images could really be, by what is said of them: of what is unknown each
    image shows everything or nothing."""
    ways = []
    for _, _, _, says in images:
        fixed = {label for label, is_there in says.items() if is_there}
        ways.append((fixed, fixed | {label for label in LABELS if label not in says}))
    return itertools.product(*ways)


@pytest.mark.search
@search(200)
@given(IMAGES)
def test_the_bounds_are_the_least_and_the_greatest_that_the_unknown_images_can_make_of_them(
    images: list[Any],
) -> None:
    rows = rows_of(images)
    tally = marked.tally(rows)
    sent = [row for row in rows if row.labels and row.suppressed_by is None]
    assert (tally.images, tally.alerts) == (len(rows), len(sent))
    assert tally.alerts == tally.right + tally.false + tally.unknown
    precisions, recalls = [], []
    for truth in truths(images):
        there = dict(zip([row.timestamp for row in rows], truth, strict=True))
        right = sum(bool(row.labels & there[row.timestamp]) for row in sent)
        if sent:
            precisions.append(right / len(sent))
        if threats := sum(map(bool, truth)):
            recalls.append(right / threats)
    if sent:
        assert tally.precision_bounds == (min(precisions), max(precisions))
    else:
        assert tally.precision_bounds is None
    if tally.threats:
        assert tally.recall_bound == max(recalls)
    else:
        assert tally.recall_bound is None


@pytest.mark.search
@search(200)
@given(IMAGES)
def test_the_counts_are_those_of_a_plain_recount(images: list[Any]) -> None:
    rows = rows_of(images)
    for label, tally in [(None, marked.tally(rows)), *marked.by_label(rows).items()]:
        right = false = caught = covered = missed = 0
        for row, (_, labels, _, says) in zip(rows, images, strict=True):
            if label is not None:
                labels = labels & {label}
                says = {name: there for name, there in says.items() if name == label}
            is_there = any(says.values())
            is_right = any(says.get(name) for name in labels)
            is_false = bool(labels) and all(says.get(name) is False for name in labels)
            covering = [
                other for other in rows
                if rules.alert_id(other.id, other.timestamp, "alert") == row.suppressed_by
            ]  # fmt: skip
            behind_false = any(
                other.suppressed_by is None
                and other.facts is not None
                and other.labels <= other.facts.absent
                for other in covering
            )
            if row.suppressed_by is None:
                right += is_right
                false += is_false
                caught += is_right
            if is_there and (not labels or is_false or behind_false):
                missed += 1
            elif is_there and is_right and row.suppressed_by is not None:
                covered += 1
        assert (tally.right, tally.false) == (right, false)
        assert (tally.caught, tally.covered, tally.missed) == (caught, covered, missed)


# The commands


def image(minute: int, *detections: tuple[str, float], id: str = "hall") -> DetectedImage:
    time = f"2026-01-31T10:{minute:02d}:00Z"
    return seen(id, time, *detections, file=f"{id}_20260131T10{minute:02d}00Z.jpg")


def mark(output: Path, minute: int, said: str, *, id: str = "hall", by: str = "Anna",
         label: str | None = None, named: Iterable[str] = ("person",)) -> None:  # fmt: skip
    time = f"2026-01-31T10:{minute:02d}:00Z"
    write_mark(str(output), id=id, timestamp=time, alert_id=rules.alert_id(id, time, "alert"),
               mark=said, label=label, by=by,
               threats=[MarkedThreat(name, BOX) for name in named])  # fmt: skip


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Six images: right at 0, false at 1 and 2, missed at 3, unmarked at 4 and 5."""
    scores = (0.9, 0.6, 0.7, 0.3, 0.8, 0.2)
    write_output(tmp_path / "out", [image(n, ("person", score)) for n, score in enumerate(scores)])
    mark(tmp_path / "out", 0, "right")
    mark(tmp_path / "out", 1, "false")
    mark(tmp_path / "out", 2, "false", by="Ben")
    mark(tmp_path / "out", 3, "missed", label="person", named=())
    return tmp_path / "out"


def result_of(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[Any, str]:
    code = cli.main([str(word) for word in (*words, "--format", "json")])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out), captured.err


def test_evaluate_measures_by_marks_and_says_what_they_can_not_tell(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, notes = result_of(capsys, "evaluate", "--archive", output)
    assert result["total"] == {
        "pictures": 6, "alerts": 4, "right": 1, "false": 2, "unknown": 1,
        "known_threats": 2, "caught": 1, "covered": 0, "missed": 1,
        "precision": 0.3333, "precision_interval": [0.0615, 0.7923],
        "precision_bounds": [0.25, 0.5], "recall_at_most": 0.6667,
    }  # fmt: skip
    assert result["by_label"] == [{"label": "person", **result["total"]}]
    assert "4 marks of 4 images, by Anna (3), Ben (1)" in notes
    assert "TOO FEW: 3 alerts that are marked right or false leave the precision" in notes
    assert "1 of 4 alerts are unknown" in notes
    assert "recall is at most what is shown" in notes
    assert "2 of 2 images with a false person on hall have it at one place" in notes
    assert "where 1 right ones are too" in notes
    again, _ = result_of(capsys, "evaluate", "--archive", output, "--truth", "marks")
    assert again == result
    assert cli.main(["evaluate", "--archive", str(output)]) == 0
    assert "0.333 [0.06, 0.79]" in capsys.readouterr().out


def test_evaluate_shows_what_other_rules_would_do_to_marked_alerts(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ruleset = rules_of(tmp_path, OLD.replace("0.5", "0.85"))
    result, _ = result_of(capsys, "evaluate", "--archive", output, "--rules", ruleset)
    total = result["total"]
    assert [total[key] for key in ("alerts", "right", "false", "missed")] == [1, 1, 0, 1]
    ruleset = rules_of(tmp_path, OLD.replace("0.5", "0.25"))
    result, _ = result_of(capsys, "evaluate", "--archive", output, "--rules", ruleset)
    total = result["total"]
    assert [total[key] for key in ("alerts", "right", "false", "missed")] == [5, 2, 2, 0]


def test_images_that_were_detected_with_other_tiles_are_counted(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ruleset = rules_of(tmp_path, f"{OLD}  tiles: {{columns: 4}}\n")
    note = "6 images were detected with other tiles than these rules have"
    _, notes = result_of(capsys, "evaluate", "--archive", output, "--rules", ruleset)
    assert note in notes
    _, notes = result_of(
        capsys, "tune", "--archive", output, "--truth", "marks", "--rules", ruleset
    )
    assert note in notes
    final = ("--rules", ruleset, "--verdicts", "final")
    _, notes = result_of(capsys, "evaluate", "--archive", output, *final)
    assert "tiles" not in notes


def test_tune_takes_marks_as_truth(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ruleset = rules_of(tmp_path, OLD)
    result, notes = result_of(
        capsys, "tune", "--archive", output, "--rules", ruleset, "--holdout", "0"
    )
    (person,) = (entry for entry in result["proposals"] if entry["label"] == "person")
    now = person["measured"]["now"]
    assert [now[key] for key in ("threats", "caught", "others", "false_alerts")] == [2, 1, 2, 2]
    assert any("TOO FEW: 2 with person" in warning for warning in person["warnings"])
    assert result["together"]["now"]["unknown"] == 1
    assert "4 marks of 4 images" in notes


def test_tune_says_which_score_would_silence_false_alerts_where_no_right_one_is_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_output(tmp_path / "out", [image(0, ("person", 0.6)), image(1, ("person", 0.7))])
    for minute in (0, 1):
        mark(tmp_path / "out", minute, "false")
    ruleset = rules_of(tmp_path, OLD)
    result, notes = result_of(
        capsys, "tune", "--archive", tmp_path / "out", "--rules", ruleset, "--holdout", "0"
    )
    assert all(entry["changes"] == {} for entry in result["proposals"])
    assert "min_score 0.71 would silence the 2 false alerts for person, no profile; no" in notes


def test_what_is_disputed_or_not_in_the_archive_is_said(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark(output, 0, "false", by="Ben")
    mark(output, 50, "false", by="Ben")
    (output / "marks" / "hall" / "damaged.json").write_text("{")
    _, notes = result_of(capsys, "evaluate", "--archive", output)
    assert "people disagree on 1 images, which are unknown: hall 2026-01-31T10:00:00Z" in notes
    assert "1 marked images are not among the selected ones: hall 2026-01-31T10:50:00Z" in notes
    assert "damaged.json" in notes


def test_without_marks_of_the_selected_images_a_truth_is_asked_for(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_output(tmp_path / "other", [image(0, ("person", 0.9))])
    line = refused(capsys, "evaluate", "--archive", tmp_path / "other")
    assert f"there is no mark in {tmp_path}/other/marks; give --truth FILE, or mark" in line
    line = refused(capsys, "evaluate", "--archive", output, "--since", "2026-01-31T10:04:00Z")
    assert "the marks are of no selected image of the archive, but of hall 2026-01-31" in line
