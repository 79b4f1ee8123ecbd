"""Computes beforehand what a graph derives from the size of its image, which is fixed here.

A SavedModel that accepts images of any size computes how to scale and pad each of them, although
the job gives it images of its own size. TensorFlow must do this, as TFLite's fast kernels require
tensors of a fixed size; see :mod:`transforms.models.partition`. Here such values become constants,
and scaling to the same size and padding by nothing are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from transforms.models.tensorflow_runtime import load_tensorflow

_DTYPES = frozenset(("bool", "float32", "int32", "int64"))
_MOST_ELEMENTS = 1024
"""Larger values, such as weights that are computed from others, stay as they are."""
_CONTROL_FLOW = frozenset(("Switch", "Merge", "Enter", "Exit", "NextIteration", "LoopCond"))
"""The ops of the loops and branches of TensorFlow 1, of which a session may compute no part."""


def fold_sizes(graph_def: Any, outputs: Sequence[str]) -> Any:
    """Returns a graph with the same results, in which values that depend on sizes are constants.

    Args:
      graph_def: `tf.GraphDef` without variables, whose placeholders have a fixed size.
      outputs: The names of the tensors that the caller needs, like `node:0`.
    """
    while values := _values_of(graph_def, outputs):  # New constants can fix the size of others.
        graph_def = _with_constants(graph_def, values)
    return _without_idle_ops(graph_def)


def imported(graph_def: Any) -> Any:
    """Returns a `tf.Graph` of a `tf.GraphDef`."""
    tf = load_tensorflow()
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(graph_def, name="")
    return graph


def _values_of(graph_def: Any, outputs: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
    """Returns the values of the nodes that can become constants, by their names."""
    graph = imported(graph_def)
    fixed: set[Any] = set()
    within: set[Any] = set()
    for op in graph.get_operations():
        sources = (*(tensor.op for tensor in op.inputs), *op.control_inputs)
        if op.type in _CONTROL_FLOW or not within.isdisjoint(sources):
            within.add(op)
        elif op.type == "Const" or (
            len(op.outputs) == 1
            and op.outputs[0].dtype.name in _DTYPES
            and not op.op_def.is_stateful
            and op.outputs[0].shape.is_fully_defined()
            and op.outputs[0].shape.num_elements() <= _MOST_ELEMENTS
            and (_is_known_size(op) or (op.inputs and all(x.op in fixed for x in op.inputs)))
        ):
            fixed.add(op)
    kept = {name.split(":")[0] for name in outputs}
    tensors = [
        op.outputs[0]
        for op in fixed
        if op.type != "Const" and (op.name in kept or any(_leads_out(op, fixed)))
    ]
    if not tensors:
        return {}
    tf = load_tensorflow()
    with tf.compat.v1.Session(graph=graph) as session:
        feeds = {
            op.outputs[0]: np.zeros(op.outputs[0].shape, op.outputs[0].dtype.as_numpy_dtype)
            for op in graph.get_operations()
            if op.type == "Placeholder"
        }
        try:
            results = session.run(tensors, feeds)
        except tf.errors.OpError:  # A check does not allow the image of zeros, for instance.
            return {}
    return {tensor.op.name: value for tensor, value in zip(tensors, results, strict=True)}


def _is_known_size(op: Any) -> bool:
    return op.type in ("Shape", "Size", "Rank") and op.inputs[0].shape.is_fully_defined()


def _leads_out(op: Any, fixed: set[Any]) -> list[bool]:
    return [user not in fixed for user in op.outputs[0].consumers()]


def _with_constants(graph_def: Any, values: Mapping[str, np.ndarray[Any, Any]]) -> Any:
    tf = load_tensorflow()
    changed = type(graph_def)(versions=graph_def.versions, library=graph_def.library)
    for node in graph_def.node:
        if (value := values.get(node.name)) is None:
            changed.node.append(node)
            continue
        constant = changed.node.add(name=node.name, op="Const")
        constant.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
        constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    return changed


def _without_idle_ops(graph_def: Any) -> Any:
    """Returns a graph in which images are not scaled to the size that they have, or padded by 0."""
    graph = imported(graph_def)
    changed = type(graph_def)()
    changed.CopyFrom(graph_def)
    for node in changed.node:
        op = graph.get_operation_by_name(node.name)
        if op.type == "ResizeBilinear" and op.inputs[0].shape == op.outputs[0].shape:
            if not op.inputs[0].shape.is_fully_defined():
                continue
            kind = node.attr["T"].type
            is_float = op.inputs[0].dtype == op.outputs[0].dtype
            _become(node, "Identity" if is_float else "Cast")
            if is_float:
                node.attr["T"].type = kind
            else:
                node.attr["SrcT"].type = kind
                node.attr["DstT"].type = op.outputs[0].dtype.as_datatype_enum
        elif (op.type in ("Pad", "PadV2") and _is_zero(op.inputs[1].op)) or (
            op.type == "EnsureShape" and op.inputs[0].shape.is_fully_defined()
        ):
            kind = node.attr["T"].type
            _become(node, "Identity")
            node.attr["T"].type = kind
    return changed


def _is_zero(op: Any) -> bool:
    tf = load_tensorflow()
    return op.type == "Const" and not tf.make_ndarray(op.get_attr("value")).any()


def _become(node: Any, op: str) -> None:
    """Makes a node another op, which takes its first input only."""
    node.op = op
    node.attr.clear()
    del node.input[1:]
