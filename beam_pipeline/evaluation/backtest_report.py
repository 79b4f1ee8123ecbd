"""The result of a backtest, for a person and for a program."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from beam_pipeline.console.tables import align
from rules.text import number_of
from transforms.records.text import printable


class TallyJson(TypedDict):
    """A :class:`transforms.backtest.Tally` as JSON."""

    before: int
    after: int
    gained: int
    lost: int
    gained_from: dict[str, int]
    lost_to: dict[str, int]


class CameraJson(TypedDict):
    """A :class:`transforms.backtest.CameraResult` as JSON."""

    id: str
    images: int
    not_compared: int
    other_tiles: int
    first: str | None
    last: str | None
    alerts: TallyJson
    by_rule: dict[str, TallyJson]
    problems: list[tuple[str, str]]


class BoxJson(TypedDict):
    """A :class:`transforms.backtest.Box` as JSON."""

    label: str
    conf: float
    bbox: list[float]


class ExampleJson(TypedDict):
    """A :class:`transforms.backtest.Example` as JSON."""

    timestamp: str
    file: str
    uri: str
    sha256: str
    score: float
    by: str
    boxes: list[BoxJson]


class ChangeJson(TypedDict):
    """A :class:`transforms.backtest.Change` as JSON."""

    id: str
    rule: str
    kind: Literal["gained", "lost"]
    pictures: int
    examples: list[ExampleJson]


class ResultJson(TypedDict):
    """What the pipeline of a backtest leaves."""

    cameras: list[CameraJson]
    changes: list[ChangeJson]


_RULE_ROWS = 40


@dataclass(frozen=True)
class Report:
    """The result of a backtest.

    Attributes:
      archive: What was judged.
      rules: File and version of the rules.
      against: The same of what is compared with; None for the stored verdicts.
      since: Start of the period, canonical; None for all.
      until: End of the period, exclusive; None for all.
      total: The numbers of all cameras.
      cameras: Those of each, by id, as :class:`transforms.backtest.CameraResult` in JSON.
      by_rule: Those of each rule.
      changes: The largest changes, as :class:`transforms.backtest.Change` in JSON.
      problems: What could not be read, and why.
      cameras_not_in_archive: Cameras that a rule file names and the archive has not.
      cameras_not_in_rules: Cameras of the archive that strict rules do not name, by rule file.
    """

    archive: tuple[str, ...]
    rules: tuple[str, str]
    against: tuple[str, str] | None
    since: str | None
    until: str | None
    total: TallyJson
    cameras: Sequence[CameraJson]
    by_rule: Mapping[str, TallyJson]
    changes: Sequence[ChangeJson]
    problems: Sequence[tuple[str, str]]
    cameras_not_in_archive: Sequence[str]
    cameras_not_in_rules: Mapping[str, Sequence[str]]

    @property
    def images(self) -> int:
        """The number of images that were compared."""
        return sum(camera["images"] for camera in self.cameras)

    @property
    def not_compared(self) -> int:
        """The number of images without a stored verdict."""
        return sum(camera["not_compared"] for camera in self.cameras)

    @property
    def other_tiles(self) -> int:
        """The number of images that were detected with other tiles than the rules have."""
        return sum(camera["other_tiles"] for camera in self.cameras)

    @property
    def changed_cameras(self) -> list[CameraJson]:
        """Cameras with a change, those with most first."""
        changed = [camera for camera in self.cameras if _changes(camera["alerts"])]
        return sorted(changed, key=lambda camera: (-_changes(camera["alerts"]), camera["id"]))

    @property
    def changed_rules(self) -> list[tuple[str, TallyJson]]:
        """Rules with a change, those with most first."""
        changed = [rule for rule in self.by_rule.items() if _changes(rule[1])]
        return sorted(changed, key=lambda rule: (-_changes(rule[1]), rule[0]))

    @property
    def compared_with(self) -> str:
        """What is compared with, in words."""
        if self.against is None:
            return "the stored verdicts"
        return f"{self.against[0]} (version {self.against[1]})"

    def to_json(self) -> dict[str, Any]:
        """Returns all of it, for a program."""
        return {
            "archive": list(self.archive),
            "rules": dict(zip(("file", "version"), self.rules, strict=True)),
            "against": self.against and dict(zip(("file", "version"), self.against, strict=True)),
            "since": self.since,
            "until": self.until,
            "images": self.images,
            "not_compared": self.not_compared,
            "other_tiles": self.other_tiles,
            "alerts": self.total,
            "by_id": [
                {key: value for key, value in camera.items() if key != "problems"}
                for camera in self.cameras
            ],
            "by_rule": self.by_rule,
            "largest_changes": list(self.changes),
            "cameras_not_in_archive": list(self.cameras_not_in_archive),
            "cameras_not_in_rules": dict(self.cameras_not_in_rules),
            "problems": [{"uri": uri, "why": why} for uri, why in self.problems],
        }


def _changes(numbers: TallyJson) -> int:
    return numbers["gained"] + numbers["lost"]


NO_ALERTS: TallyJson = {
    "before": 0,
    "after": 0,
    "gained": 0,
    "lost": 0,
    "gained_from": {},
    "lost_to": {},
}


def add_tallies(first: TallyJson, second: TallyJson) -> TallyJson:
    """Returns the sum of two tallies."""
    return {
        "after": first["after"] + second["after"],
        "before": first["before"] + second["before"],
        "gained": first["gained"] + second["gained"],
        "gained_from": _add_filters(first["gained_from"], second["gained_from"]),
        "lost": first["lost"] + second["lost"],
        "lost_to": _add_filters(first["lost_to"], second["lost_to"]),
    }


def _add_filters(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted((Counter(first) + Counter(second)).items()))


def reasons(numbers: TallyJson) -> str:
    """Returns which filters rejected the threats, in words."""
    parts = []
    for phrase, counts in (
        ("lost to", numbers["lost_to"]),
        ("gained from", numbers["gained_from"]),
    ):
        filters = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if filters:
            parts.append(f"{phrase} " + ", ".join(f"{name} {count:,}" for name, count in filters))
    return "; ".join(parts)


def format_table(report: Report) -> str:
    """Returns the report for a person."""
    period = "".join(
        f", {word} {time}"
        for word, time in (("from", report.since), ("before", report.until))
        if time
    )
    lines = [
        f"{report.rules[0]} (version {report.rules[1]}) against {report.compared_with}",
        f"{number_of(report.images, 'image')} of {number_of(len(report.cameras), 'camera')} in "
        f"{', '.join(report.archive)}{period}",
        "",
    ]
    cameras = report.changed_cameras
    rows = [_row(camera["id"], camera["alerts"], camera["images"]) for camera in cameras]
    if same := len(report.cameras) - len(cameras):
        rest = [camera for camera in report.cameras if not _changes(camera["alerts"])]
        numbers = NO_ALERTS
        for camera in rest:
            numbers = add_tallies(numbers, camera["alerts"])
        rows.append(
            _row(f"({same:,} unchanged)", numbers, sum(camera["images"] for camera in rest))
        )
    rows.append(_row("total", report.total, report.images))
    changes = ("alerts before", "after", "gained", "lost", "")
    lines += align([("id", "images", *changes), *rows], prose=True)
    rules_changed = report.changed_rules
    if rules_changed:
        rows = [_row(rule, numbers) for rule, numbers in rules_changed[:_RULE_ROWS]]
        lines += ["", *align([("rule", *changes), *rows], prose=True)]
        if len(rules_changed) > _RULE_ROWS:
            lines.append(f"and {len(rules_changed) - _RULE_ROWS} more; --format json has all")
    return "".join(f"{line}\n" for line in lines)


def _row(name: str, numbers: TallyJson, images: int | None = None) -> tuple[str, ...]:
    counted = [numbers["before"], numbers["after"], numbers["gained"], numbers["lost"]]
    values = counted if images is None else [images, *counted]
    return (printable(name), *(f"{value:,}" for value in values), printable(reasons(numbers)))


def format_json(report: Report) -> str:
    """Returns the report for a program."""
    return json.dumps(report.to_json(), indent=2) + "\n"


FORMATS: Mapping[str, Callable[[Report], str]] = {"table": format_table, "json": format_json}
