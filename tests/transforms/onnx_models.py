"""ONNX detectors of a few nodes, whose answers are known by hand.

Each finds boxes that are fixed, with scores that follow the mean of the red, green and blue of the
tensor that it is given. So a test sees the boxes that are decoded and the image as it was prepared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 13
CHANNELS = [
    helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
    helper.make_node("Reshape", ["pooled", "flat"], ["means"]),
]
"""From `image` [1, 3, height, width] to `means` [1, 1, 3]."""


def constant(name: str, value: Any, dtype: type = np.float32) -> Any:
    """A weight of a graph."""
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def save(
    path: Path,
    nodes: Sequence[Any],
    outputs: Mapping[str, Sequence[int | str]],
    *,
    weights: Sequence[Any] = (),
    size: tuple[int | str, int | str] = (64, 32),
    batch: int | str = 1,
    channels: int = 3,
    image: str = "image",
    dtype: int = TensorProto.FLOAT,
    types: Mapping[str, int] | None = None,
    inputs: Sequence[Any] = (),
    metadata: Mapping[str, str] | None = None,
    domains: Sequence[str] = (),
    functions: Sequence[Any] = (),
) -> Path:
    """Saves a model that takes an image of this width and height."""
    if image != "image":
        nodes = [helper.make_node("Identity", [image], ["image"]), *nodes]
    given = helper.make_tensor_value_info(image, dtype, [batch, channels, size[1], size[0]])
    types = types or {}
    graph = helper.make_graph(
        nodes=list(nodes),
        name="detector",
        inputs=[given, *inputs],
        outputs=[
            helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), list(shape))
            for name, shape in outputs.items()
        ],
        initializer=[constant("flat", [1, 1, 3], np.int64), *weights],
    )
    opsets = [helper.make_opsetid("", OPSET), *(helper.make_opsetid(name, 1) for name in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=list(functions))
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, str(path))
    return path


def save_logits_detector(
    path: Path,
    *,
    names: tuple[str, str] = ("dets", "labels"),
    boxes: Sequence[Sequence[float]] = ((0.5, 0.25, 0.2, 0.1),),
    classes: int = 3,
    **more: Any,
) -> Path:
    """A detector of DETR's kind: the logits of the first three classes are `means`, others -9."""
    queries = len(boxes)
    nodes = [
        *CHANNELS,
        helper.make_node("Expand", ["means", "queries"], ["first"]),
        helper.make_node("Concat", ["first", "rest"], [names[1]], axis=2),
        helper.make_node("Identity", ["boxes"], [names[0]]),
    ]
    weights = [
        constant("boxes", [boxes]),
        constant("queries", [1, queries, 3], np.int64),
        constant("rest", np.full((1, queries, classes - 3), -9.0)),
    ]
    shapes = {names[0]: (1, queries, 4), names[1]: (1, queries, classes)}
    return save(path, nodes, shapes, weights=weights, **more)


def cells(size: tuple[int, int]) -> list[tuple[int, int, int]]:
    """The cells of YOLOX as x, y and stride, in the order of its output."""
    return [
        (x, y, stride)
        for stride in (8, 16, 32)
        for y in range(size[1] // stride)
        for x in range(size[0] // stride)
    ]


def save_yolox(
    path: Path,
    rows: Mapping[int, Sequence[float]],
    *,
    size: tuple[int, int] = (64, 32),
    classes: int = 3,
    is_decoded: bool = False,
    **more: Any,
) -> Path:
    """A detector with YOLOX's head.

    Args:
      path: Where to save it.
      rows: The first five numbers of some rows, by their index; the scores of their first three
        classes are `means` / 255. All other rows are 0.
      size: The width and height of its input.
      classes: How many classes it has.
      is_decoded: Whether the graph has the operator by which YOLOX decodes boxes.
      more: As for :func:`save`.
    """
    number = len(cells(size))
    fixed = np.zeros((1, number, 5 + classes), np.float32)
    weight = np.zeros((1, number, 3), np.float32)
    for index, row in rows.items():
        fixed[0, index, :5] = row
        weight[0, index] = 1 / 255
    nodes = [
        *CHANNELS,
        helper.make_node("Mul", ["means", "weight"], ["scores"]),
        helper.make_node("Pad", ["scores", "sides"], ["padded"]),
        helper.make_node("Add", ["padded", "fixed"], ["output"]),
    ]
    weights = [
        constant("fixed", fixed),
        constant("weight", weight),
        constant("sides", [0, 0, 5, 0, 0, classes - 3], np.int64),
    ]
    if is_decoded:
        nodes.append(helper.make_node("Exp", ["fixed"], ["unused"]))
    return save(
        path, nodes, {"output": (1, number, 5 + classes)}, weights=weights, size=size, **more
    )


def save_boxes_detector(
    path: Path,
    *,
    boxes: Sequence[Sequence[float]] = ((0.5, 0.25, 0.75, 0.5),),
    labels: Sequence[int] = (0,),
    classes: int | None = None,
    label_type: int = TensorProto.INT64,
    size_type: int = TensorProto.INT64,
    **more: Any,
) -> Path:
    """A detector like D-FINE's own export: its boxes are multiples of `orig_target_sizes`.

    The score of each box is the mean of the red of the tensor.
    """
    queries = len(boxes)
    nodes = [
        *CHANNELS,
        helper.make_node("Cast", ["orig_target_sizes"], ["sizes"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["sizes", "sizes"], ["edges"], axis=1),
        helper.make_node("Mul", ["fractions", "edges"], ["flat_boxes"]),
        helper.make_node("Reshape", ["flat_boxes", "boxes_shape"], ["boxes"]),
        helper.make_node("Identity", ["all_labels"], ["labels"]),
        helper.make_node("Slice", ["means", "zero", "one", "last"], ["red"]),
        helper.make_node("Reshape", ["red", "one_by_one"], ["one_score"]),
        helper.make_node("Expand", ["one_score", "scores_shape"], ["scores"]),
    ]
    numpy_type = helper.tensor_dtype_to_np_dtype(label_type)
    weights = [
        constant("fractions", boxes),
        constant("boxes_shape", [1, queries, 4], np.int64),
        constant("all_labels", [labels], numpy_type),
        *(
            constant(name, [value], np.int64)
            for name, value in (("zero", 0), ("one", 1), ("last", 2))
        ),
        constant("one_by_one", [1, 1], np.int64),
        constant("scores_shape", [1, queries], np.int64),
    ]
    if classes is not None:
        weights.append(constant("model.decoder.dec_score_head.2.bias", np.zeros(classes)))
    sizes = helper.make_tensor_value_info("orig_target_sizes", size_type, [1, 2])
    shapes = {"labels": (1, queries), "boxes": (1, queries, 4), "scores": (1, queries)}
    types = {"labels": label_type}
    return save(path, nodes, shapes, weights=weights, inputs=[sizes], types=types, **more)


def save_with_external_data(path: Path, location: str) -> Path:
    """A detector whose largest weights are in a file beside it."""
    save_logits_detector(path, boxes=[(0.5, 0.25, 0.2, 0.1)] * 300)
    model = onnx.load(str(path))
    onnx.save(model, str(path), save_as_external_data=True, location=location, size_threshold=1000)
    return path
