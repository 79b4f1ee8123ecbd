"""Draws the output of a job with few cameras, some of which are not well."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

from transforms.records.times import canonical_time
from transforms.storage import stores

END = datetime(2026, 2, 10, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
NOTHING = {"threat_images": 0, "threats": 0, "alerts": 0, "by_label": {}}


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(stores.json_bytes(value))


def write_counts(output: Path, silent: int, days: int = 9) -> None:
    """Two cameras that send six images an hour, of which the yard has stopped."""
    for back in range(24 * days, 0, -1):
        start = END - back * HOUR
        window = {
            "window_start": canonical_time(start),
            "window_end": canonical_time(start + HOUR),
        }
        ids = ("hall", "yard") if back > silent else ("hall",)
        file = output / "counts" / f"{start:%Y%m%dT%H%M%SZ}_{start + HOUR:%Y%m%dT%H%M%SZ}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = [{"id": id, **window, **NOTHING, "images": 6} for id in ids]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_picture(
    output: Path, capture_time: datetime, has_detections: bool, sharpness: float
) -> None:
    stem = f"hall_{capture_time:%Y%m%dT%H%M%SZ}"
    detection = {"category": "1", "label": "person", "conf": 0.9, "bbox": [0.1, 0.1, 0.2, 0.2]}
    data = {
        "format_version": "1.0",
        "id": "hall",
        "timestamp": canonical_time(capture_time),
        "file": f"{stem}.jpg",
        "uri": "",
        "sha256": "",
        "width": 640,
        "height": 480,
        "brightness": 0.4,
        "sharpness": sharpness,
        "model": {"name": "detector", "version": "1"},
        "detections": [detection] if has_detections else [],
    }
    write(output / "detections" / "hall" / f"{stem}.json", data)
