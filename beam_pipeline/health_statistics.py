"""Which cameras are broken, by what the job has seen of them: statistics alone, no I/O.

    for finding in findings(observed, since=since, until=until):
        print(finding.sentence)

:mod:`beam_pipeline.health` reads what is observed from a job's output.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from beam_pipeline.counts import CountRow
from transforms.times import canonical_time

Kind = Literal["silent", "invalid", "blind", "flooding", "too_few", "clock_skew"]
KINDS: tuple[Kind, ...] = ("silent", "blind", "invalid", "clock_skew", "flooding", "too_few")
"""In the order in which they matter."""


@dataclass(frozen=True)
class Finding:
    """Something about one camera that a person should look at.

    Attributes:
      id: The camera.
      kind: What it is.
      since: The first moment (UTC) of what was judged.
      until: The first moment after it.
      severity: "fault": the camera gives nothing to judge by; "warning": it is unusual.
      sentence: What it is in plain words, without the camera's id.
      p_value: How likely so much or more is on a camera that is all right, before the correction
        for the number of cameras; None where no test was needed to see it.
      share: Of the pictures, where the finding is about a share of them: with a threat (flooding,
        too_few), invalid (invalid), without any detection (blind), misdated (clock_skew); of the
        expected pictures those that came (silent). 0 to 1 (silent: may exceed it); None where it
        can't be said.
      usual: What that share usually is; None where it can't be said.
      expected: Pictures that were to be expected, of silent alone.
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
        """The same finding has the same id in every run: 32 hex digits."""
        parts = (self.id, self.kind, canonical_time(self.since), canonical_time(self.until))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def to_json(self) -> dict[str, Any]:
        """The finding as a JSON object; the keys in a fixed order."""
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
class Picture:
    """One picture that was looked at.

    Attributes:
      moment: When it was taken.
      seen: Whether anything at all was detected, down to the lowest score that is kept.
      brightness: 0 (black) to 1 (white); None where it was not measured.
      sharpness: 0 (blank) to 1; None where it was not measured.
    """

    moment: datetime
    seen: bool
    brightness: float | None = None
    sharpness: float | None = None


@dataclass(frozen=True)
class Refused:
    """One picture that was invalid, or late.

    Attributes:
      id: The camera, by the picture's name.
      moment: When it was taken, by its name.
      reason: One of :mod:`transforms.reasons`, or `LATE`.
    """

    id: str
    moment: datetime
    reason: str


LATE = "late"


@dataclass(frozen=True)
class Observed:
    """What was seen of a fleet, in the period that is judged and before it.

    Attributes:
      windows: The windowed counts, in any order.
      pictures: By camera, in order of time; empty where they were not read: no camera is found
        blind then.
      refused: Invalid and late pictures whose names say the camera and the time.
      named: The cameras that must be there (those of the rule file).
      expected: Pictures an hour that a camera sends at the least, whatever it did before.
    """

    windows: Sequence[CountRow]
    pictures: Mapping[str, Sequence[Picture]] = field(default_factory=dict)
    refused: Sequence[Refused] = ()
    named: frozenset[str] = frozenset()
    expected: Mapping[str, float] = field(default_factory=dict)


def findings(observed: Observed, *, since: datetime, until: datetime) -> list[Finding]:
    """What is wrong with the cameras in a period, by what they were like before it.

    Args:
      observed: The fleet, in the period and as long before it as there is.
      since: The first moment of the period (UTC).
      until: The first moment after it.

    Returns:
      By camera, faults first, in the order of `KINDS`.
    """
    seen = {row.id for row in observed.windows if row.images}
    seen |= {one.id for one in observed.refused}
    found = [
        Finding(id, "silent", since, until, "fault", "has never sent a picture", share=0.0)
        for id in sorted(observed.named - seen)
    ]
    return sorted(found, key=lambda one: (one.severity, KINDS.index(one.kind), one.id))
