"""Converts a SavedModel to TFLite, and compares both models on a few images.

`python -m transforms.models.conversion REQUEST RESULT` runs the conversion in a separate process:
the converter may crash, and its memory is freed when the process ends. See
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
from transforms.models.folding import fold_sizes, imported
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
"""The largest difference allowed in a box edge (as a fraction of the image) or a score."""
LEAST_SCORE = 0.05
"""Detections with a lower score are not compared."""
LEAST_SHARE = 0.5
"""The smallest share of the multiplications for which a conversion is worthwhile."""
_PHOTOGRAPH = Path(__file__).with_name("check.jpg")


class ConversionError(ValueError):
    """The model can't be converted; the message says why."""


@dataclass(frozen=True)
class Request:
    """A model to convert.

    Attributes:
      spec: The SavedModel.
      quantized: Whether the weights become 8-bit integers.
    """

    spec: ModelSpec
    quantized: bool


@dataclass(frozen=True)
class Conversion:
    """The result of a conversion.

    Attributes:
      model: The converted model; None if the conversion failed.
      problem: Why it failed, or why the converted model can't replace the SavedModel; None if it
        can.
      difference: The largest difference in a box or score on the images of the check.
    """

    model: ConvertedModel | None
    problem: str | None = None
    difference: float | None = None


def convert_and_compare(request: Request) -> Conversion:
    """Converts a model, and compares it with the original; errors are returned as a problem."""
    try:
        model = convert(request.spec, quantized=request.quantized)
    except ConversionError as error:
        return Conversion(None, str(error))
    except Exception as error:  # The converter raises exceptions of many types.
        return Conversion(None, f"TensorFlow can't convert it ({one_line(error)})")
    try:
        images = check_images(request.spec.input_size)
        before, after = (
            _detect(Detector(request.spec, converted=converted, threads=1), images)
            for converted in (None, model)
        )
    except Exception as error:
        return Conversion(None, f"the two models can't be compared ({one_line(error)})")
    compared = sum(int((result.scores >= LEAST_SCORE).sum()) for result in before)
    largest = max(map(difference, before, after))
    problem = None
    if largest > TOLERANCE:
        problem = (
            f"the converted model gives other results: boxes or scores differ by up to "
            f"{largest:.3g}, and at most {TOLERANCE:g} is allowed"
        )
    elif not compared:
        problem = "it detects nothing in the images on which the two models are compared"
    return Conversion(model, problem, largest)


def convert(spec: ModelSpec, *, quantized: bool = False) -> ConvertedModel:
    """Converts the largest possible part of a SavedModel to TFLite, for images of one size.

    Args:
      spec: The SavedModel.
      quantized: Whether the weights of that part become 8-bit integers.

    Raises:
      ConversionError: No part of the model is large enough, or the model is unsafe.
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
    if unsafe := unsafe_graph_ops(graph_def):
        raise ConversionError(f"it can do more than detect ({', '.join(unsafe)})")
    fetched = [tensor.name for tensor in frozen.outputs]
    graph_def = fold_sizes(graph_def, fetched)
    content = graph_def.SerializeToString(deterministic=True)
    graph_def = with_own_function_names(graph_def, f"_{hashlib.sha256(content).hexdigest()[:12]}")
    graph = imported(graph_def)
    cut = find_cut([graph.get_tensor_by_name(name) for name in fetched])
    if cut is None or cut.share < LEAST_SHARE:
        share = 0 if cut is None else cut.share
        raise ConversionError(f"TFLite supports only {share:.0%} of its multiplications")
    (image,) = (tensor.name for tensor in frozen.inputs)

    def part(inputs: Sequence[str], outputs: Sequence[str], checks: Sequence[str] = ()) -> Part:
        nodes, taken = subgraph(graph_def, inputs, [*outputs, *checks])
        tensors = [graph.get_tensor_by_name(name) for name in inputs if name in taken]
        return Part(nodes.SerializeToString(deterministic=True), _describe(tensors), tuple(outputs))

    middle = part(cut.inputs, cut.outputs)
    return ConvertedModel(
        image=image,
        before=part([image], [name for name in (*cut.inputs, *cut.passing) if name != image]),
        middle=_to_tflite(middle, quantized),
        middle_inputs=tuple(tensor.name for tensor in middle.inputs),
        middle_outputs=cut.outputs,
        after=part(
            [image, *cut.outputs, *cut.passing],
            fetched,
            [op.name for op in checks_of(graph)],
        ),
        results=tuple(results),
    )


def _describe(tensors: Sequence[Any]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(
            tensor.name,
            tensor.dtype.name,
            None if tensor.shape.rank is None else tuple(tensor.shape.as_list()),
        )
        for tensor in tensors
    )


def _to_tflite(part: Part, quantized: bool) -> bytes:
    tf = load_tensorflow()
    graph = tf.compat.v1.GraphDef.FromString(part.graph)
    names = [tensor.name for tensor in part.inputs]

    @tf.function(
        autograph=False,
        input_signature=[tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in part.inputs],
    )
    def middle(*tensors: Any) -> list[Any]:
        values = dict(zip(names, tensors, strict=True))
        return list(tf.graph_util.import_graph_def(graph, values, list(part.outputs), name=""))

    converter = tf.lite.TFLiteConverter.from_concrete_functions([middle.get_concrete_function()])
    if quantized:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return bytes(converter.convert())


def check_images(size: tuple[int, int]) -> list[Pixels]:
    """Returns the images on which both models are compared: views of one photograph.

    The photograph shows Grace Hopper. It was taken by the United States Navy and is in the public
    domain.
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


def difference(first: RawDetections, second: RawDetections) -> float:
    """Returns the largest difference in a box or score between two results for one image.

    Each detection of at least :data:`LEAST_SCORE` is compared with the most similar detection of
    its class in the other result. If the class has none there, the difference is the score.
    """
    return max(_largest_distance(first, second), _largest_distance(second, first))


def _largest_distance(source: RawDetections, target: RawDetections) -> float:
    largest = 0.0
    for box, score, kind in zip(source.boxes, source.scores, source.classes, strict=True):
        if score < LEAST_SCORE:
            continue
        same = target.classes == kind
        box_distances = np.abs(target.boxes[same] - box).max(axis=1, initial=0.0)
        distances = np.maximum(box_distances, np.abs(target.scores[same] - score))
        nearest = float(np.nan_to_num(distances, nan=1.0).min(initial=max(float(score), 0.0)))
        largest = max(largest, nearest)
    return largest


def _detect(detector: Detector, images: Sequence[Pixels]) -> list[RawDetections]:
    results = detector.detect(images)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return [result for result in results if isinstance(result, RawDetections)]


def main(arguments: Sequence[str]) -> None:
    """Reads a request from one file, and writes the result of the conversion to another."""
    source, target = map(Path, arguments)
    request = msgspec.msgpack.decode(source.read_bytes(), type=Request)
    target.write_bytes(msgspec.msgpack.encode(convert_and_compare(request)))


if __name__ == "__main__":
    main(sys.argv[1:])
