"""`python -m adapters.experiments.bench`: what an assignment costs, and how the analysis grows with the units."""

from __future__ import annotations

import sys
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from adapters.experiments.analysis import analyse
from adapters.experiments.assignment import assign, bucket, plan
from adapters.experiments.definition import Declared, Definition, made
from adapters.experiments.metrics import UnitTable, wanted
from adapters.experiments.values import Arm, Experiment

ASSIGNMENT_US_MAX = 5.0
ANALYSIS_S_MAX = 1.0
SIZES = (10_000, 100_000, 1_000_000)
_NOW = 1_800_000_000.0


def assignment_us(units: int = 100_000) -> float:
    """Microseconds for a bucket and its arm; the best of five rounds."""
    planned = plan(_experiment())
    names = [f"user-{n}" for n in range(units)]
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        for name in names:
            assign(planned, bucket(planned.key, name))
        best = min(best, time.perf_counter() - began)
    return best / units * 1e6


def analysis_s(units: int) -> float:
    """Seconds for one look at so many units: a primary metric, two guardrails by betting, one by the normal limit."""
    test = _experiment()
    generator = np.random.default_rng(1)
    sums = {column.key: generator.binomial(4, 0.05, units).astype(np.float64) for column in wanted(test)}
    sums.update({key: np.full(units, 4.0) for key in sums if key.startswith("requests")})
    table = UnitTable(
        arm=generator.integers(0, 2, units), first_at=_NOW - 1e6 - generator.random(units) * 1e5, sums=sums
    )
    began = time.perf_counter()
    analyse(test, table, now=_NOW)
    return time.perf_counter() - began


def main() -> int:
    console, shown = Console(), Table(title="experiments")
    for name in ("what", "measured", "bound"):
        shown.add_column(name)
    took = assignment_us()
    shown.add_row("assignment, µs", f"{took:.2f}", f"<= {ASSIGNMENT_US_MAX:g}")
    seconds = {units: min(analysis_s(units) for _ in range(3)) for units in SIZES}
    for units, value in seconds.items():
        bound = f"<= {ANALYSIS_S_MAX:g}" if units == SIZES[-1] else ""
        shown.add_row(f"analysis of {units} units, s", f"{value:.3f}", bound)
    console.print(shown)
    return 0 if took <= ASSIGNMENT_US_MAX and seconds[SIZES[-1]] <= ANALYSIS_S_MAX else 1


def _experiment() -> Experiment:
    metrics = (
        Declared(name="thumbs_up_rate", role="primary"),
        Declared(name="error_rate", role="guardrail", margin=0.02),
        Declared(name="first_token_over", role="guardrail", margin=0.02, threshold=800),
        Declared(name="output_length", role="guardrail", margin=20),
    )
    arms = (Arm(name="control", number=1), Arm(name="new", number=2))
    wish = Definition(name="support", alias="live", arms=arms, metrics=metrics)
    return made(wish, id_="bench", salt="bench", who="bench", now=0.0, verified=lambda _: True, points_at=1)


if __name__ == "__main__":
    sys.exit(main())
