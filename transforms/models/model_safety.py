"""Finds what a model could do besides detecting, because a model is a program.

TensorFlow's graphs have ops that read and write files, open connections and call Python. A detector
needs none of them, so a model that has one is refused unless the user trusts it. The check reads
the model's files and runs nothing of them.

This is not a sandbox: TensorFlow's own code decodes the files, and a hostile model may still
exploit a fault in it. See https://github.com/tensorflow/tensorflow/blob/master/SECURITY.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

SAVE_OPS = frozenset(("MergeV2Checkpoints", "Save", "SaveSlices", "SaveV2"))
"""What every SavedModel has to save its variables by, outside its signature."""
RESTORE_OPS = frozenset(("Restore", "RestoreSlice", "RestoreV2"))
"""What its variables are read by when it is loaded, from a path that the loader gives."""

UNSAFE_OPS = frozenset(
    (
        # Files.
        *("DTensorRestoreV2", "DistributedSave", "DumpTensor", "FileSystemSetConfiguration"),
        *("FixedLengthRecordReader", "FixedLengthRecordReaderV2", "FixedUnigramCandidateSampler"),
        *("GenerateVocabRemapping", "InitializeTRTResource", "InitializeTableFromTextFile"),
        *("InitializeTableFromTextFileV2", "LMDBReader", "LoadAndRemapMatrix", "MatchingFiles"),
        *("ReadFile", "RecordInput", "SerializeTRTResource", "Skipgram", "TFRecordReader"),
        *("TFRecordReaderV2", "TextLineReader", "TextLineReaderV2", "WholeFileReader"),
        *("WholeFileReaderV2", "WriteFile"),
        # Files, as datasets.
        *("CSVDataset", "CSVDatasetV2", "CacheDataset", "CacheDatasetV2", "DatasetToTFRecord"),
        *("ExperimentalCSVDataset", "ExperimentalDatasetToTFRecord", "ExperimentalLMDBDataset"),
        *("ExperimentalMatchingFilesDataset", "ExperimentalSqlDataset", "LMDBDataset"),
        *("FixedLengthRecordDataset", "FixedLengthRecordDatasetV2", "ListSnapshotChunksDataset"),
        *("LoadDataset", "MatchingFilesDataset", "SaveDataset", "SaveDatasetV2"),
        *("SnapshotChunkDataset", "SnapshotDataset", "SnapshotDatasetReader"),
        *("SnapshotDatasetV2", "SnapshotNestedDatasetReader", "SqlDataset", "TFRecordDataset"),
        *("TFRecordDatasetV2", "TextLineDataset"),
        # Files that are named by an attribute: logs, summaries, debugging, descriptors.
        *("CalibrationStatisticsSaver", "CreateSummaryDbWriter", "CreateSummaryFileWriter"),
        *("DebugIdentity", "DebugIdentityV2"),
        *("DebugIdentityV3", "DebugNanCount", "DebugNumericSummary", "DecodeProtoV2"),
        *("EncodeProto", "PrintV2", "StatsAggregatorSetSummaryWriter", "TRTEngineOp"),
        # The network, and other machines.
        *("DataServiceDataset", "DataServiceDatasetV2", "DataServiceDatasetV3"),
        *("DataServiceDatasetV4", "RegisterDataset", "RegisterDatasetV2", "RemoteCall"),
        *("RpcCall", "RpcClient", "RpcGetValue", "RpcServer", "RpcServerRegister"),
        *("RpcServerStart",),
        # Python.
        *("EagerPyFunc", "PyFunc", "PyFuncStateless"),
    )
)
"""TensorFlow's ops that reach files, the network or Python."""

_FLEX = "Flex"
"""Before the name of a TensorFlow op in a TFLite file."""


def is_unsafe(op: str) -> bool:
    """Whether an op reaches beyond the graph, or is of another library, and may."""
    # `IO>FFmpegReadable` and `BigtableClient` are ops of tensorflow-io, which the job itself loads.
    return op in UNSAFE_OPS or ">" in op or op.startswith("Bigtable")


def unsafe_tflite_ops(custom_codes: Iterable[str]) -> list[str]:
    """The unsafe ops of a TFLite file, in order.

    Args:
      custom_codes: The names of its ops that are not TFLite's own.
    """
    ops = {code.removeprefix(_FLEX) for code in custom_codes}
    return sorted(op for op in ops if is_unsafe(op) or op in SAVE_OPS | RESTORE_OPS)


def unsafe_graph_ops(graph_def: Any) -> list[str]:
    """The unsafe ops of a graph without variables, and of its functions, in order.

    Args:
      graph_def: `tensorflow.GraphDef`.
    """
    functions = (function.node_def for function in graph_def.library.function)
    ops = {node.op for nodes in (graph_def.node, *functions) for node in nodes}
    return sorted(op for op in ops if is_unsafe(op) or op in SAVE_OPS | RESTORE_OPS)


def unsafe_ops(meta_graph: Any) -> list[str]:
    """The unsafe ops of a SavedModel's graph and functions, in order.

    Those by which it saves and restores its variables are unsafe only where something else than
    saving and restoring runs them.

    Args:
      meta_graph: `tensorflow.MetaGraphDef`.
    """
    return sorted(_Graph(meta_graph).unsafe())


class _Graph:
    def __init__(self, meta_graph: Any) -> None:
        self._meta_graph = meta_graph
        self._nodes = {node.name: node for node in meta_graph.graph_def.node}
        library = meta_graph.graph_def.library.function
        self._functions = {function.signature.name: function for function in library}

    def unsafe(self) -> set[str]:
        saver = self._meta_graph.saver_def
        saving = self._upstream([saver.save_tensor_name])
        restoring = self._upstream([saver.restore_op_name])
        signatures = self._upstream(
            tensor.name
            for signature in self._meta_graph.signature_def.values()
            for tensor in signature.outputs.values()
        )
        saver_alone = (saving | restoring) - signatures
        other = self._nodes.keys() - saver_alone
        by_saver = self._called(saving | restoring)
        other_functions = self._called(other) | self._reached(
            {*self._meta_graph.object_graph_def.concrete_functions}
            | (self._functions.keys() - by_saver)
        )
        return {
            *self._ops(other, other_functions, lambda op: op in SAVE_OPS | RESTORE_OPS),
            *self._ops(restoring, self._called(restoring), lambda op: op in SAVE_OPS),
            *self._ops(self._nodes.keys(), set(self._functions), is_unsafe),
        }

    def _upstream(self, tensors: Iterable[str]) -> set[str]:
        """The nodes that are run for some tensors or nodes."""
        names: set[str] = set()
        pending = [_node_of(tensor) for tensor in tensors]
        while pending:
            name = pending.pop()
            if name in self._nodes and name not in names:
                names.add(name)
                pending += map(_node_of, self._nodes[name].input)
        return names

    def _called(self, nodes: Iterable[str]) -> set[str]:
        """The functions that some nodes call, by others too."""
        return self._reached({name for node in nodes for name in _calls(self._nodes[node])})

    def _reached(self, functions: set[str]) -> set[str]:
        names: set[str] = set()
        pending = list(functions)
        while pending:
            name = pending.pop()
            if name in self._functions and name not in names:
                names.add(name)
                for node in self._functions[name].node_def:
                    pending += _calls(node)
        return names

    def _ops(
        self, nodes: Iterable[str], functions: Iterable[str], is_wanted: Callable[[str], bool]
    ) -> set[str]:
        ops = {self._nodes[name].op for name in nodes}
        ops |= {node.op for name in functions for node in self._functions[name].node_def}
        return {op for op in ops if is_wanted(op)}


def _node_of(tensor: str) -> str:
    return tensor.removeprefix("^").split(":")[0]


def _calls(node: Any) -> list[str]:
    """The functions that a node names: in its attributes, or as its op."""
    values = node.attr.values()
    named = [value.func.name for value in values if value.func.name]
    return [
        *named,
        *(func.name for value in values for func in value.list.func),
        node.op,
    ]
