"""Label maps: which name a model's class number has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

_COCO = """
1 person 2 bicycle 3 car 4 motorcycle 5 airplane 6 bus 7 train 8 truck 9 boat 10 traffic light
11 fire hydrant 13 stop sign 14 parking meter 15 bench 16 bird 17 cat 18 dog 19 horse 20 sheep
21 cow 22 elephant 23 bear 24 zebra 25 giraffe 27 backpack 28 umbrella 31 handbag 32 tie
33 suitcase 34 frisbee 35 skis 36 snowboard 37 sports ball 38 kite 39 baseball bat
40 baseball glove 41 skateboard 42 surfboard 43 tennis racket 44 bottle 46 wine glass 47 cup
48 fork 49 knife 50 spoon 51 bowl 52 banana 53 apple 54 sandwich 55 orange 56 broccoli 57 carrot
58 hot dog 59 pizza 60 donut 61 cake 62 chair 63 couch 64 potted plant 65 bed 67 dining table
70 toilet 72 tv 73 laptop 74 mouse 75 remote 76 keyboard 77 cell phone 78 microwave 79 oven
80 toaster 81 sink 82 refrigerator 84 book 85 clock 86 vase 87 scissors 88 teddy bear
89 hair drier 90 toothbrush
"""

COCO: Mapping[int, str] = MappingProxyType(
    {int(number): name for number, name in re.findall(r"(\d+) ([a-z ]+[a-z])", _COCO)}
)
"""The 80 names of COCO under their ids 1 to 90 (cocodataset.org, 2017)."""

_QUOTED = r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'"
_COMMENT = re.compile(rf"({_QUOTED})|#[^\n]*")
_NESTED = rf"\{{(?:[^{{}}\"']|{_QUOTED})*\}}"
_ITEM = re.compile(rf"\bitem\s*:?\s*\{{((?:[^{{}}\"']|{_QUOTED}|{_NESTED})*)\}}")
_FIELD = re.compile(r"(\w+)\s*:\s*(?:\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)'|([^\s\"'},;]+))")
_NUMBERED = re.compile(r"([0-9]+)[\s,:]+(\S.*)")
_BACKGROUND = frozenset({"???", "background"})


class LabelsError(ValueError):
    """A label map that can't be used: one line that says what, where and what to do."""


def parse_label_map(text: str, source: str) -> dict[int, str]:
    """Names by class number, the model's first class being 1.

    Args:
      text: A TF Object Detection `.pbtxt` (`item { id: 1 name: "person" }`, `display_name` going
        before `name`), or lines of id and name, or one name a line counted from the model's first
        class (a first line `???` or `background` is class 0).
      source: The name of the file, for messages.

    Raises:
      LabelsError: Not of these forms, empty, or one number has two names.
    """
    text = text.removeprefix("\ufeff")  # Some editors begin a file so.
    uncommented = _COMMENT.sub(lambda found: found[1] or "", text)
    if _ITEM.search(uncommented):
        labels = _parse_pbtxt(uncommented, source)
    else:
        labels = _parse_lines(text, source)
    if not labels:
        raise LabelsError(f"{source}: no labels in it; give a .pbtxt or lines of id and name")
    return labels


def check_fit(labels: Mapping[int, str], classes: int | None, source: str) -> None:
    """Refuses a label map that names classes which the model has not.

    Args:
      labels: Names by class number.
      classes: How many classes the model has, without background; None where it does not say.
      source: The name of the file, for messages.

    Raises:
      LabelsError: It does not fit.
    """
    if classes is not None and max(labels) > classes:
        raise LabelsError(
            f"{source}: names class {max(labels)} ({labels[max(labels)]!r}), but the model has "
            f"{classes} classes; give the label map that the model was trained with"
        )


def _parse_pbtxt(text: str, source: str) -> dict[int, str]:
    labels: dict[int, str] = {}
    for item in _ITEM.finditer(text):
        line = text.count("\n", 0, item.start()) + 1
        own = re.sub(rf"\w+\s*:?\s*{_NESTED}", "", item[1])  # `keypoints { id: 0 ... }`, say.
        fields = {key: "".join(values) for key, *values in _FIELD.findall(own)}
        name = fields.get("display_name") or fields.get("name")
        number = fields.get("id", "")
        if not name or not number.isdecimal():
            raise LabelsError(f'{source}:{line}: an item needs `id: <number>` and `name: "..."`')
        _add(labels, int(number), re.sub(r"\\(.)", r"\1", name), f"{source}:{line}")
    return labels


def _parse_lines(text: str, source: str) -> dict[int, str]:
    lines = [(at, line.strip()) for at, line in enumerate(text.splitlines(), 1) if line.strip()]
    labels: dict[int, str] = {}
    numbered = bool(lines) and all(_NUMBERED.fullmatch(line) for _, line in lines)
    if not numbered:
        for at, line in lines:
            if _NUMBERED.fullmatch(line) or line.isdecimal():
                raise LabelsError(
                    f"{source}:{at}: {line[:40]!r} has a number where other lines have none; "
                    "write `id name` on every line, or a name alone on every line"
                )
    first = 0 if lines and lines[0][1].lower() in _BACKGROUND else 1
    for position, (at, line) in enumerate(lines, first):
        if numbered and (found := _NUMBERED.fullmatch(line)):
            _add(labels, int(found[1]), found[2], f"{source}:{at}")
        elif line.lower() not in _BACKGROUND:
            _add(labels, position, line, f"{source}:{at}")
    return labels


def _add(labels: dict[int, str], number: int, name: str, where: str) -> None:
    if labels.setdefault(number, name) != name:
        raise LabelsError(f"{where}: class {number} is named {labels[number]!r} and {name!r}")
