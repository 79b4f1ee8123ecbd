"""What was observed of a fleet, and what is found in it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from transforms.records.count_rows import CountRow
from transforms.records.times import canonical_time

if TYPE_CHECKING:
    from beam_pipeline.fleet.fleet_end import AheadImages
    from beam_pipeline.fleet.past_counts import PastCounts

Kind = Literal[
    "silent", "misdated", "frozen", "invalid", "blind", "flooding", "too_few", "clock_skew"
]
KINDS: tuple[Kind, ...] = (
    *("silent", "misdated", "frozen", "blind", "invalid", "clock_skew", "flooding", "too_few"),
)
"""The kinds, most important first."""


@dataclass(frozen=True)
class Finding:
    """Something about one camera that a person should look at.

    Attributes:
      id: The camera.
      kind: The kind of finding.
      since: The start (UTC) of the period that was judged.
      until: Its end, exclusive.
      severity: "fault": the camera gives nothing to judge by, or its times are plainly wrong;
        "warning": it is unusual.
      sentence: A description in plain words, without the camera's id.
      p_value: The probability of this much or more for a healthy camera, before the correction for
        the number of cameras; None if no test was needed.
      share: Of the images, where the finding is about a share of them: with a threat (flooding,
        too_few), invalid (invalid), without any detection (blind), misdated (clock_skew); of the
        expected images those that came (silent). 0 to 1 (silent: may exceed it); None where it
        can't be said.
      usual: What that share usually is; None where it can't be said.
      expected: Images that were expected, of silent alone.
    """

    id: str
    kind: Kind
    since: datetime
    until: datetime
    severity: Literal["fault", "warning"]
    sentence: str
    p_value: float | None = None
    share: float | None = None
    usual: float | None = None
    expected: float | None = None

    @property
    def finding_id(self) -> str:
        """32 hex digits: the same for one camera and kind as long as it began on the same day of
        UTC, so that an hourly run over the last 24 hours finds it at most once a day."""
        parts = (self.id, self.kind, f"{self.since:%Y-%m-%d}")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def to_json(self) -> dict[str, Any]:
        """Returns the finding as a JSON object; the keys in a fixed order."""
        return {
            "finding_id": self.finding_id,
            "id": self.id,
            "kind": self.kind,
            "severity": self.severity,
            "since": canonical_time(self.since),
            "until": canonical_time(self.until),
            "sentence": self.sentence,
            "p_value": self.p_value,
            "share": self.share,
            "usual": self.usual,
            "expected": self.expected,
        }


@dataclass(frozen=True)
class LookedAtImage:
    """One image in which objects were detected or not.

    Attributes:
      capture_time: When it was taken.
      has_detections: Whether anything at all was detected, down to the lowest score that is kept.
      brightness: 0 (black) to 1 (white); None where it was not measured.
      sharpness: 0 (blank) to 1; None where it was not measured.
      sha256: The hash of its bytes; None where it is unknown.
      labels: The labels of the detections with a score of 0.5 or more, sorted.
    """

    capture_time: datetime
    has_detections: bool
    brightness: float | None = None
    sharpness: float | None = None
    sha256: str | None = None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class RefusedImage:
    """One image that was invalid, or late.

    Attributes:
      id: The camera, by the image's name.
      capture_time: When it was taken, by its name.
      reason: One of :mod:`transforms.records.reasons`, or `LATE`.
    """

    id: str
    capture_time: datetime
    reason: str


LATE = "late"


@dataclass(frozen=True)
class MisdatedImages:
    """The images of one camera whose capture times are plainly wrong, of all times.

    Attributes:
      id: The camera.
      images: How many there are.
      first: The earliest capture time, to the window (UTC).
      last: The latest one.
    """

    id: str
    images: int
    first: datetime
    last: datetime


@dataclass(frozen=True)
class Observations:
    """What was seen of a fleet, in the period that is judged and before it.

    Attributes:
      windows: The windowed counts, in any order.
      images: By camera, in order of time; empty where they were not read: no camera is found
        blind then.
      refused: Invalid and late images whose names say the camera and the time.
      named: The cameras that must be there (those of the rule file).
      expected: Images an hour that a camera sends at the least, whatever it did before.
      ahead: Images that are dated after the end of the period.
      misdated: Images of an impossible past, by camera.
      is_over: Whether nothing has come since the end of the period but such images.
      past: Further counts by camera, of windows before those of `windows`.
    """

    windows: Sequence[CountRow]
    images: Mapping[str, Sequence[LookedAtImage]] = field(default_factory=dict)
    refused: Sequence[RefusedImage] = ()
    named: frozenset[str] = frozenset()
    expected: Mapping[str, float] = field(default_factory=dict)
    ahead: Sequence[AheadImages] = ()
    misdated: Mapping[str, MisdatedImages] = field(default_factory=dict)
    is_over: bool = False
    past: Mapping[str, PastCounts] = field(default_factory=dict)
