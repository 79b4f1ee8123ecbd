"""Detectors with convolutions and random weights: they find something in every image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tests.transforms.small_models import POISON

_SIDE = 64
_SHAPES = ((3, 3, 3, 32), (3, 3, 32, 64), (1, 1, 64, 6))
_KINDS, _MOST = 2, 20


def save_convolutional_detector(
    path: Path,
    *,
    size: tuple[int, int] | None = (64, 48),
    batch: int | None = None,
    zoo: bool = False,
    poisoned: bool = False,
    chaotic: bool = False,
    bias: float = 0.0,
    writes: Path | None = None,
) -> Path:
    """Saves a SavedModel with convolutions.

    Args:
      path: Where to save it.
      size: Width and height of its input; None for any.
      batch: Images per call; None for any number.
      zoo: Whether it works like the models of the TF Object Detection API: it scales each image in
        a loop, and suppresses overlapping boxes class by class, so that sizes are known only at run
        time. Its batch must be 1.
      poisoned: See `small_models.save_detector`.
      chaotic: Whether each score is amplified until it depends on the rounding of the last bits.
      bias: Added before the scores; with a large negative value it finds nothing.
      writes: See `small_models.save_detector`.
    """
    draw = np.random.default_rng(7)
    module = tf.Module()
    module.weights = [
        tf.Variable(draw.normal(0, np.prod(shape[:3]) ** -0.5, shape), dtype=tf.float32)
        for shape in _SHAPES
    ]
    width, height = size or (None, None)

    @tf.function(
        input_signature=[tf.TensorSpec([batch, height, width, 3], "uint8", name="input_tensor")]
    )
    def detect(input_tensor: Any) -> dict[str, Any]:
        if poisoned:
            is_well = tf.reduce_all(input_tensor[:, 0, 0, 0] != POISON)
            tf.debugging.Assert(is_well, ["a poisoned image"])
        if writes is not None:
            tf.print("looked", output_stream=f"file://{writes}")
        scaled = _scaled_in_a_loop(input_tensor) if zoo else _scaled(input_tensor)
        boxes, scores = _boxes_and_scores(scaled, module.weights, bias)
        if chaotic:
            for _ in range(80):
                scores = 3.99 * scores * (1.0 - scores)
        return _by_class(boxes, scores) if zoo else _at_once(boxes, scores)

    tf.saved_model.save(module, str(path), signatures={"serving_default": detect})
    return path


def _scaled(images: Any) -> Any:
    return tf.image.resize(tf.cast(images, tf.float32), [_SIDE, _SIDE]) / 127.5 - 1.0


def _scaled_in_a_loop(images: Any) -> Any:
    spec = tf.TensorSpec([_SIDE, _SIDE, 3], tf.float32)
    return tf.map_fn(_scaled, images, fn_output_signature=spec)


def _boxes_and_scores(scaled: Any, weights: list[Any], bias: float) -> tuple[Any, Any]:
    """Returns boxes [n, 64, 4] and scores [n, 64, 2], one for each cell of the image."""
    for kernel in weights[:2]:
        scaled = tf.nn.relu6(tf.nn.conv2d(scaled, kernel, 2, "SAME"))
    cells = tf.reshape(tf.nn.conv2d(scaled, weights[2], 2, "SAME"), [-1, 64, 6])
    at = tf.range(64, dtype=tf.float32)
    corner = tf.stack([at // 8, at % 8], 1) / 10
    first = corner + 0.1 * tf.sigmoid(cells[..., :2])
    second = corner + 0.2 + 0.1 * tf.sigmoid(cells[..., 2:4])
    return tf.concat([first, second], -1), tf.sigmoid(cells[..., 4:] + bias)


def _at_once(boxes: Any, scores: Any) -> dict[str, Any]:
    found = tf.image.combined_non_max_suppression(
        boxes[:, :, None], scores, 10, _MOST, score_threshold=0.01
    )
    return {
        "detection_boxes": found[0],
        "detection_scores": found[1],
        "detection_classes": found[2] + 1.0,
        "num_detections": tf.cast(found[3], tf.float32),
    }


def _by_class(boxes: Any, scores: Any) -> dict[str, Any]:
    kept = [
        tf.image.non_max_suppression(boxes[0], scores[0, :, kind], 10, 0.5, 0.01)
        for kind in range(_KINDS)
    ]
    rows = tf.concat(kept, 0)
    kinds = tf.concat([tf.fill(tf.shape(rows), kind) for kind, rows in enumerate(kept)], 0)
    certain = tf.gather_nd(scores[0], tf.stack([rows, kinds], 1))
    order = tf.argsort(certain, direction="DESCENDING")

    def padded(values: Any) -> Any:
        values = tf.cast(tf.gather(values, order), tf.float32)
        rest = [[0, _MOST - tf.shape(values)[0]], *[[0, 0]] * (values.shape.rank - 1)]
        return tf.pad(values, rest)[None]

    return {
        "detection_boxes": padded(tf.gather(boxes[0], rows)),
        "detection_scores": padded(certain),
        "detection_classes": padded(kinds + 1),
        "num_detections": tf.cast(tf.shape(rows)[:1], tf.float32),
    }
