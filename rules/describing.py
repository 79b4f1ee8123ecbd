"""Describes the effective rules of each camera, for a person at a terminal."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from datetime import time, timedelta

from rules.effective import (
    BUILT_IN,
    CameraRules,
    Confirm,
    Mask,
    ObjectRule,
    Repeats,
    Track,
    Zone,
)
from rules.retention import FOR_GOOD, Retention
from rules.ruleset import Rules
from rules.schedule import DAYS, WeeklyPeriod
from rules.targets import Alerting
from rules.text import escaped, number_of
from rules.tiling import Tiles

_OBJECT_VALUES = (
    "name",
    "severity",
    "min_score",
    "min_area",
    "max_area",
    "min_ratio",
    "max_ratio",
    "min_score_at_night",
    "min_count",
    "max_count",
    "repeats",
)
_TILES_VALUES = ("columns", "rows", "overlap", "min_score")
_REPEATS_VALUES = ("iou", "occurrences", "within", "forget_after", "min_score")
_TRACK_VALUES = ("min_score", "within")
_CONFIRM_VALUES = ("pictures", "within", "unless_score")


def describe(rules: Rules) -> str:
    """Describes targets, limits and the effective rules of each camera, in the order of the file.

    The layer that sets a value follows it. The last paragraph describes ids that the file does not
    name. Lines end in ``\\n``.
    """
    count = len(rules.cameras)
    lines = [f"rules {rules.version}: {number_of(count, 'camera')}"]
    if for_all := [*_alerting(rules.alerting), *_retention(rules.retention)]:
        lines += ["", *for_all]
    for camera_id in rules.cameras:
        lines += ["", *_camera(rules, camera_id)]
    if rules.strict_ids:
        lines += ["", "any other id: refused as unknown_camera (strict_ids: true)"]
    else:
        lines += ["", "any other id: the defaults", *_body(rules.defaults)]
    return _text(lines)


def describe_camera(rules: Rules, camera_id: str) -> str:
    """Describes the effective rules and limits of one camera, which the file need not name."""
    limits = [f"  {line}" for line in _limits(rules.alerting)]
    if rules.has_camera(camera_id):
        return _text([*_camera(rules, camera_id), *limits])
    if rules.strict_ids:
        return _text([f"{camera_id}: refused as unknown_camera (strict_ids: true)"])
    near = difflib.get_close_matches(camera_id, rules.cameras, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return _text(
        [f"{camera_id}: not named, so the defaults{hint}", *_body(rules.defaults), *limits]
    )


def _alerting(alerting: Alerting) -> Iterator[str]:
    for target in alerting.targets.values():
        severities = ", ".join(sorted(target.severities))
        yield f"target {target.name}: {target.kind}, severity {severities}"
    if alerting.health:
        yield f"health findings: {', '.join(alerting.health)}"
    yield from _limits(alerting)


def _retention(retention: Retention | None) -> Iterator[str]:
    if retention is None:
        return
    ages = [
        f"{name} {'always' if age == FOR_GOOD else _duration(age)}"
        for name, age in retention.keep.items()
    ]
    longer = f"; longer: {', '.join(ages)}" if ages else ""
    yield f"prune keeps files for {_duration(retention.older_than)}{longer}"


def _limits(alerting: Alerting) -> Iterator[str]:
    for name, limit in (("each camera", alerting.per_id), ("all cameras", alerting.fleet)):
        if limit is not None:
            yield f"limit of {name}: {limit.alerts} alerts within {_duration(limit.within)}"


def _text(lines: list[str]) -> str:
    return "".join(f"{escaped(line)}\n" for line in lines)


def _camera(rules: Rules, camera_id: str) -> list[str]:
    camera = rules.for_camera(camera_id)
    profile = f" (profile {camera.profile})" if camera.profile is not None else ""
    return [f"{camera_id}{profile}", *_body(camera)]


def _body(camera: CameraRules) -> Iterator[str]:
    if not camera.objects and not any(zone.rules for zone in camera.zones.values()):
        yield "  no objects: nothing is a threat"
    width = max(map(len, camera.objects), default=0)
    for label, rule in camera.objects.items():
        yield f"  {label:<{width}}  {', '.join(_object(label, rule))}"
    for zone in camera.zones.values():
        yield from _zone(zone)
    for mask in camera.masks.values():
        labels = "all labels" if mask.objects is None else ", ".join(sorted(mask.objects))
        yield f"  mask {mask.name}: {labels}; {_area(mask, f'.mask.{mask.name}')}"
    yield from _names(camera)
    yield from _times(camera)
    for name, section, values in (
        ("tiles", camera.tiles, _TILES_VALUES),
        ("repeats", camera.repeats, _REPEATS_VALUES),
        ("track", camera.track, _TRACK_VALUES),
        ("confirm", camera.confirm, _CONFIRM_VALUES),
    ):
        if section is not None and (name != "repeats" or _any_can_repeat(camera)):
            yield f"  {name}: {', '.join(_section(section, values, f'.{name}'))}"
    yield from _cooldown(camera)
    if "notify" in camera.origins:
        names = ", ".join(camera.notify) or "nobody"
        yield f"  notify: {names} ({camera.origins['notify']})"
    if camera.resolution is not None:
        origins = camera.resolution.origins
        bounds = [
            f"{bound} {size[0]}x{size[1]} ({origins[bound].removesuffix('.resolution')})"
            for bound, size in (("min", camera.resolution.min), ("max", camera.resolution.max))
            if size is not None
        ]
        yield f"  resolution: {', '.join(bounds)}"


def _cooldown(camera: CameraRules) -> Iterator[str]:
    origins = camera.origins
    if camera.cooldown is None:
        yield f"  cooldown: 0s, one alert per image ({origins.get('cooldown', BUILT_IN)})"
        return
    yield f"  cooldown: {_duration(camera.cooldown)} ({origins.get('cooldown', BUILT_IN)})"
    if camera.incident_gap is not None:
        gap = _duration(camera.incident_gap)
        yield f"  incident_gap: {gap} ({origins.get('incident_gap', BUILT_IN)})"


def _any_can_repeat(camera: CameraRules) -> bool:
    return any(rule.can_repeat(label) for label, rule in camera.all_rules())


def _object(label: str, rule: ObjectRule) -> Iterator[str]:
    for name in _OBJECT_VALUES:
        value = getattr(rule, name)
        if value is not None:
            yield f"{name} {_shown(value)} ({rule.origin(name).removesuffix(f'.objects.{label}')})"
    for name in ("track", "confirm"):
        if not getattr(rule, name):
            yield f"{name} false ({rule.origin(name).removesuffix(f'.objects.{label}')})"


def _zone(zone: Zone) -> Iterator[str]:
    entry = f".zones.{zone.name}"
    labels = "all labels" if zone.objects is None else ", ".join(zone.objects)
    yield f"  zone {zone.name}: {labels}; {_area(zone, entry)}"
    for label, rule in (zone.objects or {}).items():
        values = [
            f"{name} {_shown(getattr(rule, name))} ({origin.split(entry)[0]})"
            for name, origin in rule.origins.items()
        ]
        if values:
            yield f"    {label}  {', '.join(values)}"


def _area(area: Zone | Mask, entry: str) -> str:
    if area.polygon is None:
        return "no polygon"
    origin = area.origins["polygon"].removesuffix(entry)
    minimum = f" of at least {area.min_overlap}" if area.anchor == "overlap" else ""
    return f"{len(area.polygon)} corners ({origin}), by {area.anchor}{minimum}"


def _names(camera: CameraRules) -> Iterator[str]:
    names = camera.names
    values = [
        f"{key} {value} ({names.origins[key].removesuffix('.names')})"
        for key in ("preset", "pattern", "timezone")
        if (value := getattr(names, key)) is not None
    ]
    if values:
        yield f"  names: {', '.join(values)}"


def _times(camera: CameraRules) -> Iterator[str]:
    schedule, night, origins = camera.schedule, camera.night, camera.origins
    if schedule is None and night is None:
        return
    of_names = BUILT_IN if camera.names.timezone is None else camera.names.origins["timezone"]
    yield f"  timezone: {camera.local_zone} ({origins.get('timezone', of_names)})"
    if schedule is not None:
        for name in ("armed", "disarmed"):
            if f"schedule.{name}" in origins:
                origin = origins[f"schedule.{name}"].removesuffix(".schedule")
                periods = ", ".join(map(_period, getattr(schedule, name))) or "never"
                yield f"  {name}: {periods} ({origin})"
    if night is not None:
        values = [
            f"{name} {_shown(value)} ({origins[f'night.{name}'].removesuffix('.night')})"
            for name in ("start", "end", "max_brightness")
            if (value := getattr(night, name)) is not None
        ]
        yield f"  night: {', '.join(values) or 'never'}"


def _period(period: WeeklyPeriod) -> str:
    days = (
        "every day" if len(period.days) == 7 else " ".join(DAYS[day] for day in sorted(period.days))
    )
    if period.start == period.end == time():
        return days
    return f"{days} {_shown(period.start)} to {_shown(period.end)}"


def _section(
    section: Tiles | Repeats | Track | Confirm, names: tuple[str, ...], suffix: str
) -> Iterator[str]:
    for name in names:
        value = getattr(section, name)
        if value is not None:
            origin = section.origins.get(name, BUILT_IN).removesuffix(suffix)
            yield f"{name} {_shown(value)} ({origin})"


def _shown(value: object) -> str:
    if isinstance(value, time):
        return f"{value:%H:%M}"
    if isinstance(value, timedelta):
        return _duration(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _duration(length: timedelta) -> str:
    seconds = length // timedelta(seconds=1)
    for unit, name in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds % unit == 0:
            return f"{seconds // unit}{name}"
    return f"{seconds}s"
