"""The chart: threats per id over the recent period, with the unusual ids marked.

`fleet.statistics.outliers` says which ids stand out, `chart_model` decides everything that the
picture shows, and `draw_chart` draws that model. The command is ``python -m beam_pipeline chart``.

Matplotlib is imported only to draw, so that other commands start earlier.
"""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from apache_beam.io.filesystem import BeamIOError

from beam_pipeline.fleet import counts
from beam_pipeline.fleet.fleet_end import FleetEnd, find_end
from beam_pipeline.fleet.output_scan import CountsError, NoCountsError, OutputScan
from beam_pipeline.fleet.statistics.outliers import MIN_JUDGED_IDS, Mark, unusual_ids
from beam_pipeline.inputs.preflight import check_arguments
from rules.text import number_of
from transforms.records.count_rows import CountRow, sum_by_id, sum_total
from transforms.records.times import canonical_time
from transforms.storage import stores


@dataclass(frozen=True)
class Bar:
    """One id of the chart.

    Attributes:
      row: Its counts, summed over the period.
      mark: Whether it is unusual among its peers.
      text: The text beside its bar.
    """

    row: CountRow
    mark: Mark | None
    text: str


@dataclass(frozen=True)
class Gap:
    """Ids that were left out between two bars; `text` says how many."""

    ids: int
    text: str


@dataclass(frozen=True)
class ChartModel:
    """Everything that the chart shows, in words and numbers.

    Attributes:
      title: The headline.
      subtitle: The period in UTC and the totals.
      lines: Bars, most threats first, and gaps where ids were left out.
      notes: What a reader must know besides, such as why nothing is marked.
    """

    title: str
    subtitle: str
    lines: tuple[Bar | Gap, ...]
    notes: tuple[str, ...]

    @property
    def bars(self) -> list[Bar]:
        return [line for line in self.lines if isinstance(line, Bar)]

    @property
    def marks(self) -> dict[str, Mark]:
        return {bar.row.id: bar.mark for bar in self.bars if bar.mark is not None}


MARK_TEXT: Mapping[Mark, str] = {
    "many": "▲ more threats than its peers, given its images",
    "few": "▼ fewer threats than its peers, given its images",
}
NOTHING_COUNTED = "No images have been counted yet."
ALL_SHOWN_UP_TO = 60
_MOST, _LEAST, _MARKED = 30, 10, 60
AHEAD_SHOWN = 5
"""The number of cameras with a wrong clock that are named one by one."""


def chart_model(
    rows: Iterable[CountRow],
    *,
    period_hours: float = 24,
    title: str = "Threats per camera",
    end: FleetEnd | None = None,
) -> ChartModel:
    """Decides what the chart shows of `rows`: the recent period alone, ids by threats.

    The period ends where `end` says, by default with the newest of the rows' windows. Up to
    `ALL_SHOWN_UP_TO` ids are all shown; of more, the 30 with the most threats, the 10 with the
    least and the marked ones, up to 60, with a line for the ids between.
    """
    rows = list(rows)
    if not rows and end is None:
        _check_hours(period_hours)
        return ChartModel(title, NOTHING_COUNTED, (), ())
    if end is None:
        start, until = max(
            ((row.window_start, row.window_end) for row in rows),
            key=lambda window: (window[1], window[1] - window[0]),
        )
        end = FleetEnd(start, until)
    start, until = recent_period(end, period_hours)
    shown = [row for row in rows if start <= row.window_start < until]
    model = period_model(shown, start, until, title=title)
    notes = list(model.notes)
    if until - start > timedelta(hours=period_hours):
        notes.insert(0, f"The counts' windows are longer than the {period_hours:g} h asked for.")
    notes += ahead_notes(end)
    return replace(model, notes=tuple(notes))


def ahead_notes(end: FleetEnd) -> list[str]:
    """Returns a line for each of the first cameras whose images are dated after the period."""
    shown = [f"{camera.id} {camera.describe(end.time)}." for camera in end.ahead[:AHEAD_SHOWN]]
    more = len(end.ahead) - len(shown)
    return [*shown, f"The clocks of {more:,} more cameras are ahead."] if more else shown


def period_model(
    rows: Sequence[CountRow],
    start: datetime,
    end: datetime,
    *,
    title: str = "Threats per camera",
) -> ChartModel:
    """As `chart_model`, of all the rows, which are those of a period from `start` to `end`."""
    if not rows:
        return ChartModel(title, NOTHING_COUNTED, (), ())
    by_id = {row.id: row for row in sum_by_id(rows)}
    (total,) = sum_total(list(by_id.values()))
    marks = unusual_ids(by_id)
    # Among equal threats, more images come later: the last id is the quietest for its images.
    ordered = sorted(by_id.values(), key=lambda row: (-row.threats, row.images, row.id))
    usual = sum_total([row for row in ordered if row.id not in marks])
    peers = percent(usual[0].threat_images, usual[0].images) if usual else "-"
    bars = [_bar(row, marks.get(row.id), peers) for row in ordered]
    subtitle = (
        f"{period_text(start, end)}\n{number_of(total.images, 'image')} from "
        f"{number_of(len(by_id), 'id')}   ·   {total.threats:,} threats in "
        f"{number_of(total.threat_images, 'image')}   ·   {number_of(total.alerts, 'alert')}"
    )
    notes = []
    if not total.threats:
        notes.append("No threats in this period.")
    judged = sum(row.images > 0 for row in by_id.values())
    if judged < MIN_JUDGED_IDS:
        notes.append(
            f"Nothing can be marked with {number_of(judged, 'id')}: an id is compared with its "
            f"peers, from {MIN_JUDGED_IDS} ids on."
        )
    elif total.threats and not marks:
        notes.append("No id stands out from its peers by the share of its images with a threat.")
    lines = _shorten(bars)
    hidden = len(marks) - sum(isinstance(line, Bar) and line.mark is not None for line in lines)
    if hidden:
        notes.append(f"{hidden:,} more marked ids are not shown.")
    return ChartModel(title, subtitle, tuple(lines), tuple(notes))


def recent_period(end: FleetEnd, period_hours: float) -> tuple[datetime, datetime]:
    """Returns the period that ends where the fleet's does and is `period_hours` long.

    A window belongs to it if it begins in it. Where the newest window is longer than that, the
    period is that window.

    Raises:
      CountsError: `period_hours` is not a number of hours above 0 and up to 1,000,000.
    """
    _check_hours(period_hours)
    return min(end.start, end.time - timedelta(hours=period_hours)), end.time


def _check_hours(period_hours: float) -> None:
    if not 0 < period_hours <= 1_000_000:  # false for NaN too
        raise CountsError(
            f"--chart_period_hours must be above 0 and at most 1000000, not {period_hours:g}"
        )


def _bar(row: CountRow, mark: Mark | None, peers: str) -> Bar:
    text = f"{row.threats:,}"
    if mark is not None:
        text += (
            f"  {MARK_TEXT[mark][0]} {'more' if mark == 'many' else 'fewer'}: "
            f"{percent(row.threat_images, row.images)} of images, "
            f"peers {peers}"
        )
    return Bar(row, mark, text)


def _shorten(bars: Sequence[Bar]) -> list[Bar | Gap]:
    if len(bars) <= ALL_SHOWN_UP_TO:
        return list(bars)
    shown = set(range(_MOST)) | set(range(len(bars) - _LEAST, len(bars)))
    marked = [k for k, bar in enumerate(bars) if bar.mark is not None and k not in shown]
    # From both ends inwards, should there be more than fit.
    marked.sort(key=lambda k: min(k, len(bars) - 1 - k))
    shown |= set(marked[:_MARKED])
    lines: list[Bar | Gap] = []
    skipped: list[Bar] = []
    for k, bar in enumerate(bars):
        if k not in shown:
            skipped.append(bar)
            continue
        if skipped:
            lines.append(_gap(skipped))
            skipped = []
        lines.append(bar)
    return lines


def _gap(bars: Sequence[Bar]) -> Gap:
    most, least = bars[0].row.threats, bars[-1].row.threats
    threats = number_of(most, "threat") if most == least else f"{least:,} to {most:,} threats"
    each = " each" if len(bars) > 1 else ""
    return Gap(len(bars), f"… and {number_of(len(bars), 'more id')} between, {threats}{each}")


def period_text(start: datetime, end: datetime) -> str:
    """Returns a period in UTC, and how long it is, for a person."""

    def text(time: datetime) -> str:
        return canonical_time(time).replace("T", " ").removesuffix("Z").removesuffix(":00")

    return f"{text(start)} to {text(end)} UTC ({(end - start) / timedelta(hours=1):,.4g} h)"


def percent(part: int, whole: int) -> str:
    """Returns a share, for a person."""
    if not part or not whole:
        return "0 %"
    share = 100 * part / whole
    return "<0.1 %" if share < 0.1 else f"{share:.1f} %" if share < 9.95 else f"{share:.0f} %"


# Drawing

_DPI = 100
_INK, _FAINT, _RULE = "#1f2933", "#5f6c7b", "#d5dbe1"
# Okabe and Ito's palette: distinct with every common form of colour blindness.
_BAR_COLOURS: Mapping[Mark | None, str] = {
    None: "#8a99a8",
    "many": "#d55e00",
    "few": "#0072b2",
}
_HATCHES: Mapping[Mark | None, str | None] = {None: None, "many": "////", "few": "...."}
_ALERT, _DETECTION, _QUIET = "#3a4654", "#8a99a8", "#e4e8ec"


def draw_chart(
    rows: Iterable[CountRow],
    *,
    period_hours: float = 24,
    title: str = "Threats per camera",
    end: FleetEnd | None = None,
) -> bytes:
    """Draws the threats per id of the recent period; the same rows give the same bytes.

    Args:
      rows: Count rows of any number of windows.
      period_hours: Length of the period.
      title: The headline.
      end: Where the period ends; None for the end of the newest window.

    Returns:
      A PNG of 100 dots an inch.

    Raises:
      CountsError: `period_hours` is no length of time.
    """
    return draw_model(chart_model(rows, period_hours=period_hours, title=title, end=end))


def draw_model(model: ChartModel, form: Literal["png", "svg"] = "png") -> bytes:
    """Draws what a model says; the same model gives the same bytes.

    Args:
      model: What the picture says.
      form: A PNG of 100 dots an inch, or an SVG whose letters are shapes, so that it needs no font.
    """
    import matplotlib

    # A person's own matplotlibrc must not change the picture.
    defaults: Any = {k: v for k, v in matplotlib.rcParamsDefault.items() if k != "backend"}
    # Ids in an SVG are hashes, by default with a salt that is drawn again each time.
    with matplotlib.rc_context({**defaults, "svg.hashsalt": "threats"}):
        return _Drawing(model).encoded(form)


def load_matplotlib() -> None:
    """Imports what :func:`draw_model` needs, which takes a quarter of a second."""
    from matplotlib import font_manager, patches  # noqa: F401
    from matplotlib.backends import backend_agg, backend_svg  # noqa: F401


_LINE_HEIGHT = 0.29
_THREATS_WIDTH, _GUTTER, _IMAGES_WIDTH = 6.6, 0.35, 2.6


class _Drawing:
    """A model as a figure. Lengths are in inches, from the left and from the top."""

    def __init__(self, model: ChartModel) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self._model = model
        self._bars = model.bars
        self._figure = Figure(dpi=_DPI, facecolor="white")
        self._canvas: Any = FigureCanvasAgg(self._figure)
        self._left = 0.35 + max([self._inches(bar.row.id, 10) for bar in self._bars] + [0.6])
        self._images_left = self._left + _THREATS_WIDTH + _GUTTER
        self._legend = self._legend_patches()
        self._head = 1.75 if self._bars else 1.3
        self._body = _LINE_HEIGHT * max(len(model.lines), 1)
        self._foot = 0.35 + 0.24 * len(model.notes) + (0.28 if self._legend else 0)
        self._width = self._total_width()
        self._height = self._head + self._body + self._foot
        self._figure.set_size_inches(self._width, self._height)
        self._write_words()
        if self._bars:
            self._draw_bars()
            self._draw_legend()

    def encoded(self, form: Literal["png", "svg"]) -> bytes:
        """Returns the figure as a file."""
        file = io.BytesIO()
        # Without these the bytes name neither the version of matplotlib nor the time.
        metadata = {"png": {"Software": None}, "svg": {"Creator": None, "Date": None}}
        self._figure.savefig(
            file, format=form, dpi=_DPI, facecolor="auto", edgecolor="auto", metadata=metadata[form]
        )
        return _with_numbered_ids(file.getvalue()) if form == "svg" else file.getvalue()

    def _inches(self, text: str, size: float) -> float:
        from matplotlib.font_manager import FontProperties

        width, _, _ = self._canvas.get_renderer().get_text_width_height_descent(
            text, FontProperties(family="DejaVu Sans", size=size), ismath=False
        )
        return float(width) / _DPI

    def _total_width(self) -> float:
        texts = [self._inches(_images_text(bar.row), 9.5) for bar in self._bars]
        images_text = max([*texts, 0.6]) + 0.3
        notes = max(self._inches(note, 10) for note in (*self._model.notes, ""))
        return max(self._images_left + _IMAGES_WIDTH + images_text, 0.7 + notes)

    def _legend_patches(self) -> list[Any]:
        from matplotlib.patches import Patch

        patches = [
            Patch(
                facecolor=_BAR_COLOURS[mark],
                hatch=_HATCHES[mark],
                edgecolor="white",
                label=text,
            )
            for mark, text in MARK_TEXT.items()
            if mark in self._model.marks.values()
        ]
        if patches:
            usual = Patch(facecolor=_BAR_COLOURS[None], label="not unusual among its peers")
            patches.append(usual)
        return patches

    def _write(self, x: float, y: float, text: str, **style: Any) -> None:
        style = {"fontsize": 10, "color": _INK, "va": "top", **style}
        self._figure.text(x / self._width, 1 - y / self._height, text, parse_math=False, **style)

    def _write_words(self) -> None:
        """Title, subtitle and notes."""
        model = self._model
        self._write(0.25, 0.22, model.title, fontsize=17, fontweight="bold")
        self._write(0.25, 0.62, model.subtitle, fontsize=10.5, color=_FAINT, linespacing=1.45)
        for k, note in enumerate(model.notes):
            y = self._head + self._body + 0.15 + 0.24 * k
            self._write(0.25, y, note, fontstyle="italic", color=_FAINT)

    def _draw_bars(self) -> None:
        # The bars keep clear of the words beside them: the longest text must fit after its bar.
        threats_an_inch = (
            max(
                bar.row.threats / max(_THREATS_WIDTH - 0.2 - 1.08 * self._inches(bar.text, 10), 0.5)
                for bar in self._bars
            )
            or 1.0
        )
        most_images = max(bar.row.images for bar in self._bars)
        threats_axes = self._axes(self._left, _THREATS_WIDTH, threats_an_inch * _THREATS_WIDTH)
        images_axes = self._axes(self._images_left, _IMAGES_WIDTH, most_images)
        self._write_column_heads()
        images_an_inch = max(most_images, 1) / _IMAGES_WIDTH
        for y, line in enumerate(self._model.lines):
            if isinstance(line, Gap):
                self._write_gap(y, line)
            else:
                self._draw_threats(threats_axes, y, line, threats_an_inch)
                self._draw_images(images_axes, y, line.row, images_an_inch)

    def _axes(self, x: float, width: float, largest: float) -> Any:
        axes = self._figure.add_axes(
            (
                x / self._width,
                self._foot / self._height,
                width / self._width,
                self._body / self._height,
            )
        )
        axes.set_xlim(0, largest or 1)
        axes.set_ylim(len(self._model.lines) - 0.5, -0.5)
        axes.set_xticks([])
        axes.set_yticks([])
        for side in ("top", "right", "bottom"):
            axes.spines[side].set_visible(False)
        axes.spines["left"].set_color(_RULE)
        return axes

    def _write_column_heads(self) -> None:
        top = self._head - 0.12
        self._write(self._left, top, "Threats", fontweight="bold", va="bottom")
        self._write(self._images_left, top, "Images", fontweight="bold", va="bottom")
        x = self._images_left + 0.72
        for colour, label in (
            (_ALERT, "alert"),
            (_DETECTION, "threat, no alert"),
            (_QUIET, "no threat"),
        ):
            self._write(x, top, "■", color=colour, va="bottom")
            self._write(x + 0.17, top, label, fontsize=9.5, color=_FAINT, va="bottom")
            x += 0.3 + self._inches(label, 9.5)

    def _middle(self, y: int) -> float:
        return self._head + (y + 0.5) * _LINE_HEIGHT

    def _write_gap(self, y: int, gap: Gap) -> None:
        self._write(
            self._left + 0.08,
            self._middle(y),
            gap.text,
            fontsize=10,
            fontstyle="italic",
            color=_FAINT,
            va="center",
        )

    def _draw_threats(self, axes: Any, y: int, bar: Bar, threats_an_inch: float) -> None:
        row, colour = bar.row, _BAR_COLOURS[bar.mark]
        axes.barh(
            y,
            row.threats,
            height=0.68,
            color=colour,
            hatch=_HATCHES[bar.mark],
            edgecolor="white",
            linewidth=0,
        )
        bold = "bold" if bar.mark else "normal"
        ink = colour if bar.mark else _INK
        middle = self._middle(y)
        self._write(
            self._left - 0.1,
            middle,
            row.id,
            color=ink,
            fontweight="normal",
            ha="right",
            va="center",
        )
        number, _, words = bar.text.partition("  ")
        x = self._left + row.threats / threats_an_inch + 0.07
        self._write(x, middle, number, color=ink, fontweight=bold, va="center")
        x += self._inches(number, 10) * 1.12 + 0.08
        self._write(x, middle, words, color=ink, va="center")

    def _draw_images(self, axes: Any, y: int, row: CountRow, images_an_inch: float) -> None:
        start = 0
        for count, shade in (
            (row.alerts, _ALERT),
            (row.threat_images - row.alerts, _DETECTION),
            (row.images - row.threat_images, _QUIET),
        ):
            axes.barh(y, count, left=start, height=0.68, color=shade, linewidth=0)
            start += count
        self._write(
            self._images_left + row.images / images_an_inch + 0.07,
            self._middle(y),
            _images_text(row),
            fontsize=9.5,
            color=_FAINT,
            va="center",
        )

    def _draw_legend(self) -> None:
        if self._legend:
            self._figure.legend(
                handles=self._legend,
                loc="lower left",
                ncols=3,
                frameon=False,
                fontsize=10,
                bbox_to_anchor=(0.12 / self._width, 0.05 / self._height),
                borderaxespad=0.2,
                handlelength=1.6,
                columnspacing=2,
                labelcolor=_INK,
            )


def _images_text(row: CountRow) -> str:
    return f"{row.images:,} ({percent(row.threat_images, row.images)} with a threat)"


def _with_numbered_ids(svg: bytes) -> bytes:
    """Replaces matplotlib's ids, which are digests of how the installed NumPy writes a number."""
    names = [match[1] for match in re.finditer(rb' id="([a-z]+[0-9a-f]{10})"', svg)]
    numbers = {name: b"shape-%d" % number for number, name in enumerate(names, 1)}
    return re.sub(
        rb'([#"])([a-z]+[0-9a-f]{10})(?=[")])',
        lambda match: match[1] + numbers.get(match[2], match[2]),
        svg,
    )


# Writing


def write_chart(
    scan: OutputScan,
    period_hours: float = 24,
    *,
    file: str | None = None,
    missing_ok: bool = False,
) -> str:
    """Draws the chart of the counts of one output or several, added up.

    Only the recent period's files are read.

    Args:
      scan: The output, or several.
      period_hours: Length of the period, which ends where `find_end` says.
      file: Where to write it; None for ``<output>/chart/threats.png`` of a single output.
      missing_ok: Draws a chart that says so where there are no counts, as after a job that had no
        valid image, rather than raising.

    Returns:
      Where it was written.

    Raises:
      CountsError: No counts, wrong counts, several outputs and no `file`, or the chart cannot be
        written.
    """
    _check_hours(period_hours)
    if file is None and len(scan.outputs) > 1:
        raise CountsError("--file is missing: the chart of several outputs belongs to none of them")
    try:
        end = find_end(scan)
    except NoCountsError:
        if not missing_ok:
            raise
        end = None
    rows: list[CountRow] = []
    if end is not None:
        start, until = recent_period(end, period_hours)
        rows = scan.counts(since=start, until=until)
    png = draw_chart(rows, period_hours=period_hours, end=end)
    try:
        target = stores.join(scan.outputs[0], "chart", "threats.png") if file is None else file
        stores.write_bytes(target, png)
    except (BeamIOError, OSError, ValueError) as error:
        raise CountsError(f"cannot write the chart: {' '.join(str(error).split())}") from error
    return target


# The command


def print_chart(args: argparse.Namespace) -> int:
    """Writes the chart that the arguments ask for and prints where it is.

    Raises:
      CountsError: What a person must correct, in one line.
    """
    check_arguments(args.outputs)
    scan = OutputScan(counts.named_outputs(args))
    print(write_chart(scan, args.chart_period_hours, file=args.file))
    return 0
