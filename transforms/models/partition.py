"""Cuts a detector's graph, so that TFLite runs its convolutions and TensorFlow runs the rest.

TFLite's fast kernels require tensors of a fixed size, and TFLite lacks some ops of detectors: the
models of the TF Object Detection API scale images in a loop, and end with a suppression of
overlapping boxes, whose result has no fixed size. So the graph is cut into three parts:

    image ─ before (TensorFlow) ─ middle (TFLite) ─ after (TensorFlow) ─ boxes, scores, classes

The middle is the part with the most multiplications in which TFLite supports each op, and the size
of each tensor is known.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

TFLITE_OPS = frozenset(
    (
        *("Abs", "Add", "AddN", "AddV2", "AvgPool", "BatchMatMul", "BatchMatMulV2", "BiasAdd"),
        *("Cast", "ConcatV2", "Conv2D", "DepthToSpace", "DepthwiseConv2dNative", "Elu", "Exp"),
        *("ExpandDims", "Fill", "FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"),
        *("GatherV2", "Identity", "LeakyRelu", "Log", "MatMul", "Max", "MaxPool", "Maximum"),
        *("Mean", "Min", "Minimum", "MirrorPad", "Mul", "Neg", "Pack", "Pad", "PadV2", "Pow"),
        *("Range", "RealDiv", "Relu", "Relu6", "Reshape", "ResizeBilinear"),
        *("ResizeNearestNeighbor", "ReverseV2", "Rsqrt", "Shape", "Sigmoid", "Slice", "Softmax"),
        *("Softplus", "SpaceToDepth", "Split", "SplitV", "Sqrt", "Square", "SquaredDifference"),
        *("Squeeze", "StopGradient", "StridedSlice", "Sub", "Sum", "Tanh", "Tile", "Transpose"),
        *("Unpack",),
    )
)
"""The TensorFlow ops that TFLite has built-in ops for, with float inputs."""

_DTYPES = frozenset(("float32", "int32", "bool"))
_BYTES_TAKEN = frozenset(("Cast", "Identity"))
_MULTIPLYING = frozenset(
    ("BatchMatMul", "BatchMatMulV2", "Conv2D", "DepthwiseConv2dNative", "MatMul")
)


@dataclass(frozen=True)
class Cut:
    """Where a graph is cut. The tensors have their names in the graph, like `node:0`.

    Attributes:
      inputs: The input tensors of the middle.
      outputs: The output tensors of the middle.
      passing: The tensors of the first part that the last part needs.
      share: The share of the multiplications that are in the middle, from 0 to 1.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    passing: tuple[str, ...]
    share: float


def find_cut(fetches: Sequence[Any]) -> Cut | None:
    """Returns where to cut a graph; None if no part with multiplications can be cut out.

    Args:
      fetches: The outputs of the graph, as `tf.Tensor`s. Its variables must be constants.
    """
    checks = checks_of(fetches[0].graph)
    ops = _upstream([*(tensor.op for tensor in fetches), *checks])
    used = {id(tensor) for op in ops for tensor in op.inputs} | {id(tensor) for tensor in fetches}
    fits = {op for op in ops if _fits(op, used)}
    constant: set[Any] = set()
    depth: dict[Any, int] = {}
    work: dict[int, int] = defaultdict(int)
    for op in ops:  # Each op comes after those that it needs.
        needs = [tensor.op for tensor in op.inputs if tensor.op not in constant]
        if op.type == "Const" or (op in fits and not needs):
            constant.add(op)
            continue
        # The depth grows at each step from TensorFlow to TFLite. So the ops of one depth make one
        # part: no path leaves it and returns.
        depth[op] = max(
            (depth[source] + (op in fits and source not in fits) for source in needs), default=0
        )
        work[depth[op] if op in fits else -1] += _multiplications(op)
    total = sum(work.values())
    work.pop(-1, None)
    if not total or not any(work.values()):
        return None
    chosen = max(work, key=lambda level: (work[level], -level))
    middle = {op for op, level in depth.items() if level == chosen and op in fits}
    after = set(checks)
    for op in ops:
        is_cut_off = any(tensor.op in middle or tensor.op in after for tensor in op.inputs)
        if is_cut_off and op in depth and op not in middle:
            after.add(op)
    before = depth.keys() - middle - after
    ends = [*(tensor for op in ops if op in after for tensor in op.inputs), *fetches]
    return Cut(
        inputs=_names(
            tensor for op in ops if op in middle for tensor in op.inputs if tensor.op in before
        ),
        outputs=_names(tensor for tensor in ends if tensor.op in middle),
        passing=_names(tensor for tensor in ends if tensor.op in before),
        share=work[chosen] / total,
    )


def checks_of(graph: Any) -> list[Any]:
    """Returns the ops that only check values, like `tf.debugging.Assert`: they have no output."""
    return [op for op in graph.get_operations() if op.op_def.is_stateful and not op.outputs]


def subgraph(graph_def: Any, inputs: Iterable[str], outputs: Iterable[str]) -> tuple[Any, set[str]]:
    """Returns the part of a graph that computes some tensors, and which of the inputs it uses.

    Control dependencies are dropped: without variables, only the data dependencies matter.

    Args:
      graph_def: `tf.GraphDef`.
      inputs: The names of the tensors that the caller will provide.
      outputs: The names of tensors to compute, and of nodes that check values.
    """
    nodes = {node.name: node for node in graph_def.node}
    given = set(inputs)
    needed: set[str] = set()
    taken: set[str] = set()
    waiting = list(outputs)
    while waiting:
        tensor = waiting.pop()
        if (full := _full_name(tensor)) in given:
            taken.add(full)
        elif (name := tensor.split(":")[0]) not in needed:
            needed.add(name)
            waiting += _tensors_taken(nodes[name])
    part = type(graph_def)(versions=graph_def.versions, library=graph_def.library)
    part.node.extend(node for node in graph_def.node if node.name in needed)
    for node in part.node:
        node.input[:] = _tensors_taken(node)
    return part, taken


def with_own_function_names(graph_def: Any, suffix: str) -> Any:
    """Returns the same graph, with function names that no other graph uses.

    TensorFlow has one namespace for the functions of all graphs of a process.

    Args:
      graph_def: `tf.GraphDef`.
      suffix: The suffix that is added to each name.
    """
    renamed = type(graph_def)()
    renamed.CopyFrom(graph_def)
    functions = renamed.library.function
    names = {function.signature.name for function in functions}
    for node in (*renamed.node, *(node for function in functions for node in function.node_def)):
        if node.op in names:
            node.op += suffix
        for value in node.attr.values():
            for called in (value.func, *value.list.func):
                if called.name in names:
                    called.name += suffix
    for function in functions:
        function.signature.name += suffix
    return renamed


def _tensors_taken(node: Any) -> list[str]:
    return [name for name in node.input if not name.startswith("^")]


def _full_name(tensor: str) -> str:
    return tensor if ":" in tensor else f"{tensor}:0"


def _upstream(wanted: Iterable[Any]) -> list[Any]:
    """Returns some ops and all that they depend on, in the order of the graph."""
    pending, needed = list(wanted), dict[Any, None]()
    graph = pending[0].graph
    while pending:
        op = pending.pop()
        if op not in needed:
            needed[op] = None
            pending += [tensor.op for tensor in op.inputs]
    return [op for op in graph.get_operations() if op in needed]


def _fits(op: Any, used: set[int]) -> bool:
    """Returns whether TFLite supports an op, and the sizes of its inputs and outputs are fixed."""
    outputs = [tensor for tensor in op.outputs if id(tensor) in used]
    if op.type not in TFLITE_OPS:
        return False
    if not all(tensor.shape.is_fully_defined() for tensor in [*op.inputs, *outputs]):
        return False
    dtypes = {tensor.dtype.name for tensor in [*op.inputs, *outputs]}
    return dtypes <= _DTYPES | ({"uint8"} if op.type in _BYTES_TAKEN else set())


def _multiplications(op: Any) -> int:
    if op.type not in _MULTIPLYING or not op.outputs[0].shape.is_fully_defined():
        return 0
    results = math.prod(op.outputs[0].shape)
    if op.type == "Conv2D":
        return int(results * math.prod(op.inputs[1].shape[:3]))
    if op.type == "DepthwiseConv2dNative":
        return int(results * math.prod(op.inputs[1].shape[:2]))
    return int(results * (op.inputs[0].shape[-1] or 1))


def _names(tensors: Iterable[Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tensor.name for tensor in tensors))
