"""What is read off an ONNX file, compared with what the makers' own package reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.transforms.onnx_models import (
    save,
    save_boxes_detector,
    save_logits_detector,
    save_with_external_data,
)
from transforms.models.onnx_files import OnnxFileError, OnnxTensor, read_onnx


def test_inputs_outputs_metadata_and_weights_are_read(tmp_path: Path) -> None:
    path = save_boxes_detector(
        tmp_path / "net.onnx", size=("height", 32), batch="batch", metadata={"names": "é, b"}
    )
    file = read_onnx(str(path))
    assert file.inputs == (
        OnnxTensor("image", 1, (None, 3, 32, None)),
        OnnxTensor("orig_target_sizes", 7, (1, 2)),
    )
    assert [(tensor.name, tensor.shape) for tensor in file.outputs] == [
        ("labels", (1, 1)),
        ("boxes", (1, 1, 4)),
        ("scores", (1, 1)),
    ]
    assert file.metadata == {"names": "é, b"}
    assert file.weights["boxes_shape"] == (3,)
    assert file.ops >= {("", "GlobalAveragePool"), ("", "Cast")}
    assert file.external == ()


def test_the_real_model_is_read_as_the_makers_package_reads_it(shared_models: Path) -> None:
    path = str(shared_models / "yolox_nano_onnx" / "yolox_nano.onnx")
    file, model = read_onnx(path), onnx.load(path)
    assert file.ops == {(node.domain, node.op_type) for node in model.graph.node}
    assert file.weights == {each.name: tuple(each.dims) for each in model.graph.initializer}
    assert file.inputs == (OnnxTensor("images", 1, (1, 3, 416, 416)),)
    assert file.outputs == (OnnxTensor("output", 1, (1, 3549, 85)),)


def test_weights_among_the_inputs_are_no_inputs(tmp_path: Path) -> None:
    """Exporters before ONNX's version 4 list them there."""
    weight = numpy_helper.from_array(np.zeros(3, np.float32), "weight")
    also = helper.make_tensor_value_info("weight", TensorProto.FLOAT, [3])
    node = helper.make_node("Add", ["image", "image"], ["out"])
    path = save(
        tmp_path / "net.onnx", [node], {"out": (1, 3, 32, 64)}, weights=[weight], inputs=[also]
    )
    assert [tensor.name for tensor in read_onnx(str(path)).inputs] == ["image"]


def branch(name: str, node: onnx.NodeProto) -> onnx.GraphProto:
    out = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)
    return helper.make_graph([node], name, [], [out])


def test_operators_inside_branches_and_functions_are_seen(tmp_path: Path) -> None:
    inner = helper.make_node("Inside", [], ["x"], domain="my.ops")
    other = helper.make_node("Identity", ["image"], ["x"])
    condition = helper.make_node(
        "If", ["flag"], ["out"], then_branch=branch("a", inner), else_branch=branch("b", other)
    )
    function = helper.make_function(
        "my.functions",
        "Known",
        ["a"],
        ["b"],
        [helper.make_node("Deep", ["a"], ["b"], domain="your.ops")],
        [helper.make_opsetid("your.ops", 1)],
    )
    call = helper.make_node("Known", ["image"], ["known"], domain="my.functions")
    flag = numpy_helper.from_array(np.array(True), "flag")
    path = save(
        tmp_path / "net.onnx",
        [condition, call],
        {"out": (1,), "known": (1,)},
        weights=[flag],
        domains=["my.ops", "my.functions"],
        functions=[function],
    )
    assert read_onnx(str(path)).custom_ops == ["my.ops.Inside", "your.ops.Deep"]


@pytest.mark.parametrize("location", ["net.onnx.data", "weights/net.bin"])
def test_the_files_with_the_weights_are_named(tmp_path: Path, location: str) -> None:
    if "/" in location:
        path = save_with_external_data(tmp_path / "net.onnx", "x")
        set_location(path, location)
    else:
        path = save_with_external_data(tmp_path / "net.onnx", location)
    assert read_onnx(str(path)).external == (location,)


def set_location(path: Path, location: str) -> None:
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("location", ["/etc/passwd", "../net.bin", "a/../../net.bin", "a\0b", "."])
def test_weights_outside_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    path = save_with_external_data(tmp_path / "net.onnx", "x")
    set_location(path, location)
    with pytest.raises(OnnxFileError, match="outside its folder"):
        read_onnx(str(path))


def test_external_weights_of_nodes_are_named_too(tmp_path: Path) -> None:
    value = numpy_helper.from_array(np.zeros(3, np.float32), "value")
    value.ClearField("raw_data")
    value.data_location = TensorProto.EXTERNAL
    value.external_data.add(key="location", value="constant.bin")
    node = helper.make_node("Constant", [], ["out"], value=value)
    path = save(tmp_path / "net.onnx", [node], {"out": (3,)})
    assert read_onnx(str(path)).external == ("constant.bin",)


@pytest.mark.parametrize("data", [b"", b"a text\n" * 9, b"\x08\x08", bytes(200), b"\xff" * 200])
def test_files_that_are_no_onnx_files_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(data)
    with pytest.raises(OnnxFileError, match="not an ONNX file, or a damaged one"):
        read_onnx(str(tmp_path / "net.onnx"))


@given(st.data())
def test_a_damaged_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = save_logits_detector(tmp_path_factory.mktemp("damaged") / "net.onnx")
    content = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        file = read_onnx(str(path))
    except OnnxFileError:
        return
    assert isinstance(file.custom_ops, list)
