"""A model whose convolutions run in TFLite, one interpreter for each call at once.

:mod:`transforms.models.conversion` makes it of a SavedModel; its parts are those that
:mod:`transforms.models.partition` describes.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from transforms.models.model_files import ModelError
from transforms.models.model_safety import unsafe_graph_ops, unsafe_tflite_ops
from transforms.models.tensorflow_runtime import load_tensorflow
from transforms.models.tflite import custom_ops, open_interpreter
from transforms.records.text import one_line

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Tensor:
    """A tensor of a graph.

    Attributes:
      name: As `node:0`.
      dtype: TensorFlow's name of its type.
      shape: Its size; None where a part of it is free, or all.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Part:
    """A part of a graph that TensorFlow runs.

    Attributes:
      graph: A `tf.GraphDef`, as bytes.
      inputs: What it is given.
      outputs: The names of what it gives.
    """

    graph: bytes
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class ConvertedModel:
    """A detector for images of one size.

    Attributes:
      image: The name of the tensor that holds the image.
      before: What TensorFlow makes of the image first.
      middle: What TFLite makes of that: a `.tflite` file.
      middle_inputs: The names of what TFLite is given, in its order.
      middle_outputs: The names of what it gives, in its order.
      after: What TensorFlow makes of that.
      results: The detector's outputs, in the order of those of `after`.
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
    """What runs a converted model, in so many threads at once.

    The function takes uint8 [batch, height, width, 3] RGB, and returns the detector's outputs.

    Args:
      model: The model.
      name: What errors call it.
      threads: Calls at once.

    Raises:
      ModelError: It can't be opened, or can do more than detect.
    """
    tf = load_tensorflow()
    try:
        graphs = [
            tf.compat.v1.GraphDef.FromString(one.graph) for one in (model.before, model.after)
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
    except Exception as error:  # Protobuf's or TensorFlow's own, whatever part is wrong.
        raise ModelError(f"{name}: it can't be opened ({one_line(error)})") from None
    taken = [one["index"] for one in interpreter.get_input_details()]
    given = [one["index"] for one in interpreter.get_output_details()]

    def run(pixels: np.ndarray[Any, Any]) -> Arrays:
        tensors: dict[str, Any] = {model.image: tf.constant(pixels)}
        tensors.update(before(tensors))
        interpreter = interpreters.get()
        try:
            for index, tensor in zip(taken, model.middle_inputs, strict=True):
                interpreter.set_tensor(index, tensors[tensor].numpy())
            interpreter.invoke()
            for index, tensor in zip(given, model.middle_outputs, strict=True):
                tensors[tensor] = tf.constant(interpreter.get_tensor(index))
        finally:
            interpreters.put(interpreter)
        results = after(tensors)
        return {
            key: results[tensor].numpy()
            for key, tensor in zip(model.results, model.after.outputs, strict=True)
        }

    return run


def _function(part: Part, graph: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What adds to some tensors those that a part makes of them."""
    tf = load_tensorflow()
    if not part.outputs:
        return lambda tensors: {}
    from tensorflow.python.eager import context

    for function in graph.library.function:  # Those that a graph calls are not brought with it.
        context.context().add_function_def(function)
    names = [one.name for one in part.inputs]
    made = [one for one in part.outputs if one not in names]

    @tf.function(
        autograph=False,
        input_signature=[tf.TensorSpec(one.shape, one.dtype) for one in part.inputs],
    )
    def make(*tensors: Any) -> list[Any]:
        known = dict(zip(names, tensors, strict=True))
        return list(tf.graph_util.import_graph_def(graph, known, made, name=""))

    concrete = make.get_concrete_function()

    def call(tensors: dict[str, Any]) -> dict[str, Any]:
        found = dict(zip(made, concrete(*(tensors[name] for name in names)), strict=True))
        return {name: found.get(name, tensors.get(name)) for name in part.outputs}

    return call
