"""The rules that we ship, run over one world: did this one ever say something?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from monitoring.statistics import adaptive, asymptotic, betting, margins
from monitoring.statistics.cohorts import matured, within
from monitoring.statistics.effects import Effect, difference
from monitoring.statistics.margins import Guard
from monitoring.statistics.mismatch import CONCENTRATION, mismatch
from monitoring.statistics.study.worlds import LOOKS, USERS, Clustered, bounded, clustered, delayed
from monitoring.statistics.values import Interval, Sample

ALPHA = 0.05
GUARD_ALPHA = 0.01
GUARD_MARGIN = 0.02
SRM_ALPHA = 0.001
SRM_FINAL_ALPHA = 0.002
SRM_UNITS, SRM_LOOKS = 5000, 50


def asymptotic_finds(generator: np.random.Generator, *, lift: float, cuped: bool = False) -> bool:
    """Whether the sequence on users excludes zero at any of the looks."""
    rho = asymptotic.tuned(USERS, ALPHA)
    world = clustered(generator, lift=lift)
    return any(
        not seen.lower <= 0 <= seen.upper
        for seen in (asymptotic.sequence(effect, alpha=ALPHA, rho=rho) for effect in _looks(world, cuped))
    )


def _looks(world: Clustered, cuped: bool) -> Iterator[Effect]:
    """The effect at every look, on the users seen until then."""
    order = np.argsort(world.look, kind="stable")
    user, success, look = world.user[order], world.success[order], world.look[order]
    ends = np.searchsorted(look, np.arange(LOOKS), side="right")
    asked, good = np.zeros(world.treated.size), np.zeros(world.treated.size)
    begin = 0
    for end in ends:
        np.add.at(asked, user[begin:end], 1.0)
        np.add.at(good, user[begin:end], success[begin:end])
        begin = end
        there = asked > 0
        if min(int((there & world.treated).sum()), int((there & ~world.treated).sum())) < 2:
            continue
        arms = []
        for chosen in (there & ~world.treated, there & world.treated):
            covariate = world.before[chosen] if cuped else None
            arms.append(Sample(values=good[chosen], weights=asked[chosen], covariate=covariate))
        yield difference(*arms)


def guard_states(generator: np.random.Generator, *, rate: float, harm: float, units: int = USERS) -> set[Guard]:
    """Every state in which the guardrail on a share (lower is better) is seen at the looks, by the asymptotic rule."""
    flagged, treated = bounded(generator, rate=rate, harm=harm, units=units)
    rho, seen = asymptotic.tuned(units, GUARD_ALPHA), set()
    for end in np.linspace(units / LOOKS, units, LOOKS).astype(int):
        good, arm = -flagged[:end], treated[:end] == 1
        if min(arm.sum(), (~arm).sum()) < 2:
            continue
        effect = difference(Sample(values=good[~arm]), Sample(values=good[arm]))
        seen.add(margins.judge(asymptotic.bounds(effect, alpha=GUARD_ALPHA, rho=rho), margin=GUARD_MARGIN))
    return seen


def betting_states(generator: np.random.Generator, *, rate: float, harm: float, units: int = USERS) -> set[Guard]:
    """The same by the betting rule, for rare flags."""
    flagged, treated = bounded(generator, rate=rate, harm=harm, units=units)
    far = betting.reach([0.5])
    worse = betting.pseudo_outcomes(flagged, treated, propensity=0.5)
    seen = set()
    if betting.exceeds(worse, GUARD_MARGIN, reach=far, alpha=GUARD_ALPHA):
        seen.add(Guard.BREACHED)
    if betting.falls_below(worse, GUARD_MARGIN, reach=far, alpha=GUARD_ALPHA):
        seen.add(Guard.CLEAR)
    return seen


def betting_finds(generator: np.random.Generator, *, rate: float) -> bool:
    """Whether the two-sided betting sequence excludes zero in an A/A test of a rare flag."""
    flagged, treated = bounded(generator, rate=rate)
    far = betting.reach([0.5])
    outcome = betting.pseudo_outcomes(flagged, treated, propensity=0.5)
    rules = betting.exceeds, betting.falls_below
    return any(rule(outcome, 0.0, reach=far, alpha=ALPHA / 2) for rule in rules)


def delayed_finds(generator: np.random.Generator, *, mature: bool) -> bool:
    """Whether identical arms are told apart when complaints of one come later; `mature` waits for closed windows."""
    world, window, rho = delayed(generator), 8.0, asymptotic.tuned(USERS, ALPHA)
    for now in np.linspace(5, 50, LOOKS):
        came = world.exposed_s + world.delay_s
        if mature:
            units = matured(world.exposed_s, now_s=now, window_s=window)
            complained = within(came, world.exposed_s, window_s=window) & (world.happy == 0)
        else:
            units = (world.exposed_s <= now) & (came <= now)
            complained = world.happy == 0
        control, treated = units & ~world.treated, units & world.treated
        if min(control.sum(), treated.sum()) < 2:
            continue
        outcome = complained.astype(np.float64)
        effect = difference(Sample(values=outcome[control]), Sample(values=outcome[treated]))
        seen = asymptotic.sequence(effect, alpha=ALPHA, rho=rho)
        if not seen.lower <= 0 <= seen.upper:
            return True
    return False


def adaptive_finds(generator: np.random.Generator) -> bool:
    """Whether two of three identical arms are told apart while the allocation runs after their luck."""
    batch, floor, arms = USERS // LOOKS, 0.1, 3
    outcomes, chosen, shares = np.empty(0), np.empty(0), np.empty((0, arms))
    good, bad = np.zeros(arms), np.zeros(arms)
    rho = asymptotic.tuned(USERS, ALPHA)
    for _ in range(LOOKS):
        share = adaptive.allocation(good, bad, floor=floor, generator=generator)  # type: ignore[arg-type]
        arm = generator.choice(arms, batch, p=share)
        won = (generator.random(batch) < 0.6).astype(np.float64)
        good += np.bincount(arm, won, arms)
        bad += np.bincount(arm, 1 - won, arms)
        outcomes, chosen = np.append(outcomes, won), np.append(chosen, arm)
        shares = np.vstack((shares, np.tile(share, (batch, 1))))
        seen: Interval = adaptive.contrast(outcomes, chosen, shares, treatment=1, control=0, alpha=ALPHA, rho=rho)
        if not seen.lower <= 0 <= seen.upper:
            return True
    return False


def mismatches(
    generator: np.random.Generator, runs: int, *, share: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """For each run, (runs,) booleans: whether any look's sequential test alarmed, and whether the final one did.

    The evidence is computed for all runs together, and compared with `mismatch` itself on the last look of some.
    """
    each = SRM_UNITS // SRM_LOOKS
    first = np.cumsum(generator.binomial(each, share, (runs, SRM_LOOKS)), axis=1)
    total = each * np.arange(1, SRM_LOOKS + 1)
    half = CONCENTRATION / 2
    evidence = gammaln(CONCENTRATION) - gammaln(CONCENTRATION + total) - 2 * gammaln(half) + total * np.log(2)
    evidence = evidence + gammaln(half + first) + gammaln(half + total - first)
    last = [mismatch((int(n), SRM_UNITS - int(n)), (1, 1)) for n in first[:, -1]]
    for found, expected in zip(last[:50], evidence[:50, -1], strict=True):
        if abs(found.log_evidence - expected) > 1e-6:
            raise AssertionError("the study's arithmetic is not the rule's")
    alarmed = (evidence >= -np.log(SRM_ALPHA)).any(axis=1)
    return alarmed, np.array([found.final(SRM_FINAL_ALPHA) for found in last])
