"""The whole job with `tiles` in the rules, on bundled samples."""

from __future__ import annotations

from pathlib import Path

import pytest

from beam_pipeline import bundled
from tests.beam_pipeline.conftest import read_json, refused, tree
from tests.conftest import Command

CAMERAS = ("garden", "hall", "street")
RULES = """\
version: 1
profiles:
  wide: {tiles: {columns: 2, rows: 1}}
defaults: {objects: {person: }}
cameras:
  garden: {tiles: {columns: %d, rows: 2, overlap: 0.1}}
  hall: {profile: wide}
"""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two images of each of three cameras."""
    folder = tmp_path / "in"
    folder.mkdir()
    for camera in CAMERAS:
        for path in sorted((bundled.BUNDLED_SAMPLES / camera).rglob("*.jpg"))[:2]:
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


def detections(output: Path) -> dict[str, bytes]:
    return {name: data for name, data in tree(output).items() if name.startswith("detections/")}


def settings(output: Path) -> dict[str, str]:
    """What the image JSON says of the settings, without the hash, by camera."""
    return {
        path.parent.name: read_json(path)["model"]["settings"][12:]
        for path in (output / "detections").rglob("*.json")
    }


def test_tiles_are_those_of_each_camera_whatever_the_batches_and_resume_knows_them(
    command: Command, images: Path, tmp_path: Path
) -> None:
    tiled, changed = tmp_path / "tiled.yaml", tmp_path / "changed.yaml"
    tiled.write_text(RULES % 2)
    changed.write_text(RULES % 3)

    def run(output: str, rules: Path, *options: str) -> str:
        arguments = ["--model", "bundled", "--input", images, "--output", tmp_path / output]
        done = command(*arguments, "--rules", rules, *options)
        assert done.code == 0, done.err
        return done.out

    one = run("one", tiled, "--batch_size", "1", "--model_threads", "1")
    assert "6 batches of 1.0 images and 2.0 tiles" in one
    run("many", tiled, "--batch_size", "7", "--model_threads", "3", "--runner", "FnApiRunner")
    assert detections(tmp_path / "one") == detections(tmp_path / "many")
    assert settings(tmp_path / "one") == {
        "garden": " tiles 2x2 overlap 0.1 min_score 0.3",
        "hall": " tiles 2x1 overlap 0.2 min_score 0.3",
        "street": "",
    }
    assert "(4 of them processed in an earlier run)" in run("many", changed, "--resume")
    run("fresh", changed)
    assert detections(tmp_path / "many") == detections(tmp_path / "fresh")
    without = tmp_path / "without.yaml"
    without.write_text("version: 1\ndefaults: {objects: {person: }}\n")
    run("plain", without)
    plain, mixed = detections(tmp_path / "plain"), detections(tmp_path / "one")
    same = {name for name in plain if plain[name] == mixed[name]}
    assert same == {name for name in plain if name.startswith("detections/street/")}
    assert len(plain) == 6


def test_tiles_that_are_always_too_small_are_refused_before_an_image_is_read(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("version: 1\ncameras: {hall: {objects: {person: }, tiles: {columns: 6}}}\n")
    line = refused(
        capsys,
        *("--input", images, "--output", tmp_path / "out", "--rules", rules),
        *("--model", "bundled", "--max_resolution", "300x300"),
    )
    assert line == (
        f"beam_pipeline: {rules}: the tiles of hall have 60x167 pixels in an image of "
        "--max_resolution 300x300, and need 64x64; write fewer columns or rows"
    )


def test_images_that_are_too_small_for_tiles_are_told_in_the_summary(
    command: Command, images: Path, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("version: 1\ncameras: {hall: {objects: {person: }, tiles: {columns: 8}}}\n")
    done = command(
        *("--input", images, "--output", tmp_path / "out"),
        *("--rules", rules, "--model", "bundled"),
    )
    assert done.code == 0, done.err
    note = "2 images are too small for the tiles of their cameras and were looked at only as a"
    assert f"{note} whole" in done.out
    assert set(settings(tmp_path / "out").values()) == {""}
