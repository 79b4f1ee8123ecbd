"""The HTML page of ``backtest``: the numbers, and the pictures of the largest changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from beam_pipeline import pages
from beam_pipeline.backtest import Report, reasons
from transforms import stores

_LONGEST_SIDE = 480
_ROWS = 200
_COLOURS = {"gained": (226, 74, 51), "lost": (52, 120, 220)}


@dataclass(frozen=True)
class Shown:
    """A picture on the page, and the `Example` that it is of, as JSON."""

    example: dict[str, Any]
    picture: pages.Picture


def make_page(report: Report) -> str:
    """The page, with the pictures that can be found."""
    changes = [
        (change, [_shown(report, change, one) for one in change["examples"]])
        for change in report.changes
    ]
    return pages.render(
        "beam_pipeline",
        "backtest_page",
        report=report,
        changes=changes,
        rows=_ROWS,
        reasons=reasons,
    )


def _shown(report: Report, change: dict[str, Any], example: dict[str, Any]) -> Shown:
    places = [stores.validated_uri(uri, change["id"], example["file"]) for uri in report.archive]
    picture = pages.picture(
        [*places, example["uri"]],
        example["sha256"],
        example["boxes"],
        _COLOURS[change["kind"]],
        longest_side=_LONGEST_SIDE,
    )
    return Shown(example, picture)
