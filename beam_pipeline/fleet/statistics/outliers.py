"""The outlier test: which ids stand out from their peers by their share of images with a threat."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from transforms.records.count_rows import CountRow

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
      rows_by_id: One row per id, summed over the period.
      rate: Another false discovery rate.

    Returns:
      The marked ids, each "many" or "few". Ids without images are not judged; with fewer than three
      ids that have images none is marked.
    """
    judged = sorted(id_ for id_, row in rows_by_id.items() if row.images > 0)
    if len(judged) < MIN_JUDGED_IDS:
        return {}
    marks: dict[str, Mark] = {}
    while True:
        unusual = _beyond_chance({id_: rows_by_id[id_] for id_ in judged}, marks, rate)
        unusual = {**unusual, **marks}
        # Past a third of the ids it can't be decided any longer which are the usual ones.
        if len(unusual) == len(marks) or (marks and 3 * len(unusual) > len(judged)):
            return marks
        marks = unusual


def _beyond_chance(
    rows: Mapping[str, CountRow], known: Mapping[str, Mark], rate: float
) -> dict[str, Mark]:
    """Returns the ids whose p-values pass; ids `known` to be unusual are nobody's peers."""
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
    """Returns P(at most) and P(at least) as many events as each unit has, predicted from its peers.

    The binomial likelihoods and tails of all units are tabulated once over a grid of log-odds;
    every mixing distribution is then a column of weights on that grid, and leaving a unit out is
    taking its log-likelihood from the sum.
    """
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


def _spreads(count: int) -> Array:
    return np.geomspace(_MIN_SPREAD, _MAX_SPREAD, count)


def _limit_evidence(events: int, trials: int) -> tuple[int, int]:
    """Counts with the same share, in which the rarer outcome occurs at most `_MAX_EVENTS` times."""
    rarer = min(events, trials - events)
    if rarer <= _MAX_EVENTS:
        return events, trials
    factor = _MAX_EVENTS / rarer
    return round(events * factor), round(events * factor) + round((trials - events) * factor)


def _binomial_tables(events: int, trials: int, log_odds: Array) -> tuple[Array, Array, Array]:
    """Returns P(Y = y), P(Y <= y) and P(Y >= y) for every log-odds; Y is binomial of `trials`."""
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
