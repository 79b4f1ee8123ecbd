"""Small archives, as a job writes them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import rules
from tests.transforms.results import BOX, MODEL
from transforms.judge_threats import judge_in_order
from transforms.records.images import DetectedImage, JudgedImage
from transforms.storage import stores

OLD = """\
version: 1
defaults:
  objects:
    person: {min_score: 0.5}
    car: {min_score: 0.5}
  cooldown: 0s
"""


def seen(
    camera: str,
    timestamp: str,
    *detections: tuple[str, float],
    file: str | None = None,
    uri: str | None = None,
    sha256: str = "5" * 64,
    bbox: tuple[float, float, float, float] = BOX,
) -> DetectedImage:
    """A picture in which objects were seen, by label and score."""
    name = file or f"{camera}_{timestamp.replace(':', '-')}.jpg"
    categories = {"person": "1", "car": "3"}
    return DetectedImage(
        id=camera,
        timestamp=timestamp,
        file=name,
        uri=uri or f"/in/{name}",
        sha256=sha256,
        width=640,
        height=480,
        model=MODEL,
        detections=tuple(
            rules.Detection(categories.get(label, "9"), label, conf, bbox)
            for label, conf in detections
        ),
        brightness=0.25,
        sharpness=0.0312,
    )


def write_output(
    output: Path | str, images: Iterable[DetectedImage], by: str = OLD
) -> list[JudgedImage]:
    """Writes `detections/` and `final/` as the job does, by rules; what was judged, by camera and
    time."""
    parsed = rules.parse_rules(by, "rules.yaml")
    cameras: dict[str, list[DetectedImage]] = {}
    for image in images:
        cameras.setdefault(image.id, []).append(image)
    judged = [
        image for camera in sorted(cameras) for image in judge_in_order(cameras[camera], parsed)
    ]
    for image in judged:
        location = str(output), image.image.id, image.image.stem
        stores.write_bytes(
            stores.detections_uri(*location), stores.json_bytes(image.image.to_json())
        )
        stores.write_bytes(stores.final_uri(*location), stores.json_bytes(image.to_json()))
    return judged
