"""What the HTML pages share: templates that escape, pictures in the page itself, and a policy.

A page is one file without links to others, so that it can be sent on. Whatever comes from an
archive, a file name or a rule file is escaped, and its policy forbids the network and every style
and script but its own.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from transforms import stores
from transforms.drawing import Colour, with_boxes
from transforms.text import one_line, printable

_LARGEST_FILE = 64 << 20


@dataclass(frozen=True)
class Picture:
    """A picture for a page.

    Attributes:
      data: As a data URI; None where it can't be shown.
      missing: Why not.
    """

    data: str | None
    missing: str | None


def picture(
    places: Sequence[str],
    sha256: str,
    boxes: Iterable[Mapping[str, Any]],
    colour: Colour,
    *,
    longest_side: int,
    largest: int | None = None,
) -> Picture:
    """A picture with boxes drawn into it, from the first of some places that has it.

    Args:
      places: Addresses where it is or was.
      sha256: Of the file: where there is another picture by now, it is not shown.
      boxes: As for `with_boxes`.
      colour: Of the boxes.
      longest_side: Of what is shown, in pixels.
      largest: Bytes that it may have; None for any number.
    """
    drawn = list(boxes)
    why = ""
    for place in places:
        try:
            data = stores.read_bytes(place, _LARGEST_FILE)
        except Exception as error:  # Each store's client has its own kinds of error.
            why = why or f"{place} can't be read ({one_line(error)})"
            continue
        if hashlib.sha256(data).hexdigest() != sha256:
            why = f"{place} holds another picture by now"
            continue
        try:
            jpeg = with_boxes(data, drawn, colour, longest_side=longest_side, largest=largest)
        except Exception as error:  # Pillow has many kinds of error for what it can't decode.
            why = f"{place} can't be decoded ({one_line(error)})"
            continue
        return Picture(data_uri("image/jpeg", jpeg), None)
    return Picture(None, printable(why))


def data_uri(kind: str, data: bytes) -> str:
    """Bytes as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def render(package: str, name: str, *, script: str | None = None, **values: Any) -> str:
    """A page made by a template.

    The template gets `policy`, `style` and `script` besides the values.

    Args:
      package: The package that the template, its style and its script are files of.
      name: `<name>.html` is the template, `<name>.css` its style, after the shared `page.css`.
      script: The name of its script, if any.
      values: What the template shows.
    """
    folder = resources.files(package)
    shared = resources.files("beam_pipeline").joinpath("page.css").read_text(encoding="utf-8")
    style = shared + folder.joinpath(f"{name}.css").read_text(encoding="utf-8")
    code = "" if script is None else folder.joinpath(script).read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = "{:,}".format
    template = environment.from_string(folder.joinpath(f"{name}.html").read_text(encoding="utf-8"))
    return template.render(
        policy=_policy(style, code), style=Markup(style), script=Markup(code), **values
    )


def _policy(style: str, script: str) -> str:
    """A Content-Security-Policy that allows this style and script alone, and pictures in the page.

    By hashes of what stands between their tags (CSP Level 3, 2.3.1), so that nothing that gets
    into the page otherwise is run.
    """
    parts = ["default-src 'none'", "img-src data:", f"style-src {_hash(style)}"]
    if script:
        parts.append(f"script-src {_hash(script)}")
    return "; ".join([*parts, "base-uri 'none'", "form-action 'none'"])


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
