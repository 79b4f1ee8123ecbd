"""Archives are read back as they were written, from JSON and packed, and what is broken is told."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.transforms.archives import seen, write_output
from transforms.pack import pack_camera
from transforms.records.images import DetectedImage, JudgedImage
from transforms.storage import packed
from transforms.storage.archive import Archive, ArchiveError, open_archive

# The names spell their times in three ways, so that the order of names is not that of times.
PICTURES = [
    seen("hall", "2026-01-31T10:00:00Z", ("person", 0.9), file="hall_20260131T100000Z.jpg"),
    seen("hall", "2026-01-31T10:00:00.500Z", file="hall_20260131T100000.5Z.jpg"),
    seen("hall", "2026-01-31T10:00:01Z", ("car", 0.2), ("person", 0.3), file="hall_1769853601.jpg"),
    seen("hall", "2026-01-31T10:00:02.000250Z", file="hall_2026-01-31T10-00-02.000250Z.JPG"),
    seen("gate", "2026-01-31T09:00:00Z", ("a café, say", 1.0)),
]


@pytest.fixture
def output(tmp_path: Path) -> tuple[Path, list[JudgedImage]]:
    """A job's output, and what is in it."""
    return tmp_path / "output", write_output(tmp_path / "output", reversed(PICTURES))


def read(archive: Archive, **period: datetime) -> list[tuple[DetectedImage, Any]]:
    return [
        (image.image, image.threat) for id in archive.ids for image in archive.images(id, **period)
    ]


def pack(archive: Archive, folder: Path | str) -> None:
    for id in archive.ids:
        pack_camera(id, archive, str(folder))


def time_at(second: int, micros: int = 0) -> datetime:
    return datetime(2026, 1, 31, 10, 0, second, micros, tzinfo=timezone.utc)


def test_a_jobs_output_is_read_camera_by_camera_in_order_of_time(
    output: tuple[Path, list[JudgedImage]],
) -> None:
    folder, judged = output
    archive = open_archive(str(folder))
    assert archive.ids == ("gate", "hall")
    assert read(archive) == [(image.image, image.verdict.to_json()) for image in judged]
    assert [image.file for image, _ in read(archive)[1:]] == [image.file for image in PICTURES[:4]]
    assert archive.problems == []


def test_a_packed_archive_gives_the_same_images(
    output: tuple[Path, list[JudgedImage]], tmp_path: Path
) -> None:
    archive = open_archive(str(output[0]))
    pack(archive, tmp_path / "packed")
    again = open_archive(str(tmp_path / "packed"))
    assert again.ids == archive.ids
    assert read(again) == read(archive)
    assert again.problems == []


def test_packing_twice_gives_the_same_bytes(
    output: tuple[Path, list[JudgedImage]], tmp_path: Path
) -> None:
    for folder in ("once", "twice"):
        pack(open_archive(str(output[0])), tmp_path / folder)
    files = sorted(file.name for file in (tmp_path / "once").iterdir())
    assert files == ["gate.parquet", "hall.parquet"]
    for name in files:
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes()


def test_the_columns_are_documented(output: tuple[Path, list[JudgedImage]], tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    pack(open_archive(str(output[0])), tmp_path)
    table = pq.read_table(tmp_path / "hall.parquet")
    (first, *_) = table.to_pylist()
    threat = json.loads(first.pop("threat"))
    assert threat["severity"] == "alert"
    assert first == {
        "id": "hall",
        "timestamp": time_at(0),
        "file": "hall_20260131T100000Z.jpg",
        "uri": "/in/hall_20260131T100000Z.jpg",
        "sha256": "5" * 64,
        "width": 640,
        "height": 480,
        "brightness": 0.25,
        "sharpness": 0.0312,
        "model_name": "detector",
        "model_version": "0123456789ab",
        "model_settings": "ab0123456789",
        "model_runtime": "tflite",
        "detections": [
            {
                "category": "1",
                "label": "person",
                "conf": 0.9,
                "x_min": 0.1,
                "y_min": 0.2,
                "width": 0.3,
                "height": 0.4,
            }
        ],
        "severity": "alert",
        "suppressed_by": None,
    }
    documented = packed.__doc__ or ""
    assert all(f"``{name}``" in documented for name in table.column_names)


@pytest.mark.parametrize("form", ["json", "packed"])
def test_a_period_includes_its_start_and_excludes_its_end(
    output: tuple[Path, list[JudgedImage]],
    tmp_path: Path,
    form: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packed, "ROWS_A_GROUP", 2)  # So that groups are left out whole.
    archive = open_archive(str(output[0]))
    if form == "packed":
        pack(archive, tmp_path / "packed")
        archive = open_archive(str(tmp_path / "packed"))
    files = [
        image.file for image, _ in read(archive, since=time_at(0, 500_000), until=time_at(2, 250))
    ]
    assert files == ["hall_20260131T100000.5Z.jpg", "hall_1769853601.jpg"]


def test_an_archive_in_an_object_store_is_read_the_same(memory: dict[str, bytes]) -> None:
    judged = write_output("memory://bucket/output", PICTURES)
    archive = open_archive("memory://bucket/output")
    pack(archive, "memory://bucket/packed")
    expected = [(image.image, image.verdict.to_json()) for image in judged]
    assert read(archive) == expected
    assert read(open_archive("memory://bucket/packed/")) == expected
    assert "memory://bucket/packed/hall.parquet" in memory


def test_several_archives_are_read_as_one_with_each_image_once(tmp_path: Path) -> None:
    judged = write_output(tmp_path / "all", PICTURES)
    write_output(tmp_path / "odd", PICTURES[::2])
    write_output(tmp_path / "first", PICTURES[:2])
    pack(open_archive(str(tmp_path / "first")), tmp_path / "packed")
    write_output(tmp_path / "last", PICTURES[3:])
    folders = [str(tmp_path / name) for name in ("last", "odd", "packed")]
    assert read(open_archive(*folders)) == [
        (image.image, image.verdict.to_json()) for image in judged
    ]


def test_an_archive_travels_to_a_worker(output: tuple[Path, list[JudgedImage]]) -> None:
    archive = open_archive(str(output[0]))
    assert read(pickle.loads(pickle.dumps(archive))) == read(archive)


def changed(**values: Any) -> Callable[[dict[str, Any]], bytes]:
    return lambda data: json.dumps({**data, **values}).encode()


def without(key: str) -> Callable[[dict[str, Any]], bytes]:
    return lambda data: json.dumps({name: data[name] for name in data if name != key}).encode()


NAN = {"category": "1", "label": "x", "conf": float("nan"), "bbox": [0, 0, 1, 1]}


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (lambda _: b"", "not JSON: "),
        (lambda _: b'{"id": "hall"', "not JSON: "),
        (lambda _: b"[" * 100_000, "not JSON: "),
        (lambda _: b"[]", "not an object"),
        (without("width"), "'width' is missing"),
        (without("uri"), "'uri' is missing"),
        (changed(model="x"), "'model' is missing"),
        (changed(model={"version": "0"}), "'name' is missing"),
        (changed(model={"name": "x", "version": 0}), "'version' is missing"),
        (changed(model={"name": "x", "version": "0", "settings": 1}), "'settings' is not a text"),
        (changed(model={"name": "x", "version": "0", "runtime": 1}), "'runtime' is not a text"),
        (changed(detections=[NAN]), "not JSON: "),
        (changed(id="gate"), "holds the image of 'gate'"),
        (changed(timestamp="2026-01-31T10:00:02Z"), "at '2026-01-31T10:00:02Z'"),
        (changed(file="hall_1769853600.jpg"), "holds the image 'hall_1769853600.jpg'"),
    ],
)
@pytest.mark.parametrize("folder", ["detections", "final"])
def test_a_broken_json_is_reported_and_the_other_one_is_used(
    output: tuple[Path, list[JudgedImage]],
    folder: str,
    broken: Callable[[dict[str, Any]], bytes],
    says: str,
) -> None:
    path = output[0] / folder / "hall" / "hall_1769853601.json"
    path.write_bytes(broken(json.loads(path.read_text())))
    archive = open_archive(str(output[0]))
    expected = [(image.image, image.verdict.to_json()) for image in output[1]]
    if folder == "final":
        expected[3] = (expected[3][0], None)
    assert read(archive) == expected
    ((uri, why),) = archive.problems
    assert uri == str(path)
    assert says in why


@pytest.mark.parametrize("folder", ["detections", "final"])
def test_a_missing_json_is_reported(output: tuple[Path, list[JudgedImage]], folder: str) -> None:
    path = output[0] / folder / "hall" / "hall_1769853601.json"
    path.unlink()
    archive = open_archive(str(output[0]))
    image, threat = read(archive)[3]
    assert image == PICTURES[2]
    assert (threat is None) == (folder == "final")
    assert archive.problems == [(str(path), "not there")]


def test_an_image_with_two_broken_files_is_left_out(
    output: tuple[Path, list[JudgedImage]],
) -> None:
    for folder in ("detections", "final"):
        (output[0] / folder / "hall" / "hall_1769853601.json").write_bytes(b"{")
    archive = open_archive(str(output[0]))
    assert len(read(archive)) == len(PICTURES) - 1
    assert len(archive.problems) == 2


def test_a_verdict_on_other_detections_is_ignored(
    output: tuple[Path, list[JudgedImage]],
) -> None:
    path = output[0] / "final" / "gate" / "gate_2026-01-31T09-00-00Z.json"
    data = json.loads(path.read_text())
    data["detections"][0]["conf"] = 0.5
    path.write_text(json.dumps(data))
    archive = open_archive(str(output[0]))
    assert read(archive)[0] == (PICTURES[-1], None)
    assert "other object data" in archive.problems[0][1]


def test_files_with_other_names_are_reported(output: tuple[Path, list[JudgedImage]]) -> None:
    hall = output[0] / "detections" / "hall"
    (hall / "notes.json").write_text("{}")
    (hall / "gate_1769853601.json").write_text("{}")
    (hall / ".hall_1769853609.json.partial").write_text("{")  # A job is writing it.
    (hall / "hall_1769853609.txt").write_text("")
    archive = open_archive(str(output[0]))
    assert len(read(archive)) == len(PICTURES)
    assert sorted(uri for uri, _ in archive.problems) == [
        str(hall / "gate_1769853601.json"),
        str(hall / "notes.json"),
    ]


@pytest.mark.parametrize("kept", ["detections", "final"])
def test_one_of_the_two_folders_is_enough(
    output: tuple[Path, list[JudgedImage]], kept: str
) -> None:
    other = "final" if kept == "detections" else "detections"
    (output[0] / other).rename(output[0] / "away")
    archive = open_archive(str(output[0]))
    assert [image for image, _ in read(archive)] == [image.image for image in output[1]]
    assert archive.problems == []
    assert archive.has_verdicts == (kept == "final")


@pytest.mark.parametrize("content", [b"", b"PAR1 no Parquet PAR1", None])
def test_a_broken_packed_file_is_reported(
    output: tuple[Path, list[JudgedImage]], tmp_path: Path, content: bytes | None
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pack(open_archive(str(output[0])), tmp_path / "packed")
    broken = tmp_path / "packed" / "gate.parquet"
    if content is None:  # Sound, and another's.
        pq.write_table(pa.table({"id": ["gate"]}), broken)
    else:
        broken.write_bytes(content)
    archive = open_archive(str(tmp_path / "packed"))
    assert {image.id for image, _ in read(archive)} == {"hall"}
    assert [uri for uri, _ in archive.problems] == [str(broken)]


@pytest.mark.parametrize(
    ("version", "missing"), [("3", ["runtime"]), ("2", ["runtime", "settings"])]
)
def test_a_packed_archive_of_an_earlier_release_is_read(
    output: tuple[Path, list[JudgedImage]], tmp_path: Path, version: str, missing: list[str]
) -> None:
    import pyarrow.parquet as pq

    pack(open_archive(str(output[0])), tmp_path)
    for path in tmp_path.glob("*.parquet"):
        table = pq.read_table(path).drop_columns([f"model_{name}" for name in missing])
        pq.write_table(table.replace_schema_metadata({"beam_pipeline.pack": version}), path)
    archive = open_archive(str(tmp_path))
    assert read(archive) == [
        (
            replace(image.image, model=replace(image.image.model, **dict.fromkeys(missing))),
            image.verdict.to_json(),
        )
        for image in output[1]
    ]
    assert archive.problems == []


def test_settings_that_are_not_known_are_packed_as_none(tmp_path: Path) -> None:
    images = [replace(PICTURES[0], model=replace(PICTURES[0].model, settings=None)), PICTURES[1]]
    write_output(tmp_path / "output", images)
    pack(open_archive(str(tmp_path / "output")), tmp_path / "packed")
    again = read(open_archive(str(tmp_path / "packed")))
    assert [image.model.settings for image, _ in again] == [None, "ab0123456789"]


def test_a_missing_archive_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for name in ("nowhere", "pictures"):
        with pytest.raises(ArchiveError, match=f"{name}: no archive there"):
            open_archive(str(tmp_path / name))
