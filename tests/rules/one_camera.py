"""Short functions for rules and images of one camera, `hall`."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from rules import Detection, History, Image, Rules, Verdict, parse_rules

START = datetime(2026, 1, 31, 12, 0, tzinfo=timezone.utc)  # A Saturday.
BOX = (0.4, 0.4, 0.1, 0.2)


def rules_of(text: str) -> Rules:
    """Parses rules whose defaults are a YAML text without indentation."""
    indented = "".join(f"  {line}\n" for line in text.strip().splitlines())
    return parse_rules(f"version: 1\ndefaults:\n{indented}", "rules.yaml")


def make_detection(label: str = "person", conf: float = 0.9, bbox=BOX) -> Detection:
    return Detection("1", label, conf, bbox)


def make_image(
    *detections: Detection,
    at: float | datetime = 0,
    brightness: float | None = None,
    sha256: str = "",
) -> Image:
    """Returns an image of 1000 by 1000 pixels.

    Args:
        detections: Its detections.
        at: Its capture time, or the seconds since noon of a Saturday.
        brightness: Its mean brightness.
        sha256: The hash of its bytes.
    """
    capture_time = at if isinstance(at, datetime) else START + timedelta(seconds=at)
    text = capture_time.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
    return Image("hall", text, 1000, 1000, detections, sha256, brightness)


def judge_all(rules: Rules, images: list[Image]) -> list[Verdict]:
    """Judges the images of one camera in sequence."""
    history = History()
    return [rules.judge(image, history) for image in images]


def rejecting_filters(verdict: Verdict) -> list[str | None]:
    """Returns the filter that rejected each detection; None for a threat."""
    filters = {rejected.detection: rejected.by for rejected in verdict.rejected}
    return [filters.get(index) for index in range(len(verdict.threats) + len(verdict.rejected))]
