"""Betting confidence sequences: for bounded and rare metrics, where the normal limit cannot be trusted.

Each unit is worth one number in [0, 1], final when it is revealed. A gambler bets against "the difference is m"; while
that is true nobody can grow rich from it, at any number of units and whatever the distribution. What made the gambler
rich is excluded. Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (JRSS B
2024), theorem 3 and section 4; the outcome of a randomised test as in Waudby-Smith et al., "Anytime-valid off-policy
inference" (2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from monitoring.statistics.errors import BadSample
from monitoring.statistics.values import Array, Interval, unknown

#: Bets are cut at this share of what could be lost, so that nobody is ruined by one unit.
_SHARE_MAX = 0.5
_STEPS = 40


def pseudo_outcomes(values: ArrayLike, treated: ArrayLike, *, propensity: float) -> Array:
    """One number a unit, in order of arrival, whose mean is treatment minus control: (n,) within ±1/min(p, 1 − p).

    `values` (n,) lie in [0, 1], `treated` (n,) is 0 or 1 and was drawn with `propensity`. The running mean of earlier
    units is taken off first, which keeps the mean and lowers the variance. Raises BadSample.
    """
    y, arm = np.asarray(values, np.float64), np.asarray(treated, np.float64)
    if y.shape != arm.shape or y.ndim != 1:
        raise BadSample(f"values and treated must be two columns of one length; found {y.shape} and {arm.shape}.")
    if y.size and (not np.isfinite(y).all() or y.min() < 0 or y.max() > 1):
        raise BadSample("A bounded metric lies between 0 and 1; other values were found.")
    if not ((arm == 0) | (arm == 1)).all():
        raise BadSample("treated must be 0 or 1.")
    if not 0 < propensity < 1:
        raise BadSample(f"A propensity lies between 0 and 1; found {propensity}.")
    before = np.concatenate(([0.0], np.cumsum(y)[:-1])) if y.size else y
    seen = np.arange(y.size)
    centre = np.where(seen > 0, before / np.maximum(seen, 1), 0.5)
    return np.asarray((y - centre) * (arm / propensity - (1 - arm) / (1 - propensity)))


def wealth(outcomes: Array, mean: float, *, reach: float, alpha: float) -> tuple[Array, Array]:
    """The logarithm of two gamblers' wealth after each unit, (n,) each: one bets that the true mean is above `mean`,
    the other that it is below. `outcomes` lie within ±reach.

    Guarantee: if the mean is `mean` (or below, above), the first (second) reaches 1/alpha at any time with probability
    ≤ alpha. The bets use earlier units only.
    """
    z = (outcomes + reach) / (2 * reach)
    m = (mean + reach) / (2 * reach)
    bet = _bets(z, alpha)
    above = np.minimum(bet, _SHARE_MAX / m) if m > 0 else bet
    below = np.minimum(bet, _SHARE_MAX / (1 - m)) if m < 1 else bet
    return np.cumsum(np.log1p(above * (z - m))), np.cumsum(np.log1p(-below * (z - m)))


def exceeds(outcomes: Array, mean: float, *, reach: float, alpha: float) -> bool:
    """Whether the true mean has been shown to be above `mean`, at some look until now."""
    return bool(outcomes.size) and bool(wealth(outcomes, mean, reach=reach, alpha=alpha)[0].max() >= -math.log(alpha))


def falls_below(outcomes: Array, mean: float, *, reach: float, alpha: float) -> bool:
    """Whether the true mean has been shown to be below `mean`, at some look until now."""
    return bool(outcomes.size) and bool(wealth(outcomes, mean, reach=reach, alpha=alpha)[1].max() >= -math.log(alpha))


def bounds(outcomes: Array, *, reach: float, alpha: float) -> Interval:
    """A lower and an upper bound on the mean, each of which holds for ever with probability ≥ 1 − alpha by itself; for
    a two-sided sequence give half of alpha.

    The wealth against a smaller mean is larger, so each bound is found by bisection, to 2·reach/2^40.
    """
    if not outcomes.size:
        return unknown(0.0, 0)
    estimate = float(outcomes.mean())
    lower, upper = -reach, reach
    if exceeds(outcomes, lower, reach=reach, alpha=alpha):
        low, high = lower, max(estimate, lower)
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (middle, high) if exceeds(outcomes, middle, reach=reach, alpha=alpha) else (low, middle)
        lower = low
    if falls_below(outcomes, upper, reach=reach, alpha=alpha):
        low, high = min(estimate, upper), upper
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (low, middle) if falls_below(outcomes, middle, reach=reach, alpha=alpha) else (middle, high)
        upper = high
    return Interval(estimate=estimate, lower=lower, upper=upper, units=int(outcomes.size))


def reach(propensities: Sequence[float]) -> float:
    """How far a pseudo outcome can be from zero."""
    return 1 / min(min(p, 1 - p) for p in propensities)


def _bets(z: Array, alpha: float) -> Array:
    """Predictable plug-in: each bet from the mean and variance of the units before it (equation 26)."""
    i = np.arange(1, z.size + 1)
    mean = (0.5 + np.cumsum(z)) / (i + 1)
    variance = (0.25 + np.cumsum((z - mean) ** 2)) / (i + 1)
    before = np.concatenate(([0.25], variance[:-1])) if z.size else variance
    return np.asarray(np.sqrt(2 * math.log(2 / alpha) / (before * i * np.log1p(i))))
