"""Images in any order, judged by two rule files of many kinds, for tests of the shadow rules."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from hypothesis import strategies as st

import rules
from rules import parse_rules
from tests.transforms.failing_runner import Cell, Timer
from tests.transforms.results import MODEL
from transforms.judge_shadow import _JudgeInStream
from transforms.judge_threats import HISTORIES, JudgeInStream
from transforms.records.images import DetectedImage, JudgedImage
from transforms.records.times import canonical_time, parse_time
from transforms.runtime.live_rules import LiveRules
from transforms.storage.shadow_alerts import ShadowAlert, parse_shadow_alert

START = parse_time("2026-01-31T10:00:00Z")
NAMES = {
    "simple": "objects: {person: , car: {min_score: 0.7}}, cooldown: 0s",
    "strict": "objects: {person: {min_score: 0.7}, car: {severity: detection}}, cooldown: 0s",
    "confirm": "objects: {person: , car: }, confirm: {pictures: 2, within: 2m}",
    "repeats": "objects: {person: , car: }, repeats: {iou: 0.85, occurrences: 2, within: 1h}",
    "track": "objects: {person: , car: }, track: {min_score: 0.3, within: 20s}",
    "cooldown": "objects: {person: , car: }, cooldown: 2m",
    "gap": "objects: {person: {min_score: 0.5}, car: }, cooldown: 2m, incident_gap: 30s",
}
RULES = {
    name: parse_rules(f"version: 1\ndefaults: {{{text}}}\n", f"{name}.yaml")
    for name, text in NAMES.items()
} | {
    "one camera": parse_rules(
        f"version: 1\ndefaults: {{{NAMES['simple']}}}\ncameras: {{hall: {{{NAMES['cooldown']}}}}}",
        "one.yaml",
    )
}


def image(
    camera: str, second: int, seen: Sequence[tuple[str, float, int]], number: int, contested: bool
) -> DetectedImage:
    """An image with objects of these labels, scores and places."""
    time = canonical_time(START + timedelta(seconds=second))
    name = f"{camera}_{time.replace(':', '-')}.jpg"
    return DetectedImage(
        *(camera, time, name, f"/in/{number}/{name}", f"{number:02d}" * 32, 640, 480, MODEL),
        detections=tuple(
            rules.Detection("1", label, score, (place / 10, 0.2, 0.2, 0.3))
            for label, score, place in seen
        ),
        brightness=0.5,
        stream_time=canonical_time(START),
        is_contested=contested,
    )


OBJECTS = st.lists(
    st.tuples(
        st.sampled_from(["person", "car"]), st.sampled_from([0.4, 0.6, 0.9]), st.integers(0, 3)
    ),
    max_size=2,
)
MOMENTS = st.lists(
    st.tuples(st.sampled_from(["hall", "yard"]), st.integers(0, 30).map(lambda ten: ten * 10)),
    min_size=1,
    max_size=12,
    unique=True,
)


@st.composite
def images(draw: st.DrawFn, most: int = 1) -> list[DetectedImage]:
    """Images in any order, of which up to `most` share a capture time."""
    found: list[DetectedImage] = []
    for camera, second in draw(MOMENTS):
        shown = draw(st.lists(OBJECTS, min_size=1, max_size=most))
        found += [
            image(camera, second, seen, len(found) + at, len(shown) > 1)
            for at, seen in enumerate(shown)
        ]
    return draw(st.permutations(found))


RULESETS = st.sampled_from(sorted(RULES))


def in_stream(
    arriving: Sequence[DetectedImage], by_rules: rules.Rules, by_shadow: rules.Rules
) -> tuple[list[JudgedImage], list[ShadowAlert]]:
    """Verdicts of the rules, and records of the shadow rules, of images as they come."""
    judge = JudgeInStream(LiveRules.of(by_rules), 3600, None)
    shadow = _JudgeInStream(LiveRules.of(by_shadow), 3600, "/out")
    state = {id: (Cell(HISTORIES), Cell(HISTORIES)) for id in ("hall", "yard")}
    judged, alerts = [], []
    for one in arriving:
        own, beside = state[one.id]
        (verdict,) = judge.process((one.id, one), own, Timer())
        judged.append(verdict)
        for uri, data in shadow.process((one.id, verdict), beside, Timer()):
            alerts.append(parse_shadow_alert(uri, data))
    return judged, alerts


def moments(found: Sequence[JudgedImage]) -> set[tuple[str, str]]:
    return {(one.image.id, one.image.timestamp) for one in found if one.verdict.alerts}
