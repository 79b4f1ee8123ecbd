import hashlib
import json
from dataclasses import replace
from datetime import datetime, timezone

import apache_beam as beam
import numpy as np
import pytest

from tests.transforms import memory_store
from tests.transforms.pictures import MOMENT
from tests.transforms.results import detected, judged
from transforms import reasons, stores
from transforms.counters import counted
from transforms.parse_filename import ParseFilename
from transforms.records import ImageFile, InvalidImage, NamedFile, ValidImage
from transforms.repositories import (
    StoreDetections,
    StoreFinal,
    StoreInvalid,
    StoreValidated,
    _WriteValidated,
)
from transforms.validate_image import InvalidNames


def store(run_pipeline, step, elements):
    def build(pipeline):
        pipeline | beam.Create(elements) | step
        return {}

    result, _ = run_pipeline(build)
    return counted(result)


def kept(output):
    return {
        path.relative_to(output).as_posix(): path.read_bytes()
        for path in output.rglob("*")
        if path.is_file()
    }


def valid(name, data, camera="hall"):
    file = ImageFile(f"/in/{name}", len(data))
    return ValidImage(NamedFile(file, camera, MOMENT), "5" * 64, 200, 160, data, None, 0.5)


def test_valid_images_are_kept_byte_for_byte_and_then_handed_on(run_pipeline, tmp_path):
    images = [
        valid("hall_1769903999.JPG", b"\xff\xd8\x00\n"),
        valid("yard_1769903999.jpg", b"x", "yard"),
    ]
    seen = [detected(), detected("yard")]

    def build(pipeline):
        kept = pipeline | beam.Create(list(zip(images, seen, strict=True)))
        return {"stored": kept | StoreValidated(str(tmp_path))}

    _, found = run_pipeline(build)
    assert sorted(found["stored"], key=lambda image: image.id) == seen
    assert kept(tmp_path) == {
        "validated/hall/hall_1769903999.JPG": b"\xff\xd8\x00\n",
        "validated/yard/yard_1769903999.jpg": b"x",
    }


@pytest.mark.parametrize(
    ("step", "folder", "images"),
    [
        (StoreDetections, "detections", [detected(labels=["person"]), detected("yard")]),
        (StoreFinal, "final", [judged(threats=[("person", "alert")]), judged("yard")]),
    ],
)
def test_the_json_of_each_image_is_kept_under_its_id(run_pipeline, tmp_path, step, folder, images):
    store(run_pipeline, step(str(tmp_path)), images)
    assert kept(tmp_path) == {
        f"{folder}/{camera}/{camera}_2026-01-31T23-59-59Z.json": stores.json_bytes(image.to_json())
        for camera, image in zip(("hall", "yard"), images, strict=True)
    }


def invalid(uri, reason, *, data=None, **fields):
    return InvalidImage(ImageFile(uri, 7), reason, "what was wrong", data=data, **fields)


def record(name, uri, reason, **fields):
    return {
        "file": name,
        "uri": uri,
        "reason": reason,
        "detail": "what was wrong",
        "size_bytes": None,
        "width": None,
        "height": None,
        "sha256": None,
        **fields,
    }


def test_an_invalid_image_is_kept_with_its_record(run_pipeline, tmp_path):
    image = invalid(
        "/in/a.jpg",
        "resolution_too_low",
        data=b"bytes",
        size_bytes=5,
        width=3,
        height=2,
        sha256="5f",
    )
    counts = store(run_pipeline, StoreInvalid(str(tmp_path)), [image])
    assert kept(tmp_path)["invalid/resolution_too_low/a.jpg"] == b"bytes"
    data = kept(tmp_path)["invalid/resolution_too_low/a.jpg.json"]
    expected = record(
        "a.jpg", "/in/a.jpg", "resolution_too_low", size_bytes=5, width=3, height=2, sha256="5f"
    )
    assert data == stores.json_bytes(expected)
    assert len(kept(tmp_path)) == 2
    assert counts == {"images.invalid.resolution_too_low": 1}


@pytest.mark.parametrize("source", ["local", "memory"])
def test_bytes_that_are_not_held_are_copied_and_measured(run_pipeline, tmp_path, memory, source):
    data = b"a large file" * 200_000
    uri = "memory://in/big.jpg" if source == "memory" else str(tmp_path / "big.jpg")
    stores.write_bytes(uri, data)
    store(run_pipeline, StoreInvalid(str(tmp_path / "out")), [invalid(uri, "file_too_large")])
    found = kept(tmp_path / "out")
    assert found["invalid/file_too_large/big.jpg"] == data
    assert json.loads(found["invalid/file_too_large/big.jpg.json"]) == record(
        "big.jpg", uri, "file_too_large",
        size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest(),
    )  # fmt: skip


@pytest.mark.parametrize("uri", ["/nowhere/a.jpg", "memory://in/a.jpg", "memory://in/broken.jpg"])
def test_of_a_file_that_cannot_be_read_the_record_alone_is_kept(
    run_pipeline, tmp_path, memory, uri
):
    """Whatever kind of error the store has for it: cloud clients have their own."""
    memory["memory://in/broken.jpg"] = b"the first part"
    memory_store.UNREADABLE.add("memory://in/broken.jpg")
    store(run_pipeline, StoreInvalid(str(tmp_path)), [invalid(uri, "read_failed")])
    name = uri.rsplit("/", 1)[-1]
    assert {name: json.loads(data) for name, data in kept(tmp_path).items()} == {
        f"invalid/read_failed/{name}.json": record(name, uri, "read_failed")
    }


@pytest.mark.parametrize("data", [b"bytes", None])
def test_an_output_that_cannot_be_written_fails_the_job(run_pipeline, tmp_path, data):
    (tmp_path / "in.jpg").write_bytes(b"x")
    (tmp_path / "out").write_bytes(b"a file where the folder should be")
    image = invalid(str(tmp_path / "in.jpg"), "not_jpeg", data=data)
    with pytest.raises(Exception, match="out"):
        store(run_pipeline, StoreInvalid(str(tmp_path / "out")), [image])


HOSTILE = [
    "a\nb.jpg",
    "a\x1b[31m.jpg",
    "a\udcff.jpg",
    "-rf.jpg",
    "..jpg",
    "....",
    "%2e%2e%2f.jpg",
    "\\..\\a.jpg",
    "a" * 251 + ".jpg",
    "é" * 125 + ".jpg",
    "con.jpg",
    "a.jpg.partial",
    ".a.jpg.partial",
    "a.jpg",
    "a.jpg.json",
    "a.jpg.json.json",
    "'; rm -rf * #.jpg",
]
IN_ONE_FOLDER = ["b.txt", "b.txt.json", "b.txt.json.json", ".b.txt.partial", ".b.txt.json.partial"]


def test_files_of_hostile_names_are_all_kept_in_the_folder_of_their_reason(run_pipeline, tmp_path):
    """From listing to store: no name leads elsewhere, and none takes another's place."""
    source, output = tmp_path / "in", tmp_path / "out"
    for folder in ("one", "two"):
        (source / folder).mkdir(parents=True)
        for name in HOSTILE + (IN_ONE_FOLDER if folder == "one" else []):
            (source / folder / name).write_bytes(f"{folder}/{name!a}".encode())
    files = [ImageFile(str(path), 1) for path in source.rglob("*") if path.is_file()]
    assert len(files) == 2 * len(HOSTILE) + len(IN_ONE_FOLDER)

    def build(pipeline):
        parsed = pipeline | beam.Create(files) | ParseFilename(clock=lambda: NOW)
        parsed.invalid | InvalidNames() | StoreInvalid(str(output))
        return {"named": parsed.named}

    _, found = run_pipeline(build)
    assert found["named"] == []
    stored = kept(output)
    assert {name.rsplit("/", 1)[0] for name in stored} == {"invalid/bad_name"}
    assert len(stored) == 2 * len(files)
    pictures = {data for name, data in stored.items() if b'"reason"' not in data}
    assert pictures == {path.read_bytes() for path in source.rglob("*") if path.is_file()}
    for name, data in stored.items():
        if b'"reason"' in data:
            assert json.loads(data)["reason"] == reasons.BAD_NAME
            assert stored[name.removesuffix(".json")]


NOW = datetime(2026, 2, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize("reason", reasons.ALL)
def test_each_reason_has_its_folder_and_its_counter(run_pipeline, tmp_path, reason):
    counts = store(
        run_pipeline, StoreInvalid(str(tmp_path)), [invalid("/in/a.jpg", reason, data=b"x")]
    )
    assert sorted(kept(tmp_path)) == [f"invalid/{reason}/a.jpg", f"invalid/{reason}/a.jpg.json"]
    assert counts == {f"images.invalid.{reason}": 1}


def test_different_files_of_one_name_are_kept_side_by_side(run_pipeline, tmp_path):
    images = [
        invalid(f"/in/{folder}/a.jpg", "not_jpeg", data=folder.encode(), shares_name=True)
        for folder in ("one", "two")
    ]
    store(run_pipeline, StoreInvalid(str(tmp_path)), images)
    assert {data for name, data in kept(tmp_path).items() if name.endswith(".jpg")} == {
        b"one",
        b"two",
    }
    assert len(kept(tmp_path)) == 4


def test_a_second_run_writes_the_same_bytes_to_the_same_places(run_pipeline, tmp_path):
    images = [
        invalid(f"/in/{at}/a\n.jpg", "not_jpeg", data=bytes([at]), shares_name=True)
        for at in range(5)
    ]
    for output, order in (("first", images), ("second", images[::-1])):
        store(run_pipeline, StoreInvalid(str(tmp_path / output)), order)
    assert kept(tmp_path / "first") == kept(tmp_path / "second")
    assert len(kept(tmp_path / "first")) == 10


def test_what_waits_to_be_written_is_weighed_with_its_pixels():
    image = valid("hall_1769903999.jpg", b"12345")
    pixels = np.zeros((8, 8, 3), np.uint8)
    write = _WriteValidated(lambda image: ("", b""))
    assert write.weight((image, detected())) == 5
    assert write.weight((replace(image, pixels=pixels), detected())) == 5 + 192


def test_a_stream_keeps_files_of_one_name_apart_as_they_come(run_pipeline, tmp_path):
    first = invalid("/in/one/a.jpg", reasons.NOT_JPEG, data=b"1")
    second = invalid("/in/two/a.jpg", reasons.NOT_JPEG, data=b"2")
    for one in (first, second, first, second):  # A stream may see its input again.
        store(run_pipeline, StoreInvalid(str(tmp_path), streaming=True), [one])
    found = kept(tmp_path)
    digits = hashlib.sha256(b"/in/two/a.jpg").hexdigest()[:8]
    assert {name: data for name, data in found.items() if not name.endswith(".json")} == {
        "invalid/not_jpeg/a.jpg": b"1",
        f"invalid/not_jpeg/a-{digits}.jpg": b"2",
    }
    assert len(found) == 4


def test_a_streams_file_that_is_named_like_a_record_overwrites_none(run_pipeline, tmp_path):
    files = [
        invalid("/in/a.txt", reasons.BAD_NAME, data=b"1"),
        invalid("/in/a.txt.json", reasons.BAD_NAME, data=b"2"),
    ]
    for one in (*files, *reversed(files)):
        store(run_pipeline, StoreInvalid(str(tmp_path), streaming=True), [one])
    assert {b"1", b"2"} < set(kept(tmp_path).values())
    assert len(kept(tmp_path)) == 4
