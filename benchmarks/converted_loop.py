"""The second yardstick: a plain loop of two threads around the converted model, nothing written.

Each thread reads and decodes an image and runs the whole model, converted by TensorFlow's own
converter, in an interpreter of one thread. `python -m benchmarks.converted_loop PICTURES MODEL`
prints images a second, start-up taken out, and the processor time of an image.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bare_loop import SIDE, decode
from benchmarks.processor_time import ProcessorTime

THREADS = 2


def convert(model: str) -> bytes:
    """Returns the model as TFLite, for one image of 416x416; suppression of boxes is in it."""
    import tensorflow as tf

    loaded = tf.saved_model.load(model)
    signature = loaded.signatures["serving_default"]
    spec = tf.TensorSpec([1, SIDE, SIDE, 3], tf.uint8)
    detect = tf.function(lambda image: signature(input_tensor=image), input_signature=[spec])
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [detect.get_concrete_function()], loaded
    )
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.TFLITE_BUILTINS,
        tf.lite.OpsSet.SELECT_TF_OPS,
    ]
    return bytes(converter.convert())


def main() -> None:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf

    files, content = sorted(Path(sys.argv[1]).glob("*.jpg")), convert(sys.argv[2])
    kept = threading.local()

    def run(path: Path) -> None:
        pixels = np.expand_dims(decode(path), 0)
        if not hasattr(kept, "interpreter"):
            kept.interpreter = tf.lite.Interpreter(model_content=content, num_threads=1)
            kept.interpreter.allocate_tensors()
        for _ in detections(kept.interpreter, pixels):
            pass

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(run, files[: 4 * THREADS]))
        processor = ProcessorTime()
        started = time.monotonic()
        list(pool.map(run, files))
        speed = len(files) / (time.monotonic() - started)
        print(json.dumps({"images_per_second": speed, "ms_of_cpu": processor.ms_per(len(files))}))


def detections(interpreter: Any, pixels: Any) -> Iterator[Any]:
    """The outputs of the model for one image, uint8 [1, 416, 416, 3]."""
    (taken,) = interpreter.get_input_details()
    interpreter.set_tensor(taken["index"], pixels)
    interpreter.invoke()
    for output in interpreter.get_output_details():
        yield interpreter.get_tensor(output["index"])


if __name__ == "__main__":
    main()
