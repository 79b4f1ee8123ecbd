"""Where a detector's graph is cut, so that its convolutions run in TFLite and the rest in
TensorFlow.

TFLite's fast kernels take tensors of fixed size only, and TFLite lacks some ops of detectors: the
models of the TF Object Detection API scale images in a loop, and end in a suppression of
overlapping boxes, whose result has any size. So the graph becomes three:

    image ─ before (TensorFlow) ─ middle (TFLite) ─ after (TensorFlow) ─ boxes, scores, classes

The middle is the part with most multiplications in which TFLite has each op, and the size of each
tensor is known.
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
"""TensorFlow's ops that become ops of TFLite's own, given floats."""

_DTYPES = frozenset(("float32", "int32", "bool"))
_BYTES_TAKEN = frozenset(("Cast", "Identity"))
_MULTIPLYING = frozenset(
    ("BatchMatMul", "BatchMatMulV2", "Conv2D", "DepthwiseConv2dNative", "MatMul")
)


@dataclass(frozen=True)
class Cut:
    """The places where a graph is cut. Tensors have their names in the graph, as `node:0`.

    Attributes:
      inputs: What the middle takes.
      outputs: What it gives.
      passing: What the part after it needs of the part before it.
      share: How many of all multiplications are in the middle, 0 to 1.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    passing: tuple[str, ...]
    share: float


def find_cut(fetches: Sequence[Any]) -> Cut | None:
    """Where to cut the graph that makes some tensors; None where nothing multiplies.

    Args:
      fetches: `tf.Tensor`s of one graph whose variables are constants.
    """
    checks = checks_of(fetches[0].graph)
    ops = _upstream([*(one.op for one in fetches), *checks])
    used = {id(tensor) for op in ops for tensor in op.inputs} | {id(one) for one in fetches}
    fits = {op for op in ops if _fits(op, used)}
    constant: set[Any] = set()
    depth: dict[Any, int] = {}
    work: dict[int, int] = defaultdict(int)
    for op in ops:  # In an order in which each comes after what it needs.
        needs = [one.op for one in op.inputs if one.op not in constant]
        if op.type == "Const" or (op in fits and not needs):
            constant.add(op)
            continue
        # One more wherever the way leads from TensorFlow into TFLite: ops of one depth are in one
        # piece, as no way leads out of it and back in.
        depth[op] = max((depth[one] + (op in fits and one not in fits) for one in needs), default=0)
        work[depth[op] if op in fits else -1] += _multiplications(op)
    total = sum(work.values())
    work.pop(-1, None)
    if not total or not any(work.values()):
        return None
    chosen = max(work, key=lambda one: (work[one], -one))
    middle = {op for op, level in depth.items() if level == chosen and op in fits}
    after = set(checks)
    for op in ops:
        is_cut_off = any(one.op in middle or one.op in after for one in op.inputs)
        if is_cut_off and op in depth and op not in middle:
            after.add(op)
    before = depth.keys() - middle - after
    ends = [*(tensor for op in ops if op in after for tensor in op.inputs), *fetches]
    return Cut(
        inputs=_names(one for op in ops if op in middle for one in op.inputs if one.op in before),
        outputs=_names(one for one in ends if one.op in middle),
        passing=_names(one for one in ends if one.op in before),
        share=work[chosen] / total,
    )


def checks_of(graph: Any) -> list[Any]:
    """The ops of a graph that are run for what they check: that a tensor holds what it should."""
    return [op for op in graph.get_operations() if op.op_def.is_stateful and not op.outputs]


def subgraph(graph_def: Any, inputs: Iterable[str], outputs: Iterable[str]) -> tuple[Any, set[str]]:
    """The part of a graph that makes some tensors of others, and which of them it takes.

    Its ops wait for nothing but what they are given: in a graph without variables no order matters
    beside that.

    Args:
      graph_def: `tf.GraphDef`.
      inputs: Names of tensors that will be given.
      outputs: Names of tensors, and of nodes that are run for what they check.
    """
    nodes = {node.name: node for node in graph_def.node}
    given = set(inputs)
    found: set[str] = set()
    taken: set[str] = set()
    waiting = list(outputs)
    while waiting:
        tensor = waiting.pop()
        if (full := _full_name(tensor)) in given:
            taken.add(full)
        elif (name := tensor.split(":")[0]) not in found:
            found.add(name)
            waiting += _tensors_taken(nodes[name])
    part = type(graph_def)(versions=graph_def.versions, library=graph_def.library)
    part.node.extend(node for node in graph_def.node if node.name in found)
    for node in part.node:
        node.input[:] = _tensors_taken(node)
    return part, taken


def with_own_function_names(graph_def: Any, mark: str) -> Any:
    """The same graph, its functions under names that no other graph has.

    TensorFlow knows the functions of all graphs of a process by their names alone.

    Args:
      graph_def: `tf.GraphDef`.
      mark: What is added to each name.
    """
    renamed = type(graph_def)()
    renamed.CopyFrom(graph_def)
    functions = renamed.library.function
    names = {one.signature.name for one in functions}
    for node in (*renamed.node, *(node for one in functions for node in one.node_def)):
        if node.op in names:
            node.op += mark
        for value in node.attr.values():
            for called in (value.func, *value.list.func):
                if called.name in names:
                    called.name += mark
    for one in functions:
        one.signature.name += mark
    return renamed


def _tensors_taken(node: Any) -> list[str]:
    return [one for one in node.input if not one.startswith("^")]


def _full_name(tensor: str) -> str:
    return tensor if ":" in tensor else f"{tensor}:0"


def _upstream(wanted: Iterable[Any]) -> list[Any]:
    """Some ops and those that they need, in the order of their graph."""
    waiting, found = list(wanted), dict[Any, None]()
    graph = waiting[0].graph
    while waiting:
        op = waiting.pop()
        if op not in found:
            found[op] = None
            waiting += [tensor.op for tensor in op.inputs]
    return [op for op in graph.get_operations() if op in found]


def _fits(op: Any, used: set[int]) -> bool:
    """Whether TFLite has an op, and knows the sizes of what it takes and gives."""
    given = [one for one in op.outputs if id(one) in used]
    if op.type not in TFLITE_OPS:
        return False
    if not all(one.shape.is_fully_defined() for one in [*op.inputs, *given]):
        return False
    dtypes = {one.dtype.name for one in [*op.inputs, *given]}
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
    return tuple(dict.fromkeys(one.name for one in tensors))
