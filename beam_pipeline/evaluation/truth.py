"""What is known to be in images: a CSV of what a person saw, or boxes in COCO's form.

The CSV begins with a line that names its columns. Three are read: ``file``, the image's name;
``main_class``, a label, or ``empty`` where there is nothing; ``count``, how many of it there are. A
image in which there are several kinds of things has a line for each. Further columns, such as
``note``, are skipped.

COCO's form: https://cocodataset.org/#format-data (``images``, ``annotations``, ``categories``). A
image without annotations is empty. Only the last part of ``file_name`` counts.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from beam_pipeline.console.exceptions import SetupError
from rules import CameraRules, ObjectRule
from rules.errors import suggestion
from rules.text import escaped, shortened

EMPTY = "empty"
"""The `main_class` of an image in which there is nothing."""

_COLUMNS = ("file", "main_class", "count")


@dataclass(frozen=True)
class TrueBox:
    """One object in an image.

    Attributes:
      label: What it is.
      bbox: `x_min`, y_min, width, height as fractions of the image.
      is_crowd: Whether the box holds many that were not separated (COCO's `iscrowd`).
    """

    label: str
    bbox: tuple[float, float, float, float]
    is_crowd: bool = False


@dataclass(frozen=True)
class TrueImage:
    """What is in one image.

    Attributes:
      counts: How many there are of each label; none where the image is empty.
      boxes: Where they are; None where the truth does not say.
      size: Its width and height in pixels, where there are boxes.
    """

    counts: Mapping[str, int]
    boxes: tuple[TrueBox, ...] | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Truth:
    """What a truth file says.

    Attributes:
      source: The file, for messages.
      images: By the image's file name.
      has_boxes: Whether it says where things are.
    """

    source: str
    images: Mapping[str, TrueImage]
    has_boxes: bool


def parse_truth(data: bytes, source: str, labels: Collection[str]) -> Truth:
    """Reads a truth file: JSON is COCO's form, all else a CSV.

    Args:
      data: The file's bytes.
      source: Its name, for messages.
      labels: The labels that the model can give.

    Raises:
      SetupError: What is wrong with it, where, and what to do.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SetupError(f"{source}:{line}: not UTF-8 text; save the file as UTF-8") from None
    if text.lstrip()[:1] in ("{", "["):
        return _Coco(text, source, labels).read()
    return Truth(source, _parse_csv(text, source, labels), has_boxes=False)


def _parse_csv(text: str, source: str, labels: Collection[str]) -> dict[str, TrueImage]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    counts: dict[str, dict[str, int]] = {}
    lines: dict[tuple[str, str], int] = {}
    try:
        for column in _COLUMNS:
            if column not in (reader.fieldnames or ()):
                raise SetupError(
                    f"{source}:1: no column {column!r}; the first line names the columns, which "
                    f"must include {','.join(_COLUMNS)}, separated by commas"
                )
        for row in reader:
            where = f"{source}:{reader.line_num}"
            name, label, count = _csv_row(row, where, labels)
            first = lines.setdefault((name, label), reader.line_num)
            if first != reader.line_num:
                raise SetupError(
                    f"{where}: {shortened(name)} has a line for {label!r} already, line {first}; "
                    "keep one of them, with the number of both"
                )
            label_counts = counts.setdefault(name, {})
            if label != EMPTY:
                label_counts[label] = count
            if label_counts and (name, EMPTY) in lines:
                raise SetupError(
                    f"{where}: {shortened(name)} has a line for {EMPTY!r} (line "
                    f"{lines[name, EMPTY]}) and one for something; remove one of them"
                )
    except csv.Error as error:
        line = reader.reader.line_num  # The other one is that of the last row.
        raise SetupError(f"{source}:{line}: not CSV ({error}); check the quotes") from None
    if not counts:
        raise SetupError(f"{source}: it lists no image; write a line for each image")
    return {name: TrueImage(label_counts) for name, label_counts in counts.items()}


def _csv_row(
    row: Mapping[str | None, Any], where: str, labels: Collection[str]
) -> tuple[str, str, int]:
    if None in row or None in (row[column] for column in _COLUMNS):
        raise SetupError(
            f"{where}: not as many cells as the first line has; quote a text with a comma in it"
        )
    path, label, number = (row[column].strip() for column in _COLUMNS)
    name = _file_name(path)
    if not name:
        raise SetupError(f"{where}: 'file' is empty; write the image's file name")
    problem = None if label == EMPTY else _label_problem(label, labels)
    if problem is not None:
        raise SetupError(f"{where}: {problem}")
    # isdecimal alone takes the digits of every script; int() of thousands is refused by Python.
    if not (number.isascii() and number.isdecimal() and len(number) < 10):
        raise SetupError(
            f"{where}: 'count' is {shortened(number)!r}; write how many there are, a whole number"
        )
    count = int(number)
    if (count == 0) != (label == EMPTY):
        raise SetupError(
            f"{where}: 'count' is {count} and 'main_class' {label!r}; an image in which there is "
            f"nothing has {EMPTY} and 0, any other a label and at least 1"
        )
    return name, label, count


def _file_name(path: str) -> str:
    return path.replace("\\", "/").rsplit("/", 1)[-1]


def _label_problem(label: str, labels: Collection[str]) -> str | None:
    """Returns what is wrong with a label, and what would be right; None where it is right."""
    if label in labels:
        return None
    hint = suggestion(label, [*labels, EMPTY], "labels of the model")
    return escaped(
        f"the model gives no label {shortened(label)!r}; {hint}; --labels takes the labels of "
        "another model"
    )


class _Coco:
    """Reads one COCO document."""

    def __init__(self, text: str, source: str, labels: Collection[str]) -> None:
        self._source = source
        self._labels = labels
        try:
            self._data = json.loads(text)
        except json.JSONDecodeError as error:
            raise SetupError(
                f"{source}:{error.lineno}: not JSON ({error.msg}); give COCO's boxes or a CSV"
            ) from None
        except RecursionError:
            raise SetupError(f"{source}: nested too deeply; give COCO's boxes or a CSV") from None

    def read(self) -> Truth:
        categories = dict(self._each("categories", self._category))
        names: dict[int, str] = {}
        sizes: dict[str, tuple[int, int]] = {}
        for number, (name, size) in self._each("images", self._image):
            if name in sizes:
                raise SetupError(
                    f"{self._source}: images: {shortened(name)!r} occurs twice; keep one of them"
                )
            names[number], sizes[name] = name, size
        if not sizes:
            raise SetupError(f"{self._source}: it lists no image; list each under 'images'")
        boxes: dict[str, list[TrueBox]] = {name: [] for name in sizes}

        def annotation(entry: Mapping[str, Any]) -> tuple[int, tuple[str, TrueBox]]:
            name = names[self._known(entry, "image_id", names)]
            label = categories[self._known(entry, "category_id", categories)]
            problem = _label_problem(label, self._labels)
            if problem is not None:
                raise ValueError(problem)
            box = TrueBox(label, self._bbox(entry, sizes[name]), entry.get("iscrowd") == 1)
            return self._number(entry, "id"), (name, box)

        for _, (name, box) in self._each("annotations", annotation):
            boxes[name].append(box)
        return Truth(
            self._source,
            {
                name: TrueImage(
                    Counter(box.label for box in true_boxes), tuple(true_boxes), sizes[name]
                )
                for name, true_boxes in boxes.items()
            },
            has_boxes=True,
        )

    def _each(
        self, key: str, read: Callable[[Mapping[str, Any]], tuple[int, Any]]
    ) -> Iterator[tuple[int, Any]]:
        entries = self._data.get(key) if isinstance(self._data, dict) else None
        if not isinstance(entries, list):
            raise SetupError(
                f"{self._source}: no list {key!r}; COCO's form has images, annotations and "
                "categories"
            )
        numbers: set[int] = set()
        for index, entry in enumerate(entries):
            try:
                if not isinstance(entry, dict):
                    raise ValueError("not an object")
                number, value = read(entry)
                if number in numbers:
                    raise ValueError(f"the id {number} occurs twice")
            except ValueError as error:
                raise SetupError(
                    escaped(f"{self._source}: {key}[{index}]: {error}; correct it, or remove it")
                ) from None
            numbers.add(number)
            yield number, value

    def _category(self, entry: Mapping[str, Any]) -> tuple[int, str]:
        return self._number(entry, "id"), self._text(entry, "name")

    def _image(self, entry: Mapping[str, Any]) -> tuple[int, tuple[str, tuple[int, int]]]:
        width, height = self._number(entry, "width"), self._number(entry, "height")
        if width < 1 or height < 1:
            raise ValueError(f"an image of {width} by {height} pixels")
        name = _file_name(self._text(entry, "file_name"))
        return self._number(entry, "id"), (name, (width, height))

    def _known(self, entry: Mapping[str, Any], key: str, known: Mapping[int, Any]) -> int:
        number = self._number(entry, key)
        if number not in known:
            raise ValueError(f"{key} {number} is not in the file")
        return number

    @staticmethod
    def _bbox(entry: Mapping[str, Any], size: tuple[int, int]) -> tuple[float, float, float, float]:
        bbox = entry.get("bbox")
        if (
            not isinstance(bbox, list)
            or len(bbox) != 4
            or not all(type(side) in (int, float) and abs(side) < 1e6 for side in bbox)
            or min(bbox[2:]) < 0
        ):
            raise ValueError(
                f"bbox must be x, y, width, height in pixels, not {shortened(repr(bbox))}"
            )
        x_min, y_min, width, height = bbox
        return x_min / size[0], y_min / size[1], width / size[0], height / size[1]

    @staticmethod
    def _number(entry: Mapping[str, Any], key: str) -> int:
        value = entry.get(key)
        if type(value) is not int:
            raise ValueError(f"{key} must be a whole number, not {shortened(repr(value))}")
        return value

    @staticmethod
    def _text(entry: Mapping[str, Any], key: str) -> str:
        value = entry.get(key)
        if not isinstance(value, str) or not value:
            raise ValueError(f"{key} must be a text, not {shortened(repr(value))}")
        return value


# What of it is a threat


def alerting_rules(camera: CameraRules) -> frozenset[tuple[str, str]]:
    """Returns the labels that a camera is to raise the alert for, each with the rules by which it
    does.
    """
    labels = {label for label, _ in camera.all_rules()}
    return frozenset(
        (label, rule.entry)
        for label in labels
        for rule in _rules_for(label, camera)
        if rule.severity == "alert"
    )


def _rules_for(label: str, camera: CameraRules) -> list[ObjectRule]:
    zone_rules = [
        rule for zone in camera.zones.values() if (rule := zone.rule_for(label, camera)) is not None
    ]
    if zone_rules:
        return zone_rules
    rule = camera.objects.get(label)
    return [] if rule is None else [rule]


def real_threats(truth: TrueImage, camera: CameraRules) -> dict[str, str]:
    """Returns what in an image its camera is to raise the alert for: labels, each with its rule.

    A label counts where its severity is ``alert`` and there are as many of it as ``min_count`` and
    ``max_count`` ask for. Where the truth has boxes, those count that lie in a zone, where zones
    take the label, and in no mask. Scores, areas and ratios say how a threat differs from what is
    none; no threat ceases to be one by them.
    """
    if truth.boxes is None:
        return {
            label: rule.entry
            for label, count in truth.counts.items()
            for rule in reversed(_rules_for(label, camera))
            if _is_alert_count(rule, count)
        }
    labels_by_rule: dict[ObjectRule, list[str]] = {}
    for box in truth.boxes:
        for rule in _rules_at(box, camera):
            labels_by_rule.setdefault(rule, []).append(box.label)
    return {
        labels[0]: rule.entry
        for rule, labels in reversed(labels_by_rule.items())
        if _is_alert_count(rule, len(labels))
    }


def _rules_at(box: TrueBox, camera: CameraRules) -> list[ObjectRule]:
    """Returns the rules that can let a box through, each once, in the order of the file."""
    for mask in camera.masks.values():
        if (mask.objects is None or box.label in mask.objects) and mask.contains(box.bbox):
            return []
    rule = camera.objects.get(box.label)
    has_zones = False
    zone_rules: dict[str, ObjectRule] = {}
    for zone in camera.zones.values():
        zone_rule = zone.rule_for(box.label, camera)
        has_zones |= zone_rule is not None
        if zone_rule is not None and zone.contains(box.bbox):
            zone_rules.setdefault(zone_rule.entry, zone_rule)
    if has_zones:
        return list(zone_rules.values())
    return [] if rule is None else [rule]


def _is_alert_count(rule: ObjectRule, count: int) -> bool:
    return (
        rule.severity == "alert"
        and (rule.min_count is None or count >= rule.min_count)
        and (rule.max_count is None or count <= rule.max_count)
    )
