"""The chart: threats per id over the recent period, with the unusual ids marked.

`unusual_ids` says which ids stand out, `chart_model` decides everything that the picture shows, and
`draw_chart` draws that model. The command is ``python -m beam_pipeline chart``.

Matplotlib is imported only to draw, NumPy only to judge, Apache Beam only to read and write.
"""

from __future__ import annotations

import argparse
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from beam_pipeline import counts
from beam_pipeline.counts import CountRow, CountsError
from transforms.times import canonical_time

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

Mark = Literal["many", "few"]

FALSE_DISCOVERY_RATE = 0.05
MIN_JUDGED_IDS = 3
_CONTAMINATION = 0.05
_MAX_EVENTS = 250
_MIN_SPREAD = 0.1
_MAX_SPREAD = 4.0
_SPREAD_SCALE = 0.5


def unusual_ids(
    rows_by_id: Mapping[str, CountRow], *, rate: float = FALSE_DISCOVERY_RATE
) -> dict[str, Mark]:
    """Finds the ids with unusually many or few threats for their number of images.

    What is judged is the share of an id's images that show a threat (`threat_images` of `images`).

    Method: each id is compared with all others by a cross-validated predictive test in a binomial
    random-effects model (Marshall and Spiegelhalter, "Identifying outliers in Bayesian hierarchical
    models: a simulation-based approach", Bayesian Analysis 2(2), 2007). The log-odds of a threat
    vary between ids as a normal distribution, so cameras may differ, as cameras do; its centre and
    its spread are learnt from the *other* ids alone, and what is uncertain about them with few ids
    or small counts is averaged over (prior on the spread: half-Cauchy of scale 0.5; Gelman,
    Bayesian Analysis 1(3), 2006). The p-value of an id is twice the smaller of the chances that a
    further camera of that fleet, with as many images, would show at least, or at most, as many
    images with a threat. Over the ids, the p-values are held to a false discovery rate of 5 %
    (Benjamini and Hochberg, J. R. Statist. Soc. B 57, 1995): of fleets with nothing unusual, about
    one in twenty gets a mark. So that one outlier does not hide another, each of the others may be
    an outlier itself with a chance of 5 % (Huber's contamination model, with any share as likely),
    and the test is repeated without the marked ids among the peers until it marks no more.

    Two limits keep it to differences that matter: ids are taken to differ by a tenth in their odds
    at the least, and more than 250 images with a threat (or without) tell no more than 250.

    It judges only against the other ids in the same period, so it cannot see: what all cameras have
    in common (a wrong rule, a poor model, a bad night); a change of one camera over time; that a
    camera should differ (a lobby among yards: with enough images it is marked, rightly or not); an
    id without any image, such as a camera that is dead; whether a threat was real. A difference in
    the number of images, or in threats per image with a threat, is not judged. The images of one
    event are taken for independent ones: if cameras take long bursts, and few of them, one burst
    can mark an id. With few ids only gross differences are marked: with three, next to none; and
    where a third of the ids differ, none may be. With three to eight cameras that differ widely by
    nature (more than sevenfold in their odds, as a rule), up to one chart in ten has a false mark;
    in fleets where a few cameras are extreme by nature, those are marked.

    Args:
      rows_by_id: one row per id, summed over the period.
      rate: another false discovery rate.

    Returns:
      The marked ids, each "many" or "few". Ids without images are not judged; with fewer than three
      ids that have images none is marked.
    """
    judged = sorted(id_ for id_, row in rows_by_id.items() if row.images > 0)
    if len(judged) < MIN_JUDGED_IDS:
        return {}
    marks: dict[str, Mark] = {}
    while True:
        found = _beyond_chance({id_: rows_by_id[id_] for id_ in judged}, marks, rate)
        found = {**found, **marks}
        # Past a third of the ids there is no telling any more which are the usual ones.
        if len(found) == len(marks) or (marks and 3 * len(found) > len(judged)):
            return marks
        marks = found


def _beyond_chance(
    rows: Mapping[str, CountRow], known: Mapping[str, Mark], rate: float
) -> dict[str, Mark]:
    """The ids whose p-values pass; ids `known` to be unusual are nobody's peers."""
    at_most, at_least = _predictive_tails(
        [row.threat_images for row in rows.values()],
        [row.images for row in rows.values()],
        [id_ not in known for id_ in rows],
    )
    p_values = [min(1.0, 2 * min(low, high)) for low, high in zip(at_most, at_least, strict=True)]
    ranked = sorted(p_values)
    passing = [p for rank, p in enumerate(ranked, start=1) if p <= rate * rank / len(ranked)]
    limit = max(passing, default=-1.0)
    return {
        id_: "many" if high < low else "few"
        for id_, p, low, high in zip(rows, p_values, at_most, at_least, strict=True)
        if p <= limit
    }


def _predictive_tails(
    events: Sequence[int], trials: Sequence[int], is_peer: Sequence[bool]
) -> tuple[list[float], list[float]]:
    """P(at most) and P(at least) as many events as each unit has, predicted from its peers.

    The binomial likelihoods and tails of all units are tabulated once over a grid of log-odds;
    every mixing distribution is then a column of weights on that grid, and leaving a unit out is
    taking its log-likelihood from the sum.
    """
    import numpy as np

    scaled = [_limit_evidence(y, n) for y, n in zip(events, trials, strict=True)]
    log_odds = np.arange(-16.0, 16.0 + 1e-9, 0.05)
    tables = [_binomial_tables(y, n, log_odds) for y, n in scaled]
    likelihood, lower, upper = (np.stack([table[k] for table in tables]) for k in range(3))
    sizes = np.array([n for _, n in scaled], dtype=float)

    # Where the centre may lie is found on a coarse grid first, then it is looked at closely.
    centres: Array = np.arange(-10.0, 10.1, 0.5)
    for spreads, last in ((_spreads(10), False), (_spreads(24), True)):
        centre, spread = (axis.ravel() for axis in np.meshgrid(centres, spreads, indexing="ij"))
        mixing = np.exp(-0.5 * ((log_odds[:, None] - centre) / spread) ** 2)
        mixing /= mixing.sum(axis=0)
        marginal = (1 - _CONTAMINATION) * (likelihood @ mixing)
        marginal += (_CONTAMINATION / (sizes + 1))[:, None]
        log_marginal = np.log(marginal)
        # Jeffreys' prior on the centre's probability; half-Cauchy on the spread, on a log grid.
        prior = -0.5 * np.abs(centre) - np.log1p(np.exp(-np.abs(centre)))
        prior += np.log(spread / (1 + (spread / _SPREAD_SCALE) ** 2))
        log_marginal[~np.array(is_peer)] = 0.0
        others = log_marginal.sum(axis=0) - log_marginal + prior
        weights = np.exp(others - others.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        if not last:
            by_centre = weights.reshape(len(sizes), len(centres), -1).sum(axis=2).max(axis=0)
            (likely,) = np.nonzero(by_centre > 1e-5)
            step = centres[1] - centres[0]
            centres = np.linspace(centres[likely[0]] - step, centres[likely[-1]] + step, 41)
    at_most = (weights * (lower @ mixing)).sum(axis=1)
    at_least = (weights * (upper @ mixing)).sum(axis=1)
    return [float(p) for p in at_most], [float(p) for p in at_least]


def _spreads(number: int) -> Array:
    import numpy as np

    return np.geomspace(_MIN_SPREAD, _MAX_SPREAD, number)


def _limit_evidence(events: int, trials: int) -> tuple[int, int]:
    """Counts with the same share, in which the rarer outcome occurs at most `_MAX_EVENTS` times."""
    rarer = min(events, trials - events)
    if rarer <= _MAX_EVENTS:
        return events, trials
    factor = _MAX_EVENTS / rarer
    return round(events * factor), round(events * factor) + round((trials - events) * factor)


def _binomial_tables(events: int, trials: int, log_odds: Array) -> tuple[Array, Array, Array]:
    """P(Y = y), P(Y <= y) and P(Y >= y) for every log-odds; Y is binomial of `trials`."""
    import numpy as np

    if events > trials - events:
        equal, at_most, at_least = _binomial_tables(trials - events, trials, -log_odds)
        return equal, at_least, at_most
    k = np.arange(events + 1)
    choose = np.array(
        [math.lgamma(trials + 1) - math.lgamma(i + 1) - math.lgamma(trials - i + 1) for i in k]
    )
    log_not = -np.logaddexp(0.0, log_odds)  # log of 1 - p
    terms = np.exp(choose[:, None] + k[:, None] * log_odds + trials * log_not)
    equal = terms[-1]
    at_most = np.minimum(terms.sum(axis=0), 1.0)
    return equal, at_most, np.clip(1.0 - at_most + equal, equal, 1.0)


# What the chart shows


@dataclass(frozen=True)
class Bar:
    """One id of the chart.

    Attributes:
      row: its counts, summed over the period.
      mark: whether it is unusual among its peers.
      text: what stands beside its bar.
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
    """Everything that the picture says, in words and numbers.

    Attributes:
      title: the headline.
      subtitle: the period in UTC and the totals.
      lines: bars, most threats first, and gaps where ids were left out.
      notes: what a reader must know besides, such as why nothing is marked.
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


def chart_model(
    rows: Iterable[CountRow],
    *,
    period_hours: float = 24,
    title: str = "Threats per camera",
) -> ChartModel:
    """Decides what the chart shows of `rows`: the recent period alone, ids by threats.

    Up to `ALL_SHOWN_UP_TO` ids are all shown; of more, the 30 with the most threats, the 10 with
    the least and the marked ones, up to 60, with a line for the ids between.
    """
    rows = list(rows)
    if not rows:
        _check_hours(period_hours)
        return ChartModel(title, NOTHING_COUNTED, (), ())
    windows = [(row.window_start, row.window_end) for row in rows]
    start, end = recent_period(windows, period_hours)
    model = period_model([r for r in rows if r.window_start >= start], start, end, title=title)
    if end - start > timedelta(hours=period_hours):
        note = f"The counts' windows are longer than the {period_hours:g} h asked for."
        return replace(model, notes=(note, *model.notes))
    return model


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
    by_id = {row.id: row for row in counts.sum_by_id(rows)}
    (total,) = counts.sum_total(list(by_id.values()))
    marks = unusual_ids(by_id)
    # Among equal threats, more images come later: the last id is the quietest for its images.
    ordered = sorted(by_id.values(), key=lambda row: (-row.threats, row.images, row.id))
    usual = counts.sum_total([row for row in ordered if row.id not in marks])
    peers = percent(usual[0].threat_images, usual[0].images) if usual else "-"
    bars = [_bar(row, marks.get(row.id), peers) for row in ordered]
    subtitle = (
        f"{period_text(start, end)}\n{_number(total.images, 'image')} from "
        f"{_number(len(by_id), 'id')}   ·   {total.threats:,} threats in "
        f"{_number(total.threat_images, 'image')}   ·   {_number(total.alerts, 'alert')}"
    )
    notes = []
    if not total.threats:
        notes.append("No threats in this period.")
    judged = sum(row.images > 0 for row in by_id.values())
    if judged < MIN_JUDGED_IDS:
        notes.append(
            f"Nothing can be marked with {_number(judged, 'id')}: an id is compared with its "
            f"peers, from {MIN_JUDGED_IDS} ids on."
        )
    elif total.threats and not marks:
        notes.append("No id stands out from its peers by the share of its images with a threat.")
    lines = _shorten(bars)
    hidden = len(marks) - sum(isinstance(line, Bar) and line.mark is not None for line in lines)
    if hidden:
        notes.append(f"{hidden:,} more marked ids are not shown.")
    return ChartModel(title, subtitle, tuple(lines), tuple(notes))


def recent_period(
    windows: Sequence[tuple[datetime, datetime]], period_hours: float
) -> tuple[datetime, datetime]:
    """The period that ends with the newest of `windows` and is `period_hours` long.

    A window belongs to it if it begins in it. Where the newest window is longer than that, the
    period is that window.

    Raises:
      CountsError: `period_hours` is not a number of hours above 0 and up to 1,000,000.
    """
    _check_hours(period_hours)
    newest_end = max(end for _, end in windows)
    newest_start = min(start for start, end in windows if end == newest_end)
    return min(newest_start, newest_end - timedelta(hours=period_hours)), newest_end


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
    threats = _number(most, "threat") if most == least else f"{least:,} to {most:,} threats"
    each = " each" if len(bars) > 1 else ""
    return Gap(len(bars), f"… and {_number(len(bars), 'more id')} between, {threats}{each}")


def period_text(start: datetime, end: datetime) -> str:
    """A period in UTC, and how long it is, for a person."""

    def text(time: datetime) -> str:
        return canonical_time(time).replace("T", " ").removesuffix("Z").removesuffix(":00")

    return f"{text(start)} to {text(end)} UTC ({(end - start) / timedelta(hours=1):,.4g} h)"


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def percent(part: int, whole: int) -> str:
    """A share, for a person."""
    if not part or not whole:
        return "0 %"
    share = 100 * part / whole
    return "<0.1 %" if share < 0.1 else f"{share:.1f} %" if share < 9.95 else f"{share:.0f} %"


# Drawing

_DPI = 100
_INK, _FAINT, _RULE = "#1f2933", "#5f6c7b", "#d5dbe1"
# Okabe and Ito's palette: told apart with every common form of colour blindness.
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
) -> bytes:
    """Draws the threats per id of the recent period; the same rows give the same bytes.

    Args:
      rows: count rows of any number of windows.
      period_hours: length of the period, which ends with the newest window.
      title: the headline.

    Returns:
      A PNG of 100 dots an inch.

    Raises:
      CountsError: `period_hours` is no length of time.
    """
    return draw_model(chart_model(rows, period_hours=period_hours, title=title))


def draw_model(model: ChartModel, form: Literal["png", "svg"] = "png") -> bytes:
    """Draws what a model says; the same model gives the same bytes.

    Args:
      model: what the picture says.
      form: a PNG of 100 dots an inch, or an SVG whose letters are shapes, so that it needs no font.
    """
    import matplotlib

    # A person's own matplotlibrc must not change the picture.
    defaults: Any = {k: v for k, v in matplotlib.rcParamsDefault.items() if k != "backend"}
    # Ids in an SVG are hashes, by default with a salt that is drawn anew each time.
    with matplotlib.rc_context({**defaults, "svg.hashsalt": "threats"}):
        return _render(model, form)


def _render(model: ChartModel, form: Literal["png", "svg"]) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.patches import Patch

    figure = Figure(dpi=_DPI, facecolor="white")
    canvas: Any = FigureCanvasAgg(figure)

    def inches(text: str, size: float) -> float:
        width, _, _ = canvas.get_renderer().get_text_width_height_descent(
            text, FontProperties(family="DejaVu Sans", size=size), ismath=False
        )
        return float(width) / _DPI

    bars = model.bars
    left = 0.35 + max([inches(bar.row.id, 10) for bar in bars] + [0.6])
    threats_width, gutter, images_width = 6.6, 0.35, 2.6
    images_text = max([inches(_images_text(bar.row), 9.5) for bar in bars] + [0.6]) + 0.3
    width = left + threats_width + gutter + images_width + images_text
    legend = [
        Patch(
            facecolor=_BAR_COLOURS[mark],
            hatch=_HATCHES[mark],
            edgecolor="white",
            label=text,
        )
        for mark, text in MARK_TEXT.items()
        if mark in model.marks.values()
    ]
    if legend:
        legend.append(Patch(facecolor=_BAR_COLOURS[None], label="not unusual among its peers"))
    head = 1.75 if bars else 1.3
    line_height = 0.29
    body = line_height * max(len(model.lines), 1)
    foot = 0.35 + 0.24 * len(model.notes) + (0.28 if legend else 0)
    width = max(width, 0.7 + max(inches(note, 10) for note in (*model.notes, "")))
    height = head + body + foot
    figure.set_size_inches(width, height)

    def write(x: float, y: float, text: str, **style: Any) -> None:
        """Writes at inches from the left and from the top."""
        style = {"fontsize": 10, "color": _INK, "va": "top", **style}
        figure.text(x / width, 1 - y / height, text, parse_math=False, **style)

    write(0.25, 0.22, model.title, fontsize=17, fontweight="bold")
    write(0.25, 0.62, model.subtitle, fontsize=10.5, color=_FAINT, linespacing=1.45)
    for k, note in enumerate(model.notes):
        write(0.25, head + body + 0.15 + 0.24 * k, note, fontstyle="italic", color=_FAINT)
    if not bars:
        return _encoded(canvas, form)

    def axes(x: float, wide: float, largest: float) -> Any:
        axes = figure.add_axes((x / width, foot / height, wide / width, body / height))
        axes.set_xlim(0, largest or 1)
        axes.set_ylim(len(model.lines) - 0.5, -0.5)
        axes.set_xticks([])
        axes.set_yticks([])
        for side in ("top", "right", "bottom"):
            axes.spines[side].set_visible(False)
        axes.spines["left"].set_color(_RULE)
        return axes

    images_left = left + threats_width + gutter
    # The bars keep clear of the words beside them: the longest text must fit after its bar.
    unit = max(
        bar.row.threats / max(threats_width - 0.2 - 1.08 * inches(bar.text, 10), 0.5)
        for bar in bars
    )
    unit = unit or 1.0  # threats an inch
    threats_axes = axes(left, threats_width, unit * threats_width)
    images_axes = axes(images_left, images_width, max(bar.row.images for bar in bars))
    top = head - 0.12
    write(left, top, "Threats", fontweight="bold", va="bottom")
    write(images_left, top, "Images", fontweight="bold", va="bottom")
    x = images_left + 0.72
    for colour, label in (
        (_ALERT, "alert"),
        (_DETECTION, "threat, no alert"),
        (_QUIET, "no threat"),
    ):
        write(x, top, "■", color=colour, va="bottom")
        write(x + 0.17, top, label, fontsize=9.5, color=_FAINT, va="bottom")
        x += 0.3 + inches(label, 9.5)

    images_unit = max(max(bar.row.images for bar in bars), 1) / images_width
    for y, line in enumerate(model.lines):
        if isinstance(line, Gap):
            write(
                left + 0.08,
                head + (y + 0.5) * line_height,
                line.text,
                fontsize=10,
                fontstyle="italic",
                color=_FAINT,
                va="center",
            )
            continue
        row, colour = line.row, _BAR_COLOURS[line.mark]
        threats_axes.barh(
            y,
            row.threats,
            height=0.68,
            color=colour,
            hatch=_HATCHES[line.mark],
            edgecolor="white",
            linewidth=0,
        )
        bold = "bold" if line.mark else "normal"
        ink = colour if line.mark else _INK
        middle = head + (y + 0.5) * line_height
        write(
            left - 0.1,
            middle,
            row.id,
            color=ink,
            fontweight="normal",
            ha="right",
            va="center",
        )
        number, _, words = line.text.partition("  ")
        x = left + row.threats / unit + 0.07
        write(x, middle, number, color=ink, fontweight=bold, va="center")
        write(x + inches(number, 10) * 1.12 + 0.08, middle, words, color=ink, va="center")
        start = 0
        for count, shade in (
            (row.alerts, _ALERT),
            (row.threat_images - row.alerts, _DETECTION),
            (row.images - row.threat_images, _QUIET),
        ):
            images_axes.barh(y, count, left=start, height=0.68, color=shade, linewidth=0)
            start += count
        write(
            images_left + row.images / images_unit + 0.07,
            middle,
            _images_text(row),
            fontsize=9.5,
            color=_FAINT,
            va="center",
        )
    if legend:
        figure.legend(
            handles=legend,
            loc="lower left",
            ncols=3,
            frameon=False,
            fontsize=10,
            bbox_to_anchor=(0.12 / width, 0.05 / height),
            borderaxespad=0.2,
            handlelength=1.6,
            columnspacing=2,
            labelcolor=_INK,
        )
    return _encoded(canvas, form)


def _images_text(row: CountRow) -> str:
    return f"{row.images:,} ({percent(row.threat_images, row.images)} with a threat)"


def _encoded(canvas: Any, form: Literal["png", "svg"]) -> bytes:
    file = io.BytesIO()
    # Without these the bytes name neither the version of matplotlib nor the time.
    nobody = {"png": {"Software": None}, "svg": {"Creator": None, "Date": None}}
    canvas.figure.savefig(
        file, format=form, dpi=_DPI, facecolor="auto", edgecolor="auto", metadata=nobody[form]
    )
    return file.getvalue()


# Writing


def write_chart(
    outputs: str | Sequence[str],
    period_hours: float = 24,
    *,
    file: str | None = None,
    missing_ok: bool = False,
) -> str:
    """Draws the chart of the counts of one output or several, added up.

    Only the recent period's files are read.

    Args:
      outputs: the job's output directory, or several, on any filesystem that Beam knows.
      period_hours: length of the period, which ends with the newest window.
      file: where to write it; None for ``<output>/chart/threats.png`` of a single output.
      missing_ok: draws a chart that says so where there are no counts, as after a job that had no
        valid image, rather than raising.

    Returns:
      Where it was written.

    Raises:
      CountsError: no counts, wrong counts, several outputs and no `file`, or the chart cannot be
        written.
    """
    from apache_beam.io.filesystem import BeamIOError

    from transforms import stores

    _check_hours(period_hours)
    outputs = [outputs] if isinstance(outputs, str) else outputs
    if file is None and len(outputs) > 1:
        raise CountsError("--file is missing: the chart of several outputs is none of theirs")
    try:
        windows = counts.list_windows(outputs)
    except counts.NoCountsError:
        if not missing_ok:
            raise
        windows = []
    rows: list[CountRow] = []
    if windows:
        start, _ = recent_period(windows, period_hours)
        rows = counts.read_counts(outputs, since=start)
    picture = draw_chart(rows, period_hours=period_hours)
    try:
        target = stores.join(outputs[0], "chart", "threats.png") if file is None else file
        stores.write_bytes(target, picture)
    except (BeamIOError, OSError, ValueError) as error:
        raise CountsError(f"cannot write the chart: {' '.join(str(error).split())}") from error
    return target


# The command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command ``chart``."""
    counts.add_output_argument(parser)
    parser.add_argument(
        "--chart_period_hours",
        type=float,
        default=24,
        metavar="HOURS",
        help="length of the period, which ends with the newest window (default: %(default)s)",
    )
    parser.add_argument(
        "--file",
        metavar="PATH",
        help="where to write it (default: chart/threats.png in DIR, if that is one output)",
    )


def main(args: argparse.Namespace) -> int:
    """Writes the chart that `args` (see `add_arguments`) asks for and prints where it is.

    Raises:
      CountsError: what a person must put right, in one line.
    """
    print(write_chart(counts.named_outputs(args), args.chart_period_hours, file=args.file))
    return 0
