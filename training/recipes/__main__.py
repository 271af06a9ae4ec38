"""`python -m training.recipes RECIPE.yaml --out DIR`: one run as a process, which says what happens as lines of JSON.

Its standard output holds events (`training.recipes.progress`) and nothing else: what libraries print goes to its
standard error. Exit code 0 with a `finished` event, or 1 with a `failed` one; a plan ends after its choices.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TextIO

import typer

from training.base import PATH
from training.errors import TrainingError
from training.recipes.errors import RunTaken
from training.recipes.progress import Began, Event, Failed, Noted, as_fields
from training.recipes.recipe import Recipe, read

#: How long a run waits for one that is being killed to let go of their folder.
_LOCK_S = 15
_FIRST_SPEAKS_S = 3.0


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
    rehearse: Annotated[bool, typer.Option(help="With --plan: a few real steps, for memory and time.")] = True,
    memory_gib: Annotated[
        float | None, typer.Option(help="The most memory of a process, without an accelerator.")
    ] = None,
) -> None:
    """Train one recipe."""
    lines = Lines(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    if memory_gib is not None:
        _limit(memory_gib)
    try:
        wanted = read(recipe.read_text(encoding="utf-8"))
        folder = base if base is not None and wanted.base == "served" else base_of(wanted)
        if plan:
            _plan(wanted, out, folder, start, lines, rehearse)
            return
        out.mkdir(parents=True, exist_ok=True)
        lines = Lines(lines.out, (out / "events.jsonl").open("a", encoding="utf-8"))
        _run(wanted, out, folder, start, lines)
    except (TrainingError, OSError) as error:
        code = error.code if isinstance(error, TrainingError) else "io_error"
        lines.said(Failed(code=code, message=str(error)))
        sys.exit(1)


def _limit(gib: float) -> None:
    """What cannot be had fails here, with words about what to lower, and not in whatever else runs on the machine."""
    if not Path("/dev/nvidiactl").exists():  # drivers map far more than they use
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (int(gib * (1 << 30)), hard))


def base_of(recipe: Recipe) -> Path:
    """The folder of the base that a recipe names; the embedded one where it says no more than `served`."""
    return PATH if recipe.base in ("served", "tidewell") else Path(recipe.base)


def _run(recipe: Recipe, out: Path, base: Path, start: Path | None, lines: Lines) -> None:
    from training.launchers.world import Unheard, join
    from training.recipes.run import run

    processes = join(recipe.launch)
    if not processes.first:
        try:
            run(recipe, out, base=base, start=start, progress=Unheard())
        except (TrainingError, OSError):
            # What fails in all is said by the first, and then we are ended; what fails here alone we must say.
            time.sleep(_FIRST_SPEAKS_S)
            raise
        return
    if recipe.launch.processes != processes.size:
        text = (
            f"{processes.size} processes share the work; the recipe says {recipe.launch.processes}. A step is the same"
        )
        lines.said(Noted(what="processes", text=text))
    with _alone(out):
        run(recipe, out, base=base, start=start, progress=lines)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the run's folder. A run that is being killed may take a moment to let go; two in one folder never train."""
    with (out / ".lock").open("w") as lock:
        for left in reversed(range(_LOCK_S)):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not left:
                    text = f"Another process trains in {out}. Wait for it, or stop it, or choose another --out."
                    raise RunTaken(text) from None
                time.sleep(1)
        yield


def _plan(recipe: Recipe, out: Path, base: Path, start: Path | None, lines: Lines, rehearse: bool) -> None:
    from training.recipes import run

    lesson = run.prepare(recipe, out, base=base, start=start, progress=lines)
    chosen = lesson.chosen
    if rehearse:
        from training.launchers.rehearsal import rehearse as tried

        lines.said(tried(lesson, run.RECIPES))
    else:
        for part, size in chosen.memory.items():
            lines.said(Noted(what="memory", text=f"{part}: {size / 1e6:.1f} MB"))
        lines.said(Noted(what="memory", text=f"at the peak: {sum(chosen.memory.values()) / 1e6:.1f} MB (an estimate)"))
    lines.said(Began(method=chosen.method, rows=len(lesson.rows), steps=chosen.steps))


if __name__ == "__main__":
    typer.run(main)
