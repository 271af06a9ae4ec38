"""Which of the rows that stay are for evaluation, and that nothing of them is in training. Pure, on columns.

By user: some users, all their rows, so chosen that every label has its share in every quarter of time. By time: the
newest. By both: held-out users' rows of the newer half, while their older rows leave. By prompt: some questions. In
every case a question that training has cannot evaluate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.choice.caps import Fate, Rows, leave, stays
from training.data.choice.index import Index
from training.data.reasons import Reason
from training.data.rules import Rules

Whole = NDArray[np.int64]
Mask = NDArray[np.bool_]
_QUARTERS = 4
_AT_ONCE = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaks:
    """What both splits have: all must be 0, but for users where the split is not by user."""

    users: int
    questions: int
    near_duplicates: int


def divide(index: Index, fate: Fate, duplicates: Rows, rules: Rules) -> Mask:
    """Which rows evaluate. Rows that can do neither leave in `fate`."""
    held = np.zeros(index.size, np.bool_)
    rows = np.flatnonzero(stays(fate)).astype(np.int32)
    if not rows.size or not rules.evaluation:
        return held
    at = index.column("at")[rows]
    groups = index.column("question" if rules.split == "prompt" else "owner")[rows]
    if rules.split == "time":
        held[rows] = at > np.quantile(at, 1 - rules.evaluation)
    else:
        share = rules.evaluation * (2 if rules.split == "user_time" else 1)
        strata = index.column("label")[rows] * np.uint8(_QUARTERS) + _quarters(at)
        held[rows] = _held_groups(groups, strata, share, rules.seed)
        if rules.split == "user_time":
            older = np.zeros(index.size, np.bool_)
            older[rows] = at <= np.quantile(at, 0.5)
            leave(fate, held & older, Reason.HELD_OUT)
            held &= ~older
    _without_leaks(index, fate, duplicates, held)
    return held & stays(fate)


def leaks(index: Index, fate: Fate, duplicates: Rows, held: Mask) -> Leaks:
    """The check, apart from what made the split."""
    train, evaluation = stays(fate) & ~held, stays(fate) & held

    return Leaks(
        users=_common(index.column("owner"), train, evaluation).size,
        questions=_common(index.column("question"), train, evaluation).size,
        near_duplicates=_common(duplicates, train, evaluation).size,
    )


def _without_leaks(index: Index, fate: Fate, duplicates: Rows, held: Mask) -> None:
    """What training has cannot evaluate: training keeps it, since there it is worth more."""
    for column in (index.column("question"), duplicates):
        rows = np.flatnonzero(held & stays(fate))
        leaked = np.zeros(fate.size, np.bool_)
        leaked[rows] = np.isin(column[rows], _common(column, stays(fate) & ~held, held & stays(fate)))
        leave(fate, leaked, Reason.LEAKED)


def _common(column: NDArray[Any], train: Mask, evaluation: Mask) -> NDArray[Any]:
    """The values that both have. Evaluation is the smaller; training is looked up in it, some at a time."""
    few = np.unique(column[evaluation])
    found = np.zeros(few.size, np.bool_)
    for start in range(0, column.size if few.size else 0, _AT_ONCE):
        some = column[start : start + _AT_ONCE][train[start : start + _AT_ONCE]]
        at = np.minimum(np.searchsorted(few, some), few.size - 1)
        found[at[few[at] == some]] = True
    return few[found]


def _quarters(at: NDArray[np.float64]) -> NDArray[np.uint8]:
    edges = np.quantile(at, np.arange(1, _QUARTERS) / _QUARTERS)
    return np.searchsorted(edges, at, side="left").astype(np.uint8)


def _held_groups(groups: Whole, strata: NDArray[np.uint8], share: float, seed: int) -> Mask:
    """Whole groups, in an order that only their names and the seed decide, as long as they fill what strata lack."""
    kinds = int(strata.max()) + 1
    lacking = np.bincount(strata, minlength=kinds) * share
    wanted = strata.size * share
    order = np.argsort(groups, kind="stable").astype(np.int32)
    by_group, names = strata[order], groups[order]
    starts = np.flatnonzero(np.concatenate(([True], names[1:] != names[:-1])))
    names = names[starts]
    ends = np.append(starts[1:], groups.size)
    held = np.zeros(groups.size, np.bool_)
    if names.size < 2:
        return held
    for number in np.argsort(_shuffled(names, seed), kind="stable"):
        rows = slice(starts[number], ends[number])
        counts = np.bincount(by_group[rows], minlength=kinds)
        if 2 * np.minimum(counts, np.ceil(np.maximum(lacking, 0))).sum() > counts.sum():
            held[order[rows]] = True
            lacking -= counts
            wanted -= counts.sum()
            if wanted <= 0:
                break
    return held


def _shuffled(names: Whole, seed: int) -> NDArray[np.uint64]:
    """SplitMix64's finish, over the names and the seed."""
    mixed = names.astype(np.uint64) + np.uint64(seed * 0x9E3779B97F4A7C15 % (1 << 64))
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    shuffled: NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return shuffled
