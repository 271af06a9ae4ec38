"""`graftline train --from NAME:7`: what a version was made by, found again, and what is not as it was then."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.values import Version
from gateway.control import Control
from gateway.settings import Settings
from training.data.errors import DatasetNotFound
from training.data.parquet import find
from training.launchers.repeat import differences, recipe_of, standing
from training.publishing.lineage import FILE, source
from training.recipes.errors import BadRecipe
from training.recipes.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """A version that was trained here, to be trained once more."""

    version: Version
    #: The version's own files.
    folder: Path
    document: Mapping[str, Any]
    recipe: Recipe

    def write(self, folder: Path) -> Path:
        """The recipe as a file in the new run's folder. JSON is YAML."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "recipe.yaml"
        fields = self.recipe.model_dump(mode="json", exclude_defaults=True)
        path.write_text(json.dumps(fields, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return path

    def before(self, base: Path) -> Iterator[str]:
        """What is known to differ before anything is trained."""
        yield from differences(self.document, standing(base, self.document))

    def after(self, run: Path) -> Iterator[str]:
        """Whether the same came out, and what differed."""
        now = json.loads((run / "run.json").read_bytes())
        told = self.document.get("versions", {})
        found = {key: value for key, value in now.items() if key != "versions"}
        yield from differences({**self.document, "versions": {}}, found)
        same = digest_weights(self.folder) == digest_weights(run / "adapter")
        name = f"{self.version.name}:{self.version.number}"
        versions = ", ".join(f"{key} {value}" for key, value in sorted(told.items()))
        if same:
            yield f"The weights are those of {name}, bit for bit."
        else:
            yield f"The weights are not those of {name}, which was trained with {versions}."


def again(settings: Settings, control: Control, name: str) -> Again:
    """Find all that the version was made from. Raises BadRecipe for what is not there any more."""
    version = control.registry.resolve_name(name)
    folder = control.registry.verify(version.name, version.number)
    path = folder / FILE
    if not path.is_file():
        raise BadRecipe([f"{name} was not trained here: its folder has no {FILE}"])
    document: dict[str, Any] = json.loads(path.read_bytes())
    known = _ran(settings, control, version)

    def found(content: str) -> str:
        if not content.startswith("sha256:"):
            return content
        try:
            return str(find(settings.datasets, content))
        except DatasetNotFound:
            places = (place for place in known if _named(place) == content)
            place = next(places, None)
            if place is None:
                problem = f"{name} learnt from {content}, which is neither under {settings.datasets} nor where it was"
                raise BadRecipe([f"{problem}; build or import that dataset again"]) from None
            return place

    start = _start(control, document.get("parent"), name)
    recipe = recipe_of(document, name=version.name, found=found, start=start)
    return Again(version=version, folder=folder, document=document, recipe=recipe)


def digest_weights(adapter: Path) -> str:
    """Of the weights alone: the configuration beside them may name what is named otherwise now."""
    with (adapter / "adapter_model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _ran(settings: Settings, control: Control, version: Version) -> tuple[str, ...]:
    """The places that the version's run read rows from, as far as the run's folder still says so."""
    places: list[str | None] = []
    for evidence in control.registry.evidence(version.name, version.number, "training"):
        path = settings.runs / str(evidence.body.get("job") or "-") / "run.json"
        if path.is_file():
            data = json.loads(path.read_bytes())["recipe"]["data"]
            places += [data.get("train"), data.get("held"), (data.get("replay") or {}).get("source")]
    return tuple(place for place in places if place)


def _named(place: str) -> str:
    told = source(place)
    return str(told.get("dataset") or told.get("file") or "")


def _start(control: Control, parent: Mapping[str, Any] | None, name: str) -> str | None:
    """The adapter that was gone on from, by its digest."""
    if parent is None:
        return None
    for version in control.adapters.list():
        if version.digest == parent["digest"]:
            return str(control.registry.verify(version.name, version.number))
    raise BadRecipe([f"{name} went on from an adapter, {parent['digest']}, that is not in the registry any more"])
