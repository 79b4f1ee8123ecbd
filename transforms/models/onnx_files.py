"""Reads what an ONNX file says of itself, without running any of it.

The messages and field numbers are those of ONNX's format
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto). Only the fields that are needed are
declared; protobuf skips the others, such as the weights.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

ONNX_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""The operator sets that ONNX Runtime has built in."""

# Message: field: (number, type), with a star for a repeated field. Texts are bytes here, because
# protobuf checks the encoding of its strings only sometimes.
_MESSAGES: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "Model": {"graph": (7, "Graph"), "metadata": (14, "Entry*"), "functions": (25, "Function*")},
    "Function": {"name": (1, "bytes"), "nodes": (7, "Node*"), "domain": (10, "bytes")},
    "Graph": {
        "nodes": (1, "Node*"),
        "weights": (5, "Tensor*"),
        "inputs": (11, "Value*"),
        "outputs": (12, "Value*"),
        "sparse_weights": (15, "SparseTensor*"),
    },
    "Node": {"op": (4, "bytes"), "attributes": (5, "Attribute*"), "domain": (7, "bytes")},
    "Attribute": {
        "tensor": (5, "Tensor"),
        "graph": (6, "Graph"),
        "tensors": (10, "Tensor*"),
        "graphs": (11, "Graph*"),
        "sparse_tensor": (22, "SparseTensor"),
        "sparse_tensors": (23, "SparseTensor*"),
    },
    "Tensor": {"dims": (1, "int64*"), "name": (8, "bytes"), "external": (13, "Entry*")},
    "SparseTensor": {"values": (1, "Tensor"), "indices": (2, "Tensor")},
    "Value": {"name": (1, "bytes"), "type": (2, "Type")},
    "Type": {"tensor": (1, "TensorType")},
    "TensorType": {"element": (1, "int32"), "shape": (2, "Shape")},
    "Shape": {"dims": (1, "Dimension*")},
    "Dimension": {"value": (1, "int64")},
    "Entry": {"key": (1, "bytes"), "value": (2, "bytes")},
}
_SCALARS = {
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
    "int32": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
    "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
}


class OnnxFileError(ValueError):
    """A file that can't be used: what is wrong, without the name of the file."""


@dataclass(frozen=True)
class OnnxTensor:
    """An input or output of a model.

    Attributes:
      name: Its name.
      element: The number of its type in ONNX (`TensorProto.DataType`), 0 if it has none.
      shape: Its size, with None for a dimension that is free; None if the rank is unknown.
    """

    name: str
    element: int
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class OnnxFile:
    """What an ONNX file says of itself.

    Attributes:
      inputs: The inputs that a caller must give.
      outputs: The outputs.
      metadata: The texts that the exporting program wrote into it, by key.
      weights: The shapes of the named weights.
      ops: The operators that it uses, as `domain` and name; those that it defines are left out.
      external: The paths of the files with its weights, relative to the file's folder.
    """

    inputs: tuple[OnnxTensor, ...]
    outputs: tuple[OnnxTensor, ...]
    metadata: Mapping[str, str]
    weights: Mapping[str, tuple[int, ...]]
    ops: frozenset[tuple[str, str]]
    external: tuple[str, ...]

    @property
    def custom_ops(self) -> list[str]:
        """The operators that ONNX Runtime does not have, in order."""
        return sorted(f"{domain}.{name}" for domain, name in self.ops if domain not in ONNX_DOMAINS)


def read_onnx(path: str) -> OnnxFile:
    """Reads an `.onnx` file.

    Raises:
      OnnxFileError: It is damaged, or its weights are outside its folder.
      OSError: It can't be read.
    """
    model = _messages()["Model"]()
    try:
        model.ParseFromString(Path(path).read_bytes())
    except message.DecodeError:
        raise OnnxFileError("not an ONNX file, or a damaged one") from None
    if not model.HasField("graph") or not model.graph.nodes:
        raise OnnxFileError("not an ONNX file, or a damaged one: it has no graph")
    graphs = list(_graphs(model))
    defined = {(_text(function.domain), _text(function.name)) for function in model.functions}
    ops = {(_text(node.domain), _text(node.op)) for nodes, _ in graphs for node in nodes}
    weights = {_text(tensor.name): tuple(tensor.dims) for tensor in model.graph.weights}
    return OnnxFile(
        inputs=tuple(
            tensor for tensor in map(_tensor, model.graph.inputs) if tensor.name not in weights
        ),
        outputs=tuple(map(_tensor, model.graph.outputs)),
        metadata={_text(entry.key): _text(entry.value) for entry in model.metadata},
        weights=weights,
        ops=frozenset(ops - defined),
        external=_external_files(tensor for _, tensors in graphs for tensor in tensors),
    )


def _external_files(tensors: Iterator[Any]) -> tuple[str, ...]:
    """Returns the files in which weights are stored, in order.

    Raises:
      OnnxFileError: One would lie outside the folder of the model.
    """
    entries = [entry for tensor in tensors for entry in tensor.external]
    names = sorted({_text(entry.value) for entry in entries if entry.key == b"location"})
    for name in names:
        parts = PurePosixPath(name).parts
        if PurePosixPath(name).is_absolute() or ".." in parts or "\0" in name or not parts:
            raise OnnxFileError(f"its weights are in {name!r}, outside its folder")
    return tuple(names)


def _graphs(model: Any) -> Iterator[tuple[Any, list[Any]]]:
    """The nodes and the tensors of each graph: those within nodes and functions too."""
    pending: list[tuple[Any, list[Any]]] = [(function.nodes, []) for function in model.functions]
    pending.append((model.graph.nodes, list(_weights(model.graph))))
    while pending:
        nodes, tensors = pending.pop()
        for node in nodes:
            for attribute in node.attributes:
                inner = [*attribute.graphs, *([attribute.graph] * attribute.HasField("graph"))]
                pending += [(graph.nodes, list(_weights(graph))) for graph in inner]
                tensors += [attribute.tensor, *attribute.tensors]
                for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                    tensors += [sparse.values, sparse.indices]
        yield nodes, tensors


def _weights(graph: Any) -> Iterator[Any]:
    yield from graph.weights
    for sparse in graph.sparse_weights:
        yield from (sparse.values, sparse.indices)


def _tensor(value: Any) -> OnnxTensor:
    tensor = value.type.tensor
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(
            dim.value if dim.HasField("value") and dim.value > 0 else None
            for dim in tensor.shape.dims
        )
    return OnnxTensor(_text(value.name), tensor.element, shape)


def _text(encoded: bytes) -> str:
    return encoded.decode("utf-8", "replace")


@functools.cache
def _messages() -> dict[str, Any]:
    """The classes of the messages, by name."""
    file = descriptor_pb2.FileDescriptorProto(name="onnx_subset.proto", package="onnx_subset")
    for name, fields in _MESSAGES.items():
        declared = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            base = kind.removesuffix("*")
            added = declared.field.add(name=field, number=number, label=1 if base == kind else 3)
            if base in _SCALARS:
                added.type = _SCALARS[base]
            else:
                added.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
                added.type_name = f".{file.package}.{base}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}"))
        for name in _MESSAGES
    }
