"""Values of a valid rule file that probably do not mean what their author expects.

`pitfalls` finds them in the effective rules of each camera. Cameras that share one are named in one
line, as ten thousand cameras of a profile do.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import timedelta

from rules.effective import CameraRules, ObjectRule, Zone
from rules.geometry import overlap_outside
from rules.ruleset import Rules

_LEVELS = {"ignore": 0, "detection": 1, "alert": 2}
_MINIMA = ("min_score", "min_score_at_night", "min_area", "min_ratio", "min_count")
_LONG_COOLDOWN = timedelta(minutes=30)
_MAXIMA = ("max_area", "max_ratio", "max_count")


def pitfalls(rules: Rules) -> list[str]:
    """Returns a line for each pitfall: which cameras it concerns, what happens, and what to do."""
    others = {} if rules.strict_ids else {"cameras without rules of their own": rules.defaults}
    found: dict[str, list[str]] = {}
    for name, camera in {**rules.by_camera, **others}.items():
        for problem in (*_gap(camera), *_zones(camera)):
            found.setdefault(problem, []).append(name)
    return [f"{_names(cameras)}: {problem}" for problem, cameras in found.items()]


def _names(cameras: list[str]) -> str:
    more = len(cameras) - 1
    return cameras[0] if not more else f"{cameras[0]} and {more} more"


def _gap(camera: CameraRules) -> Iterator[str]:
    gap, cooldown = camera.incident_gap, camera.cooldown
    if cooldown is not None and gap is None and "incident_gap" not in camera.origins:
        if cooldown >= _LONG_COOLDOWN:
            yield (
                f"cooldown of {camera.origins['cooldown']} has no incident_gap, so that whoever "
                f"comes within {_seconds(cooldown)} s of an alert has none, however long nobody "
                "was there; set incident_gap, for example to 5m, or to 0s if this is what you want"
            )
        return
    if gap is None or "incident_gap" not in camera.origins:
        return
    origin = camera.origins["incident_gap"]
    if cooldown is None:
        yield (
            f"incident_gap of {origin} has no effect, because there is no cooldown; set a cooldown "
            "that is longer than it, or leave it out"
        )
    elif gap >= cooldown:
        yield (
            f"incident_gap of {origin} has no effect, because it is {_seconds(gap)} s and the "
            f"cooldown {_seconds(cooldown)} s; make it shorter than the cooldown, or leave it out"
        )


def _seconds(length: timedelta) -> int:
    return length // timedelta(seconds=1)


def _zones(camera: CameraRules) -> Iterator[str]:
    """Yields each pair of zones of which the first seems to make an exception to the second."""
    for first, second in itertools.combinations(camera.zones.values(), 2):
        stricter = {
            label: values
            for label in sorted({*camera.objects, *first.rules, *second.rules})
            if (values := _stricter(first, second, label, camera))
            and _overlap(first, second, label, camera)
        }
        if stricter:
            labels = "; ".join(f"{label}: {', '.join(all)}" for label, all in stricter.items())
            yield (
                f"zone {first.name} is stricter than zone {second.name} ({labels}), but where they "
                "overlap an object is a threat if either of them lets it through; use a mask, or "
                "polygons that do not overlap"
            )


def _stricter(first: Zone, second: Zone, label: str, camera: CameraRules) -> list[str]:
    """Returns the values for a label that are stricter in the first of two zones."""
    a, b = first.rule_for(label, camera), second.rule_for(label, camera)
    if a is None or b is None or a is b or b.severity == "ignore":
        return []
    if _LEVELS[a.severity] < _LEVELS[b.severity]:
        return [f"severity {a.severity}"]
    stricter = [name for name in (*_MINIMA, *_MAXIMA) if _is_stricter(name, a, b)]
    if camera.confirm is not None and a.confirm and not b.confirm:
        stricter.append("confirm")
    if camera.track is not None and b.track and not a.track:
        stricter.append("track")
    if camera.repeats is not None and a.can_repeat(label) and not b.can_repeat(label):
        stricter.append("repeats")
    return stricter


def _is_stricter(name: str, a: ObjectRule, b: ObjectRule) -> bool:
    value, other = getattr(a, name), getattr(b, name)
    if value is None:
        return False
    if other is None:
        return name != "min_score_at_night" or value > b.min_score
    return bool(value < other if name in _MAXIMA else value > other)


def _overlap(first: Zone, second: Zone, label: str, camera: CameraRules) -> bool:
    """Returns whether two zones overlap outside the masks for a label."""
    masks = [
        mask.area
        for mask in camera.masks.values()
        if mask.area is not None and (mask.objects is None or label in mask.objects)
    ]
    if first.area is None or second.area is None:
        return False
    return overlap_outside(first.area, second.area, masks)
