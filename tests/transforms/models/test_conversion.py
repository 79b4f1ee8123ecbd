"""A converted model gives the same results as its SavedModel, or is not used."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.transforms.convolutional_models import save_convolutional_detector
from tests.transforms.small_models import POISON, save_detector
from transforms.images.jpeg import decode_letterboxed, read_header
from transforms.models.conversion import (
    LEAST_SCORE,
    TOLERANCE,
    Conversion,
    Request,
    check_images,
    convert_and_compare,
    difference,
)
from transforms.models.converted import open_converted
from transforms.models.detector import Detector, ModelSpec, Pixels, RawDetections, inspect_model
from transforms.models.model_files import ModelError
from transforms.models.partition import TFLITE_OPS

YOLOX = "yolox_nano_coco/saved_model"


def conversion_of(path: Path, *, quantized: bool = False) -> tuple[ModelSpec, Conversion]:
    spec = inspect_model(str(path), is_trusted=True)
    return spec, convert_and_compare(Request(spec, quantized))


def detect(detector: Detector, images: Sequence[Pixels]) -> list[RawDetections]:
    results = detector.detect(images)
    assert all(isinstance(result, RawDetections) for result in results), results
    return results  # type: ignore[return-value]


def assert_same(first: Sequence[RawDetections], second: Sequence[RawDetections]) -> None:
    """Asserts that the results are equal bit for bit."""
    assert len(first) == len(second)
    for first_result, second_result in zip(first, second, strict=True):
        np.testing.assert_array_equal(first_result.boxes, second_result.boxes)
        np.testing.assert_array_equal(first_result.scores, second_result.scores)
        np.testing.assert_array_equal(first_result.classes, second_result.classes)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelSpec, Conversion]:
    return conversion_of(save_convolutional_detector(tmp_path_factory.mktemp("small") / "model"))


@pytest.mark.parametrize(
    "made",
    [
        pytest.param({}, id="any batch"),
        pytest.param({"batch": 4}, id="four images"),
        pytest.param({"zoo": True, "batch": 1}, id="a loop, and sizes known only at run time"),
        pytest.param({"zoo": True, "batch": 1, "size": None}, id="the same, of any size"),
    ],
)
def test_a_converted_model_gives_the_same_results(tmp_path: Path, made: dict[str, object]) -> None:
    spec, conversion = conversion_of(save_convolutional_detector(tmp_path / "model", **made))  # type: ignore[arg-type]
    assert (conversion.problem, conversion.model is None) == (None, False)
    draw = np.random.default_rng(3)
    width, height = spec.input_size
    images = [draw.integers(0, 256, (height, width, 3), np.uint8) for _ in range(5)]
    before = detect(Detector(spec), images)
    after = detect(Detector(spec, converted=conversion.model), images)
    assert sum((result.scores >= LEAST_SCORE).sum() for result in before) > 20
    assert max(map(difference, before, after)) < 1e-5


def test_only_ops_that_tflite_supports_are_converted(tmp_path: Path) -> None:
    path = save_convolutional_detector(tmp_path / "model", zoo=True, batch=1)
    _, conversion = conversion_of(path)
    assert conversion.model is not None
    before, after = (
        {node.op for node in tf.compat.v1.GraphDef.FromString(part.graph).node}
        for part in (conversion.model.before, conversion.model.after)
    )
    assert any("While" in op for op in before)
    assert any("NonMaxSuppression" in op for op in after)
    assert "Conv2D" in TFLITE_OPS
    assert "Conv2D" not in before | after
    interpreter = tf.lite.Interpreter(model_content=conversion.model.middle)
    interpreter.allocate_tensors()
    ops = [op["op_name"] for op in interpreter._get_ops_details()]
    assert ops.count("CONV_2D") == 3
    assert "DELEGATE" in ops, "the fast kernels have not taken the graph"


@pytest.mark.parametrize("batch", [None, 4], ids=["any batch", "four images"])
def test_an_image_on_which_a_converted_model_fails_affects_no_other(
    tmp_path: Path, batch: int | None
) -> None:
    path = save_convolutional_detector(tmp_path / "model", batch=batch, poisoned=True)
    spec, conversion = conversion_of(path)
    assert conversion.model is not None, conversion.problem
    images = [np.full((48, 64, 3), shade, np.uint8) for shade in (40, POISON, 90, 120, 150)]
    results = Detector(spec, converted=conversion.model).detect(images)
    assert [isinstance(result, Exception) for result in results] == [
        False,
        True,
        False,
        False,
        False,
    ]
    assert "a poisoned image" in str(results[1])


def test_results_are_the_same_bit_for_bit_for_any_batch_size_and_number_of_threads(
    small: tuple[ModelSpec, Conversion],
) -> None:
    spec, conversion = small
    draw = np.random.default_rng(5)
    images = [draw.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(9)]
    alone = detect(Detector(spec, converted=conversion.model, threads=1), images)
    for threads, batch in itertools.product((1, 2, 5), (1, 4, 9)):
        detector = Detector(spec, converted=conversion.model, threads=threads)
        batches = [images[at : at + batch] for at in range(0, len(images), batch)]
        assert_same(
            list(itertools.chain.from_iterable(detect(detector, part) for part in batches)), alone
        )


def test_two_conversions_of_a_model_give_the_same_results_bit_for_bit(
    small: tuple[ModelSpec, Conversion],
) -> None:
    spec, first = small
    second = convert_and_compare(Request(spec, quantized=False))
    images = check_images(spec.input_size)
    first_results, second_results = (
        detect(Detector(spec, converted=conversion.model), images) for conversion in (first, second)
    )
    assert_same(first_results, second_results)


def test_a_model_that_gives_other_results_after_the_conversion_is_reported(tmp_path: Path) -> None:
    _, conversion = conversion_of(save_convolutional_detector(tmp_path / "model", chaotic=True))
    assert conversion.problem is not None
    assert "gives other results" in conversion.problem
    assert conversion.difference is not None
    assert conversion.difference > TOLERANCE


def test_a_model_that_detects_nothing_in_the_images_of_the_check_is_reported(
    tmp_path: Path,
) -> None:
    _, conversion = conversion_of(save_convolutional_detector(tmp_path / "model", bias=-20.0))
    assert conversion.problem is not None
    assert "detects nothing" in conversion.problem


def test_a_model_without_multiplications_is_not_converted(tmp_path: Path) -> None:
    _, conversion = conversion_of(save_detector(tmp_path / "model", size=(8, 8)))
    assert conversion.model is None
    assert conversion.problem == "TFLite supports only 0% of its multiplications"


def test_a_model_that_writes_files_is_not_converted_even_if_trusted(tmp_path: Path) -> None:
    path = save_convolutional_detector(tmp_path / "model", writes=tmp_path / "written")
    _, conversion = conversion_of(path)
    assert conversion.model is None
    assert conversion.problem == "it can do more than detect (PrintV2)"


def test_a_converted_model_with_an_op_that_reaches_files_is_refused(
    small: tuple[ModelSpec, Conversion],
) -> None:
    _, conversion = small
    assert conversion.model is not None
    graph = tf.compat.v1.GraphDef.FromString(conversion.model.after.graph)
    graph.node.add(name="reads", op="ReadFile")
    part = replace(conversion.model.after, graph=graph.SerializeToString())
    with pytest.raises(ModelError, match="more than detect: ReadFile"):
        open_converted(replace(conversion.model, after=part), name="m", threads=1)


def test_eight_bit_weights_differ_more_and_take_less_space(
    small: tuple[ModelSpec, Conversion],
) -> None:
    spec, exact = small
    rough = convert_and_compare(Request(spec, quantized=True))
    assert rough.model is not None
    assert exact.model is not None
    assert rough.difference is not None
    assert exact.difference is not None
    assert rough.difference > 10 * exact.difference
    assert len(rough.model.middle) < 0.6 * len(exact.model.middle)


BOX, OTHER_BOX = [0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.5, 0.52]


def raw(*rows: tuple[list[float], float, float]) -> RawDetections:
    boxes, scores, classes = ([row[at] for row in rows] for at in range(3))
    return RawDetections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(classes, np.float32),
    )


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        pytest.param([], [], 0, id="nothing"),
        pytest.param([(BOX, 0.9, 1)], [(BOX, 0.9, 1)], 0, id="the same"),
        pytest.param([(BOX, 0.9, 1)], [(BOX, 0.8, 1)], 0.1, id="another score"),
        pytest.param([(BOX, 0.9, 1)], [(OTHER_BOX, 0.9, 1)], 0.02, id="another box"),
        pytest.param([(BOX, 0.9, 1)], [(BOX, 0.9, 2)], 0.9, id="another class"),
        pytest.param([(BOX, 0.9, 1)], [], 0.9, id="missing"),
        pytest.param([], [(BOX, 0.3, 1)], 0.3, id="one more"),
        pytest.param([(BOX, 0.04, 1)], [], 0, id="score too low to be compared"),
        pytest.param([(BOX, 0.9, 1)], [(BOX, float("nan"), 1)], 0.9, id="not a number"),
        pytest.param(
            [(BOX, 0.9, 1), (OTHER_BOX, 0.8, 1)],
            [(OTHER_BOX, 0.8, 1), (BOX, 0.9, 1)],
            0,
            id="another order",
        ),
    ],
)
def test_difference_between_two_results(
    first: list[tuple[list[float], float, float]],
    second: list[tuple[list[float], float, float]],
    expected: float,
) -> None:
    assert difference(raw(*first), raw(*second)) == pytest.approx(expected, abs=1e-6)


def test_a_real_detector_gives_the_same_results_on_real_photographs(
    shared_models: Path, shared_photos: Path
) -> None:
    spec = inspect_model(str(shared_models / YOLOX), 416)
    conversion = convert_and_compare(Request(spec, quantized=False))
    assert conversion.problem is None
    photos = sorted((shared_photos / "coco").glob("*.jpg"))[:24]
    images = [
        decode_letterboxed(read_header(path.read_bytes()), spec.input_size).pixels
        for path in photos
    ]
    before = detect(Detector(spec), images)
    after = detect(Detector(spec, converted=conversion.model), images)
    assert sum((result.scores >= LEAST_SCORE).sum() for result in before) > 100
    assert max(map(difference, before, after)) < TOLERANCE / 10
