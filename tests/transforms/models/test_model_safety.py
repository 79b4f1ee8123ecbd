"""A model that can do more than detect is refused, unless it is trusted."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from tests.transforms.small_models import save_detector
from transforms.models.detector import inspect_model
from transforms.models.model_files import ModelError
from transforms.models.model_safety import is_unsafe, unsafe_tflite_ops

# Readers and writers are of use only with what opens their file; SAVE and RESTORE: see below.
HARMLESS = frozenset(
    (
        *(
            "CTCBeamSearchDecoder",
            "CheckNumericsV2",
            "ConfigureAndInitializeGlobalTPU",
        ),
        *(
            "DatasetFingerprint",
            "DebugGradientIdentity",
            "DebugGradientRefIdentity",
        ),
        *(
            "DebugNumericSummaryV2",
            "DecodeCSV",
            "DeleteRpcFutureResource",
            "Fingerprint",
        ),
        *(
            "IdentityReader",
            "IdentityReaderV2",
            "Print",
            "RpcCheckStatus",
        ),
        *(
            "TensorSliceDataset",
            "ReaderNumRecordsProduced",
            "ReaderNumRecordsProducedV2",
        ),
        *(
            "ReaderNumWorkUnitsCompleted",
            "ReaderRead",
            "ReaderNumWorkUnitsCompletedV2",
        ),
        *(
            "ReaderReadUpTo",
            "ReaderReadUpToV2",
            "ReaderReadV2",
            "ReaderReset",
        ),
        *(
            "ReaderResetV2",
            "ReaderRestoreState",
            "ReaderRestoreStateV2",
        ),
        *(
            "ReaderSerializeState",
            "ReaderSerializeStateV2",
            "ShardedFilename",
        ),
        *(
            "ShardedFilespec",
            "Snapshot",
            "TPUReplicateMetadata",
            "WriteAudioSummary",
        ),
        *(
            "WriteGraphSummary",
            "WriteHistogramSummary",
            "WriteImageSummary",
        ),
        *(
            "WriteRawProtoSummary",
            "WriteScalarSummary",
            "WriteSummary",
            "CloseSummaryWriter",
        ),
        *(
            "FlushSummaryWriter",
            "SummaryWriter",
            "ReadVariableOp",
            "ReadVariableXlaSplitND",
        ),
        *(
            "RngReadAndSkip",
            "_ReadVariablesOp",
            "RemoteFused",
            "TensorArrayRead",
        ),
        *(
            "TensorArrayReadV2",
            "TensorArrayReadV3",
            "TensorArrayWrite",
            "TensorArrayWriteV2",
        ),
        *(
            "TensorArrayWriteV3",
            "RewriteDataset",
            "BoostedTreesExampleDebugOutputs",
        ),
        *(
            "CreateTRTResourceHandle",
            "_XlaHostComputeMlir",
            "_TPUReplicate",
            "Save",
        ),
        *(
            "SaveSlices",
            "SaveV2",
            "MergeV2Checkpoints",
            "Restore",
            "RestoreSlice",
        ),
        *("RestoreV2",),
    )
)
REACHES = re.compile(
    r"File|Record(?!s)|Reader|^Read|Write|PyFunc|Rpc|Save|Restore|^Debug|Debug|SummaryWriter|LMDB|Sql"
    r"|TRT|TextLine|CSV|Snapshot|LoadDataset|CacheDataset|DataService|^Remote|Print|Dump|Fingerprint"
)
NAMES_A_FILE = re.compile(r"file|path|url|dir$|address|descriptor_source|vocab_file|output_stream")


def registered_ops():
    from tensorflow.core.framework import op_def_pb2
    from tensorflow.python.client import pywrap_tf_session as session

    ops = op_def_pb2.OpList()
    ops.ParseFromString(session.TF_GetBuffer(session.TF_GetAllOpList()))
    return ops.op


def test_each_op_of_tensorflow_that_names_a_file_or_an_address_is_known() -> None:
    has_tensorflow_io = importlib.util.find_spec("tensorflow_io") is not None
    if has_tensorflow_io:
        import tensorflow_io as tfio

        # Its ops are registered then.
        tfio.experimental.image.decode_jpeg_exif(b"\xff\xd8\xff\xd9")
    suspects = {
        op.name
        for op in registered_ops()
        if REACHES.search(op.name)
        or any(NAMES_A_FILE.search(argument.name) for argument in [*op.input_arg, *op.attr])
    }
    suspects -= {name for name in suspects if re.search("CudnnRNN|Fused|TPUEmbedding|Riscs", name)}
    unknown = {name for name in suspects if not is_unsafe(name)} - HARMLESS
    names = {op.name for op in registered_ops()}
    assert ({"BigtableClient", "IO>FileRead"} <= names) == has_tensorflow_io
    assert is_unsafe("BigtableClient")
    assert len(suspects) > (120 if has_tensorflow_io else 70)
    assert not unknown, f"say of each whether it is unsafe: {sorted(unknown)}"


def hostile_detector(path: Path, body: str, initializer: bool = False) -> str:
    """A detector that does something else too, in its signature or as it is loaded."""
    import tensorflow as tf

    victim = str(path.parent / "victim")
    tensors = {"prefix": victim, "tensor_names": ["x"], "shape_and_slices": [""]}

    def act():
        exec(body, {"tf": tf, "victim": victim, "tensors": tensors})

    class Detector(tf.Module):
        def __init__(self):
            super().__init__()
            if initializer:
                self.table = tf.lookup.StaticHashTable(
                    tf.lookup.TextFileInitializer(victim, tf.string, 0, tf.string, 0), ""
                )

        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.uint8, "input_tensor")])
        def __call__(self, input_tensor):
            act()
            count = tf.shape(input_tensor)[0]
            return {
                "detection_boxes": tf.zeros([count, 1, 4]),
                "detection_scores": tf.zeros([count, 1]),
                "detection_classes": tf.ones([count, 1]),
            }

    (path.parent / "victim").write_text("a line\n")
    detector = Detector()
    tf.saved_model.save(detector, str(path), signatures={"serving_default": detector.__call__})
    return str(path)


@pytest.mark.parametrize(
    ("body", "ops"),
    [
        ("tf.io.write_file(victim, tf.io.read_file(victim))", "ReadFile, WriteFile"),
        ("tf.io.matching_files('/*')", "MatchingFiles"),
        ("tf.py_function(lambda: 1, [], tf.int32)", "EagerPyFunc"),
        ("tf.numpy_function(lambda: 1, [], tf.int32)", "PyFunc"),
        ("tf.print('x', output_stream='file://' + victim)", "PrintV2"),
        ("tf.raw_ops.SaveV2(**tensors, tensors=[tf.ones([1])])", "SaveV2"),
        ("tf.raw_ops.RestoreV2(**tensors, dtypes=[tf.float32])", "RestoreV2"),
        ("tf.data.TextLineDataset(victim).reduce(0, lambda n, line: n + 1)", "TextLineDataset"),
        (
            "tf.cond(tf.constant(True), lambda: tf.io.read_file(victim), lambda: tf.constant(''))",
            "ReadFile",
        ),
    ],
)  # fmt: skip
def test_a_saved_model_that_reaches_beyond_its_graph_is_refused_with_its_ops(
    tmp_path: Path, body: str, ops: str
) -> None:
    path = hostile_detector(tmp_path / "net", body)
    with pytest.raises(ModelError) as refused:
        inspect_model(path)
    message = str(refused.value)
    assert f"its graph has {ops}, which reach files, the network or Python" in message
    assert "give --trust_model" in message
    assert "\n" not in message
    assert inspect_model(path, is_trusted=True).input_size == (8, 8)


def test_ops_at_load_time_count_too(tmp_path: Path) -> None:
    path = hostile_detector(tmp_path / "net", "", initializer=True)
    with pytest.raises(ModelError, match="its graph has InitializeTableFromTextFileV2, which"):
        inspect_model(path)


def test_a_restore_that_also_writes_is_refused(tmp_path: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    path = save_detector(tmp_path / "net") / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    (restore,) = (
        function
        for function in model.meta_graphs[0].graph_def.library.function
        if "traced_restore" in function.signature.name
    )
    restore.node_def.add(name="also", op="SaveV2")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="its graph has SaveV2, which"):
        inspect_model(str(path.parent))


def test_detectors_that_only_detect_are_accepted(tmp_path: Path) -> None:
    assert inspect_model(str(save_detector(tmp_path / "net"))).batch is None


def test_real_detectors_are_accepted(shared_models: Path) -> None:
    inspect_model(str(shared_models / "yolox_nano_coco" / "saved_model"))
    inspect_model(str(shared_models / "ssd_mobilenet_v1_coco_quant_tflite" / "detect.tflite"))


def test_a_tflite_file_that_writes_files_is_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    saved = hostile_detector(tmp_path / "net", "tf.io.write_file(victim, tf.io.read_file(victim))")
    converter = tf.lite.TFLiteConverter.from_saved_model(saved)
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS
    ]  # fmt: skip
    path = tmp_path / "net.tflite"
    path.write_bytes(converter.convert())
    with pytest.raises(ModelError, match="its graph has ReadFile, WriteFile, which"):
        inspect_model(str(path))


def test_ops_of_other_libraries_are_unsafe() -> None:
    assert is_unsafe("IO>FFmpegReadableInit")
    assert unsafe_tflite_ops(["TFLite_Detection_PostProcess", "FlexPyFunc", "FlexSaveV2"]) == [
        "PyFunc",
        "SaveV2",
    ]
