"""Measures how often health has a finding in fleets in which all is as usual.

    python -m tools.false_findings
    python -m tools.false_findings --fleets 100 --processes 8

Each fleet has 20 cameras that differ in how many images they send, in the share that shows a
threat, and in how quiet they are at night; and whose days differ more than chance lets them. It is
judged by `findings()` as a cron job would: in each hour of one day, over the 24 hours before. A
fleet counts for a kind if any of the 24 looks has a finding of that kind. The exit code is 1 if a
kind is found in more fleets than `RATE` explains.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial

import numpy as np

from beam_pipeline.fleet.statistics.findings import findings
from beam_pipeline.fleet.statistics.observations import (
    KINDS,
    LookedAtImage,
    Observations,
    RefusedImage,
)
from beam_pipeline.fleet.statistics.thresholds import RATE
from transforms.records.count_rows import CountRow

CAMERAS = 20
LOOKS = 24
_MONDAY = datetime(2026, 1, 5, tzinfo=timezone.utc)
_HOUR = timedelta(hours=1)
_IMAGE_DAYS = 4
_SATURDAY = 5


@dataclass(frozen=True)
class Scenario:
    """What the fleets have in common.

    Attributes:
      name: A description.
      days: How many days of the past are known.
      quiet_weekends: The share of cameras that send hardly anything at weekends.
      weekday: The day that is judged, 0 for Monday; None for any.
    """

    name: str
    days: int
    quiet_weekends: float = 0.0
    weekday: int | None = None


SCENARIOS = (
    Scenario("four weeks", 28),
    Scenario("ten days", 10),
    Scenario("half are quiet at weekends, five days, a Saturday", 5, 0.5, _SATURDAY),
    Scenario("half are quiet at weekends, ten days, a Saturday", 10, 0.5, _SATURDAY),
    Scenario("half are quiet at weekends, three weeks", 21, 0.5),
)


def quiet_fleet(scenario: Scenario, seed: int) -> tuple[Observations, datetime]:
    """Draws a fleet in which nothing is wrong; returns it, and the start of the day to judge.

    Args:
      scenario: What the fleet is like.
      seed: The same seed gives the same fleet.
    """
    drawn = np.random.default_rng(seed)
    weekday = int(drawn.integers(7)) if scenario.weekday is None else scenario.weekday
    day = _MONDAY + timedelta(days=(weekday - scenario.days) % 7 + scenario.days)
    starts = [day + (hour - 24 * scenario.days) * _HOUR for hour in range(24 * (scenario.days + 1))]
    is_night = np.array([not 6 <= start.hour < 20 for start in starts])
    is_weekend = np.array([start.weekday() >= _SATURDAY for start in starts])
    rows: list[CountRow] = []
    refused: list[RefusedImage] = []
    images: dict[str, list[LookedAtImage]] = {}
    for number in range(CAMERAS):
        id = f"cam-{number}"
        by_hour = np.where(is_night, drawn.choice([1.0, 0.1]), 1.0)
        by_hour /= by_hour.mean()
        if drawn.random() < scenario.quiet_weekends:
            by_hour = np.where(is_weekend, 0.05 * by_hour, by_hour)
        a_day = np.exp(drawn.normal(np.log(60), 1))
        of_day = drawn.gamma(5, 1 / 5, scenario.days + 1)
        sent = drawn.poisson(a_day / 24 * by_hour * of_day.repeat(24))
        share = 1 / (1 + np.exp(-(np.log(1 / 9) + drawn.normal())))
        shares = drawn.beta(32 * share, 32 * (1 - share), scenario.days + 1).repeat(24)
        threats = drawn.binomial(sent, shares)
        invalid = drawn.binomial(sent, 0.01)
        images[id] = []
        for hour, start in enumerate(starts):
            valid, with_threat = int(sent[hour]), int(threats[hour])
            if valid:
                rows.append(
                    CountRow(
                        id, start, start + _HOUR, valid, with_threat, with_threat, 0, {"person": 1}
                    )
                )
            refused += [RefusedImage(id, start + _HOUR / 2, "corrupt_jpeg")] * int(invalid[hour])
            if hour >= len(starts) - 24 * (_IMAGE_DAYS + 1):
                images[id] += [
                    LookedAtImage(
                        start + at * _HOUR / valid,
                        bool(drawn.random() < 0.6),
                        round((0.1 if is_night[hour] else 0.5) + 0.05 * drawn.random(), 4),
                        round(0.03 + 0.01 * drawn.random(), 4),
                    )
                    for at in range(valid)
                ]
    return Observations(rows, images, refused), day


def kinds_found(scenario: Scenario, seed: int) -> set[str]:
    """Returns the kinds of findings that a fleet has on a day with a look in every hour.

    Args:
      scenario: What the fleet is like.
      seed: See `quiet_fleet`.
    """
    observed, day = quiet_fleet(scenario, seed)
    ends = (day + (look + 1) * _HOUR for look in range(LOOKS))
    return {
        finding.kind
        for until in ends
        for finding in findings(observed, since=until - timedelta(days=1), until=until)
    }


def main(words: Sequence[str] | None = None) -> int:
    """Prints the table; returns the exit code."""
    from scipy.stats import binom

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--fleets", type=int, default=1_000, help="fleets of each scenario")
    parser.add_argument("--processes", type=int, help="default: one for each core")
    parser.add_argument("--seed", type=int, default=1, help="the seed of the first fleet")
    parsed = parser.parse_args(words)
    most = int(binom.isf(0.001, parsed.fleets, RATE))
    print(
        f"Of {parsed.fleets:,} fleets in which all is as usual, so many have a finding on a day "
        f"with {LOOKS} looks.\nA rate of {RATE:.0%} for each kind allows up to {most}."
    )
    exceeded = False
    seeds = range(parsed.seed, parsed.seed + parsed.fleets)
    with ProcessPoolExecutor(parsed.processes) as processes:
        for scenario in SCENARIOS:
            found = list(processes.map(partial(kinds_found, scenario), seeds, chunksize=5))
            numbers = Counter(kind for kinds in found for kind in kinds)
            listed = ", ".join(f"{kind} {numbers[kind]}" for kind in KINDS if numbers[kind])
            print(f"{scenario.name}: any kind {sum(map(bool, found))}; {listed}", flush=True)
            exceeded = exceeded or max(numbers.values(), default=0) > most
    return int(exceeded)


if __name__ == "__main__":
    sys.exit(main())
