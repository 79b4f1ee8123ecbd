"""The job as a user runs it: in a process of its own."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image


def tree(output: Path, *, without: Sequence[str] = ()) -> dict[str, bytes]:
    """Every file beneath a directory, by its path."""
    files = {
        path.relative_to(output).as_posix(): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file()
    }
    return {name: data for name, data in files.items() if name.split("/")[0] not in without}


def read_json(path: Path) -> Any:
    """One JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def jpeg(
    colour: tuple[int, int, int] = (90, 120, 150), size: tuple[int, int] = (320, 240)
) -> bytes:
    """A plain picture."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "JPEG")
    return file.getvalue()
