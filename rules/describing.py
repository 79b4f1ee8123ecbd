"""What each camera ends up with, for a person at a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rules.effective import CameraRules, ObjectRule
from rules.errors import one_line
from rules.ruleset import Rules

_VALUES = ("severity", "min_score", "min_area", "max_area", "min_ratio", "max_ratio")


def describe(rules: Rules) -> str:
    """The rules that hold, camera by camera in the order of the file, each value followed by the
    layer that gives it; last, what an id gets that the file does not name. Lines end in ``\\n``."""
    count = len(rules.cameras)
    lines = [f"rules {rules.version}: {count} camera{'' if count == 1 else 's'}"]
    for camera_id in rules.cameras:
        camera = rules.for_camera(camera_id)
        profile = f" (profile {camera.profile})" if camera.profile is not None else ""
        lines += ["", f"{camera_id}{profile}", *_body(camera)]
    if rules.strict_ids:
        lines += ["", "any other id: refused as unknown_camera (strict_ids: true)"]
    else:
        lines += ["", "any other id: the defaults", *_body(rules.defaults)]
    return "".join(f"{one_line(line)}\n" for line in lines)


def _body(camera: CameraRules) -> Iterator[str]:
    if not camera.objects:
        yield "  no objects: nothing is a threat"
    width = max(map(len, camera.objects), default=0)
    for label, rule in camera.objects.items():
        yield f"  {label:<{width}}  {', '.join(_values(label, rule))}"
    if camera.resolution is not None:
        origins = camera.resolution.origins
        bounds = [
            f"{bound} {size[0]}x{size[1]} ({origins[bound].removesuffix('.resolution')})"
            for bound, size in (("min", camera.resolution.min), ("max", camera.resolution.max))
            if size is not None
        ]
        yield f"  resolution: {', '.join(bounds)}"


def _values(label: str, rule: ObjectRule) -> Iterator[str]:
    for name in _VALUES:
        value = getattr(rule, name)
        if value is not None:
            yield f"{name} {value} ({rule.origin(name).removesuffix(f'.objects.{label}')})"
