"""The whole job on real camera frames with a real COCO detector."""

from __future__ import annotations

import csv
from pathlib import Path

from tests.beam_pipeline.conftest import read_json
from tests.conftest import Command


def test_persons_in_the_hall_are_found_and_empty_frames_are_no_threat(
    command: Command, shared_photos: Path, shared_models: Path, tmp_path: Path
) -> None:
    finished = command(
        *("--runner", "DirectRunner", "--input", shared_photos / "cameras"),
        *("--model", shared_models / "yolox_nano_coco" / "saved_model"),
        *("--output", tmp_path / "out"),
    )
    assert finished.code == 0, finished.err
    with open(shared_photos / "cameras.truth.csv", newline="") as file:
        truth = [row for row in csv.DictReader(file) if row["file"].startswith("hall_")]
    assert len(truth) == 21
    wrong = []
    for row in truth:
        record = read_json(tmp_path / "out" / "final" / "hall" / f"{row['file'][:-4]}.json")
        persons = [one for one in record["threat"]["threats"] if one["label"] == "person"]
        if len(persons) != (int(row["count"]) if row["main_class"] == "person" else 0):
            wrong.append(row["file"])
    assert wrong == []


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
    seen = [record for record in records if record["threat"]["is_threat"]]
    assert len(seen) >= 10
    assert {one["label"] for record in seen for one in record["threat"]["threats"]} == {"person"}
