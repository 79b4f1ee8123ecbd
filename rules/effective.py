"""What holds for a camera once the defaults, its profile and its own settings are joined.

The layers are joined value by value, the later over the earlier:
defaults <- profile <- camera.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rules.frozen import FrozenMapping
from rules.records import Severity
from rules.schema import Layer

BUILT_IN = "built in"
"""The origin of a value that the file does not give."""


@dataclass(frozen=True)
class ObjectRule:
    """What makes an object of one label a threat on one camera.

    Attributes:
        rule: the dotted path of the most specific entry in the file for that label on that camera,
            e.g. ``cameras.hall.objects.person``.
        severity: ``alert``, ``detection`` or ``ignore``.
        min_score: the least score, 0 to 1.
        min_area: the least area of the box, as a fraction of the frame; None for no bound.
        max_area: the greatest.
        min_ratio: the least width over height of the box, in pixels; None for no bound.
        max_ratio: the greatest.
        origins: for each value that the file gives, the entry that gives it, by the value's name,
            e.g. ``{"min_score": "profiles.outdoor.objects.person"}``.
    """

    rule: str
    severity: Severity = "alert"
    min_score: float = 0.5
    min_area: float | None = None
    max_area: float | None = None
    min_ratio: float | None = None
    max_ratio: float | None = None
    origins: Mapping[str, str] = field(default_factory=FrozenMapping)

    def origin(self, value: str) -> str:
        """The dotted path of the entry that gives a value, or ``built in``."""
        return self.origins.get(value, BUILT_IN)


@dataclass(frozen=True)
class Resolution:
    """The sizes of image that a camera may send.

    Attributes:
        min: the least (width, height) in pixels; None for no bound.
        max: the greatest.
        origins: the section that gives each, e.g. ``{"min": "defaults.resolution"}``.
    """

    min: tuple[int, int] | None = None
    max: tuple[int, int] | None = None
    origins: Mapping[str, str] = field(default_factory=FrozenMapping)


@dataclass(frozen=True)
class CameraRules:
    """What holds for one camera.

    Attributes:
        profile: the profile that it inherits from; None without one.
        objects: the labels to look for and the rule of each, in the order of the file.
        resolution: the sizes of image that it may send; None where nothing is said.
    """

    profile: str | None = None
    objects: Mapping[str, ObjectRule] = field(default_factory=FrozenMapping)
    resolution: Resolution | None = None


def inherit(parent: CameraRules, layer: Layer | None, name: str) -> CameraRules:
    """Join what a layer says over what it inherits.

    What the layer leaves alone is shared with the parent, not copied: ten thousand cameras of one
    profile hold its rules once.

    Args:
        parent: what it inherits.
        layer: the defaults, a profile or a camera; None for an empty section.
        name: the layer's dotted path, e.g. ``profiles.outdoor``.
    """
    if layer is None:
        return parent
    objects = parent.objects
    if layer.objects:
        objects = dict(parent.objects)
        for label, settings in layer.objects.items():
            entry = f"{name}.objects.{label}"
            values = _values_given(settings)
            base = objects.get(label, ObjectRule(rule=entry))
            origins = _origins(base.origins, values, entry)
            objects[label] = replace(base, rule=entry, origins=origins, **values)
        objects = FrozenMapping(objects)
    resolution = parent.resolution
    if sizes := _values_given(layer.resolution):
        base_resolution = resolution or Resolution()
        origins = _origins(base_resolution.origins, sizes, f"{name}.resolution")
        sizes = {bound: tuple(size) for bound, size in sizes.items()}
        resolution = replace(base_resolution, origins=origins, **sizes)
    return replace(parent, objects=objects, resolution=resolution)


def _values_given(settings: Any) -> dict[str, Any]:
    return {} if settings is None else settings.model_dump(exclude_unset=True)


def _origins(inherited: Mapping[str, str], values: dict[str, Any], entry: str) -> Mapping[str, str]:
    return FrozenMapping({**inherited, **dict.fromkeys(values, entry)})
