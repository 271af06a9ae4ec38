"""One look at an experiment: columns and a moment go in; estimates, guardrails, arm sizes and health come out. Pure.

Every interval is treatment minus control in the direction in which more is better: above 0 is better, whatever the
metric. The primary metric has a two-sided asymptotic sequence at `alpha`, split over the treatments; guardrails have
one-sided bounds at `guard_alpha`, split over guardrails, treatments and slices, by betting where the metric is rare.
Units count when their metric's window has closed, by the arm of their first exposure (intention to treat).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from adapters.experiments.metrics import UnitTable, checked, columns
from adapters.experiments.slices import masks, tested, together
from adapters.experiments.values import Better, Experiment, Metric, Part, Role
from monitoring.statistics import adaptive, asymptotic, betting, margins
from monitoring.statistics.effects import difference
from monitoring.statistics.margins import Guard
from monitoring.statistics.mismatch import Mismatch, mismatch
from monitoring.statistics.values import Array, Interval, Sample, unknown

#: Above these shares of the units the numbers are not trusted: without any record, and seen in two arms.
MISSING_MAX = 0.05
MIXED_MAX = 0.02
#: How long a request's record may take to arrive before it is missed.
ARRIVES_S = 300.0
_JUDGED_UNITS = 100

#: Beyond so many units a betting rule takes them in blocks of so many: averages bounded alike, fixed beforehand, so
#: that the guarantee stands and a million units take a tenth of a second.
_SINGLE, _TENS = 20_000, 200_000
#: Gateways learn of new shares within this time: units first exposed in it are not held against the shares.
_SETTLING_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """One metric of one treatment. `control` and `treatment` are the arms' levels in the metric's own direction."""

    metric: str
    arm: str
    role: Role
    interval: Interval
    control: float
    treatment: float
    guard: Guard | None = None
    slices: Mapping[str, Interval] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is known of an experiment at one moment. `units` counts first exposures by arm, `settled` those of them
    whose primary window has closed; `broken` says why the numbers cannot be trusted."""

    at: float
    units: Mapping[str, int]
    settled: Mapping[str, int]
    srm: Mismatch
    estimates: tuple[Estimate, ...] = ()
    mixed: float = 0.0
    missing: float = 0.0
    unitless: float = 0.0
    broken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Rows:
    """The table in order of first exposure, and which rows are in which arm."""

    table: UnitTable
    order: NDArray[np.intp]
    first_at: Array
    arm: NDArray[np.integer]

    def closed(self, *, now: float, window_s: float) -> int:
        """How many rows, from the first on, have a closed window."""
        return int(np.searchsorted(self.first_at, now - window_s, side="right"))


def analyse(experiment: Experiment, table: UnitTable, *, now: float) -> Look:
    """Look at everything that the records know. Raises BadSample when the columns cannot be what they should be."""
    rows = _ordered(checked(table, experiment))
    estimates = []
    for metric in experiment.metrics:
        values, weights = _outcomes(metric, rows)
        end = rows.closed(now=now, window_s=metric.window_s)
        for at, arm in enumerate(experiment.arms):
            if arm in experiment.treatments:
                estimates.append(_estimate(experiment, metric, rows, (values[:end], weights), at))
    settled = rows.arm[: rows.closed(now=now, window_s=experiment.primary.window_s)]
    mixed = float(table.mixed.mean()) if table.mixed is not None and table.size else 0.0
    missing = _missing(rows, now=now)
    asked = table.requests + table.unitless
    return Look(
        at=now,
        units=_counts(experiment, rows.arm),
        settled=_counts(experiment, settled),
        estimates=tuple(estimates),
        srm=_shares_kept(experiment, rows),
        mixed=mixed,
        missing=missing,
        unitless=table.unitless / asked if asked else 0.0,
        broken=_broken(rows.table.size, mixed=0.0 if experiment.adaptive else mixed, missing=missing),
    )


def _ordered(table: UnitTable) -> _Rows:
    if table.size < 2 or bool((np.diff(table.first_at) >= 0).all()):
        order = np.arange(table.size)
        return _Rows(table, order, table.first_at, table.arm)
    order = np.argsort(table.first_at, kind="stable")
    return _Rows(table, order, table.first_at[order], table.arm[order])


def _outcomes(metric: Metric, rows: _Rows) -> tuple[Array, Array | None]:
    """Each unit's number, oriented so that more is better, and what it is divided by where that is not done here."""
    column, per = columns(metric)
    values = np.asarray(rows.table.sums[column.key], np.float64)[rows.order]
    weights = np.asarray(rows.table.sums[per.key], np.float64)[rows.order] if per else None
    if metric.bounded and weights is not None:
        # A unit of which nothing is known did not do it. Nobody's scalar can weigh more than one.
        share = np.divide(values, weights, out=np.zeros_like(values), where=weights > 0)
        values, weights = np.clip(share, 0.0, 1.0), None
    return (values if metric.better is Better.HIGHER else -values), weights


def _estimate(
    experiment: Experiment, metric: Metric, rows: _Rows, outcomes: tuple[Array, Array | None], arm: int
) -> Estimate:
    values, weights = outcomes
    end, treatments = values.size, len(experiment.arms) - 1
    guards = sum(each.role is Role.GUARDRAIL for each in experiment.metrics)
    guarding = metric.role is Role.GUARDRAIL
    alpha = margins.split(experiment.guard_alpha, guards) if guarding else experiment.alpha
    alpha /= treatments
    compared = _Compared(experiment, metric, rows, values, weights, arm, alpha / tested(metric))
    everyone = np.ones(end, np.bool_)
    sliced: dict[str, Interval] | None = None
    if metric.slices:
        codes = {tag: (rows.table.slices or {})[tag][rows.order][:end] for tag in metric.slices}
        sliced = {name: compared.interval(mask) for name, mask in masks(metric, codes, rows.table.labels or {}).items()}
    found = compared.interval(everyone) if metric.part is Part.ALL else together(metric.part, sliced or {})
    control, treatment = compared.levels()
    return Estimate(
        metric=metric.name,
        arm=experiment.arms[arm].name,
        role=metric.role,
        interval=found,
        control=control,
        treatment=treatment,
        guard=margins.judge(found, margin=metric.margin) if guarding else None,
        slices=sliced,
    )


@dataclass(frozen=True, slots=True)
class _Compared:
    """One treatment against the control on one metric, at one level."""

    experiment: Experiment
    metric: Metric
    rows: _Rows
    values: Array
    weights: Array | None
    arm: int
    alpha: float

    def interval(self, chosen: NDArray[np.bool_]) -> Interval:
        """By the rule that the metric has, on the chosen rows."""
        arms = self.rows.arm[: self.values.size]
        if self.experiment.adaptive:
            return self._weighted(chosen, arms)
        control, treated = np.flatnonzero(chosen & (arms == 0)), np.flatnonzero(chosen & (arms == self.arm))
        if self.metric.role is Role.GUARDRAIL and self.metric.rare:
            return self._bet(np.flatnonzero(chosen & ((arms == 0) | (arms == self.arm))), arms)
        samples = self._sample(control), self._sample(treated)
        units = control.size + treated.size
        if min(control.size, treated.size) < 2 or any(_weightless(each) for each in samples):
            return unknown(0.0, units)
        rule = asymptotic.bounds if self.metric.role is Role.GUARDRAIL else asymptotic.sequence
        return rule(difference(*samples), alpha=self.alpha, rho=self._rho())

    def levels(self) -> tuple[float, float]:
        """The control's and the treatment's level, in the metric's own direction."""
        arms, sign = self.rows.arm[: self.values.size], 1.0 if self.metric.better is Better.HIGHER else -1.0
        found = []
        for at in (0, self.arm):
            value = float(self.values[arms == at].sum())
            weight = float((arms == at).sum() if self.weights is None else self.weights[: arms.size][arms == at].sum())
            found.append(sign * value / weight if weight else 0.0)
        return found[0], found[1]

    def _rho(self) -> float:
        return asymptotic.tuned(self.experiment.horizon, self.alpha)

    def _sample(self, rows: NDArray[np.intp]) -> Sample:
        known = self.rows.table.covariate if self.metric.role is Role.PRIMARY else None
        covariate = None
        if known is not None:
            column = known[self.rows.order][: self.values.size]
            mean = float(np.nanmean(column)) if np.isfinite(column).any() else 0.0
            covariate = np.where(np.isfinite(column), column, mean)[rows]
        weights = self.weights[rows] if self.weights is not None else None
        return Sample(values=self.values[rows], weights=weights, covariate=covariate)

    def _bet(self, rows: NDArray[np.intp], arms: NDArray[np.integer]) -> Interval:
        """The control and one treatment have equally many buckets, so each unit's chance was one half."""
        values = self.values[rows]
        lower_is_better = self.metric.better is Better.LOWER
        treated = arms[rows] == self.arm
        outcomes = betting.pseudo_outcomes(-values if lower_is_better else values, treated, propensity=0.5)
        found = betting.bounds(_blocks(outcomes), reach=betting.reach([0.5]), alpha=self.alpha)
        if not (treated.any() and not treated.all()):
            return replace(found, estimate=0.0, units=rows.size)
        estimate = float(values[treated].mean() - values[~treated].mean())
        if lower_is_better:
            return Interval(estimate=estimate, lower=-found.upper, upper=-found.lower, units=rows.size)
        return Interval(estimate=estimate, lower=found.lower, upper=found.upper, units=rows.size)

    def _weighted(self, chosen: NDArray[np.bool_], arms: NDArray[np.integer]) -> Interval:
        """Only the propensity of the arm that a unit was given enters, so the stored one is enough."""
        rows = np.flatnonzero(chosen)
        assert self.rows.table.propensity is not None  # `checked` saw to it
        own = self.rows.table.propensity[self.rows.order][: self.values.size][rows]
        given = np.broadcast_to(own[:, None], (rows.size, len(self.experiment.arms)))
        return adaptive.contrast(
            self.values[rows],
            arms[rows].astype(np.float64),
            given,
            treatment=self.arm,
            control=0,
            alpha=self.alpha,
            rho=self._rho(),
        )


def _blocks(outcomes: Array) -> Array:
    parts = [outcomes[:_SINGLE]]
    for begin, end, size in ((_SINGLE, _TENS, 10), (_TENS, outcomes.size, 100)):
        middle = outcomes[begin:end]
        parts.append(middle[: middle.size // size * size].reshape(-1, size).mean(axis=1))
    return np.concatenate(parts)


def _weightless(sample: Sample) -> bool:
    return sample.weights is not None and float(sample.weights.sum()) == 0


def _counts(experiment: Experiment, arms: NDArray[np.integer]) -> dict[str, int]:
    counts = np.bincount(arms.astype(np.intp), minlength=len(experiment.arms))
    return {arm.name: int(count) for arm, count in zip(experiment.arms, counts, strict=True)}


def _missing(rows: _Rows, *, now: float) -> float:
    """The share of the units of which no request was recorded, though there was time for it."""
    end = rows.closed(now=now, window_s=ARRIVES_S)
    asked = rows.table.sums["requests@0"][rows.order][:end]
    return float((asked <= 0).mean()) if end else 0.0


def _broken(units: int, *, mixed: float, missing: float) -> tuple[str, ...]:
    found = []
    if units >= _JUDGED_UNITS and missing > MISSING_MAX:
        found.append(f"{missing:.1%} of the units have no record of any request; {MISSING_MAX:.0%} may")
    if units >= _JUDGED_UNITS and mixed > MIXED_MAX:
        found.append(f"{mixed:.1%} of the units were seen in two arms; {MIXED_MAX:.0%} may")
    return tuple(found)


def _shares_kept(experiment: Experiment, rows: _Rows) -> Mismatch:
    """Whether the arms have the units that they should; under moving shares each epoch is a test, and evidence adds."""
    kept = [at for at, arm in enumerate(experiment.arms) if arm.name not in experiment.dropped]
    if not experiment.adaptive:
        counts = np.bincount(rows.arm.astype(np.intp), minlength=len(experiment.arms))
        return mismatch([int(counts[at]) for at in kept], [1.0] * len(kept))
    epochs, evidence, least = experiment.epochs, 0.0, 1.0
    for at, epoch in enumerate(epochs):
        until = epochs[at + 1].since if at + 1 < len(epochs) else np.inf
        begin = epoch.since + (_SETTLING_S if at else 0.0)
        there = (rows.first_at >= begin) & (rows.first_at < until)
        counts = np.bincount(rows.arm[there].astype(np.intp), minlength=len(experiment.arms))
        shared = [n for n, share in enumerate(epoch.shares) if share > 0]
        found = mismatch([int(counts[n]) for n in shared], [epoch.shares[n] for n in shared])
        evidence, least = evidence + found.log_evidence, min(least, found.p_value)
    return Mismatch(log_evidence=evidence, p_value=min(least * max(len(epochs), 1), 1.0))
