"""`make stats`: a table of error rates and powers; exits with 1 when a row misses its bound."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy.stats import beta

from monitoring.statistics.margins import Guard
from monitoring.statistics.study import rules
from monitoring.statistics.study.worlds import LOOKS, USERS

CHUNK = 100
CONFIDENCE = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One claim. `most`: a rate that must not be above it; `least`: one that must reach it."""

    name: str
    happens: Callable[[np.random.Generator], bool]
    most: float | None = None
    least: float | None = None
    shown_only: bool = False


def breached(find: Callable[..., set[Guard]], generator: np.random.Generator, **world: float) -> bool:
    return Guard.BREACHED in find(generator, **world)


def cleared(find: Callable[..., set[Guard]], generator: np.random.Generator, **world: float) -> bool:
    return Guard.CLEAR in find(generator, **world)


G = rules.GUARD_MARGIN
ROWS = (
    Row(name="A/A, users, ratio: asymptotic", happens=partial(rules.asymptotic_finds, lift=0.0), most=0.05),
    Row(name="A/A, users, ratio with CUPED", happens=partial(rules.asymptotic_finds, lift=0.0, cuped=True), most=0.05),
    Row(name="A/A, rare flag 2 %: betting", happens=partial(rules.betting_finds, rate=0.02), most=0.05),
    Row(name="A/A, late complaints: matured", happens=partial(rules.delayed_finds, mature=True), most=0.05),
    Row(name="  (for contrast: what has come in so far)", happens=partial(rules.delayed_finds, mature=False),
        shown_only=True),
    Row(name="A/A, 3 arms, adaptive: AIPW", happens=rules.adaptive_finds, most=0.05),
    Row(name="guard at its margin rolled back, asymptotic",
        happens=partial(breached, rules.guard_states, rate=0.10, harm=G), most=rules.GUARD_ALPHA),
    Row(name="guard at its margin cleared, asymptotic",
        happens=partial(cleared, rules.guard_states, rate=0.10, harm=G), most=rules.GUARD_ALPHA),
    Row(name="guard at its margin rolled back, betting",
        happens=partial(breached, rules.betting_states, rate=0.02, harm=G), most=rules.GUARD_ALPHA),
    Row(name="guard at its margin cleared, betting",
        happens=partial(cleared, rules.betting_states, rate=0.02, harm=G), most=rules.GUARD_ALPHA),
    Row(name="power: lift 3.5 points, 4 000 users", happens=partial(rules.asymptotic_finds, lift=0.035), least=0.65),
    Row(name="power: harm 5 points past margin, base 5 %",
        happens=partial(breached, rules.guard_states, rate=0.05, harm=G + 0.05), least=0.95),
    Row(name="power: the same by betting, base 2 %",
        happens=partial(breached, rules.betting_states, rate=0.02, harm=G + 0.05), least=0.95),
)  # fmt: skip


def chunk(index: int, number: int, runs: int) -> tuple[int, int, int]:
    """How often the row's event happened in `runs` worlds of this chunk's own seed."""
    generator = np.random.default_rng([2026, index, number])
    return index, runs, sum(ROWS[index].happens(generator) for _ in range(runs))


def at_least(events: int, runs: int) -> float:
    """The one-sided 99 % lower bound of a rate (Clopper and Pearson)."""
    return float(beta.ppf(1 - CONFIDENCE, events, runs - events + 1)) if events else 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000, help="worlds a row")
    parser.add_argument("--srm-runs", type=int, default=20_000, help="worlds of the sample-ratio rows")
    asked = parser.parse_args()
    began = time.monotonic()
    counts = _simulate(asked.runs)
    table = Table(title=f"{asked.runs} runs a row, {LOOKS} looks, {USERS} units")
    for column in ("row", "rate", "99 % lower bound", "bound", ""):
        table.add_column(column)
    good = True
    for index, row in enumerate(ROWS):
        good &= _add(table, row, counts[index], asked.runs)
    generator = np.random.default_rng([2026, 99])
    honest, last = rules.mismatches(generator, asked.srm_runs, share=0.5)
    alarmed, caught = rules.mismatches(generator, asked.srm_runs, share=0.47)
    none: Callable[[np.random.Generator], bool] = bool
    for row, events in (
        (Row(name=f"SRM alarms, {rules.SRM_LOOKS} looks, {asked.srm_runs} runs", happens=none, most=rules.SRM_ALPHA),
         honest),
        (Row(name="SRM final check alarms", happens=none, most=rules.SRM_FINAL_ALPHA), last),
        (Row(name="SRM 47/53 found after 5 000 units", happens=none, least=0.85), alarmed | caught),
    ):  # fmt: skip
        good &= _add(table, row, int(events.sum()), asked.srm_runs)
    console = Console()
    console.print(table)
    console.print(f"{time.monotonic() - began:.0f} s")
    return 0 if good else 1


def _simulate(runs: int) -> list[int]:
    counts = [0] * len(ROWS)
    parts = [(index, number) for number in range(-(-runs // CHUNK)) for index in range(len(ROWS))]
    with ProcessPoolExecutor(os.cpu_count()) as pool, Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("simulating", total=runs * len(ROWS))
        jobs = [pool.submit(chunk, index, number, min(CHUNK, runs - number * CHUNK)) for index, number in parts]
        for job in as_completed(jobs):
            index, done, events = job.result()
            counts[index] += events
            progress.advance(bar, done)
    return counts


def _add(table: Table, row: Row, events: int, runs: int) -> bool:
    rate, low = events / runs, at_least(events, runs)
    if row.shown_only:
        good, bound = True, ""
    elif row.most is not None:
        good, bound = low <= row.most, f"<= {row.most:.2%}"
    else:
        good, bound = rate >= (row.least or 0.0), f">= {row.least:.0%}"
    table.add_row(row.name, f"{rate:.2%}", f"{low:.2%}", bound, "" if row.shown_only else "ok" if good else "MISSED")
    return good


if __name__ == "__main__":
    sys.exit(main())
