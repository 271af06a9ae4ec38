"""Replies → numbers with intervals, paired differences and cuts. Pure: the same replies give the same numbers."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation import intervals
from training.evaluation.intervals import Array, Bounds
from training.evaluation.measures.catalogue import Measure, measures
from training.evaluation.rows import Reply, Row
from training.evaluation.values import Asked, Cut, Difference, Measured, Slice, Subject

#: Fewer units say nothing about a spread.
UNITS_MIN = 2
_SLICES_MAX = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Sureness:
    """How intervals are made."""

    level: float = 0.95
    resamples: int = 2000
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counted:
    """What the rows of one subject contribute to one measure: `sums` (rows, k), NaN where a row contributes nothing."""

    sums: Array
    units: NDArray[np.int64]

    def there(self) -> NDArray[np.bool_]:
        return np.asarray(~np.isnan(self.sums[:, 0]))

    def taken(self, picked: NDArray[np.bool_]) -> _Counted:
        # Units are numbered again, so that none is empty.
        _, units = np.unique(self.units[picked], return_inverse=True)
        return _Counted(sums=self.sums[picked], units=units.astype(np.int64))

    @property
    def many(self) -> int:
        return int(np.unique(self.units).size)


def compared(
    asked: Asked, rows: Sequence[Row], replies: Mapping[Subject, Sequence[Reply]], sure: Sureness
) -> list[Measured]:
    """Every measure of a suite, of each subject that was asked; the candidate's with differences and cuts."""
    names = {name: at for at, name in enumerate(dict.fromkeys(row.unit or row.id for row in rows))}
    units = np.array([names[row.unit or row.id] for row in rows], dtype=np.int64)
    found = []
    for measure in measures(asked, rows):
        counted = {
            subject: _Counted(sums=_sums(measure, rows, mine), units=units)
            for subject, mine in replies.items()
            if subject == "candidate" or not measure.of_candidate
        }
        for subject, mine in counted.items():
            others = {other: one for other, one in counted.items() if other != subject}
            made = _measured(asked, measure, subject, mine, others if subject == "candidate" else {}, rows, sure)
            if made is not None:
                found.append(made)
    return found


def _sums(measure: Measure, rows: Sequence[Row], replies: Sequence[Reply]) -> Array:
    each = [measure.of(row, reply) for row, reply in zip(rows, replies, strict=True)]
    width = next((len(one) for one in each if one is not None), 1)
    none = (float("nan"),) * width
    return np.array([none if one is None else one for one in each], dtype=np.float64).reshape(len(rows), width)


def _measured(
    asked: Asked,
    measure: Measure,
    subject: Subject,
    counted: _Counted,
    others: Mapping[Subject, _Counted],
    rows: Sequence[Row],
    sure: Sureness,
) -> Measured | None:
    there = counted.there()
    mine = counted.taken(there)
    if mine.many < UNITS_MIN:
        return None
    name = f"{asked.name}.{measure.name}"
    # A seed of each measure's own, so that one more of them changes none of the others.
    sure = Sureness(level=sure.level, resamples=sure.resamples, seed=sure.seed + zlib.crc32(name.encode()))
    low, high = _bounds(measure, mine, sure)
    versus = []
    for other, theirs in others.items():
        both = there & theirs.there()
        ours, against = counted.taken(both), theirs.taken(both)
        if ours.many >= UNITS_MIN:
            versus.append(_difference(measure, ours, other, against, sure))
    return Measured(
        name=name,
        subject=subject,
        n=len(mine.sums),
        value=_value(measure, mine.sums),
        low=low,
        high=high,
        role=asked.role,
        better=measure.better,
        versus=tuple(versus),
        cuts=_cuts(asked, measure, counted, rows, sure) if subject == "candidate" else (),
        unit=measure.unit,
    )


def _value(measure: Measure, sums: Array) -> float:
    if measure.value is not None:
        return float(measure.value(sums.sum(axis=0)))
    return float(sums[:, 0].mean() if measure.kind == "share" else sums[:, 0].sum() / sums[:, 1].sum())


def _bounds(measure: Measure, mine: _Counted, sure: Sureness) -> Bounds:
    if measure.value is not None:
        return intervals.bootstrap(
            mine.sums, mine.units, measure.value, sure.level, resamples=sure.resamples, seed=sure.seed
        )
    if measure.kind == "share":
        return intervals.share(mine.sums[:, 0], mine.units, sure.level)
    return intervals.ratio(mine.sums[:, 0], mine.sums[:, 1], mine.units, sure.level)


def _difference(measure: Measure, ours: _Counted, other: Subject, theirs: _Counted, sure: Sureness) -> Difference:
    value = _value(measure, ours.sums) - _value(measure, theirs.sums)
    if measure.value is not None:
        low, high = intervals.bootstrap_difference(
            ours.sums, theirs.sums, ours.units, measure.value, sure.level, resamples=sure.resamples, seed=sure.seed
        )
    elif measure.kind == "share":
        low, high = intervals.share_difference(ours.sums[:, 0], theirs.sums[:, 0], ours.units, sure.level)
    else:
        low, high = intervals.ratio_difference(
            (ours.sums[:, 0], ours.sums[:, 1]), (theirs.sums[:, 0], theirs.sums[:, 1]), ours.units, sure.level
        )
    return Difference(versus=other, n=len(ours.sums), value=value, low=low, high=high)


def _cuts(asked: Asked, measure: Measure, counted: _Counted, rows: Sequence[Row], sure: Sureness) -> tuple[Cut, ...]:
    """By each declared column: every value with enough rows, the largest first."""
    found = []
    for column in asked.by:
        names = np.array([row.columns.get(column, "") for row in rows], dtype=object)
        slices = []
        for name in sorted(set(names)):
            mine = counted.taken(counted.there() & (names == name))
            if mine.many >= UNITS_MIN:
                low, high = _bounds(measure, mine, sure)
                n, value = len(mine.sums), _value(measure, mine.sums)
                slices.append(Slice(name=str(name), n=n, value=value, low=low, high=high))
        kept = sorted(slices, key=lambda each: (-each.n, each.name))[:_SLICES_MAX]
        if kept:
            best, worst = (pick(kept, key=lambda each: each.value) for pick in (max, min))
            if measure.better == "lower":
                best, worst = worst, best
            found.append(Cut(by=column, slices=tuple(kept), worst=worst.name, gap=abs(best.value - worst.value)))
    return tuple(found)
