"""State, memory and progress over time, and whether they are flat."""

from __future__ import annotations

import json
import os
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_PAGE = os.sysconf("SC_PAGE_SIZE")
_WARM_SECONDS = 120.0
"""A process that is younger still loads and fills its caches."""


def resident(pid: int) -> int:
    """Returns bytes of memory that a process holds; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


class Sampler(threading.Thread):
    """Writes a sample every few seconds, a JSON object a line.

    Args:
      log: The log.
      look: Gives a sample.
      every: Seconds between two.
    """

    def __init__(self, log: Path, look: Callable[[], Mapping[str, Any]], every: float) -> None:
        super().__init__(daemon=True, name="sampler")
        self.samples: list[dict[str, Any]] = []
        self.ended = threading.Event()
        self._log, self._look, self._every = log, look, every

    def run(self) -> None:
        with self._log.open("a") as log:
            while not self.ended.wait(self._every):
                try:
                    sample = {"at": round(time.time(), 1), **self._look()}
                except (OSError, ValueError, KeyError):  # The cluster is busy with dying.
                    continue
                self.samples.append(sample)
                log.write(json.dumps(sample) + "\n")
                log.flush()


def slope(points: Sequence[tuple[float, float]]) -> float | None:
    """By how much a value grows in an hour, by least squares; None for too few points.

    Args:
      points: Seconds and value.
    """
    if len(points) < 5 or points[-1][0] - points[0][0] < _WARM_SECONDS:
        return None
    return statistics.linear_regression(*zip(*points, strict=True)).slope * 3600


def series(samples: Sequence[Mapping[str, Any]], name: str) -> dict[str, list[tuple[float, float]]]:
    """Returns seconds and value of each process, by its number, from when it was warm."""
    points_by_name: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for sample in samples:
        for pid, value in sample.get(name, {}).items():
            points_by_name[pid].append((sample["at"], value))
    return {
        pid: [point for point in points if point[0] >= points[0][0] + _WARM_SECONDS]
        for pid, points in points_by_name.items()
    }


def quarters(points: Sequence[tuple[float, float]]) -> list[float]:
    """Returns the medians of a series' four quarters; none for a short series."""
    if len(points) < 20:
        return []
    step = len(points) / 4
    return [
        statistics.median(value for _, value in points[int(step * at) : int(step * (at + 1))])
        for at in range(4)
    ]


def table(samples: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns what was measured, as lines of a Markdown table."""
    state = [(sample["at"], sample["state"]) for sample in samples if sample.get("state")]
    lines = ["| | first quarter | last quarter | slope in an hour |", "|---|---|---|---|"]
    rows: list[tuple[str, list[tuple[float, float]], float, str]] = [
        ("checkpoint", state, 1024, "KiB")
    ]
    for name in ("workers", "taskmanagers", "jobmanager"):
        for pid, points in series(samples, name).items():
            rows.append((f"memory of {name.rstrip('s')} {pid}", points, 1 << 20, "MiB"))
    for name, points, unit, word in rows:
        parts, rise = quarters(points), slope(points)
        if parts and rise is not None:
            first, last = (f"{part / unit:.0f} {word}" for part in (parts[0], parts[3]))
            lines.append(f"| {name} | {first} | {last} | {rise / unit:+.0f} {word} |")
    return lines


def not_flat(samples: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Returns what grew although the load did not: its name, and by how much.

    The last quarter is held against the second, as the first still warms up, and only over ten
    minutes or more: below that, noise is larger than what an hour's growth would be.
    """
    growing = []
    state = [(sample["at"], sample["state"]) for sample in samples if sample.get("state")]
    checks = [("checkpoint", state[len(state) // 10 :], 1.5, 256 << 10)]
    checks += [
        (f"memory of worker {pid}", points, 1.15, 32 << 20)
        for pid, points in series(samples, "workers").items()
    ]
    for name, points, times, more in checks:
        parts = quarters(points)
        if parts and points[-1][0] - points[0][0] >= 600 and parts[3] > parts[1] * times + more:
            growing.append((name, " -> ".join(f"{part / 1024:.0f} KiB" for part in parts)))
    return growing
