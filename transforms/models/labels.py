"""Label maps: the names of a model's classes by number."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
"""The 80 names of COCO by their ids from 1 to 90 (cocodataset.org, 2017)."""

_TOKEN = re.compile(
    r"""[ \t\r\n;,]+|\#[^\n]*|(?P<open>[{<])|(?P<close>[}>])|(?P<colon>:)
    |(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|\[[^\[\]{}]*\])
    |(?P<word>[^\s{}<>:;,"'\#\[\]]+)""",
    re.VERBOSE,
)
_ITEM = re.compile(r"^[ \t]*item\s*:?\s*[{<]", re.MULTILINE)
_MAX_DIGITS = 9
_NUMBERED = re.compile(r"([0-9]+)[\s,:]+(\S.*)")
_BACKGROUND = frozenset({"???", "background"})


class LabelsError(ValueError):
    """A label map that can't be used: one line that says what, where and what to do."""


def parse_label_map(text: str, source: str) -> dict[int, str]:
    """Parses names by class number; the first class of a model is 1.

    Args:
      text: A TF Object Detection `.pbtxt` (`item { id: 1 name: "person" }`; `display_name` takes
        precedence over `name`), or lines of id and name, or a name per line in the order of the
        classes (a first line `???` or `background` is class 0).
      source: The name of the file, for messages.

    Raises:
      LabelsError: The text has none of these forms, has no labels, or has two names for a class.
    """
    text = text.removeprefix("\ufeff")  # A byte order mark, as some editors write it.
    if source.endswith(".pbtxt") or _ITEM.search(text):
        labels = _parse_pbtxt(text, source)
    else:
        labels = _parse_lines(text, source)
    if not labels:
        raise LabelsError(f"{source}: it contains no labels; give a .pbtxt or lines of id and name")
    return labels


def check_fit(labels: Mapping[int, str], classes: int | None, source: str) -> None:
    """Checks that a label map names no class that the model does not have.

    Args:
      labels: Names by class number.
      classes: How many classes the model has, without background; None if that is unknown.
      source: The name of the file, for messages.

    Raises:
      LabelsError: The label map names such a class.
    """
    if classes is not None and max(labels) > classes:
        raise LabelsError(
            f"{source}: names class {max(labels)} ({labels[max(labels)]!r}), but the model has "
            f"{classes} classes; give the label map that the model was trained with"
        )


@dataclass
class _Token:
    kind: str
    text: str
    line: int


def _tokens(text: str, source: str) -> Iterator[_Token]:
    position, line = 0, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _malformed(
                source,
                line,
                f"{text[position : position + 20].splitlines()[0]!r} is not valid here",
            )
        if match.lastgroup is not None:
            yield _Token(match.lastgroup, match[0], line)
        line += match[0].count("\n")
        position = match.end()


def _malformed(source: str, line: int, problem: str) -> LabelsError:
    return LabelsError(
        f'{source}:{line}: not a label map: {problem}; write item {{ id: 1 name: "person" }} for '
        "each class"
    )


def _parse_pbtxt(text: str, source: str) -> dict[int, str]:
    """Parses a label map in protobuf's text format; each token is read once."""
    parser = _LabelMapParser(source)
    for token in _tokens(text, source):
        parser.feed(token)
    return parser.finish()


class _LabelMapParser:
    """Parses the tokens of a label map, one after the other."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._labels: dict[int, str] = {}
        self._open_brackets: list[_Token] = []  # The first is that of an item.
        self._fields: dict[str, str] = {}
        self._key: _Token | None = None
        self._wants_value = False

    def feed(self, token: _Token) -> None:
        """Parses the next token.

        Raises:
          LabelsError: The token is not expected here.
        """
        if token.kind in ("word", "text") and self._key is not None and self._wants_value:
            is_expected = self._value(self._key, token)
        elif token.kind == "close":
            is_expected = self._close()
        elif self._key is None:
            is_expected = self._begin(token)
        else:
            is_expected = self._after_key(token)
        if not is_expected:
            raise _malformed(self._source, token.line, f"{token.text[:20]!r} is not expected here")

    def finish(self) -> dict[int, str]:
        """Returns the names by class number.

        Raises:
          LabelsError: A bracket is not closed, or a key has no value.
        """
        if self._open_brackets:
            line = self._open_brackets[0].line
            raise _malformed(self._source, line, "the bracket that is opened here is not closed")
        if self._key is not None:
            raise _malformed(self._source, self._key.line, f"it ends after {self._key.text[:20]!r}")
        return self._labels

    def _begin(self, token: _Token) -> bool:
        if token.kind != "word":
            return False
        if not self._open_brackets and token.text != "item":
            problem = f"{token.text[:20]!r} where an item begins"
            raise _malformed(self._source, token.line, problem)
        self._key = token
        return True

    def _after_key(self, token: _Token) -> bool:
        if token.kind == "colon" and not self._wants_value:
            self._wants_value = True
            return True
        if token.kind != "open":
            return False
        self._open_brackets.append(token)
        self._key, self._wants_value = None, False
        if len(self._open_brackets) == 1:
            self._fields = {}
        return True

    def _value(self, key: _Token, token: _Token) -> bool:
        if not self._open_brackets:
            return False
        if (
            len(self._open_brackets) == 1
        ):  # Nested fields, as in `keypoints { id: 0 }`, are skipped.
            self._fields[key.text] = _unquoted(token.text)
        self._key, self._wants_value = None, False
        return True

    def _close(self) -> bool:
        if not self._open_brackets or self._key is not None:
            return False
        item = self._open_brackets.pop()
        if not self._open_brackets:
            location = f"{self._source}:{item.line}"
            _add(self._labels, *_class_of(self._fields, location), location)
        return True


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text[0] in "'\"" else text


def _class_of(fields: Mapping[str, str], location: str) -> tuple[int, str]:
    number = fields.get("id", "")
    name = fields.get("display_name") or fields.get("name") or ""
    if not name or not number.isdecimal() or len(number) > _MAX_DIGITS:
        raise LabelsError(f'{location}: an item needs `id: <number>` and `name: "..."`')
    return int(number), name


def _parse_lines(text: str, source: str) -> dict[int, str]:
    lines = [
        (line_number, line.strip())
        for line_number, line in enumerate(text.splitlines(), 1)
        if line.strip()
    ]
    labels: dict[int, str] = {}
    has_ids = bool(lines) and all(_NUMBERED.fullmatch(line) for _, line in lines)
    if not has_ids:
        for line_number, line in lines:
            if _NUMBERED.fullmatch(line) or line.isdecimal():
                raise LabelsError(
                    f"{source}:{line_number}: {line[:40]!r} has a number where other lines "
                    "have none; write `id name` on every line, or a name alone on every line"
                )
    first = 0 if lines and lines[0][1].lower() in _BACKGROUND else 1
    for class_number, (line_number, line) in enumerate(lines, first):
        if has_ids and (match := _NUMBERED.fullmatch(line)):
            _add(labels, int(match[1]), match[2], f"{source}:{line_number}")
        elif line.lower() not in _BACKGROUND:
            _add(labels, class_number, line, f"{source}:{line_number}")
    return labels


def _add(labels: dict[int, str], number: int, name: str, location: str) -> None:
    if labels.setdefault(number, name) != name:
        raise LabelsError(f"{location}: class {number} is named {labels[number]!r} and {name!r}")
