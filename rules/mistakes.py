"""The wording of the mistakes in a rule file.

`schema_mistake` says in words what the schema rejects. The other functions find the mistakes that
only several values together show: bounds that cross, and values that need another value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from rules.document import Document, Path
from rules.effective import CameraRules, ObjectRule, Resolution
from rules.errors import Mistake, key_path, suggestion
from rules.schema import Layer, NamesSettings, RuleFile, schema_at
from rules.text import shortened
from rules.tiling import SMALLEST_TILE

_KEYS_OF_KINDS: dict[str, frozenset[str]] = {
    "webhook": frozenset(("token", "secret", "ca")),
    "mqtt": frozenset(("ca",)),
    "apprise": frozenset(),
}
"""The keys that only targets of some kinds have."""
MOST_TILES = 16
"""The most tiles of an image: with the whole image, 17 inferences."""
_BOUNDS = (("min_area", "max_area"), ("min_ratio", "max_ratio"), ("min_count", "max_count"))


def schema_mistake(error: Any, document: Document) -> Mistake:
    """Words a mistake that the schema found.

    Args:
        error: One item of pydantic's `ValidationError.errors()`.
        document: The file, for the line of the mistake.
    """
    path: Path = error["loc"]
    is_key = path[-1:] == ("[key]",)  # pydantic's mark for a mistake in a key, not in its value.
    path = path[:-1] if is_key else path
    problem, remedy = _wording(error, path, is_key)
    dotted = key_path(path)
    return Mistake(document.line_of(path), f"{dotted}: {problem}" if dotted else problem, remedy)


def _wording(error: Any, path: Path, is_key: bool) -> tuple[str, str]:
    kind, value = error["type"], error["input"]
    if kind == "rules":
        return error["ctx"]["problem"], error["ctx"]["remedy"]
    if kind == "extra_forbidden":
        return "unknown key", suggestion(str(path[-1]), schema_at(path[:-1]).keys, "keys here")
    expects = schema_at(path).expects
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
    return f"is {_description(value)}", remedy


def _is_number_or_bool(text: str) -> bool:
    if text in ("true", "false"):
        return True
    try:
        float(text)
    except ValueError:
        return False
    return True


def _description(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the text {shortened(value)!r}"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return f"the list {shortened(str(value))}"
    return shortened(str(value))


def target_mistakes(settings: RuleFile, document: Document) -> Iterator[Mistake]:
    """Yields a mistake for each target whose keys do not fit together."""
    for name, target in (settings.targets or {}).items():
        keys = set() if target is None else target.model_fields_set
        path = ("targets", name)
        kinds = keys & _KEYS_OF_KINDS.keys()
        if len(kinds) != 1:
            yield _mistake_at(
                path,
                "needs one address",
                "write one of webhook: https://…, mqtt: mqtt://… or apprise: …",
                document,
            )
            continue
        others = {key for keys in _KEYS_OF_KINDS.values() for key in keys}
        if wrong := keys & (others - _KEYS_OF_KINDS[kinds.pop()]):
            key = min(wrong)
            owners = " or ".join(kind for kind, own in _KEYS_OF_KINDS.items() if key in own)
            yield _mistake_at(
                (*path, key), f"is for {owners} only", "put it into the address", document
            )


def crossed_bounds(
    rules: CameraRules, layer: Layer, path: tuple[str, ...], document: Document
) -> Iterator[Mistake]:
    """Yields a mistake for each pair of bounds that crosses because of this layer."""
    entries = [
        (rules.objects[label], settings, (*path, "objects", label))
        for label, settings in (layer.objects or {}).items()
    ]
    for name, zone in (layer.zones or {}).items():
        for label, settings in ((zone and zone.objects) or {}).items():
            entry_path = (*path, "zones", name, "objects", label)
            entries.append((rules.zones[name].rules[label], settings, entry_path))
    for rule, settings, entry_path in entries:
        for low, high in _BOUNDS:
            minimum, maximum = getattr(rule, low), getattr(rule, high)
            if minimum is None or maximum is None or minimum <= maximum:
                continue
            if settings is not None and settings.model_fields_set & {low, high}:
                yield _crossed(rule, entry_path, low, high, document)
    resolution = rules.resolution
    if resolution is None or resolution.min is None or resolution.max is None:
        return
    crossed = resolution.min[0] > resolution.max[0] or resolution.min[1] > resolution.max[1]
    if crossed and layer.resolution is not None and layer.resolution.model_fields_set:
        yield _crossed(resolution, (*path, "resolution"), "min", "max", document)


def incomplete_settings(
    rules: CameraRules, layer: Layer, path: tuple[str, ...], document: Document
) -> Iterator[Mistake]:
    """Yields a mistake for each value that needs another value, which is not set."""
    yield from two_ways_of_naming(layer.names, path, document)
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
    for section in ("tiles", "resolution"):
        if section in layer.model_fields_set:
            yield from _unfit_tiles(rules, (*path, section), document)
            break
    for section, areas, layer_areas in (
        ("zones", rules.zones, layer.zones),
        ("mask", rules.masks, layer.mask),
    ):
        for name, settings in (layer_areas or {}).items():
            sets_overlap = settings is not None and "min_overlap" in settings.model_fields_set
            if sets_overlap and areas[name].anchor != "overlap":
                yield _mistake_at(
                    (*path, section, name, "min_overlap"),
                    "has an effect only with anchor: overlap",
                    "write that too, or leave this out",
                    document,
                )


def _unfit_tiles(
    rules: CameraRules, path: tuple[str, ...], document: Document
) -> Iterator[Mistake]:
    """Yields a mistake if there are too few or too many tiles, or if they are always too small."""
    tiles = rules.tiles
    if tiles is None:
        return
    if not 2 <= tiles.count <= MOST_TILES:
        what = "1 tile, which is the whole image" if tiles.count == 1 else f"{tiles.count} tiles"
        yield _mistake_at(
            path,
            f"columns: {tiles.columns} and rows: {tiles.rows} make {what}",
            f"columns times rows must be 2 to {MOST_TILES}",
            document,
        )
        return
    largest = None if rules.resolution is None else rules.resolution.max
    if largest is not None and not tiles.fit(*largest):
        width, height = tiles.size(*largest)
        yield _mistake_at(
            path,
            f"the tiles of an image of {largest[0]}x{largest[1]} pixels, the largest permitted "
            f"one, have {width:.0f}x{height:.0f} pixels",
            f"they need {SMALLEST_TILE}x{SMALLEST_TILE}; write fewer columns or rows",
            document,
        )


def two_ways_of_naming(
    names: NamesSettings | None, path: tuple[str, ...], document: Document
) -> Iterator[Mistake]:
    """Yields a mistake if a section has both a preset and a pattern of names."""
    if names is not None and {"preset", "pattern"} <= names.model_fields_set:
        yield _mistake_at(
            (*path, "names", "pattern"),
            "is one way of naming, and preset another",
            "keep one of them",
            document,
        )


def missing_settings(
    rules: CameraRules, path: tuple[str, ...], document: Document
) -> Iterator[Mistake]:
    """Yields a mistake for each value that a camera needs and no layer sets."""
    for section, areas in (("zones", rules.zones), ("mask", rules.masks)):
        for name, area in areas.items():
            if area.polygon is None:
                yield _mistake_at(
                    (*path, section, name),
                    "has no polygon",
                    "write its corners, such as polygon: [[0, 0.5], [1, 0.5], [1, 1], [0, 1]]",
                    document,
                )
    for _, rule in rules.all_rules():
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
    rule: ObjectRule | Resolution,
    path: tuple[str, ...],
    low: str,
    high: str,
    document: Document,
) -> Mistake:
    entry = ".".join(path)
    key, other_key = (high, low) if rule.origins[high] == entry else (low, high)
    value, bound = (
        list(side) if isinstance(side, tuple) else side
        for side in (getattr(rule, key), getattr(rule, other_key))
    )
    relation, need = ("below", "at least") if key == high else ("above", "at most")
    origin = rule.origins[other_key]
    of_origin = "" if origin == entry else f" of {origin}"
    return Mistake(
        document.line_of((*path, key)),
        f"{key_path(path)}.{key}: {value} is {relation} the {other_key} {bound}{of_origin}",
        f"must be {need} {bound}",
    )
