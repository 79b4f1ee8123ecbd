"""A rule file with other values of some objects, its comments and its order kept."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.resolver import VersionedResolver
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

Value = str | list["Value"] | dict[str, "Value"]
"""What a setting is to be, with numbers as they are to be written."""
Setting = tuple[tuple[str, ...], Value]
"""A key by its path from the top of the rule file, and its value."""

_NULL = re.compile(r"(?:~|null|Null|NULL|)$")
_WIDEST = 1 << 20


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


def apply_edits(text: str, edits: Iterable[Edit]) -> str:
    """Returns a rule file's text with edits; what they do not touch stays, comments too.

    Args:
      text: The content of a rule file that was found right.
      edits: What is to change.
    """
    yaml, document = _load(text)
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
    return _dump(yaml, document)


def apply_settings(text: str, settings: Iterable[Setting]) -> str:
    """Returns a rule file's text with other settings; the rest stays, comments too.

    A list is added to the list that is there; any other value replaces what is there.

    Args:
      text: The content of a rule file that was found right.
      settings: What is to change. Parts of a path that the file does not have are added.
    """
    yaml, document = _load(text)
    for (*parents, last), value in settings:
        node = document
        for key in parents:
            if node.get(key) is None:
                node[key] = CommentedMap()
            node = node[key]
        if isinstance(value, list) and node.get(last) is not None:
            node[last].extend(_in_one_line(value))
        else:
            node[last] = _in_one_line(value)
    return _dump(yaml, document)


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


def _load(text: str) -> tuple[YAML, Any]:
    yaml = YAML()
    yaml.Resolver = _AsWritten
    yaml.preserve_quotes = True
    yaml.width = _WIDEST
    return yaml, yaml.load(text)


def _dump(yaml: YAML, document: Any) -> str:
    file = io.StringIO()
    yaml.dump(document, file)
    return file.getvalue()


def _number(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")
