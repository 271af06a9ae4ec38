"""One row for each unit of an experiment: which arm, since when, and what came of it. Pure, on numpy columns.

Intention to treat: a unit belongs to the arm of its first exposure, whatever answered later. What came of a request
counts by the moment of its exposure, feedback by its own; with a window, what came later is as if it had not come, and
units whose window is still open are left out, for a later word would make the early ones worth more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from monitoring.records.codes import KINDS, LAYOUT, RATER_KINDS, UNIT_KINDS, Flag, Page, Rows, code
from monitoring.statistics.cohorts import matured, within
from monitoring.statistics.values import Array

Whole = NDArray[np.int64]
Mask = NDArray[np.bool_]

_LONGEST_S = 1e300


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """An experiment's rows as a store reads them; see `codes` for the columns."""

    exposures: Rows
    outcomes: Rows
    feedback: Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """Who is in which arm, and which unit each outcome and each word of feedback belongs to."""

    arms: tuple[str, ...]
    unit: Whole  # one a unit, in the order of their codes
    arm: Whole
    first_at: Array
    bucket: Whole
    propensity: Array
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


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitTable:
    """A column each, one row a unit. Counts and sums are of what came within the window.

    `requests`, `errors` and `left` count first tries: what the client's SDK sent again is `retries`. `answered`, the
    tokens and what took too long count answers, of which a request has one however often it was tried.
    """

    arms: tuple[str, ...]
    arm: Whole  # index into `arms`
    first_at: Array
    bucket: Whole
    propensity: Array
    exposed: Array
    requests: Array
    retries: Array
    errors: Array
    left: Array
    filtered: Array
    answered: Array
    timed: Array  # answers whose first token was timed
    first_token_over: Array
    total_over: Array
    prompt_tokens: Array
    completion_tokens: Array
    thumbs_up: Array
    thumbs_down: Array
    corrections: Array
    comments: Array
    implicit: Mapping[str, Array]  # how often, by name
    scalars: Mapping[str, tuple[Array, Array]]  # sum and count, by name
    both: Mask  # seen in both arms, kept in the first
    units: int  # all that were exposed; these rows are those whose window has closed
    unnamed: int
    strange: int
    unmatched: int
    silent: int

    @property
    def contamination(self) -> float:
        """The share of these units that were seen in more than one arm."""
        return float(self.both.mean()) if self.both.size else 0.0


def joined(trial: Trial, *, arms: Sequence[str], unit_kind: str) -> Joined:
    """Join once; `tallied` then counts for each window. `arms` are the experiment's, the control first."""
    seen = trial.exposures
    asked = seen["unit_kind"] == UNIT_KINDS.index(unit_kind)
    arm, known = _looked_up(np.array([code(name) for name in arms], np.int64), seen["arm"])
    rows, arm = seen[asked & known], arm[asked & known]
    moments = rows["at"]
    if moments.size and (moments[1:] < moments[:-1]).any():  # chunks of two gateways overlap
        order = np.argsort(moments, kind="stable")
        rows, arm = rows[order], arm[order]
    unit, first, owner, exposed = np.unique(rows["unit"], return_index=True, return_inverse=True, return_counts=True)
    strayed = arm != arm[first][owner]
    first_at = rows["at"][first]
    of_outcome, matched = _looked_up(rows["request"], trial.outcomes["request"])
    outcomes, of_outcome = trial.outcomes[matched], of_outcome[matched]
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


def tallied(
    table: Joined,
    *,
    window_s: float = 0.0,
    now: float | None = None,
    first_token_ms: float = np.inf,
    total_ms: float = np.inf,
    implicit: Sequence[str] = ("copied", "regenerated", "abandoned"),
    scalars: Sequence[str] = (),
    raters: Collection[str] = ("user",),
) -> UnitTable:
    """Count. `window_s` 0 is no window. With `now` only units whose window has closed by then are kept. Feedback counts
    when its rater is one of `raters`; of one rater's words about the same thing the last within the window counts."""
    longest = window_s or _LONGEST_S
    keep = np.ones(table.unit.size, np.bool_)
    if now is not None:
        keep = matured(table.first_at, now_s=now, window_s=window_s)
    requests = _requests(table, keep, longest, first_token_ms, total_ms)
    said = _said(table, keep, longest, raters)
    return UnitTable(
        arms=table.arms,
        arm=table.arm[keep],
        first_at=table.first_at[keep],
        bucket=table.bucket[keep],
        propensity=table.propensity[keep],
        exposed=table.exposed[keep].astype(np.float64),
        both=table.both[keep],
        **requests,
        thumbs_up=said.count("thumbs", said.value > 0),
        thumbs_down=said.count("thumbs", said.value <= 0),
        corrections=said.count("correction"),
        comments=said.count("comment"),
        implicit={name: said.count("implicit", said.named(name) & (said.value != 0)) for name in implicit},
        scalars={name: said.scalar(name) for name in scalars},
        units=table.unit.size,
        unnamed=table.unnamed,
        strange=table.strange,
        unmatched=table.unmatched,
        silent=table.silent,
    )


def empty() -> Trial:
    """A trial that nothing has happened in."""
    none = {page: np.zeros(0, LAYOUT[page]) for page in Page}
    return Trial(exposures=none[Page.EXPOSURES], outcomes=none[Page.OUTCOMES], feedback=none[Page.FEEDBACK])


@dataclass(frozen=True, slots=True)
class _Said:
    """The words that count, each with its unit."""

    keep: Mask
    unit: Whole
    kind: NDArray[np.uint8]
    name: Whole
    value: Array

    def named(self, name: str) -> Mask:
        return np.asarray(self.name == code(name))

    def count(self, kind: str, also: Mask | None = None) -> Array:
        chosen = self.kind == KINDS.index(kind)
        return _sums(self.unit[chosen if also is None else chosen & also], None, self.keep)

    def scalar(self, name: str) -> tuple[Array, Array]:
        chosen = (self.kind == KINDS.index("scalar")) & self.named(name) & ~np.isnan(self.value)
        return _sums(self.unit[chosen], self.value[chosen], self.keep), _sums(self.unit[chosen], None, self.keep)


def _said(table: Joined, keep: Mask, longest_s: float, raters: Collection[str]) -> _Said:
    words, unit = table.feedback, table.feedback_unit
    chosen = np.isin(words["rater_kind"], [RATER_KINDS.index(each) for each in raters])
    chosen &= within(words["at"], table.first_at[unit], window_s=longest_s)
    words, unit = words[chosen], unit[chosen]
    order = np.argsort(words["at"], kind="stable")[::-1]
    last = order[np.unique(words["seat"][order], return_index=True)[1]]
    return _Said(keep, unit[last], words["kind"][last], words["name"][last], words["value"][last])


def _requests(table: Joined, keep: Mask, longest_s: float, first_token_ms: float, total_ms: float) -> dict[str, Array]:
    rows, unit = table.outcomes, table.outcome_unit
    if longest_s < _LONGEST_S:
        chosen = within(table.outcome_at, table.first_at[unit], window_s=longest_s)
        rows, unit = rows[chosen], unit[chosen]
    flags = rows["flags"]
    first = (flags & Flag.RETRY) == 0
    answered = (flags & Flag.ANSWERED) != 0

    def count(chosen: Mask) -> Array:
        return _sums(unit[chosen], None, keep)

    return {
        "requests": count(first),
        "retries": count(~first),
        "errors": count(first & ((flags & Flag.FAILED) != 0)),
        "left": count(first & ((flags & Flag.LEFT) != 0)),
        "filtered": count((flags & Flag.FILTERED) != 0),
        "answered": count(answered),
        "timed": count(answered & ~np.isnan(rows["first_token_ms"])),
        "first_token_over": count(answered & (rows["first_token_ms"] > first_token_ms)),
        "total_over": count(answered & (rows["total_ms"] > total_ms)),
        "prompt_tokens": _sums(unit[answered], rows["prompt_tokens"][answered], keep),
        "completion_tokens": _sums(unit[answered], rows["completion_tokens"][answered], keep),
    }


def _sums(unit: Whole, weights: Array | None, keep: Mask) -> Array:
    return np.bincount(unit, weights, minlength=keep.size)[keep].astype(np.float64)


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
    keys = np.ascontiguousarray(keys)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    place = np.minimum(np.searchsorted(ordered, wanted), keys.size - 1)
    return order[place], np.asarray((ordered[place] == wanted) & (wanted != 0))


COLUMNS = tuple(each.name for each in fields(UnitTable) if each.type == "Array")
