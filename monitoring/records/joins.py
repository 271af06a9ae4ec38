"""Who is in which arm of an experiment, and whose each answer and each word of feedback is. Pure, on numpy columns.

Intention to treat: a unit belongs to the arm of its first exposure, whatever answered later. `sums` counts on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitoring.records.codes import LAYOUT, UNIT_KINDS, Page, Rows, code
from monitoring.statistics.values import Array

Whole = NDArray[np.int64]
Mask = NDArray[np.bool_]

_FEW = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """An experiment's rows as a store reads them; see `codes` for the columns."""

    exposures: Rows
    outcomes: Rows
    feedback: Rows
    tags: Mapping[int, Mapping[str, str]] = field(default_factory=dict)  # by their code


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """Who is in which arm, and which unit each outcome and each word of feedback belongs to."""

    arms: tuple[str, ...]
    unit: Whole  # one a unit, in the order of their codes
    arm: Whole
    first_at: Array
    bucket: Whole
    propensity: Array
    tags: Whole
    exposed: Whole  # how often
    both: Mask  # was seen in another arm later
    outcomes: Rows  # of these units only
    outcome_unit: Whole
    outcome_at: Array
    feedback: Rows
    feedback_unit: Whole
    unnamed: int  # exposures of another kind of unit than the experiment's: served, not analysed
    strange: int  # exposures to an arm that the experiment does not have
    unmatched: int  # outcomes without an exposure
    silent: int  # exposures without an outcome, so far

    @property
    def contamination(self) -> float:
        """The share of units that were seen in more than one arm; they are kept in their first."""
        return float(self.both.mean()) if self.both.size else 0.0


def joined(trial: Trial, *, arms: Sequence[str], unit_kind: str) -> Joined:
    """Join once; `sums.sums` then counts for each window. `arms` are the experiment's, the control first."""
    seen = trial.exposures
    asked = seen["unit_kind"] == UNIT_KINDS.index(unit_kind)
    arm, known = _looked_up(np.array([code(name) for name in arms], np.int64), seen["arm"])
    rows, arm = chosen(seen, asked & known), chosen(arm, asked & known)
    moments = rows["at"]
    if moments.size and (moments[1:] < moments[:-1]).any():  # chunks of two gateways overlap
        order = np.argsort(moments, kind="stable")
        rows, arm = rows[order], arm[order]
    unit, first, owner, exposed = np.unique(rows["unit"], return_index=True, return_inverse=True, return_counts=True)
    strayed = arm != arm[first][owner]
    first_at = rows["at"][first]
    of_outcome, matched = _looked_up(rows["request"], trial.outcomes["request"])
    outcomes, of_outcome = chosen(trial.outcomes, matched), chosen(of_outcome, matched)
    outcome_unit = owner[of_outcome]
    feedback_unit, told = _targets(trial.feedback["target"], unit, rows["completion"], owner, outcomes, outcome_unit)
    answered = np.zeros(rows.size, np.bool_)
    answered[of_outcome] = True
    return Joined(
        arms=tuple(arms),
        unit=unit,
        arm=arm[first],
        first_at=first_at,
        bucket=rows["bucket"][first].astype(np.int64),
        propensity=rows["propensity"][first],
        tags=rows["tags"][first],
        exposed=exposed,
        both=np.bincount(owner[strayed], minlength=unit.size) > 0,
        outcomes=outcomes,
        outcome_unit=outcome_unit,
        outcome_at=rows["at"][of_outcome],
        feedback=trial.feedback[told],
        feedback_unit=feedback_unit[told],
        unnamed=int((~asked).sum()),
        strange=int((asked & ~known).sum()),
        unmatched=_unmatched(seen, trial.outcomes[~matched]),
        silent=int(rows.size - answered.sum()),
    )


def sliced(table: Joined, trial: Trial, tag: str) -> tuple[Whole, tuple[str, ...]]:
    """Each unit's value of a tag at its first exposure, as an index into the values; -1 where it has none."""
    known = {number: pairs[tag] for number, pairs in trial.tags.items() if tag in pairs}
    values = tuple(sorted(set(known.values())))
    at, hit = _looked_up(np.array([*known], np.int64), table.tags)
    place = np.array([values.index(value) for value in known.values()] or [0], np.int64)
    return np.where(hit, place[at], -1), values


def chosen(rows: NDArray[Any], which: Mask) -> NDArray[Any]:
    """These rows; without copying when it is all of them, as it nearly always is."""
    return rows if which.all() else rows[which]


def empty() -> Trial:
    """A trial that nothing has happened in."""
    none = {page: np.zeros(0, LAYOUT[page]) for page in Page}
    return Trial(exposures=none[Page.EXPOSURES], outcomes=none[Page.OUTCOMES], feedback=none[Page.FEEDBACK])


def _targets(
    targets: Whole, unit: Whole, completions: Whole, owner: Whole, outcomes: Rows, outcome_unit: Whole
) -> tuple[Whole, Mask]:
    """The unit of each target: of the answer as it was recorded, else as it was foreseen; or of the conversation, which
    may itself be the unit."""
    found = np.zeros(targets.size, np.int64)
    known = np.zeros(targets.size, np.bool_)
    ways = (
        (outcomes["completion"], outcome_unit),
        (completions, owner),
        (unit, np.arange(unit.size)),
        (outcomes["conversation"], outcome_unit),
    )
    for keys, units in ways:
        open_ = np.flatnonzero(~known)
        if not open_.size or not keys.size:
            continue
        at, hit = _looked_up(keys, targets[open_])
        found[open_[hit]] = units[at[hit]]
        known[open_[hit]] = True
    return found, known


def _unmatched(seen: Rows, outcomes: Rows) -> int:
    """Outcomes without any exposure, also one that is not analysed."""
    return int((~_looked_up(seen["request"], outcomes["request"])[1]).sum())


def _looked_up(keys: Whole, wanted: Whole) -> tuple[Whole, Mask]:
    """For each wanted key where it stands among `keys` (the first such place), and whether it does. 0 is no key."""
    if not keys.size or not wanted.size:
        return np.zeros(wanted.size, np.int64), np.zeros(wanted.size, np.bool_)
    if keys.size == wanted.size and np.array_equal(keys, wanted):
        return np.arange(keys.size), np.asarray(wanted != 0)
    keys, wanted = np.ascontiguousarray(keys), np.ascontiguousarray(wanted)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    if keys.size < _FEW:
        place = np.searchsorted(ordered, wanted)
    else:  # in order the search walks through memory instead of jumping: three times as fast, the sort included
        asking = np.argsort(wanted)
        place = np.empty(wanted.size, np.int64)
        place[asking] = np.searchsorted(ordered, wanted[asking])
    np.minimum(place, keys.size - 1, out=place)
    return order[place], np.asarray((ordered[place] == wanted) & (wanted != 0))
