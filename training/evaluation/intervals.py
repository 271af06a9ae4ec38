"""How sure a number is: intervals of shares, means and corpus measures, and of paired differences. Pure.

Rows of one unit (a user, a conversation) are not independent: every interval here counts units, not rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Array = NDArray[np.float64]
#: From summed statistics, along the last axis, to the measure.
Value = Callable[[Array], Array]
Bounds = tuple[float, float]
_AT_ONCE = 4_000_000


def share(hits: Array, units: NDArray[np.int64], level: float) -> Bounds:
    """Wilson's score interval (1927), on the effective size where rows share units (Dean and Pagano, 2015)."""
    n = effective(hits, units)
    p = float(hits.mean())
    z = NormalDist().inv_cdf(0.5 + level / 2)
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def share_difference(ours: Array, theirs: Array, units: NDArray[np.int64], level: float) -> Bounds:
    """Paired, ours − theirs: Wald's interval with half a pair added to each cell of the table (Agresti and Min, 2005):
    no difference at all is not certainty."""
    apart = ours - theirs
    n = effective(apart, units)
    scale = n / apart.size
    won, lost = float((apart > 0).sum()) * scale, float((apart < 0).sum()) * scale
    z = NormalDist().inv_cdf(0.5 + level / 2)
    centre = (won - lost) / (n + 2)
    half = z * math.sqrt(max(0.0, (won + lost + 1) - (won - lost) ** 2 / (n + 2))) / (n + 2)
    value = float(apart.mean())
    return max(-1.0, min(value, centre - half)), min(1.0, max(value, centre + half))


def ratio(sums: Array, weights: Array, units: NDArray[np.int64], level: float) -> Bounds:
    """Of Σ sums / Σ weights, by the delta method over units and Student's t (Deng et al., 2018). A mean
    has weights 1."""
    value = float(sums.sum() / weights.sum())
    return _student(value, sums - value * weights, weights, units, level)


def ratio_difference(
    ours: tuple[Array, Array], theirs: tuple[Array, Array], units: NDArray[np.int64], level: float
) -> Bounds:
    """Paired, of ours − theirs, each (sums, weights) over the same rows."""
    (a, v), (b, w) = ours, theirs
    first, second = float(a.sum() / v.sum()), float(b.sum() / w.sum())
    apart = (a - first * v) / v.mean() - (b - second * w) / w.mean()
    return _student(first - second, apart, np.ones_like(apart), units, level)


def bootstrap(
    statistics: Array, units: NDArray[np.int64], value: Value, level: float, *, resamples: int, seed: int
) -> Bounds:
    """Percentiles over resampled units, of a measure of summed statistics (Efron, 1979)."""
    drawn = value(_resampled(statistics, units, resamples, seed))
    return _percentiles(drawn, float(value(statistics.sum(axis=0))), level)


def bootstrap_difference(
    ours: Array, theirs: Array, units: NDArray[np.int64], value: Value, level: float, *, resamples: int, seed: int
) -> Bounds:
    """Paired bootstrap resampling (Koehn, 2004): both are calculated on the same resamples."""
    both = np.concatenate((ours, theirs), axis=1)
    drawn = _resampled(both, units, resamples, seed)
    width = ours.shape[1]
    found = float(value(ours.sum(axis=0)) - value(theirs.sum(axis=0)))
    return _percentiles(value(drawn[:, :width]) - value(drawn[:, width:]), found, level)


def effective(values: Array, units: NDArray[np.int64]) -> float:
    """As many independent rows would be as sure of the mean (Kish, 1965): from the number of units to that of rows."""
    n, many = values.size, int(units.max()) + 1 if units.size else 0
    if many in (0, n):
        return float(n)
    apart = values - values.mean()
    alone = float(apart @ apart) / n**2
    if alone == 0:
        return float(many)
    by_unit = np.bincount(units, weights=apart)
    together = float(by_unit @ by_unit) / n**2 * many / max(1, many - 1)
    return min(float(n), max(1.0, n * alone / together)) if together else float(n)


def _student(value: float, apart: Array, weights: Array, units: NDArray[np.int64], level: float) -> Bounds:
    by_unit = np.bincount(units, weights=apart)
    many = by_unit.size
    variance = float(by_unit @ by_unit) * many / (many - 1) / float(weights.sum()) ** 2
    half = float(stdtrit(many - 1, 0.5 + level / 2)) * math.sqrt(variance)
    return value - half, value + half


def _resampled(statistics: Array, units: NDArray[np.int64], resamples: int, seed: int) -> Array:
    """Summed statistics of each resample of units, as large as the sample."""
    many = int(units.max()) + 1
    summed = np.stack([np.bincount(units, weights=column, minlength=many) for column in statistics.T], axis=1)
    rng = np.random.default_rng(seed)
    chances = np.full(many, 1 / many)
    at_once = max(1, _AT_ONCE // many)
    parts = [
        rng.multinomial(many, chances, size=min(at_once, resamples - start)) @ summed
        for start in range(0, resamples, at_once)
    ]
    return np.concatenate(parts)


def _percentiles(drawn: Array, found: float, level: float) -> Bounds:
    low, high = np.quantile(drawn[np.isfinite(drawn)], [0.5 - level / 2, 0.5 + level / 2])
    return min(found, float(low)), max(found, float(high))
