"""The HTML page of ``backtest``: the numbers, and the pictures of the largest changes.

One file without links to others, so that it can be sent on: pictures are small JPEGs in the page
itself, a few dozen at most. Whatever comes from an archive or a rule file is escaped.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from beam_pipeline.backtest import Report, reasons
from transforms import stores
from transforms.drawing import with_boxes
from transforms.text import one_line, printable

_TEMPLATE = Path(__file__).with_name("backtest_page.html")
_LONGEST_SIDE = 480
_LARGEST_FILE = 64 << 20
_ROWS = 200
_COLOURS = {"gained": (226, 74, 51), "lost": (52, 120, 220)}


@dataclass(frozen=True)
class Shown:
    """A picture on the page.

    Attributes:
      example: The `Example`, as JSON.
      data: The picture as a data URI; None where it can't be shown.
      missing: Why not.
    """

    example: dict[str, Any]
    data: str | None
    missing: str | None


def make_page(report: Report) -> str:
    """The page, with the pictures that can be found."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = "{:,}".format
    environment.filters["reasons"] = reasons
    changes = [
        (change, [_shown(report, change, one) for one in change["examples"]])
        for change in report.changes
    ]
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(report=report, changes=changes, rows=_ROWS)


def _shown(report: Report, change: dict[str, Any], example: dict[str, Any]) -> Shown:
    id, kind = change["id"], change["kind"]
    places = [stores.validated_uri(uri, id, example["file"]) for uri in report.archive]
    why = ""
    for place in (*places, example["uri"]):
        try:
            data = stores.read_bytes(place, _LARGEST_FILE)
        except Exception as error:  # Each store's client has its own kinds of error.
            why = why or f"{place} can't be read ({one_line(error)})"
            continue
        if hashlib.sha256(data).hexdigest() != example["sha256"]:
            why = f"{place} holds another picture by now"
            continue
        try:
            jpeg = with_boxes(data, example["boxes"], _COLOURS[kind], longest_side=_LONGEST_SIDE)
        except Exception as error:  # Pillow has many kinds of error for what it can't decode.
            why = f"{place} can't be decoded ({one_line(error)})"
            continue
        uri = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
        return Shown(example, uri, None)
    return Shown(example, None, printable(why))
