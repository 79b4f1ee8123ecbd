"""The effective rules of a camera: the defaults, its profile and its own settings, merged.

The layers are merged value by value, the later over the earlier:
defaults <- profile <- camera.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from rules.frozen import FrozenMapping
from rules.geometry import Anchor, Area, Bbox, Point
from rules.names import NameSettings
from rules.records import Severity
from rules.schedule import Night, Schedule, WeeklyPeriod
from rules.schema import Layer, MaskSettings, NamesSettings, ObjectSettings, ZoneSettings
from rules.tiling import Tiles

BUILT_IN = "built in"
"""The origin of a value that the file does not set."""

COOLDOWN = timedelta(minutes=30)
"""The cooldown if the file sets none: while an incident goes on, a reminder each half hour."""

INCIDENT_GAP = timedelta(minutes=5)
"""The incident_gap that belongs to `COOLDOWN`: whoever comes five minutes after the last threat
has an alert. A cooldown of the file's own has no gap unless the file sets one."""

LABEL_WITHOUT_REPEATS = "person"
"""The label that `repeats` ignores unless the label's own settings say otherwise: a person who
stands still is still a threat."""

_ENTRY = re.compile(
    r"(?P<layer>defaults|profiles|cameras)(?:\.(?P<owner>.+?))??"
    r"(?:\.zones\.(?P<zone>.+?))?\.objects\.(?P<label>.+)",
    re.DOTALL,
)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class ObjectRule:
    """The rule for an object of one label on one camera, or in one of its zones.

    Attributes:
        entry: The dotted path of the most specific entry in the file for the label on the camera,
            e.g. ``cameras.hall.objects.person``.
        name: What people call it; None if the file gives it no name.
        severity: ``alert``, ``detection`` or ``ignore``.
        min_score: The minimum score, 0 to 1.
        min_area: The minimum area of the box, as a fraction of the frame; None for no bound.
        max_area: The maximum area of the box.
        min_ratio: The minimum width divided by height of the box, in pixels; None for no bound.
        max_ratio: The maximum width divided by height.
        min_score_at_night: The minimum score at night; None for no further bound.
        min_count: The minimum number in one image; None for no bound.
        max_count: The maximum number in one image.
        repeats: Whether the camera's `repeats` applies to it; None for the default of the label.
        track: Whether the camera's `track` applies to it.
        confirm: Whether the camera's `confirm` applies to it.
        origins: For each value that the file sets, the entry that sets it, by the value's name,
            e.g. ``{"min_score": "profiles.outdoor.objects.person"}``.
    """

    entry: str
    name: str | None = None
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
    track: bool = True
    confirm: bool = True
    origins: Mapping[str, str] = field(default_factory=FrozenMapping)

    def origin(self, value: str) -> str:
        """Returns the dotted path of the entry that sets a value, or ``built in``."""
        return self.origins.get(value, BUILT_IN)

    def can_repeat(self, label: str) -> bool:
        """Returns whether the camera's `repeats` applies to the rule of a label."""
        return label != LABEL_WITHOUT_REPEATS if self.repeats is None else self.repeats

    def over(self, base: ObjectRule | None) -> ObjectRule:
        """Returns the rule with the values that the file sets in it over those of a base."""
        if base is None:
            return self
        return replace(
            base,
            entry=self.entry,
            origins=FrozenMapping({**base.origins, **self.origins}),
            **{name: getattr(self, name) for name in self.origins},
        )


@dataclass(frozen=True)
class Resolution:
    """The permitted sizes of a camera's images.

    Attributes:
        min: The minimum (width, height) in pixels; None for no bound.
        max: The maximum (width, height).
        origins: The section that sets each, e.g. ``{"min": "defaults.resolution"}``.
    """

    min: tuple[int, int] | None = None
    max: tuple[int, int] | None = None
    origins: Mapping[str, str] = field(default_factory=FrozenMapping)


@dataclass(frozen=True)
class _NamedArea:
    """A named area.

    Attributes:
        name: Its name.
        polygon: Its corners; None if no layer sets them, which the rules of no camera may do.
        anchor: The part of a box that must lie in it; see `Area`.
        min_overlap: The minimum overlap; see `Area`.
        origins: The entry that sets each value.
    """

    name: str
    polygon: tuple[Point, ...] | None = None
    anchor: Anchor = Area.anchor
    min_overlap: float = Area.min_overlap
    origins: Mapping[str, str] = field(default_factory=FrozenMapping)

    @cached_property
    def area(self) -> Area | None:
        """The area; None if no layer sets the polygon."""
        if self.polygon is None:
            return None
        return Area(self.polygon, self.anchor, self.min_overlap)

    def contains(self, box: Bbox) -> bool:
        """Returns whether a box belongs to the area."""
        return self.area is not None and self.area.contains(box)


@dataclass(frozen=True)
class Zone(_NamedArea):
    """An area in which objects can be threats.

    Attributes:
        objects: The labels that the zone names, with the values that the layers set in the zone;
            None if it names no label, and so covers all labels of the camera.
        rules: The rule of each label that it names: the camera's, with the values of the zone.
    """

    objects: Mapping[str, ObjectRule] | None = None
    rules: Mapping[str, ObjectRule] = field(default_factory=FrozenMapping)

    def rule_for(self, label: str, camera: CameraRules) -> ObjectRule | None:
        """Returns the rule for a label in the zone; None if the zone does not cover the label."""
        return camera.objects.get(label) if self.objects is None else self.rules.get(label)


@dataclass(frozen=True)
class Mask(_NamedArea):
    """An area in which objects are ignored.

    Attributes:
        objects: The labels; None for all.
    """

    objects: frozenset[str] | None = None


@dataclass(frozen=True)
class Repeats:
    """When a detection is a repeat of earlier ones: see `rules.schema.RepeatsSettings`."""

    iou: float = 0.5
    occurrences: int = 3
    within: timedelta = timedelta(hours=24)
    forget_after: int = 10
    min_score: float = 0.25
    origins: Mapping[str, str] = field(default_factory=FrozenMapping)

    @property
    def images_needed(self) -> int:
        """The number of earlier images on which the filter can depend."""
        return self.occurrences * self.forget_after

    @cached_property
    def within_microseconds(self) -> int:
        """The value of `within` in microseconds."""
        return self.within // _MICROSECOND


@dataclass(frozen=True)
class Track:
    """When an object with a low score has moved: see `rules.schema.TrackSettings`."""

    min_score: float = 0.1
    within: timedelta = timedelta(seconds=3)
    origins: Mapping[str, str] = field(default_factory=FrozenMapping)

    @cached_property
    def within_microseconds(self) -> int:
        """The value of `within` in microseconds."""
        return self.within // _MICROSECOND

    @property
    def looks_back(self) -> timedelta:
        """The maximum age of the images that show which objects stand still."""
        return 3 * self.within

    @cached_property
    def looks_back_microseconds(self) -> int:
        """The value of `looks_back` in microseconds."""
        return self.looks_back // _MICROSECOND


@dataclass(frozen=True)
class Confirm:
    """When a threat is confirmed: see `rules.schema.ConfirmSettings`."""

    pictures: int = 2
    within: timedelta = timedelta(seconds=30)
    unless_score: float | None = None
    origins: Mapping[str, str] = field(default_factory=FrozenMapping)

    @cached_property
    def within_microseconds(self) -> int:
        """The value of `within` in microseconds."""
        return self.within // _MICROSECOND


class LabelRules(NamedTuple):
    """The rules of one camera for one label.

    Attributes:
        zones: The zones that cover it, in the order of the file, each with its rule there.
        zone_names: The names of those zones.
        outside: Its rule outside of them: the camera's, or, for a label that only zones name, the
            first such zone's.
        rules_differ: Whether its rule depends on its position.
    """

    zones: tuple[tuple[Zone, ObjectRule], ...]
    zone_names: tuple[str, ...]
    outside: ObjectRule
    rules_differ: bool


@dataclass(frozen=True)
class CameraRules:
    """The effective rules of one camera.

    Attributes:
        profile: The profile that it inherits from; None without one.
        objects: The labels that can be threats and the rule of each, in the order of the file.
        resolution: The permitted sizes of its images; None for any.
        timezone: Its time zone, by its IANA name.
        names: How its files are named.
        zones: Its zones by name, in the order of the file.
        masks: Its masks by name, in the order of the file.
        tiles: The parts of an image that the model looks at besides the whole; None for none.
        schedule: When it is armed; None for always.
        night: When it is night; None for never.
        repeats: The settings of the filter `repeats`; None for off.
        track: The settings of the filter `track`; None for off.
        confirm: The settings of the filter `confirm`; None for off.
        cooldown: The cooldown after an alert; None for one alert per image.
        incident_gap: The time without threats that ends a cooldown; None if none does.
        notify: The names of the targets of its alerts.
        origins: The section that sets each value of schedule and night (``night.start``), and
            timezone, cooldown, incident_gap and notify.
    """

    profile: str | None = None
    objects: Mapping[str, ObjectRule] = field(default_factory=FrozenMapping)
    resolution: Resolution | None = None
    timezone: str = "UTC"
    names: NameSettings = field(default_factory=NameSettings)
    zones: Mapping[str, Zone] = field(default_factory=FrozenMapping)
    masks: Mapping[str, Mask] = field(default_factory=FrozenMapping)
    tiles: Tiles | None = None
    schedule: Schedule | None = None
    night: Night | None = None
    repeats: Repeats | None = None
    track: Track | None = None
    confirm: Confirm | None = None
    cooldown: timedelta | None = COOLDOWN
    incident_gap: timedelta | None = INCIDENT_GAP
    notify: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(default_factory=FrozenMapping)

    @property
    def local_zone(self) -> str:
        """The time zone of its schedule and night, by its IANA name: its own, or that of its names
        if it has none."""
        if "timezone" in self.origins:
            return self.timezone
        return self.names.timezone or self.timezone

    def all_rules(self) -> Iterator[tuple[str, ObjectRule]]:
        """Yields each rule with its label: those of the camera, and then those of its zones."""
        yield from self.objects.items()
        for zone in self.zones.values():
            yield from zone.rules.items()

    def rule_name(self, entry: str) -> str:
        """Returns what people call a rule: its name, or else its label and its place in the file.

        Args:
            entry: The rule's entry, as in a verdict; it may be one of an earlier version of the
                file.
        """
        for _, rule in self.all_rules():
            if rule.entry == entry and rule.name is not None:
                return rule.name
        return _entry_in_words(entry)

    def label_rules(self, label: str) -> LabelRules | None:
        """Returns the rules for a label; None if neither the camera nor a zone of it lists it."""
        try:
            return self._cached_label_rules[label]
        except KeyError:
            return self._cached_label_rules.setdefault(label, self._find_label_rules(label))

    @cached_property
    def _cached_label_rules(self) -> dict[str, LabelRules | None]:
        return {}

    def _find_label_rules(self, label: str) -> LabelRules | None:
        zones = tuple(
            (zone, rule) for zone in self.zones.values() if (rule := zone.rule_for(label, self))
        )
        camera_rule = self.objects.get(label)
        outside = camera_rule or next((rule for _, rule in zones), None)
        if outside is None:
            return None
        return LabelRules(
            zones=zones,
            zone_names=tuple(zone.name for zone, _ in zones),
            outside=outside,
            rules_differ=any(rule is not outside for _, rule in zones),
        )

    @property
    def needs_history(self) -> bool:
        """Whether any rule depends on earlier images."""
        return self.looks_back or self.cooldown is not None

    @property
    def looks_back(self) -> bool:
        """Whether the threats in an image depend on earlier images.

        If not, earlier images can only affect an image that has an alert, by a cooldown.
        """
        return any(rule is not None for rule in (self.repeats, self.track, self.confirm))

    @property
    def horizon(self) -> timedelta:
        """The maximum age of the earlier images on which a rule depends."""
        return max(
            timedelta(0),
            timedelta(0) if self.repeats is None else self.repeats.within,
            timedelta(0) if self.track is None else self.track.looks_back,
            timedelta(0) if self.confirm is None else self.confirm.within,
            self.cooldown or timedelta(0),
        )


def _entry_in_words(entry: str) -> str:
    match = _ENTRY.fullmatch(entry)
    if match is None:
        return entry
    zone, label = match["zone"], match["label"]
    if match["layer"] == "defaults":
        place = "the defaults"
    else:
        place = f"{match['layer'].removesuffix('s')} {match['owner']}"
    return f"{label} (zone {zone} of {place})" if zone else f"{label} ({place})"


def inherit(parent: CameraRules, layer: Layer | None, name: str) -> CameraRules:
    """Merges the settings of a layer over the rules that it inherits.

    The result shares with the parent what the layer does not change: ten thousand cameras of one
    profile hold its rules once.

    Args:
        parent: The rules that the layer inherits.
        layer: The defaults, a profile or a camera; None for an empty section.
        name: The layer's dotted path, e.g. ``profiles.outdoor``.
    """
    if layer is None:
        return parent
    changed: dict[str, Any] = {}
    if layer.objects:
        changed["objects"] = _merge_objects(parent.objects, layer.objects, name)
    if sizes := _configured_values(layer.resolution):
        sizes = {bound: tuple(size) for bound, size in sizes.items()}
        changed["resolution"] = _merge(
            parent.resolution or Resolution(), sizes, f"{name}.resolution"
        )
    changed |= _merge_names(parent, layer.names, f"{name}.names")
    if layer.zones or (layer.objects and parent.zones):
        objects = changed.get("objects", parent.objects)
        zones = _merge_zones(parent.zones, layer.zones or {}, name)
        changed["zones"] = FrozenMapping(
            {zone_name: _with_rules(zone, objects) for zone_name, zone in zones.items()}
        )
    if layer.mask:
        changed["masks"] = _merge_masks(parent.masks, layer.mask, name)
    for key, defaults in (
        *(("tiles", Tiles), ("repeats", Repeats)),
        *(("track", Track), ("confirm", Confirm)),
    ):
        if key in layer.model_fields_set:
            changed[key] = _merge_switchable(
                getattr(parent, key) or defaults(), getattr(layer, key), f"{name}.{key}"
            )
    times_and_targets, origins = _merge_times_and_targets(parent, layer, name)
    changed |= times_and_targets
    if not changed:
        return parent
    return replace(parent, origins=FrozenMapping({**parent.origins, **origins}), **changed)


def inherit_names(parent: CameraRules, settings: NamesSettings | None, section: str) -> CameraRules:
    """Merges how files are named over the rules that it belongs to.

    Args:
        parent: The rules.
        settings: How files are named; None if that is as before.
        section: The section's dotted path, e.g. ``names``.
    """
    changed = _merge_names(parent, settings, section)
    return replace(parent, names=changed["names"]) if changed else parent


def _merge_names(
    parent: CameraRules, settings: NamesSettings | None, section: str
) -> dict[str, NameSettings]:
    """Returns how files are named, if a section changes it."""
    values = _configured_values(settings)
    if not values:
        return {}
    if "preset" in values or "pattern" in values:  # Either takes the place of the other.
        values = {"preset": None, "pattern": None, **values}
    return {"names": _merge(parent.names, values, section)}


def _merge_times_and_targets(
    parent: CameraRules, layer: Layer, name: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the times and targets that a layer changes, and the origin of each."""
    changed: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if schedule := _configured_values(layer.schedule):
        periods = {
            key: tuple(WeeklyPeriod(**_configured_values(period)) for period in settings)
            for key, settings in schedule.items()
        }
        changed["schedule"] = replace(parent.schedule or Schedule(), **periods)
        origins |= {f"schedule.{key}": f"{name}.schedule" for key in schedule}
    if night := _configured_values(layer.night):
        changed["night"] = replace(parent.night or Night(), **night)
        origins |= {f"night.{key}": f"{name}.night" for key in night}
    for key in ("timezone", "cooldown", "incident_gap"):
        if key in layer.model_fields_set:
            changed[key] = getattr(layer, key) or None
            origins[key] = name
    if "cooldown" in changed and "incident_gap" not in {*changed, *parent.origins}:
        changed["incident_gap"] = None  # The built-in gap belongs to the built-in cooldown.
    if "notify" in layer.model_fields_set:
        changed["notify"] = tuple(dict.fromkeys(layer.notify))
        origins["notify"] = name
    return changed, origins


def _configured_values(settings: Any) -> dict[str, Any]:
    """Returns the values that the file sets in a section."""
    if settings is None:
        return {}
    return {name: getattr(settings, name) for name in settings.model_fields_set}


def _merge(parent: Any, values: dict[str, Any], entry: str) -> Any:
    """Returns a dataclass with other values, and with their entry in its `origins`."""
    return replace(parent, origins=_origins(parent, values, entry), **values)


def _origins(parent: Any, values: Iterable[str], entry: str) -> Mapping[str, str]:
    return FrozenMapping({**parent.origins, **dict.fromkeys(values, entry)})


def _merge_objects(
    parent: Mapping[str, ObjectRule],
    layer: Mapping[str, ObjectSettings | None],
    name: str,
) -> Mapping[str, ObjectRule]:
    objects = dict(parent)
    for label, settings in layer.items():
        entry = f"{name}.objects.{label}"
        base = replace(objects.get(label, ObjectRule(entry)), entry=entry)
        objects[label] = _merge(base, _configured_values(settings), entry)
    return FrozenMapping(objects)


def _merge_zones(
    parent: Mapping[str, Zone], layer: Mapping[str, ZoneSettings | None], name: str
) -> dict[str, Zone]:
    zones = dict(parent)
    for zone_name, settings in layer.items():
        entry = f"{name}.zones.{zone_name}"
        zone = _merge_area(zones.get(zone_name, Zone(zone_name)), settings, entry)
        if settings is not None and settings.objects is not None:
            objects = _merge_objects(zone.objects or {}, settings.objects, entry)
            zone = replace(zone, objects=objects)
        zones[zone_name] = zone
    return zones


def _with_rules(zone: Zone, objects: Mapping[str, ObjectRule]) -> Zone:
    own = zone.objects or {}
    rules = {label: rule.over(objects.get(label)) for label, rule in own.items()}
    return replace(zone, rules=FrozenMapping(rules))


def _merge_masks(
    parent: Mapping[str, Mask], layer: Mapping[str, MaskSettings | None], name: str
) -> Mapping[str, Mask]:
    masks = dict(parent)
    for mask_name, settings in layer.items():
        entry = f"{name}.mask.{mask_name}"
        mask = _merge_area(masks.get(mask_name, Mask(mask_name)), settings, entry)
        if settings is not None and "objects" in settings.model_fields_set:
            mask = replace(mask, objects=frozenset(settings.objects))
        masks[mask_name] = mask
    return FrozenMapping(masks)


AnyArea = TypeVar("AnyArea", Zone, Mask)


def _merge_area(parent: AnyArea, settings: Any, entry: str) -> AnyArea:
    values = _configured_values(settings)
    values.pop("objects", None)
    merged: AnyArea = _merge(parent, values, entry)
    return merged


def _merge_switchable(parent: Any, settings: Any, entry: str) -> Any:
    """Returns a section that `enabled` can turn off; None if it does."""
    values = _configured_values(settings)
    if not values.pop("enabled", True):
        return None
    return _merge(parent, values, entry)
