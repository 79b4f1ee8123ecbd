"""From a rule file to `Rules`, or to one line that says what is wrong with it.

The checks: the text is UTF-8 and YAML (`rules.document`); its keys, values and names are right
(`rules.schema`); and, once they all are, no lower bound is above its upper bound, whichever layers
the two come from.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from rules.document import Document, Path, read_document
from rules.effective import CameraRules, inherit
from rules.errors import Mistake, RulesError, key_path, raise_first, shortened, suggestion
from rules.frozen import FrozenMapping
from rules.ruleset import Rules
from rules.schema import Layer, RuleFile, place_at
from rules.schema_types import Names
from rules.target_schema import LimitSettings
from rules.targets import Alerting, Kind, Limit, Target

VERSION_DIGITS = 12

_BOUNDS = (("min_area", "max_area"), ("min_ratio", "max_ratio"), ("min_count", "max_count"))


def load_rules(path: str | os.PathLike[str], labels: Collection[str] | None = None) -> Rules:
    """Read a rule file from the local disk.

    Args:
        path: the file.
        labels: the labels that the model can give; None to let any label pass.

    Raises:
        RulesError: the file cannot be read or is not right; one line for a person.
    """
    source = os.fspath(path)
    try:
        with open(path, "rb") as file:
            content = file.read()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise RulesError(source, None, f"cannot be read: {reason}", "check the path") from error
    return parse_rules(content, source, labels)


def parse_rules(text: str | bytes, source: str, labels: Collection[str] | None = None) -> Rules:
    """Read the content of a rule file.

    Args:
        text: the content. Give the bytes where there are any: `Rules.version` is over them, and a
            text whose line ends were translated has another.
        source: the name of the file, for messages.
        labels: the labels that the model can give; None to let any label pass.

    Raises:
        RulesError: the content is not right; one line for a person.
    """
    content = text if isinstance(text, bytes) else _encoded(text, source)
    document = read_document(_decoded(content, source), source)
    settings = _validated(document, source, None if labels is None else tuple(labels))
    rules, mistakes = _effective(settings, document, hashlib.sha256(content).hexdigest())
    raise_first(source, mistakes)
    return rules


def _encoded(text: str, source: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise RulesError(
            source, line, "half a surrogate pair is no character", "give the file's bytes"
        ) from error


def _decoded(content: bytes, source: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RulesError(source, line, "not UTF-8 text", "save the file as UTF-8") from error


def _validated(document: Document, source: str, labels: tuple[str, ...] | None) -> RuleFile:
    value = _with_names_as_written(document)
    names = Names(labels, profiles=_names(value, "profiles"), targets=_names(value, "targets"))
    try:
        settings = RuleFile.model_validate(value, context=names)
    except ValidationError as error:
        found = [_mistake(item, document) for item in error.errors(include_url=False)]
        raise_first(source, [*document.mistakes, *found])
        raise  # not reached: a ValidationError holds at least one error
    raise_first(source, document.mistakes)
    return settings


def _with_names_as_written(document: Document) -> object:
    """``profile: 007`` names the profile 007, as the key ``007:`` does."""
    cameras = document.value.get("cameras") if isinstance(document.value, dict) else None
    for camera_id, camera in cameras.items() if isinstance(cameras, dict) else ():
        written = document.written.get(("cameras", camera_id, "profile"))
        if isinstance(camera, dict) and written is not None:
            camera["profile"] = written
    return document.value


def _names(value: object, section: str) -> tuple[str, ...] | None:
    names = value.get(section) if isinstance(value, dict) else None
    if names is None:
        return ()
    return tuple(names) if isinstance(names, dict) else None


def _mistake(error: Any, document: Document) -> Mistake:
    path: Path = error["loc"]
    is_key = path[-1:] == ("[key]",)  # pydantic's mark for a mistake in a key, not in its value
    path = path[:-1] if is_key else path
    problem, remedy = _wording(error, path, is_key)
    where = key_path(path)
    return Mistake(document.line_of(path), f"{where}: {problem}" if where else problem, remedy)


def _wording(error: Any, path: Path, is_key: bool) -> tuple[str, str]:
    kind, value = error["type"], error["input"]
    if kind == "rules":
        return error["ctx"]["problem"], error["ctx"]["remedy"]
    if kind == "extra_forbidden":
        return "unknown key", suggestion(str(path[-1]), place_at(path[:-1]).keys, "keys here")
    expects = place_at(path).expects
    if kind == "missing":
        return "missing", f"write {path[-1]}: {expects}"
    if is_key and kind == "string_pattern_mismatch":
        return (
            "not a camera id",
            "an id is 1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit",
        )
    if is_key:
        return "a label is empty", "write a label of the model, e.g. person"
    if value is None:
        return "has no value", f"write {expects}, or leave the key out"
    remedy = f"must be {expects}"
    if isinstance(value, str) and kind == "literal_error":
        hint = suggestion(value, re.findall(r"'([^']*)'", error["ctx"]["expected"]), "values")
        remedy += f"; {hint}" if hint.startswith("did") else ""
    elif isinstance(value, str) and kind in ("float_type", "int_type", "bool_type"):
        remedy += ", without quotes" if _is_number_or_bool(value) else ""
    return f"is {_shown(value)}", remedy


def _is_number_or_bool(text: str) -> bool:
    if text in ("true", "false"):
        return True
    try:
        float(text)
    except ValueError:
        return False
    return True


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the text {shortened(value)!r}"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return f"the list {shortened(str(value))}"
    return shortened(str(value))


def _effective(settings: RuleFile, document: Document, digest: str) -> tuple[Rules, list[Mistake]]:
    mistakes: list[Mistake] = []

    def joined(parent: CameraRules, layer: Layer | None, path: tuple[str, ...]) -> CameraRules:
        rules = inherit(parent, layer, ".".join(path))
        if layer is not None:
            mistakes.extend(_crossed_bounds(rules, layer, path, document))
            mistakes.extend(_half_said(rules, layer, path, document))
        return rules

    defaults = joined(CameraRules(), settings.defaults, ("defaults",))
    if not settings.strict_ids:
        mistakes.extend(_missing(defaults, ("defaults",), document))
    profiles = {}
    for name, profile in (settings.profiles or {}).items():
        profiles[name] = joined(replace(defaults, profile=name), profile, ("profiles", name))
    cameras = {}
    for camera_id, camera in (settings.cameras or {}).items():
        has_profile = camera is not None and "profile" in camera.model_fields_set
        parent = profiles[camera.profile] if camera is not None and has_profile else defaults
        path = ("cameras", camera_id)
        cameras[camera_id] = joined(parent, camera, path)
        mistakes.extend(_missing(cameras[camera_id], path, document))
    rules = Rules(
        version=digest[:VERSION_DIGITS],
        strict_ids=settings.strict_ids,
        defaults=defaults,
        by_camera=FrozenMapping(cameras),
        alerting=_alerting(settings),
    )
    mistakes.extend(_target_mistakes(settings, document))
    return rules, mistakes


def _alerting(settings: RuleFile) -> Alerting:
    targets = {}
    for name, target in (settings.targets or {}).items():
        if target is not None:
            kind: Kind = "webhook" if "webhook" in target.model_fields_set else "apprise"
            severities = frozenset(target.severities or ("alert",))
            url = target.webhook or target.apprise
            targets[name] = Target(
                name, kind, url, target.token, target.secret, target.ca, severities
            )
    limits, message, health = settings.limits, settings.message, settings.health
    return Alerting(
        targets=FrozenMapping(targets),
        per_id=_limit(None if limits is None else limits.per_id),
        fleet=_limit(None if limits is None else limits.fleet),
        subject=None if message is None else message.subject,
        body=None if message is None else message.body,
        health=() if health is None else tuple(dict.fromkeys(health.targets or ())),
    )


def _limit(settings: LimitSettings | None) -> Limit | None:
    return None if settings is None else Limit(settings.alerts, settings.within)


def _target_mistakes(settings: RuleFile, document: Document) -> Iterator[Mistake]:
    for name, target in (settings.targets or {}).items():
        given = set() if target is None else target.model_fields_set
        path = ("targets", name)
        if len(given & {"webhook", "apprise"}) != 1:
            yield _mistake_at(
                path,
                "needs one address",
                "write webhook: https://… or apprise: …, and not both",
                document,
            )
        elif "apprise" in given and (only := given & {"token", "secret", "ca"}):
            key = min(only)
            yield _mistake_at(
                (*path, key), "is of a webhook only", "put it into the address", document
            )


def _crossed_bounds(
    rules: CameraRules, layer: Layer, path: tuple[str, ...], document: Document
) -> Iterator[Mistake]:
    """The pairs of bounds that cross because of what this layer gives."""
    said = [
        (rules.objects[label], given, (*path, "objects", label))
        for label, given in (layer.objects or {}).items()
    ]
    for name, zone in (layer.zones or {}).items():
        for label, given in ((zone and zone.objects) or {}).items():
            place = (*path, "zones", name, "objects", label)
            said.append((rules.zones[name].rules[label], given, place))
    for rule, given, place in said:
        for low, high in _BOUNDS:
            least, greatest = getattr(rule, low), getattr(rule, high)
            if least is None or greatest is None or least <= greatest:
                continue
            if given is not None and given.model_fields_set & {low, high}:
                yield _crossed(rule, place, low, high, document)
    resolution = rules.resolution
    if resolution is None or resolution.min is None or resolution.max is None:
        return
    crossed = resolution.min[0] > resolution.max[0] or resolution.min[1] > resolution.max[1]
    if crossed and layer.resolution is not None and layer.resolution.model_fields_set:
        yield _crossed(resolution, (*path, "resolution"), "min", "max", document)


def _half_said(
    rules: CameraRules, layer: Layer, path: tuple[str, ...], document: Document
) -> Iterator[Mistake]:
    """What means something only together with another value."""
    night = rules.night
    if (
        layer.night is not None
        and night is not None
        and (night.start is None) != (night.end is None)
    ):
        missing = "start" if night.start is None else "end"
        yield _mistake_at(
            (*path, "night"), f"has no {missing}", f"write {missing} too, such as 06:00", document
        )
    for section, places, given in (
        ("zones", rules.zones, layer.zones),
        ("mask", rules.masks, layer.mask),
    ):
        for name, settings in (given or {}).items():
            says = settings is not None and "min_overlap" in settings.model_fields_set
            if says and places[name].place.get("anchor") != "overlap":
                yield _mistake_at(
                    (*path, section, name, "min_overlap"),
                    "is of use only with anchor: overlap",
                    "write that too, or leave this out",
                    document,
                )


def _missing(rules: CameraRules, path: tuple[str, ...], document: Document) -> Iterator[Mistake]:
    """What a camera needs and no layer gives."""
    for section, places in (("zones", rules.zones), ("mask", rules.masks)):
        for name, place in places.items():
            if place.area is None:
                yield _mistake_at(
                    (*path, section, name),
                    "has no polygon",
                    "write its corners, such as polygon: [[0, 0.5], [1, 0.5], [1, 1], [0, 1]]",
                    document,
                )
    of_zones = [rule for zone in rules.zones.values() for rule in zone.rules.values()]
    for rule in (*rules.objects.values(), *of_zones):
        if rule.min_score_at_night is not None and rules.night is None:
            yield _mistake_at(
                (*path, "night"),
                f"missing, and {rule.origin('min_score_at_night')} has a min_score_at_night",
                'say when it is night, such as night: {start: "20:00", end: "06:00"}',
                document,
            )
            return


def _mistake_at(path: tuple[str, ...], problem: str, remedy: str, document: Document) -> Mistake:
    return Mistake(document.line_of(path), f"{key_path(path)}: {problem}", remedy)


def _crossed(
    holder: Any, path: tuple[str, ...], low: str, high: str, document: Document
) -> Mistake:
    entry = ".".join(path)
    blamed, other = (high, low) if holder.origins[high] == entry else (low, high)
    value, bound = getattr(holder, blamed), getattr(holder, other)
    value, bound = (list(side) if isinstance(side, tuple) else side for side in (value, bound))
    side, need = ("below", "at least") if blamed == high else ("above", "at most")
    origin = holder.origins[other]
    of = "" if origin == entry else f" of {origin}"
    return Mistake(
        document.line_of((*path, blamed)),
        f"{key_path(path)}.{blamed}: {value} is {side} the {other} {bound}{of}",
        f"must be {need} {bound}",
    )
