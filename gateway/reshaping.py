"""Versions made of versions: merged, or cut to a lower rank. Scored against what they were made of, then registered.

What comes out is checked, probed and proved like any other adapter; nothing of this runs in the gateway's process.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.carried import FILE as CARRIED
from adapters.values import Version
from gateway.control import Control
from training.convert import convert
from training.errors import CannotConvert
from training.exporting.compare import Row, Score, Subject, compare, documents
from training.merge import How, merge
from training.recipes.errors import CannotMerge


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Under which name the result is registered, by whom, and who signs its folder first. With `dry_run` it is made and
    scored, and not registered."""

    name: str
    who: str
    note: str = ""
    dry_run: bool = False
    sign: Callable[[Path], object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What came out: its rank, what of the wanted change is lost, its scores beside those it was made of."""

    rank: int
    loss: float
    scores: tuple[Score, ...]
    version: Version | None
    warnings: tuple[str, ...] = ()


def merged(
    control: Control,
    models: Sequence[str],
    target: Target,
    *,
    how: How,
    weights: Sequence[float],
    density: float,
    seed: int,
    sources: Mapping[str, Sequence[Row]],
) -> Made:
    """Register the sum of versions. Raises CannotMerge, NotFound, and what `Registry.register` raises."""
    parents = [control.registry.resolve_name(model) for model in models]
    named = [f"{parent.name}:{parent.number}" for parent in parents]
    if len(set(named)) < len(named):
        raise CannotMerge(f"{', '.join(named)}: a version stands there twice; give it a larger weight instead")
    for parent, name in zip(parents, named, strict=True):
        if parent.base_digest != control.base.digest:
            raise CannotMerge(f"{name} belongs to another base ({parent.base_name}) than {control.base.name}")
    folders = [control.registry.verify(parent.name, parent.number) for parent in parents]
    with tempfile.TemporaryDirectory(prefix="graftline-merge-") as scratch:
        out = Path(scratch) / "adapter"
        done = merge(
            folders, out, how=how, weights=weights, rank_max=control.limits.rank_max, density=density, seed=seed
        )
        warnings = _carried(
            [(parent.carried.document(), name) for parent, name in zip(parents, named, strict=True)], out
        )
        subjects = [
            Subject(name=name, base=control.base.folder, adapter=at) for name, at in zip(named, folders, strict=True)
        ]
        scores = _scored(control, subjects, target, out, sources, against=named)
        body = {
            "made": f"merge:{how}", "weights": list(weights), "density": density, "seed": seed, "rank": done.rank,
            "loss": done.loss, "parents": _parents(parents), "scores": documents(scores),
        }  # fmt: skip
        version = _registered(control, out, target, f"merge:{how}:{'+'.join(named)}", body)
    return Made(rank=done.rank, loss=done.loss, scores=scores, version=version, warnings=warnings)


def reduced(control: Control, model: str, target: Target, *, rank: int, sources: Mapping[str, Sequence[Row]]) -> Made:
    """Register a version, or a DoRA in a folder, as plain LoRA of at most `rank`. Raises CannotConvert, NotFound."""
    folder = Path(model)
    before = folder.name
    parents: tuple[Version, ...] = ()
    if not folder.is_dir():
        parent = control.registry.resolve_name(model)
        before, parents = f"{parent.name}:{parent.number}", (parent,)
        if parent.rank <= rank:
            raise CannotConvert(f"{before} has rank {parent.rank} already; ask for less than that")
        folder = control.registry.verify(parent.name, parent.number)
    if rank > control.limits.rank_max:
        raise CannotConvert(f"rank {rank} is above what the server takes, {control.limits.rank_max}")
    with tempfile.TemporaryDirectory(prefix="graftline-reduce-") as scratch:
        out = Path(scratch) / "adapter"
        done = convert(folder, out, base=control.base.folder, rank=rank)
        if (folder / CARRIED).is_file():
            shutil.copyfile(folder / CARRIED, out / CARRIED)
        subjects = [Subject(name=before, base=control.base.folder, adapter=folder)]
        scores = _scored(control, subjects, target, out, sources, against=[before])
        body = {
            "made": "reduce", "rank": done.rank, "loss": done.loss_total, "logprob_mean": done.logprob_mean,
            "logprob_most": done.logprob_most, "effect": done.effect, "parents": _parents(parents),
            "scores": documents(scores),
        }  # fmt: skip
        source = f"reduce:{before}" if parents else "reduce"
        version = _registered(control, out, target, source, body)
    return Made(rank=done.rank, loss=done.loss_total, scores=scores, version=version)


def _scored(
    control: Control,
    before: Sequence[Subject],
    target: Target,
    out: Path,
    sources: Mapping[str, Sequence[Row]],
    *,
    against: Sequence[str],
) -> tuple[Score, ...]:
    """The base, what it was made of, and what came out."""
    base = control.base.folder
    result = Subject(name=f"{target.name} (new)", base=base, adapter=out)
    return compare([Subject(name="base", base=base), *before, result], sources, against=against)


def _registered(control: Control, out: Path, target: Target, source: str, body: dict[str, Any]) -> Version | None:
    if target.sign is not None:
        target.sign(out)
    if target.dry_run:
        control.registry.check(out, name=target.name)
        return None
    return control.registry.register(
        out, name=target.name, who=target.who, note=target.note, source=source, found={"training": body}
    )


def _parents(parents: Sequence[Version]) -> list[dict[str, Any]]:
    return [{"name": one.name, "number": one.number, "digest": one.digest} for one in parents]


def _carried(found: Sequence[tuple[Any, str]], out: Path) -> tuple[str, ...]:
    """What all of them carry the result carries too; where they differ nobody can say which of them is meant."""
    documents_ = [document for document, _ in found]
    if not any(documents_):
        return ()
    if all(document == documents_[0] for document in documents_):
        (out / CARRIED).write_text(json.dumps(documents_[0], indent=2, ensure_ascii=False))
        return ()
    names = ", ".join(name for document, name in found if document)
    return (f"{names} carry defaults of their own (a system prompt, sampling), which differ: the result carries none.",)
