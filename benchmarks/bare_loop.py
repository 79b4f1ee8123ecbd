"""The yardstick: a plain loop that reads, decodes at scale and detects in batches of 8.

`python -m benchmarks.bare_loop PICTURES MODEL` prints images a second, start-up taken out, and the
processor time of an image.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.processor_time import ProcessorTime

BATCH = 8
SIDE = 416


def decode(path: Path) -> np.ndarray:
    """One image, decoded at the scale that fits a square of the model's size, letterboxed."""
    image = Image.open(path)
    scale = min(SIDE / image.width, SIDE / image.height)
    size = round(image.width * scale), round(image.height * scale)
    image.draft("RGB", size)
    pixels = np.full((SIDE, SIDE, 3), 114, np.uint8)
    pixels[: size[1], : size[0]] = np.asarray(
        image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
    )
    return pixels


def main() -> None:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf

    files, model = sorted(Path(sys.argv[1]).glob("*.jpg")), sys.argv[2]
    loaded = tf.saved_model.load(model)
    detect = loaded.signatures["serving_default"]

    def run(paths: list[Path]) -> None:
        batch = np.stack([decode(path) for path in paths])
        outputs = detect(input_tensor=tf.constant(batch))
        for value in outputs.values():
            value.numpy()

    run(files[:BATCH])
    processor = ProcessorTime()
    started = time.monotonic()
    for at in range(0, len(files), BATCH):
        run(files[at : at + BATCH])
    speed = len(files) / (time.monotonic() - started)
    print(json.dumps({"images_per_second": speed, "ms_of_cpu": processor.ms_per(len(files))}))


if __name__ == "__main__":
    main()
