"""Truth files: what they say, and what is reported of a broken one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.evaluation.truth import (
    TrueBox,
    TrueImage,
    alerting_rules,
    parse_truth,
    real_threats,
)
from rules import parse_rules

LABELS = ("person", "car", "dog")
HEAD = "file,main_class,count,note\n"


def parsed(text: str | bytes) -> Any:
    return parse_truth(text if isinstance(text, bytes) else text.encode(), "t", LABELS)


def test_a_csv_says_how_many_of_what_there_are() -> None:
    truth = parsed(
        "\ufeffnote,count,file,main_class,origin\r\n"
        '"late, wet",2,hall/a.jpg,person,x\r\n'
        ",0,b.jpg,empty,\r\n"
        ",1,a.jpg,car,\r\n"
        "\r\n"
        ",3,c.jpg,dog\r\n"
    )
    assert {name: dict(image.counts) for name, image in truth.images.items()} == {
        "a.jpg": {"person": 2, "car": 1},
        "b.jpg": {},
        "c.jpg": {"dog": 3},
    }
    assert not truth.has_boxes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "t:1: no column 'file'; the first line names the columns"),
        ("file;main_class;count\n", "t:1: no column 'file'"),
        ("file,count\na,1\n", "t:1: no column 'main_class'"),
        (HEAD, "t: it lists no image"),
        (HEAD + "a.jpg,person\n", "t:2: not as many cells"),
        (HEAD + "a.jpg,person,1,wet, late\n", "t:2: not as many cells"),
        (HEAD + ",person,1,\n", "t:2: 'file' is empty"),
        (HEAD + "a.jpg,person,1,\nb.jpg,person,many,\n", "t:3: 'count' is 'many'"),
        (HEAD + "a.jpg,person,-1,\n", "t:2: 'count' is '-1'"),
        (HEAD + "a.jpg,person,1.0,\n", "t:2: 'count' is '1.0'"),
        (HEAD + "a.jpg,person,٣,\n", "t:2: 'count' is '٣'"),
        (HEAD + f"a.jpg,person,{'9' * 5000},\n", "t:2: 'count' is '999"),
        (HEAD + "a.jpg,person,0,\n", "t:2: 'count' is 0 and 'main_class' 'person'"),
        (HEAD + "a.jpg,empty,1,\n", "t:2: 'count' is 1 and 'main_class' 'empty'"),
        (HEAD + "a.jpg,persn,1,\n", "t:2: the model gives no label 'persn'; did you mean 'person'"),
        (HEAD + "a.jpg,,1,\n", "t:2: the model gives no label ''; the labels of the model are"),
        (
            HEAD + "a.jpg,car,1,\nx/a.jpg,car,2,\n",
            "t:3: a.jpg has a line for 'car' already, line 2",
        ),
        (HEAD + "a.jpg,car,1,\na.jpg,empty,0,\n", "t:3: a.jpg has a line for 'empty' (line 3) and"),
        (HEAD + 'a.jpg,car,1,"wet\n', "t:2: not CSV"),
        ((HEAD + "a.jpg,car,1,h\xfcbsch\n").encode("latin-1"), "t:2: not UTF-8 text"),
        ("{", "t:1: not JSON"),
        ("[1]", "t: no list 'categories'"),
        ("[" * 100_000, "t: nested too deep"),
    ],
)
def test_a_broken_file_is_refused_with_the_line(text: str | bytes, says: str) -> None:
    with pytest.raises(SetupError) as refused:
        parsed(text)
    assert str(refused.value).startswith(says)
    assert "\n" not in str(refused.value)


def coco(**changes: Any) -> dict[str, Any]:
    return {
        "info": {},
        "images": [
            {"id": 7, "file_name": "train/a.jpg", "width": 200, "height": 100},
            {"id": 8, "file_name": "b.jpg", "width": 200, "height": 100},
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "bbox": [20, 10, 50.0, 30], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 20, 10], "iscrowd": 1},
        ],
        **changes,
    }


def test_cocos_boxes_become_fractions_and_an_image_without_any_is_empty() -> None:
    truth = parsed(json.dumps(coco()))
    assert truth.has_boxes
    assert truth.images["a.jpg"] == TrueImage(
        {"person": 2},
        (
            TrueBox("person", (0.1, 0.1, 0.25, 0.3)),
            TrueBox("person", (0.0, 0.0, 0.1, 0.1), is_crowd=True),
        ),
        (200, 100),
    )
    assert truth.images["b.jpg"] == TrueImage({}, (), (200, 100))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"images": []}, "t: it lists no image"),
        ({"images": [3]}, "t: images[0]: not an object"),
        (
            {"images": [{"id": 7, "width": 1, "height": 1}]},
            "t: images[0]: file_name must be a text",
        ),
        (
            {"images": [{"id": 7, "file_name": "a", "width": 0, "height": 1}]},
            "t: images[0]: an image of",
        ),
        (
            {"images": [{"id": n, "file_name": "a", "width": 1, "height": 1} for n in (7, 7)]},
            "t: images[1]: the id 7 occurs twice",
        ),
        (
            {"images": [{"id": n, "file_name": "a", "width": 1, "height": 1} for n in (7, 8)]},
            "t: images: 'a' occurs twice",
        ),
        ({"annotations": {}}, "t: no list 'annotations'"),
        (
            {"annotations": [{"id": 1, "image_id": 9, "category_id": 1, "bbox": [0, 0, 1, 1]}]},
            "t: annotations[0]: image_id 9 is not in the file",
        ),
        (
            {"annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [0, 0, -1, 1]}]},
            "t: annotations[0]: bbox must be x, y, width, height in pixels",
        ),
        (
            {"annotations": [{"id": 1, "image_id": 7, "category_id": 90, "bbox": [0, 0, 1, 1]}]},
            "t: annotations[0]: the model gives no label 'toothbrush'",
        ),
    ],
)
def test_broken_boxes_are_refused_with_their_place(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(SetupError) as refused:
        parsed(json.dumps(coco(**changes)))
    assert str(refused.value).startswith(says)


RULES = parse_rules(
    """\
version: 1
defaults:
  objects:
    person: {min_score: 0.9, min_area: 0.5, min_count: 2}
    car: {max_count: 1}
    dog: {severity: detection}
cameras:
  drive:
    objects: {person: {min_count: 1}}
    zones:
      near: {polygon: [[0, 0.5], [1, 0.5], [1, 1], [0, 1]], objects: {person: {}, bus: {}}}
    mask:
      flag: {polygon: [[0, 0.5], [0.2, 0.5], [0.2, 1], [0, 1]]}
""",
    "rules.yaml",
)


@pytest.mark.parametrize(
    ("counts", "wanted"),
    [
        ({"person": 2, "dog": 1}, {"person"}),
        ({"person": 1}, set()),
        ({"car": 1}, {"car"}),
        ({"car": 2}, set()),
        ({"dog": 2, "bus": 1}, set()),
        ({}, set()),
    ],
)
def test_a_threat_is_what_the_rules_of_the_camera_alert(
    counts: dict[str, int], wanted: set[str]
) -> None:
    assert set(real_threats(TrueImage(counts), RULES.for_camera("hall"))) == wanted


@pytest.mark.parametrize(
    ("boxes", "wanted"),
    [
        ([("person", 0.5, 0.5)], {"person": "cameras.drive.zones.near.objects.person"}),
        ([("person", 0.5, 0.1)], {}),  # Its feet are not in the zone.
        ([("person", 0.0, 0.5)], {}),  # It is in the mask.
        ([("car", 0.5, 0.1)], {"car": "defaults.objects.car"}),  # No zone takes cars.
        ([("bus", 0.5, 0.5)], {"bus": "cameras.drive.zones.near.objects.bus"}),
        ([("dog", 0.5, 0.5)], {}),
    ],
)
def test_boxes_are_threats_where_zones_and_masks_let_them(
    boxes: list[tuple[str, float, float]], wanted: dict[str, str]
) -> None:
    placed = tuple(TrueBox(label, (x_min, y_min, 0.1, 0.2)) for label, x_min, y_min in boxes)
    true = TrueImage({}, placed, (640, 480))
    assert real_threats(true, RULES.for_camera("drive")) == wanted


@pytest.mark.parametrize("first", ["severity: ignore", "min_count: 2", "min_score: 0.9"])
def test_a_box_in_two_zones_is_a_threat_if_either_lets_it_through(first: str) -> None:
    frame = "polygon: [[0, 0], [1, 0], [1, 1], [0, 1]]"
    ruleset = parse_rules(
        f"""
version: 1
defaults:
  zones:
    a: {{{frame}, objects: {{person: {{{first}}}}}}}
    b: {{{frame}, objects: {{person: }}}}
""",
        "rules.yaml",
    )
    true = TrueImage({}, (TrueBox("person", (0.4, 0.4, 0.1, 0.2)),), (640, 480))
    zone = "a" if first == "min_score: 0.9" else "b"
    assert real_threats(true, ruleset.for_camera("hall")) == {
        "person": f"defaults.zones.{zone}.objects.person"
    }


def test_without_boxes_a_label_of_a_zone_is_a_threat_wherever_it_is() -> None:
    true = TrueImage({"person": 1, "bus": 1})
    assert set(real_threats(true, RULES.for_camera("drive"))) == {"person", "bus"}


def test_the_labels_that_a_camera_looks_for() -> None:
    assert alerting_rules(RULES.for_camera("drive")) == {
        ("person", "cameras.drive.zones.near.objects.person"),
        ("bus", "cameras.drive.zones.near.objects.bus"),
        ("car", "defaults.objects.car"),
    }
