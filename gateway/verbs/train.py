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
from gateway.verbs.jobs_watch import steps_bar
from gateway.verbs.train_again import Again, again
from gateway.verbs.train_job import run_job
from gateway.verbs.train_plan import lines
from training.errors import BadCheckpoint
from training.launchers.command import argv
from training.launchers.section import Launch
from training.launchers.values import training
from training.recipes.progress import (
    Began,
    Chose,
    Evaluated,
    Event,
    Failed,
    Finished,
    Noted,
    Planned,
    Stepped,
    from_fields,
)
from training.recipes.recipe import Recipe, read
from training.share import CALM


def train(
    recipe: Annotated[Path | None, typer.Argument(help="The recipe, a YAML file.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; a run that was killed goes on in it.")] = None,
    version: Annotated[str, typer.Option("--from", help="Repeat NAME:NUMBER by its own record; no recipe then.")] = "",
    plan: Annotated[bool, typer.Option("--plan", help="Say memory, tokens, time and cost after a few steps.")] = False,
    job: Annotated[
        bool, typer.Option("--job", help="As a job of this installation: evaluated, gated, served.")
    ] = False,
) -> None:
    """Train an adapter by a recipe, on the base that is served."""
    if (recipe is None) == (not version):
        raise typer.BadParameter("give a recipe, or --from NAME:NUMBER")
    repeated = _again(version) if version else None
    wanted = repeated.recipe if repeated else _read(recipe)
    if job:
        run_job(open_control(load(os.environ)), wanted, here=Path())
        return
    folder = out or Path("runs") / (version.replace(":", "-") + "-again" if version else wanted.name)
    launched = training(
        name=wanted.name,
        recipe=repeated.write(folder) if repeated else recipe or Path(),
        folder=folder,
        launch=Launch() if plan else wanted.launch,
        base=_base(wanted),
        start=_start(wanted),
    )
    command = [*argv(launched, python=sys.executable), *(["--plan"] if plan else [])]
    failed = True
    with steps_bar(wanted.name) as bar:
        for event in events(command):
            failed = isinstance(event, Failed)
            if isinstance(event, Stepped):
                bar(event.step, event.steps, "")
            if isinstance(event, Planned):
                for each in lines(event, cost_per_hour=load(os.environ).cost_per_hour, launch=wanted.launch):
                    say(each)
            elif (text := told(event)) is not None:
                say(text)
    if failed:
        raise typer.Exit(1)
    if repeated and not plan:
        for line in repeated.after(folder):
            say(line)


def events(command: list[str]) -> Iterator[Event]:
    """What the process says, until it ends; a last `Failed` where it ends without a word."""
    environment = {**CALM, **os.environ}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environment) as process:
        assert process.stdout is not None
        last: Event | None = None
        for line in process.stdout:
            if not line.startswith("{"):
                continue  # what starts several processes may say a word of its own
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


def _read(path: Path | None) -> Recipe:
    assert path is not None
    try:
        return read(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path} cannot be read: {error}") from error


def _again(version: str) -> Again:
    """What a version was made from; what is not as it was is said before anything begins."""
    settings = load(os.environ)
    control = open_control(settings)
    found = again(settings, control, version)
    for line in found.before(control.base.folder):
        say(f"not as it was: {line}")
    return found


def _base(recipe: Recipe) -> Path | None:
    return find_base(load(os.environ)).folder if recipe.base == "served" else None


def _start(recipe: Recipe) -> Path | None:
    """The adapter to go on from: a folder, or a version of the registry, whose bytes are checked first."""
    if recipe.start_from == "base":
        return None
    if (folder := Path(recipe.start_from)).is_dir():
        return folder
    if "/" in recipe.start_from:
        raise BadCheckpoint(f"start_from: there is no folder {recipe.start_from}")
    registry = open_control(load(os.environ)).registry
    version = registry.resolve_name(recipe.name if recipe.start_from == "live" else recipe.start_from)
    return registry.verify(version.name, version.number)
