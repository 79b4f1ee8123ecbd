"""Zones and masks of a camera that a person draws: what the rule file is to say of them.

area = DrawnArea("hall", "zones", "drive", ((0, 0.5), (1, 0.5), (1, 1)))
settings = area.settings(ruleset.for_camera("hall"))
apply_settings(text, settings)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import rules
from beam_pipeline.evaluation.rule_edits import Setting, Value, WholeList
from rules.effective import Mask, Zone, inherit
from rules.frozen import FrozenMapping
from rules.geometry import Anchor, Area, Point, polygon_problem
from rules.schema import Layer

Section = Literal["zones", "mask"]
SECTIONS: tuple[str, ...] = get_args(Section)
ANCHORS: tuple[str, ...] = get_args(Anchor)
WORDS = {"zones": "zone", "mask": "mask"}
MOST_CORNERS = 100
_LONGEST_NAME = 64


class AreaError(ValueError):
    """Why an area can't be, for a person."""


@dataclass(frozen=True)
class DrawnArea:
    """A zone or a mask of one camera as it is drawn.

    Attributes:
      camera: The camera.
      section: `zones` or `mask`.
      name: Its name.
      polygon: Its corners as fractions of the frame; rounded to 4 decimals.
      anchor: The part of a box that must lie in it.
      min_overlap: For the anchor `overlap`, the fraction of a box that must; rounded likewise.
      labels: The labels that it is about; None for all.

    Raises:
      AreaError: There can be no such area.
    """

    camera: str
    section: Section
    name: str
    polygon: tuple[Point, ...]
    anchor: Anchor = "bottom_center"
    min_overlap: float = 0.5
    labels: frozenset[str] | None = None

    def __post_init__(self) -> None:
        word = WORDS[self.section]
        if not self.name or len(self.name) > _LONGEST_NAME or not self.name.isprintable():
            raise AreaError(
                f"Give the {word} a name of up to {_LONGEST_NAME} printable characters."
            )
        if len(self.polygon) > MOST_CORNERS:
            raise AreaError(
                f"The {word} has {len(self.polygon)} corners; draw it with up to {MOST_CORNERS}."
            )
        problem = polygon_problem(self.polygon)
        if problem is not None:
            raise AreaError("The polygon: {}; {}.".format(*problem))
        if not 0.0001 <= self.min_overlap <= 1:
            raise AreaError("The minimum overlap must be from 0.0001 to 1.")
        if self.labels is not None and not self.labels:
            raise AreaError(f"Choose the labels that the {word} is about, or all of them.")
        rounded = tuple((round(x, 4) + 0.0, round(y, 4) + 0.0) for x, y in self.polygon)
        object.__setattr__(self, "polygon", rounded)
        object.__setattr__(self, "min_overlap", round(self.min_overlap, 4))

    @property
    def area(self) -> Area:
        """The area, which says whether a box belongs to it."""
        return Area(self.polygon, self.anchor, self.min_overlap)

    def is_about(self, label: str) -> bool:
        """Returns whether it is about a label."""
        return self.labels is None or label in self.labels

    def settings(self, camera: rules.CameraRules) -> tuple[Setting, ...]:
        """Returns what the rule file is to say, so that the camera has this area.

        Of an area that is there, only what differs is set. Values of a label in a zone stay.

        Args:
          camera: The rules of the camera as they are.
        """
        path = ("cameras", self.camera, self.section, self.name)
        current = find_area(camera, self.section, self.name)
        if current is None:
            return ((path, self._whole()),)
        return tuple((path + key, value) for key, value in self._changes(current))

    def applied(self, ruleset: rules.Rules) -> rules.Rules:
        """Returns rules in which the camera has this area.

        They judge as the file with `settings` does, which takes long to be written and read if it
        has many cameras.

        Args:
          ruleset: The rules as they are.
        """
        camera = ruleset.for_camera(self.camera)
        polygon = [[x, y] for x, y in self.polygon]
        values: dict[str, Any] = {"polygon": polygon, "anchor": self.anchor}
        if self.anchor == "overlap":
            values["min_overlap"] = self.min_overlap
        if self.section == "zones":
            zone = camera.zones.get(self.name, Zone(self.name))
            before = zone.objects or {}
            kept = {label: rule for label, rule in before.items() if self.is_about(label)}
            if self.labels is not None:
                values["objects"] = dict.fromkeys(sorted(self.labels - kept.keys()))
            zone = replace(zone, objects=None if self.labels is None else FrozenMapping(kept))
            camera = replace(camera, zones=FrozenMapping({**camera.zones, self.name: zone}))
        else:
            mask = replace(camera.masks.get(self.name, Mask(self.name)), objects=self.labels)
            camera = replace(camera, masks=FrozenMapping({**camera.masks, self.name: mask}))
        layer = Layer.model_validate({self.section: {self.name: values}})
        camera = inherit(camera, layer, f"cameras.{self.camera}")
        cameras = FrozenMapping({**ruleset.by_camera, self.camera: camera})
        return replace(ruleset, by_camera=cameras)

    def check(self, camera: rules.CameraRules) -> None:
        """Checks that rules have this area.

        Raises:
          AreaError: They have another one, as a layer below sets values that can't be taken away.
        """
        found = find_area(camera, self.section, self.name)
        same = found is not None and (
            _corners(found) == self.polygon
            and found.anchor == self.anchor
            and (found.anchor != "overlap" or found.min_overlap == self.min_overlap)
        )
        if not same or found is None or labels_of(found) != self.labels:
            raise AreaError(
                f"A {WORDS[self.section]} {self.name} that all cameras or those of a profile have "
                "names further labels, and one camera can't leave them out. Give this one another "
                "name, or edit the rule file."
            )

    def _whole(self) -> Value:
        values: dict[str, Value] = {"polygon": _polygon(self.polygon)}
        if self.anchor != "bottom_center":
            values["anchor"] = self.anchor
        if self.anchor == "overlap":
            values["min_overlap"] = _number(self.min_overlap)
        if self.labels is not None:
            labels = sorted(self.labels)
            values["objects"] = [*labels] if self.section == "mask" else {one: {} for one in labels}
        return values

    def _changes(self, current: Zone | Mask) -> Iterator[tuple[tuple[str, ...], Value | None]]:
        if _corners(current) != self.polygon:
            yield ("polygon",), WholeList(_polygon(self.polygon))
        if current.anchor != self.anchor:
            yield ("anchor",), self.anchor
        if self.anchor == "overlap" and current.min_overlap != self.min_overlap:
            yield ("min_overlap",), _number(self.min_overlap)
        before = labels_of(current)
        if before == self.labels:
            return
        if self.labels is None:
            yield ("objects",), None
        elif self.section == "mask":
            yield ("objects",), WholeList(sorted(self.labels))
        else:
            known = before or frozenset()
            yield from ((("objects", label), {}) for label in sorted(self.labels - known))
            yield from ((("objects", label), None) for label in sorted(known - self.labels))


def removal(camera: str, section: Section, name: str) -> tuple[Setting, ...]:
    """Returns what removes a camera's own zone or mask from the rule file."""
    return ((("cameras", camera, section, name), None),)


def find_area(camera: rules.CameraRules, section: str, name: str) -> Zone | Mask | None:
    """Returns a zone or mask of a camera; None if it has no such one."""
    areas: Iterable[Zone | Mask] = (
        camera.zones.values() if section == "zones" else camera.masks.values()
    )
    return next((area for area in areas if area.name == name), None)


def labels_of(area: Zone | Mask) -> frozenset[str] | None:
    """Returns the labels that a zone or mask is about; None for all."""
    return None if area.objects is None else frozenset(area.objects)


def labels_of_camera(camera: rules.CameraRules) -> tuple[str, ...]:
    """Returns the labels that an area of a camera can be about: those that its rules name."""
    named = {label for label, _ in camera.all_rules()}
    for mask in camera.masks.values():
        named |= mask.objects or frozenset()
    return tuple(sorted(named))


def _corners(area: Zone | Mask) -> tuple[Point, ...]:
    return tuple((round(x, 4), round(y, 4)) for x, y in area.polygon or ())


def _polygon(polygon: Iterable[Point]) -> list[Value]:
    return [[_number(x), _number(y)] for x, y in polygon]


def _number(value: float) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".")
