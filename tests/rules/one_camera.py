"""Rules and pictures of one camera, `hall`, in few words."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from rules import Detection, History, Image, Rules, Verdict, parse_rules

START = datetime(2026, 1, 31, 12, 0, tzinfo=timezone.utc)  # a Saturday
BOX = (0.4, 0.4, 0.1, 0.2)


def rules_of(text: str) -> Rules:
    """Rules whose defaults are a YAML text, indented by nothing."""
    indented = "".join(f"  {line}\n" for line in text.strip().splitlines())
    return parse_rules(f"version: 1\ndefaults:\n{indented}", "rules.yaml")


def found(label: str = "person", conf: float = 0.9, bbox=BOX) -> Detection:
    return Detection("1", label, conf, bbox)


def picture(
    *detections: Detection,
    at: float | datetime = 0,
    brightness: float | None = None,
    sha256: str = "",
) -> Image:
    """A picture of 1000 by 1000 pixels, `at` seconds after noon of a Saturday, or at a moment."""
    moment = at if isinstance(at, datetime) else START + timedelta(seconds=at)
    text = moment.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
    return Image("hall", text, 1000, 1000, detections, sha256, brightness)


def judge_all(rules: Rules, images: list[Image]) -> list[Verdict]:
    """The verdicts on one camera's pictures, one after the other."""
    history = History()
    return [rules.judge(image, history) for image in images]


def outcome(verdict: Verdict) -> list[str | None]:
    """For each detection None where it is a threat, otherwise the filter that rejected it."""
    by = {one.detection: one.by for one in verdict.rejected}
    return [by.get(index) for index in range(len(verdict.threats) + len(verdict.rejected))]
