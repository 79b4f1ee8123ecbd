"""YAML 1.2 text as plain values, with the line of every key.

Built on the events of ruamel.yaml's parser, not on its loader, because the loader cannot say on
which line a key stands, turns the key ``007`` into the number 7, and expands aliases, by which a
file of ten lines can fill the memory ("billion laughs"). Aliases, merge keys and tags are refused:
what they would share, profiles share, and a person can see where a value comes from.

Plain scalars are resolved by the core schema: https://yaml.org/spec/1.2.2/#103-core-schema
JSON is read by the same code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)
from ruamel.yaml.reader import ReaderError

from rules.errors import Mistake, RulesError, key_path, one_line

Path = tuple[str | int, ...]

_MAX_DEPTH = 20

_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITY = re.compile(r"[-+]?\.(inf|Inf|INF)")
_NAN = re.compile(r"\.(nan|NaN|NAN)")


@dataclass(frozen=True)
class Document:
    """A parsed file.

    Attributes:
        value: mappings, lists and scalars; keys are always text, as written.
        lines: the line, counted from 1, of each key and list item by its path; ``()`` is the whole.
        written: the text of each unquoted number and boolean by its path, for a name such as 007.
        mistakes: keys that are given twice; the value holds the first.
    """

    value: object
    lines: dict[Path, int]
    written: dict[Path, str]
    mistakes: list[Mistake]

    def line_of(self, path: Path) -> int:
        """The line of the path, or of what holds it where the file does not have it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines[path]


def read_document(text: str, source: str) -> Document:
    """Read the one YAML document of a text.

    Raises:
        RulesError: not YAML, more than one document, nothing in it, or something that is refused
            (aliases, merge keys, tags, keys that are not text, nesting beyond 20 levels).
    """
    return _Reader(text, source).read()


class _Reader:
    def __init__(self, text: str, source: str) -> None:
        self._source = source
        self._events = self._parse(text)
        self._document = Document(value=None, lines={}, written={}, mistakes=[])

    def read(self) -> Document:
        value: object = None
        documents = 0
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._refuse(event, "a second document begins here", "keep one document a file")
            elif not isinstance(event, (StreamStartEvent, StreamEndEvent, DocumentEndEvent)):
                self._document.lines[()] = _line(event)
                value = self._node(event, ())
        if value is None:
            raise RulesError(self._source, 1, "the file is empty", "begin with version: 1")
        return Document(
            value, self._document.lines, self._document.written, self._document.mistakes
        )

    def _parse(self, text: str) -> Iterator[Any]:
        try:
            yield from YAML(typ="safe", pure=True).parse(text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            problem = str(error.problem or error.context)
            remedy = "check the indentation, brackets and quotes here"
            if "'\\t'" in problem:
                problem, remedy = "a tab is used for indentation", "indent with spaces"
            line = None if mark is None else mark.line + 1
            if line is not None and error.context_mark and error.context_mark.line + 1 != line:
                problem += f" ({error.context} that begins on line {error.context_mark.line + 1})"
            raise self._not_yaml(line, problem, remedy) from error
        except ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            code = error.character if isinstance(error.character, int) else ord(error.character)
            problem = f"it holds the unprintable character U+{code:04X}"
            raise self._not_yaml(line, problem, "save it as plain text") from error
        except RulesError:
            raise
        except Exception as error:
            # Malformed text can bring out others, e.g. OverflowError by "\UFFFFFFFF".
            raise self._not_yaml(1, f"{error}", "check quotes and escapes") from error

    def _not_yaml(self, line: int | None, problem: str, remedy: str) -> RulesError:
        return RulesError(self._source, line, f"not valid YAML: {one_line(problem)}", remedy)

    def _node(self, event: Any, path: Path) -> object:
        if isinstance(event, AliasEvent):
            self._refuse(
                event,
                f"{key_path(path)}: the alias *{event.anchor} is not read",
                "write the value out, or share it through a profile",
            )
        if event.tag is not None:
            self._refuse(
                event,
                f"{key_path(path)}: the tag {event.tag} is not read",
                "leave it out; quote what is text",
            )
        if len(path) > _MAX_DEPTH:
            self._refuse(event, f"nested more than {_MAX_DEPTH} levels deep", "check the brackets")
        if isinstance(event, MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(path)
        return self._scalar(event, path)

    def _mapping(self, path: Path) -> dict[str, object]:
        values: dict[str, object] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            if not isinstance(event, ScalarEvent) or event.tag is not None:
                self._refuse(event, f"{key_path(path)}: a key must be text", "write a plain name")
            key = self._text(event)
            if key == "<<" and event.style is None:
                self._refuse(
                    event,
                    f"{key_path((*path, key))}: merge keys are not read",
                    "write the values out, or share them through a profile",
                )
            place = (*path, key)
            first = self._document.lines.setdefault(place, _line(event))
            value = self._node(next(self._events), place)
            if key in values:
                problem = f"{key_path(place)}: given a second time (first on line {first})"
                self._document.mistakes.append(Mistake(_line(event), problem, "keep one of them"))
            else:
                values[key] = value
        return values

    def _sequence(self, path: Path) -> list[object]:
        values: list[object] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            place = (*path, len(values))
            self._document.lines.setdefault(place, _line(event))
            values.append(self._node(event, place))
        return values

    def _scalar(self, event: ScalarEvent, path: Path) -> object:
        text = self._text(event)
        if event.style is not None:
            return text
        value = _resolve(text)
        if value is not None and not isinstance(value, str):
            self._document.written.setdefault(path, text)
        return value

    def _text(self, event: ScalarEvent) -> str:
        text: str = event.value
        if text.isascii():
            return text
        try:
            # JSON writes a character beyond the 16-bit range as two escapes, each a surrogate.
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            self._refuse(event, "half a surrogate pair is no character", "check the \\u escapes")

    def _refuse(self, event: Any, problem: str, remedy: str) -> NoReturn:
        raise RulesError(self._source, _line(event), problem.removeprefix(": "), remedy)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _resolve(text: str) -> object:
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        # Python refuses to make an int of thousands of digits; no such number is in range anyhow.
        return int(text) if len(text) < 100 else float(text)
    if _OCTAL.fullmatch(text):
        return int(text[2:], 8)
    if _HEX.fullmatch(text):
        return int(text[2:], 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITY.fullmatch(text):
        return float(text.replace(".", ""))
    if _NAN.fullmatch(text):
        return float("nan")
    return text
