import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.models import labels as label_maps
from transforms.models.labels import COCO, LabelsError, check_fit, parse_label_map


def test_coco_has_eighty_names_under_its_own_numbers():
    assert len(COCO) == len(set(COCO.values())) == 80
    assert (COCO[1], COCO[3], COCO[10], COCO[44], COCO[90]) == (
        "person",
        "car",
        "traffic light",
        "bottle",
        "toothbrush",
    )
    assert (min(COCO), max(COCO)) == (1, 90)
    assert not {12, 26, 29, 30, 45, 66, 68, 69, 71, 83} & set(COCO)


PBTXT = """\
# The map of a model's "classes".
item {
  name: "/m/01g317"
  id: 1
  display_name: "person"
}
item { id: 3, name: 'it\\'s "a" car' }
"""


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        pytest.param(PBTXT, {1: "person", 3: 'it\'s "a" car'}, id="pbtxt"),
        pytest.param('item{id:1 name:"a \\"b\\" \\\\c"}', {1: 'a "b" \\c'}, id="pbtxt, escapes"),
        pytest.param("item{id:1 name:'a}b # c'}", {1: "a}b # c"}, id="pbtxt, brace in a name"),
        pytest.param('item {\n id: 5 # "x"\n name: "d"\n}', {5: "d"}, id="pbtxt, comment"),
        pytest.param('item { id: 1 display_name: "" name: "x" }', {1: "x"}, id="pbtxt, no display"),
        pytest.param(
            'item { id: 1 name: "person" keypoints { id: 0 label: "nose" } keypoints { id: 7 } }',
            {1: "person"},
            id="pbtxt, keypoints",
        ),
        pytest.param(
            'item < id: 1; name: "a"; ancestor_ids: ["b", "c"] >', {1: "a"}, id="pbtxt, other forms"
        ),
        pytest.param("1 person\n3 car\n", {1: "person", 3: "car"}, id="id, space, name"),
        pytest.param("1\tperson\n10\ttraffic light", {1: "person", 10: "traffic light"}, id="tab"),
        pytest.param("1,person\n3, car", {1: "person", 3: "car"}, id="comma"),
        pytest.param("1: person\n3:car", {1: "person", 3: "car"}, id="colon"),
        pytest.param("\r\n  1 person \r\n\r\n3 car\r\n", {1: "person", 3: "car"}, id="blank lines"),
        pytest.param("1 person\n1 person\n", {1: "person"}, id="the same line twice"),
        pytest.param("0 person\n1 car", {0: "person", 1: "car"}, id="from 0"),
        pytest.param("person\ntraffic light\n", {1: "person", 2: "traffic light"}, id="names"),
        pytest.param("3D printer\ncar", {1: "3D printer", 2: "car"}, id="a name with a digit"),
        pytest.param("???\nperson\n???\ncar", {1: "person", 3: "car"}, id="??? first"),
        pytest.param("Background\nperson", {1: "person"}, id="background first"),
        pytest.param("\ufeffperson\ncar", {1: "person", 2: "car"}, id="byte order mark, names"),
        pytest.param("\ufeff1 person\n3 car", {1: "person", 3: "car"}, id="byte order mark, ids"),
        pytest.param("# no comment here\ncar", {1: "# no comment here", 2: "car"}, id="hash"),
    ],
)
def test_each_form_of_a_label_map_is_read(text, labels):
    assert parse_label_map(text, "labels.txt") == labels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "labels.txt: it contains no labels"),
        ("\n \n", "labels.txt: it contains no labels"),
        ("???", "labels.txt: it contains no labels"),
        ("1 person\ncar\n", "labels.txt:1: '1 person' has a number where other lines have none"),
        ("person\n\n3 car", "labels.txt:3: '3 car' has a number"),
        ("person\n3", "labels.txt:2: '3' has a number"),
        ("1 person\n3 car\n1 dog", "labels.txt:3: class 1 is named 'person' and 'dog'"),
        ('item { id: 1 name: "a" }\nitem { name: "b" }', "labels.txt:2: an item needs `id:"),
        ('item { id: 1 name: "a" }\n\nitem { id: 2 }', "labels.txt:3: an item needs `id:"),
        ('item { id: "x" name: "a" }', "labels.txt:1: an item needs `id:"),
        (
            'item { id: 1 name: "a" }\nitem { id: 1 name: "b" }',
            "labels.txt:2: class 1 is named 'a' and 'b'",
        ),
    ],
)
def test_a_wrong_label_map_is_refused_in_one_line_that_says_where(text, message):
    with pytest.raises(LabelsError) as raised:
        parse_label_map(text, "labels.txt")
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\nitem {item {item {", "2: not a label map: the bracket that is opened here is not"),
        ("item {item {item {}}}", "1: an item needs `id: <number>`"),
        ('item {\n  id: 1\n  name: "a"\n', "1: not a label map: the bracket"),
        ('item {\n  id: 1\n  name: "a\n}', "3: not a label map: '\"a' is not valid here"),
        ('itm { id: 1 name: "a" }', "1: not a label map: 'itm' where an item begins"),
        ('item { id: 1 name: "a" }\n}', "2: not a label map: '}' is not expected here"),
        ('item { id: 1 name: "a" }\nitem', "2: not a label map: it ends after 'item'"),
        ("item { id 1 }", "1: not a label map: '1' is not expected here"),
        ("1 person\n3 car", "1: not a label map: '1' where an item begins"),
        ('item { id: 99999999999 name: "a" }', "1: an item needs `id: <number>`"),
    ],
)
def test_a_malformed_pbtxt_is_refused_with_its_line(text, message):
    with pytest.raises(LabelsError) as raised:
        parse_label_map(text, "labels.pbtxt")
    assert str(raised.value).startswith(f"labels.pbtxt:{message}")
    assert "\n" not in str(raised.value)


_PIECES = st.sampled_from(
    ["item{", "id:1", "id:2 ", "name:", '"a"', "'b'", "}", "\n", " ", "# c\n", '"', "k{", ":", "x"]
)


@given(st.lists(_PIECES, max_size=20).map("".join))
def test_any_pbtxt_is_read_or_refused_with_its_line(text):
    try:
        labels = parse_label_map(text, "labels.pbtxt")
    except LabelsError as error:
        problem, labels = str(error), {}
    else:
        problem = ""
    assert labels or re.match(r"labels\.pbtxt:(\d+:| it contains no labels)", problem)
    assert not {name for name in labels.values() if "{" in name or "item" in name}


def test_each_token_of_a_label_map_is_read_once(monkeypatch):
    reads = []
    pattern = label_maps._TOKEN
    counting = SimpleNamespace(
        match=lambda text, position: reads.append(position) or pattern.match(text, position)
    )
    monkeypatch.setattr(label_maps, "_TOKEN", counting)
    parse_label_map('item { id: 7 name: "a" k { a: "b" } }\n' * 1000, "labels.pbtxt")
    assert len(reads) == len(set(reads)) == 27_000


@pytest.mark.parametrize(
    ("labels", "classes", "fits"),
    [
        ({1: "a", 2: "b"}, 2, True),
        ({0: "background", 1: "a"}, 1, True),
        ({1: "a", 3: "b"}, 2, False),
        ({1: "a", 900: "b"}, None, True),
        (COCO, 90, True),
        (COCO, 80, False),
    ],
)
def test_a_label_map_must_not_name_more_classes_than_the_model_has(labels, classes, fits):
    if fits:
        check_fit(labels, classes, "labels.txt")
        return
    with pytest.raises(LabelsError, match=rf"labels.txt: names class {max(labels)} .* {classes} "):
        check_fit(labels, classes, "labels.txt")


@pytest.mark.parametrize(
    "path",
    [
        "yolox_nano_coco/coco_labels.tsv",
        "yolox_nano_coco/mscoco_label_map.pbtxt",
        "ssd_mobilenet_v1_coco_quant_tflite/coco_labels.tsv",
        "ssd_mobilenet_v1_coco_quant_tflite/mscoco_label_map.pbtxt",
    ],
)
def test_published_label_maps_of_coco_are_the_built_in_one(shared_models, path):
    text = (shared_models / path).read_text(encoding="utf-8")
    assert parse_label_map(text, path) == dict(COCO)
