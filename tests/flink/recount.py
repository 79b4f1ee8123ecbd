"""Counts the images of each camera and window by file names alone, with none of the job's code."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

Windows = dict[tuple[str, int], int]
"""Images by camera and first second of a window, in Unix time."""


def by_names(names: Iterable[str], window_seconds: int) -> Windows:
    """What pictures named `<id>_<Unix time in milliseconds>.jpg` add up to."""
    counts: Counter[tuple[str, int]] = Counter()
    for name in set(names):
        found = re.fullmatch(r"(.+)_(\d{13})\.jpg", name)
        assert found, name
        counts[found[1], int(found[2]) // 1000 // window_seconds * window_seconds] += 1
    return dict(counts)


def by_count_files(output: Path) -> Windows:
    """What the job has written in `counts/`."""
    counts: Windows = {}
    for path in (output / "counts").glob("*.jsonl"):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            counts[row["id"], _unix(row["window_start"])] = row["images"]
    return counts


def by_late_files(output: Path) -> Windows:
    """What the job has written in `late/`."""
    counts: Counter[tuple[str, int]] = Counter()
    for path in (output / "late").glob("*/*.json"):
        row = json.loads(path.read_text())
        counts[row["id"], _unix(row["window_start"])] += row["images"]
    return dict(counts)


def _unix(text: str) -> int:
    import calendar
    import time

    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))
