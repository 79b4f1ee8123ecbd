"""The report's page: what was gathered, with the chart and the pictures of alerts, as HTML.

The same input gives the same bytes. An output's own address is not told, so that a copy of it has
the same page.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

import rules
from beam_pipeline import chart, pages
from beam_pipeline.report.gathering import AlertRecord, Fleet, in_threads, without
from transforms import stores
from transforms.text import one_line, printable

PICTURES = 60
"""Alerts that are shown with their pictures."""
ROWS = 2_000
"""Further alerts that have a row."""
_FROM_ONE_CAMERA = 10
"""So many of a camera come before more of it, so that one that floods leaves room for others."""
_LONGEST_SIDE, _LARGEST = 480, 30_000
_COLOUR = (214, 40, 40)
_HEAT_LEVELS = 5
_DARK = {"#ffffff": "#161616", "#1f2933": "#e6e6e6", "#5f6c7b": "#a0a0a0", "#d5dbe1": "#3a3a3a"}
_DARK |= {"#e4e8ec": "#33383e", "#3a4654": "#aebccb", "#d55e00": "#ff8a3d", "#0072b2": "#5fb4ea"}
"""What the chart's colours become in dark mode."""


@dataclass(frozen=True)
class ShownAlert:
    """An alert with its picture, and why there was one, in sentences."""

    alert: AlertRecord
    picture: pages.Picture
    why: tuple[str, ...]


def make_page(fleet: Fleet) -> str:
    """The page, with the pictures that can be found."""
    shown, others = _choose(fleet.alerts)
    period = fleet.period
    drawing = None
    if period is not None:
        model = chart.period_model(fleet.rows, period.start, period.end)
        drawing = {
            "data": pages.data_uri("image/svg+xml", _in_the_dark_too(model)),
            "text": " ".join((model.title, model.subtitle, *model.notes)),
        }
    return pages.render(
        "beam_pipeline.report",
        "page",
        script="page.js",
        fleet=fleet,
        period=None if period is None else chart.period_text(period.start, period.end),
        total=fleet.total,
        chart=drawing,
        days=Counter(hour.strftime("%Y-%m-%d") for hour in fleet.heat.hours),
        level=lambda threats: _level(threats, fleet.heat.most),
        shown=[_shown(alert, found) for alert, found in shown],
        others=others[:ROWS],
        more=max(0, len(others) - ROWS),
        percent=chart.percent,
        what=_what,
    )


def _choose(
    alerts: Sequence[AlertRecord],
) -> tuple[list[tuple[AlertRecord, ShownAlert | Exception]], list[AlertRecord]]:
    """The alerts that are shown with pictures, and the others; both in the order given."""
    before: Counter[str] = Counter()
    turns = []
    for place, alert in enumerate(alerts):
        turns.append((before[alert.camera] // _FROM_ONE_CAMERA, place))
        before[alert.camera] += 1
    with_picture = sorted(place for _, place in sorted(turns)[:PICTURES])
    chosen = [alerts[place] for place in with_picture]
    left_out = set(range(len(alerts))) - set(with_picture)
    return (
        list(zip(chosen, in_threads(_with_picture, chosen), strict=True)),
        [alerts[place] for place in sorted(left_out)],
    )


def _shown(alert: AlertRecord, found: ShownAlert | Exception) -> ShownAlert:
    if isinstance(found, ShownAlert):
        return found
    why = printable(without(alert.output, one_line(found)))
    return ShownAlert(
        alert, pages.Picture(None, f"what is in final/ of it can't be read ({why})"), ()
    )


def _with_picture(alert: AlertRecord) -> ShownAlert:
    image = _final(alert)
    boxes = [image["detections"][one["detection"]] for one in image["threat"]["threats"]]
    picture = pages.picture(
        [
            stores.validated_uri(alert.output, alert.camera, image["file"]),
            alert.image_uri,
        ],
        image["sha256"],
        boxes,
        _COLOUR,
        longest_side=_LONGEST_SIDE,
        largest=_LARGEST,
    )
    if picture.missing is not None:
        picture = replace(picture, missing=without(alert.output, picture.missing))
    return ShownAlert(alert, picture, tuple(rules.explain(image).splitlines()))


def _final(alert: AlertRecord) -> Mapping[str, Any]:
    """The image JSON, from this output, which may be a copy, or from where the alert says."""
    name = alert.final_uri.rpartition("/")[2]
    here = stores.join(alert.output, "final", alert.camera, name)
    try:
        data = stores.read_bytes(here)
    except OSError:
        data = stores.read_bytes(alert.final_uri)
    image: Mapping[str, Any] = orjson.loads(data)
    return image


def _what(labels: Mapping[str, float]) -> str:
    """What was seen, surest first."""
    in_order = sorted(labels.items(), key=lambda one: (-one[1], one[0]))
    return ", ".join(f"{printable(label)} {score:.2f}" for label, score in in_order)


def _level(threats: int, most: int) -> int:
    """How dark a cell of the heat map is, 0 to `_HEAT_LEVELS`; logarithmic, as threats are."""
    return math.ceil(_HEAT_LEVELS * math.log1p(threats) / math.log1p(most)) if threats else 0


def _in_the_dark_too(model: chart.ChartModel) -> bytes:
    """The chart as an SVG that follows the reader's choice of a dark page."""
    dark = "".join(
        f'[style*="{part}: {light}"] {{{part}: {instead} !important}}'
        for light, instead in _DARK.items()
        for part in ("fill", "stroke")
    )
    return chart.draw_model(model, "svg").replace(
        b"</style>", f"@media (prefers-color-scheme: dark) {{{dark}}}</style>".encode(), 1
    )
