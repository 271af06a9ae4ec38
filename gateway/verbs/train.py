"""`graftline train`: a recipe in a process of its own, which may end without taking anything along."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from gateway.control import find_base, open_control
from gateway.settings import load
from gateway.verbs.console import say
from training.errors import BadCheckpoint
from training.recipes.progress import Began, Chose, Evaluated, Event, Failed, Finished, Noted, Stepped, from_fields
from training.recipes.recipe import Recipe, read


def train(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
    out: Annotated[Path | None, typer.Option(help="The run's folder; a run that was killed goes on in it.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be done, and do nothing.")] = False,
) -> None:
    """Train an adapter by a recipe, on the base that is served."""
    try:
        wanted = read(recipe.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{recipe} cannot be read: {error}") from error
    command = [sys.executable, "-m", "training.recipes", str(recipe), "--out", str(out or Path("runs") / wanted.name)]
    command += [*_base(wanted), *_start(wanted), *(["--plan"] if plan else [])]
    failed = True
    for event in events(command):
        failed = isinstance(event, Failed)
        if (line := told(event)) is not None:
            say(line)
    if failed:
        raise typer.Exit(1)


def events(command: list[str]) -> Iterator[Event]:
    """What the process says, until it ends; a last `Failed` where it ends without a word."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        assert process.stdout is not None
        last: Event | None = None
        for line in process.stdout:
            last = from_fields(json.loads(line))
            yield last
        code = process.wait()
    if code and not isinstance(last, Failed):
        how = f"by signal {-code}" if code < 0 else f"with code {code}"
        text = f"The run ended {how}. The same command goes on from its last checkpoint, if optim.save_every is set."
        yield Failed(code="run_ended", message=text)


def told(event: Event) -> str | None:
    """An event as a person reads it; None for what is too much."""
    match event:
        case Chose(key=key, value=value, why=why):
            return f"{key} = {value}: {why}"
        case Began(method=method, rows=rows, steps=steps):
            return f"{method} on {rows} rows, {steps} steps"
        case Stepped(step=step, steps=steps, numbers=numbers) if step in (1, steps) or step % max(1, steps // 10) == 0:
            shown = [f"{name} {numbers[name]:.4g}" for name in ("loss", "reward", "kl") if name in numbers]
            return f"step {step} of {steps}: {', '.join(shown)}"
        case Evaluated(step=step, numbers=numbers):
            return f"held-out rows at step {step}: loss {numbers.get('eval_loss', float('nan')):.4g}"
        case Noted(text=text):
            return text
        case Finished(folder=folder, seconds=seconds, cpu_seconds=cpu):
            return (
                f"{folder} after {seconds:.0f} s ({cpu:.0f} s of CPU). Register it with `graftline adapters register`."
            )
        case Failed(code=code, message=message):
            return f"error ({code}) {message}"
    return None


def _base(recipe: Recipe) -> list[str]:
    return ["--base", str(find_base(load(os.environ)).folder)] if recipe.base == "served" else []


def _start(recipe: Recipe) -> list[str]:
    """The adapter to go on from: a folder, or a version of the registry, whose bytes are checked first."""
    if recipe.start_from == "base":
        return []
    if (folder := Path(recipe.start_from)).is_dir():
        return ["--start", str(folder)]
    if "/" in recipe.start_from:
        raise BadCheckpoint(f"start_from: there is no folder {recipe.start_from}")
    registry = open_control(load(os.environ)).registry
    version = registry.resolve_name(recipe.name if recipe.start_from == "live" else recipe.start_from)
    return ["--start", str(registry.verify(version.name, version.number))]
