"""The heads of ONNX detectors, compared with slow and simple decoders."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.search import search
from tests.transforms.onnx_models import cells
from transforms.models.labels import COCO
from transforms.models.onnx_files import OnnxFile, OnnxTensor
from transforms.models.onnx_heads import (
    BoxesHead,
    Detections,
    LogitsHead,
    YoloxHead,
    head_of,
    names_of,
    suppress,
)

Box = tuple[float, ...]
Found = tuple[float, int, Box]
"""A score, a class, and y_min, x_min, y_max, x_max."""

SIZES = [(32, 32), (64, 32), (32, 96)]
PIXELS = np.array([[[[255, 0, 51], [0, 102, 204]]]], np.uint8)
"""An image of one line with two pixels."""


def file_of(
    *,
    inputs: Sequence[str] = ("image",),
    metadata: Mapping[str, str] | None = None,
    weights: Mapping[str, tuple[int, ...]] | None = None,
    ops: Iterable[str] = (),
) -> OnnxFile:
    return OnnxFile(
        inputs=tuple(OnnxTensor(name, 1, None) for name in inputs),
        outputs=(),
        metadata=metadata or {},
        weights=weights or {},
        ops=frozenset(("", name) for name in ops),
        external=(),
    )


def as_found(detections: Detections) -> list[Found]:
    for values in detections:
        assert values.dtype == np.float32
    return [
        (float(score), int(kind), tuple(map(float, box)))
        for box, score, kind in zip(*detections, strict=True)
    ]


def assert_same(actual: Detections, expected: Sequence[Found]) -> None:
    found = as_found(actual)
    assert [kind for _, kind, _ in found] == [kind for _, kind, _ in expected]
    assert [score for score, _, _ in found] == pytest.approx([each[0] for each in expected])
    for (_, _, box), (_, _, wanted) in zip(found, expected, strict=True):
        assert box == pytest.approx(wanted, abs=1e-5, rel=1e-4)


def overlap(first: Box, second: Box) -> float:
    """The intersection over union."""
    sides = [
        max(0.0, min(first[at + 2], second[at + 2]) - max(first[at], second[at])) for at in (0, 1)
    ]
    shared = sides[0] * sides[1]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared) if shared else 0.0


def without_overlaps(found: Iterable[Found]) -> list[Found]:
    """Keeps each box that no kept one of its class overlaps by more than 0.45; the best first."""
    kept: list[Found] = []
    for each in found:
        if all(other[1] != each[1] or overlap(other[2], each[2]) <= 0.45 for other in kept):
            kept.append(each)
    return kept[:300]


def decode_yolox_slowly(
    rows: Sequence[Sequence[float]], size: tuple[int, int], is_decoded: bool
) -> list[Found]:
    found = []
    for row, (x, y, stride) in zip(rows, cells(size), strict=True):
        center_x, center_y, width, height = row[:4]
        if not is_decoded:
            center_x, center_y = (center_x + x) * stride, (center_y + y) * stride
            width, height = math.exp(width) * stride, math.exp(height) * stride
        box = (
            (center_y - height / 2) / size[1],
            (center_x - width / 2) / size[0],
            (center_y + height / 2) / size[1],
            (center_x + width / 2) / size[0],
        )
        for kind, score in enumerate(row[5:], 1):
            if row[4] * score >= 0.01:
                found.append((row[4] * score, kind, box))
    found.sort(key=lambda each: -each[0])
    return without_overlaps(found[:1000])


def decode_logits_slowly(
    boxes: Sequence[Sequence[float]], logits: Sequence[Sequence[float]], first_class: int
) -> list[Found]:
    found = []
    for (x, y, width, height), row in zip(boxes, logits, strict=True):
        box = (y - height / 2, x - width / 2, y + height / 2, x + width / 2)
        for kind, logit in enumerate(row, first_class):
            score = 1 / (1 + math.exp(-logit))
            if score >= 0.01:
                found.append((score, kind, box))
    found.sort(key=lambda each: -each[0])
    return found[:300]


def steps(smallest: int, largest: int, step: float) -> st.SearchStrategy[float]:
    """Numbers that float32 holds exactly."""
    return st.integers(smallest, largest).map(lambda number: number * step)


@pytest.mark.search
@search(150)
@given(st.sampled_from(SIZES), st.booleans(), st.integers(1, 4), st.data())
def test_yolox_is_decoded_as_by_a_slow_decoder(
    size: tuple[int, int], is_decoded: bool, classes: int, data: st.DataObject
) -> None:
    number = len(cells(size))
    places = arrays.arrays(np.float32, (number, 2), elements=steps(-8, 8, 0.125), fill=st.just(0.0))
    extents = arrays.arrays(np.float32, (number, 2), elements=steps(-8, 8, 0.25), fill=st.just(1.0))
    scores = arrays.arrays(
        np.float32, (number, 1 + classes), elements=steps(0, 16, 0.0625), fill=st.just(0.0)
    )
    rows = np.concatenate([data.draw(places), data.draw(extents), data.draw(scores)], axis=1)
    if is_decoded:
        rows[:, :4] = np.abs(rows[:, :4]) * 8
    head = YoloxHead(("output",), classes, is_decoded)
    expected = decode_yolox_slowly(rows.tolist(), size, is_decoded)
    assert_same(head.decode([rows[None]], size), expected)


@pytest.mark.search
@search(200)
@given(st.integers(1, 4), st.sampled_from([1, 3, 91]), st.data())
def test_logits_are_decoded_as_by_a_slow_decoder(
    queries: int, classes: int, data: st.DataObject
) -> None:
    boxes = data.draw(arrays.arrays(np.float32, (queries, 4), elements=steps(0, 32, 1 / 32)))
    logits = data.draw(
        arrays.arrays(
            np.float32, (queries, classes), elements=steps(-40, 40, 0.25), fill=st.just(-4.0)
        )
    )
    head = LogitsHead(("boxes", "logits"), classes, 0 if classes == 91 else 1)
    expected = decode_logits_slowly(boxes.tolist(), logits.tolist(), head.first_class)
    assert_same(head.decode([boxes[None], logits[None]], (64, 32)), expected)


@pytest.mark.search
@search(300)
@given(st.integers(0, 6), st.data())
def test_labels_boxes_and_scores_are_read_as_they_are(queries: int, data: st.DataObject) -> None:
    labels = data.draw(arrays.arrays(np.int64, (queries,), elements=st.integers(0, 79)))
    boxes = data.draw(arrays.arrays(np.float32, (queries, 4), elements=steps(0, 64, 1.0)))
    scores = data.draw(arrays.arrays(np.float32, (queries,), elements=steps(0, 64, 1 / 64)))
    found = BoxesHead(("labels", "boxes", "scores"), 80).decode(
        [labels[None], boxes[None], scores[None]], (64, 32)
    )
    expected = [
        (float(score), int(label) + 1, (y0 / 32, x0 / 64, y1 / 32, x1 / 64))
        for label, (x0, y0, x1, y1), score in zip(labels, boxes, scores, strict=True)
        if score >= 0.01
    ]
    assert_same(found, expected)


def test_a_known_row_of_yolox() -> None:
    """Row 33 of 64x32 pixels is the second cell of stride 16: x 1, y 0."""
    rows = np.zeros((1, 42, 7), np.float32)
    rows[0, 33] = [0.5, 0.25, math.log(2), 0, 0.5, 0.25, 1]
    ((score, kind, box), second) = as_found(YoloxHead(("o",), 2, False).decode([rows], (64, 32)))
    assert (score, kind) == (0.5, 2)
    assert box == pytest.approx((-4 / 32, 8 / 64, 12 / 32, 40 / 64))
    assert second == (0.125, 1, box)


@pytest.mark.parametrize(("same", "found"), [(999, 2), (1000, 1)])
def test_the_best_1000_boxes_are_compared(same: int, found: int) -> None:
    """Boxes in one place, and a worse one elsewhere."""
    rows = np.zeros((1, 8400, 6), np.float32)
    rows[0, : same + 1, 4:] = 1
    rows[0, :same, :4] = [100, 100, 50, 50]
    rows[0, same] = [500, 500, 50, 50, 0.5, 1]
    head = YoloxHead(("o",), 1, is_decoded=True)
    assert len(as_found(head.decode([rows], (640, 640)))) == found


def test_a_box_that_is_inside_out_suppresses_no_other() -> None:
    boxes = np.array([[0.9, 0.1, 0.1, 0.9], [0.3, 0.3, 0.5, 0.5]], np.float32)
    assert suppress(boxes, np.array([1, 1])).tolist() == [0, 1]


def test_at_most_300_detections_are_kept() -> None:
    rows = np.zeros((1, 8400, 6), np.float32)
    rows[0, :, 2:4] = -4
    rows[0, :, 4] = np.linspace(0.5, 1, 8400)
    rows[0, :, 5] = 1
    found = as_found(YoloxHead(("o",), 1, False).decode([rows], (640, 640)))
    assert len(found) == 300
    assert [score for score, _, _ in found] == sorted(rows[0, :, 4].tolist(), reverse=True)[:300]


@pytest.mark.parametrize(
    ("shift", "kinds", "kept"),
    [
        pytest.param(0.0, (1, 1), [0], id="the same"),
        pytest.param(0.0, (1, 2), [0, 1], id="another class"),
        pytest.param(0.37, (1, 1), [0], id="0.46 in common"),
        pytest.param(0.39, (1, 1), [0, 1], id="0.44 in common"),
        pytest.param(2.0, (1, 1), [0, 1], id="nothing in common"),
    ],
)
def test_the_worse_of_two_boxes_is_dropped_if_they_have_too_much_in_common(
    shift: float, kinds: tuple[int, int], kept: list[int]
) -> None:
    boxes = np.array([[0, 0, 1, 1], [0, shift, 1, 1 + shift]], np.float32)
    assert suppress(boxes, np.array(kinds)).tolist() == kept


def test_numbers_that_are_not_finite_affect_no_other_detection() -> None:
    rows = np.zeros((1, 21, 6), np.float32)
    rows[0, 3] = [0, 0, 0, 0, 0.5, 1]
    rows[0, 5] = [math.nan, 0, 0, 0, 1, 1]
    rows[0, 7] = [0, 0, 1000, 0, 1, 1]
    rows[0, 9] = [0, 0, 0, 0, math.nan, 1]
    with np.errstate(all="ignore"):
        found = as_found(YoloxHead(("o",), 1, False).decode([rows], (32, 32)))
    assert [box for _, _, box in found if all(map(math.isfinite, box))] == [
        (-0.125, 0.625, 0.125, 0.875)
    ]


def test_yolox_takes_blue_green_and_red_of_0_to_255() -> None:
    prepared = YoloxHead(("o",), 1, False).prepare(PIXELS)
    assert prepared.dtype == np.float32
    assert prepared.tolist() == [[[[51, 204]], [[0, 102]], [[255, 0]]]]


def test_dfine_takes_red_green_and_blue_of_0_to_1() -> None:
    for head in (BoxesHead(("l", "b", "s"), 80), LogitsHead(("b", "l"), 80, 1)):
        prepared = head.prepare(PIXELS)
        assert prepared.dtype == np.float32
        expected = np.array([[[[1, 0]], [[0, 0.4]], [[0.2, 0.8]]]])
        np.testing.assert_allclose(prepared, expected, atol=1e-6)


def test_rf_detr_takes_out_the_mean_and_deviation_of_imagenet() -> None:
    outputs = {"dets": np.zeros((1, 2, 4)), "labels": np.zeros((1, 2, 91))}
    head = head_of(file_of(), outputs, (8, 8))
    assert isinstance(head, LogitsHead)
    red = [(1 - 0.485) / 0.229, (0 - 0.485) / 0.229]
    green = [(0 - 0.456) / 0.224, (0.4 - 0.456) / 0.224]
    blue = [(0.2 - 0.406) / 0.225, (0.8 - 0.406) / 0.225]
    prepared = head.prepare(PIXELS)
    assert prepared.dtype == np.float32
    np.testing.assert_allclose(prepared, [[[red], [green], [blue]]], atol=1e-6)


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NONE = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("names", "classes", "first_class", "normalisation"),
    [
        pytest.param(("dets", "labels"), 91, 0, IMAGENET, id="RF-DETR"),
        pytest.param(("dets", "labels"), 4, 1, IMAGENET, id="RF-DETR of one's own"),
        pytest.param(("pred_boxes", "logits"), 80, 1, NONE, id="D-FINE by transformers"),
        pytest.param(("pred_boxes", "logits"), 4, 1, NONE, id="D-FINE of one's own"),
        pytest.param(("pred_boxes", "logits"), 91, 0, IMAGENET, id="Deformable DETR"),
        pytest.param(("pred_boxes", "pred_logits"), 80, 1, NONE, id="D-FINE, raw"),
    ],
)
def test_boxes_and_logits_are_told_by_their_names(
    names: tuple[str, str],
    classes: int,
    first_class: int,
    normalisation: tuple[tuple[float, ...], tuple[float, ...]],
) -> None:
    outputs = {
        "masks": np.zeros((1, 5, 7, 7)),
        names[1]: np.zeros((1, 5, classes)),
        names[0]: np.zeros((1, 5, 4)),
    }
    head = head_of(file_of(), outputs, (8, 8))
    assert head == LogitsHead(names, classes, first_class, *normalisation)
    assert not head.keeps_aspect


def test_rf_detrs_metadata_name_another_normalisation() -> None:
    outputs = {"dets": np.zeros((1, 2, 4)), "labels": np.zeros((1, 2, 3))}

    def head(**metadata: object) -> object:
        file = file_of(metadata={"rfdetr_inference": json.dumps(metadata)})
        return head_of(file, outputs, (8, 8))

    given = ([0.5, 0.25, 0.0], [0.5, 1.0, 2.0])
    assert head(means=given[0], stds=given[1]) == LogitsHead(
        ("dets", "labels"), 3, 1, (0.5, 0.25, 0.0), (0.5, 1.0, 2.0)
    )
    for means, stds in (([0.5], [0.5]), ("x", "y"), (given[0], [0.0, 1.0, 1.0]), (None, given[1])):
        assert head(means=means, stds=stds) == LogitsHead(("dets", "labels"), 3, 1, *IMAGENET)


@pytest.mark.parametrize(
    ("ops", "is_decoded"), [(["Conv", "Sigmoid"], False), (["Conv", "Exp"], True)]
)
def test_yolox_is_told_by_the_number_of_its_cells(ops: list[str], is_decoded: bool) -> None:
    outputs = {"any name": np.zeros((1, 3549, 85))}
    head = head_of(file_of(ops=ops), outputs, (416, 416))
    assert head == YoloxHead(("any name",), 80, is_decoded)
    assert head.keeps_aspect


def test_labels_boxes_and_scores_are_told_by_their_names_and_input() -> None:
    outputs = {
        "labels": np.zeros((1, 300), np.int64),
        "boxes": np.zeros((1, 300, 4)),
        "scores": np.zeros((1, 300)),
    }
    inputs = ["images", "orig_target_sizes"]
    names = ("labels", "boxes", "scores")
    assert head_of(file_of(inputs=inputs), outputs, (640, 640)) == BoxesHead(names, None)
    weights = {
        "model.decoder.dec_score_head.1.bias": (7,),
        "model.decoder.dec_score_head.2.bias": (7,),
        "model.decoder.dec_bbox_head.2.layers.2.bias": (132,),
    }
    head = head_of(file_of(inputs=inputs, weights=weights), outputs, (640, 640))
    assert head == BoxesHead(names, 7)
    weights["enc_class_embed.bias"] = weights["class_embed.0.bias"] = ()
    head = head_of(file_of(inputs=inputs, weights=weights), outputs, (640, 640))
    assert head == BoxesHead(names, 7)
    assert head_of(file_of(inputs=["images"]), outputs, (640, 640)) is None


def test_rows_without_objectness_are_no_yolox() -> None:
    """As YOLOv6 exports them: decoded boxes, and 1 in the place of the objectness."""
    output = np.zeros((1, 3549, 85))
    output[:, :, 4] = 1
    assert head_of(file_of(), {"outputs": output}, (416, 416)) is None
    output[0, 7, 4] = 0.999
    assert head_of(file_of(), {"outputs": output}, (416, 416)) is not None


@pytest.mark.parametrize(
    "outputs",
    [
        pytest.param({"output0": np.zeros((1, 84, 8400))}, id="YOLOv8"),
        pytest.param({"output0": np.zeros((1, 25200, 85))}, id="YOLOv5"),
        pytest.param({"probabilities": np.zeros((1, 1000))}, id="classifier"),
        pytest.param({"output": np.zeros((1, 8400, 5))}, id="YOLOX without classes"),
        pytest.param({"output": np.zeros((8400, 85))}, id="no batch"),
        pytest.param({"a": np.zeros((1, 8400, 85)), "b": np.zeros(1)}, id="a second output"),
        pytest.param(
            {"pred_boxes": np.zeros((1, 100, 4)), "logits": np.zeros((1, 100, 92))},
            id="the first DETR",
        ),
        pytest.param(
            {"pred_boxes": np.zeros((1, 100, 4)), "logits": np.zeros((1, 99, 80))},
            id="other queries",
        ),
        pytest.param(
            {"dets": np.zeros((1, 100, 5)), "labels": np.zeros((1, 100))}, id="mmdetection"
        ),
    ],
)
def test_other_outputs_are_no_head_that_is_known(outputs: dict[str, np.ndarray]) -> None:
    assert head_of(file_of(), outputs, (640, 640)) is None


def test_a_size_that_the_strides_do_not_divide_is_no_yolox() -> None:
    number = 80 * 79 + 40 * 39 + 20 * 19
    assert head_of(file_of(), {"output": np.zeros((1, number, 85))}, (640, 632)) is None


CONTIGUOUS = dict(enumerate(COCO.values(), 1))


@pytest.mark.parametrize(
    ("metadata", "names"),
    [
        pytest.param({"names": "{0: 'person', 1: 'car'}"}, {1: "person", 2: "car"}, id="Python"),
        pytest.param({"names": '["person", "car"]'}, {1: "person", 2: "car"}, id="list"),
        pytest.param({"id2label": '{"0": "a", "2": "b"}'}, {1: "a", 3: "b"}, id="JSON"),
        pytest.param({"classes": "person, car"}, {1: "person", 2: "car"}, id="commas"),
        pytest.param({"labels": "traffic light\ncar"}, {1: "traffic light", 2: "car"}, id="lines"),
        pytest.param({"class_names": "person"}, {1: "person"}, id="one name"),
        pytest.param(
            {"rfdetr_inference": '{"class_id_to_name": {"1": "car"}}', "names": '["a"]'},
            {2: "car"},
            id="RF-DETR",
        ),
        pytest.param({}, {}, id="none"),
        pytest.param({"names": ""}, {}, id="empty"),
        pytest.param({"names": "80"}, {}, id="a number"),
        pytest.param({"names": "[1, 2]"}, {}, id="numbers"),
        pytest.param({"names": '["a", "b", "c", "d"]'}, {}, id="too many"),
        pytest.param({"names": "{-1: 'a', 'x': 'b', 1: ' '}"}, {}, id="no indexes"),
        pytest.param({"names": "[" * 100_000}, {}, id="deep"),
        pytest.param({"names": "a," * 1_000_000}, {}, id="long"),
        pytest.param({"names": "{0: 'a'}.clear()"}, {1: "{0: 'a'}.clear()"}, id="code"),
        pytest.param({"author": '["a"]'}, {}, id="another key"),
        pytest.param({"names": "['a\\n\\x1b[2J']"}, {1: "a%0A%1B[2J"}, id="not printable"),
    ],
)
def test_names_are_read_from_the_metadata(metadata: dict[str, str], names: dict[int, str]) -> None:
    head = YoloxHead(("output",), 3, False)
    assert names_of(file_of(metadata=metadata), head) == names


@pytest.mark.parametrize(
    ("head", "names"),
    [
        pytest.param(YoloxHead(("o",), 80, False), CONTIGUOUS, id="80"),
        pytest.param(LogitsHead(("b", "l"), 91, 0), dict(COCO), id="91"),
        pytest.param(BoxesHead(("l", "b", "s"), None), CONTIGUOUS, id="unknown number"),
        pytest.param(BoxesHead(("l", "b", "s"), 365), {}, id="365"),
    ],
)
def test_without_names_80_and_91_classes_are_those_of_coco(
    head: YoloxHead | LogitsHead | BoxesHead, names: dict[int, str]
) -> None:
    assert names_of(file_of(), head) == names


def test_names_of_a_head_that_counts_from_0_have_their_own_numbers() -> None:
    head = LogitsHead(("dets", "labels"), 91, 0)
    metadata = {"rfdetr_inference": json.dumps({"class_id_to_name": {"0": "van", "1": "car"}})}
    assert names_of(file_of(metadata=metadata), head) == {0: "van", 1: "car"}
