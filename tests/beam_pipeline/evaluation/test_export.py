"""The command `export`: MegaDetector's format 1.6, https://lila.science/megadetector-output-format"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from beam_pipeline import cli
from beam_pipeline.evaluation.export import Categories
from tests.transforms.archives import seen, write_output


def invalid(output: Path, reason: str, name: str) -> None:
    folder = output / "invalid" / reason
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"?")
    record = {"file": name, "uri": f"/in/{name}", "reason": reason, "detail": "broken off"}
    (folder / f"{name}.json").write_text(json.dumps(record))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    output = tmp_path / "output"
    images = [
        seen("hall", "2026-01-31T10:00:00Z", ("person", 1.0), ("car", 0.0612)),
        seen("hall", "2026-01-31T10:00:01Z"),
        seen("gate", "2026-01-31T10:00:00Z", ("person", 0.5), uri="s3://in/gate.jpg"),
    ]
    write_output(output, images)
    invalid(output, "corrupt_jpeg", "hall_20260131T100500Z.jpg")
    invalid(output, "bad_name", "IMG_1.JPG")
    invalid(output, "bad_name", "clip.mp4")
    return output


def export(output: Path, *more: str) -> dict[str, Any]:
    target = output.parent / "export.json"
    assert cli.main(["export", "--archive", str(output), "--output", str(target), *more]) == 0
    loaded: dict[str, Any] = json.loads(target.read_bytes())
    check_format(loaded)
    return loaded


def check_format(data: dict[str, Any]) -> None:
    """What version 1.6 of the format asks of a file without videos and classifications."""
    assert set(data) == {"info", "detection_categories", "images"}
    assert data["info"]["format_version"] == "1.6"
    for number, name in data["detection_categories"].items():
        assert str(int(number)) == number
        assert name.strip()
    for image in data["images"]:
        assert isinstance(image["file"], str)
        if "failure" in image:
            assert isinstance(image["failure"], str)
            assert image["detections"] is None
            continue
        for detection in image["detections"]:
            assert detection["category"] in data["detection_categories"]
            assert isinstance(detection["conf"], float)
            assert len(detection["bbox"]) == 4


def files(data: dict[str, Any]) -> list[str]:
    return [image["file"] for image in data["images"]]


def test_images_are_named_as_they_are_kept_and_failures_say_why(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = export(output)
    assert data["info"] == {"format_version": "1.6", "detector": "detector 0123456789ab"}
    assert data["detection_categories"] == {"1": "person", "3": "car"}
    assert files(data) == [
        "validated/gate/gate_2026-01-31T10-00-00Z.jpg",
        "validated/hall/hall_2026-01-31T10-00-00Z.jpg",
        "validated/hall/hall_2026-01-31T10-00-01Z.jpg",
        "invalid/bad_name/IMG_1.JPG",
        "invalid/corrupt_jpeg/hall_20260131T100500Z.jpg",
    ]
    assert data["images"][1]["detections"] == [
        {"category": "1", "conf": 1.0, "bbox": [0.1, 0.2, 0.3, 0.4]},
        {"category": "3", "conf": 0.0612, "bbox": [0.1, 0.2, 0.3, 0.4]},
    ]
    assert data["images"][2]["detections"] == []
    assert data["images"][4]["failure"] == "corrupt_jpeg: broken off"
    assert "3 images and 2 failures written to" in capsys.readouterr().out


def test_images_can_be_named_by_their_original_address(output: Path) -> None:
    assert files(export(output, "--paths", "uri")) == [
        "s3://in/gate.jpg",
        "/in/hall_2026-01-31T10-00-00Z.jpg",
        "/in/hall_2026-01-31T10-00-01Z.jpg",
        "/in/IMG_1.JPG",
        "/in/hall_20260131T100500Z.jpg",
    ]


@pytest.mark.parametrize(
    ("options", "number", "failures"),
    [
        (["--id", "hall"], 2, 1),
        (["--id", "gate"], 1, 0),
        (["--since", "2026-01-31T10:00:01Z"], 1, 1),
        (["--until", "2026-01-31T10:00:01Z"], 2, 0),
        (["--since", "2026-02-01T00:00:00Z"], 0, 0),
    ],
)
def test_a_part_of_the_archive_is_exported(
    output: Path, options: list[str], number: int, failures: int
) -> None:
    images = export(output, *options)["images"]
    assert sum("failure" in image for image in images) == failures
    assert len(images) - failures == number


def test_a_packed_archive_exports_the_same_images(output: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    assert cli.main(["pack", "--archive", str(output), "--output", str(packed)]) == 0
    looked_at = [image for image in export(output)["images"] if "failure" not in image]
    assert export(packed)["images"] == looked_at


def test_broken_files_are_reported(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = output / "detections" / "gate" / "gate_2026-01-31T10-00-00Z.json"
    record = output / "invalid" / "bad_name" / "IMG_1.JPG.json"
    for file in (broken, record):
        file.write_text("{")
    assert len(export(output)["images"]) == 4
    stderr = capsys.readouterr().err
    assert "skipped: 2" in stderr
    assert str(broken) in stderr
    assert str(record) in stderr


@pytest.mark.parametrize(
    ("pairs", "numbers", "names"),
    [
        ([("1", "person"), ("1", "person")], ["1", "1"], {"1": "person"}),
        (
            [("1", "person"), ("1", "animal"), ("2", "car")],
            ["1", "2", "3"],
            {"1": "person", "2": "animal", "3": "car"},
        ),
        ([("x", "person"), ("01", "car")], ["1", "2"], {"1": "person", "2": "car"}),
        ([("1", " ")], ["1"], {"1": "category 1"}),
    ],
)
def test_each_number_has_one_name(
    pairs: list[tuple[str, str]], numbers: list[str], names: dict[str, str]
) -> None:
    categories = Categories()
    assert [categories.number(*pair) for pair in pairs] == numbers
    assert categories.names == names


def test_an_output_that_cannot_be_written_is_reported_in_one_line(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", "--archive", str(output), "--output", str(output)]
    assert cli.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--to {output}: is a folder" in line
