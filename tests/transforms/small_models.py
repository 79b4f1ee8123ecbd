"""Detectors that a test makes: SavedModels of a few lines, and TFLite models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOUND = ([0.1, 0.2, 0.5, 0.6], 0.9, 1.0)
"""What the detectors find in every picture: box, score and class."""

POISON = 13
"""A picture whose first pixel has this red value makes a `poisoned` detector fail."""


def save_detector(
    path: Path,
    *,
    batch: int | None = None,
    size: tuple[int, int] | None = None,
    num_detections: bool = True,
    raw_classes: int | None = None,
    outputs: Sequence[str] = ("detection_boxes", "detection_scores", "detection_classes"),
    dtype: str = "uint8",
    channels: int = 3,
    poisoned: bool = False,
    tells_size: bool = False,
    writes: Path | None = None,
    signature: str = "serving_default",
) -> Path:
    """A SavedModel that finds :data:`FOUND` and, as a second object, the picture's mean colour.

    Args:
      path: Where to save it.
      batch: Pictures a call; None for any number.
      size: Width and height of its input; None for any.
      num_detections: Whether it says how many rows count; there are three, of which two do.
      raw_classes: Classes of its `raw_detection_scores`, with background; None without.
      outputs: The outputs of its signature besides these.
      dtype: Of its input.
      channels: Of its input.
      poisoned: Whether it fails on a batch that holds a picture of :data:`POISON`.
      writes: A file to which it adds a line at each call; None: it reaches no file.
      tells_size: Whether the second object's score is the input's width in thousands of pixels, in
        place of the mean colour.
      signature: The name of its signature.
    """
    import tensorflow as tf

    width, height = size or (None, None)
    spec = tf.TensorSpec([batch, height, width, channels], dtype, name="input_tensor")

    class Finder(tf.Module):
        @tf.function(input_signature=[spec])
        def __call__(self, input_tensor: Any) -> dict[str, Any]:
            if poisoned:
                first = input_tensor[:, 0, 0, 0]
                tf.debugging.Assert(tf.reduce_all(first != POISON), ["a poisoned image"])
            number = tf.shape(input_tensor)[0]
            box, score, category = FOUND
            mean = tf.reduce_mean(tf.cast(input_tensor, tf.float32), [1, 2, 3]) / 255
            if writes is not None:
                tf.print("looked", output_stream=f"file://{writes}")
            if tells_size:
                mean = tf.fill([number], tf.cast(tf.shape(input_tensor)[2], tf.float32) / 1000)

            def rows(*values: Any) -> Any:
                return tf.stack([tf.broadcast_to(value, [number]) for value in values], 1)

            result = {
                "detection_boxes": tf.tile(
                    tf.constant([[box, [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]]),
                    [number, 1, 1],
                ),
                "detection_scores": rows(score, mean, 0.0),
                "detection_classes": rows(category, 3.0, 1.0),
            }
            result = {name: result.get(name, mean) for name in outputs}
            if num_detections:
                result["num_detections"] = tf.fill([number], 2.0)
            if raw_classes is not None:
                result["raw_detection_scores"] = tf.zeros([number, 5, raw_classes])
            return result

    finder = Finder()
    tf.saved_model.save(finder, str(path), signatures={signature: finder.__call__})
    return path


def save_tflite_classifier(path: Path) -> Path:
    """A `.tflite` file that is no detector."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([1, 8, 8, 3], tf.float32)])
    def classify(picture: Any) -> Any:
        return tf.nn.softmax(tf.reduce_mean(picture, [1, 2]))

    converter = tf.lite.TFLiteConverter.from_concrete_functions([classify.get_concrete_function()])
    path.write_bytes(converter.convert())
    return path
