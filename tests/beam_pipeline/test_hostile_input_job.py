"""Files and names that mean harm, through the whole job."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from beam_pipeline import bundled
from tests.beam_pipeline.conftest import jpeg, read_json
from tests.conftest import Command, Run


@pytest.fixture(scope="module")
def hostile_run(run_job: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """The input, the output and the summary of a job on hostile files."""
    top = tmp_path_factory.mktemp("hostile")
    images = top / "pictures [night] *"  # A directory whose name looks like a glob.
    for folder in ("", "one", "two"):
        (images / folder).mkdir(parents=True, exist_ok=True)

    def put(name: str | bytes, data: bytes) -> None:
        with open(os.path.join(os.fsencode(images), os.fsencode(name)), "wb") as file:
            file.write(data)

    good = jpeg()
    put("hall_20260131T120000Z.jpg", good)
    for name in (
        "..jpg",
        "...jpg",
        "..%2f..%2fescape_20260131T120000Z.jpg",
        "..\\..\\escape_20260131T120000Z.jpg",
        "..-_20260131T120000Z.jpg",
        "-rf_20260131T120000Z.jpg",
        "a\nb_20260131T120000Z.jpg",
        "café_20260131T120000Z.jpg",
        "x" * 251 + ".jpg",
        "$(touch harm)_20260131T120000Z.jpg",
        "hall_20260131T120000Z.jpg.gz",
        "Thumbs.db",
        "hall_\uff12\uff10260131T120000Z.jpg",
    ):
        put(name, good)
    put(b"caf\xe9_20260131T120000Z.jpg", good)
    put("one/0001.jpg", good)
    put("two/0001.jpg", jpeg((1, 2, 3)))
    put("one/gate_20260131T120000Z.jpg", b"not a picture")
    put("two/gate_20260131T120000Z.jpg", b"not a picture either")
    put("one/yard_20260131T120000Z.jpg", good)
    put("two/yard_20260131T120000Z.jpg", good)
    put("one/door_20260131T120000Z.jpg", good)
    put("two/door_20260131T120000Z.jpg", jpeg((250, 1, 1)))
    rng = random.Random(20260131)
    for number in range(40):
        mutated = bytearray(good)
        for _ in range(rng.randint(1, 12)):
            mutated[rng.randrange(len(mutated))] = rng.randrange(256)
        put(f"mutated_20260131T13{number:02}00Z.jpg", bytes(mutated[: rng.randrange(1, 9999)]))
    os.symlink(images / "nowhere", images / "link_20260131T120000Z.jpg")
    os.mkfifo(images / "pipe_20260131T120000Z.jpg")
    output = top / "out"
    finished = run_job("--input", images, "--model", "bundled", "--output", output)
    assert finished.returncode == 0, finished.stderr
    return images, output, finished.stdout


def test_no_file_lies_outside_the_output(hostile_run: tuple[Path, Path, str]) -> None:
    images, output, _ = hostile_run
    assert {path.name for path in images.parent.iterdir()} == {images.name, "out"}
    assert {path.name for path in output.iterdir()} <= {
        *("validated", "invalid", "detections", "final", "alerts", "counts", "chart", "report")
    }


def test_nothing_is_lost(hostile_run: tuple[Path, Path, str]) -> None:
    images, output, summary = hostile_run
    stored = sum(
        (Path(folder) / name).is_file() or (Path(folder) / name).is_symlink()
        for folder, _, names in os.walk(images)
        for name in names
    )
    assert summary.split()[1] == str(stored)
    finals = len(list((output / "final").rglob("*.json")))
    records = len(list((output / "invalid").rglob("*.json")))
    assert finals + records + 1 == stored  # One image occurs twice, byte for byte.
    assert "repeated" in summary


def test_every_record_is_valid_json_beside_its_file(hostile_run: tuple[Path, Path, str]) -> None:
    _, output, _ = hostile_run
    for path in (output / "invalid").rglob("*.json"):
        record = json.loads(path.read_bytes())
        assert record["reason"] == path.parent.name
        assert path.with_suffix("").exists() or record["reason"] == "read_failed"
        assert record["file"].isprintable()


def test_files_of_one_name_and_reason_are_distinct(hostile_run: tuple[Path, Path, str]) -> None:
    _, output, _ = hostile_run
    for reason, stem in (("bad_name", "0001"), ("not_jpeg", "gate_20260131T120000Z")):
        kept = [path.name for path in (output / "invalid" / reason).glob(f"{stem}*.jpg")]
        assert len(kept) == 2
        assert f"{stem}.jpg" not in kept


def test_of_two_images_of_one_capture_time_the_smaller_sha256_wins(
    hostile_run: tuple[Path, Path, str],
) -> None:
    _, output, _ = hostile_run
    won = read_json(output / "final" / "door" / "door_20260131T120000Z.json")
    lost = read_json(output / "invalid" / "duplicate" / "door_20260131T120000Z.jpg.json")
    assert won["sha256"] < lost["sha256"]


def test_a_dangling_link_is_a_record(hostile_run: tuple[Path, Path, str]) -> None:
    _, output, _ = hostile_run
    record = read_json(output / "invalid" / "read_failed" / "link_20260131T120000Z.jpg.json")
    assert record["sha256"] is None
    assert not (output / "invalid" / "read_failed" / "link_20260131T120000Z.jpg").exists()


def test_strict_ids_and_a_resolution_of_its_own(command: Command, tmp_path: Path) -> None:
    images = tmp_path / "pictures"
    images.mkdir()
    (images / "hall_20260131T120000Z.jpg").write_bytes(jpeg(size=(100, 80)))
    (images / "gate_20260131T120000Z.jpg").write_bytes(jpeg(size=(100, 80)))
    (images / "yard_20260131T120000Z.jpg").write_bytes(jpeg())
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "version: 1\nstrict_ids: true\ncameras:\n"
        "  hall: {resolution: {min: [64, 64]}}\n  gate: {}\n"
    )
    finished = command(
        *("--input", images, "--rules", rules, "--model", str(bundled.BUNDLED_MODEL)),
        *("--output", tmp_path / "out"),
    )
    assert finished.code == 0, finished.err
    assert [path.name for path in (tmp_path / "out" / "final").iterdir()] == ["hall"]
    reasons = {path.parent.name for path in (tmp_path / "out" / "invalid").rglob("*.json")}
    assert reasons == {"resolution_too_low", "unknown_camera"}
