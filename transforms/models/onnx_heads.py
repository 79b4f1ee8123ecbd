"""The heads of ONNX detectors: what images they take, and what their outputs mean.

:func:`head_of` tells the head from the names, types and shapes of a model's inputs and outputs, its
metadata and its operators. Three heads are known:

`YOLOX <https://github.com/Megvii-BaseDetection/YOLOX>`_ (`demo/ONNXRuntime/onnx_inference.py`,
`yolox/utils/demo_utils.py`): one output [1, cells, 5 + classes] for the cells of the strides 8, 16
and 32: center and size of a box, objectness, scores of the classes. It takes BGR of 0 to 255, the
aspect kept, the rest filled with 114, the image at the top left. Overlapping boxes have to be
suppressed.

DETR kind, as exported by `RF-DETR <https://github.com/roboflow/rf-detr>`_ (`dets`, `labels`) and by
Hugging Face's transformers (`pred_boxes`, `logits`): boxes [1, queries, 4] as center and size in
fractions of the image, and logits [1, queries, classes], of which a sigmoid makes scores. It takes
RGB of 0 to 1, stretched to the size of the input. RF-DETR and other models with logits for COCO's
ids 0 to 90 (Deformable DETR, Conditional DETR) also expect the mean and deviation of ImageNet to be
taken out (`rfdetr/export/_runtime/preprocess.py`); RT-DETR and D-FINE do not.

`D-FINE <https://github.com/Peterande/D-FINE>`_ and RT-DETR by their own exports
(`tools/inference/onnx_inf.py`): `labels`, `boxes` and `scores` [1, queries], the boxes as edges in
an image of the size that a second input, `orig_target_sizes`, gives. They take RGB of 0 to 1,
stretched to the size of the input.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from transforms.models.labels import COCO
from transforms.models.onnx_files import OnnxFile
from transforms.records.text import printable

SIZES_INPUT = "orig_target_sizes"
STRIDES = (8, 16, 32)
MAX_OVERLAP = 0.45
"""The intersection over union above which the lower of two boxes of a class is dropped."""
MIN_SCORE = 0.01
MAX_DETECTIONS = 300
"""The largest number of detections in an image: the number of queries of most of DETR's kind."""
_MAX_CANDIDATES = 1000
"""The largest number of boxes that are compared with each other."""
_MAX_METADATA = 1 << 20
_MAX_NAME = 200
_NAME_KEYS = ("names", "class_names", "classes", "labels", "id2label")
_RF_DETR_METADATA = "rfdetr_inference"
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_COCO_IDS = 91
"""Logits of models that number their classes by COCO's ids, of which 0 stands for nothing."""
_SOFTMAX_CLASSES = 92
"""Logits of the first DETR, of which the last is 'no object' and a softmax makes scores."""
_LOGITS = (("dets", "labels"), ("pred_boxes", "logits"), ("pred_boxes", "pred_logits"))
_CLASS_BIAS = re.compile(r"\b(dec_score_head|class_embed)(\.\d+)?\.bias$")

Array = np.ndarray[Any, Any]
Detections = tuple[Array, Array, Array]
"""Boxes float32 [n, 4] (y_min, x_min, y_max, x_max as fractions of the model's input), scores
float32 [n] and classes float32 [n], of one image."""


@dataclass(frozen=True)
class YoloxHead:
    """YOLOX's head.

    Attributes:
      outputs: The name of its output.
      classes: The number of its classes.
      is_decoded: Whether the graph makes boxes in pixels itself (`--decode_in_inference` of YOLOX's
        `tools/export_onnx.py`), instead of offsets in the cells and logarithms of sizes.
      keeps_aspect: Whether it takes a letterboxed image, or a stretched one.
      first_class: The number of the first class.
    """

    outputs: tuple[str, ...]
    classes: int
    is_decoded: bool
    keeps_aspect: ClassVar[bool] = True
    first_class: ClassVar[int] = 1

    def prepare(self, pixels: Array) -> Array:
        """Makes the input [1, 3, height, width] of uint8 [1, height, width, 3] RGB."""
        return _channels_first(pixels[..., ::-1])

    def decode(self, outputs: list[Array], size: tuple[int, int]) -> Detections:
        """Makes detections of the outputs for one image of this width and height."""
        (rows,) = outputs[0].astype(np.float32)
        centers, sizes = rows[:, :2], rows[:, 2:4]
        if not self.is_decoded:
            corners, strides = cells_of(size)
            centers, sizes = (centers + corners) * strides, np.exp(sizes) * strides
        scores, cells, classes = _best_first(rows[:, 4:5] * rows[:, 5:], _MAX_CANDIDATES)
        boxes = _edges(centers[cells], sizes[cells]) / _as_box(size)
        kept = suppress(boxes, classes)
        return _detections(boxes[kept], scores[kept], classes[kept] + self.first_class)


@dataclass(frozen=True)
class LogitsHead:
    """Boxes and logits of DETR's kind.

    Attributes:
      outputs: The names of the boxes and of the logits.
      classes: The number of logits for a box.
      first_class: The number of the first class: 0 if the logits stand for COCO's ids.
      mean: What is taken from red, green and blue of 0 to 1.
      deviation: What they are divided by then.
      keeps_aspect: As for :class:`YoloxHead`.
    """

    outputs: tuple[str, ...]
    classes: int
    first_class: int
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    deviation: tuple[float, ...] = (1.0, 1.0, 1.0)
    keeps_aspect: ClassVar[bool] = False

    def prepare(self, pixels: Array) -> Array:
        """As for :class:`YoloxHead`."""
        scale, shift = (
            np.array(values, np.float32)
            for values in (
                [1 / (255 * deviation) for deviation in self.deviation],
                [
                    mean / deviation
                    for mean, deviation in zip(self.mean, self.deviation, strict=True)
                ],
            )
        )
        return _channels_first(pixels * scale - shift)

    def decode(self, outputs: list[Array], size: tuple[int, int]) -> Detections:
        """As for :class:`YoloxHead`."""
        (boxes,), (logits,) = (output.astype(np.float32) for output in outputs)
        scores, queries, classes = _best_first(1 / (1 + np.exp(-logits)), MAX_DETECTIONS)
        edges = _edges(boxes[queries, :2], boxes[queries, 2:])
        return _detections(edges, scores, classes + self.first_class)


@dataclass(frozen=True)
class BoxesHead:
    """Labels, boxes and scores of D-FINE's and RT-DETR's own exports.

    Attributes:
      outputs: The names of labels, boxes and scores.
      classes: The number of its classes; None if no weights show it.
      keeps_aspect: As for :class:`YoloxHead`.
      first_class: The number of the first class.
    """

    outputs: tuple[str, ...]
    classes: int | None
    keeps_aspect: ClassVar[bool] = False
    first_class: ClassVar[int] = 1

    def prepare(self, pixels: Array) -> Array:
        """As for :class:`YoloxHead`."""
        return _channels_first(pixels * np.float32(1 / 255))

    def decode(self, outputs: list[Array], size: tuple[int, int]) -> Detections:
        """As for :class:`YoloxHead`."""
        (labels,), (boxes,), (scores,) = outputs
        edges = boxes.astype(np.float32)[:, [1, 0, 3, 2]] / _as_box(size)
        kept = np.flatnonzero(scores >= MIN_SCORE)
        return _detections(edges[kept], scores[kept], labels[kept] + self.first_class)


Head = YoloxHead | LogitsHead | BoxesHead


def head_of(file: OnnxFile, outputs: Mapping[str, Array], size: tuple[int, int]) -> Head | None:
    """Returns the head of a model, or None if it is none of those that are known.

    Args:
      file: The model.
      outputs: The outputs of a run on one image, by name.
      size: The width and height of that image.
    """
    return _yolox(file, outputs, size) or _boxes(file, outputs) or _logits(file, outputs)


def _yolox(file: OnnxFile, outputs: Mapping[str, Array], size: tuple[int, int]) -> YoloxHead | None:
    if len(outputs) != 1 or any(side % STRIDES[-1] for side in size):
        return None
    ((name, output),) = outputs.items()
    cells = sum((size[0] // stride) * (size[1] // stride) for stride in STRIDES)
    if output.ndim != 3 or output.shape[1] != cells or output.shape[2] < 6:
        return None
    if np.all(output[..., 4] == 1):  # YOLOv6's exports: no objectness, and other boxes.
        return None
    # YOLOX has no other use for it than to decode the sizes of boxes.
    return YoloxHead((name,), output.shape[2] - 5, is_decoded=("", "Exp") in file.ops)


def _boxes(file: OnnxFile, outputs: Mapping[str, Array]) -> BoxesHead | None:
    names = ("labels", "boxes", "scores")
    if not outputs.keys() >= set(names) or SIZES_INPUT not in {each.name for each in file.inputs}:
        return None
    labels, boxes, scores = (outputs[name] for name in names)
    if labels.ndim != 2 or labels.shape != scores.shape or boxes.shape != (*labels.shape, 4):
        return None
    biases = [shape for name, shape in file.weights.items() if _CLASS_BIAS.search(name)]
    sizes = {shape[0] for shape in biases if len(shape) == 1}
    return BoxesHead(names, sizes.pop() if len(sizes) == 1 else None)


def _logits(file: OnnxFile, outputs: Mapping[str, Array]) -> LogitsHead | None:
    for pair in _LOGITS:
        if not outputs.keys() >= set(pair):
            continue
        boxes, logits = (outputs[name] for name in pair)
        if boxes.ndim != 3 or boxes.shape[2] != 4 or logits.shape[:-1] != boxes.shape[:-1]:
            continue
        classes = logits.shape[-1]
        if classes == _SOFTMAX_CLASSES:
            continue
        first_class = 0 if classes == _COCO_IDS else 1
        if classes == _COCO_IDS or pair == _LOGITS[0]:
            return LogitsHead(pair, classes, first_class, *_normalisation(file))
        return LogitsHead(pair, classes, first_class)
    return None


def _normalisation(file: OnnxFile) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the mean and deviation that RF-DETR's metadata name; ImageNet's without it."""
    try:
        mean, deviation = (
            tuple(float(value) for value in _rf_detr(file)[key]) for key in ("means", "stds")
        )
    except (KeyError, TypeError, ValueError):
        return _IMAGENET
    is_usable = len(mean) == len(deviation) == 3 and min(deviation) > 0
    return (mean, deviation) if is_usable else _IMAGENET


def names_of(file: OnnxFile, head: Head) -> dict[int, str]:
    """Returns the names of a model's classes by number; none if they are unknown.

    They are those of the metadata: RF-DETR's `rfdetr_inference`, Ultralytics' `names`, or a few
    other usual keys, as JSON, as a Python literal, or separated by commas or lines. Without such
    metadata, 80 classes are COCO's in their order, and 91 are COCO's ids. If the number of classes
    is unknown, they are taken for COCO's 80.
    """
    candidates = [_by_index(_rf_detr(file).get("class_id_to_name"))]
    candidates += [_by_index(_parsed(file.metadata.get(key, ""))) for key in _NAME_KEYS]
    for names in candidates:
        if names and (head.classes is None or max(names) < head.classes):
            return {index + head.first_class: name for index, name in names.items()}
    if head.classes == _COCO_IDS:
        return dict(COCO)
    if head.classes in (None, len(COCO)):
        return dict(enumerate(COCO.values(), head.first_class))
    return {}


def _rf_detr(file: OnnxFile) -> Mapping[str, Any]:
    """What RF-DETR writes about the images that its models take (`rfdetr/export/_runtime`)."""
    parsed = _parsed(file.metadata.get(_RF_DETR_METADATA, ""))
    return parsed if isinstance(parsed, dict) else {}


def _parsed(text: str) -> Any:
    """Returns the value of a text in JSON or Python; otherwise the list of its parts."""
    if len(text) > _MAX_METADATA:
        return []
    readers: tuple[Callable[[str], Any], ...] = (json.loads, ast.literal_eval)
    for read in readers:
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return [part.strip() for part in re.split("[\n,]", text)]


def _by_index(parsed: Any) -> dict[int, str]:
    """Returns the names in a list, or in a mapping whose keys are numbers."""
    if isinstance(parsed, (list, tuple)):
        parsed = dict(enumerate(parsed))
    items = parsed.items() if isinstance(parsed, dict) else ()
    return {
        int(index): printable(name)
        for index, name in items
        if re.fullmatch("[0-9]{1,9}", str(index))
        and isinstance(name, str)
        and 0 < len(name.strip()) <= _MAX_NAME
    }


def _best_first(scores: Array, most: int) -> tuple[Array, Array, Array]:
    """Returns the best scores of at least :data:`MIN_SCORE`, and the row and column of each.

    A row with several such scores is several detections, as in the makers' own programs.
    """
    kept = np.flatnonzero(scores >= MIN_SCORE)
    kept = kept[np.argsort(-scores.ravel()[kept], kind="stable")][:most]
    return scores.ravel()[kept], *np.divmod(kept, scores.shape[1])


def cells_of(size: tuple[int, int]) -> tuple[Array, Array]:
    """Returns the corners of YOLOX's cells in units of their strides, and the strides.

    Both are float32, [cells, 2] and [cells, 1], in the order of the rows of YOLOX's output.
    """
    corners, strides = [], []
    for stride in STRIDES:
        across, down = size[0] // stride, size[1] // stride
        y, x = np.mgrid[:down, :across]
        corners.append(np.stack([x.ravel(), y.ravel()], axis=1))
        strides.append(np.full((across * down, 1), stride))
    return np.concatenate(corners).astype(np.float32), np.concatenate(strides).astype(np.float32)


def suppress(boxes: Array, classes: Array) -> Array:
    """Returns the indices of the boxes that no better box of their class overlaps too much.

    Args:
      boxes: float32 [n, 4], edges; the best first.
      classes: [n].
    """
    kept = [np.zeros(0, np.int64)]
    for number in np.unique(classes):  # Most boxes are of different classes: less to compare.
        at = np.flatnonzero(classes == number)
        kept.append(at[_without_rivals(boxes[at])])
    return np.sort(np.concatenate(kept))[:MAX_DETECTIONS]


def _without_rivals(boxes: Array) -> Array:
    """Returns for each box whether no better one that is left overlaps it too much."""
    first, last = boxes[:, :2], boxes[:, 2:]
    sides = np.maximum(last - first, 0)
    areas = sides[:, 0] * sides[:, 1]
    sides = np.maximum(np.minimum(last[:, None], last) - np.maximum(first[:, None], first), 0)
    shared = sides[..., 0] * sides[..., 1]
    is_rival = shared > MAX_OVERLAP * (areas[:, None] + areas - shared)
    is_left = np.ones(len(boxes), bool)
    for index in range(len(boxes)):
        if is_left[index]:
            is_left[index + 1 :] &= ~is_rival[index, index + 1 :]
    return is_left


def _edges(centers: Array, sizes: Array) -> Array:
    """Returns y_min, x_min, y_max, x_max of boxes by their centers and sizes, both x before y."""
    edges: Array = np.concatenate([centers - sizes / 2, centers + sizes / 2], axis=1)
    return edges[:, [1, 0, 3, 2]]


def _as_box(size: tuple[int, int]) -> Array:
    """Returns a width and height as the divisor of edges in the order y, x, y, x."""
    return np.array([size[1], size[0], size[1], size[0]], np.float32)


def _channels_first(pixels: Array) -> Array:
    tensor: Array = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32)
    return tensor


def _detections(boxes: Array, scores: Array, classes: Array) -> Detections:
    return (
        boxes.astype(np.float32),
        scores.astype(np.float32),
        classes.astype(np.float32),
    )
