"""From an experiment's records to the columns of its analysis, and to counts that anybody can check. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np

from adapters.experiments.metrics import Column, UnitTable, slices, wanted
from adapters.experiments.values import Experiment
from monitoring.records.joins import Joined, Trial, joined, sliced
from monitoring.records.sums import sums

#: What `counted` gives of each arm, beside its units and exposures.
_COUNTS = ("requests", "retries", "errors", "left", "answered", "rated", "thumbs_up", "thumbs_down")


def table(experiment: Experiment, trial: Trial) -> UnitTable:
    """One row a unit, with every column that the experiment's metrics need."""
    found = _joined(experiment, trial)
    tags = {tag: sliced(found, trial, tag) for tag in slices(experiment)}
    return UnitTable(
        arm=found.arm,
        first_at=found.first_at,
        mixed=found.both,
        propensity=found.propensity,
        sums=sums(found, wanted(experiment)),
        slices={tag: codes for tag, (codes, _) in tags.items()},
        labels={tag: labels for tag, (_, labels) in tags.items()},
        unitless=found.unnamed,
        requests=int(found.exposed.sum()),
    )


def counted(experiment: Experiment, trial: Trial) -> dict[str, Any]:
    """How much of what was recorded, by the arm of each unit's first exposure. Feedback counts once for each answer."""
    found = _joined(experiment, trial)
    columns = [Column(what=what) for what in _COUNTS]
    totals = {"exposures": found.exposed, **{c.what: values for c, values in _summed(found, columns).items()}}
    arms = {}
    for at, arm in enumerate(experiment.arms):
        chosen = found.arm == at
        arms[arm.name] = {"units": int(chosen.sum()), **{k: int(v[chosen].sum()) for k, v in totals.items()}}
    return {
        "arms": arms,
        "mixed_units": int(found.both.sum()),
        "unnamed": found.unnamed,
        "unanswered": found.silent,
        "unexposed": found.unmatched,
        "unknown_arm": found.strange,
    }


def _joined(experiment: Experiment, trial: Trial) -> Joined:
    return joined(trial, arms=[arm.name for arm in experiment.arms], unit_kind=str(experiment.unit))


def _summed(found: Joined, columns: list[Column]) -> dict[Column, np.ndarray[Any, np.dtype[np.float64]]]:
    values = sums(found, columns)
    return {column: values[column.key] for column in columns}
