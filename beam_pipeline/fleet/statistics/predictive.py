"""Tests whether a camera's numbers fit its own past.

The prediction for a period comes from comparable earlier periods of the camera: the same hours of
the day, and the same weekdays if there are enough weeks. How much such periods differ from each
other comes from the other cameras, because a few weeks of one camera can't show it. The p-value is
the probability of a number at least this extreme under that prediction: a prior predictive check
(Box, J. R. Statist. Soc. A 143, 1980) whose prior is the camera's past.

Periods of one camera vary more than by chance alone: weather, holidays, bursts of images of one
event. Shares are therefore beta-binomial, numbers negative binomial. How much they vary is
not taken as known: it lies on a grid, each point weighed by how well it fits the camera's own
past (the mean integrated out by Laplace's method) times how common it is among the cameras of the
fleet, which is learnt from all of them by EM (Laird, J. Amer. Statist. Assoc. 73, 1978). That
average over the grid gives the tails their weight.

All functions work on arrays of any number of fleets at once: `[..., cameras]` for what is judged,
`[..., cameras, periods]` for what was before. SciPy is imported where it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Flags = NDArray[np.bool_]

_CORRELATIONS = np.array([0.0005, 0.002, 0.008, 0.02, 0.05, 0.1, 0.2, 0.4])
"""How alike two images of one period are, beyond what their camera explains (beta-binomial)."""
_DISPERSIONS = np.array([0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0])
"""The variance of a period's rate over its square (negative binomial)."""
_PRIOR_PICTURES = 2.0
"""So many images with the fleet's share are put before a camera's own."""
_MAX_EVENTS = 250
_EM_STEPS = 25


def discoveries(p_values: Array, rate: float) -> Flags:
    """Returns which of the p-values on the last axis pass at a false discovery rate: Benjamini and
    Hochberg, J. R. Statist. Soc. B 57, 1995. Of fleets in which all is as usual, at most `rate`
    have any."""
    if not p_values.shape[-1]:
        return np.zeros(p_values.shape, dtype=bool)
    number = p_values.shape[-1]
    ranked = np.sort(p_values, axis=-1)
    passing = ranked <= rate * np.arange(1, number + 1) / number
    limit = np.where(passing, ranked, -1.0).max(axis=-1, keepdims=True)
    passed: Flags = p_values <= limit
    return passed


def share_tails(
    events: Array, trials: Array, past_events: Array, past_trials: Array
) -> tuple[Array, Array, Array]:
    """Returns P(at most) and P(at least) as many events as there were, and the share to be
    expected.

    Predicted is Y ~ BetaBinomial(n, m s, (1 - m) s). m is the camera's past share, each period
    weighing n / (1 + (n - 1) r), with two images of the fleet's share put before it; r is the
    correlation within a period; 1 / (s + 1) = r + (1 - r) / (N + 1), where N is the sum of the
    weights: the variance between periods, and that of m. More than 250 events tell no more than
    250.

    Args:
      events: Images that show it, of `trials`.
      trials: Images.
      past_events: The same in each comparable period before.
      past_trials: The same; 0 for a period that is to be left out.
    """
    from scipy.special import betaln, gammaln

    totals = past_events.sum(axis=-1), past_trials.sum(axis=-1)
    of_others = [total.sum(axis=-1, keepdims=True) - total for total in totals]
    centre = ((of_others[0] + 0.5) / (of_others[1] + 1.0))[..., None]

    y, n = past_events[..., None], past_trials[..., None]
    weights = n / (1 + np.maximum(n - 1, 0) * _CORRELATIONS)
    weight = weights.sum(axis=-2) + _PRIOR_PICTURES
    sums = (weights * (y / np.maximum(n, 1))).sum(axis=-2)
    share = (sums + _PRIOR_PICTURES * centre) / weight
    size = (1 - _CORRELATIONS) / _CORRELATIONS
    a, b = (share * size)[..., None, :], ((1 - share) * size)[..., None, :]
    fit = gammaln(y + a) + gammaln(n - y + b) - gammaln(n + size)
    fit = (fit - betaln(a, b)).sum(axis=-2)
    chance = _weights_by_fit(fit - 0.5 * np.log(weight))

    spread = _CORRELATIONS + (1 - _CORRELATIONS) / (weight + 1)
    size = (1 - spread) / spread
    at_most, at_least = _beta_binomial_tails(events, trials, share * size, (1 - share) * size)
    return (
        (chance * at_most).sum(axis=-1),
        (chance * at_least).sum(axis=-1),
        (chance * share).sum(axis=-1),
    )


def count_at_most(images: Array, past: Array, is_past: Flags) -> tuple[Array, Array]:
    """Returns P(at most as many as were seen), and how many were to be expected.

    Predicted is Y ~ NegativeBinomial(mean m, variance m + d* m^2), where m is the mean of the B
    comparable periods before, d the variance between periods, and d* = d + (1 / m + d) / B that and
    what is uncertain about m.

    Args:
      images: How many there were.
      past: The same in each comparable period before.
      is_past: Which of those are to be counted.
    """
    from scipy.special import betainc, gammaln

    periods = np.maximum(is_past.sum(axis=-1), 1)
    past = np.where(is_past, past, 0.0)
    mean = ((past.sum(axis=-1) + 0.5) / periods)[..., None]
    c, m, size = past[..., None], mean[..., None, :], 1 / _DISPERSIONS
    fit = gammaln(c + size) - gammaln(size) - (c + size) * np.log1p(m / size)
    fit = fit + c * np.log(m / size)
    fit = np.where(is_past[..., None], fit, 0.0).sum(axis=-2)
    uncertain = (1 / mean + _DISPERSIONS) / periods[..., None]
    chance = _weights_by_fit(fit + 0.5 * np.log(uncertain))
    size = 1 / (_DISPERSIONS + uncertain)
    at_most = betainc(size, images[..., None] + 1, size / (size + mean))
    return (chance * at_most).sum(axis=-1), mean[..., 0]


def _weights_by_fit(fit: Array) -> Array:
    """Returns how likely each point of the grid is for each camera: its fit times how common the
    point is in the fleet, which begins as if one camera had been seen at each point.
    """
    likelihood = np.exp(fit - fit.max(axis=-1, keepdims=True))
    points = fit.shape[-1]
    common = np.full((*fit.shape[:-2], 1, points), 1 / points)
    for _ in range(_EM_STEPS):
        chance = likelihood * common
        chance /= chance.sum(axis=-1, keepdims=True)
        common = (chance.sum(axis=-2, keepdims=True) + 1) / (fit.shape[-2] + points)
    chance = likelihood * common
    weights: Array = chance / chance.sum(axis=-1, keepdims=True)
    return weights


def _beta_binomial_tails(events: Array, trials: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """Returns P(Y <= y) and P(Y >= y) of BetaBinomial(n, a, b), summed over the rarer outcome."""
    from scipy.special import betaln

    factor = np.minimum(1.0, _MAX_EVENTS / np.maximum(np.minimum(events, trials - events), 1))
    y, no = (np.rint(part * factor)[..., None] for part in (events, trials - events))
    n, flipped = y + no, y > no
    y, a, b = np.where(flipped, no, y), np.where(flipped, b, a), np.where(flipped, a, b)
    # Most to sum first: at each step go on those that are not there yet.
    shape = a.shape
    y, n, a, b = (np.broadcast_to(of, shape).reshape(-1, shape[-1]) for of in (y, n, a, b))
    order = np.argsort(-y[:, 0], kind="stable")
    y, n, a, b = (of[order] for of in (y, n, a, b))
    log_chance = betaln(a, b + n) - betaln(a, b)
    equal = np.exp(log_chance)
    low = equal.copy()
    for k in range(1, int(y.max(initial=0)) + 1):
        on = slice(np.searchsorted(-y[:, 0], -k, side="right"))
        log_chance[on] += np.log((n[on] - k + 1) / k * (a[on] + k - 1) / (n[on] - k + b[on]))
        equal[on] = np.exp(log_chance[on])
        low[on] += equal[on]
    back = np.argsort(order)
    low, equal = (of[back].reshape(shape) for of in (low, equal))
    low = np.minimum(low, 1.0)
    high = np.clip(1.0 - low + equal, equal, 1.0)
    return np.where(flipped, high, low), np.where(flipped, low, high)
