"""Images to measure with, under names that the job takes."""

from __future__ import annotations

import io
import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path

from PIL import Image

_START = datetime(2026, 1, 31, tzinfo=timezone.utc)
_CAMERAS = 8


def _name(number: int) -> str:
    capture_time = _START + timedelta(seconds=5 * number)
    return f"camera-{number % _CAMERAS}_{capture_time:%Y%m%dT%H%M%SZ}.jpg"


def copies_of_photographs(photos: Path, target: Path, images: int) -> None:
    """Photographs of a directory, repeated under other names until there are so many."""
    target.mkdir(parents=True)
    sources = sorted(photos.glob("*.jpg"))
    for number in range(images):
        shutil.copyfile(sources[number % len(sources)], target / _name(number))


def small_pictures(target: Path, images: int) -> None:
    """Plain images of 320x240 pixels, each with other bytes."""
    target.mkdir(parents=True)
    for number in range(images):
        colour = (number % 256, number // 256 % 256, 90)
        file = io.BytesIO()
        Image.new("RGB", (320, 240), colour).save(file, "JPEG")
        (target / _name(number)).write_bytes(file.getvalue())
