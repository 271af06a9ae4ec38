"""Confidence sequences: against an independent package, and against their own promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
import ville
from hypothesis import given
from hypothesis import strategies as st
from ville import _boundaries

from monitoring.statistics import adaptive, asymptotic, betting, margins
from monitoring.statistics.cohorts import matured, within
from monitoring.statistics.effects import Effect
from monitoring.statistics.errors import BadSample
from monitoring.statistics.margins import Guard
from monitoring.statistics.values import Interval


def effect(estimate: float = 0.1, variance: float = 0.001, least: int = 500) -> Effect:
    return Effect(
        estimate=estimate, variance=variance, control=0.0, treatment=estimate, units=2 * least, units_least=least
    )


@pytest.mark.parametrize("units", [200, 1000, 40_000])
def test_the_two_sided_radius_is_robbins_mixture(units: int) -> None:
    rho = 0.05
    theirs = float(_boundaries.normal_mixture(units, 0.05, 1 / rho**2)) / math.sqrt(units)
    assert asymptotic.radius(units, rho, 0.05) == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("alpha", [0.01, 0.05])
def test_the_tuned_sequence_is_nearly_narrowest_at_its_horizon(alpha: float) -> None:
    best = _boundaries.best_rho(4000, alpha)
    ours = asymptotic.radius(4000, asymptotic.tuned(4000, alpha), alpha)
    assert ours <= 1.005 * asymptotic.radius(4000, 1 / math.sqrt(best), alpha)


def test_a_bound_on_one_side_is_tighter_than_a_sequence_on_two() -> None:
    one, two = (f(effect(), alpha=0.05, rho=0.05) for f in (asymptotic.bounds, asymptotic.sequence))
    assert two.lower < one.lower < one.estimate < one.upper < two.upper


def test_nothing_is_said_of_few_units_or_of_no_variance() -> None:
    for found in (effect(least=99), effect(variance=0.0)):
        for rule in (asymptotic.sequence, asymptotic.bounds):
            said = rule(found, alpha=0.05, rho=0.05)
            assert (said.lower, said.upper) == (-math.inf, math.inf)


def stream(seed: int, size: int, rates: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    treated = (generator.random(size) < 0.5).astype(float)
    return (generator.random(size) < np.where(treated == 1, rates[1], rates[0])).astype(float), treated


def test_pseudo_outcomes_and_bounds_agree_with_ville() -> None:
    values, treated = stream(3, 1500, (0.1, 0.3))
    theirs = ville.BettingABTest(alpha=0.05, grid=20_000).fit(values, treated)
    ours = betting.pseudo_outcomes(values, treated, propensity=0.5)
    assert float(ours.mean()) == pytest.approx(float(theirs.estimate_[-1]), abs=1e-6)
    # Theirs holds half of the capital on each side, so each side is tested at alpha / 2; its bets are sized for alpha.
    found = betting.bounds(ours, reach=2.0, alpha=0.025)
    step = 4.0 / 20_000
    assert found.lower == pytest.approx(float(theirs.lower_[-1]), abs=0.02)
    assert found.upper == pytest.approx(float(theirs.upper_[-1]), abs=0.02)
    assert theirs.interval()[0] - step <= 0.2 <= theirs.interval()[1] + step


def test_the_wealth_agrees_with_villes_hedged_capital() -> None:
    values, treated = stream(4, 400, (0.2, 0.2))
    outcomes = betting.pseudo_outcomes(values, treated, propensity=0.5)
    theirs = ville.BettingCS(bounds=(-2.0, 2.0), alpha=0.05, grid=5, intersect=False).fit(outcomes)
    for at, mean in ((1, -1.0), (2, 0.0), (3, 1.0)):
        above, below = betting.wealth(outcomes, mean, reach=2.0, alpha=0.05)
        assert above[-1] == pytest.approx(theirs._log_up[at], abs=1e-6)
        assert below[-1] == pytest.approx(theirs._log_down[at], abs=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(1, 300))
def test_betting_bounds_hold_the_estimate_and_stay_in_reach(seed: int, size: int) -> None:
    values, treated = stream(seed, size, (0.5, 0.5))
    outcomes = betting.pseudo_outcomes(values, treated, propensity=0.5)
    found = betting.bounds(outcomes, reach=2.0, alpha=0.05)
    assert -2.0 <= found.lower <= found.upper <= 2.0


def test_betting_tells_a_large_effect_and_only_its_side() -> None:
    outcomes = betting.pseudo_outcomes(*stream(5, 2000, (0.1, 0.5)), propensity=0.5)
    assert betting.exceeds(outcomes, 0.2, reach=2.0, alpha=0.01)
    assert not betting.falls_below(outcomes, 0.2, reach=2.0, alpha=0.01)
    assert not betting.exceeds(outcomes, 0.6, reach=2.0, alpha=0.01)
    assert betting.reach([0.5, 0.8]) == pytest.approx(5)


def test_betting_without_units_says_nothing() -> None:
    found = betting.bounds(np.empty(0), reach=2.0, alpha=0.05)
    assert (found.lower, found.upper, found.units) == (-math.inf, math.inf, 0)
    assert not betting.exceeds(np.empty(0), 0.0, reach=2.0, alpha=0.05)


@pytest.mark.parametrize(
    ("values", "treated", "propensity", "says"),
    [
        ([0.5], [0, 1], 0.5, "one length"),
        ([1.5], [1], 0.5, "between 0 and 1"),
        ([float("nan")], [1], 0.5, "between 0 and 1"),
        ([0.5], [2], 0.5, "0 or 1"),
        ([0.5], [1], 1.0, "propensity"),
    ],
)
def test_bad_bounded_samples_are_refused(values: list[float], treated: list[int], propensity: float, says: str) -> None:
    with pytest.raises(BadSample, match=says):
        betting.pseudo_outcomes(values, treated, propensity=propensity)


@pytest.mark.parametrize(
    ("lower", "upper", "state"), [(-0.01, 0.05, Guard.CLEAR), (-0.05, 0.0, Guard.OPEN), (-0.09, -0.03, Guard.BREACHED)]
)
def test_a_guardrail_has_three_states(lower: float, upper: float, state: Guard) -> None:
    seen = Interval(estimate=(lower + upper) / 2, lower=lower, upper=upper, units=1000)
    assert margins.judge(seen, margin=0.02) is state


def test_alpha_is_split_over_guardrails() -> None:
    assert margins.split(0.05, 5) == pytest.approx(0.01)
    assert margins.split(0.05, 0) == 0.05


def test_a_unit_counts_when_its_window_has_closed_with_what_came_within() -> None:
    exposed = np.array([0.0, 5.0, 9.0])
    assert matured(exposed, now_s=10, window_s=5).tolist() == [True, True, False]
    assert within(np.array([5.0, 4.0, 15.0]), exposed, window_s=5).tolist() == [True, False, False]


def test_an_adaptive_share_never_falls_below_the_floor_and_follows_the_best() -> None:
    shares = adaptive.allocation([10, 10, 90], [90, 90, 10], floor=0.1, generator=np.random.default_rng(0))
    assert shares.sum() == pytest.approx(1)
    assert shares.min() >= 0.1
    assert shares.argmax() == 2


def test_an_adaptive_contrast_is_unbiased_where_the_plain_mean_is_not_weighted() -> None:
    generator = np.random.default_rng(7)
    propensities = np.tile([0.1, 0.1, 0.8], (6000, 1))
    arms = generator.choice(3, 6000, p=propensities[0]).astype(float)
    outcomes = (generator.random(6000) < np.array([0.3, 0.5, 0.6])[arms.astype(int)]).astype(float)
    found = adaptive.contrast(outcomes, arms, propensities, treatment=1, control=0, alpha=0.05, rho=0.03)
    assert found.lower < 0.2 < found.upper
    assert found.upper - found.lower < 0.4
    few = adaptive.contrast(outcomes[:50], arms[:50], propensities[:50], treatment=1, control=0, alpha=0.05, rho=0.03)
    assert few.lower == -math.inf


@pytest.mark.parametrize(
    ("good", "bad", "floor", "says"),
    [([1, 1], [1, 1], 0.1, "three arms"), ([1, -1, 1], [1, 1, 1], 0.1, "negative"), ([1] * 3, [1] * 3, 0.4, "floor")],
)
def test_bad_allocations_are_refused(good: list[float], bad: list[float], floor: float, says: str) -> None:
    with pytest.raises(BadSample, match=says):
        adaptive.allocation(good, bad, floor=floor, generator=np.random.default_rng(0))
