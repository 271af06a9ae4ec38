"""Experiments and the units that they saw, made up for these tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from adapters.experiments.analysis import Look
from adapters.experiments.definition import Declared, Definition, made
from adapters.experiments.metrics import UnitTable
from adapters.experiments.values import Adaptive, Arm, Experiment, Step
from monitoring.statistics.mismatch import mismatch

NOW = 1_800_000_000.0
DAY = 86_400.0
PRIMARY = Declared(name="thumbs_up_rate", role="primary")
GUARD = Declared(name="error_rate", role="guardrail", margin=0.02)
HALF = (Step(share=5000, at_least_s=0.0),)


def definition(count: int = 2, /, **changes: Any) -> Definition:
    wish = Definition(
        name="support",
        alias="live",
        arms=tuple(Arm(name=f"arm{n}", number=n + 1) for n in range(count)),
        metrics=(PRIMARY, GUARD),
    )
    return replace(wish, **changes)


def experiment(count: int = 2, /, *, now: float = NOW, salt: str = "salt", **changes: Any) -> Experiment:
    wish = definition(count, **changes)
    number = wish.arms[0].number
    return made(wish, id_="exp-1", salt=salt, who="ann", now=now, verified=lambda _: True, points_at=number)


def adaptive(count: int = 3, /, **changes: Any) -> Experiment:
    given: dict[str, Any] = {
        "adaptive": Adaptive(floor=0.1, epoch_s=3600.0),
        "unit": "conversation",
        "ramp": (Step(share=3333, at_least_s=0.0),),
        **changes,
    }
    return experiment(count, **given)


def table(
    test: Experiment,
    *,
    units: int = 4000,
    good: tuple[float, ...] = (0.5, 0.5),
    bad: tuple[float, ...] = (0.01, 0.01),
    seed: int = 1,
    age_s: float = 10 * DAY,
    **changes: Any,
) -> UnitTable:
    """Units of four requests each, spread over the day before `age_s` ago; `good` and `bad` are the arms' rates."""
    generator = np.random.default_rng(seed)
    arm = generator.integers(0, len(test.arms), units)
    requests = np.full(units, 4.0)
    up = generator.binomial(4, np.asarray(good)[arm]).astype(np.float64)
    errors = generator.binomial(4, np.asarray(bad)[arm]).astype(np.float64)
    made_of = UnitTable(
        arm=arm,
        first_at=NOW - age_s - DAY + np.sort(generator.random(units)) * DAY,
        sums={
            "requests@0": requests,
            "requests@86400": requests,
            "requests@600": requests,
            "thumbs_up@86400": up,
            "errors@600": errors,
        },
        requests=4 * units,
    )
    return replace(made_of, **changes)


def blank(units: int = 0) -> Look:
    return Look(at=NOW, units={"arm0": units, "arm1": units}, settled={}, srm=mismatch([units, units], [1, 1]))
