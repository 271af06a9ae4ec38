"""`python -m training.recipes.bench`: each method on the embedded base, several seeds, the worst of them counting.

Each run is a process of its own, whose CPU seconds count from its start: imports, training, leaving. Its adapter is
asked through vLLM, started as `graftline up` starts it. What was measured stays in the folder, so a bench that was
interrupted goes on. Exit code 1 where a row misses a bound.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer

from training.base import PATH
from training.probe.client import WarmProber
from training.recipes.bench.cases import CASES, Case
from training.recipes.bench.engine import NoEngine, engine
from training.recipes.bench.runs import BASE, Result, Runs, kept
from training.recipes.bench.table import Row, markdown, row

_PROBE_S = 120.0


def main(
    out: Annotated[Path, typer.Option(help="A folder for adapters and results.")] = Path(".graftline/recipes"),
    only: Annotated[list[str] | None, typer.Option(help="Only these rows.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 3,
    first: Annotated[int, typer.Option(help="The first seed; 100 and above are for tuning.")] = 0,
    count: Annotated[int, typer.Option(min=8, help="Held-out questions of each kind.")] = 400,
    at_once: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 2,
) -> None:
    """Measure the methods."""
    if unknown := set(only or ()) - {case.name for case in CASES}:
        raise typer.BadParameter(f"no row is called {', '.join(sorted(unknown))}")
    chosen = [case for case in CASES if not only or case.name in only]
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    wanted = range(first, first + seeds)
    try:
        rows = asyncio.run(_rows(chosen, wanted, out, count, at_once))
    except NoEngine as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    (out / "table.md").write_text(markdown(rows))
    typer.echo(f"\n{markdown(rows)}\nSeeds {', '.join(map(str, wanted))}; {count} questions of each kind.")
    missed = [each.cells[0] for each in rows if each.missed]
    typer.echo(f"Missed by: {', '.join(missed)}" if missed else "Every bound holds.")
    sys.exit(bool(missed))


async def _rows(chosen: Sequence[Case], seeds: range, out: Path, count: int, at_once: int) -> list[Row]:
    """The table, each row said as soon as it is whole. The engine is started only where something is to be asked."""
    before = kept(out, BASE, 0, count)
    known = [[kept(out, case.name, seed, count) for seed in seeds] for case in chosen]
    if before is not None and all(None not in found for found in known):
        whole = [[one for one in found if one is not None] for found in known]
        return [_said(case, found, before) for case, found in zip(chosen, whole, strict=True)]
    async with AsyncExitStack() as left:
        folder = Path(left.enter_context(tempfile.TemporaryDirectory(prefix="graftline-bench-")))
        prober = WarmProber(PATH, folder / "probe.log", timeout_s=_PROBE_S)
        left.push_async_callback(prober.close)
        running = await left.enter_async_context(engine(PATH, folder, out / "engine.log"))
        env = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        turns = asyncio.Semaphore(at_once)
        runs = Runs(out=out, count=count, env=env, engine=running, prober=prober, at_once=turns)
        base = await runs.result(BASE, 0)
        return list(await asyncio.gather(*(_row(case, seeds, runs, base) for case in chosen)))


async def _row(case: Case, seeds: range, runs: Runs, before: Result) -> Row:
    found = await asyncio.gather(*(runs.result(case.name, seed) for seed in seeds))
    return _said(case, found, before)


def _said(case: Case, found: Sequence[Result], before: Result) -> Row:
    assert before.marks is not None
    made = row(case, found, before.marks)
    typer.echo("  ".join(cell for cell in made.cells if cell))
    return made


if __name__ == "__main__":
    typer.run(main)
