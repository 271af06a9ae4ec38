"""What goes into an analysis and what comes out. One row is one unit: the thing that was assigned to an arm."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monitoring.statistics.errors import BadSample

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One arm's units. `values` (n,) holds each unit's sum; for a ratio of sums `weights` (n,) holds what it is divided
    by; `covariate` (n,) was known before the exposure, or does not depend on the arm."""

    values: Array
    weights: Array | None = None
    covariate: Array | None = None

    @property
    def size(self) -> int:
        return int(self.values.size)


def sample(values: ArrayLike, *, weights: ArrayLike | None = None, covariate: ArrayLike | None = None) -> Sample:
    """A checked sample. Raises BadSample for numbers that are not finite, columns of unequal length, and weights that
    are negative or all zero."""
    columns = {"values": values, "weights": weights, "covariate": covariate}
    read = {name: _column(name, column) for name, column in columns.items() if column is not None}
    if len({column.size for column in read.values()}) > 1:
        sizes = ", ".join(f"{name} {column.size}" for name, column in read.items())
        raise BadSample(f"The columns of one sample differ in length: {sizes}.")
    divided_by = read.get("weights")
    if divided_by is not None and divided_by.size and (divided_by.min() < 0 or divided_by.sum() == 0):
        raise BadSample("The weights of a ratio must not be negative, and not all of them zero.")
    return Sample(values=read["values"], weights=divided_by, covariate=read.get("covariate"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with bounds. The bounds are infinite where there is too little to say anything."""

    estimate: float
    lower: float
    upper: float
    units: int

    def shifted(self, by: float) -> Interval:
        """The same interval for the quantity plus `by`."""
        return Interval(estimate=self.estimate + by, lower=self.lower + by, upper=self.upper + by, units=self.units)


def unknown(estimate: float, units: int) -> Interval:
    """Nothing can be said yet."""
    return Interval(estimate=estimate, lower=-math.inf, upper=math.inf, units=units)


def _column(name: str, values: ArrayLike) -> Array:
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1:
        raise BadSample(f"{name} must be one column, one number a unit; found {column.ndim} dimensions.")
    if not np.isfinite(column).all():
        bad = int((~np.isfinite(column)).sum())
        raise BadSample(f"{name} holds {bad} numbers that are not finite, of {column.size}.")
    return column
