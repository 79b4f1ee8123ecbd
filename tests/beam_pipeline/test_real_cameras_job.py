"""The whole job on real camera frames with a real COCO detector."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from beam_pipeline import cli
from tests.beam_pipeline.conftest import read_json
from tests.conftest import Command


def test_persons_in_the_hall_are_found_and_empty_frames_are_no_threat(
    real_cameras: Path, shared_photos: Path
) -> None:
    with open(shared_photos / "cameras.truth.csv", newline="") as file:
        truth = [row for row in csv.DictReader(file) if row["file"].startswith("hall_")]
    assert len(truth) == 21
    wrong = []
    for row in truth:
        record = read_json(real_cameras / "final" / "hall" / f"{row['file'][:-4]}.json")
        persons = [threat for threat in record["threat"]["threats"] if threat["label"] == "person"]
        if len(persons) != (int(row["count"]) if row["main_class"] == "person" else 0):
            wrong.append(row["file"])
    assert wrong == []


def test_every_alert_for_the_hall_is_right_and_no_threat_is_missed(
    real_cameras: Path, shared_photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = shared_photos / "cameras.truth.csv"
    command = ["evaluate", "--archive", str(real_cameras), "--truth", str(truth)]
    assert cli.main([*command, "--format", "json"]) == 0
    result = json.loads(capsys.readouterr().out)
    hall = next(row for row in result["by_id"] if row["id"] == "hall")
    assert hall["pictures"] == 21
    # One alert for each incident of this camera, and none is false; the others are covered by it.
    assert (hall["threats"], hall["false"], hall["missed"], hall["behind_false"]) == (16, 0, 0, 0)
    assert hall["right"] + hall["covered"] == 16
    assert hall["right"] >= 1
    assert result["total"]["pictures"] == 51


@pytest.mark.parametrize(
    ("settings", "caught"),
    [
        ("objects: {person: }", 116),
        ("objects: {person: {min_score: 0.3}}, confirm: {unless_score: 0.5}", 122),
        ("objects: {person: }, track: ", 126),
    ],
    ids=["thresholds", "unless_score", "track"],
)
def test_more_of_the_persons_far_away_are_found_without_a_false_alert(
    real_sequences: Path,
    shared_photos: Path,
    settings: str,
    caught: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The figures of docs/evaluate.md, of 139 images with a person."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(f"version: 1\ndefaults: {{cooldown: 0s, {settings}}}\n")
    truth = shared_photos / "sequences.truth.csv"
    command = ["evaluate", "--archive", str(real_sequences), "--truth", str(truth)]
    assert cli.main([*command, "--rules", str(rules), "--format", "json"]) == 0
    total = json.loads(capsys.readouterr().out)["total"]
    assert (total["pictures"], total["threats"], total["false"]) == (240, 139, 0)
    assert abs(total["caught"] - caught) <= 1  # A processor may round a score otherwise.


def test_a_tflite_detector_finds_the_persons_too(
    command: Command, shared_photos: Path, shared_models: Path, tmp_path: Path
) -> None:
    finished = command(
        *("--input", shared_photos / "cameras" / "hall_*.jpg"),
        *("--model", shared_models / "ssd_mobilenet_v1_coco_quant_tflite" / "detect.tflite"),
        *("--labels", shared_models / "ssd_mobilenet_v1_coco_quant_tflite" / "coco_labels.tsv"),
        *("--output", tmp_path / "out"),
    )
    assert finished.code == 0, finished.err
    records = [read_json(path) for path in (tmp_path / "out" / "final" / "hall").iterdir()]
    assert len(records) == 21
    threat_records = [record for record in records if record["threat"]["is_threat"]]
    assert len(threat_records) >= 10
    assert {
        threat["label"] for record in threat_records for threat in record["threat"]["threats"]
    } == {"person"}
