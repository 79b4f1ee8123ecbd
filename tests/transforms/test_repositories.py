import hashlib
import json
import os
from dataclasses import replace
from datetime import datetime, timezone

import apache_beam as beam
import numpy as np
import pytest

from tests.transforms import memory_store
from tests.transforms.pictures import MOMENT
from tests.transforms.results import detected, judged
from transforms.parse_filename import ParseFilename
from transforms.records import reasons
from transforms.records.images import ImageFile, InvalidImage, NamedFile, ValidImage
from transforms.repositories import (
    StoreDetections,
    StoreFinal,
    StoreInvalid,
    StoreValidated,
    _WriteValidated,
)
from transforms.runtime.counters import counted
from transforms.storage import stores
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
    return ValidImage(NamedFile(file, camera, MOMENT), "5" * 64, 200, 160, data, None, 0.5, 0.03)


def test_valid_images_are_kept_byte_for_byte_and_then_handed_on(run_pipeline, tmp_path):
    images = [
        valid("hall_1769903999.JPG", b"\xff\xd8\x00\n"),
        valid("yard_1769903999.jpg", b"x", "yard"),
    ]
    detections = [detected(), detected("yard")]

    def build(pipeline):
        kept = pipeline | beam.Create(list(zip(images, detections, strict=True)))
        return {"stored": kept | StoreValidated(str(tmp_path))}

    _, outputs = run_pipeline(build)
    assert sorted(outputs["stored"], key=lambda image: image.id) == detections
    assert kept(tmp_path) == {
        "validated/hall/hall_1769903999.JPG": b"\xff\xd8\x00\n",
        "validated/yard/yard_1769903999.jpg": b"x",
    }


def json_of(images, folder):
    return {
        f"{folder}/{camera}/{camera}_2026-01-31T23-59-59Z.json": stores.json_bytes(image.to_json())
        for camera, image in zip(("hall", "yard"), images, strict=True)
    }


def test_the_json_of_each_image_is_kept_under_its_id(run_pipeline, tmp_path):
    images = [detected(labels=["person"]), detected("yard")]
    store(run_pipeline, StoreDetections(str(tmp_path)), images)
    assert kept(tmp_path) == json_of(images, "detections")


def test_the_verdicts_of_several_collections_are_kept_under_their_ids(run_pipeline, tmp_path):
    images = [judged(threats=[("person", "alert")]), judged("yard")]

    def build(pipeline):
        parts = tuple(pipeline | image.image.id >> beam.Create([image]) for image in images)
        parts | StoreFinal(str(tmp_path))
        return {}

    run_pipeline(build)
    assert kept(tmp_path) == json_of(images, "final")


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
    store(run_pipeline, StoreInvalid(str(tmp_path / "out")), [invalid(uri, "bad_name")])
    stored = kept(tmp_path / "out")
    assert stored["invalid/bad_name/big.jpg"] == data
    assert json.loads(stored["invalid/bad_name/big.jpg.json"]) == record(
        "big.jpg", uri, "bad_name",
        size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest(),
    )  # fmt: skip


@pytest.mark.parametrize("reason", ["file_too_large", "bad_name", "unknown_camera"])
def test_a_sparse_file_of_10_gb_is_kept_as_its_record_alone(run_pipeline, tmp_path, reason):
    """What would fill the disk is not copied, whatever it is invalid for."""
    sparse = tmp_path / "hall_20260131T235959Z.jpg"
    with sparse.open("wb") as file:
        file.truncate(10_000_000_000)
    image = invalid(str(sparse), reason, size_bytes=10_000_000_000)
    store(run_pipeline, StoreInvalid(str(tmp_path / "out"), max_copied_bytes=5_000_000), [image])
    ((name, data),) = kept(tmp_path / "out").items()
    assert name == f"invalid/{reason}/{sparse.name}.json"
    assert json.loads(data) == record(sparse.name, str(sparse), reason, size_bytes=10_000_000_000)


@pytest.mark.parametrize(("size", "copied"), [(999, True), (1000, True), (1001, False)])
def test_the_largest_file_that_is_copied(run_pipeline, tmp_path, size, copied):
    (tmp_path / "a.jpg").write_bytes(b"x" * size)
    step = StoreInvalid(str(tmp_path / "out"), max_copied_bytes=1000)
    store(run_pipeline, step, [invalid(str(tmp_path / "a.jpg"), "bad_name")])
    assert ("invalid/bad_name/a.jpg" in kept(tmp_path / "out")) is copied
    assert "invalid/bad_name/a.jpg.json" in kept(tmp_path / "out")


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
        (parsed.invalid | InvalidNames()).invalid | StoreInvalid(str(output))
        return {"named": parsed.named}

    _, outputs = run_pipeline(build)
    assert outputs["named"] == []
    stored = kept(output)
    assert {name.rsplit("/", 1)[0] for name in stored} == {"invalid/bad_name"}
    assert len(stored) == 2 * len(files)
    copies = {data for name, data in stored.items() if b'"reason"' not in data}
    assert copies == {path.read_bytes() for path in source.rglob("*") if path.is_file()}
    for name, data in stored.items():
        if b'"reason"' in data:
            assert json.loads(data)["reason"] == reasons.BAD_NAME
            assert stored[name.removesuffix(".json")]


NOW = datetime(2026, 2, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "reason",
    [
        *("bad_name", "bad_timestamp", "timestamp_not_utc", "timestamp_in_future"),
        *("unknown_camera", "empty_file", "file_too_large", "not_jpeg", "corrupt_jpeg"),
        *("resolution_too_low", "resolution_too_high", "duplicate", "read_failed"),
        "inference_failed",
    ],
)
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
    write = _WriteValidated("/out")
    assert write.weight((image, detected())) == 5
    assert write.weight((replace(image, pixels=pixels), detected())) == 5 + 192


def test_a_stream_keeps_files_of_one_name_apart_as_they_come(run_pipeline, tmp_path):
    first = invalid("/in/one/a.jpg", reasons.NOT_JPEG, data=b"1")
    second = invalid("/in/two/a.jpg", reasons.NOT_JPEG, data=b"2")
    for image in (first, second, first, second):  # A stream may see its input again.
        store(run_pipeline, StoreInvalid(str(tmp_path), streaming=True), [image])
    stored = kept(tmp_path)
    digits = hashlib.sha256(b"/in/two/a.jpg").hexdigest()[:8]
    assert {name: data for name, data in stored.items() if not name.endswith(".json")} == {
        "invalid/not_jpeg/a.jpg": b"1",
        f"invalid/not_jpeg/a-{digits}.jpg": b"2",
    }
    assert len(stored) == 4


def test_a_streams_file_that_is_named_like_a_record_overwrites_none(run_pipeline, tmp_path):
    files = [
        invalid("/in/a.txt", reasons.BAD_NAME, data=b"1"),
        invalid("/in/a.txt.json", reasons.BAD_NAME, data=b"2"),
    ]
    for image in (*files, *reversed(files)):
        store(run_pipeline, StoreInvalid(str(tmp_path), streaming=True), [image])
    assert {b"1", b"2"} < set(kept(tmp_path).values())
    assert len(kept(tmp_path)) == 4


def test_a_file_that_cannot_be_read_now_keeps_the_verdict_of_an_earlier_run(run_pipeline, tmp_path):
    earlier = judged()
    final = stores.final_uri(str(tmp_path), "hall", earlier.image.stem)
    stores.write_bytes(final, stores.json_bytes(earlier.to_json()))
    name = {"camera": "hall", "timestamp": earlier.image.timestamp}
    for reason, stays in (("read_failed", True), ("corrupt_jpeg", False)):
        image = replace(invalid(earlier.image.uri, reason), **name)
        store(run_pipeline, StoreInvalid(str(tmp_path)), [image])
        assert os.path.exists(final) == stays
