"""Runs a model whose convolutions were converted to TFLite.

Each concurrent call has its own interpreter. :mod:`transforms.models.conversion` makes such a model
from a SavedModel; :mod:`transforms.models.partition` describes its parts.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from transforms.models.model_files import ModelError
from transforms.models.model_safety import unsafe_graph_ops, unsafe_tflite_ops
from transforms.models.suppression import Arrays, suppression_in
from transforms.models.tensorflow_runtime import load_tensorflow
from transforms.models.tflite import custom_ops, open_interpreter
from transforms.records.text import one_line


@dataclass(frozen=True)
class Tensor:
    """A tensor of a graph.

    Attributes:
      name: Its name, like `node:0`.
      dtype: TensorFlow's name of its type.
      shape: Its size, with None for an unknown dimension; None if the rank is unknown.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Part:
    """A part of a graph that TensorFlow runs.

    Attributes:
      graph: A `tf.GraphDef`, as bytes.
      inputs: Its input tensors.
      outputs: The names of its output tensors.
    """

    graph: bytes
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class ConvertedModel:
    """A detector for images of one size.

    Attributes:
      image: The name of the tensor that holds the image.
      before: The part that TensorFlow runs first, on the image.
      middle: The part that TFLite runs next: a `.tflite` file.
      middle_inputs: The names of its input tensors, in TFLite's order.
      middle_outputs: The names of its output tensors, in TFLite's order.
      after: The part that TensorFlow runs last.
      results: The names of the detector's outputs, in the order of those of `after`.
    """

    image: str
    before: Part
    middle: bytes
    middle_inputs: tuple[str, ...]
    middle_outputs: tuple[str, ...]
    after: Part
    results: tuple[str, ...]


def open_converted(
    model: ConvertedModel, *, name: str, threads: int
) -> Callable[[np.ndarray[Any, Any]], Arrays]:
    """Returns a function that runs a converted model.

    The function takes uint8 [batch, height, width, 3] RGB, and returns the detector's outputs. It
    may be called from several threads.

    Args:
      model: The model.
      name: The name of the model in error messages.
      threads: The largest number of concurrent calls.

    Raises:
      ModelError: It can't be opened, or can do more than detect.
    """
    tf = load_tensorflow()
    try:
        graphs = [
            tf.compat.v1.GraphDef.FromString(part.graph) for part in (model.before, model.after)
        ]
        unsafe = [op for graph in graphs for op in unsafe_graph_ops(graph)]
        unsafe += unsafe_tflite_ops(custom_ops(model.middle, name))
        if unsafe:
            raise ModelError(f"{name}: its graph can do more than detect: {', '.join(unsafe)}")
        before, after = (
            _function(part, graph)
            for part, graph in zip((model.before, model.after), graphs, strict=True)
        )
        interpreters: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(threads):
            interpreter = open_interpreter(name, content=model.middle)
            interpreters.put(interpreter)
    except ModelError:
        raise
    except Exception as error:  # Protobuf and TensorFlow raise their own types.
        raise ModelError(f"{name}: it can't be opened ({one_line(error)})") from None
    input_indexes = [details["index"] for details in interpreter.get_input_details()]
    output_indexes = [details["index"] for details in interpreter.get_output_details()]

    def run(pixels: np.ndarray[Any, Any]) -> Arrays:
        arrays: Arrays = {model.image: pixels}
        arrays.update(before(arrays))
        interpreter = interpreters.get()
        try:
            for index, tensor in zip(input_indexes, model.middle_inputs, strict=True):
                interpreter.set_tensor(index, arrays[tensor])
            interpreter.invoke()
            for index, tensor in zip(output_indexes, model.middle_outputs, strict=True):
                arrays[tensor] = interpreter.get_tensor(index)
        finally:
            interpreters.put(interpreter)
        results = after(arrays)
        return {
            key: results[tensor]
            for key, tensor in zip(model.results, model.after.outputs, strict=True)
        }

    return run


def _function(part: Part, graph: Any) -> Callable[[Arrays], Arrays]:
    """Returns a function that computes the outputs of a part from the tensors known so far."""
    tf = load_tensorflow()
    if not part.outputs:
        return lambda arrays: {}
    from tensorflow.python.eager import context

    for function in graph.library.function:  # Importing a graph does not register its functions.
        context.context().add_function_def(function)
    names = [tensor.name for tensor in part.inputs]
    computed = [name for name in part.outputs if name not in names]
    suppression = suppression_in(graph, names)
    narrowed = () if suppression is None else (suppression.boxes, suppression.scores)

    def spec(tensor: Tensor) -> Any:
        shape = tensor.shape
        if shape is not None and tensor.name in narrowed:
            shape = (shape[0], None, *shape[2:])
        return tf.TensorSpec(shape, tensor.dtype)

    @tf.function(autograph=False, input_signature=[spec(tensor) for tensor in part.inputs])
    def make(*tensors: Any) -> list[Any]:
        known = dict(zip(names, tensors, strict=True))
        return list(tf.graph_util.import_graph_def(graph, known, computed, name=""))

    concrete = make.get_concrete_function()

    def call(arrays: Arrays) -> Arrays:
        given = arrays if suppression is None else {**arrays, **suppression.narrowed(arrays)}
        outputs = concrete(*(tf.constant(given[name]) for name in names))
        values = {name: output.numpy() for name, output in zip(computed, outputs, strict=True)}
        return {name: values[name] if name in values else arrays[name] for name in part.outputs}

    return call
