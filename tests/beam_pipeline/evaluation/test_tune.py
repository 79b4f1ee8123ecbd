"""The search for scores and areas, and the command `tune`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipeline import cli
from beam_pipeline.evaluation.rule_edits import Edit, apply_edits
from beam_pipeline.evaluation.tune import groups
from beam_pipeline.evaluation.tuning import Measured, Values, areas_to_try, propose, threats_needed
from rules import parse_rules
from tests.beam_pipeline.conftest import refused
from tests.beam_pipeline.evaluation.truths import rules_of, truth_of
from tests.search import search
from tests.transforms.archives import seen, write_output
from transforms.records.images import DetectedImage

# The search, on tables of (score, area) by hand


def table(threats: list[tuple[float, float]], others: list[tuple[float, float]]) -> Any:
    """A function that measures as rules would."""

    def passes(values: Values, score: float, area: float) -> bool:
        return (
            score >= values.min_score
            and area >= (values.min_area or 0)
            and area <= (values.max_area or 1)
        )

    def measure(values: Values) -> Measured:
        caught = sum(passes(values, *threat) for threat in threats)
        return Measured(
            len(threats), caught, len(others), sum(passes(values, *spec) for spec in others), 1
        )

    return measure


NOW = Values(0.5, None, None)
OPEN = [(None, None)]


@pytest.mark.parametrize(
    ("threats", "others", "min_recall", "score"),
    [
        # From 0.61 to 0.80 nothing changes: the middle.
        ([0.8, 0.9], [0.2, 0.3, 0.6], 1.0, 0.7),
        ([0.8, 0.9], [0.2, 0.55], 1.0, 0.68),
        # One of four may be missed, which saves both false alerts; or none, which saves none.
        ([0.4, 0.8, 0.85, 0.9], [0.45, 0.55, 0.35], 0.75, 0.68),
        ([0.4, 0.8, 0.85, 0.9], [0.45, 0.55, 0.35], 1.0, 0.38),
        # Of the scores with as few false alerts those that catch most, down to 0.11.
        ([0.3, 0.9], [0.5, 0.35, 0.1], 1.0, 0.2),
        ([0.3, 0.5, 0.9], [0.1], 0.5, 0.2),
        # What holds is as good as any.
        ([0.6, 0.9], [0.4], 1.0, 0.5),
        ([0.04, 0.9], [0.4], 0.5, 0.5),
        # No score catches what was not seen.
        ([0.04, 0.9], [0.4], 1.0, None),
    ],
)
def test_the_score_with_the_fewest_false_alerts_that_keeps_recall(
    threats: list[float], others: list[float], min_recall: float, score: float | None
) -> None:
    measure = table([(threat, 0.1) for threat in threats], [(threat, 0.1) for threat in others])
    proposed = propose(measure, NOW, OPEN, min_recall)
    assert proposed == (None if score is None else replace(NOW, min_score=score))


def test_an_area_is_bounded_where_that_saves_false_alerts() -> None:
    threats = [(0.4, 0.05), (0.5, 0.08), (0.9, 0.1)]
    specks = [(0.8, 0.001), (0.7, 0.002)]
    pairs = areas_to_try(NOW, [area for _, area in threats], 1.0)
    # A fifth below the smallest threat, a quarter above the largest; without bounds first.
    assert pairs == [(None, None), (None, 0.13), (0.04, None), (0.04, 0.13)]
    proposed = propose(table(threats, [*specks, (0.1, 0.1)]), NOW, pairs, 1.0)
    assert proposed == Values(0.25, 0.04, None)


def test_areas_to_try_leave_out_as_many_threats_as_may_be_missed() -> None:
    now = Values(0.5, 0.001, None)
    areas = [step / 100 for step in range(1, 101)]
    pairs = areas_to_try(now, areas, 0.98)
    assert {low for low, _ in pairs} == {0.001, 0.0, 0.008, 0.016, 0.024}
    assert {high for _, high in pairs} == {None, 1.0}
    assert pairs[0] == (0.001, None)
    assert areas_to_try(Values(0.5, None, 0.2), [], 0.98) == [(None, 0.2), (None, 1.0)]


@pytest.mark.parametrize(
    ("min_recall", "needed"), [(0.98, 50), (0.9, 10), (0.95, 20), (0.5, 2), (1.0, float("inf"))]
)
def test_how_many_threats_a_recall_needs(min_recall: float, needed: float) -> None:
    assert threats_needed(min_recall) == needed


@pytest.mark.parametrize(("caught", "keeps"), [(49, True), (48, False)])
def test_recall_is_kept_to_the_letter(caught: int, keeps: bool) -> None:
    assert Measured(50, caught, 1, 0, 1).keeps(0.98) is keeps


# The rule file

FILE = """\
# What we look for.
version: 1
defaults:
  objects:
    person: {min_score: 0.50}   # half
profiles:
  yard:
    objects:
      person:
        min_score: 0.6   # more, as cats are many
      car: {min_area: 0.01}
cameras:
  007: {profile: yard}
  "gate": {profile: yard, objects: {person: {min_score: 0.7}}}
  hall:

  # At the back.
  cellar: {objects: {car: {}}}
"""


def test_an_edit_keeps_all_that_it_does_not_touch() -> None:
    text = apply_edits(
        FILE,
        [
            Edit(("profiles", "yard"), "person", {"min_score": 0.45, "min_area": 0.00025}),
            Edit(("cameras", "007"), "person", {"min_score": 0.4}),
            Edit(("cameras", "hall"), "car", {"min_score": 0.3, "max_area": 1.0}),
        ],
    )
    expected = (
        FILE.replace(
            "min_score: 0.6   # more, as cats are many",
            "min_score: 0.45  # more, as cats are many\n        min_area: 0.00025",
        )
        .replace(
            "007: {profile: yard}", "007: {profile: yard, objects: {person: {min_score: 0.4}}}"
        )
        .replace("hall:\n", "hall:\n    objects:\n      car: {min_score: 0.3, max_area: 1}\n")
    )
    assert text == expected
    parse_rules(text, "rules.yaml")


def named_groups(
    text: str, ids: list[str], per: str = "profile", shown: dict[str, list[str]] | None = None
) -> dict[tuple[str, str], Any]:
    group_list = groups(parse_rules(text, "rules.yaml"), ids, per, shown or {})
    return {(item.name, item.label): (item.layers, item.ids) for item in group_list}


def test_cameras_of_a_profile_are_tuned_together_but_for_those_with_values_of_their_own() -> None:
    grouped = named_groups(FILE, ["007", "gate", "hall", "cellar", "unnamed"])
    assert grouped == {
        ("profile yard", "person"): ((("profiles", "yard"),), ("007",)),
        ("profile yard", "car"): ((("profiles", "yard"),), ("007", "gate")),
        ("camera gate", "person"): ((("cameras", "gate"),), ("gate",)),
        ("no profile", "person"): (
            (("cameras", "hall"), ("cameras", "cellar"), ("cameras", "unnamed")),
            ("hall", "cellar", "unnamed"),
        ),
        ("no profile", "car"): ((("cameras", "cellar"),), ("cellar",)),
    }
    assert named_groups(FILE, ["007"], "camera") == {
        ("camera 007", label): ((("cameras", "007"),), ("007",)) for label in ("person", "car")
    }


def test_without_profiles_the_defaults_are_tuned() -> None:
    text = "version: 1\ndefaults: {objects: {person: , dog: {severity: detection}}}\n"
    assert named_groups(text, ["hall", "gate"]) == {
        ("no profile", "person"): ((("defaults",),), ("hall", "gate"))
    }


def test_a_camera_that_alone_shows_a_label_is_tuned_on_its_own() -> None:
    ids = ["007", "hall", "cellar", "unnamed"]
    grouped = named_groups(FILE, ids, shown={"person": ["007", "hall", "cellar"], "car": ["007"]})
    assert grouped == {
        ("camera 007", "person"): ((("cameras", "007"),), ("007",)),
        ("camera 007", "car"): ((("cameras", "007"),), ("007",)),
        ("no profile", "person"): (
            (("cameras", "hall"), ("cameras", "cellar"), ("cameras", "unnamed")),
            ("hall", "cellar", "unnamed"),
        ),
        ("no profile", "car"): ((("cameras", "cellar"),), ("cellar",)),
    }
    text = "version: 1\ndefaults: {objects: {person: }}\n"
    assert named_groups(text, ["hall", "gate"], shown={"person": ["gate"]}) == {
        ("camera gate", "person"): ((("cameras", "gate"),), ("gate",)),
        ("no profile", "person"): ((("defaults",),), ("hall",)),
    }
    assert named_groups(text, ["hall", "gate"], shown={"person": ["gate", "hall"]}) == {
        ("no profile", "person"): ((("defaults",),), ("hall", "gate"))
    }


CAMERAS = ("007", "gate", "hall", "cellar", "unnamed", "other")


@pytest.mark.search
@search(300)
@given(
    st.sets(st.sampled_from(CAMERAS), min_size=1),
    st.fixed_dictionaries(
        {"person": st.sets(st.sampled_from(CAMERAS)), "car": st.sets(st.sampled_from(CAMERAS))}
    ),
    st.sampled_from([FILE, "version: 1\ndefaults: {objects: {person: , car: }}\n"]),
    st.sampled_from(["profile", "camera"]),
)
def test_no_camera_gets_a_value_from_the_truth_of_one_other_camera(
    ids: set[str], shown: dict[str, set[str]], text: str, per: str
) -> None:
    all_groups = groups(parse_rules(text, "rules.yaml"), sorted(ids), per, shown)
    for group in all_groups:
        is_shared = group.layers != tuple(("cameras", id) for id in group.ids[:1])
        assert not is_shared or len(shown[group.label] & set(group.ids)) != 1
    tuned_cameras = [(id, group.label) for group in all_groups for id in group.ids]
    assert len(tuned_cameras) == len(set(tuned_cameras))


# The command


def image(minute: int, *detections: tuple[str, float], id: str = "hall") -> DetectedImage:
    hour, rest = divmod(minute, 60)
    clock = f"{10 + hour:02d}:{rest:02d}:00"
    name = f"{id}_20260131T{clock.replace(':', '')}Z.jpg"
    return seen(id, f"2026-01-31T{clock}Z", *detections, file=name)


RULES = """\
version: 1
defaults:
  objects:
    person: {min_score: 0.5}  # as everywhere
  cooldown: 0s
"""


def archive_of(
    folder: Path, threats: list[float], others: list[float], *, id: str = "hall"
) -> tuple[Path, Path]:
    """An archive with persons and with nothing, in turn, by score; and its truth."""
    rows = []
    for index in range(max(len(threats), len(others))):
        for step, (scores, label) in enumerate(((threats, "person"), (others, "empty"))):
            if index < len(scores):
                minute = 10 * index + 5 * step
                shown = image(minute, ("person", scores[index]), id=id)
                rows.append((shown, label, int(label == "person")))
    write_output(folder / "out", [shown for shown, _, _ in rows])
    return folder / "out", truth_of(folder, *rows)


def tuned(
    capsys: pytest.CaptureFixture[str], archive: Path, truth: Path, rules: Path, *more: object
) -> tuple[dict[str, Any], str]:
    command = ["tune", "--archive", archive, "--truth", truth, "--rules", rules, *more]
    code = cli.main([*map(str, command), "--format", "json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out), captured.err


def test_a_proposal_is_proven_on_the_later_part_and_written_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The last three of each are later: there a person scores less than any before.
    threats = [0.9, 0.8, 0.45, 0.7, 0.6, 0.9, 0.8, 0.8, 0.3, 0.9]
    others = [0.1, 0.2, 0.55, 0.2, 0.1, 0.2, 0.1, 0.3, 0.5, 0.2]
    archive, truth = archive_of(tmp_path, threats, others)
    rules = rules_of(tmp_path, RULES)
    before = sorted(tmp_path.rglob("*"))
    result, _ = tuned(capsys, archive, truth, rules, "--min_recall", 0.9)
    assert sorted(tmp_path.rglob("*")) == before
    (proposal,) = result["proposals"]
    assert proposal["changes"] == {"min_score": 0.33}
    proposals = {
        name: [measured[key] for key in ("threats", "caught", "false_alerts")]
        for name, measured in proposal["measured"].items()
    }
    assert proposals == {
        "now": [7, 6, 1],
        "now, later": [3, 2, 1],
        "proposed": [7, 7, 1],
        "proposed, later": [3, 2, 1],
    }
    assert [point["min_score"] for point in proposal["curve"]][:7] == [
        *(0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.33)
    ]
    assert proposal["warnings"] == [
        "TOO FEW: 7 with person can't support a recall of 0.9; at least 10 are needed for one to "
        "be missed",
        "NOT HELD: on the later images 2 of 3 are caught",
    ]
    assert result["together"]["now"]["caught"] == 8
    assert result["together"]["proposed"]["caught"] == 9
    assert result["together"]["proposed, later"]["caught"] == 2

    target = tmp_path / "better.yaml"
    command = ["tune", "--archive", archive, "--truth", truth, "--rules", rules]
    assert cli.main([*map(str, command), "--min_recall", "0.9", "--write", str(target)]) == 0
    assert "left out, as the truth does not support it: person of" in capsys.readouterr().err
    assert not target.exists()
    code = cli.main(
        [*map(str, command), "--min_recall", "0.9", "--write_guesses", "--write", str(target)]
    )
    captured = capsys.readouterr()
    assert code == 0
    assert "NOT HELD" in captured.out
    assert "0.33 *" in captured.out
    # One camera says nothing of the others.
    assert target.read_text() == (
        RULES + "cameras:\n  hall:\n    objects:\n      person: {min_score: 0.33}\n"
    )
    assert "proposed for one camera and not for its profile or the defaults" in captured.err
    assert ": person of hall" in captured.err
    assert f"written to {target}" in captured.err


def test_nothing_is_proposed_where_the_truth_does_not_tell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = rules_of(tmp_path, RULES)
    target = tmp_path / "new.yaml"
    for threats, others, says in (
        ([], [0.9, 0.1], "the truth has no image here that is to raise the alert for person"),
        ([0.3, 0.9], [], "the truth has no image without person here"),
        ([0.04, 0.03], [0.2, 0.2], "no values keep a recall of 1: the detector and the other"),
    ):
        folder = tmp_path / str(len(says))
        archive, truth = archive_of(folder, threats, others)
        more = ("--min_recall", 1, "--holdout", 0, "--write", target)
        result, notes = tuned(capsys, archive, truth, rules, *more)
        (proposal,) = result["proposals"]
        assert proposal["changes"] == {}
        assert says in " ".join(proposal["warnings"])
        assert "nothing to write" in notes
        assert not target.exists()
        assert "proposed" not in result["together"]


def test_where_recall_is_out_of_reach_the_best_that_can_be_reached_is_proposed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive, truth = archive_of(tmp_path, [0.04, 0.9, 0.4, 0.8], [0.2, 0.45, 0.3, 0.1])
    rules, target = rules_of(tmp_path, RULES), tmp_path / "new.yaml"
    more = ("--min_recall", 0.95, "--holdout", 0, "--write", target)
    result, notes = tuned(capsys, archive, truth, rules, *more)
    (proposal,) = result["proposals"]
    assert proposal["changes"] == {"min_score": 0.35}
    measured = proposal["measured"]["proposed"]
    assert (measured["threats"], measured["caught"], measured["false_alerts"]) == (4, 3, 1)
    assert proposal["warnings"][1] == (
        "OUT OF REACH: no values keep a recall of 0.95, as the detector and the other filters "
        "leave at most 3 of 4; values that keep these are proposed"
    )
    assert [point["min_score"] for point in proposal["curve"]][:8] == [
        *(0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
    ]
    assert "left out, as the truth does not support it: person of camera hall" in notes
    assert not target.exists()


@pytest.mark.parametrize(
    ("label", "changes"), [("person", {}), ("car", {"min_score": 0.47, "max_area": 0.013})]
)
def test_a_maximum_area_is_never_proposed_for_persons(
    label: str, changes: dict[str, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for number in range(20):
        for offset, is_threat in ((0, True), (5, False)):
            shown = image(10 * number + offset, (label, 0.9))
            side = 0.1 if is_threat else 0.5
            boxes = tuple(replace(one, bbox=(0.2, 0.2, side, side)) for one in shown.detections)
            shown = replace(shown, detections=boxes)
            rows.append((shown, label if is_threat else "empty", int(is_threat)))
    write_output(tmp_path / "out", [shown for shown, _, _ in rows])
    rules = rules_of(tmp_path, f"version: 1\ndefaults: {{objects: {{{label}: }}}}\n")
    more = ("--min_recall", 0.9, "--write", tmp_path / "new.yaml", "--write_guesses")
    result, _ = tuned(capsys, tmp_path / "out", truth_of(tmp_path, *rows), rules, *more)
    (proposal,) = result["proposals"]
    assert proposal["changes"] == changes
    assert (tmp_path / "new.yaml").exists() == (label == "car")


@pytest.mark.search
@search(300)
@given(
    st.lists(st.floats(0.0001, 1), max_size=30),
    st.none() | st.floats(0, 0.1),
    st.none() | st.floats(0.1, 1),
    st.floats(0.1, 1),
)
def test_persons_keep_their_maximum_area(
    areas: list[float], low: float | None, high: float | None, min_recall: float
) -> None:
    pairs = areas_to_try(Values(0.5, low, high), areas, min_recall, bounds_above=False)
    assert {greatest for _, greatest in pairs} <= {high}


def test_other_rules_count_and_incidents_can_be_caught_by_one_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = RULES.replace("defaults:", "defaults:\n  confirm: {pictures: 2, within: 10m}")
    rules = rules_of(tmp_path, text)
    rows = [
        (image(0, ("person", 0.4)), "person", 1),
        (image(5, ("person", 0.4)), "person", 1),
        (image(60, ("person", 0.45)), "empty", 0),  # Alone, so that it is not confirmed.
        (image(120, ("person", 0.2)), "empty", 0),
        (image(124, ("person", 0.2)), "empty", 0),
    ]
    write_output(tmp_path / "out", [row for row, _, _ in rows])
    truth = truth_of(tmp_path, *rows)
    more = ("--holdout", 0, "--min_recall", 1)
    result, _ = tuned(capsys, tmp_path / "out", truth, rules, *more)
    (proposal,) = result["proposals"]
    assert "no values keep a recall of 1" in " ".join(proposal["warnings"])
    result, _ = tuned(capsys, tmp_path / "out", truth, rules, *more, "--recall_of", "incidents")
    (proposal,) = result["proposals"]
    assert proposal["changes"] == {"min_score": 0.3}
    assert proposal["measured"]["proposed"]["false_alerts"] == 0


def test_cameras_are_tuned_on_their_own_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = rules_of(tmp_path, RULES)
    archive, _ = archive_of(tmp_path, [0.9], [0.6])
    archive, _ = archive_of(tmp_path, [0.3], [0.1], id="gate")
    rows = "hall_20260131T100000Z.jpg,person,1\nhall_20260131T100500Z.jpg,empty,0\n"
    rows += rows.replace("hall", "gate")
    (tmp_path / "truth.csv").write_text(f"file,main_class,count\n{rows}")
    target = tmp_path / "better.yaml"
    more = ("--holdout", 0, "--per", "camera", "--write_guesses", "--write", target)
    result, _ = tuned(capsys, archive, tmp_path / "truth.csv", rules, *more)
    changes = {proposal["group"]: proposal["changes"] for proposal in result["proposals"]}
    assert changes == {"camera gate": {"min_score": 0.2}, "camera hall": {"min_score": 0.75}}
    assert result["together"]["proposed"]["precision"] == 1.0
    assert result["together"]["proposed"]["recall"] == 1.0
    written = parse_rules(target.read_bytes(), "better.yaml")
    assert written.for_camera("gate").objects["person"].min_score == 0.2
    assert written.for_camera("other").objects["person"].min_score == 0.5


def test_a_label_that_only_zones_name_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zone = "zones: {door: {polygon: [[0, 0], [1, 0], [1, 1], [0, 1]], objects: {person: }}}"
    rules = rules_of(tmp_path, f"version: 1\ndefaults:\n  {zone}\n")
    archive, truth = archive_of(tmp_path, [0.9], [0.1])
    result, notes = tuned(capsys, archive, truth, rules)
    assert result["proposals"] == []
    assert "not tuned, as only zones name it: person on hall" in notes


def test_a_wrong_set_up_is_reported_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive, truth = archive_of(tmp_path, [0.9], [0.1])
    rules = rules_of(tmp_path, RULES)
    own = ["tune", "--archive", archive, "--truth", truth]

    def says(*arguments: object) -> str:
        return refused(capsys, *own, *arguments)

    assert "the following arguments are required: --rules" in says()
    with_rules = ("--rules", rules)
    assert "0 is not above 0 and at most 1" in says(*with_rules, "--min_recall", 0)
    assert "'most' is not a number" in says(*with_rules, "--min_recall", "most")
    assert "1 is not at least 0 and below 1" in says(*with_rules, "--holdout", 1)
    assert f"--write {rules}: exists already" in says(*with_rules, "--write", rules)
    assert "can't be written" in says(*with_rules, "--write", tmp_path / "rules.yaml" / "x.yaml")
    assert rules.read_text() == RULES
