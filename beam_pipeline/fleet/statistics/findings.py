"""Finds broken cameras by statistics of what the job has recorded of them, without any I/O.

    for finding in findings(observed, since=since, until=until):
        print(finding.sentence)

:mod:`beam_pipeline.fleet.health` reads what is observed from a job's output.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from beam_pipeline.fleet.statistics import pictures, shares, silent
from beam_pipeline.fleet.statistics.histories import TimeSpan, camera_histories
from beam_pipeline.fleet.statistics.observations import KINDS, Finding, Observations

PICTURE_KINDS = ("frozen", "blind")
"""The kinds that are found by looking at what is kept of each image."""


def findings(observed: Observations, *, since: datetime, until: datetime) -> list[Finding]:
    """Returns what is wrong with the cameras in a period, by what they were like before it.

    Each kind is held to a false discovery rate of `RATE` over the cameras (Benjamini and Hochberg),
    so that of fleets in which all is as usual at most one in a hundred has a finding of a kind on a
    day with a look in every hour: a look has a rate of `LOOK_RATE` for silent, flooding and
    too_few, and asks for more than chance of the other kinds
    (:mod:`tools.false_findings` measures it). The tests are those of
    :mod:`beam_pipeline.fleet.statistics.predictive`, against the
    camera's own past in comparable periods: the same hours on the same weekday, where there are
    `MIN_PERIODS` of them, or else on any day, unless the camera may be quiet on this weekday
    (:mod:`beam_pipeline.fleet.statistics.silent`). So that a finding also matters, each asks for a
    difference of a certain size as well.

    - silent: far fewer images (invalid and late ones count too) than the negative binomial
      prediction, at most a quarter of it; either in the whole period, or none at all since the last
      one (the chance of so long a silence at those hours); p is twice the smaller. Without a past
      of days: no image for 20 times the camera's median gap and 3 times its longest, and for 60
      hours if it may be its first weekend. Where it is
      `expected` to send so many an hour at the least: fewer than that by a Poisson test at `RATE`.
      Without any test: `named`, and never seen.
    - misdated: a camera that would be silent, but for images whose capture times are plainly wrong
      (:mod:`transforms.records.clocks`) and which would be enough; or one that has sent no others.
      Without a past of days: the last image with a credible time is longer ago than its longest gap
      and an hour. Without any test: where the whole fleet has ended (`is_over`), as all clocks may
      have been lost at once; and images that are dated after the end of the period.
    - frozen, without any test: the last images have the same bytes, at least five, or are all but
      the same, at least ten (:mod:`beam_pipeline.fleet.statistics.frozen`): more than three
      times as many as in any such run of the camera before, for more than three times as long. Such
      a camera is not reported as flooding or too_few.
    - blind: nothing was detected in any image since some moment (the beta-binomial chance of
      that), and those images are dark, bright or blurred for the camera at those hours of the
      day: their median brightness or sharpness is less than half of what nine in ten had before,
      or they are more than twice as near to white.
    - invalid, clock_skew: by the beta-binomial upper tail for each reason. At least five images,
      5 % of all, and three times what was to be expected. Without any test: half of at least ten
      images are invalid.
    - flooding, too_few: the share of images with a threat, by the beta-binomial tails; p is twice
      the smaller. The odds are at least twice, or at most half, the usual.

    A camera without a past is judged for invalid, clock_skew, flooding and too_few by its peers in
    the same period, with :func:`beam_pipeline.fleet.statistics.outliers.unusual_ids` at the same
    rate.

    What can't be seen: what was always wrong with a camera (but for half of its images invalid);
    a change so slow that the past has it too; a camera that is covered where hardly anything is
    ever detected; a clock that is wrong by less than the job lets pass.

    Args:
      observed: The fleet, in the period and as long before it as there is.
      since: The start of the period (UTC).
      until: Its end, exclusive.

    Returns:
      Faults first, in the order of `KINDS`, and by camera.
    """
    period = TimeSpan(since.timestamp(), until.timestamp())
    cameras = camera_histories(observed, period)
    frozen = list(pictures.frozen(observed.images, period))
    frozen_ids = {finding.id for finding in frozen}
    unsorted = [
        *silent.silent_or_misdated(cameras, observed, period),
        *silent.ahead(observed, period),
        *frozen,
        *pictures.blind(observed.images, period),
        *shares.refused(cameras, period),
        *(finding for finding in shares.threats(cameras, period) if finding.id not in frozen_ids),
    ]
    return _in_order(unsorted)


def with_those_of_pictures(
    found: Iterable[Finding], of_pictures: Sequence[Finding]
) -> list[Finding]:
    """Returns findings for which no picture was looked at, and those for which all were.

    Args:
      found: From :func:`findings`, without images.
      of_pictures: The findings of the kinds `PICTURE_KINDS`, of another moment.

    Returns:
      All in the order of :func:`findings`, without the flooding of a frozen camera.
    """
    frozen_ids = {finding.id for finding in of_pictures if finding.kind == "frozen"}
    others = (
        finding
        for finding in found
        if finding.id not in frozen_ids or finding.kind not in ("flooding", "too_few")
    )
    return _in_order([*others, *of_pictures])


def _in_order(found: Iterable[Finding]) -> list[Finding]:
    return sorted(
        found, key=lambda finding: (finding.severity, KINDS.index(finding.kind), finding.id)
    )
