"""The commands `marks list` and `marks export`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import rules
from beam_pipeline import cli
from tests.beam_pipeline.conftest import refused
from tests.transforms.archives import seen, write_output
from transforms.records.images import DetectedImage
from transforms.storage.marks import MarkedThreat, write_mark

BOX = (0.1, 0.2, 0.3, 0.4)


def image(minute: int, *labels: str) -> DetectedImage:
    time = f"2026-01-31T10:{minute:02d}:00Z"
    detections = [(label, 0.9) for label in labels]
    return seen("hall", time, *detections, file=f"hall_20260131T10{minute:02d}00Z.jpg")


def mark(
    output: Path,
    minute: int,
    said: str,
    label: str | None = None,
    *,
    named: Iterable[str] = (),
    boxes: Iterable[Any] = (),
) -> None:
    time = f"2026-01-31T10:{minute:02d}:00Z"
    write_mark(
        str(output),
        id="hall",
        timestamp=time,
        alert_id=rules.alert_id("hall", time, "alert"),
        mark=said,
        label=label,
        bboxes=boxes,
        threats=[MarkedThreat(name, BOX) for name in named],
        by="Anna",
    )


@pytest.fixture
def output(tmp_path: Path) -> Path:
    out = tmp_path / "out"
    named: list[tuple[str, ...]] = [("person",), ("car",), (), ("person", "car"), ("person",), ()]
    write_output(out, [image(minute, *labels) for minute, labels in enumerate(named)])
    mark(out, 0, "right", named=["person", "person"])
    mark(out, 1, "false", named=["car"])
    mark(out, 2, "missed", "dog", boxes=[(0.5, 0.5, 0.25, 0.25)])
    mark(out, 3, "right", named=["person", "car"])
    mark(out, 4, "unsure", named=["person"])
    mark(out, 5, "missed", "person")
    return out


def exported(capsys: pytest.CaptureFixture[str], output: Path, *words: str) -> tuple[str, str]:
    assert cli.main(["marks", "export", "--output", str(output), *words]) == 0
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_marks_are_exported_as_the_csv_of_evaluate(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, notes = exported(capsys, output)
    assert text == (
        "file,main_class,count\n"
        "hall_20260131T100000Z.jpg,person,2\n"
        "hall_20260131T100100Z.jpg,empty,0\n"
        "hall_20260131T100200Z.jpg,dog,1\n"
        "hall_20260131T100500Z.jpg,person,1\n"
    )
    assert "4 of 6 marked images exported\nleft out: 2 unsure, disputed, or" in notes
    truth = tmp_path / "truth.csv"
    assert exported(capsys, output, "--file", str(truth))[0] == ""
    assert truth.read_text() == text
    words = ["evaluate", "--archive", str(output), "--truth", str(truth), "--format", "json"]
    assert cli.main(words) == 0
    total = json.loads(capsys.readouterr().out)["total"]
    assert [total[key] for key in ("threats", "right", "false", "missed")] == [3, 1, 1, 2]
    mark(output, 3, "false", "car", named=["person", "car"])
    assert "hall_20260131T100300Z.jpg,person,1\n" in exported(capsys, output)[0]


def test_marks_are_exported_as_coco(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, notes = exported(capsys, output, "--format", "coco")
    document = json.loads(text)
    assert [entry["file_name"] for entry in document["images"]] == [
        "hall_20260131T100000Z.jpg", "hall_20260131T100100Z.jpg", "hall_20260131T100200Z.jpg",
    ]  # fmt: skip
    assert document["categories"] == [{"id": 1, "name": "dog"}, {"id": 2, "name": "person"}]
    assert [
        (entry["image_id"], entry["category_id"], entry["bbox"])
        for entry in document["annotations"]
    ] == [
        (1, 2, [64.0, 96.0, 192.0, 192.0]),
        (1, 2, [64.0, 96.0, 192.0, 192.0]),
        (3, 1, [320.0, 240.0, 160.0, 120.0]),
    ]
    assert "1 without a box for each object" in notes
    truth = tmp_path / "truth.json"
    truth.write_text(text)
    assert cli.main(["evaluate", "--archive", str(output), "--truth", str(truth)]) == 0


def test_an_image_with_a_missed_object_without_a_box_is_no_truth_about_boxes(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The boxes of the alert are known, and the one of a second person is not."""
    mark(output, 0, "missed", "person", named=["person", "person"])
    text, notes = exported(capsys, output, "--format", "coco")
    assert [entry["file_name"] for entry in json.loads(text)["images"]] == [
        *("hall_20260131T100100Z.jpg", "hall_20260131T100200Z.jpg")
    ]
    assert "2 without a box for each object" in notes
    mark(output, 0, "missed", "person", named=["person"] * 2, boxes=[(0.5, 0.5, 0.25, 0.25)])
    text, _ = exported(capsys, output, "--format", "coco")
    assert len(json.loads(text)["annotations"]) == 4


def test_what_can_not_be_exported_is_said(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (output / "final" / "hall" / "hall_20260131T100000Z.json").unlink()
    (output / "detections" / "hall" / "hall_20260131T100000Z.json").unlink()
    assert "1 no longer in the archive" in exported(capsys, output)[1]
    other = tmp_path / "other"
    write_output(other, [image(0, "person")])
    assert "there is no mark in" in refused(capsys, "marks", "export", "--output", other)
    mark(other, 0, "unsure", named=["person"])
    line = refused(capsys, "marks", "export", "--output", other)
    assert "no marked image can be exported: 1 unsure, disputed" in line


def test_the_marks_that_stand_are_listed(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mark(output, 0, "false", named=["person"])
    assert cli.main(["marks", "list", "--output", str(output)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert lines[1].split()[:4] == ["2026-01-31T10:00:00Z", "hall", "false", "Anna"]
    assert lines[3].split()[:5] == ["2026-01-31T10:02:00Z", "hall", "missed", "dog", "Anna"]
