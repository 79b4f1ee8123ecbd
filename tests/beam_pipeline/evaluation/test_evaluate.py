"""The command `evaluate`, over small archives."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from beam_pipeline import cli
from tests.beam_pipeline.conftest import refused
from tests.beam_pipeline.evaluation.truths import rules_of, truth_of
from tests.transforms.archives import OLD, seen, write_output
from transforms.records.images import DetectedImage

CAR = "version: 1\ndefaults:\n  objects: {car: {min_score: 0.3}, person: {severity: detection}}\n"


def image(
    minute: int, *detections: tuple[str, float], id: str = "hall", day: int = 31
) -> DetectedImage:
    time = f"2026-01-{day:02d}T10:{minute:02d}:00Z"
    return seen(id, time, *detections, file=f"{id}_202601{day:02d}T10{minute:02d}00Z.jpg")


def evaluated(
    capsys: pytest.CaptureFixture[str], archive: Path, truth: Path, *more: object
) -> tuple[dict[str, Any], str]:
    """The result of a run as JSON, and its notes."""
    command = ["evaluate", "--archive", archive, "--truth", truth, "--format", "json", *more]
    code = cli.main([str(part) for part in command])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out), captured.err


def shown(tally: dict[str, Any], names: str) -> list[Any]:
    return [tally[name] for name in names.split()]


def named(groups: Iterable[dict[str, Any]], key: str) -> dict[str, dict[str, Any]]:
    return {group[key]: group for group in groups}


HALL = [
    image(0, ("person", 0.9)),
    image(10, ("person", 0.9)),
    image(20, ("person", 0.4), ("car", 0.35)),
    image(30),
]
GATE = [image(0, ("car", 0.6), id="gate", day=30), image(0, ("car", 0.2), id="gate")]
ROWS = [
    (HALL[0], "person", 1),
    (HALL[1], "empty", 0),
    (HALL[2], "person", 2),
    (HALL[3], "dog", 1),
    (GATE[0], "car", 1),
    (GATE[1], "empty", 0),
]


def test_the_verdicts_of_final_are_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_output(tmp_path / "out", [*HALL, *GATE])
    result, notes = evaluated(capsys, tmp_path / "out", truth_of(tmp_path, *ROWS))
    total = result["total"]
    assert shown(total, "pictures threats alerts right false missed") == [6, 4, 3, 2, 1, 2]
    assert shown(total, "precision recall false_per_camera_day") == [0.6667, 0.5, 0.3333]
    hall, gate = (named(result["by_id"], "id")[id] for id in ("hall", "gate"))
    assert shown(hall, "threats caught false missed camera_days") == [3, 1, 1, 2, 1]
    assert shown(gate, "threats caught false missed camera_days") == [1, 1, 0, 0, 2]
    labels = named(result["by_label"], "label")
    assert shown(labels["person"], "threats caught false") == [2, 1, 1]
    # That an alert for a dog is wanted nothing in final/ says, as no dog was ever seen.
    assert shown(labels["dog"], "threats caught missed") == [1, 0, 1]
    assert result["supposed_threats"] == [{"id": "hall", "label": "dog"}]
    assert "final/ does not say whether alerts are wanted for dog on hall" in notes
    rules = named(result["by_rule"], "rule")
    assert shown(rules["defaults.objects.car"], "threats caught false") == [1, 1, 0]


def test_other_rules_judge_anew_and_say_what_is_a_threat(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_output(tmp_path / "out", [*HALL, *GATE])
    truth, rules = truth_of(tmp_path, *ROWS), rules_of(tmp_path, CAR)
    result, notes = evaluated(capsys, tmp_path / "out", truth, "--rules", rules)
    assert notes == ""
    assert shown(result["total"], "threats alerts right false missed") == [1, 2, 1, 1, 0]
    # A person is no missed alert where the rules only record persons.
    assert list(named(result["by_label"], "label")) == ["car"]
    final, notes = evaluated(
        capsys, tmp_path / "out", truth, "--rules", rules, "--verdicts", "final"
    )
    assert shown(final["total"], "threats alerts right false missed") == [1, 3, 1, 2, 0]
    assert "those given" in notes


@pytest.mark.parametrize(
    ("tiles", "others"),
    [
        ("", 1),
        ("tiles: {columns: 4}", 3),
        ("tiles: {columns: 2, rows: 8, overlap: 0}", 1),  # Too small: the image has none.
        ("tiles: {columns: 4, overlap: 0.1}", 2),
    ],
)
def test_images_that_were_detected_with_other_tiles_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tiles: str, others: int
) -> None:
    assert (HALL[0].width, HALL[0].height) == (640, 480)
    model = replace(HALL[0].model, settings="0123456789ab")
    grids = (None, None, "tiles 4x2 overlap 0.1 min_score 0.3")
    images = [
        replace(image, model=model.with_tiles(grid))
        for image, grid in zip(HALL, grids, strict=False)
    ]
    write_output(tmp_path / "out", images)
    rules = rules_of(tmp_path, f"{CAR}  {tiles}\n")
    truth = truth_of(tmp_path, *ROWS[:3])
    _, notes = evaluated(capsys, tmp_path / "out", truth, "--rules", rules)
    assert notes == (
        f"{others} images were detected with other tiles than these rules have: run the job with "
        "these rules to see what their tiles find\n"
    )
    _, notes = evaluated(capsys, tmp_path / "out", truth, "--rules", rules, "--verdicts", "final")
    assert "tiles" not in notes


def test_what_a_cooldown_holds_back_is_shown_with_recall(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = rules_of(tmp_path, OLD.replace("cooldown: 0s", "cooldown: 5m"))
    images = [image(minute, ("person", 0.9)) for minute in (0, 1, 2, 10, 11)]
    write_output(tmp_path / "out", images)
    rows = [(image_name, "person", 1) for image_name in (images[0], images[1], images[4])]
    rows += [(image_name, "empty", 0) for image_name in (images[2], images[3])]
    truth = truth_of(tmp_path, *rows)
    result, _ = evaluated(capsys, tmp_path / "out", truth, "--rules", rules)
    total = result["total"]
    # At 10:02 nothing was there, at 10:11 a person came in the cooldown of a false alert.
    assert shown(total, "threats alerts caught suppressed covered") == [3, 2, 1, 3, 1]
    assert shown(total, "behind_false missed recall recall_covered") == [1, 1, 0.3333, 0.6667]
    assert shown(total, "incidents incidents_caught") == [2, 1]
    # The same verdicts, read back from final/.
    write_output(tmp_path / "judged", images, rules.read_text())
    again, _ = evaluated(capsys, tmp_path / "judged", truth)
    assert again["total"] == total
    command = ["evaluate", "--archive", tmp_path / "judged", "--truth", truth]
    assert cli.main([str(part) for part in command]) == 0
    table = capsys.readouterr().out
    assert re.search(r" suppressed +recall \+ covered ", table)
    assert "1 threats fell into the cooldown of a false alert, and count as missed." in table


def test_an_incident_is_caught_only_if_an_alert_was_sent_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = rules_of(tmp_path, OLD.replace("cooldown: 0s", "cooldown: 24h"))
    stays = [
        seen(
            "hall", f"2026-01-31T{time}:00Z", ("person", 0.9), file=f"hall_20260131T{digits}00Z.jpg"
        )
        for time, digits in (
            *(("10:00", "1000"), ("10:30", "1030"), ("11:00", "1100")),
            *(("11:30", "1130"), ("12:00", "1200"), ("12:30", "1230")),
        )
    ]
    write_output(tmp_path / "out", stays, rules.read_text())
    truth = truth_of(tmp_path, *[(stay, "person", 1) for stay in stays])
    for more in (["--rules", rules], []):
        result, _ = evaluated(capsys, tmp_path / "out", truth, *more)
        assert shown(result["total"], "incidents incidents_caught incidents_covered") == [6, 1, 5]
        assert result["total"]["first_alert_seconds"] == {"median": 0.0, "p95": 0.0}
    command = ["evaluate", "--archive", tmp_path / "out", "--truth", truth]
    assert cli.main([str(part) for part in command]) == 0
    assert re.search(r" 1 of 6 +5 +0s, p95 0s ", capsys.readouterr().out)
    # A sample of the truth that lacks the image with the alert.
    sample = truth_of(tmp_path, *[(stay, "person", 1) for stay in stays[1:3]])
    result, _ = evaluated(capsys, tmp_path / "out", sample, "--incident_gap", "30m")
    assert shown(result["total"], "incidents incidents_caught incidents_covered") == [1, 1, 0]
    result, _ = evaluated(capsys, tmp_path / "out", sample, "--incident_gap", "29m")
    assert shown(result["total"], "incidents incidents_caught incidents_covered") == [2, 0, 2]


def test_what_was_seen_before_the_period_is_looked_back_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = rules_of(tmp_path, OLD.replace("cooldown: 0s", "cooldown: 5m"))
    images = [image(minute, ("person", 0.9)) for minute in (0, 1)]
    write_output(tmp_path / "out", images)
    truth = truth_of(tmp_path, *[(image_name, "person", 1) for image_name in images])
    period = ["--since", "2026-01-31T10:01:00Z", "--until", "2026-01-31T10:02:00Z"]
    result, notes = evaluated(capsys, tmp_path / "out", truth, "--rules", rules, *period)
    assert notes == ""  # The image outside the period is no fault of the truth.
    assert shown(result["total"], "pictures alerts suppressed covered") == [1, 0, 1, 1]


def test_a_disarmed_camera_misses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule = 'defaults:\n  schedule: {disarmed: [{start: "10:00", end: "10:05"}]}'
    rules = rules_of(tmp_path, OLD.replace("defaults:", schedule))
    images = [image(minute, ("person", 0.9)) for minute in (0, 10)]
    write_output(tmp_path / "out", images, rules.read_text())
    truth = truth_of(tmp_path, *[(image_name, "person", 1) for image_name in images])
    for more in (["--rules", rules], []):
        result, notes = evaluated(capsys, tmp_path / "out", truth, *more)
        assert shown(result["total"], "pictures threats caught missed") == [2, 1, 1, 0]
        assert "1 images with what would be a threat were taken while" in notes


def test_what_is_left_out_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_output(tmp_path / "out", [*HALL, *GATE])
    (tmp_path / "out/final/hall/hall_20260131T100000Z.json").write_text("{")
    (tmp_path / "out/final/hall/hall_20260131T103000Z.json").unlink()
    absent = image(59, id="yard")
    truth = truth_of(tmp_path, *ROWS[:1], *ROWS[3:], (absent, "person", 1))
    result, notes = evaluated(capsys, tmp_path / "out", truth)
    assert result["left_out"] == {
        "without_truth": 2,
        "without_verdict": 2,
        "disarmed": 0,
        "refused_cameras": [],
        "not_in_archive": ["yard_20260131T105900Z.jpg"],
    }
    assert len(result["problems"]) == 2
    assert "1 images of the truth are not in the archive: yard_20260131T105900Z.jpg" in notes
    assert "2 images without truth are left out" in notes
    assert "2 images without a verdict are left out" in notes
    assert "problems with the archive, skipped: 2" in notes


def test_rules_that_do_not_fit_the_archive_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_output(tmp_path / "out", [*HALL, *GATE])
    rules = rules_of(tmp_path, f"{OLD}strict_ids: true\ncameras: {{hall: , cellar: }}\n")
    truth = truth_of(tmp_path, *ROWS)
    result, notes = evaluated(capsys, tmp_path / "out", truth, "--rules", rules)
    assert list(named(result["by_id"], "id")) == ["hall"]
    assert "the rules are strict and refuse all images of gate" in notes
    assert "the archive has no images of cellar, which the rules name" in notes
    assert result["left_out"]["not_in_archive"] == []


def test_boxes_give_average_precision_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_output(tmp_path / "out", HALL)
    x_min, y_min, width, height = HALL[0].detections[0].bbox
    truth = tmp_path / "truth.json"
    truth.write_text(
        json.dumps(
            {
                "images": [
                    {"id": 1, "file_name": HALL[0].file, "width": 640, "height": 480},
                    {"id": 2, "file_name": HALL[1].file, "width": 640, "height": 480},
                ],
                "categories": [{"id": 1, "name": "person"}],
                "annotations": [
                    {
                        "id": 1,
                        "image_id": 1,
                        "category_id": 1,
                        "bbox": [x_min * 640, y_min * 480, width * 640, height * 480],
                    }
                ],
            }
        )
    )
    result, _ = evaluated(capsys, tmp_path / "out", truth)
    assert shown(result["total"], "pictures threats caught false") == [2, 1, 1, 1]
    # The false one has the same score, and comes after it.
    assert result["average_precision"] == [{"label": "person", "boxes": 1, "ap": 1.0, "ap50": 1.0}]
    assert cli.main(["evaluate", "--archive", f"{tmp_path}/out", "--truth", str(truth)]) == 0
    assert "person      1  1.000  1.000" in capsys.readouterr().out


def test_a_wrong_set_up_is_reported_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_output(tmp_path / "out", HALL)
    (tmp_path / "seen").mkdir()
    (tmp_path / "out/detections").rename(tmp_path / "seen/detections")
    truth = truth_of(tmp_path, *ROWS)
    other = tmp_path / "other.csv"
    other.write_text("file,main_class,count\nIMG_0001.jpg,person,1\n")
    own = ["evaluate", "--archive", tmp_path / "out", "--truth", truth]

    def says(*arguments: object) -> str:
        return refused(capsys, *arguments)

    assert "the following arguments are required: --output/--archive" in says("evaluate")
    assert "no archive there" in says("evaluate", "--archive", tmp_path / "x", "--truth", truth)
    assert "--truth nowhere.csv: no such file" in says(*own[:3], "--truth", "nowhere.csv")
    assert "names no selected image of the archive, but IMG_0001.jpg" in says(
        *own[:3], "--truth", other
    )
    assert "--verdicts is for use with --rules" in says(*own, "--verdicts", "final")
    assert "--id yard: no such camera in the archive" in says(*own, "--id", "yard")
    assert "is not a duration" in says(*own, "--incident_gap", "soon")
    assert "there is no final/" in says(
        "evaluate", "--archive", tmp_path / "seen", "--truth", truth
    )
    strict = rules_of(tmp_path, f"{OLD}strict_ids: true\n")
    assert "names no image that counts: the rules are strict and refuse all images of hall" in (
        says(*own, "--id", "hall", "--rules", strict)
    )
    assert "rules.yaml:1: " in says(*own, "--rules", rules_of(tmp_path, "version: 2\n"))
