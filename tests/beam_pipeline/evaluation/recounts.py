"""What rules alert for, counted in a plain way."""

from __future__ import annotations

from collections.abc import Sequence

import rules
from transforms.records.images import DetectedImage


def sent(images: Sequence[DetectedImage], text: str) -> dict[str, tuple[set[str], str | None]]:
    """What rules alert for, by capture time: the labels, and the alert whose cooldown covers it."""
    history, ruleset = rules.History(), rules.parse_rules(text, "rules.yaml")
    alerts = {}
    for one in images:
        verdict = ruleset.judge(one.for_rules(), history)
        labels = {threat.label for threat in verdict.threats if threat.severity == "alert"}
        alerts[one.timestamp] = labels, verdict.suppressed_by
    return alerts
