"""Count rows: the counts of one camera in one window, with their JSON form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import rules
from rules.text import escaped, shortened
from transforms.records.times import canonical_time, parse_time


@dataclass(frozen=True)
class CountRow:
    """The counts of one camera in one window, or in a period if rows are summed.

    Attributes:
      id: The camera's id, or `TOTAL_ID` for a sum over cameras.
      window_start: The start of the window (UTC).
      window_end: The end of the window, exclusive (UTC).
      images: The number of valid images that were judged.
      threat_images: The number of images with at least one threat, of either severity.
      threats: The number of threats of either severity; an image can hold several.
      alerts: The number of images of severity ``alert``.
      by_label: The number of threats per label; the sum is `threats`.
    """

    id: str
    window_start: datetime
    window_end: datetime
    images: int
    threat_images: int
    threats: int
    alerts: int
    by_label: Mapping[str, int] = field(hash=False)

    @classmethod
    def from_json(cls, value: Any) -> CountRow:
        """Builds a row from parsed JSON; unknown keys are ignored.

        Raises:
          ValueError: The row is invalid; the message names the first problem.
        """
        if not isinstance(value, dict):
            raise ValueError(f"a count row must be a JSON object, not {shortened(repr(value))}")
        missing = [key for key in KEYS if key not in value]
        if missing:
            raise ValueError(f"{missing[0]!r} is missing")
        camera = value["id"]
        if not isinstance(camera, str) or not rules.is_camera_id(camera):
            raise ValueError(f"'id' is not an id: {shortened(repr(camera))}")
        start, end = (_time(key, value[key]) for key in ("window_start", "window_end"))
        if start >= end:
            raise ValueError("'window_end' must be after 'window_start'")
        images, threat_images, threats, alerts = (
            _count(key, value[key]) for key in ("images", "threat_images", "threats", "alerts")
        )
        labels = value["by_label"]
        if not isinstance(labels, dict):
            raise ValueError(f"'by_label' must be a JSON object, not {shortened(repr(labels))}")
        row = cls(
            id=camera,
            window_start=start,
            window_end=end,
            images=images,
            threat_images=threat_images,
            threats=threats,
            alerts=alerts,
            by_label={
                label: _count(f"by_label.{escaped(label)}", labels[label])
                for label in sorted(labels)
            },
        )
        row._check_sums()
        return row

    def _check_sums(self) -> None:
        for larger, smaller in (
            ("images", "threat_images"),
            ("threats", "threat_images"),
            ("threat_images", "alerts"),
        ):
            if getattr(self, smaller) > getattr(self, larger):
                raise ValueError(
                    f"{smaller!r} ({getattr(self, smaller)}) is more than "
                    f"{larger!r} ({getattr(self, larger)})"
                )
        if self.threats and not self.threat_images:
            raise ValueError(f"'threats' is {self.threats} but 'threat_images' is 0")
        labelled = sum(self.by_label.values())
        if labelled != self.threats:
            raise ValueError(f"'by_label' adds up to {labelled}, not to 'threats' ({self.threats})")

    def to_json(self) -> dict[str, Any]:
        """Makes the JSON of the row: keys in a fixed order, labels sorted."""
        return {
            "id": self.id,
            "window_start": canonical_time(self.window_start),
            "window_end": canonical_time(self.window_end),
            "images": self.images,
            "threat_images": self.threat_images,
            "threats": self.threats,
            "alerts": self.alerts,
            "by_label": {label: self.by_label[label] for label in sorted(self.by_label)},
        }


KEYS = (
    "id",
    "window_start",
    "window_end",
    "images",
    "threat_images",
    "threats",
    "alerts",
    "by_label",
)
"""The keys of a row, in order."""

TOTAL_ID = "*"
"""The `id` of the row with the sum over all cameras; no camera can have this id."""


def sum_by_id(rows: Sequence[CountRow]) -> list[CountRow]:
    """Sums rows by id, sorted by id; a sum's window spans those of its rows."""
    groups: dict[str, list[CountRow]] = {}
    for row in rows:
        groups.setdefault(row.id, []).append(row)
    return [sum_rows(groups[camera], camera) for camera in sorted(groups)]


def sum_total(rows: Sequence[CountRow]) -> list[CountRow]:
    """Sums all rows to one row with the id `TOTAL_ID`; no row if there is nothing to sum."""
    return [sum_rows(rows, TOTAL_ID)] if rows else []


def sum_rows(rows: Sequence[CountRow], camera: str) -> CountRow:
    """Sums at least one row to a row with an id; its window spans those of the rows."""
    by_label: dict[str, int] = {}
    for row in rows:
        for label, count in row.by_label.items():
            by_label[label] = by_label.get(label, 0) + count
    return CountRow(
        id=camera,
        window_start=min(row.window_start for row in rows),
        window_end=max(row.window_end for row in rows),
        images=sum(row.images for row in rows),
        threat_images=sum(row.threat_images for row in rows),
        threats=sum(row.threats for row in rows),
        alerts=sum(row.alerts for row in rows),
        by_label={label: by_label[label] for label in sorted(by_label)},
    )


def _time(key: str, value: Any) -> datetime:
    if not isinstance(value, str):
        raise ValueError(f"{key!r} must be a time, not {shortened(repr(value))}")
    try:
        return parse_time(value)
    except ValueError as error:
        raise ValueError(f"{key!r}: {error}") from None


def _count(key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        shown = shortened(repr(value))
        raise ValueError(f"{key!r} must be a whole number of 0 or more, not {shown}")
    return value
