"""Where a metric's numbers come from: the columns that an analysis asks the records for, and the metrics built in.

The records give, per unit, sums over what happened within `window_s` of the unit's first exposure. A column's `key`
names it: `errors@3600`, `first_token_over:800@600`. Only `requests@0` has no window: everything so far counts.

Every request of a unit counts from its first exposure on, whatever it was answered with and by which arm: a failed
request is an error, and late (intention to treat). Feedback counts once per (target, rater, kind, name), the last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapters.experiments.values import Better, Experiment, Kind, Metric
from monitoring.statistics.errors import BadSample
from monitoring.statistics.values import Array

#: What a column sums, per unit. A PARAMETER follows the name after a colon.
REQUESTS = "requests"  # requests that reached the gateway with this unit
ERRORS = "errors"  # of these: status 5xx, broken off after the first byte, or 4xx by the engine
FIRST_TOKEN_OVER = "first_token_over"  # :MS  first token (of an unstreamed answer: the end) later than MS, or never
TOTAL_OVER = "total_over"  # :MS  total time above MS, or failed
OUTPUT_TOKENS = "output_tokens"  # completion tokens
FLAGGED = "flagged"  # requests whose answer a safety check flagged
REGENERATED = "regenerated"  # requests with implicit feedback `regenerated`
COST = "cost"  # what the requests were charged
RATED = "rated"  # requests with a thumb
THUMBS_UP = "thumbs_up"  # of these: up
SCALAR_SUM = "scalar_sum"  # :NAME  sum of scalar feedback of this name
SCALAR_COUNT = "scalar_count"  # :NAME  how many there are
SCALAR_OVER = "scalar_over"  # :NAME>THRESHOLD  how many are above

#: Scalar feedback as a metric's source: `feedback:NAME`.
FEEDBACK = "feedback:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of sums: what, with which parameter, within how long after the first exposure."""

    what: str
    parameter: str = ""
    window_s: float = 0.0

    @property
    def key(self) -> str:
        return self.what + (f":{self.parameter}" if self.parameter else "") + f"@{self.window_s:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A metric built in: which column, over which other one; `better` may be declared otherwise where it is `free`."""

    value: str
    per: str
    kind: Kind
    better: Better
    rare: bool = False
    free: bool = False
    said: bool = False  # by people, and so later than the answer
    says: str = ""


_UP, _DOWN = Better.HIGHER, Better.LOWER
SOURCES: Mapping[str, Source] = {
    "thumbs_rate": Source(
        value=THUMBS_UP, per=RATED, kind=Kind.RATIO, better=_UP, said=True, says="thumbs that are up, of those given"
    ),
    "thumbs_up_rate": Source(
        value=THUMBS_UP, per=REQUESTS, kind=Kind.PROPORTION, better=_UP, said=True,
        says="a unit's requests with a thumb up",
    ),
    "response_rate": Source(
        value=RATED, per=REQUESTS, kind=Kind.PROPORTION, better=_UP, free=True, said=True,
        says="a unit's requests with a thumb",
    ),
    "error_rate": Source(
        value=ERRORS, per=REQUESTS, kind=Kind.PROPORTION, better=_DOWN, rare=True, says="a unit's requests that failed"
    ),
    "first_token_over": Source(
        value=FIRST_TOKEN_OVER, per=REQUESTS, kind=Kind.SHARE_ABOVE, better=_DOWN, rare=True,
        says="a unit's requests whose first token came later than `threshold` ms",
    ),
    "total_over": Source(
        value=TOTAL_OVER, per=REQUESTS, kind=Kind.SHARE_ABOVE, better=_DOWN, rare=True,
        says="a unit's requests that took longer than `threshold` ms",
    ),
    "output_length": Source(
        value=OUTPUT_TOKENS, per=REQUESTS, kind=Kind.RATIO, better=_DOWN, free=True, says="tokens in an answer"
    ),
    "flag_rate": Source(
        value=FLAGGED, per=REQUESTS, kind=Kind.PROPORTION, better=_DOWN, rare=True, says="a unit's answers flagged"
    ),
    "regenerate_rate": Source(
        value=REGENERATED, per=REQUESTS, kind=Kind.PROPORTION, better=_DOWN, rare=True, said=True,
        says="a unit's answers asked for again",
    ),
    "cost": Source(value=COST, per="", kind=Kind.MEAN, better=_DOWN, says="what a unit cost within the window"),
}  # fmt: skip


def columns(metric: Metric) -> tuple[Column, Column | None]:
    """The column of sums, and the one it is divided by."""
    window = metric.window_s
    if metric.source.startswith(FEEDBACK):
        name = metric.source.removeprefix(FEEDBACK)
        count = Column(what=SCALAR_COUNT, parameter=name, window_s=window)
        if metric.kind is Kind.SHARE_ABOVE:
            return Column(what=SCALAR_OVER, parameter=f"{name}>{metric.threshold:g}", window_s=window), count
        total = Column(what=SCALAR_SUM, parameter=name, window_s=window)
        return total, None if metric.kind is Kind.MEAN else count
    source = SOURCES[metric.source]
    parameter = f"{metric.threshold:g}" if source.kind is Kind.SHARE_ABOVE else ""
    value = Column(what=source.value, parameter=parameter, window_s=window)
    return value, Column(what=source.per, window_s=window) if source.per else None


def wanted(experiment: Experiment) -> tuple[Column, ...]:
    """Every column that an analysis of the experiment needs, each once: what the records are asked for."""
    pairs = (columns(metric) for metric in experiment.metrics)
    found: Iterable[Column | None] = (Column(what=REQUESTS), *(column for pair in pairs for column in pair))
    return tuple(dict.fromkeys(column for column in found if column is not None))


def slices(experiment: Experiment) -> tuple[str, ...]:
    """The metadata keys by which units are told apart: a unit's value is the one of its first exposure."""
    return tuple(dict.fromkeys(tag for metric in experiment.metrics for tag in metric.slices))


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitTable:
    """One row a unit, (n,) each; the order of rows does not matter.

    `arm` is the index into `experiment.arms` at the first exposure, `first_at` its time, `propensity` what was stored
    with it, `mixed` whether later exposures were in another arm. `sums` are by Column.key, `slices` by tag, as codes
    into `labels` (-1: none). `covariate` was known before the exposure (NaN: unknown). `unitless` counts requests of
    the experiment's alias that had no unit and were not assigned, beside `requests` that had.
    """

    arm: NDArray[np.integer]
    first_at: Array
    sums: Mapping[str, Array]
    mixed: NDArray[np.bool_] | None = None
    propensity: Array | None = None
    covariate: Array | None = None
    slices: Mapping[str, NDArray[np.integer]] | None = None
    labels: Mapping[str, tuple[str, ...]] | None = None
    unitless: int = 0
    requests: int = 0

    @property
    def size(self) -> int:
        return int(self.arm.size)


def checked(table: UnitTable, experiment: Experiment) -> UnitTable:
    """The table, if an analysis can be made of it. Raises BadSample: the data path is broken."""
    for column in wanted(experiment):
        if column.key not in table.sums:
            raise BadSample(f"The records gave no column {column.key}.")
    for tag in slices(experiment):
        if tag not in (table.slices or {}):
            raise BadSample(f"The records gave no slices by {tag}.")
    for name, values in (("first_at", table.first_at), *table.sums.items()):
        if values.shape != table.arm.shape:
            raise BadSample(f"Column {name} has {values.size} rows for {table.size} units.")
        if not np.isfinite(values).all():
            raise BadSample(f"Column {name} holds numbers that are not finite.")
    if table.size and not (int(table.arm.min()) >= 0 and int(table.arm.max()) < len(experiment.arms)):
        raise BadSample("A unit is in an arm that the experiment does not have.")
    if experiment.adaptive and (table.propensity is None or not (table.propensity > 0).all()):
        raise BadSample("An adaptive experiment needs each unit's propensity, above 0.")
    return table
