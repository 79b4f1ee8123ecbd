"""The report's page: what was gathered, with the chart and the pictures of alerts, as HTML.

The same input gives the same bytes. The page does not show an output's own address, so that a copy
of the output has the same page.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import orjson

import rules
from beam_pipeline.fleet import chart
from beam_pipeline.fleet.figures import DAY, HOUR, CameraFigures, Figures
from beam_pipeline.fleet.output_scan import AT_ONCE, map_in_threads
from beam_pipeline.pages import parts
from beam_pipeline.pages.report.gathering import AlertRecord, CameraRow, Fleet, without
from beam_pipeline.pages.report.incidents import Incident, find_incidents
from transforms.images.annotating import read_with_boxes
from transforms.records.count_rows import CountRow, sum_total
from transforms.records.text import one_line, printable
from transforms.records.times import canonical_time
from transforms.storage import stores

PICTURES = 60
"""Incidents that are shown with a picture."""
ROWS = 2_000
"""Further alerts that have a row."""
INCIDENTS_IN_SIGHT = 10
"""The newest incidents, which are in sight; the others are behind a click."""
_FROM_ONE_CAMERA = 10
"""At most this many pictures of one camera come first, so a busy camera does not crowd out
others."""
_LONGEST_SIDE, _LARGEST = 480, 30_000
_COLOUR = (214, 40, 40)
_HEAT_LEVELS = 5
_UNKNOWN = "-"
_DARK = {"#ffffff": "#161616", "#1f2933": "#e6e6e6", "#5f6c7b": "#a0a0a0", "#d5dbe1": "#3a3a3a"}
_DARK |= {"#e4e8ec": "#33383e", "#3a4654": "#aebccb", "#d55e00": "#ff8a3d", "#0072b2": "#5fb4ea"}
"""What the chart's colours become in dark mode."""


@dataclass(frozen=True)
class ShownIncident:
    """An incident with the picture of its first alert, and why there was one, in sentences.

    Attributes:
      incident: The incident.
      picture: The picture; None if it is not among the pictures that are shown.
      why: The sentences.
      others: The further alerts of the incident that have a row.
    """

    incident: Incident
    picture: parts.PagePicture | None = None
    why: tuple[str, ...] = ()
    others: tuple[AlertRecord, ...] = ()

    @property
    def left_out(self) -> int:
        """The number of further alerts without a row."""
        return len(self.incident.others) - len(self.others)


@dataclass(frozen=True)
class ShownWindow:
    """A row of a camera: its figures in a window of time, and what was counted in it."""

    figures: Figures
    counted: CountRow | None


@dataclass(frozen=True)
class ShownCamera:
    """A camera with all that the page knows of it."""

    row: CameraRow
    whole: Figures | None
    windows: tuple[ShownWindow, ...]
    incidents: tuple[ShownIncident, ...]


def make_page(fleet: Fleet) -> str:
    """Returns the page, with the pictures that can be found."""
    period = fleet.period
    drawing = None
    with ThreadPoolExecutor(1) as thread:  # Images are decoded without Python's lock.
        with_pictures = thread.submit(_shown_incidents, find_incidents(fleet.alerts))
        if period is not None:
            model = chart.period_model(fleet.rows, period.start, period.end)
            drawing = {
                "data": parts.data_uri("image/svg+xml", svg_with_dark_mode(model)),
                "text": " ".join((model.title, model.subtitle, *model.notes)),
            }
        shown = with_pictures.result()
    return parts.render(
        "beam_pipeline.pages.report",
        "page",
        script="page.js",
        fleet=fleet,
        period=None if period is None else chart.period_text(period.start, period.end),
        total=fleet.total,
        chart=drawing,
        days=Counter(hour.strftime("%Y-%m-%d") for hour in fleet.heat.hours),
        level=lambda threats: heat_level(threats, fleet.heat.most),
        incidents=shown,
        in_sight=INCIDENTS_IN_SIGHT,
        cameras=_shown_cameras(fleet, shown),
        rows=ROWS,
        figures_by=figures_division(fleet.figures),
        figures_cells=figures_cells,
        figures_text=figures_text,
        iso=canonical_time,
        percent=chart.percent,
        what=labels_text,
    )


def _shown_incidents(incidents: Sequence[Incident]) -> list[ShownIncident]:
    """Returns the incidents in their order, with pictures and rows as far as there is room."""
    before: Counter[str] = Counter()
    turns = []
    for index, incident in enumerate(incidents):
        turns.append((before[incident.camera] // _FROM_ONE_CAMERA, index))
        before[incident.camera] += 1
    with_picture = sorted(index for _, index in sorted(turns)[:PICTURES])
    leads = [incidents[index].lead for index in with_picture]
    at_once = max((stores.files_at_once(lead.output, AT_ONCE) for lead in leads), default=1)
    drawn = map_in_threads(_with_picture, leads, at_once)
    pictures = dict(zip(with_picture, drawn, strict=True))
    shown, room = [], ROWS
    for index, incident in enumerate(incidents):
        others = incident.others[: max(room, 0)]
        room -= len(others)
        picture, why = _picture_or_reason(incident.lead, pictures.get(index))
        shown.append(ShownIncident(incident, picture, why, others))
    return shown


def _shown_cameras(fleet: Fleet, incidents: Sequence[ShownIncident]) -> list[ShownCamera]:
    """Returns the cameras in their order, each with its figures, counts and incidents."""
    counted: dict[str, list[CountRow]] = defaultdict(list)
    for row in fleet.rows:
        counted[row.id].append(row)
    by_camera: dict[str, list[ShownIncident]] = defaultdict(list)
    for shown in incidents:
        by_camera[shown.incident.camera].append(shown)
    figures = {camera.id: camera for camera in fleet.figures}
    return [
        ShownCamera(
            row,
            figures[row.id].whole if row.id in figures else None,
            shown_windows(figures.get(row.id), counted[row.id]),
            tuple(by_camera[row.id]),
        )
        for row in fleet.cameras
    ]


def shown_windows(
    figures: CameraFigures | None, counted: Sequence[CountRow]
) -> tuple[ShownWindow, ...]:
    """Returns the windows of a camera's figures, each with the counts that begin in it."""
    windows = () if figures is None else figures.windows
    starts = [window.start for window in windows]
    inside: dict[int, list[CountRow]] = defaultdict(list)
    for row in counted:
        index = bisect_right(starts, row.window_start) - 1
        if index >= 0 and row.window_start < windows[index].end:
            inside[index].append(row)
    return tuple(
        ShownWindow(window, next(iter(sum_total(inside[index])), None))
        for index, window in enumerate(windows)
    )


def _picture_or_reason(
    alert: AlertRecord, drawn: tuple[parts.PagePicture, tuple[str, ...]] | Exception | None
) -> tuple[parts.PagePicture | None, tuple[str, ...]]:
    if drawn is None:
        return None, ()
    if not isinstance(drawn, Exception):
        return drawn
    why = printable(without(alert.output, one_line(drawn)))
    return parts.PagePicture(None, f"what is in final/ of it can't be read ({why})"), ()


def _with_picture(alert: AlertRecord) -> tuple[parts.PagePicture, tuple[str, ...]]:
    if not alert.final_uri:  # `prune` has shortened the record.
        return parts.PagePicture(None, "deleted by prune"), ()
    image = _final(alert)
    boxes = [image["detections"][threat["detection"]] for threat in image["threat"]["threats"]]
    drawn = read_with_boxes(
        [
            stores.validated_uri(alert.output, alert.camera, image["file"]),
            alert.image_uri,
        ],
        image["sha256"],
        boxes,
        _COLOUR,
        longest_side=_LONGEST_SIDE,
        max_bytes=_LARGEST,
    )
    picture = parts.page_picture(drawn)
    if picture.missing is not None:
        picture = replace(picture, missing=without(alert.output, picture.missing))
    return picture, tuple(rules.explain(image, timezone=alert.timezone).splitlines())


def _final(alert: AlertRecord) -> Mapping[str, Any]:
    """Returns the image JSON, from this output (perhaps a copy) or from the alert's address."""
    name = alert.final_uri.rpartition("/")[2]
    here = stores.join(alert.output, "final", alert.camera, name)
    try:
        data = stores.read_bytes(here)
    except OSError:
        data = stores.read_bytes(alert.final_uri)
    image: Mapping[str, Any] = orjson.loads(data)
    return image


def labels_text(labels: Mapping[str, float]) -> str:
    """Returns what was seen, surest first."""
    in_order = sorted(labels.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{printable(label)} {score:.2f}" for label, score in in_order)


def figures_division(figures: Sequence[CameraFigures]) -> str:
    """Returns what the figures are divided into."""
    windows = (window for camera in figures for window in camera.windows)
    longest = max((window.end - window.start for window in windows), default=HOUR)
    return "hours" if longest <= HOUR else "days" if longest <= DAY else "weeks"


def figures_cells(figures: Figures) -> tuple[str, ...]:
    """Returns the figures of a window in the order of the table's columns."""
    invalid = ", ".join(f"{_share(share)} {reason}" for reason, share in figures.invalid.items())
    return (
        _UNKNOWN if figures.expected is None else f"{figures.expected:,.3g}",
        f"{figures.seen:,}",
        invalid or "0 %",
        _UNKNOWN if figures.brightness is None else f"{figures.brightness:.2f}",
        _UNKNOWN if figures.sharpness is None else f"{figures.sharpness:.3f}",
        _UNKNOWN if figures.threat_share is None else _share(figures.threat_share),
        _UNKNOWN if figures.usual_threat_share is None else _share(figures.usual_threat_share),
    )


def figures_text(figures: Figures) -> str:
    """Returns the figures of the period in a line."""
    expected, seen, invalid, brightness, sharpness, threats, usual = figures_cells(figures)
    return (
        f"{seen} seen, {expected} expected; invalid {invalid}; brightness {brightness}, sharpness "
        f"{sharpness}; threats in {threats}, usually {usual}"
    )


def _share(share: float) -> str:
    return f"{100 * share:.1f} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def heat_level(threats: int, most: int) -> int:
    """Returns how dark a cell of the heat map is, 0 to `_HEAT_LEVELS`, on a logarithmic scale."""
    return math.ceil(_HEAT_LEVELS * math.log1p(threats) / math.log1p(most)) if threats else 0


def svg_with_dark_mode(model: chart.ChartModel) -> bytes:
    """Returns the chart as an SVG that follows the reader's choice of a dark page."""
    dark = "".join(
        f'[style*="{part}: {light}"] {{{part}: {instead} !important}}'
        for light, instead in _DARK.items()
        for part in ("fill", "stroke")
    )
    return chart.draw_model(model, "svg").replace(
        b"</style>", f"@media (prefers-color-scheme: dark) {{{dark}}}</style>".encode(), 1
    )
