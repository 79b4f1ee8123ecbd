"""The sample set: what is committed is what the script draws, and its truth is true."""

from __future__ import annotations

import io
import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from beam_pipeline import bundled
from tools.samples import draw_samples as ds

REASONS = {
    "bad_name", "bad_timestamp", "timestamp_not_utc", "timestamp_in_future", "empty_file",
    "not_jpeg", "corrupt_jpeg", "resolution_too_low", "resolution_too_high", "duplicate",
}  # fmt: skip
SAMPLES = bundled.BUNDLED_SAMPLES
CAMERAS = {camera.id: camera for camera in ds.CAMERAS}


@pytest.fixture(scope="module")
def truth() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        (bundled.BUNDLED_RULES.with_name("truth.json")).read_text()
    )
    return document


def upright(data: bytes) -> np.ndarray[Any, np.dtype[np.float32]]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"), np.float32)


@pytest.mark.parametrize(("camera", "index"), [("garden", 16), ("hall", 9), ("office", 7)])
def test_one_seed_gives_the_same_bytes(camera: str, index: int) -> None:
    first = ds.draw_sample(CAMERAS[camera], index, seed=5)
    ds._place.cache_clear()
    again = ds.draw_sample(CAMERAS[camera], index, seed=5)
    other = ds.draw_sample(CAMERAS[camera], index, seed=6)
    assert first.data == again.data
    assert first.data != other.data


@pytest.mark.parametrize(
    ("camera", "index"),
    [("front-door", 4), ("car-park", 11), ("street", 12), ("garden", 5), ("bike-shed", 25),
     ("hall", 21), ("warehouse", 16)],
)  # fmt: skip
def test_committed_pictures_are_what_the_script_draws(camera: str, index: int) -> None:
    drawn = ds.draw_sample(CAMERAS[camera], index)
    committed = upright((SAMPLES / drawn.file).read_bytes())
    fresh = upright(drawn.data)
    assert committed.shape == fresh.shape
    assert np.abs(committed - fresh).mean() < 2.0


def test_truth_names_each_file_once(truth: dict[str, Any]) -> None:
    listed = [entry["file"] for entry in truth["images"] + truth["invalid"]]
    there = [path.relative_to(SAMPLES).as_posix() for path in SAMPLES.rglob("*") if path.is_file()]
    assert sorted(listed) == sorted(there)


def test_there_are_240_valid_pictures_and_every_kind_of_bad_file(truth: dict[str, Any]) -> None:
    assert Counter(entry["id"] for entry in truth["images"]) == dict.fromkeys(CAMERAS, 30)
    assert len({(e["id"], e["timestamp"]) for e in truth["images"]}) == 240
    reasons = Counter(entry["reason"] for entry in truth["invalid"])
    assert set(reasons) == REASONS
    assert set(reasons.values()) <= {1, 2}


def test_samples_are_small(truth: dict[str, Any]) -> None:
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*.jpg")) < 5_000_000


def test_truth_is_of_the_upright_picture(truth: dict[str, Any]) -> None:
    for entry in truth["images"]:
        with Image.open(SAMPLES / entry["file"]) as image:
            swapped = image.getexif().get(0x0112, 1) in (6, 8)
            size = image.size[::-1] if swapped else image.size
        assert size == (entry["width"], entry["height"]), entry["file"]


def test_true_boxes_lie_in_the_frame(truth: dict[str, Any]) -> None:
    boxes = [found["bbox"] for entry in truth["images"] for found in entry["objects"]]
    assert len(boxes) > 300
    x, y, width, height = np.array(boxes).T
    assert min(x.min(), y.min()) >= 0
    assert max((x + width).max(), (y + height).max()) <= 1.0001
    assert min(width.min(), height.min()) > 0


def test_cameras_differ_in_how_often_they_see_a_person(truth: dict[str, Any]) -> None:
    labels = Counter(
        entry["id"]
        for entry in truth["images"]
        if any(found["label"] == "person" for found in entry["objects"])
    )
    assert labels["street"] >= 29
    assert labels["garden"] == 1
    assert all(5 <= labels[name] <= 22 for name in set(CAMERAS) - {"street", "garden"})


def test_cars_are_seen_outdoors_often_and_indoors_seldom(truth: dict[str, Any]) -> None:
    cars = Counter(
        entry["id"]
        for entry in truth["images"]
        if any(found["label"] == "car" for found in entry["objects"])
    )
    assert min(cars["front-door"], cars["car-park"], cars["street"]) >= 15
    assert 1 <= cars["hall"] <= 5
    assert 1 <= cars["warehouse"] <= 6


@pytest.mark.parametrize(
    ("mark", "count"),
    [("L", 32), ("CMYK", 2), ("MPO", 2), ("progressive", 3), ("orientation 6", 2),
     ("orientation 8", 2)],
)  # fmt: skip
def test_some_pictures_are_stored_as_odd_cameras_store_them(
    truth: dict[str, Any], mark: str, count: int
) -> None:
    marks: Counter[str] = Counter()
    for entry in truth["images"]:
        with Image.open(SAMPLES / entry["file"]) as image:
            marks[image.mode] += 1
            marks[str(image.format)] += 1
            marks["progressive"] += "progressive" in image.info
            marks[f"orientation {image.getexif().get(0x0112, 1)}"] += 1
    assert marks[mark] == count


def test_corrupt_pictures_cannot_be_decoded(truth: dict[str, Any]) -> None:
    files = [e["file"] for e in truth["invalid"] if e["reason"] == "corrupt_jpeg"]
    for file in files:
        with Image.open(SAMPLES / file) as image, pytest.raises(OSError, match=r"truncated|broken"):
            image.load()


def test_a_duplicate_shares_the_moment_and_not_the_bytes(truth: dict[str, Any]) -> None:
    street, hall = [e["file"] for e in truth["invalid"] if e["reason"] == "duplicate"]
    original = ds.draw_sample(CAMERAS["street"], 6)
    assert street == f"street/street_{ds.compact(original.capture_time)}.jpg"
    assert hall.replace("resent/", "") in {e["file"] for e in truth["images"]}
    for copy, first in ((street, original.file), (hall, hall.replace("resent/", ""))):
        data, other = (SAMPLES / copy).read_bytes(), (SAMPLES / first).read_bytes()
        assert data != other
        assert np.abs(upright(data) - upright(other)).mean() < 12  # It is out of focus.
