"""Three arms or more: an allocation that learns, and an estimate that is not fooled by it.

With two arms half and half is better. An adaptive sample mean is biased; each unit's propensity is stored when it is
assigned, and the estimate weights by it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from monitoring.statistics.asymptotic import UNITS_MIN, radius
from monitoring.statistics.errors import BadSample
from monitoring.statistics.values import Array, Interval, unknown

_DRAWS = 4096


def allocation(
    successes: Sequence[float], failures: Sequence[float], *, floor: float, generator: np.random.Generator
) -> Array:
    """Each arm's share for the next batch, (k,), summing to 1 and never below `floor`.

    Thompson sampling on Beta posteriors with a uniform prior: an arm's share is its chance to be the best, raised to
    the floor. Source: Thompson 1933; Russo et al., "A Tutorial on Thompson Sampling" (2018). Raises BadSample.
    """
    arms = len(successes)
    if arms != len(failures) or arms < 3:
        raise BadSample("Adaptive allocation takes three arms or more; with two, half and half is better.")
    if min(*successes, *failures) < 0:
        raise BadSample("Counts must not be negative.")
    if not 0 < floor * arms < 1:
        raise BadSample(f"The floor must be above 0 and below 1/{arms}; found {floor}.")
    draws = generator.beta(np.asarray(successes) + 1, np.asarray(failures) + 1, size=(_DRAWS, arms))
    best = np.bincount(draws.argmax(axis=1), minlength=arms) / _DRAWS
    return np.asarray(floor + (1 - floor * arms) * best)


def contrast(
    outcomes: Array,
    arms: Array,
    propensities: Array,
    *,
    treatment: int,
    control: int,
    alpha: float,
    rho: float,
    units_min: int = UNITS_MIN,
) -> Interval:
    """Treatment minus control under adaptive allocation, as a confidence sequence.

    `outcomes` (n,), `arms` (n,) indices, `propensities` (n, k) as they were when each unit was assigned; in order of
    arrival. Augmented inverse-propensity weighting with running arm means. Assumes outcomes with finite variance and
    propensities bounded below by a floor. Guarantee: asymptotic, for ever, at level alpha. Source: Waudby-Smith et al.
    2024, section 3; Cook, Mishler, Ramdas, "Semiparametric efficient inference in adaptive experiments" (2024).
    """
    if not (outcomes.shape == arms.shape and propensities.shape[:1] == outcomes.shape):
        raise BadSample("One arm and one row of propensities for each outcome.")
    scores = _scores(outcomes, arms, propensities, treatment) - _scores(outcomes, arms, propensities, control)
    if scores.size < 2 or min(int((arms == treatment).sum()), int((arms == control).sum())) < units_min:
        return unknown(float(scores.mean()) if scores.size else 0.0, int(scores.size))
    estimate = float(scores.mean())
    half = radius(scores.size, rho, alpha) * float(scores.std(ddof=1)) / math.sqrt(scores.size)
    return Interval(estimate=estimate, lower=estimate - half, upper=estimate + half, units=int(scores.size))


def _scores(outcomes: Array, arms: Array, propensities: Array, arm: int) -> Array:
    """Each unit's unbiased guess at the arm's mean, from what was known before it."""
    here = arms == arm
    total = np.cumsum(np.where(here, outcomes, 0.0))
    count = np.cumsum(here)
    before = np.concatenate(([0.0], total[:-1])) / np.maximum(np.concatenate(([0], count[:-1])), 1)
    return np.asarray(before + np.where(here, (outcomes - before) / propensities[:, arm], 0.0))
