"""Which arm a unit is in: a pure function of the experiment's salt, the unit and the ramp. No table, no clock.

Every unit has a bucket from 0 to 9999 for ever. With two arms at `share` p the treatment has buckets [0, p) and the
control the last p before the hold-out; with more, each arm owns an equal region and takes the first p of it. Ramps only
raise p, so a unit that is in an arm stays there, and the arms are equally large at every step: steps can be pooled.
Buckets outside are served what the alias points at, and are not analysed.

An adaptive experiment shares its buckets out by weighted rendezvous: when an arm's share changes, only the buckets that
must move do. A unit of it may move between epochs; what counts is its first exposure, with the propensity stored there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np

from adapters.experiments.values import BUCKETS, Arm, Epoch, Experiment

_NONE = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """An arm, and the chance that a unit of the experiment had to be in it."""

    arm: Arm
    propensity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """An experiment as the request path needs it: `table` holds the index of each bucket's arm, 255 for none."""

    experiment: str
    key: bytes
    arms: tuple[Assigned, ...]
    table: bytes


def plan(experiment: Experiment) -> Plan:
    """Lay out the buckets. A hold-out lies at their end and is never given to an arm; nor is a dropped arm's region,
    unless the experiment is adaptive: there it goes to the others."""
    table = np.full(BUCKETS, _NONE, np.uint8)
    free, arms = BUCKETS - experiment.holdout, len(experiment.arms)
    share = min(experiment.share, room(arms, experiment.holdout))
    if experiment.adaptive:
        table[: share * arms] = _shared_out(experiment, share * arms)
    elif arms == 2:
        table[:share], table[free - share : free] = 1, 0
    else:
        for at in range(arms):
            begin = at * room(arms, experiment.holdout)
            table[begin : begin + share] = at
    for at, arm in enumerate(experiment.arms):
        if arm.name in experiment.dropped:
            table[table == at] = _NONE
    sizes = [int((table == at).sum()) for at in range(arms)]
    chances = [size / max(sum(sizes), 1) for size in sizes]
    return Plan(
        experiment=experiment.id,
        key=experiment.salt.encode()[:64],
        arms=tuple(Assigned(arm=arm, propensity=p) for arm, p in zip(experiment.arms, chances, strict=True)),
        table=table.tobytes(),
    )


def room(arms: int, holdout: int) -> int:
    """The largest share, in basis points, that each arm can have."""
    return (BUCKETS - holdout) // arms


def bucket(key: bytes, unit: str) -> int:
    """The unit's bucket, 0 to 9999: a keyed hash, so that the buckets of two experiments tell nothing of each other."""
    digest = blake2b(unit.encode("utf-8", "surrogatepass"), digest_size=8, key=key).digest()
    return int.from_bytes(digest, "big") % BUCKETS


def assign(planned: Plan, at: int) -> Assigned | None:
    """The arm of a bucket; None for none: what the alias points at serves, and nothing is exposed."""
    index = planned.table[at]
    return None if index == _NONE else planned.arms[index]


def epoch(experiment: Experiment, *, since: float, targets: tuple[float, ...]) -> Epoch:
    """The epoch that begins when an adaptive experiment aims at these shares, with the propensities that follow. A new
    step and a dropped arm begin one too, for they move buckets."""
    begun = Epoch(since=since, targets=targets)
    planned = plan(replace(experiment, epochs=(*experiment.epochs, begun)))
    return replace(begun, shares=tuple(assigned.propensity for assigned in planned.arms))


def _shared_out(experiment: Experiment, buckets: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """Each bucket goes to the arm with the largest share/-ln(u), u fixed for (experiment, bucket, arm) for ever."""
    seed = int.from_bytes(blake2b(experiment.salt.encode(), digest_size=8).digest(), "big")
    u = np.random.default_rng(seed).random((BUCKETS, len(experiment.arms)))[:buckets]
    targets = experiment.epochs[-1].targets if experiment.epochs else (1.0,) * len(experiment.arms)
    kept = [
        0.0 if arm.name in experiment.dropped else share for arm, share in zip(experiment.arms, targets, strict=True)
    ]
    scores = np.asarray(kept) / -np.log(np.clip(u, 1e-300, 1 - 1e-16))
    return np.asarray(scores.argmax(axis=1), np.uint8)
