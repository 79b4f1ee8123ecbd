"""A rule file with other values of some objects, its comments and its order kept."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.resolver import VersionedResolver

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
    yaml = YAML()
    yaml.Resolver = _AsWritten
    yaml.preserve_quotes = True
    yaml.width = _WIDEST
    document = yaml.load(text)
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
    file = io.StringIO()
    yaml.dump(document, file)
    return file.getvalue()


def _number(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")
