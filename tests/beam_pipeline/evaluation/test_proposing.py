"""`rules propose`: changes of the rules that silence alerts which people marked false."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rules
from beam_pipeline import cli
from beam_pipeline.evaluation.mark_facts import Facts
from beam_pipeline.evaluation.proposing import Findings, Proposal, propose
from beam_pipeline.evaluation.rule_edits import apply_settings
from tests.beam_pipeline.conftest import refused
from tests.beam_pipeline.evaluation.recounts import sent
from tests.search import search
from tests.transforms.archives import seen, write_output
from transforms.records.images import DetectedImage
from transforms.storage.marks import MarkedThreat, write_mark

RULES = """\
version: 1
defaults:
  cooldown: 0s    # each image
  objects:
    person: {min_score: 0.50}
    car: {min_score: 0.5}
cameras:
  # by the door
  hall:
    objects: {person: {min_score: 0.5}}   # as measured
"""
TREE = (0.1, 0.1, 0.2, 0.4)
DOOR = (0.6, 0.4, 0.2, 0.4)


def time_of(minute: int) -> str:
    return f"2026-01-31T{8 + minute // 60:02d}:{minute % 60:02d}:00Z"


def image(
    minute: int, label: str, conf: float, bbox: tuple[float, float, float, float] = DOOR
) -> DetectedImage:
    return seen("hall", time_of(minute), (label, conf), bbox=bbox, sha256=f"{minute:064d}")


def known(present: str = "", absent: str = "") -> Facts:
    return Facts({present: ()} if present else {}, frozenset([absent] if absent else []))


def proposals(
    images: Sequence[tuple[DetectedImage, Facts | None]], text: str = RULES
) -> list[Proposal]:
    facts = {(one.id, one.timestamp): fact for one, fact in images if fact is not None}
    return list(findings(images, facts, text).proposals)


def findings(
    images: Sequence[tuple[DetectedImage, Facts | None]],
    facts: dict[tuple[str, str], Facts],
    text: str = RULES,
) -> Findings:
    return propose([one for one, _ in images], facts, text, "rules.yaml", "hall")


def kinds(found: Sequence[Proposal]) -> list[str]:
    return [proposal.kind for proposal in found]


RIGHT, FALSE = known(present="person"), known(absent="person")


def test_a_false_alert_at_one_place_is_masked_where_no_score_tells_it_from_right_ones() -> None:
    images = [(image(5 * n, "person", 0.9 - n / 100, TREE), FALSE) for n in range(4)]
    images += [(image(90 + n, "person", 0.8), RIGHT) for n in range(4)]
    images += [(image(200, "person", 0.7), None)]
    found = proposals(images)
    first = found[0]
    assert first.kind == "mask"
    ((path, values),) = first.changes
    assert path == ("cameras", "hall", "mask", "marked-1")
    assert values == {
        "polygon": [["0.090", "0.090"], ["0.310", "0.090"], ["0.310", "0.510"], ["0.090", "0.510"]],
        "anchor": "overlap",
        "min_overlap": "0.9",
        "objects": ["person"],
    }
    effect = first.effect
    assert (effect.false, len(effect.false_gone), effect.right, effect.right_lost) == (4, 4, 4, ())
    assert (effect.others_lost, effect.gained) == ((), ())
    assert first.sureness == "of 4 right alerts 0 are lost, so up to 49% of all may be"
    scores = [one for one in found if one.kind == "min_score"]
    assert [one.changes[0][1] for one in scores] == ["0.91"]
    assert scores[0].effect.right_lost == tuple(time_of(90 + n) for n in range(4))
    assert found.index(scores[0]) > 0


def test_a_score_that_tells_them_apart_and_the_greatest_that_keeps_all_right_ones() -> None:
    images = [(image(n, "person", 0.55 + n / 100), FALSE) for n in range(4)]
    images += [(image(90 + n, "person", 0.8 + n / 100), RIGHT) for n in range(4)]
    images += [(image(200, "person", 0.7), None), (image(210, "person", 0.57), None)]
    scores = [one for one in proposals(images) if one.kind == "min_score"]
    assert [
        (one.changes, len(one.effect.false_gone), one.effect.others_lost) for one in scores
    ] == [
        (((("cameras", "hall", "objects", "person", "min_score"), "0.59"),), 4, (time_of(210),)),
        (
            ((("cameras", "hall", "objects", "person", "min_score"), "0.80"),),
            4,
            (time_of(200), time_of(210)),
        ),
    ]


@pytest.mark.parametrize("percent", range(50, 99))
def test_the_score_is_the_next_hundredth_above_the_false_one(percent: int) -> None:
    (score,) = (
        one
        for one in proposals([(image(0, "person", percent / 100), FALSE)])
        if one.kind == "min_score"
    )
    assert score.changes[0][1] == f"{(percent + 1) / 100:.2f}"


def test_parked_cars_repeat_and_hours_in_which_nobody_comes_are_disarmed() -> None:
    absent = known(absent="car")
    places = [(0.1 * n, 0.2, 0.1, 0.1) for n in range(8)]
    images = [(image(n, "car", 0.9, place), absent) for n, place in enumerate(places)]
    images += [(image(300 + n, "car", 0.9), known(present="car")) for n in range(3)]
    by_kind = {one.kind: one for one in proposals(images)}
    assert by_kind["schedule"].changes == (
        (("cameras", "hall", "schedule", "disarmed"), [{"start": "08:00", "end": "09:00"}]),
    )
    assert len(by_kind["schedule"].effect.false_gone) == 8
    assert not by_kind["schedule"].loses_right
    parked = [(image(n, "car", 0.9), absent) for n in range(8)]
    by_kind = {one.kind: one for one in proposals(parked)}
    assert by_kind["repeats"].changes == ((("cameras", "hall", "repeats"), {}),)
    assert len(by_kind["repeats"].effect.false_gone) == 5
    assert by_kind["repeats"].sureness == (
        "TOO FEW marks: no alert is marked right, so nothing is known of those that would be lost"
    )


def test_one_false_alert_disarms_no_camera_for_an_hour_a_day() -> None:
    """Found by a new user, to whom it was the first proposal."""
    for number in (1, 2, 3):
        images = [(image(n, "person", 0.9), FALSE) for n in range(number)]
        images += [(image(300 + n, "person", 0.9), known(present="person")) for n in range(3)]
        assert ("schedule" in kinds(proposals(images))) == (number == 3)


def test_a_longer_cooldown_and_a_score_by_night_where_the_rules_have_them() -> None:
    text = RULES.replace("cooldown: 0s", "night: {max_brightness: 0.5}\n  cooldown: 30m")
    images = [(image(31 * n, "person", 0.6), FALSE) for n in range(4)]
    by_kind = {one.kind: one for one in proposals(images, text)}
    assert by_kind["cooldown"].changes == (
        (("cameras", "hall", "cooldown"), "3600s"),
        (("cameras", "hall", "incident_gap"), "0s"),
    )
    assert len(by_kind["cooldown"].effect.false_gone) == 2
    assert len(by_kind["min_score_at_night"].effect.false_gone) == 4
    assert kinds(proposals(images, text))[0] == "min_score_at_night"


@pytest.mark.parametrize(
    ("score", "said", "text", "why"),
    [
        (0.9, RIGHT, RULES, "no alert of hall is marked false; 1 of its images have another mark"),
        (0.4, FALSE, RULES, "the rules now send no alert of hall that is marked false"),
        (0.9, None, RULES, "nobody has marked an alert of hall; mark those that are false"),
        (0.9, known(), RULES, "no alert of hall is marked false; 1 of its images have another"),
        (
            *(0.9, Facts({}, frozenset(), disputed=frozenset(["person"])), RULES),
            "people disagree on 1 image of hall, so nothing is known of alerts there",
        ),
        (
            *(0.9, FALSE, "version: 1\nstrict_ids: true\ncameras: {gate: {objects: {car: }}}\n"),
            "the rules are strict and do not name hall, so its images are refused",
        ),
    ],
)
def test_without_a_false_alert_it_says_why_nothing_is_proposed(
    score: float, said: Facts | None, text: str, why: str
) -> None:
    one = image(0, "person", score)
    found = findings([(one, said)], {} if said is None else {("hall", one.timestamp): said}, text)
    assert found.proposals == ()
    assert found.nothing is not None
    assert found.nothing.startswith(why)


@pytest.mark.parametrize("present", [{}, {"car": ()}])
def test_a_label_marked_false_of_an_alert_for_several_is_not_said_to_be_silenced(
    present: dict[str, tuple[()]],
) -> None:
    """A new user marked the person of an alert for a person and a car, under the same rules."""
    one = seen("hall", time_of(0), ("person", 0.8), ("car", 0.8), bbox=DOOR)
    person = Facts(present, frozenset(["person"]))
    found = findings([(one, person)], {("hall", one.timestamp): person})
    assert found.nothing == (
        "no alert of hall is false as a whole: 1 alert with a label that is marked false is sent "
        "for a label that is not; mark that label too if it is false"
    )


def test_marks_of_images_that_are_not_in_the_archive_are_said_to_be() -> None:
    found = findings([(image(0, "person", 0.9), None)], {("hall", time_of(1)): FALSE})
    assert found.nothing == (
        "none of the 1 marked images of hall is among those of the archive that count"
    )


def test_where_no_change_silences_a_false_alert_it_says_what_was_tried() -> None:
    """Each change of one label leaves the alert for the other one."""
    text = """\
version: 1
cameras:
  hall:
    cooldown: 3h
    schedule: {disarmed: [{start: "02:00", end: "03:00"}]}
    confirm: {pictures: 2, within: 10m}
    repeats: {occurrences: 9}
    objects: {person: {min_score: 0.5}, car: {min_score: 0.5}}
"""
    images = [seen("hall", time_of(n), ("person", 0.8), ("car", 0.8), bbox=DOOR) for n in (0, 5)]
    both = Facts({}, frozenset(["person", "car"]))
    facts = {("hall", time_of(5)): both}
    found = findings([(one, both) for one in images], facts, text)
    assert found.proposals == ()
    assert found.nothing == (
        "no single change of the rules of hall would silence one of the 1 alerts that are marked "
        "false; tried: min_score, min_area, mask"
    )


def test_an_alert_that_moves_is_kept_below_the_score_that_silences_what_stands_still() -> None:
    text = RULES.replace("cooldown: 0s", "cooldown: 0s\n  night: {max_brightness: 0}")
    images = [(image(5 * n, "person", 0.7, TREE), FALSE) for n in range(4)]
    for n in range(4):  # Somebody walks by: two images within three seconds.
        minute = time_of(100 + 10 * n)
        for second, left in ((0, 0.5), (2, 0.62)):
            at = minute.replace(":00Z", f":{second:02d}Z")
            moved = seen(
                *("hall", at, ("person", 0.6)),
                bbox=(left, 0.4, 0.1, 0.4),
                sha256=f"{n}{second:063}",
            )
            images.append((moved, RIGHT if second else None))
    by_kind = {one.kind: one for one in proposals(images, text)}
    track = by_kind["track"]
    assert track.changes == (
        (("cameras", "hall", "objects", "person", "min_score"), "0.71"),
        (("cameras", "hall", "track"), {"min_score": "0.5"}),
    )
    assert (len(track.effect.false_gone), track.effect.right, track.loses_right) == (4, 4, False)
    assert len(track.effect.others_lost) == 4  # The first image of each.
    assert by_kind["min_score"].loses_right


def test_a_zone_around_the_right_alerts_where_the_rules_have_none() -> None:
    corners = [(0.0, 0.0), (0.0, 0.6), (0.8, 0.0)]
    images = [(image(5 * n, "person", 0.9, (*at, 0.1, 0.1)), FALSE) for n, at in enumerate(corners)]
    images += [(image(90 + n, "person", 0.9, DOOR), RIGHT) for n in range(3)]
    zone = {one.kind: one for one in proposals(images)}["zone"]
    ((path, values),) = zone.changes
    assert path == ("cameras", "hall", "zones", "marked-1")
    assert values == {
        "polygon": [["0.550", "0.350"], ["0.850", "0.350"], ["0.850", "0.850"], ["0.550", "0.850"]],
        "objects": {"person": {}},
    }
    assert (len(zone.effect.false_gone), zone.loses_right) == (3, False)
    assert "zone" not in kinds(proposals(images[:-1]))  # Two right alerts are few.
    for covers, is_proposed in (("", False), (", objects: {car: }", True)):
        has_zone = f"zones: {{all: {{polygon: [[0, 0], [1, 0], [1, 1], [0, 1]]{covers}}}}}\n    "
        text = RULES.replace(
            "objects: {person: {min_score: 0.5}} ", f"{has_zone}objects: {{person: }} "
        )
        found = [one for one in proposals(images, text) if one.kind == "zone"]
        assert bool(found) == is_proposed


@pytest.mark.search
@search(60)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 400),
            st.sampled_from(["person", "car"]),
            st.integers(50, 95),
            st.sampled_from([TREE, DOOR, (0.3, 0.3, 0.02, 0.02)]),
            st.sampled_from(["right", "false", None]),
        ),
        min_size=1,
        max_size=10,
        unique_by=lambda one: one[0],
    ),
    st.sampled_from(["0s", "20m"]),
)
def test_each_proposal_does_what_it_says_and_the_first_loses_a_right_alert_only_if_all_do(
    shown: list[tuple[int, str, int, Any, str | None]], cooldown: str
) -> None:
    text = RULES.replace("cooldown: 0s", f"cooldown: {cooldown}")
    marks = {time_of(minute): (label, mark) for minute, label, _, _, mark in shown}
    images = [
        image(minute, label, conf / 100, box) for minute, label, conf, box, _ in sorted(shown)
    ]
    facts = {
        ("hall", time): known(present=label) if mark == "right" else known(absent=label)
        for time, (label, mark) in marks.items()
        if mark is not None
    }
    found = propose(images, facts, text, "rules.yaml", "hall").proposals
    before = sent(images, text)

    def sent_in(alerts: dict[str, tuple[set[str], str | None]]) -> set[str]:
        return {time for time, (labels, by) in alerts.items() if labels and by is None}

    def false_in(alerts: dict[str, tuple[set[str], str | None]]) -> set[str]:
        return {
            time
            for time, (labels, by) in alerts.items()
            if labels and by is None and marks[time][1] == "false"
        }

    def right_in(alerts: dict[str, tuple[set[str], str | None]]) -> set[str]:
        ids = {rules.alert_id("hall", time, "alert") for time in false_in(alerts)}
        return {
            time
            for time, (labels, by) in alerts.items()
            if labels and marks[time][1] == "right" and by not in ids
        }

    for proposal in found:
        after = sent(images, apply_settings(text, proposal.changes))
        effect = proposal.effect
        assert effect.false == len(false_in(before))
        assert set(effect.false_gone) == false_in(before) - false_in(after)
        assert effect.false_gone
        assert effect.right == len(right_in(before))
        assert set(effect.right_lost) == right_in(before) - right_in(after)
        assert set(effect.others_lost) == {
            time for time in sent_in(before) - sent_in(after) if marks[time][1] is None
        }
        assert set(effect.gained) == sent_in(after) - sent_in(before)
    if any(not proposal.loses_right for proposal in found):
        assert not found[0].loses_right


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return write_marked(tmp_path, right_score=0.9, right_from=90)


def write_marked(tmp_path: Path, right_score: float, right_from: int) -> Path:
    """An output of four false alerts with a score of 0.55, and four right ones."""
    output = tmp_path / "out"
    images = [image(5 * n, "person", 0.55) for n in range(4)]
    images += [image(right_from + 5 * n, "person", right_score) for n in range(4)]
    write_output(output, images, RULES)
    for number, one in enumerate(images):
        write_mark(
            str(output),
            id="hall",
            timestamp=one.timestamp,
            alert_id=rules.alert_id("hall", one.timestamp, "alert"),
            mark="false" if number < 4 else "right",
            label=None,
            bboxes=(),
            threats=[MarkedThreat("person", DOOR)],
            by="Anna",
        )
    (tmp_path / "rules.yaml").write_text(RULES)
    return output


def run(capsys: pytest.CaptureFixture[str], output: Path, *more: str) -> tuple[str, str]:
    rules_file = str(output.parent / "rules.yaml")
    words = ["rules", "propose", "--output", str(output), "--rules", rules_file, *more]
    assert cli.main(words) == 0
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_the_command_prints_the_proposals_and_writes_the_first_with_comments_kept(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, _ = run(capsys, output)
    assert text.splitlines()[:4] == [
        "hall: 4 alerts marked false were sent, 4 right",
        "  1  cameras.hall.objects.person.min_score: 0.56",
        "     4 of 4 false alerts gone, 4 of 4 right ones kept; of the unmarked ones 0 gone, and 0 "
        "alerts more",
        "     of 4 right alerts 0 are lost, so up to 49% of all may be",
    ]
    document = json.loads(run(capsys, output, "--format", "json")[0])
    first = document["hall"][0]
    assert first["changes"] == [
        {"path": ["cameras", "hall", "objects", "person", "min_score"], "value": "0.56"}
    ]
    assert (first["kind"], len(first["false_gone"]), first["right_lost"]) == ("min_score", 4, [])
    rules_file = output.parent / "rules.yaml"
    assert rules_file.read_text() == RULES
    _, notes = run(capsys, output, "--id", "hall", "--write")
    assert notes == f"{rules_file}: written with proposal 1\n"
    assert rules_file.read_text() == RULES.replace(
        "objects: {person: {min_score: 0.5}} ", "objects: {person: {min_score: 0.56}}"
    )
    text, notes = run(capsys, output)
    assert text == ""
    assert notes == (
        "nothing to propose for hall: the rules now send no alert of hall that is "
        "marked false (marked: 4)\n"
    )


def test_what_is_refused(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules_file = output.parent / "rules.yaml"
    words = ("rules", "propose", "--output", output, "--rules", rules_file)
    assert "--write 99: hall has " in refused(capsys, *words, "--id", "hall", "--write", "99")
    write_output(output, [seen("gate", time_of(0), ("person", 0.9))], RULES)
    assert "name it by --id" in refused(capsys, *words, "--write")
    assert "no such file" in refused(capsys, *words[:-1], output / "none.yaml")
    assert rules_file.read_text() == RULES


def test_what_loses_right_alerts_is_written_only_by_its_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = write_marked(tmp_path, right_score=0.55, right_from=1)
    rules_file = tmp_path / "rules.yaml"
    words = ("rules", "propose", "--output", output, "--rules", rules_file, "--id", "hall")
    assert "each proposal for hall loses alerts that are marked right" in refused(
        capsys, *words, "--write"
    )
    assert rules_file.read_text() == RULES
    assert run(capsys, output, "--id", "hall", "--write", "1")[1] == (
        f"{rules_file}: written with proposal 1\n"
    )


def test_a_link_to_the_rule_file_stays_and_the_file_keeps_its_mode_and_owner(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link, file = output.parent / "rules.yaml", output.parent / "versions" / "rules-1.yaml"
    file.parent.mkdir()
    link.rename(file)
    link.symlink_to(file)
    owner = 12345 if os.getuid() == 0 else os.getuid()
    os.chown(file, owner, -1)
    file.chmod(0o640)
    run(capsys, output, "--id", "hall", "--write")
    assert link.is_symlink()
    assert "min_score: 0.56" in file.read_text()
    status = file.stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (owner, 0o640)
    assert [path.name for path in file.parent.iterdir()] == ["rules-1.yaml"]


def test_images_before_since_are_judged_but_do_not_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The false alert of 08:04 is covered by that of 08:00, which `--since` leaves out."""
    text = RULES.replace("cooldown: 0s", "cooldown: 30m")
    images = [image(minute, "person", 0.6) for minute in (0, 4, 40)]
    output = tmp_path / "out"
    write_output(output, images, text)
    (tmp_path / "rules.yaml").write_text(text)
    for one in images:
        write_mark(
            str(output),
            id="hall",
            timestamp=one.timestamp,
            alert_id=rules.alert_id("hall", one.timestamp, "alert"),
            mark="false",
            threats=[MarkedThreat("person", DOOR)],
            by="Anna",
        )
    assert run(capsys, output)[0].startswith("hall: 2 alerts marked false were sent, 0 right")
    since = run(capsys, output, "--since", "2026-01-31T08:02:00Z")[0]
    assert since.startswith("hall: 1 alert marked false was sent, 0 right")
