"""Where the recent period of a fleet ends, and which cameras' images are dated after that.

A single camera whose clock is ahead must not move the period of the whole fleet: the images of the
others would fall out of it, and they would look silent. So a period never ends after this machine's
clock, and one camera alone extends it only if its images came without a jump in time.

    end = find_end(OutputScan("output"))
    end.time, end.ahead
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Literal

from beam_pipeline.fleet.output_scan import CountsError, OutputScan
from rules.text import number_of
from transforms.records.count_rows import CountRow
from transforms.records.times import canonical_time

LEAST_LEAD = timedelta(hours=1)
"""A camera whose images end no later than that after those of all others is not doubted."""
MOST_WINDOWS = 256
"""A camera that is alone in that many windows is not doubted: the others have stopped."""
LOOK_BACK = timedelta(days=3)
"""At least so much time before a lead shows how the cameras usually send."""
LEAST_OTHERS = 5
"""Fewer windows of the other cameras in that time say nothing about them."""

_INSTANT = timedelta(microseconds=1)
_NO_TIME = timedelta()

Window = tuple[datetime, datetime]


@dataclass(frozen=True)
class AheadImages:
    """The images of one camera that are dated after the end of the period.

    Attributes:
      id: The camera.
      images: How many there are.
      first: The start of the first window that has one (UTC).
      last: The end of the last such window (UTC).
      of: "clock": they are later than this machine's clock; "fleet": than all other cameras.
    """

    id: str
    images: int
    first: datetime
    last: datetime
    of: Literal["clock", "fleet"]

    def describe(self, end: datetime) -> str:
        """Describes them in words, without the camera's id.

        Args:
          end: The end of the period.
        """
        number = number_of(self.images, "image")
        ahead_of = "this machine's clock" if self.of == "clock" else "all other cameras"
        hours = (self.last - end) / timedelta(hours=1)
        lead = f"{hours:,.0f} hours" if hours >= 2 else f"{hours * 60:,.0f} minutes"
        return (
            f"has {number} dated up to {canonical_time(self.last)}, {lead} ahead of {ahead_of}: "
            "its clock is probably wrong"
        )


@dataclass(frozen=True)
class FleetEnd:
    """Where the recent period of a fleet ends.

    Attributes:
      start: The start of the newest window of the period (UTC).
      time: The end of the period (UTC), exclusive.
      ahead: The images that are dated later, by camera.
      is_over: Whether the fleet ends more than an hour before this machine's clock: it has stopped,
        or it is an archive, or all its clocks are wrong.
    """

    start: datetime
    time: datetime
    ahead: tuple[AheadImages, ...] = ()
    is_over: bool = False


def find_end(scan: OutputScan, now: datetime | None = None) -> FleetEnd | None:
    """Returns where the recent period ends; None if there are no windows.

    The period ends with the newest window that more than one camera has reached, and never after
    the clock. A single camera extends it if nothing speaks against its clock: its images end within
    an hour of those of the others, or of the clock, or they go on without a jump. A jump is a gap
    in its images that is about as long as its lead, and unusual for it and for the fleet.

    Args:
      scan: The output, or several.
      now: The present time (UTC); None for that of this machine's clock.

    Raises:
      CountsError: No counts there, or wrong ones.
    """
    now = now or datetime.now(timezone.utc)
    windows = scan.windows()
    if not windows:
        return None
    past = [window for window in windows if window[0] < now]
    ahead = _rows_after(scan, now)
    if not past:
        end = now.replace(microsecond=0)
        return FleetEnd(end, end, _ahead(ahead, now))
    newest = max(past, key=lambda window: (window[1], window[0]))
    reached, lone = _reached_by_two(scan, past)
    if reached is not None and _is_doubtful(scan, lone, reached, now):
        newest = reached
        ahead += [row for row in lone if row.window_start >= reached[1]]
    end = min(newest[1], now.replace(microsecond=0))
    return FleetEnd(newest[0], end, _ahead(ahead, now), is_over=now - end > LEAST_LEAD)


def ahead_of_clock(scan: OutputScan, now: datetime) -> tuple[AheadImages, ...]:
    """Returns the images of windows that begin after the present time, by camera.

    Raises:
      CountsError: No counts there, or wrong ones.
    """
    return _ahead(_rows_after(scan, now), now)


def _rows_after(scan: OutputScan, now: datetime) -> list[CountRow]:
    in_future = any(start >= now for start, _ in scan.windows())
    return scan.counts(since=now) if in_future else []


def _ahead(rows: Iterable[CountRow], now: datetime) -> tuple[AheadImages, ...]:
    by_id: dict[str, list[CountRow]] = {}
    for row in rows:
        if row.images:
            by_id.setdefault(row.id, []).append(row)
    return tuple(
        AheadImages(
            id,
            sum(row.images for row in of_id),
            min(row.window_start for row in of_id),
            last := max(row.window_end for row in of_id),
            "clock" if last > now else "fleet",
        )
        for id, of_id in sorted(by_id.items())
    )


def _reached_by_two(
    scan: OutputScan, windows: Sequence[Window]
) -> tuple[Window | None, list[CountRow]]:
    """Returns the newest window up to which more than one camera has images, None if a single
    camera has the newest `MOST_WINDOWS`; and the rows that were read for that, which are those of
    the newest windows.

    As a rule the newest window has several cameras, and only its file is read.
    """
    rows: list[CountRow] = []
    cameras: set[str] = set()
    position, number = len(windows), 1
    while position and number <= MOST_WINDOWS:
        first = max(0, position - number)
        part = _readable(scan, windows[first][0], windows[position - 1][0] + _INSTANT)
        for row in sorted(part, key=lambda row: row.window_end, reverse=True):
            rows += [row] if row.images else []
            cameras |= {row.id} if row.images else set()
            if len(cameras) > 1:
                return (row.window_start, row.window_end), rows
        position, number = first, 4 * number
    return None, rows


def _is_doubtful(
    scan: OutputScan, newest_rows: Sequence[CountRow], reached: Window, now: datetime
) -> bool:
    """Whether the clock of the camera that alone goes beyond a window is probably ahead."""
    end = max(row.window_end for row in newest_rows)
    lead = end - reached[1]
    if lead <= LEAST_LEAD or now - end <= LEAST_LEAD:
        return False
    beyond = {row.id for row in newest_rows if row.window_start >= reached[1]}
    if not beyond:
        return False  # Of windows of several lengths, the one that ends last began before that.
    (id,) = beyond
    rows = _readable(scan, reached[1] - max(LOOK_BACK, 3 * lead), end)
    own = [(row.window_start, row.window_end) for row in rows if row.id == id and row.images]
    of_others = [row for row in rows if row.id != id and row.images]
    others = sorted({(row.window_start, row.window_end) for row in of_others})
    if len(others) < LEAST_OTHERS or lead < 1.5 * max(_gaps(others)):
        return False
    *usual, largest = sorted([_NO_TIME, *_gaps(own)])
    if 4 * largest >= 3 * lead and 2 * max(usual, default=_NO_TIME) <= largest:
        return True
    # A clock that was always ahead: the camera begins and ends later than several others do.
    last = {row.id: row.window_end for row in of_others}
    together = sum(reached[1] - time <= lead / 4 for time in last.values())
    return together > 1 and 4 * (own[0][0] - others[0][0]) >= 3 * lead


def _readable(scan: OutputScan, since: datetime, until: datetime) -> list[CountRow]:
    """Returns the rows of windows that may lie before the period; none if one of them is wrong, as
    those before the period are not needed."""
    try:
        return scan.counts(since=since, until=until)
    except CountsError:
        return []


def _gaps(windows: Sequence[Window]) -> list[timedelta]:
    return [later[0] - earlier[1] for earlier, later in pairwise(windows)]
