"""Guardrails by slice: the slice that fares worst, and how far apart the slices' effects are. Pure.

Only the first SLICES_MAX values of all tags are judged, in the order in which units brought them: chosen so, a slice's
place does not depend on its outcome, and alpha is split over a number that is fixed when the experiment opens. A slice
with too few units in an arm says nothing, and holds nothing up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from adapters.experiments.values import Metric, Part
from monitoring.statistics.values import Interval, unknown

SLICES_MAX = 10


def masks(
    metric: Metric,
    codes: Mapping[str, NDArray[np.integer]],
    labels: Mapping[str, tuple[str, ...]],
) -> dict[str, NDArray[np.bool_]]:
    """The rows of each slice, by `tag=value`; rows are in order of the first exposure."""
    found: list[tuple[int, str, NDArray[np.bool_]]] = []
    for tag in metric.slices:
        values, first = np.unique(codes[tag], return_index=True)
        for code, at in zip(values.tolist(), first.tolist(), strict=True):
            if code >= 0:
                found.append((at, f"{tag}={labels[tag][code]}", codes[tag] == code))
    found.sort(key=lambda each: each[:2])
    return {name: mask for _, name, mask in found[:SLICES_MAX]}


def tested(metric: Metric) -> int:
    """Over how many bounds a guardrail's alpha is split: a gap uses both sides of each slice."""
    return {Part.ALL: 1, Part.WORST: SLICES_MAX, Part.GAP: 2 * SLICES_MAX}[metric.part]


def together(part: Part, intervals: Mapping[str, Interval]) -> Interval:
    """One interval for all slices, in the direction in which more is better; unknown ones are left out.

    WORST: the smallest effect. GAP: minus the distance from the smallest effect to the largest. Guarantee: if every
    slice's bounds hold, these do.
    """
    said = [each for each in intervals.values() if math.isfinite(each.lower) or math.isfinite(each.upper)]
    units = sum(each.units for each in said)
    if not said or (part is Part.GAP and len(said) < 2):
        return unknown(0.0, units)
    if part is Part.WORST:
        return Interval(
            estimate=min(each.estimate for each in said),
            lower=min(each.lower for each in said),
            upper=min(each.upper for each in said),
            units=units,
        )
    estimates = [each.estimate for each in said]
    return Interval(
        estimate=min(estimates) - max(estimates),
        lower=min(each.lower for each in said) - max(each.upper for each in said),
        upper=-max(0.0, max(each.lower for each in said) - min(each.upper for each in said)),
        units=units,
    )
