"""Counts and alerts of a job, whose files have dates that a test sets."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from beam_pipeline.fleet.output_scan import OutputScan
from transforms.records.times import canonical_time

START = datetime(2026, 2, 10, tzinfo=timezone.utc)
WINDOW = timedelta(minutes=5)


class DatedOutput:
    """Counts and alerts of a job, whose files have dates that a test sets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._now = time.time()

    def _write(self, path: Path, text: str, seconds_ago: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (self._now - seconds_ago, self._now - seconds_ago))

    def count(self, window: int, images: int, seconds_ago: float) -> None:
        start = START + window * WINDOW
        row: dict[str, Any] = {"id": "hall", "window_start": canonical_time(start)}
        row |= {"window_end": canonical_time(start + WINDOW), "images": images}
        row |= {"threat_images": 0, "threats": 0, "alerts": 0, "by_label": {}}
        name = f"{start:%Y%m%dT%H%M%SZ}_{start + WINDOW:%Y%m%dT%H%M%SZ}.jsonl"
        self._write(self.folder / "counts" / name, json.dumps(row) + "\n", seconds_ago)

    def alert(self, number: int, text: str, seconds_ago: float) -> None:
        self._write(self.folder / "alerts" / "hall" / f"{number}.json", text, seconds_ago)

    def forget(self, number: int) -> None:
        (self.folder / "alerts" / "hall" / f"{number}.json").unlink(missing_ok=True)

    def shown(self, scan: OutputScan) -> tuple[list[int], dict[str, str]]:
        """What a scan says: the images of each window, and the texts of the alerts."""
        names = [name for _, name in scan.files(str(self.folder), "alerts")]
        uris = [str(self.folder / "alerts" / "hall" / name) for name in names]
        texts = dict(zip(names, map(str, scan.read(uris)), strict=True))
        return [row.images for row in scan.counts()], texts
