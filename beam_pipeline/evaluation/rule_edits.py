"""A rule file with other values of some objects; the other lines stay as they are."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import count, pairwise
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.emitter import RoundTripEmitter
from ruamel.yaml.error import YAMLError
from ruamel.yaml.resolver import VersionedResolver
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

import rules
from rules.document import read_document

Value = str | list["Value"] | dict[str, "Value"]
"""What a setting is to be, with numbers as they are to be written."""
Setting = tuple[tuple[str, ...], Value | None]
"""A key by its path from the top of the rule file, and its value; None to remove it."""

_NULL = re.compile(r"(?:~|null|Null|NULL|)$")
_OPENS = re.compile(r"[^#]*:\s*(#.*)?$")
_WIDEST = 1 << 20
_CAMERAS = re.compile(r"cameras:\s*(#.*)?")
_CAMERA = re.compile(r"( +)([\w.-]+):(\s.*)?")
_LARGE = 16 << 10
"""Of a longer text, other cameras are left out while it is changed: a thousand take ten seconds."""


class WholeList(list[Value]):
    """A list that takes the place of the one that is there."""


@dataclass(frozen=True)
class Edit:
    """What a layer of a rule file is to say of an object.

    Attributes:
      layer: The layer's path: ``("defaults",)``, ``("profiles", "outdoor")`` or
        ``("cameras", "hall")``. Parts that the file does not have are added.
      label: The object.
      values: What is to hold, by the names of the rule file.
    """

    layer: tuple[str, ...]
    label: str
    values: Mapping[str, float]


class _AsWritten(VersionedResolver):
    """Takes what is not quoted for text, so that a camera `007` and a score `0.50` stay as they
    are; only nothing is nothing."""

    @property
    def versioned_resolver(self) -> Any:
        return {first: [("tag:yaml.org,2002:null", _NULL)] for first in ("~", "n", "N", "")}


class _Emitter(RoundTripEmitter):
    """Writes nothing as nothing within braces too, instead of as `null`."""

    def choose_scalar_style(self) -> Any:
        is_value = self.mapping_context and not self.simple_key_context
        if is_value and self.event.value == "" and self.event.tag == "tag:yaml.org,2002:null":
            return ""
        return super().choose_scalar_style()

    def write_plain(self, text: Any, split: Any = True) -> None:
        if text or not self.flow_level:
            super().write_plain(text, split)
        else:
            self.write_indicator("", True)  # A space, as `{person:}` would be hard to read.


def apply_edits(text: str, edits: Iterable[Edit]) -> str:
    """Returns a rule file's text with edits; the lines that they do not touch stay as they are.

    Args:
      text: The content of a rule file that was found right.
      edits: What is to change.
    """

    edits = list(edits)

    def change(document: Any) -> None:
        for edit in edits:
            node = document
            for key in (*edit.layer, "objects", edit.label):
                if node.get(key) is None:
                    node[key] = CommentedMap()
                    if key == edit.label:
                        node[key].fa.set_flow_style()
                node = node[key]
            for name, value in edit.values.items():
                node[name] = _number(value)

    return _changed(text, change, [(*edit.layer, "objects") for edit in edits])


def apply_settings(text: str, settings: Iterable[Setting]) -> str:
    """Returns a rule file's text with other settings; the lines that they do not touch stay as they
    are.

    A list is added to the list that is there, unless it is a `WholeList`; any other value replaces
    what is there. Whoever removes a key also removes the section that is empty without it.

    Args:
      text: The content of a rule file that was found right.
      settings: What is to change. Parts of a path that the file does not have are added.
    """

    settings = list(settings)

    def change(document: Any) -> None:
        for (*parents, last), value in settings:
            if value is None:
                _remove(document, parents, last)
                continue
            node = document
            for key in parents:
                if node.get(key) is None:
                    node[key] = CommentedMap()
                node = node[key]
            is_added = isinstance(value, list) and not isinstance(value, WholeList)
            if is_added and node.get(last) is not None:
                node[last].extend(_in_one_line(value))
            else:
                node[last] = _in_one_line(value)

    return _changed(text, change, [path for path, _ in settings])


def setting_text(setting: Setting) -> str:
    """Returns a setting in one line, such as ``cameras.hall.cooldown: 5m``."""
    path, value = setting
    name = ".".join(path)
    return f"{name} is removed" if value is None else f"{name}: {_inline(value)}"


def _inline(value: Value) -> str:
    """Returns a value as YAML in one line."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return f"[{', '.join(map(_inline, value))}]"
    return f"{{{', '.join(f'{key}: {_inline(part)}' for key, part in value.items())}}}"


def _remove(document: Any, parents: Sequence[str], last: str) -> None:
    above, node = None, document
    for key in parents:
        above, node = node, node.get(key)
        if node is None:
            return
    node.pop(last, None)
    if not node and above is not None:
        above.pop(parents[-1])


def _changed(text: str, change: Callable[[Any], None], paths: Collection[tuple[str, ...]]) -> str:
    """Returns a text in which only the lines differ that a change of its document makes differ.

    Args:
      text: The text.
      change: Changes its document.
      paths: What that may change, by the keys from the top.
    """
    text = text if text.endswith("\n") else f"{text}{_line_end(text)}\n"
    if len(text) > _LARGE and not any(path[:1] == ("cameras",) and len(path) < 3 for path in paths):
        cameras = {path[1] for path in paths if path[0] == "cameras"}
        changed = _changed_beside(text, change, cameras)
        if changed is not None:
            return changed
    return _changed_as_a_whole(text, change)


def _changed_beside(
    text: str, change: Callable[[Any], None], cameras: Collection[str]
) -> str | None:
    """Changes a text without its other cameras, and puts their lines back.

    Args:
      text: The text.
      change: Changes its document, but none of the other cameras.
      cameras: The cameras that it may change.

    Returns:
      The new text; None if its lines don't show safely where a camera begins and ends.
    """
    shortened = _without_cameras(text, cameras)
    if shortened is None:
        return None
    short, left_out = shortened
    marks = {line.split(":")[0].strip() for line in left_out}
    try:  # Lines can deceive, such as those of a text between quotes.
        old, short_old = _by_camera(text), _by_camera(short)
        known = old.keys() - short_old.keys()
        if _but(old, known) != _but(short_old, marks):
            return None
        short_changed = _changed_as_a_whole(short, change)
        lines = short_changed.split("\n")
        if [line for line in lines if line in left_out] != list(left_out):
            return None
        changed = "\n".join("\n".join(left_out.get(line, [line])) for line in lines)
        new, short_new = _by_camera(changed), _by_camera(short_changed)
    except (YAMLError, rules.RulesError):
        return None
    is_right = _but(new, known) == _but(short_new, marks) and all(
        new.get(camera, marks) == old[camera] for camera in known
    )
    return changed if is_right else None


def _by_camera(text: str) -> dict[str | None, Any]:
    """Returns the values of each camera by its name, and under None all others."""
    document: Any = read_document(text, "rules").value
    cameras = document.pop("cameras", None) or {}
    return {None: document, **cameras}


def _but(values: Mapping[str | None, Any], keys: Collection[str | None]) -> list[Any]:
    return [(key, value) for key, value in values.items() if key not in keys]


def _without_cameras(
    text: str, kept: Collection[str]
) -> tuple[str, Mapping[str, list[str]]] | None:
    """Returns a text without the cameras that are not kept, and their lines by the line that stands
    for them; None if there are none, or the text is not written in blocks."""
    lines = text.split("\n")
    places = _places_of_cameras(lines)
    if not places:
        return None
    mark = next(name for name in map("left-out-{}-".format, count()) if name not in text)
    shortened, left_out = lines[: places[0][1]], dict[str, list[str]]()
    stands_for = None
    for camera, begin, end in places:
        if camera in kept:
            shortened += lines[begin:end]
            stands_for = None
            continue
        if stands_for is None:
            indent = " " * (len(lines[begin]) - len(lines[begin].lstrip()))
            stands_for = f"{indent}{mark}{len(left_out)}: {{}}{_line_end(text)}"
            left_out[stands_for] = []
            shortened.append(stands_for)
        left_out[stands_for] += lines[begin:end]
    return "\n".join([*shortened, *lines[places[-1][2] :]]), left_out


def _places_of_cameras(lines: Sequence[str]) -> list[tuple[str, int, int]]:
    """Returns each camera with the numbers of its first line and of the one after its last; none
    if that can't be said. Comments after a camera are its own, but not those after the last."""
    tops = [at for at, line in enumerate(lines) if _CAMERAS.fullmatch(line.rstrip())]
    if len(tops) != 1:
        return []
    indent, begins, end = "", list[tuple[str, int]](), 0
    for at in range(tops[0] + 1, len(lines)):
        line = lines[at].rstrip()
        if not line or line.lstrip().startswith("#"):
            continue
        if not line.startswith(" "):
            break
        end = at + 1
        camera = _CAMERA.fullmatch(line)
        indent = indent or (camera[1] if camera else line)
        if line.startswith(f"{indent} "):
            continue
        if camera is None or camera[1] != indent:
            return []
        begins.append((camera[2], at))
    ends = [*(at for _, at in begins[1:]), end]
    return [(camera, begin, end) for (camera, begin), end in zip(begins, ends, strict=False)]


def _changed_as_a_whole(text: str, change: Callable[[Any], None]) -> str:
    """See `_changed`."""
    line_end = _line_end(text)
    lines = text.split("\n")
    yaml = _yaml(lines)
    document = yaml.load(text.replace("\r\n", "\n"))
    before = _dump(yaml, document)
    change(document)
    after = _dump(yaml, document)
    written = [f"{line}{line_end}" if line else line for line in after]
    if len(before) != len(lines):  # It can't be said which line is which.
        return "\n".join(written)
    merged: list[str] = []
    for tag, begin, end, new_begin, new_end in SequenceMatcher(
        None, before, after, autojunk=False
    ).get_opcodes():
        merged += lines[begin:end] if tag == "equal" else written[new_begin:new_end]
        if tag == "delete":
            merged += _last_comments(lines[begin:end])
        elif tag == "replace":
            new = written[new_begin:new_end]
            last = _last_comments(lines[begin:end])
            merged += [line for line in last if line.strip() and line not in new]
    result = "\n".join(merged)
    try:
        is_same = _yaml(merged).load(result.replace("\r\n", "\n")) == document
    except YAMLError:
        is_same = False
    return result if is_same else "\n".join(written)


def _line_end(text: str) -> str:
    """Returns what is between the end of a line and the line feed."""
    return "\r" if "\r\n" in text else ""


def _last_comments(lines: Sequence[str]) -> list[str]:
    """Returns the comments after what is removed: they are about what comes next."""
    kept: list[str] = []
    for line in reversed(lines):
        if line.strip() and not line.lstrip().startswith("#"):
            break
        kept.insert(0, line)
    return kept


def _in_one_line(value: Value) -> Any:
    """Returns a value as it is written: in one line."""
    if isinstance(value, str):  # Times are quoted, as YAML 1.1 takes 20:00 for a number.
        return DoubleQuotedScalarString(value) if ":" in value else value
    if isinstance(value, list):
        node: Any = CommentedSeq([_in_one_line(part) for part in value])
    else:
        node = CommentedMap({key: _in_one_line(part) for key, part in value.items()})
    node.fa.set_flow_style()
    return node


def _yaml(lines: Sequence[str]) -> YAML:
    """Returns what reads and writes a text in the way in which its lines are written."""
    yaml = YAML()
    yaml.Resolver = _AsWritten
    yaml.Emitter = _Emitter
    yaml.preserve_quotes = True
    yaml.width = _WIDEST
    yaml.explicit_start = any(line.rstrip() == "---" for line in lines)
    yaml.map_indent, dash = _indents(lines)
    yaml.sequence_indent, yaml.sequence_dash_offset = dash + 2, dash
    return yaml


def _indents(lines: Sequence[str]) -> tuple[int, int]:
    """Returns by how many columns the first map in a map is indented, and the first dash."""
    of_map, of_dash = None, None
    contents = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    for line, following in pairwise(contents):
        inner = following.lstrip()
        deeper = len(following) - len(inner) - (len(line) - len(line.lstrip()))
        if _OPENS.match(line) is None or deeper < 0 or line.lstrip().startswith("-"):
            continue
        if inner.startswith("- "):
            of_dash = deeper if of_dash is None else of_dash
        elif deeper and of_map is None:
            of_map = deeper
    return of_map or 2, of_dash or 0


def _dump(yaml: YAML, document: Any) -> list[str]:
    """Returns the lines of a document; the last one is empty."""
    file = io.StringIO()
    yaml.dump(document, file)
    return file.getvalue().split("\n")


def _number(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")
