"""An output with marks of a hall, of which a higher score would silence the false alerts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import rules
from tests.beam_pipeline.fleets import SHA256, write_fleet
from tests.transforms.archives import seen
from transforms.records.images import DetectedImage
from transforms.storage.marks import MarkedThreat, write_mark

RULES = """\
# Our cameras
version: 1
defaults:
  cooldown: 0s
  objects: {person: {min_score: 0.5}, car: {min_score: 0.8}}
cameras:
  # by the door
  hall:
    objects: {person: {min_score: 0.50}}   # as measured
"""
TREE, DOOR = (0.1, 0.1, 0.2, 0.4), (0.6, 0.4, 0.2, 0.4)
Shown = tuple[str, float, tuple[float, float, float, float], Literal["right", "false"] | None]
"""A capture time with the score and the box of a person, and the mark."""

SHOWN: Sequence[Shown] = (
    *((f"2026-01-31T08:{5 * n:02d}:00Z", 0.55 + n / 100, TREE, "false") for n in range(4)),
    *((f"2026-01-31T09:{5 * n:02d}:00Z", 0.90, DOOR, "right") for n in range(3)),
    ("2026-01-31T09:30:00Z", 0.57, DOOR, "right"),
    ("2026-01-31T10:00:00Z", 0.56, DOOR, None),
    ("2026-01-31T11:00:00Z", 0.30, DOOR, None),
)
"""A score of 0.59 loses a right alert; one of 0.57 leaves two false ones."""


def images(shown: Iterable[Shown]) -> list[DetectedImage]:
    """Returns the images of the hall."""
    return [
        seen("hall", time, ("person", score), bbox=box, sha256=SHA256)
        for time, score, box, _ in shown
    ]


def write_marked_output(output: Path, shown: Sequence[Shown] = SHOWN, text: str = RULES) -> None:
    """Writes the output, with an image of a gate that nobody has marked."""
    gate = seen("gate", "2026-01-31T08:00:00Z", ("person", 0.9), sha256=SHA256)
    write_fleet(output, [*images(shown), gate], rule_text=text)
    for time, _, box, mark in shown:
        if mark is not None:
            write_mark(
                str(output),
                id="hall",
                timestamp=time,
                alert_id=rules.alert_id("hall", time, "alert"),
                mark=mark,
                label=None,
                bboxes=(),
                threats=[MarkedThreat("person", box)],
                by="ben",
            )
