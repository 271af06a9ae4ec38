"""What an experiment's metrics add up, a number for each unit. Pure.

What came of a request counts by the moment of its exposure, feedback by its own moment: with a window, what came later
than that after the unit's first exposure is as if it had not come, a changed mind included. A request is what the
client's SDK first sent: what it sent again is no request more, so shares of requests lie within [0, 1]. Whatever is
said counts once for each (target, rater, kind, name), the last.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from monitoring.records.codes import KINDS, RATER_KINDS, Flag, Rows, code
from monitoring.records.joins import Joined, Mask, Whole, chosen
from monitoring.statistics.cohorts import within
from monitoring.statistics.values import Array


class Asked(Protocol):
    """One column: what is summed (`COLUMNS`), of which name or above which threshold, within how many seconds of the
    unit's first exposure; 0 is no window."""

    @property
    def what(self) -> str: ...
    @property
    def parameter(self) -> str: ...
    @property
    def window_s(self) -> float: ...
    @property
    def key(self) -> str: ...


def sums(table: Joined, asked: Iterable[Asked], *, raters: Collection[str] = ("user",)) -> dict[str, Array]:
    """Each column, by its key. Thumbs, implicit feedback, corrections and comments are those of `raters`; scalars are
    anybody's. Raises ValueError for a column that there is not."""
    by_window: dict[float, _Window] = {}
    found: dict[str, Array] = {}
    for column in asked:
        if column.what not in COLUMNS:
            raise ValueError(f"No column {column.what!r}; there are {', '.join(sorted(COLUMNS))}.")
        if column.window_s not in by_window:
            by_window[column.window_s] = _window(table, column.window_s, raters)
        found[column.key] = COLUMNS[column.what](by_window[column.window_s], column.parameter)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    """What counts within one window: `unit` holds the unit of each outcome, `unit_said` of each word."""

    units: int
    unit: Whole
    outcomes: Rows
    came: Mask  # which outcomes lie within the window
    first: Mask  # first tries
    unit_said: Whole
    said: Rows
    by_raters: Mask

    def requests(self, chosen: Mask | None = None, weights: Array | None = None) -> Array:
        """Over first tries."""
        return self.tries(self.first if chosen is None else self.first & chosen, weights)

    def tries(self, chosen: Mask, weights: Array | None = None) -> Array:
        chosen = chosen & self.came
        return self._sum(self.unit[chosen], None if weights is None else weights[chosen])

    def having(self, flag: Flag) -> Mask:
        return np.asarray((self.outcomes["flags"] & int(flag)) != 0)

    def slower(self, column: str, threshold_ms: float) -> Mask:
        """Failed, or later than the threshold; what has no first token (it was not streamed) is judged by its end."""
        took = self.outcomes[column]
        took = np.where(np.isnan(took), self.outcomes["total_ms"], took)
        return np.asarray(self.having(Flag.FAILED) | (took > threshold_ms))

    def targets(self, kind: str, up: bool | None = None, name: str = "") -> Array:
        """How many answers or conversations something was said of; of several raters the last counts."""
        spoken = np.flatnonzero(self._of(kind, name) & self.by_raters & ~self._taken_back(kind))
        order = spoken[np.argsort(self.said["at"][spoken], kind="stable")[::-1]]
        last = order[np.unique(self.said["target"][order], return_index=True)[1]]
        if up is not None:
            last = last[(self.said["value"][last] > 0) == up]
        return self._sum(self.unit_said[last])

    def scalars(self, name: str, above: float | None = None, *, total: bool = False) -> Array:
        value = self.said["value"]
        chosen = self._of("scalar", name) & ~np.isnan(value)
        if above is not None:
            chosen &= value > above
        return self._sum(self.unit_said[chosen], value[chosen] if total else None)

    def _of(self, kind: str, name: str) -> Mask:
        chosen = self.said["kind"] == KINDS.index(kind)
        return np.asarray(chosen & (self.said["name"] == code(name)) if name else chosen)

    def _taken_back(self, kind: str) -> Mask:
        """A thumb without a value; an implicit one that says 0."""
        value = self.said["value"]
        if kind == "thumbs":
            return np.asarray(np.isnan(value))
        return np.asarray((value == 0) & (kind == "implicit"))

    def _sum(self, unit: NDArray[np.int64], weights: Array | None = None) -> Array:
        return np.bincount(unit, weights, minlength=self.units).astype(np.float64)


def _window(table: Joined, window_s: float, raters: Collection[str]) -> _Window:
    unit = table.outcome_unit
    said, unit_said = table.feedback, table.feedback_unit
    came = np.ones(unit.size, np.bool_)
    if window_s:
        came = within(table.outcome_at, table.first_at[unit], window_s=window_s)
        told = within(said["at"], table.first_at[unit_said], window_s=window_s)
        said, unit_said = chosen(said, told), chosen(unit_said, told)
    order = np.argsort(said["at"], kind="stable")[::-1]
    last = order[np.unique(said["seat"][order], return_index=True)[1]]
    return _Window(
        units=table.unit.size,
        unit=unit,
        outcomes=table.outcomes,
        came=came,
        first=_asked(table),
        unit_said=unit_said[last],
        said=said[last],
        by_raters=np.isin(said["rater_kind"][last], [RATER_KINDS.index(each) for each in raters]),
    )


def _asked(table: Joined) -> Mask:
    """The first tries; of a unit whose first try never got here (its connection was refused), what came first."""
    first = np.asarray((table.outcomes["flags"] & Flag.RETRY) == 0)
    known = np.bincount(table.outcome_unit[first], minlength=table.unit.size) > 0
    others = np.flatnonzero(~known[table.outcome_unit])
    if others.size:
        others = others[np.argsort(table.outcome_at[others], kind="stable")]
        first[others[np.unique(table.outcome_unit[others], return_index=True)[1]]] = True
    return first


def _scalar_over(window: _Window, parameter: str) -> Array:
    name, _, threshold = parameter.rpartition(">")
    return window.scalars(name, float(threshold))


#: What can be summed. The parameter is a threshold in ms, a scalar's name, or `NAME>THRESHOLD`.
COLUMNS: Mapping[str, Callable[[_Window, str], Array]] = {
    "requests": lambda window, _: window.requests(),
    "retries": lambda window, _: window.tries(~window.first),
    "errors": lambda window, _: window.requests(window.having(Flag.FAILED)),
    "left": lambda window, _: window.requests(window.having(Flag.LEFT)),
    "answered": lambda window, _: window.tries(window.having(Flag.ANSWERED)),
    "flagged": lambda window, _: window.requests(window.having(Flag.FILTERED)),
    "first_token_over": lambda window, ms: window.requests(window.slower("first_token_ms", float(ms))),
    "total_over": lambda window, ms: window.requests(window.slower("total_ms", float(ms))),
    "prompt_tokens": lambda window, _: window.tries(window.having(Flag.ANSWERED), window.outcomes["prompt_tokens"]),
    "output_tokens": lambda window, _: window.tries(window.having(Flag.ANSWERED), window.outcomes["completion_tokens"]),
    "cost": lambda window, _: window.tries(
        np.ones(window.unit.size, np.bool_), window.outcomes["prompt_tokens"] + window.outcomes["completion_tokens"]
    ),
    "rated": lambda window, _: window.targets("thumbs"),
    "thumbs_up": lambda window, _: window.targets("thumbs", True),
    "thumbs_down": lambda window, _: window.targets("thumbs", False),
    "corrections": lambda window, _: window.targets("correction"),
    "comments": lambda window, _: window.targets("comment"),
    "copied": lambda window, _: window.targets("implicit", name="copied"),
    "regenerated": lambda window, _: window.targets("implicit", name="regenerated"),
    "abandoned": lambda window, _: window.targets("implicit", name="abandoned"),
    "scalar_sum": lambda window, name: window.scalars(name, total=True),
    "scalar_count": lambda window, name: window.scalars(name),
    "scalar_over": _scalar_over,
}
