"""`graftline train RECIPE.yaml --job`: the recipe as a job of this installation, whose worker runs it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import typer

from gateway.control import Control
from gateway.verbs.console import say
from gateway.verbs.jobs_watch import follow
from training.jobs.values import Job, JobState, new_id
from training.recipes.recipe import Recipe

TENANT = "default"


def run_job(control: Control, recipe: Recipe, *, here: Path, wait: bool = True) -> None:
    """Ask for the job and follow it to its end; ^C leaves it running. `here` is where the recipe's paths begin."""
    job = control.jobs.create(job_of(recipe, base=control.base.name, here=here, now=time.time()))
    say(f"{job.id} was asked for; `graftline jobs events --follow {job.id}` tells of it too")
    if not wait:
        return
    try:
        job = follow(control.jobs, job.id)
    except KeyboardInterrupt:
        say(f"{job.id} goes on. `graftline jobs cancel {job.id}` ends it.")
        raise typer.Exit(130) from None
    if job.state is not JobState.SUCCEEDED:
        raise typer.Exit(1)
    say(f"{job.name}:{job.version} is served, as a candidate: ask for it as {job.name}:{job.version}")


def job_of(recipe: Recipe, *, base: str, here: Path, now: float) -> Job:
    """A recipe as a job."""
    document: dict[str, Any] = recipe.model_dump(mode="json", exclude_defaults=True)
    data = document["data"]
    for place in ("train", "held"):
        if place in data:
            data[place] = _absolute(data[place], here)
    if "replay" in data:
        data["replay"]["source"] = _absolute(data["replay"]["source"], here)
    if (here / recipe.start_from).is_dir():
        document["start_from"] = str((here / recipe.start_from).absolute())
    if recipe.optim.save_every is None and recipe.method != "ppo":
        document.setdefault("optim", {})["save_every"] = 20  # else a killed job begins anew
    return Job(
        id=new_id(),
        tenant=TENANT,
        owner="cli",
        name=recipe.name,
        recipe=document,
        asked={"recipe": recipe.name},
        training_file=data["train"],
        validation_file=data.get("held", ""),
        model=base,
        seed=recipe.seed,
        created_at=now,
    )


def _absolute(source: str, here: Path) -> str:
    """A path as the worker finds it; names of files, datasets and feedback stay."""
    path = here / source
    return str(path.absolute()) if path.exists() else source
