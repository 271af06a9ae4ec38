"""Asymptotic confidence sequences: intervals that may be looked at after every unit."""

from __future__ import annotations

import math

from monitoring.statistics.effects import Effect
from monitoring.statistics.values import Interval, unknown

#: Fewer units in an arm and the normal limit is not to be trusted: nothing is said.
UNITS_MIN = 100


def tuned(horizon: int, alpha: float) -> float:
    """The rho that makes the sequence narrowest near `horizon` units. Fix it when the experiment is made: choosing it
    after a look breaks the guarantee. Source: Waudby-Smith et al., "Time-uniform central limit theory and asymptotic
    confidence sequences" (Annals of Statistics 2024), section 2 and appendix B.2."""
    wide = -2 * math.log(alpha)
    return math.sqrt((wide + math.log(wide + 1)) / horizon)


def radius(units: int, rho: float, alpha: float) -> float:
    """Half the width of the two-sided sequence, in standard errors of the estimate after `units` units.

    Guarantee: with probability ≥ 1 − alpha, asymptotically, the truth is inside at every look there ever is.
    """
    scaled = units * rho * rho
    return math.sqrt(2 * (scaled + 1) / scaled * math.log(math.sqrt(scaled + 1) / alpha))


def radius_one_sided(units: int, rho: float, alpha: float) -> float:
    """The same for a bound on one side only. Source: as `tuned`, appendix on one-sided sequences."""
    scaled = units * rho * rho
    return math.sqrt(2 * (scaled + 1) / scaled * math.log(1 + math.sqrt(scaled + 1) / (2 * alpha)))


def sequence(effect: Effect, *, alpha: float, rho: float, units_min: int = UNITS_MIN) -> Interval:
    """The two-sided interval of an effect at this look.

    Assumes independent units with finite variance that arrive in no order that depends on their outcome. Guarantee as
    `radius`; before `units_min` units are in each arm it says nothing.
    """
    if effect.units_least < units_min or effect.variance <= 0:
        return unknown(effect.estimate, effect.units)
    half = radius(effect.units, rho, alpha) * math.sqrt(effect.variance)
    return Interval(
        estimate=effect.estimate, lower=effect.estimate - half, upper=effect.estimate + half, units=effect.units
    )


def bounds(effect: Effect, *, alpha: float, rho: float, units_min: int = UNITS_MIN) -> Interval:
    """A lower and an upper bound, each of which holds for ever with probability ≥ 1 − alpha by itself: for questions
    that have one side, such as "is it worse by more than the margin?"."""
    if effect.units_least < units_min or effect.variance <= 0:
        return unknown(effect.estimate, effect.units)
    half = radius_one_sided(effect.units, rho, alpha) * math.sqrt(effect.variance)
    return Interval(
        estimate=effect.estimate, lower=effect.estimate - half, upper=effect.estimate + half, units=effect.units
    )
