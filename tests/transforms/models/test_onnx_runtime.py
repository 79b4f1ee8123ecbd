"""ONNX detectors by ONNX Runtime: what they give, and which files are refused."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks.model_alone import average_precision
from tests.transforms.onnx_models import (
    CHANNELS,
    constant,
    save,
    save_boxes_detector,
    save_logits_detector,
    save_yolox,
)
from transforms.images.jpeg import Letterbox, decode_letterboxed, read_header
from transforms.models.detector import Detector, ModelSpec, RawDetections, inspect_model
from transforms.models.labels import COCO
from transforms.models.model_files import ModelError
from transforms.models.onnx_runtime import open_onnx

REAL = "yolox_nano_onnx/yolox_nano.onnx"
SAVED_MODEL = "yolox_nano_coco/saved_model"
IMAGENET = (0.485, 0.229), (0.456, 0.224), (0.406, 0.225)


def image_of(red: int, green: int, blue: int, size: tuple[int, int] = (64, 32)) -> np.ndarray:
    return np.full((size[1], size[0], 3), (red, green, blue), np.uint8)


def detect(path: Path, *images: np.ndarray, free_size: int | None = None) -> list[RawDetections]:
    results = Detector(inspect_model(str(path), free_size), threads=2).detect(images)
    for result in results:
        assert isinstance(result, RawDetections), result
    return results


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_rf_detr(tmp_path: Path) -> None:
    path = save_logits_detector(tmp_path / "net.onnx", boxes=[(0.5, 0.25, 0.2, 0.1)], image="input")
    (result,) = detect(path, image_of(255, 128, 51))
    assert result.boxes.dtype == result.scores.dtype == result.classes.dtype == np.float32
    np.testing.assert_allclose(result.boxes, [[0.2, 0.4, 0.3, 0.6]] * 3, atol=1e-6)
    np.testing.assert_array_equal(result.classes, [1, 2, 3])
    values = zip((1, 128 / 255, 0.2), IMAGENET, strict=True)
    expected = [sigmoid((value - mean) / deviation) for value, (mean, deviation) in values]
    np.testing.assert_allclose(result.scores, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_dfine_by_transformers(tmp_path: Path, dtype: int) -> None:
    path = tmp_path / "net.onnx"
    names = ("pred_boxes", "logits")
    if dtype == TensorProto.FLOAT:
        save_logits_detector(path, names=names, classes=80, image="pixel_values")
    else:
        save_half(path, names)
    (result,) = detect(path, image_of(255, 128, 51))
    np.testing.assert_allclose(result.boxes, [[0.2, 0.4, 0.3, 0.6]] * 3, atol=1e-3)
    expected = [sigmoid(1), sigmoid(128 / 255), sigmoid(0.2)]
    np.testing.assert_allclose(result.scores, expected, rtol=1e-3)
    assert inspect_model(str(path)).labels == dict(enumerate(COCO.values(), 1))


def save_half(path: Path, names: tuple[str, str]) -> None:
    """The same detector, with 16 bits for the image and the outputs."""
    save_logits_detector(path, names=names, classes=80)
    model = onnx.load(str(path))
    for node in model.graph.node:
        for field in (node.input, node.output):
            for at, name in enumerate(field):
                if name in ("image", *names):
                    field[at] = f"full_{name}"
    casts = [
        helper.make_node("Cast", ["image"], ["full_image"], to=TensorProto.FLOAT),
        *model.graph.node,
        *(
            helper.make_node("Cast", [f"full_{name}"], [name], to=TensorProto.FLOAT16)
            for name in names
        ),
    ]
    del model.graph.node[:]
    model.graph.node.extend(casts)
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, str(path))


@pytest.mark.parametrize(
    ("label_type", "size_type"),
    [
        (TensorProto.INT64, TensorProto.INT64),
        (TensorProto.INT32, TensorProto.INT32),
        (TensorProto.INT64, TensorProto.FLOAT),
    ],
)
def test_dfine_by_its_own_export(tmp_path: Path, label_type: int, size_type: int) -> None:
    path = save_boxes_detector(
        tmp_path / "net.onnx",
        boxes=[(0.5, 0.25, 0.75, 0.5), (0, 0, 1, 1)],
        labels=[0, 4],
        label_type=label_type,
        size_type=size_type,
    )
    (result,) = detect(path, image_of(51, 0, 0))
    np.testing.assert_allclose(result.boxes, [[0.25, 0.5, 0.5, 0.75], [0, 0, 1, 1]])
    np.testing.assert_allclose(result.scores, [0.2, 0.2], rtol=1e-5)
    np.testing.assert_array_equal(result.classes, [1, 5])


def test_yolox(tmp_path: Path) -> None:
    rows = {0: [0.5, 0.5, 1, 0, 1], 30: [0, 0, 0, 0, 0.5]}
    (result,) = detect(save_yolox(tmp_path / "net.onnx", rows), image_of(255, 0, 51))
    first = [(4 - 4) / 32, (4 - 4 * math.e) / 64, (4 + 4) / 32, (4 + 4 * math.e) / 64]
    second = [(24 - 4) / 32, (48 - 4) / 64, (24 + 4) / 32, (48 + 4) / 64]
    assert first[0] == 0
    np.testing.assert_allclose(result.scores, [1, 0.5, 0.2, 0.1], rtol=1e-5)
    np.testing.assert_array_equal(result.classes, [3, 3, 1, 1])  # Red is the third channel.
    np.testing.assert_allclose(result.boxes, [first, second, first, second], atol=1e-5)


def test_yolox_with_boxes_in_pixels(tmp_path: Path) -> None:
    path = save_yolox(tmp_path / "net.onnx", {5: [32, 16, 16, 8, 1]}, is_decoded=True)
    (result,) = detect(path, image_of(255, 0, 0))
    np.testing.assert_allclose(result.boxes, [[12 / 32, 24 / 64, 20 / 32, 40 / 64]])


@pytest.mark.parametrize(
    ("size", "asked", "used"),
    [
        pytest.param((64, 32), None, (64, 32), id="fixed"),
        pytest.param((64, 32), 96, (64, 32), id="fixed goes before the option"),
        pytest.param(("w", "h"), None, (640, 640), id="free"),
        pytest.param(("w", "h"), 96, (96, 96), id="free, with the option"),
        pytest.param((64, "h"), 96, (64, 96), id="free height"),
    ],
)
@pytest.mark.parametrize("batch", [1, "batch"])
def test_the_input_is_read_from_the_file(
    tmp_path: Path,
    size: tuple[int | str, int | str],
    asked: int | None,
    used: tuple[int, int],
    batch: int | str,
) -> None:
    path = str(save_logits_detector(tmp_path / "net.onnx", size=size, batch=batch))
    assert inspect_model(path, asked) == ModelSpec(path, used, 1, 3, {}, keeps_aspect=False)
    (result,) = detect(Path(path), image_of(9, 9, 9, used), free_size=asked)
    assert len(result.scores) == 3


def test_the_aspect_is_kept_for_yolox_and_classes_are_numbered_from_1(tmp_path: Path) -> None:
    path = str(save_yolox(tmp_path / "net.onnx", {}, metadata={"names": "['a', 'b', 'c']"}))
    assert inspect_model(path) == ModelSpec(
        path, (64, 32), 1, 3, {1: "a", 2: "b", 3: "c"}, keeps_aspect=True
    )


def test_91_logits_stand_for_the_ids_of_coco(tmp_path: Path) -> None:
    path = save_logits_detector(tmp_path / "net.onnx", classes=91)
    spec = inspect_model(str(path))
    assert (spec.classes, spec.labels) == (90, dict(COCO))
    (result,) = detect(path, image_of(255, 128, 51))
    np.testing.assert_array_equal(result.classes, [0, 1, 2])


def test_a_model_is_run_by_the_threads_that_call_it(tmp_path: Path) -> None:
    """Threads of ONNX Runtime's own would compete with those that run other images."""
    path = str(save_yolox(tmp_path / "net.onnx", {}))
    # Threads that earlier tests left may end at any time.
    before = set(os.listdir("/proc/self/task"))
    opened = open_onnx(path, (64, 32))
    opened.run(image_of(1, 2, 3)[None])
    assert set(os.listdir("/proc/self/task")) <= before


@pytest.mark.parametrize("number", [0, 1, 7])
def test_each_image_gets_its_own_result(tmp_path: Path, number: int) -> None:
    path = save_boxes_detector(tmp_path / "net.onnx")
    reds = [20 + 30 * at for at in range(number)]
    results = detect(path, *(image_of(red, 0, 0) for red in reds))
    scores = [float(result.scores[0]) for result in results]
    assert scores == pytest.approx([red / 255 for red in reds], rel=1e-4)


def save_failing(path: Path) -> Path:
    """A model that fails on a bright image: it reads a number that is not there."""
    nodes = [
        *CHANNELS,
        helper.make_node("Mul", ["means", "ten"], ["tens"]),
        helper.make_node("Cast", ["tens"], ["whole"], to=TensorProto.INT64),
        helper.make_node("ReduceMax", ["whole"], ["at"], keepdims=0),
        helper.make_node("Gather", ["flat", "at"], ["number"]),
        helper.make_node("Cast", ["number"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["zeros", "float"], ["pred_boxes"]),
        helper.make_node("Identity", ["zeros"], ["logits"]),
    ]
    weights = [constant("zeros", np.zeros((1, 1, 4))), constant("ten", [10])]
    shapes = {"pred_boxes": (1, 1, 4), "logits": (1, 1, 4)}
    return save(path, nodes, shapes, weights=weights)


@pytest.mark.parametrize("bright", [0, 1, 2])
def test_an_image_on_which_the_model_fails_affects_no_other(tmp_path: Path, bright: int) -> None:
    detector = Detector(inspect_model(str(save_failing(tmp_path / "net.onnx"))), threads=2)
    images = [image_of(20, 20, 20)] * 3
    images[bright] = image_of(20, 255, 20)
    for at, result in enumerate(detector.detect(images)):
        if at == bright:
            assert isinstance(result, Exception)
            assert "Gather" in str(result)
        else:
            assert isinstance(result, RawDetections)


def assert_refused(path: Path, *messages: str, free_size: int | None = None) -> None:
    with pytest.raises(ModelError) as refused:
        inspect_model(str(path), free_size)
    text = str(refused.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    for message in messages:
        assert message in text, text


def classifier(path: Path) -> Path:
    return save(path, [*CHANNELS, helper.make_node("Relu", ["means"], ["p"])], {"p": (1, 1, 3)})


def custom(path: Path) -> Path:
    nodes = [helper.make_node("NMS", ["image"], ["p"], domain="TRT")]
    return save(path, nodes, {"p": (1, 1, 3)}, domains=["TRT"])


def unknown(path: Path) -> Path:
    return save(path, [helper.make_node("Unheard", ["image"], ["p"])], {"p": (1, 1, 3)})


def quantized(path: Path) -> Path:
    return save(
        path,
        [helper.make_node("Identity", ["image"], ["p"])],
        {"p": (1, 3, 32, 64)},
        dtype=TensorProto.UINT8,
        types={"p": TensorProto.UINT8},
    )


def two_images(path: Path) -> Path:
    second = helper.make_tensor_value_info("second", TensorProto.FLOAT, [1, 3, 32, 64])
    nodes = [*CHANNELS, helper.make_node("Relu", ["second"], ["p"])]
    return save(path, nodes, {"p": (1, 3, 32, 64)}, inputs=[second])


def cut(path: Path) -> Path:
    whole = save_yolox(path, {}).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def without_its_end(path: Path) -> Path:
    """A file that ends between two of its parts: the format does not show that any are missing."""
    save_logits_detector(path)
    model = onnx.load(str(path))
    del model.graph.initializer[:]
    path.write_bytes(model.SerializeToString())
    return path


def sequence(path: Path) -> Path:
    """A model whose output is a sequence of tensors."""
    model = onnx.load(str(save_logits_detector(path)))
    graph = helper.make_graph(
        [helper.make_node("SequenceConstruct", ["image"], ["boxes"])], "net", model.graph.input,
        [helper.make_tensor_sequence_value_info("boxes", TensorProto.FLOAT, None)],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))
    return path


@pytest.mark.parametrize(
    ("make", "messages"),
    [
        pytest.param(sequence, ("its output boxes is no tensor of numbers",), id="sequence"),
        pytest.param(
            classifier,
            ("no detector with a head that is known", "p [1, 1, 3]", "docs/models.md"),
            id="no head that is known",
        ),
        pytest.param(custom, ("has TRT.NMS", "without custom operators"), id="custom operators"),
        pytest.param(unknown, ("ONNX Runtime can't load it", "Unheard"), id="unknown operator"),
        pytest.param(quantized, ("must take one image, a tensor of floats",), id="bytes"),
        pytest.param(two_images, ("must take one image",), id="two images"),
        pytest.param(
            lambda path: save_logits_detector(path, channels=1, size=(8, 8)),
            ("the shape [1, 1, 8, 8]",),
            id="grey",
        ),
        pytest.param(
            lambda path: save_logits_detector(path, batch=4),
            ("takes 4 images at once; export it for one",),
            id="batch",
        ),
        pytest.param(cut, ("a damaged one",), id="cut"),
        pytest.param(without_its_end, ("ONNX Runtime can't load it",), id="weights are gone"),
    ],
)
def test_a_file_that_can_not_be_used_is_refused_in_one_line(
    tmp_path: Path, make: Callable[[Path], Path], messages: tuple[str, ...]
) -> None:
    assert_refused(make(tmp_path / "net.onnx"), *messages)


def test_a_size_that_the_model_can_not_take_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Reshape", ["image", "shape"], ["p"]),
    ]
    shape = constant("shape", [1, 64, 48, 1], np.int64)
    path = save(
        tmp_path / "net.onnx", nodes, {"p": (1, 64, 48, 1)}, size=("w", "h"), weights=[shape]
    )
    assert_refused(path, "it fails on an image of 50x50 pixels", free_size=50)


@pytest.mark.parametrize(("size", "asked"), [((8193, 32), None), (("w", "h"), 8193)])
def test_an_image_that_is_too_large_is_refused(
    tmp_path: Path, size: tuple[int | str, int | str], asked: int | None
) -> None:
    path = save_logits_detector(tmp_path / "net.onnx", size=size)
    assert_refused(path, "8193x", "at most 8192 by 8192 are possible", free_size=asked)


DAMAGE = """
import random, resource, sys
from pathlib import Path
from tests.transforms.onnx_models import save_boxes_detector, save_logits_detector, save_yolox
from transforms.models.model_files import ModelError
from transforms.models.onnx_runtime import open_onnx
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))  # A changed size may ask for any memory.
path, rng, opened = Path(sys.argv[1]), random.Random(int(sys.argv[2])), 0
for number in range(150):
    makers = save_boxes_detector, save_logits_detector, lambda path: save_yolox(path, {})
    data = bytearray(makers[number % 3](path).read_bytes())
    for _ in range(rng.randint(1, 3)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    path.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
    try:
        open_onnx(str(path), (64, 64))
        opened += 1
    except ModelError as error:
        assert len(str(error).splitlines()) == 1, error
print(opened)
"""


@pytest.mark.parametrize("seed", [0, 1])
def test_a_damaged_file_is_refused_in_one_line_or_runs(tmp_path: Path, seed: int) -> None:
    """In a process of its own, which a crash of ONNX Runtime would end."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DAMAGE, tmp_path / "net.onnx", str(seed)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout) < 150  # And ONNX Runtime writes nothing of its own.


def test_without_onnx_runtime_the_message_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    path = save_yolox(tmp_path / "net.onnx", {})
    assert_refused(path, "needs ONNX Runtime", "pip install '.[onnx]'")


@pytest.fixture(scope="module")
def photographs(shared_photos: Path) -> dict[str, Letterbox]:
    """The real photographs, decoded for the real model."""
    return {
        path.name: decode_letterboxed(read_header(path.read_bytes()), (416, 416))
        for path in sorted((shared_photos / "coco").glob("*.jpg"))
    }


def test_the_inputs_of_the_real_model(shared_models: Path) -> None:
    spec = inspect_model(str(shared_models / REAL))
    assert (spec.input_size, spec.classes, spec.keeps_aspect) == ((416, 416), 80, True)
    assert spec.labels == dict(enumerate(COCO.values(), 1))


def test_the_real_model_is_as_good_as_the_same_one_as_a_saved_model(
    shared_models: Path, shared_photos: Path, photographs: dict[str, Letterbox]
) -> None:
    results = {}
    for name in (REAL, SAVED_MODEL):
        spec = inspect_model(str(shared_models / name), 416)
        raw = Detector(spec).detect([image.pixels for image in photographs.values()])
        results[name] = average_precision(
            shared_photos / "coco.annotations.json",
            [
                {"file": file, "raw": each, "content": image.content}
                for (file, image), each in zip(photographs.items(), raw, strict=True)
            ],
            spec.labels or COCO,
        )
    assert results[REAL] > 0.26
    assert abs(results[REAL] - results[SAVED_MODEL]) < 0.01


def test_results_do_not_depend_on_the_batch_or_the_threads(
    shared_models: Path, photographs: dict[str, Letterbox]
) -> None:
    spec = inspect_model(str(shared_models / REAL))
    images = [image.pixels for image in photographs.values()][:9]
    detector = Detector(spec)
    alone = [detector.detect([image])[0] for image in images]
    for results in (
        detector.detect(images),
        detector.detect(images[::-1])[::-1],
        Detector(spec, threads=1).detect(images),
        Detector(spec, threads=4, call_size=8).detect(images),
    ):
        for expected, result in zip(alone, results, strict=True):
            assert len(expected.boxes) > 0
            for name in ("boxes", "scores", "classes"):
                assert getattr(expected, name).tobytes() == getattr(result, name).tobytes()
