"""Reads YAML 1.2 text as plain values, with the line of every key.

It uses the events of ruamel.yaml's parser, not its loader, because the loader does not report the
line of a key, turns the key ``007`` into the number 7, and expands aliases, with which a file of
ten lines can fill the memory ("billion laughs"). Aliases, merge keys and tags are rejected:
profiles share values instead, and show people where a value comes from.

Plain scalars are resolved by the core schema: https://yaml.org/spec/1.2.2/#103-core-schema
The same code reads JSON.

ruamel.yaml, which is pure Python, needs half a minute for a file of 50,000 cameras. libyaml, in
PyYAML, emits the same events about 25 times as fast. It implements YAML 1.1, so it reads only large
files of characters with the same meaning in both versions. If it rejects a file, ruamel.yaml reads
the file again, so that all messages are those of ruamel.yaml.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import yaml as libyaml
from ruamel.yaml import YAML, events
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

from rules.errors import Mistake, RulesError, key_path
from rules.text import escaped

Path = tuple[str | int, ...]

_MAX_DEPTH = 20
_MAX_DIGITS = 100
_MIN_CHARACTERS_FOR_LIBYAML = 64 << 10
_SAME_IN_BOTH_VERSIONS = re.compile(r"[A-Za-z0-9 \n.,:;/_{}\[\]()$=+#\"-]*")
"""Letters, digits and the syntax of maps and lists: no tabs, tags, anchors, block scalars, escapes
or directives."""

_ALIAS = (events.AliasEvent, libyaml.AliasEvent)
_SCALAR = (events.ScalarEvent, libyaml.ScalarEvent)
_MAPPING_START = (events.MappingStartEvent, libyaml.MappingStartEvent)
_MAPPING_END = (events.MappingEndEvent, libyaml.MappingEndEvent)
_SEQUENCE_START = (events.SequenceStartEvent, libyaml.SequenceStartEvent)
_SEQUENCE_END = (events.SequenceEndEvent, libyaml.SequenceEndEvent)
_DOCUMENT_START = (events.DocumentStartEvent, libyaml.DocumentStartEvent)
_OTHER_EVENTS = (
    events.StreamStartEvent,
    events.StreamEndEvent,
    events.DocumentEndEvent,
    libyaml.StreamStartEvent,
    libyaml.StreamEndEvent,
    libyaml.DocumentEndEvent,
)

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
        value: Mappings, lists and scalars; keys are always text, as in the file.
        lines: The line, counted from 1, of each key and list item by its path; ``()`` is the path
            of the whole document.
        scalar_texts: The text of each unquoted number and boolean by its path, for names such as
            007.
        mistakes: The keys that occur twice; `value` has the first of each.
    """

    value: object
    lines: dict[Path, int]
    scalar_texts: dict[Path, str]
    mistakes: list[Mistake]

    def line_of(self, path: Path) -> int:
        """Returns the line of a path, or of its innermost parent in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines[path]


def read_document(text: str, source: str) -> Document:
    """Reads a text that is one YAML document.

    Raises:
        RulesError: The text is not YAML, has more than one document or none, or contains what is
            not allowed (aliases, merge keys, tags, keys that are not text, nesting beyond 20
            levels).
    """
    is_large = len(text) >= _MIN_CHARACTERS_FOR_LIBYAML
    if is_large and _SAME_IN_BOTH_VERSIONS.fullmatch(text):
        try:
            return read_document_with_libyaml(text, source)
        except (libyaml.YAMLError, RulesError):
            pass  # ruamel.yaml reports the mistake.
    return read_document_with_ruamel(text, source)


def read_document_with_libyaml(text: str, source: str) -> Document:
    """Reads a document whose characters have the same meaning in YAML 1.1 and 1.2.

    Raises:
        yaml.YAMLError: The text is wrong; the message is not for people.
        RulesError: The same.
    """
    return _Reader(libyaml.parse(text, Loader=libyaml.CSafeLoader), source).read()


def read_document_with_ruamel(text: str, source: str) -> Document:
    """Reads any document; raises the same errors as `read_document`."""
    return _Reader(_ruamel_events(text, source), source).read()


def _ruamel_events(text: str, source: str) -> Iterator[Any]:
    def not_yaml(line: int | None, problem: str, remedy: str) -> RulesError:
        return RulesError(source, line, f"not valid YAML: {escaped(problem)}", remedy)

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
        raise not_yaml(line, problem, remedy) from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        problem = f"it contains the unprintable character U+{code:04X}"
        raise not_yaml(line, problem, "save it as plain text") from error
    except Exception as error:
        # Malformed text can cause others, whose words differ between Pythons: "\UFFFFFFFF".
        problem = "a quoted text or an escape can't be read"
        raise not_yaml(1, problem, "check quotes and escapes") from error


class _Reader:
    def __init__(self, events: Iterator[Any], source: str) -> None:
        self._source = source
        self._events = events
        self._document = Document(value=None, lines={}, scalar_texts={}, mistakes=[])

    def read(self) -> Document:
        value: object = None
        documents = 0
        for event in self._events:
            if isinstance(event, _DOCUMENT_START):
                documents += 1
                if documents > 1:
                    self._reject(
                        event, "a second document begins here", "keep one document per file"
                    )
            elif not isinstance(event, _OTHER_EVENTS):
                self._document.lines[()] = _line(event)
                value = self._node(event, ())
        if value is None:
            raise RulesError(self._source, 1, "the file is empty", "begin with version: 1")
        return replace(self._document, value=value)

    def _node(self, event: Any, path: Path) -> object:
        if isinstance(event, _ALIAS):
            self._reject(
                event,
                f"{key_path(path)}: the alias *{event.anchor} is not allowed",
                "write the value out, or share it through a profile",
            )
        if event.tag is not None:
            self._reject(
                event,
                f"{key_path(path)}: the tag {event.tag} is not allowed",
                "leave it out; put text in quotes",
            )
        if len(path) > _MAX_DEPTH:
            self._reject(event, f"nested more than {_MAX_DEPTH} levels deep", "check the brackets")
        if isinstance(event, _MAPPING_START):
            return self._mapping(path)
        if isinstance(event, _SEQUENCE_START):
            return self._sequence(path)
        return self._scalar(event, path)

    def _mapping(self, path: Path) -> dict[str, object]:
        values: dict[str, object] = {}
        while not isinstance(event := next(self._events), _MAPPING_END):
            if not isinstance(event, _SCALAR) or event.tag is not None:
                self._reject(event, f"{key_path(path)}: a key must be text", "write a plain name")
            key = self._text(event)
            if key == "<<" and not event.style:
                self._reject(
                    event,
                    f"{key_path((*path, key))}: merge keys are not allowed",
                    "write the values out, or share them through a profile",
                )
            key_at = (*path, key)
            first = self._document.lines.setdefault(key_at, _line(event))
            value = self._node(next(self._events), key_at)
            if key in values:
                problem = f"{key_path(key_at)}: a duplicate key (first on line {first})"
                self._document.mistakes.append(Mistake(_line(event), problem, "keep one of them"))
            else:
                values[key] = value
        return values

    def _sequence(self, path: Path) -> list[object]:
        values: list[object] = []
        while not isinstance(event := next(self._events), _SEQUENCE_END):
            item_at = (*path, len(values))
            self._document.lines.setdefault(item_at, _line(event))
            values.append(self._node(event, item_at))
        return values

    def _scalar(self, event: Any, path: Path) -> object:
        text = self._text(event)
        if event.style:  # The plain style is an empty text in libyaml, None in ruamel.yaml.
            return text
        value = _resolve(text)
        if value is not None and not isinstance(value, str):
            self._document.scalar_texts.setdefault(path, text)
        return value

    def _text(self, event: Any) -> str:
        text: str = event.value
        if text.isascii():
            return text
        try:
            # JSON escapes a character beyond the 16-bit range as two surrogates.
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            self._reject(event, "half a surrogate pair is not a character", "check the \\u escapes")

    def _reject(self, event: Any, problem: str, remedy: str) -> NoReturn:
        raise RulesError(self._source, _line(event), problem.removeprefix(": "), remedy)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _resolve(text: str) -> object:
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        # Python does not convert an int of thousands of digits; no such number is in range.
        return int(text) if len(text) < _MAX_DIGITS else float(text)
    if _OCTAL.fullmatch(text):
        return int(text[2:], 8) if len(text) < _MAX_DIGITS else math.inf
    if _HEX.fullmatch(text):
        return int(text[2:], 16) if len(text) < _MAX_DIGITS else math.inf
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITY.fullmatch(text):
        return float(text.replace(".", ""))
    if _NAN.fullmatch(text):
        return float("nan")
    return text
