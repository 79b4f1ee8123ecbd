"""Converts a SavedModel, and looks at a few images with both models.

`python -m transforms.models.conversion REQUEST RESULT` does it in a process of its own, which the
converter may take down with it, and whose memory is given back in the end: see
:mod:`transforms.models.runtimes`.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image, ImageOps

from transforms.models.converted import ConvertedModel, Part, Tensor
from transforms.models.detector import (
    OUTPUTS,
    SIGNATURE,
    Detector,
    ModelSpec,
    Pixels,
    RawDetections,
)
from transforms.models.model_safety import unsafe_graph_ops
from transforms.models.partition import (
    checks_of,
    find_cut,
    subgraph,
    with_own_function_names,
)
from transforms.models.tensorflow_runtime import load_tensorflow
from transforms.records.text import one_line

TOLERANCE = 0.001
"""How much boxes, as fractions of the image, and scores of a converted model may differ."""
LEAST_SCORE = 0.05
"""What is compared: detections of at least this score."""
LEAST_SHARE = 0.5
"""Of the multiplications, how many TFLite must take over for the conversion to be worth it."""
_PHOTOGRAPH = Path(__file__).with_name("check.jpg")


class ConversionError(ValueError):
    """A model that can't be converted, and why."""


@dataclass(frozen=True)
class Request:
    """What is to be converted.

    Attributes:
      spec: The SavedModel.
      quantized: Whether weights become 8-bit integers.
    """

    spec: ModelSpec
    quantized: bool


@dataclass(frozen=True)
class Conversion:
    """What came of it.

    Attributes:
      model: The converted model; None where there is none.
      problem: Why there is none, or why it does not stand for the SavedModel; None if it does.
      difference: The largest difference of a box or score on the images of the check.
    """

    model: ConvertedModel | None
    problem: str | None = None
    difference: float | None = None


def converted(request: Request) -> Conversion:
    """Converts a model and compares the two; an error is told as a problem."""
    try:
        model = convert(request.spec, quantized=request.quantized)
    except ConversionError as error:
        return Conversion(None, str(error))
    except Exception as error:  # The converter raises what it likes.
        return Conversion(None, f"TensorFlow can't convert it ({one_line(error)})")
    try:
        pictures = check_pictures(request.spec.input_size)
        before, after = (
            _detected(Detector(request.spec, converted=one, threads=1), pictures)
            for one in (None, model)
        )
    except Exception as error:
        return Conversion(None, f"the two can't be compared ({one_line(error)})")
    seen = sum(int((one.scores >= LEAST_SCORE).sum()) for one in before)
    worst = max(map(difference, before, after))
    problem = None
    if worst > TOLERANCE:
        problem = (
            f"the converted model sees other things: boxes or scores differ by up to {worst:.3g}, "
            f"and {TOLERANCE:g} is allowed"
        )
    elif not seen:
        problem = "it detects nothing in the images by which the two are compared"
    return Conversion(model, problem, worst)


def convert(spec: ModelSpec, *, quantized: bool = False) -> ConvertedModel:
    """A SavedModel for images of one size, its largest part in TFLite.

    Args:
      spec: The SavedModel.
      quantized: Whether the part's weights become 8-bit integers.

    Raises:
      ConversionError: It has nothing that TFLite takes over.
    """
    tf = load_tensorflow()
    from tensorflow.python.framework import convert_to_constants

    model = tf.saved_model.load(spec.path)  # A signature does not keep its variables.
    signature = model.signatures[SIGNATURE]
    (name,) = signature.structured_input_signature[1]
    results = [key for key in OUTPUTS if key in signature.structured_outputs]
    width, height = spec.input_size

    @tf.function(
        autograph=False,
        input_signature=[tf.TensorSpec([spec.batch or 1, height, width, 3], tf.uint8)],
    )
    def detect(image: Any) -> list[Any]:
        outputs = signature(**{name: image})
        return [outputs[key] for key in results]

    frozen = convert_to_constants.convert_variables_to_constants_v2(
        detect.get_concrete_function(), lower_control_flow=False
    )
    graph_def = frozen.graph.as_graph_def()
    content = graph_def.SerializeToString(deterministic=True)
    graph_def = with_own_function_names(graph_def, f"_{hashlib.sha256(content).hexdigest()[:12]}")
    if unsafe := unsafe_graph_ops(graph_def):
        raise ConversionError(f"it can do more than detect ({', '.join(unsafe)})")
    cut = find_cut(frozen.outputs)
    if cut is None or cut.share < LEAST_SHARE:
        share = 0 if cut is None else cut.share
        raise ConversionError(f"TFLite has the ops for {share:.0%} of its multiplications only")
    (image,) = (one.name for one in frozen.inputs)

    def part(inputs: Sequence[str], outputs: Sequence[str], checks: Sequence[str] = ()) -> Part:
        graph, taken = subgraph(graph_def, inputs, [*outputs, *checks])
        tensors = [frozen.graph.get_tensor_by_name(one) for one in inputs if one in taken]
        return Part(graph.SerializeToString(deterministic=True), _told(tensors), tuple(outputs))

    middle = part(cut.inputs, cut.outputs)
    return ConvertedModel(
        image=image,
        before=part([image], [one for one in (*cut.inputs, *cut.passing) if one != image]),
        middle=_to_tflite(middle, quantized),
        middle_inputs=tuple(one.name for one in middle.inputs),
        middle_outputs=cut.outputs,
        after=part(
            [image, *cut.outputs, *cut.passing],
            [one.name for one in frozen.outputs],
            [one.name for one in checks_of(frozen.graph)],
        ),
        results=tuple(results),
    )


def _told(tensors: Sequence[Any]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(
            one.name,
            one.dtype.name,
            None if one.shape.rank is None else tuple(one.shape.as_list()),
        )
        for one in tensors
    )


def _to_tflite(part: Part, quantized: bool) -> bytes:
    tf = load_tensorflow()
    graph = tf.compat.v1.GraphDef.FromString(part.graph)
    names = [one.name for one in part.inputs]

    @tf.function(
        autograph=False,
        input_signature=[tf.TensorSpec(one.shape, one.dtype) for one in part.inputs],
    )
    def middle(*tensors: Any) -> list[Any]:
        known = dict(zip(names, tensors, strict=True))
        return list(tf.graph_util.import_graph_def(graph, known, list(part.outputs), name=""))

    converter = tf.lite.TFLiteConverter.from_concrete_functions([middle.get_concrete_function()])
    if quantized:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return bytes(converter.convert())


def check_pictures(size: tuple[int, int]) -> list[Pixels]:
    """The images that both models are shown: a photograph, whole and in parts.

    It shows Grace Hopper; made by the United States Navy, it is in the public domain.
    """

    def views() -> Iterator[Image.Image]:
        with Image.open(_PHOTOGRAPH) as opened:
            whole = opened.convert("RGB")
        across, down = whole.size
        yield whole
        yield ImageOps.mirror(whole)
        yield ImageOps.pad(whole, (2 * across, down))
        yield whole.crop((0, 0, across, down // 2))
        yield whole.crop((across // 4, down // 8, across, down))
        yield whole.point(lambda value: value // 3)

    return [np.asarray(view.resize(size, Image.Resampling.BILINEAR)) for view in views()]


def difference(one: RawDetections, other: RawDetections) -> float:
    """By how much two results for one image differ, in a box or a score.

    Each detection of at least :data:`LEAST_SCORE` is held against the one of its class that is
    most like it; where there is none, the difference is its score.
    """
    return max(_farthest(one, other), _farthest(other, one))


def _farthest(these: RawDetections, others: RawDetections) -> float:
    worst = 0.0
    for box, score, kind in zip(these.boxes, these.scores, these.classes, strict=True):
        if score < LEAST_SCORE:
            continue
        same = others.classes == kind
        boxes = np.abs(others.boxes[same] - box).max(axis=1, initial=0.0)
        apart = np.maximum(boxes, np.abs(others.scores[same] - score))
        nearest = float(np.nan_to_num(apart, nan=1.0).min(initial=max(float(score), 0.0)))
        worst = max(worst, nearest)
    return worst


def _detected(detector: Detector, pictures: Sequence[Pixels]) -> list[RawDetections]:
    found = detector.detect(pictures)
    for one in found:
        if isinstance(one, Exception):
            raise one
    return [one for one in found if isinstance(one, RawDetections)]


def main(arguments: Sequence[str]) -> None:
    """Converts what a file requests, and writes what came of it to another."""
    source, target = map(Path, arguments)
    request = msgspec.msgpack.decode(source.read_bytes(), type=Request)
    target.write_bytes(msgspec.msgpack.encode(converted(request)))


if __name__ == "__main__":
    main(sys.argv[1:])
