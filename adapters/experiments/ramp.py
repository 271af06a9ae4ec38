"""When the ramp may take its next step, and what shares an adaptive experiment aims at next. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adapters.experiments.metrics import UnitTable, columns
from adapters.experiments.values import Better, Experiment
from monitoring.statistics.adaptive import allocation


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """The step after this one: its share in basis points, and how long it still has to wait; 0 when it may be taken."""

    step: int
    share: int
    waits_s: float


def following(experiment: Experiment, *, now: float) -> Next | None:
    """The next step of the ramp; None at its end."""
    after = experiment.step + 1
    if after >= len(experiment.ramp):
        return None
    least = experiment.ramp[experiment.step].at_least_s
    waits = max(experiment.step_since + least - now, 0.0)
    return Next(step=after, share=experiment.ramp[after].share, waits_s=waits)


def targets(experiment: Experiment, table: UnitTable, *, now: float) -> tuple[float, ...] | None:
    """The shares to aim at from now on, by what the settled units did; None while the epoch lasts.

    Each unit counts as much for its arm as its primary outcome, between 0 and 1; dropped arms get nothing and the
    others their part of it. Drawn from a generator seeded by the experiment and the epoch: the same look, the same
    shares.
    """
    if experiment.adaptive is None or now < experiment.epochs[-1].since + experiment.adaptive.epoch_s:
        return None
    metric = experiment.primary
    column, per = columns(metric)
    settled = table.first_at <= now - metric.window_s
    weights = table.sums[per.key] if per else np.ones(table.size)
    share = np.divide(table.sums[column.key], weights, out=np.zeros(table.size), where=weights > 0)
    good = np.clip(share if metric.better is Better.HIGHER else 1 - share, 0.0, 1.0)[settled]
    arms = table.arm[settled].astype(np.intp)
    won = np.bincount(arms, good, len(experiment.arms))
    lost = np.bincount(arms, 1 - good, len(experiment.arms))
    generator = np.random.default_rng([len(experiment.epochs), *experiment.salt.encode()])
    shares = allocation(won.tolist(), lost.tolist(), floor=experiment.adaptive.floor, generator=generator)
    kept = [
        0.0 if arm.name in experiment.dropped else value
        for arm, value in zip(experiment.arms, shares.tolist(), strict=True)
    ]
    return tuple(value / sum(kept) for value in kept)
