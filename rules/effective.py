"""What holds for a camera once the defaults, its profile and its own settings are joined.

The layers are joined value by value, the later over the earlier:
defaults <- profile <- camera.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from rules.frozen import FrozenMapping
from rules.geometry import Area, Bbox
from rules.records import Severity
from rules.schedule import Night, Period, Schedule
from rules.schema import Layer, MaskSettings, ObjectSettings, ZoneSettings

BUILT_IN = "built in"
"""The origin of a value that the file does not give."""

UNREPEATED = "person"
"""The label that `repeats` leaves alone unless its own settings say otherwise: who stands still is
still there."""

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class ObjectRule:
    """What makes an object of one label a threat on one camera, or in one of its zones.

    Attributes:
        rule: the dotted path of the most specific entry in the file for that label on that camera,
            e.g. ``cameras.hall.objects.person``.
        severity: ``alert``, ``detection`` or ``ignore``.
        min_score: the least score, 0 to 1.
        min_area: the least area of the box, as a fraction of the frame; None for no bound.
        max_area: the greatest.
        min_ratio: the least width over height of the box, in pixels; None for no bound.
        max_ratio: the greatest.
        min_score_at_night: the least score when it is night; None for no further bound.
        min_count: the least number in one picture; None for no bound.
        max_count: the greatest.
        repeats: whether the camera's `repeats` holds for it; None: as suits the label.
        confirm: whether the camera's `confirm` holds for it.
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
    min_score_at_night: float | None = None
    min_count: int | None = None
    max_count: int | None = None
    repeats: bool | None = None
    confirm: bool = True
    origins: Mapping[str, str] = field(default_factory=FrozenMapping)

    def origin(self, value: str) -> str:
        """The dotted path of the entry that gives a value, or ``built in``."""
        return self.origins.get(value, BUILT_IN)

    def may_repeat(self, label: str) -> bool:
        """Whether a camera's `repeats` holds for it."""
        return label != UNREPEATED if self.repeats is None else self.repeats


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
class Override:
    """What a zone says of one label: values over those of the camera, and where they come from."""

    rule: str
    values: Mapping[str, Any] = field(default_factory=FrozenMapping)
    origins: Mapping[str, str] = field(default_factory=FrozenMapping)

    def over(self, base: ObjectRule | None) -> ObjectRule:
        """The rule that they make of the camera's, if it has one."""
        base = base or ObjectRule(self.rule)
        origins = FrozenMapping({**base.origins, **self.origins})
        return replace(base, rule=self.rule, origins=origins, **self.values)


@dataclass(frozen=True)
class _Place:
    """A named area.

    Attributes:
        name: its name.
        place: what the layers say of it: polygon, anchor, min_overlap.
        origins: the entry that gives each value.
    """

    name: str
    place: Mapping[str, Any] = field(default_factory=FrozenMapping)
    origins: Mapping[str, str] = field(default_factory=FrozenMapping)

    @cached_property
    def area(self) -> Area | None:
        """Where it is; None where no layer gives the polygon, which no camera may leave so."""
        return Area(**self.place) if "polygon" in self.place else None

    def holds(self, box: Bbox) -> bool:
        """Whether a box belongs to it."""
        return self.area is not None and self.area.holds(box)


@dataclass(frozen=True)
class Zone(_Place):
    """An area in which objects are looked for.

    Attributes:
        objects: what the layers say of labels there; None where they name no label, and the zone
            takes all of the camera's.
        rules: the rule of each label that it names: the camera's, with what differs there.
    """

    objects: Mapping[str, Override] | None = None
    rules: Mapping[str, ObjectRule] = field(default_factory=FrozenMapping)

    def rule(self, label: str, camera: CameraRules) -> ObjectRule | None:
        """What holds for a label in it; None where it does not take the label."""
        return camera.objects.get(label) if self.objects is None else self.rules.get(label)


@dataclass(frozen=True)
class Mask(_Place):
    """An area in which objects are ignored.

    Attributes:
        objects: the labels; None for all.
    """

    objects: frozenset[str] | None = None


@dataclass(frozen=True)
class Repeats:
    """When a detection is a repeat of what was seen before: see `rules.schema.RepeatsSettings`."""

    iou: float = 0.85
    occurrences: int = 3
    within: timedelta = timedelta(hours=24)
    forget_after: int = 10
    min_score: float = 0.25
    origins: Mapping[str, str] = field(default_factory=FrozenMapping)

    @property
    def pictures_needed(self) -> int:
        """The pictures that may have to be looked back on."""
        return self.occurrences * self.forget_after

    @cached_property
    def within_microseconds(self) -> int:
        """`within` in microseconds."""
        return self.within // _MICROSECOND


@dataclass(frozen=True)
class Confirm:
    """When a threat is confirmed: see `rules.schema.ConfirmSettings`."""

    pictures: int = 2
    within: timedelta = timedelta(seconds=30)
    origins: Mapping[str, str] = field(default_factory=FrozenMapping)

    @cached_property
    def within_microseconds(self) -> int:
        """`within` in microseconds."""
        return self.within // _MICROSECOND


class Label(NamedTuple):
    """What a camera's rules say of one label, gathered for judging.

    Attributes:
        zones: the zones that take it, in the order of the file, each with its rule there.
        names: the names of those zones.
        outside: its rule outside of them: the camera's, or, for a label that only zones name, the
            first such zone's.
        rules_differ: whether its rule depends on where it is.
    """

    zones: tuple[tuple[Zone, ObjectRule], ...]
    names: tuple[str, ...]
    outside: ObjectRule
    rules_differ: bool


@dataclass(frozen=True)
class CameraRules:
    """What holds for one camera.

    Attributes:
        profile: the profile that it inherits from; None without one.
        objects: the labels to look for and the rule of each, in the order of the file.
        resolution: the sizes of image that it may send; None where nothing is said.
        timezone: where it is, by its IANA name.
        zones: in the order of the file, by name.
        masks: the same.
        schedule: when it is armed; None for always.
        night: when it is night; None for never.
        repeats: None for off.
        confirm: None for off.
        cooldown: None for none.
        notify: the names of the targets that alerts go to.
        origins: the section that gives each value of schedule and night (``night.start``), and
            timezone, cooldown and notify.
    """

    profile: str | None = None
    objects: Mapping[str, ObjectRule] = field(default_factory=FrozenMapping)
    resolution: Resolution | None = None
    timezone: str = "UTC"
    zones: Mapping[str, Zone] = field(default_factory=FrozenMapping)
    masks: Mapping[str, Mask] = field(default_factory=FrozenMapping)
    schedule: Schedule | None = None
    night: Night | None = None
    repeats: Repeats | None = None
    confirm: Confirm | None = None
    cooldown: timedelta | None = None
    notify: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(default_factory=FrozenMapping)

    def label(self, name: str) -> Label | None:
        """What holds for a label; None where neither the camera nor a zone of it lists it."""
        try:
            return self._labels[name]
        except KeyError:
            return self._labels.setdefault(name, self._gathered(name))

    @cached_property
    def _labels(self) -> dict[str, Label | None]:
        return {}

    def _gathered(self, name: str) -> Label | None:
        zones = tuple(
            (zone, rule) for zone in self.zones.values() if (rule := zone.rule(name, self))
        )
        of_camera = self.objects.get(name)
        outside = of_camera or next((rule for _, rule in zones), None)
        if outside is None:
            return None
        names = tuple(zone.name for zone, _ in zones)
        return Label(zones, names, outside, any(rule is not outside for _, rule in zones))

    @property
    def needs_history(self) -> bool:
        """Whether any rule looks at earlier pictures."""
        return not (self.repeats is None and self.confirm is None and self.cooldown is None)

    @property
    def horizon(self) -> timedelta:
        """How far back earlier pictures matter."""
        return max(
            timedelta(0),
            timedelta(0) if self.repeats is None else self.repeats.within,
            timedelta(0) if self.confirm is None else self.confirm.within,
            self.cooldown or timedelta(0),
        )


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
    changed: dict[str, Any] = {}
    if layer.objects:
        changed["objects"] = _objects(parent.objects, layer.objects, name)
    if sizes := _values_given(layer.resolution):
        sizes = {bound: tuple(size) for bound, size in sizes.items()}
        changed["resolution"] = _over(
            parent.resolution or Resolution(), sizes, f"{name}.resolution"
        )
    if layer.zones or (layer.objects and parent.zones):
        objects = changed.get("objects", parent.objects)
        zones = _zones(parent.zones, layer.zones or {}, name)
        changed["zones"] = FrozenMapping(
            {zone_name: _with_rules(zone, objects) for zone_name, zone in zones.items()}
        )
    if layer.mask:
        changed["masks"] = _masks(parent.masks, layer.mask, name)
    if "repeats" in layer.model_fields_set:
        changed["repeats"] = _switched(
            parent.repeats or Repeats(), layer.repeats, f"{name}.repeats"
        )
    if "confirm" in layer.model_fields_set:
        changed["confirm"] = _switched(
            parent.confirm or Confirm(), layer.confirm, f"{name}.confirm"
        )
    origins = dict(parent.origins)
    if times := _values_given(layer.schedule):
        periods = {
            key: tuple(Period(**_values_given(period)) for period in value)
            for key, value in times.items()
        }
        changed["schedule"] = replace(parent.schedule or Schedule(), **periods)
        origins |= {f"schedule.{key}": f"{name}.schedule" for key in times}
    if values := _values_given(layer.night):
        changed["night"] = replace(parent.night or Night(), **values)
        origins |= {f"night.{key}": f"{name}.night" for key in values}
    for key in ("timezone", "cooldown"):
        if key in layer.model_fields_set:
            changed[key] = getattr(layer, key) or None
            origins[key] = name
    if "notify" in layer.model_fields_set:
        changed["notify"] = tuple(dict.fromkeys(layer.notify))
        origins["notify"] = name
    return replace(parent, origins=FrozenMapping(origins), **changed) if changed else parent


def _values_given(settings: Any) -> dict[str, Any]:
    if settings is None:
        return {}
    return {name: getattr(settings, name) for name in settings.model_fields_set}


def _over(parent: Any, values: dict[str, Any], entry: str) -> Any:
    """A dataclass with values over its own, and where they come from in its `origins`."""
    return replace(parent, origins=_origins(parent, values, entry), **values)


def _origins(parent: Any, values: Iterable[str], entry: str) -> Mapping[str, str]:
    return FrozenMapping({**parent.origins, **dict.fromkeys(values, entry)})


def _objects(
    parent: Mapping[str, ObjectRule],
    given: Mapping[str, ObjectSettings | None],
    name: str,
) -> Mapping[str, ObjectRule]:
    objects = dict(parent)
    for label, settings in given.items():
        entry = f"{name}.objects.{label}"
        base = replace(objects.get(label, ObjectRule(entry)), rule=entry)
        objects[label] = _over(base, _values_given(settings), entry)
    return FrozenMapping(objects)


def _zones(
    parent: Mapping[str, Zone], given: Mapping[str, ZoneSettings | None], name: str
) -> dict[str, Zone]:
    zones = dict(parent)
    for zone_name, settings in given.items():
        entry = f"{name}.zones.{zone_name}"
        zone = _placed(zones.get(zone_name, Zone(zone_name)), settings, entry)
        if settings is not None and settings.objects is not None:
            overrides = dict(zone.objects or {})
            for label, its_settings in settings.objects.items():
                overrides[label] = _override(
                    overrides.get(label), its_settings, f"{entry}.objects.{label}"
                )
            zone = replace(zone, objects=FrozenMapping(overrides))
        zones[zone_name] = zone
    return zones


def _override(parent: Override | None, settings: ObjectSettings | None, entry: str) -> Override:
    parent = parent or Override(entry)
    values = _values_given(settings)
    return Override(
        rule=entry,
        values=FrozenMapping({**parent.values, **values}),
        origins=_origins(parent, values, entry),
    )


def _with_rules(zone: Zone, objects: Mapping[str, ObjectRule]) -> Zone:
    overrides = zone.objects or {}
    rules = {label: override.over(objects.get(label)) for label, override in overrides.items()}
    return replace(zone, rules=FrozenMapping(rules))


def _masks(
    parent: Mapping[str, Mask], given: Mapping[str, MaskSettings | None], name: str
) -> Mapping[str, Mask]:
    masks = dict(parent)
    for mask_name, settings in given.items():
        mask = _placed(masks.get(mask_name, Mask(mask_name)), settings, f"{name}.mask.{mask_name}")
        if settings is not None and "objects" in settings.model_fields_set:
            mask = replace(mask, objects=frozenset(settings.objects))
        masks[mask_name] = mask
    return FrozenMapping(masks)


Placed = TypeVar("Placed", Zone, Mask)


def _placed(parent: Placed, settings: Any, entry: str) -> Placed:
    values = _values_given(settings)
    values.pop("objects", None)
    place = FrozenMapping({**parent.place, **values})
    return replace(parent, place=place, origins=_origins(parent, values, entry))


def _switched(parent: Any, settings: Any, entry: str) -> Any:
    values = _values_given(settings)
    if not values.pop("enabled", True):
        return None
    return _over(parent, values, entry)
