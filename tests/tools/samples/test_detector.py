"""The bundled detector: its signature, its size, and how well it finds what is drawn."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from beam_pipeline import bundled
from tools.samples import train_detector as td

DETECTOR = bundled.BUNDLED_MODEL
JUDGED_SEED = 2_000_000
"""Far from every seed that training, calibration and the script's own report draw with."""


@pytest.fixture(scope="module")
def signature() -> Any:
    loaded = tf.saved_model.load(str(DETECTOR))
    function = loaded.signatures["serving_default"]
    function.keep = loaded
    return function


@pytest.fixture(scope="module")
def samples() -> td.Examples:
    truth = json.loads((bundled.BUNDLED_RULES.with_name("truth.json")).read_text())
    images, boxes, classes = [], [], []
    for entry in truth["images"]:
        images.append(td.letterbox((bundled.BUNDLED_SAMPLES / entry["file"]).read_bytes()))
        scale = td.SIZE / max(entry["width"], entry["height"])
        size = np.array([entry["width"], entry["height"]] * 2, np.float32) * scale
        found = [(x, y, x + w, y + h) for x, y, w, h in (o["bbox"] for o in entry["objects"])]
        boxes.append(np.array(found, np.float32).reshape(-1, 4) * size)
        labels = [td.LABELS.index(o["label"]) for o in entry["objects"]]
        classes.append(np.array(labels, np.int64))
    return td.Examples(np.stack(images), tuple(boxes), tuple(classes))


def test_signature_is_that_of_the_object_detection_api(signature: Any) -> None:
    spec = signature.structured_input_signature[1]["input_tensor"]
    assert spec.dtype == tf.uint8
    assert spec.shape.as_list() == [None, 320, 320, 3]
    assert {name: out.dtype for name, out in signature.structured_outputs.items()} == {
        "detection_boxes": tf.float32,
        "detection_scores": tf.float32,
        "detection_classes": tf.float32,
        "num_detections": tf.float32,
    }


@pytest.mark.parametrize("batch", [1, 3])
def test_rows_are_sorted_and_zero_after_the_last_detection(
    signature: Any, samples: td.Examples, batch: int
) -> None:
    out = signature(input_tensor=tf.constant(samples.images[31 : 31 + batch]))
    for boxes, scores, classes, number in zip(
        out["detection_boxes"].numpy(),
        out["detection_scores"].numpy(),
        out["detection_classes"].numpy(),
        out["num_detections"].numpy().astype(int),
        strict=True,
    ):
        assert 0 < number <= len(scores)
        assert (np.diff(scores) <= 0).all()
        assert scores[number - 1] >= td.MIN_SCORE
        assert set(classes[:number]) <= {1.0, 2.0, 3.0, 18.0}
        assert boxes.min() >= 0.0
        assert boxes.max() <= 1.0
        assert not boxes[number:].any()
        assert not scores[number:].any()
        assert not classes[number:].any()


def test_a_picture_gives_the_same_alone_and_in_a_batch(
    signature: Any, samples: td.Examples
) -> None:
    together = td.detect(signature, samples.images[60:68])
    alone = td.detect(signature, samples.images[60:68], batch=1)
    for first, second in zip(together, alone, strict=True):
        sure = int((first.scores > 0.1).sum())
        np.testing.assert_allclose(first.scores[:sure], second.scores[:sure], atol=1e-4)
        np.testing.assert_allclose(first.boxes[:sure], second.boxes[:sure], atol=0.05)


def test_files_are_small() -> None:
    assert sum(path.stat().st_size for path in DETECTOR.rglob("*") if path.is_file()) < 5_000_000


def test_it_finds_what_is_drawn_from_other_seeds(signature: Any) -> None:
    examples = td.draw_examples(JUDGED_SEED, 240, processes=1)
    judged = td.curves(td.detect(signature, examples.images), examples)
    precisions = [curve.average_precision() for curve in judged.values()]
    assert np.mean(precisions) >= 0.90
    assert min(precisions) >= 0.80


def test_half_is_the_right_threshold_on_the_samples(signature: Any, samples: td.Examples) -> None:
    judged = td.curves(td.detect(signature, samples.images), samples)
    kept = [curve.right[curve.scores >= 0.5] for curve in judged.values()]
    right = sum(int(hits.sum()) for hits in kept)
    assert right / sum(len(hits) for hits in kept) >= 0.93
    assert right / sum(curve.truths for curve in judged.values()) >= 0.90


def test_average_precision_of_a_known_curve() -> None:
    """Hits, then a miss, then a hit, of four truths: recall 0.75 is reached, with 1, 1, 3/4."""
    curve = td.Curve(
        np.array([0.9, 0.8, 0.7, 0.6], np.float32), np.array([True, True, False, True]), 4
    )
    expected = (51 * 1.0 + 25 * 0.75) / 101
    assert curve.average_precision() == pytest.approx(expected)
    assert curve.at(0.65) == pytest.approx((2 / 3, 0.5))
