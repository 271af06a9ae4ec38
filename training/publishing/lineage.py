"""What a version was made from, as one document: recipe, dataset, base, seed, versions, parents, numbers.

It is part of the adapter's bytes (`training.json`), so it holds no clock, no path and no job: the same training gives
the same bytes again, and so the same version. Which records a dataset came from stands in its rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from adapters.artifacts.local import digest_folder
from adapters.errors import DigestMismatch
from training.data import parquet
from training.data.manifest import FILE as MANIFEST
from training.data.values import SPLITS
from training.publishing.curves import Curves, CurveVerdict, document
from training.publishing.errors import CannotPublish

FILE: Final = "training.json"
FORMAT: Final = "graftline-training/1"
#: Of a run's own words, those that differ though the same was learnt.
_OF_THE_MACHINE: Final = frozenset({"memory"})
#: Of a recipe, what decides nothing of the weights.
_BESIDE: Final = frozenset({"name", "gate", "evaluation", "report", "wandb", "launch"})
_POINTS: Final = 40
#: Numbers that are another each time, though the same was learnt.
_CLOCKED: Final = ("_runtime", "_per_second", "_time", "seconds")


def lineage(run: Path, curves: Curves, said: CurveVerdict) -> dict[str, Any]:
    """The document of a finished run. Raises CannotPublish."""
    told = record(run)
    recipe = dict(told["recipe"])
    train, held = recipe["data"]["train"], recipe["data"].get("held")
    replay = (recipe["data"].get("replay") or {}).get("source")
    start = told.get("start")
    return {
        "format": FORMAT,
        "graftline": version("graftline"),
        "method": told["chosen"]["method"],
        "recipe": _recipe({name: value for name, value in recipe.items() if name not in _BESIDE}),
        "chosen": {name: value for name, value in told["chosen"].items() if name not in _OF_THE_MACHINE},
        "reasons": told["reasons"],
        "dataset": source(train),
        "held": source(held) if held else None,
        "replay": source(replay) if replay else None,
        "rows": told["rows"],
        "base": told["base"],
        "template": told["template"],
        "parent": _folder(Path(start)) if start else None,
        "generation": told["generation"],
        "seed": recipe["seed"],
        "versions": told["versions"],
        "numbers": {name: value for name, value in told["numbers"].items() if not name.endswith(_CLOCKED)},
        "curves": {**said.document(), **_few(document(curves))},
    }


def record(run: Path) -> Mapping[str, Any]:
    """`run.json`. Raises CannotPublish."""
    path = run / "run.json"
    try:
        found: Mapping[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CannotPublish(f"{path} cannot be read, so the run is not finished: {error}") from error
    missing = {
        "recipe",
        "chosen",
        "reasons",
        "rows",
        "base",
        "template",
        "generation",
        "versions",
        "numbers",
    } - found.keys()
    if missing:
        raise CannotPublish(f"{path} lacks {', '.join(sorted(missing))}: a run of another program, or an older one.")
    return found


def source(name: str) -> dict[str, Any]:
    """What rows were learnt from, by content: a dataset by its digest, a file by that of its bytes."""
    path = Path(name)
    if (path / MANIFEST).is_file():
        manifest = parquet.load(path)
        return {
            "dataset": manifest.digest,
            "kind": manifest.kind,
            "origin": manifest.origin,
            "rows": {split: manifest.parts[split].rows for split in SPLITS if split in manifest.parts},
            "policies": dict(manifest.policies),
        }
    if path.is_file():
        with path.open("rb") as file:
            return {"file": "sha256:" + hashlib.file_digest(file, "sha256").hexdigest(), "name": path.name}
    return {"source": name}


def records(dataset: Path) -> Iterator[str]:
    """The ids of all records that a dataset's training rows came from, each once: the way from a version back to what
    users said."""
    seen: set[str] = set()
    for row in parquet.rows(dataset, "train"):
        for id_ in row.get("inferences") or ():
            if id_ not in seen:
                seen.add(id_)
                yield id_


def _recipe(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe with what it names called by content, since paths name nothing elsewhere."""
    data = dict(recipe["data"])
    for name in ("train", "held"):
        if data.get(name):
            data[name] = _name(data[name])
    if data.get("replay"):
        data["replay"] = {**data["replay"], "source": _name(data["replay"]["source"])}
    base, start = recipe.get("base", ""), recipe.get("start_from", "")
    return {
        **recipe,
        "data": data,
        "base": Path(base).name if Path(base).is_dir() else base,
        "start_from": Path(start).name if Path(start).is_dir() else start,
    }


def _name(of: str) -> str:
    found = source(of)
    return str(found.get("dataset") or found.get("file") or found["source"])


def _folder(path: Path) -> dict[str, Any]:
    """An adapter that was gone on from; without a digest where its folder is gone, or holds more than files."""
    try:
        return {"digest": digest_folder(path), "name": path.name}
    except (OSError, DigestMismatch):
        return {"digest": "", "name": path.name}


def _few(points: dict[str, Any]) -> dict[str, Any]:
    """Fewer points: these are part of the adapter's bytes."""

    def thinned(rows: list[Any]) -> list[Any]:
        return rows if len(rows) <= _POINTS else [rows[at * (len(rows) - 1) // (_POINTS - 1)] for at in range(_POINTS)]

    kept = ("step", "loss", "reward", "kl", "eval_loss", "mean_token_accuracy", "eval_mean_token_accuracy")
    return {
        name: [{key: round(row[key], 6) for key in kept if key in row} for row in thinned(rows)]
        for name, rows in points.items()
    }
