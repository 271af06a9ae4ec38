"""`python -m training.recipes RECIPE.yaml --out DIR`: one run as a process, which says what happens as lines of JSON.

Its standard output holds events (`training.recipes.progress`) and nothing else: what libraries print goes to its
standard error. Exit code 0 with a `finished` event, or 1 with a `failed` one; a plan ends after its choices.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TextIO

import typer

from training.base import PATH
from training.errors import TrainingError
from training.recipes.progress import Began, Event, Failed, Noted, as_fields
from training.recipes.recipe import Recipe, read


@dataclass(frozen=True, slots=True)
class Lines:
    """Progress as lines of JSON, to a pipe and to a file that stays."""

    out: TextIO
    kept: TextIO | None = None

    def said(self, event: Event) -> None:
        """Write one line, at once."""
        line = json.dumps(as_fields(event)) + "\n"
        for file in (self.out, self.kept):
            if file is not None:
                file.write(line)
                file.flush()


def main(
    recipe: Annotated[Path, typer.Argument(help="The recipe.")],
    out: Annotated[Path, typer.Option(help="The run's folder; one that was killed goes on.")],
    base: Annotated[Path | None, typer.Option(help="The base that is served.")] = None,
    start: Annotated[Path | None, typer.Option(help="The adapter to go on from.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be done, and stop.")] = False,
) -> None:
    """Train one recipe."""
    lines = Lines(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    try:
        wanted = read(recipe.read_text(encoding="utf-8"))
        folder = base if base is not None and wanted.base == "served" else base_of(wanted)
        if plan:
            _plan(wanted, out, folder, start, lines)
            return
        out.mkdir(parents=True, exist_ok=True)
        lines = Lines(lines.out, (out / "events.jsonl").open("a", encoding="utf-8"))
        _run(wanted, out, folder, start, lines)
    except (TrainingError, OSError) as error:
        code = error.code if isinstance(error, TrainingError) else "io_error"
        lines.said(Failed(code=code, message=str(error)))
        sys.exit(1)


def base_of(recipe: Recipe) -> Path:
    """The folder of the base that a recipe names; the embedded one where it says no more than `served`."""
    return PATH if recipe.base in ("served", "tidewell") else Path(recipe.base)


def _run(recipe: Recipe, out: Path, base: Path, start: Path | None, lines: Lines) -> None:
    from training.recipes.run import run

    run(recipe, out, base=base, start=start, progress=lines)


def _plan(recipe: Recipe, out: Path, base: Path, start: Path | None, lines: Lines) -> None:
    from training.recipes.run import prepare

    lesson = prepare(recipe, out, base=base, start=start, progress=lines)
    chosen = lesson.chosen
    for part, size in chosen.memory.items():
        lines.said(Noted(what="memory", text=f"{part}: {size / 1e6:.1f} MB"))
    lines.said(Noted(what="memory", text=f"at the peak: {sum(chosen.memory.values()) / 1e6:.1f} MB (an estimate)"))
    lines.said(Began(method=chosen.method, rows=len(lesson.rows), steps=chosen.steps))


if __name__ == "__main__":
    typer.run(main)
