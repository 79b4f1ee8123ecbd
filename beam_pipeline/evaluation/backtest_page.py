"""The HTML page of ``backtest``: the numbers, and the pictures of the largest changes."""

from __future__ import annotations

from dataclasses import dataclass

from beam_pipeline.evaluation.backtest_report import ChangeJson, ExampleJson, Report, reasons
from beam_pipeline.pages import parts
from transforms.images.annotating import read_with_boxes
from transforms.storage import stores

_LONGEST_SIDE = 480
_ROWS = 200
_COLOURS = {"gained": (226, 74, 51), "lost": (52, 120, 220)}


@dataclass(frozen=True)
class Shown:
    """A picture on the page, and the `Example` that it is of, as JSON."""

    example: ExampleJson
    picture: parts.PagePicture


def make_page(report: Report) -> str:
    """Returns the page, with the pictures that can be found."""
    changes = [
        (change, [_shown(report, change, example) for example in change["examples"]])
        for change in report.changes
    ]
    return parts.render(
        "beam_pipeline.evaluation",
        "backtest_page",
        report=report,
        changes=changes,
        rows=_ROWS,
        reasons=reasons,
    )


def _shown(report: Report, change: ChangeJson, example: ExampleJson) -> Shown:
    kept = [stores.validated_uri(uri, change["id"], example["file"]) for uri in report.archive]
    drawn = read_with_boxes(
        [*kept, example["uri"]],
        example["sha256"],
        example["boxes"],
        _COLOURS[change["kind"]],
        longest_side=_LONGEST_SIDE,
    )
    return Shown(example, parts.page_picture(drawn))
