"""What jobs need of files: that they are good, where their rows are, and results as files that clients can fetch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from training.data.parquet import load
from training.data.values import Kind
from training.files.compiled import compiled
from training.files.errors import BadTrainingFile
from training.files.intake import keep
from training.files.shelf import Shelf
from training.files.sources import DATASET, FILE_ID, Found, Param, Shelves, serves
from training.files.store import Files
from training.files.values import File
from training.jobs.errors import JobRefused
from training.jobs.values import Job

#: What a method learns from; `auto` learns from what there is.
KINDS: Final[Mapping[str, Kind]] = {
    "sft": "sft", "kto": "kto", "dpo": "dpo", "orpo": "dpo", "reward": "reward", "grpo": "rl", "rloo": "rl",
    "ppo": "rl", "pretrain": "text",
}  # fmt: skip
#: Results in the order in which they are listed: the CSV first, as OpenAI's clients expect. By the file in the run.
RESULTS: Final[Mapping[str, str]] = {
    "result.csv": "results.csv",
    "evaluation.json": "evaluation.json",
    "verdict.json": "gate.json",
}


def ready(shelves: Shelves, job: Job, *, now: float) -> None:
    """Whether everything that the job learns from is there and fits. Raises JobRefused."""
    for param, name in _named(job).items():
        kind(shelves.source_of(job, param, name, now=now), job, param)


def kind(found: Found, job: Job, param: Param) -> Kind:
    """What the rows are read as. Raises JobRefused."""
    method = str(job.recipe.get("method", "auto"))
    wanted = KINDS.get(method, found.kind)
    if not serves(found, wanted):
        message = f"{found.name} holds rows for {found.kind}; the method {method} learns from rows for {wanted}"
        raise JobRefused(message, code=BadTrainingFile.code, param=param)
    return wanted


def document(shelves: Shelves, job: Job, *, base: Path, base_digest: str, now: float) -> dict[str, Any]:
    """The job's recipe with folders in place of the names of files and datasets, which are compiled where they are not.

    Blocks for as long as that takes; called again, it finds the same folders. Raises JobRefused, CannotWrite.
    """
    recipe: dict[str, Any] = dict(job.recipe)
    for param, name in _named(job).items():
        found = shelves.source_of(job, param, name, now=now)
        wanted = kind(found, job, param)
        # Rows that a training file gives up for evaluation are those of its own that nobody else brings.
        held = param == "training_file" and recipe["data"].get("held") == name
        try:
            folder = compiled(
                found, wanted, root=shelves.datasets, base=base, base_digest=base_digest, seed=job.seed, held=held,
                param=param,
            )  # fmt: skip
        except BadTrainingFile as error:
            raise JobRefused(str(error), code=error.code, param=param) from error
        recipe = _put(recipe, param, name, _rows(folder, found, param))
        if held and not load(folder).parts["evaluation"].rows:
            recipe["data"].pop("held")  # the rows are too few, or all alike: none could be taken out of training
    return recipe


def attached(files: Files, shelf: Shelf, job: Job, run: Path, *, now: float) -> tuple[str, ...]:
    """Files of purpose fine-tune-results, one of each result that the run has; their ids. Doing it again changes
    nothing."""
    made = []
    for name, shown in RESULTS.items():
        if (path := run / name).is_file():
            known = hashlib.sha256(f"{job.id}|{name}".encode()).hexdigest()[:24]
            file = File(
                id=f"file-{known}",
                tenant=job.tenant,
                owner=job.owner,
                created_at=now,
                filename=f"{job.id}-{shown}",
                purpose="fine-tune-results",
                bytes=0,
                digest="",
            )
            with path.open("rb") as source:
                made.append(keep(files, shelf, file, source).id)
    return tuple(made)


def _named(job: Job) -> dict[Param, str]:
    """Which names of files or datasets the job's recipe holds, by what they are for."""
    data = job.recipe.get("data") or {}
    replay = data.get("replay") or {}
    said: dict[Param, object] = {
        "training_file": data.get("train"),
        "validation_file": data.get("held") if data.get("held") != data.get("train") else None,
        "replay": replay.get("source"),
    }
    return {
        param: name
        for param, name in said.items()
        if isinstance(name, str) and (FILE_ID.fullmatch(name) or DATASET.fullmatch(name))
    }


def _rows(folder: Path, found: Found, param: Param) -> str:
    """What a recipe reads: a dataset's folder, of which it takes the split that it needs. Of rows that were brought to
    evaluate by, and were not split, all are meant."""
    whole = found.file is not None or not found.held
    return str(folder / "train.parquet" if param == "validation_file" and whole else folder)


def _put(recipe: dict[str, Any], param: Param, name: str, source: str) -> dict[str, Any]:
    data = recipe["data"]
    if param == "replay":
        return {**recipe, "data": {**data, "replay": {**data["replay"], "source": source}}}
    return {**recipe, "data": {**data, **{place: source for place in ("train", "held") if data.get(place) == name}}}
