"""The difference between two arms and its variance: means, ratios of sums by the delta method, CUPED."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monitoring.statistics.errors import BadSample
from monitoring.statistics.values import Array, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """Treatment minus control. `variance` is that of the estimate; `theta` is CUPED's coefficient, 0 without one."""

    estimate: float
    variance: float
    control: float
    treatment: float
    units: int
    units_least: int
    theta: float = 0.0


def difference(control: Sample, treatment: Sample) -> Effect:
    """Treatment minus control of a mean per unit, or of a ratio of sums where the samples have weights.

    Assumes independent units, each in one arm; a unit's own requests may depend on each other as they like, for only
    their sum is used. A ratio is linearised (delta method): unit i counts as (v_i − R·w_i) / mean(w). A covariate takes
    out of the estimate what was known before (CUPED), with one coefficient for both arms, so that what it removes is
    the same in both; it must not depend on the arm. The variance is exact for means and asymptotic for ratios.

    Sources: Deng et al. 2018 "Applying the Delta Method in Metric Analytics"; Deng, Xu, Kohavi, Walker 2013 (CUPED).
    Raises BadSample for an arm of fewer than two units, or when only one arm has weights or a covariate.
    """
    for name in ("weights", "covariate"):
        if (getattr(control, name) is None) != (getattr(treatment, name) is None):
            raise BadSample(f"Only one arm has {name}: both or none.")
    if min(control.size, treatment.size) < 2:
        raise BadSample(f"A variance needs two units in each arm; found {control.size} and {treatment.size}.")
    ours, theirs = _linearised(treatment), _linearised(control)
    theta, shift = 0.0, 0.0
    if control.covariate is not None and treatment.covariate is not None:
        theta = _coefficient(control, treatment, control.covariate, treatment.covariate)
        shift = theta * float(treatment.covariate.mean() - control.covariate.mean())
        ours = ours - theta * (treatment.covariate - treatment.covariate.mean())
        theirs = theirs - theta * (control.covariate - control.covariate.mean())
    level = _level(treatment), _level(control)
    return Effect(
        estimate=level[0] - level[1] - shift,
        variance=float(ours.var(ddof=1) / ours.size + theirs.var(ddof=1) / theirs.size),
        treatment=level[0],
        control=level[1],
        units=ours.size + theirs.size,
        units_least=min(ours.size, theirs.size),
        theta=theta,
    )


def _level(arm: Sample) -> float:
    if arm.weights is None:
        return float(arm.values.mean())
    return float(arm.values.sum() / arm.weights.sum())


def _linearised(arm: Sample) -> Array:
    """Each unit's deviation from the arm's level, in the metric's own unit."""
    if arm.weights is None:
        return np.asarray(arm.values - arm.values.mean())
    return np.asarray((arm.values - _level(arm) * arm.weights) / arm.weights.mean())


def _coefficient(control: Sample, treatment: Sample, x_control: Array, x_treatment: Array) -> float:
    """CUPED's coefficient, from both arms as one sample."""
    weighted = control.weights is not None and treatment.weights is not None
    both = Sample(
        values=np.concatenate((control.values, treatment.values)),
        weights=np.concatenate((control.weights, treatment.weights)) if weighted else None,  # type: ignore[arg-type]
    )
    x = np.concatenate((x_control, x_treatment))
    centred = x - x.mean()
    spread = float(centred @ centred)
    return float(centred @ _linearised(both)) / spread if spread else 0.0
