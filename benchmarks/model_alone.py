"""A model on photographs that are decoded already: its speed, and its average precision.

`python -m benchmarks.model_alone PHOTOGRAPHS MODEL RUNTIME THREADS [ANNOTATIONS]` prints images a
second with so many calls at once and, with COCO annotations, COCO's average precision.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transforms.detect_objects import to_detections
from transforms.images.jpeg import decode_letterboxed, read_header
from transforms.models.detector import Detector, RawDetections, inspect_model
from transforms.models.labels import COCO
from transforms.models.model_files import fetch_model
from transforms.models.runtimes import runtime_of

SIDE = 416
_SECONDS = 15


def main() -> None:
    photographs, path, asked, threads, *annotations = sys.argv[1:]
    files = fetch_model(path)
    spec = inspect_model(files.path, SIDE)
    _, converted = runtime_of(spec, files.info.version, asked)
    detector = Detector(spec, converted=converted, threads=int(threads))
    names = sorted(Path(photographs).glob("*.jpg"))
    images = [
        decode_letterboxed(read_header(path.read_bytes()), spec.input_size, spec.keeps_aspect)
        for path in names
    ]
    pixels = [image.pixels for image in images]
    results = detector.detect(pixels)
    result: dict[str, Any] = {}
    if annotations:
        found = [
            {"file": name.name, "raw": raw, "content": image.content}
            for name, raw, image in zip(names, results, images, strict=True)
        ]
        result["average_precision"] = average_precision(
            Path(annotations[0]), found, spec.labels or COCO
        )
    done, started = 0, time.monotonic()
    while (seconds := time.monotonic() - started) < _SECONDS:
        detector.detect(pixels)
        done += len(pixels)
    print(json.dumps({**result, "images_per_second": done / seconds}))


def average_precision(
    annotations: Path, found: list[dict[str, Any]], labels: Mapping[int, str] = COCO
) -> float:
    """COCO's AP, over overlaps of 0.5 to 0.95, of what was found in some of its photographs.

    Args:
      annotations: The truth.
      found: For each photograph its `file`, the `raw` result and the `content` of its letterbox.
      labels: The names of the model's classes by number.
    """
    from pycocotools.coco import COCO as Truth
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = Truth(str(annotations))
        numbers = {category["name"]: category["id"] for category in truth.dataset["categories"]}
        sizes = {image["file_name"].rsplit("/", 1)[-1]: image for image in truth.dataset["images"]}
        rows = []
        for result in found:
            assert isinstance(result["raw"], RawDetections)
            image = sizes[result["file"]]
            across, down = image["width"], image["height"]
            for seen in to_detections(
                result["raw"], content=result["content"], labels=labels, min_score_kept=0.01
            ):
                x, y, width, height = seen.bbox
                rows.append(
                    {
                        "image_id": image["id"],
                        "category_id": numbers[seen.label],
                        "bbox": [x * across, y * down, width * across, height * down],
                        "score": seen.conf,
                    }
                )
        evaluation = COCOeval(truth, truth.loadRes(rows), "bbox")
        evaluation.params.imgIds = [sizes[result["file"]]["id"] for result in found]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


if __name__ == "__main__":
    main()
