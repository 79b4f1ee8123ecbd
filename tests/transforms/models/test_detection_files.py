"""Files of another detector: what is read of them, and what is refused."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rules
from tests.search import search
from transforms.models.detection_files import (
    DetectionFile,
    DetectionFileError,
    DetectionIndex,
    Entry,
    read_detection_file,
    read_labels,
)

CATEGORIES = {"1": "animal", "2": "person", "3": "vehicle"}
PERSON = {"category": "2", "conf": 0.9, "bbox": [0.1, 0.2, 0.05, 0.3]}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MODEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(*images: Any, **other: Any) -> Path:
        path = tmp_path / "found.json"
        document = {
            "images": images,
            "detection_categories": CATEGORIES,
            "info": {"detector": "md_v5a.0.0.pt", "format_version": "1.3"},
            **other,
        }
        document = {key: value for key, value in document.items() if value is not None}
        path.write_text(json.dumps(document))
        return path

    return write


def find(file: DetectionFile, uri: str, top: str | None = "/in", least: float = 0.05) -> Any:
    with closing(DetectionIndex(file)) as index:
        return index.find(uri, top, least)


def test_what_a_file_says_of_images(write: Write) -> None:
    path = write(
        {"file": "a/1.jpg", "max_detection_conf": 0.9, "detections": [PERSON]},
        {"file": "2.jpg", "detections": []},
        {"file": "3.jpg", "failure": "Failure image access", "detections": None},
        {"file": "clip.mp4", "detections": [{**PERSON, "frame_number": 3}], "frame_rate": 30},
        classification_categories={"1": "fox"},
    )
    file = read_detection_file(str(path))
    assert (file.detector, file.labels, file.entries) == (
        "md_v5a.0.0.pt",
        {1: "animal", 2: "person", 3: "vehicle"},
        4,
    )
    person = rules.Detection("2", "person", 0.9, (0.1, 0.2, 0.05, 0.3))
    assert find(file, "/in/a/1.jpg") == Entry((person,))
    assert find(file, "/in/2.jpg") == Entry()
    assert find(file, "/in/3.jpg") == Entry(failure="Failure image access")
    assert find(file, "/in/1.jpg") is None
    assert find(file, "/in/b/2.jpg") is None
    assert read_labels(str(path)) == {1: "animal", 2: "person", 3: "vehicle"}


@pytest.mark.parametrize(
    ("written", "uri", "top"),
    [
        ("a\\1.jpg", "/in/a/1.jpg", "/in"),
        ("./a//1.jpg", "/in/a/1.jpg", "/in"),
        ("/in/a/1.jpg", "/in/a/1.jpg", "/in"),
        ("s3://bucket/a/1.jpg", "s3://bucket/a/1.jpg", "s3://bucket"),
        ("a/1.jpg", "s3://bucket/in/a/1.jpg", "s3://bucket/in"),
        ("1.jpg", "/in/1.jpg", None),
        ("a/Tür \udcff.jpg", "/in/a/Tür \udcff.jpg", "/in"),
    ],
)
def test_paths_are_those_below_the_input_or_whole_addresses(
    write: Write, written: str, uri: str, top: str | None
) -> None:
    file = read_detection_file(str(write({"file": written, "detections": []})))
    assert find(file, uri, top) == Entry()


@pytest.mark.parametrize(
    "info",
    [None, {}, {"format_version": "1"}, {"format_version": "1.0"}, {"format_version": "1.6"}],
)
def test_versions_that_are_read(write: Write, info: Any) -> None:
    path = write({"file": "1.jpg", "detections": [PERSON]}, info=info)
    file = read_detection_file(str(path))
    assert file.detector == "found.json"
    assert find(file, "/in/1.jpg").detections[0].label == "person"


def test_detections_are_rounded_clipped_and_sorted_and_low_ones_dropped(write: Write) -> None:
    found = [
        {"category": "1", "conf": 0.2, "bbox": [-0.01, 0.5, 0.2, 0.6]},
        {"category": "3", "conf": 0.04996, "bbox": [0, 0, 1, 1]},
        {"category": "3", "conf": 0.04994, "bbox": [0, 0, 1, 1]},
        {"category": "2", "conf": 1, "bbox": [0.123456, 0, 0.5, 0.00001]},
        {"category": "2", "conf": 0.9, "bbox": [0.123456, 0, 0.5, 0.25]},
        {"category": "2", "conf": 0.8, "bbox": [1.1, 0, 0.5, 0.25]},
    ]
    file = read_detection_file(str(write({"file": "1.jpg", "detections": found})))
    kept = [(one.label, one.conf, one.bbox) for one in find(file, "/in/1.jpg").detections]
    assert kept == [
        ("person", 0.9, (0.1235, 0.0, 0.5, 0.25)),
        ("animal", 0.2, (0.0, 0.5, 0.19, 0.5)),
        ("vehicle", 0.05, (0.0, 0.0, 1.0, 1.0)),
    ]


@pytest.mark.parametrize("min_score_kept", [0.0, 0.05])
def test_detections_with_a_negated_score_are_dropped(write: Write, min_score_kept: float) -> None:
    """MegaDetector's elimination of repeat detections negates the scores of those it removes."""
    found = [{**PERSON, "conf": conf} for conf in (-0.9, -1, -0.00001, 0.7)]
    file = read_detection_file(str(write({"file": "1.jpg", "detections": found})))
    with closing(DetectionIndex(file)) as index:
        entry = index.find("/in/1.jpg", "/in", min_score_kept)
    assert entry is not None
    assert [one.conf for one in entry.detections] == [0.7]


def test_nothing_after_the_labels_is_read_for_them(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    path.write_text('{"detection_categories": {"2": "person"}, "images": [' + "broken" * 1000)
    assert read_labels(str(path)) == {2: "person"}
    path.write_text('{"images": []}')
    with pytest.raises(DetectionFileError, match="'detection_categories' is missing"):
        read_labels(str(path))


def test_the_record_of_an_image_tells_one_file_and_least_score_from_another(write: Write) -> None:
    first = read_detection_file(str(write({"file": "1.jpg", "detections": []})))
    second = read_detection_file(str(write({"file": "2.jpg", "detections": []})))
    info = first.model_info(0.05)
    assert (info.name, info.version, info.runtime) == ("md_v5a.0.0.pt", first.version, "detections")
    assert info.detects_like(first.model_info(0.05))
    assert not info.detects_like(first.model_info(0.1))
    assert not info.detects_like(second.model_info(0.05))


def image(**changed: Any) -> dict[str, Any]:
    entry = {"file": "1.jpg", "detections": [PERSON], **changed}
    return {key: value for key, value in entry.items() if value is not None}


def found(**changed: Any) -> dict[str, Any]:
    return image(detections=[{**PERSON, **changed}])


@pytest.mark.parametrize(
    ("images", "other", "problem"),
    [
        ([image(), image(file="./1.jpg")], {}, "two entries for 1.jpg"),
        ([image(detections=None)], {}, "neither a list of 'detections' nor a 'failure'"),
        ([image(detections="x")], {}, "neither a list of 'detections'"),
        ([image(file=None)], {}, "the image 1 has no 'file'"),
        ([image(), image(file=7)], {}, "the image 2 has no 'file'"),
        (["1.jpg"], {}, "the image 1 has no 'file'"),
        ([found(category="4")], {}, "does not name the category '4'"),
        ([found(category=2)], {}, "no 'category'"),
        ([found(category="02")], {}, "no 'category'"),
        ([found(conf=1.01)], {}, "no 'conf' from 0 to 1"),
        ([found(conf=-1.01)], {}, "no 'conf' from 0 to 1, or down to -1 if it was removed"),
        ([found(conf="0.9")], {}, "no 'conf' from 0 to 1"),
        ([found(conf=True)], {}, "no 'conf' from 0 to 1"),
        ([found(bbox=[0, 0, 1])], {}, "no 'bbox' of four numbers"),
        ([found(bbox=[0, 0, 1, None])], {}, "no 'bbox' of four numbers"),
        ([found(bbox=[10, 20, 50, 80])], {}, "is in pixels"),
        ([image(detections=[["2", 0.9, [0, 0, 1, 1]]])], {}, "no 'category'"),
        ([image()], {"detection_categories": None}, "'detection_categories' is missing"),
        ([image()], {"detection_categories": ["person"]}, "is not an object"),
        ([image()], {"detection_categories": {"person": "2"}}, "'person' is not a number"),
        ([image()], {"detection_categories": {"2": ""}}, "the category '2' has no name"),
        ([image()], {"info": "1.3"}, "'info' is not an object"),
        ([image()], {"info": {"format_version": "2.0"}}, "'2.0', and only 1.x is known"),
        ([image()], {"info": {"format_version": 1.3}}, "'1.3', and only 1.x is known"),
        ([image()], {"images": None}, "'images' is missing"),
        ([image()], {"images": {"1.jpg": []}}, "'images' is not a list"),
    ],
)
def test_what_is_refused_in_one_line_that_names_the_file(
    write: Write, cache: Path, images: list[Any], other: dict[str, Any], problem: str
) -> None:
    path = write(*images, **other)
    with pytest.raises(DetectionFileError) as refused:
        read_detection_file(str(path))
    assert str(refused.value).startswith(f"{path}: ")
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)
    assert list((cache / "detections").iterdir()) == []


def test_files_that_are_not_there_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DetectionFileError, match="no such file"):
        read_detection_file(str(tmp_path / "none.json"))
    with pytest.raises(DetectionFileError, match="can't be read"):
        read_detection_file(str(tmp_path))


def test_an_index_that_can_not_be_written_is_refused(
    write: Write, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.write_text("a file")
    with pytest.raises(DetectionFileError, match="set MODEL_CACHE to a folder"):
        read_detection_file(str(write(image())))


def test_a_machine_without_the_index_reads_the_file_again_if_it_is_the_same(
    write: Write, cache: Path
) -> None:
    path = write(image())
    file = read_detection_file(str(path))
    (index,) = (cache / "detections").iterdir()
    index.unlink()
    assert len(find(file, "/in/1.jpg").detections) == 1
    index.unlink()
    write(image(detections=[]))
    with pytest.raises(DetectionFileError, match="has changed since the job was started"):
        DetectionIndex(file)


def test_entries_without_a_file_are_counted(write: Write) -> None:
    file = read_detection_file(
        str(write(*(image(file=f"{letter}.jpg") for letter in "dbca"), image(file="/in/e.jpg")))
    )
    with closing(DetectionIndex(file)) as index:
        keys = [index.key_of(f"/in/{letter}.jpg", "/in") for letter in "xcae"]
        assert keys == [None, b"c.jpg", b"a.jpg", b"/in/e.jpg"]
        assert index.without(key for key in keys if key) == (2, "b.jpg")
        assert index.without([*(b"%c.jpg" % letter for letter in b"abcd"), b"/in/e.jpg"]) == (
            0,
            None,
        )


_SHARES = st.integers(0, 10_000).map(lambda number: number / 10_000)


@st.composite
def detections(draw: st.DrawFn) -> rules.Detection:
    """A detection as the job writes it: rounded, and within the image."""
    left, right = sorted(draw(st.lists(_SHARES, min_size=2, max_size=2, unique=True)))
    top, bottom = sorted(draw(st.lists(_SHARES, min_size=2, max_size=2, unique=True)))
    category = draw(st.sampled_from(sorted(CATEGORIES)))
    bbox = (left, top, round(right - left, 4), round(bottom - top, 4))
    conf = draw(st.integers(500, 10_000)) / 10_000
    return rules.Detection(category, CATEGORIES[category], conf, bbox)


@pytest.mark.search
@search(150)
@given(st.lists(st.lists(detections(), max_size=4), max_size=4), st.sampled_from(["in", "out"]))
def test_detections_of_an_archive_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, images: list[list[rules.Detection]], order: str
) -> None:
    path = tmp_path_factory.mktemp("found") / "found.json"
    document = {
        "detection_categories": CATEGORIES,
        "images": [
            {
                "file": f"{number}.jpg",
                "detections": [
                    {"category": one.category, "conf": one.conf, "bbox": list(one.bbox)}
                    for one in some
                ],
            }
            for number, some in enumerate(images)
        ],
    }
    keys = sorted(document, reverse=order == "in")
    path.write_text(json.dumps({key: document[key] for key in keys}))
    file = read_detection_file(str(path))
    with closing(DetectionIndex(file)) as index:
        for number, some in enumerate(images):
            entry = index.find(f"/in/{number}.jpg", "/in", 0.05)
            assert entry is not None
            assert sorted(entry.detections, key=repr) == sorted(some, key=repr)
            assert [one.conf for one in entry.detections] == sorted(
                (one.conf for one in some), reverse=True
            )


@pytest.mark.search
@search(300)
@given(st.integers(0, 10_000), st.binary(max_size=3), st.integers(0, 3))
def test_a_damaged_file_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, at: int, new: bytes, gone: int
) -> None:
    whole = json.dumps(
        {"images": [found(), image(file="2.jpg")], "detection_categories": CATEGORIES, "info": {}}
    ).encode()
    at %= len(whole)
    path = tmp_path_factory.mktemp("found") / "found.json"
    path.write_bytes(whole[:at] + new + whole[at + gone :])
    problem = ""
    try:
        file = read_detection_file(str(path))
        with closing(DetectionIndex(file)) as index:
            index.find("/in/1.jpg", "/in", 0.05)
    except DetectionFileError as error:
        problem = str(error)
    assert "\n" not in problem


def test_an_index_holds_one_row_per_image(write: Write, cache: Path) -> None:
    read_detection_file(str(write(*(image(file=f"{number}.jpg") for number in range(25_000)))))
    (path,) = (cache / "detections").iterdir()
    with closing(sqlite3.connect(path)) as index:
        assert index.execute("SELECT count(*) FROM entries").fetchone() == (25_000,)
