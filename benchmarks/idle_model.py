"""A detector that sees nothing and costs nothing, to measure what is around it.

`python -m benchmarks.idle_model DIRECTORY` saves it there.
"""

from __future__ import annotations

import sys

from transforms.models.tensorflow_runtime import load_tensorflow


def main() -> None:
    tf = load_tensorflow()

    class Idle(tf.Module):
        @tf.function(
            input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="input_tensor")]
        )
        def __call__(self, input_tensor: object) -> dict[str, object]:
            batch = tf.shape(input_tensor)[0]
            return {
                "detection_boxes": tf.zeros([batch, 1, 4]),
                "detection_scores": tf.zeros([batch, 1]),
                "detection_classes": tf.ones([batch, 1]),
                "num_detections": tf.zeros([batch]),
            }

    model = Idle()
    tf.saved_model.save(model, sys.argv[1], signatures=model.__call__.get_concrete_function())
    print("{}")


if __name__ == "__main__":
    main()
