"""Contradictions, near-duplicates and caps: which of the candidates stay. Pure, on columns.

Of those that cannot all stay the weightiest do, then the newest. The order of the rules is the order of this file.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from training.data.choice.index import DOWN, LABELS, UP, Index
from training.data.choice.similar import alike
from training.data.reasons import Reason
from training.data.rules import Rules

REASONS = tuple(Reason)
Fate = NDArray[np.uint8]
#: Numbers of rows: two thousand million are enough.
Rows = NDArray[np.int32]
_STAYS = 0
_CODES: Mapping[Reason, int] = {reason: number for number, reason in enumerate(REASONS, 1)}


def undecided(size: int) -> Fate:
    """Every row stays, so far."""
    return np.zeros(size, np.uint8)


def leave(fate: Fate, rows: NDArray[np.bool_], reason: Reason) -> None:
    """Those of these rows that stayed so far leave for this reason."""
    fate[rows & (fate == _STAYS)] = _CODES[reason]


def stays(fate: Fate) -> NDArray[np.bool_]:
    staying: NDArray[np.bool_] = fate == _STAYS
    return staying


def reason(fate: int) -> Reason:
    """Why a row with this fate left."""
    return REASONS[fate - 1]


def choose(index: Index, rules: Rules) -> tuple[Fate, Rows]:
    """(what becomes of each row, the first row that each is nearly the same as)."""
    fate = undecided(index.size)
    if not index.size:
        return fate, np.zeros(0, np.int32)
    _contradictions(index, fate)
    duplicates = alike(index.column("sketches"), rules.similar, index.column("label"))
    best_first = _ranked(index)
    _cap(fate, duplicates, best_first, rules.near_duplicates, Reason.NEAR_DUPLICATE)
    for name, cap, why in (
        ("owner", rules.user_cap, Reason.USER_CAP),
        ("cluster", rules.cluster_cap, Reason.CLUSTER_CAP),
        ("route", rules.route_cap, Reason.ROUTE_CAP),
        ("label", rules.label_cap, Reason.LABEL_CAP),
    ):
        if cap:
            _cap(fate, index.column(name), best_first, cap, why)
    return fate, duplicates


def factors(index: Index, fate: Fate, rules: Rules) -> NDArray[np.float32]:
    """What each row's weight is multiplied by, for its route, its label and the size of its cluster."""
    factor = np.ones(index.size, np.float32)
    by_route = np.ones(max(index.routes.values(), default=0) + 1, np.float32)
    for route, number in index.routes.items():
        by_route[number] = rules.route_weights.get(route, 1.0)
    by_label = np.array([rules.label_weights.get(name, 1.0) for name in LABELS], np.float32)
    if index.size:
        factor *= by_route[index.column("route")]
        factor *= by_label[index.column("label")]
    if rules.cluster_balance and index.size:
        _, place, count = np.unique(index.column("cluster")[stays(fate)], return_inverse=True, return_counts=True)
        factor[stays(fate)] *= (count**-rules.cluster_balance).astype(np.float32)[place]
    return factor


def class_weights(up: float, down: float) -> tuple[float, float]:
    """(desirable, undesirable) weights that bring the weighted sum of good rows to between 1 and 4/3 of the bad ones',
    as KTO wants it; the class that has enough keeps 1."""
    if not up or not down:
        return 1.0, 1.0
    ratio = up / down
    if ratio < 1:
        return round(1 / ratio, 4), 1.0
    if ratio > 4 / 3:
        return 1.0, round(ratio * 3 / 4, 4)
    return 1.0, 1.0


def _ranked(index: Index) -> Rows:
    """All rows, those to keep first; of equals the one that came first."""
    ranked: Rows = np.lexsort((-index.column("at"), -index.column("weight"))).astype(np.int32)
    return ranked


def _contradictions(index: Index, fate: Fate) -> None:
    """The very same answer to the very same question, liked by some and disliked by others: the weightier side stays;
    with equal weights neither does."""
    label, pair = index.column("label"), index.column("pair")
    torn = np.intersect1d(pair[label == UP], pair[label == DOWN])
    if not torn.size:
        return
    place = np.minimum(np.searchsorted(torn, pair), torn.size - 1)
    rows = np.flatnonzero(torn[place] == pair)
    place, label, weight = place[rows], label[rows], index.column("weight")[rows].astype(np.float64)
    up = np.bincount(place, weight * (label == UP), torn.size)[place]
    down = np.bincount(place, weight * (label == DOWN), torn.size)[place]
    leave(fate, _mask(fate.size, rows[up == down]), Reason.TIED)
    lost = (up != down) & np.where(up > down, label == DOWN, label == UP)
    leave(fate, _mask(fate.size, rows[lost]), Reason.CONTRADICTED)


def _mask(size: int, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    mask = np.zeros(size, np.bool_)
    mask[rows] = True
    return mask


def _cap(fate: Fate, groups: NDArray[np.generic], best_first: Rows, most: int, why: Reason) -> None:
    """Of each group's rows that stay, the best `most` do."""
    rows = best_first[stays(fate)[best_first]]
    keys = groups[rows]
    order = np.argsort(keys, kind="stable").astype(np.int32)
    keys = keys[order]
    begins = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])) if keys.size else keys).astype(np.int32)
    sizes = np.diff(np.append(begins, np.int32(keys.size)))
    del keys
    rank = np.arange(rows.size, dtype=np.int32) - np.repeat(begins, sizes)
    fate[rows[order[rank >= most]]] = _CODES[why]
