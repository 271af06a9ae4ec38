"""`graftline tune`: a recipe's settings searched by what held-out rows say."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.control import find_base, open_control
from gateway.settings import load
from gateway.verbs.console import say, table
from training.errors import BadCheckpoint
from training.launchers.local import LocalLauncher
from training.recipes import strict_yaml
from training.recipes.recipe import Recipe
from training.search import space
from training.search.study import Found, Trial, search


def tune(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file; it names held-out rows (data.held).")],
    searching: Annotated[
        Path | None, typer.Option("--search", help="What to search, a YAML file; left out: learning rate and rank.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The search's folder; one that was killed goes on in it.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="How many runs, instead of what the file says.")] = None,
    plan: Annotated[bool, typer.Option("--plan", "--dry-run", help="Only look whether it can be searched.")] = False,
) -> None:
    """Search for the settings with which a recipe does best on held-out rows."""
    fields = strict_yaml.read(_text(recipe))
    wanted = space.read(_text(searching)) if searching else space.usual(fields)
    if trials is not None:
        wanted = wanted.model_copy(update={"trials": trials})
    checked = space.checked(wanted, fields)
    _planned(wanted)
    if plan:
        return
    settings = load(os.environ)
    base = find_base(settings).folder if checked.base == "served" else None
    folder = out or Path("searches") / checked.name
    launcher = LocalLauncher()
    done = search(
        fields, wanted, folder, launcher=launcher, base=base, start=_start(checked), told=lambda one: say(_line(one))
    )
    _report(done, wanted)


def _planned(wanted: space.Search) -> None:
    which = "lowest" if wanted.smaller_is_better else "highest"
    rows = [(name, json.dumps(values.model_dump(exclude_defaults=True))) for name, values in wanted.space.items()]
    table(f"{wanted.trials} trials for the {which} {wanted.measure}", ("setting", "values"), rows)


def _report(done: Found, wanted: space.Search) -> None:
    names = list(wanted.space)
    rows = [
        (
            *(one.number, one.state, "" if one.value is None else f"{one.value:.5g}", one.step, f"{one.seconds:.0f}"),
            *(_shown(one.picked.get(name)) for name in names),
            one.why[:80],
        )
        for one in done.trials
    ]
    table("Trials", ("trial", "", wanted.measure, "at step", "seconds", *names, "why"), rows)
    if done.best is None:
        say("No trial was finished, so there is no best recipe.")
        raise typer.Exit(1)
    say(f"The best is trial {done.best.number}. Its recipe is {done.recipe}: `graftline train {done.recipe}`.")


def _line(one: Trial) -> str:
    value = "" if one.value is None else f" {one.value:.5g} at step {one.step}"
    return f"trial {one.number}: {one.state}{value}, {one.seconds:.0f} s: {_pairs(one.picked)} {one.why[:120]}".rstrip()


def _pairs(picked: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_shown(value)}" for name, value in picked.items())


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def _start(recipe: Recipe) -> Path | None:
    """The adapter to go on from, as `graftline train` finds it."""
    if recipe.start_from == "base":
        return None
    if (folder := Path(recipe.start_from)).is_dir():
        return folder
    if "/" in recipe.start_from:
        raise BadCheckpoint(f"start_from: there is no folder {recipe.start_from}")
    registry = open_control(load(os.environ)).registry
    version = registry.resolve_name(recipe.name if recipe.start_from == "live" else recipe.start_from)
    return registry.verify(version.name, version.number)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path} cannot be read: {error}") from error
