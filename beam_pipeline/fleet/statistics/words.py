"""Numbers and times as the sentences of findings give them."""

from __future__ import annotations

from beam_pipeline.fleet.statistics.thresholds import DAY, HOUR
from transforms.records.times import from_unix


def rounded(value: float) -> float:
    """Returns a number with the four decimals that findings keep."""
    return round(float(value), 4)


def percent(share: float) -> str:
    """Returns a share from 0 to 1 in percent."""
    return f"{100 * share:.2g} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def in_words(time: float) -> str:
    """Returns a time in seconds since 1970 to the minute, in UTC."""
    return from_unix(time).strftime("%Y-%m-%d %H:%M UTC")


def length_in_words(seconds: float) -> str:
    """Returns a length of time in the largest unit of which it has two."""
    for unit, name in ((DAY, "days"), (HOUR, "hours"), (60.0, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} seconds"
