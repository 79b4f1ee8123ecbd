"""A short form of `python -m benchmarks.real_cameras`, on a few images of two real cameras."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import real_cameras

NAMES = [
    *(f"warehouse_20260202T08000{second}Z" for second in ("0", "0.5", "1", "1.5")),
    *(f"street_20260202T08000{second}Z" for second in ("0", "0.5")),
]


@pytest.fixture
def few(shared_photos: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A folder of a few images, and their truth."""
    images, truth = tmp_path / "images", tmp_path / "truth.csv"
    images.mkdir()
    for name in NAMES:
        source = shared_photos / "sequences" / f"{name}.jpg"
        (images / source.name).write_bytes(source.read_bytes())
    header, *lines = (shared_photos / "sequences.truth.csv").read_text().splitlines()
    kept = [line for line in lines if line.split(",")[0].removesuffix(".jpg") in NAMES]
    truth.write_text("\n".join([header, *kept]) + "\n")
    return images, truth


def test_the_benchmark_measures_each_rule_set_on_real_cameras(
    few: tuple[Path, Path],
    shared_models: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [str(path) for path in few]
    arguments += ["--model", str(shared_models / "yolox_nano_coco" / "saved_model")]
    arguments += ["--tiles", "{columns: 2, rows: 1}", "--keep", str(tmp_path / "kept")]
    assert real_cameras.main([*arguments, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rule_sets"]
    names = ["thresholds", "recommended", "0.3, confirmed", "track", "tiles", "track, tiles"]
    assert [row["rules"] for row in rows] == names
    assert [row["inferences_per_image"] for row in rows] == [1, 1, 1, 1, 3, 3]
    for row in rows:
        assert (row["images"], row["threat_images"], row["incidents"]) == (6, 4, 1)
        assert row["caught_images"] == round(4 * row["recall_of_images"])
        assert row["false_alerts"] == sum(row["false_labels"].values()) == 0
        assert row["caught_incidents"] == row["recall_of_incidents"] == 1
        assert row["first_alert_seconds"]["median"] <= 0.5
    assert rows[0]["caught_images"] >= 3
    assert rows[3]["caught_images"] >= rows[0]["caught_images"]
    assert real_cameras.main(arguments) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in table] == ["rules", *names]


def test_a_wrong_truth_file_ends_the_benchmark_with_one_line(
    few: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, _ = few
    assert real_cameras.main([str(images), str(tmp_path / "missing.csv")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "missing.csv" in captured.err
    assert len(captured.err.strip().splitlines()) == 1
