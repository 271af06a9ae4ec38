"""`graftline merge`, `reduce` and `export-model`: versions made of versions, and models of their own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, get_args

import typer

from adapters.lifecycle import State
from gateway import reshaping
from gateway.control import Control, open_control, wait_verified
from gateway.settings import Settings, load
from gateway.verbs.console import say, table
from training.exporting.compare import Row, Score, spoken
from training.exporting.packing import Compressor, Method
from training.merge import HOW
from training.recipes import rows as rows_of

WHO = "cli"
Rows = Annotated[
    list[str] | None,
    typer.Option(
        "--rows", help="Rows to score on, before and after: a file, a dataset's folder, tidewell:NAME; may be repeated."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Make it and score it; register nothing.")]
WaitS = Annotated[float, typer.Option(help="How long to wait for an engine to prove it.")]
Note = Annotated[str, typer.Option(help="A line about this version.")]


class Way(StrEnum):
    """As `training.merge` calls them."""

    LINEAR = "linear"
    CAT = "cat"
    SVD = "svd"
    TIES = "ties"
    DARE = "dare"


class Scheme(StrEnum):
    """As `training.quantize` calls them."""

    SYMMETRIC = "w4a16"
    ASYMMETRIC = "w4a16_asym"


class Rounding(StrEnum):
    """How llm-compressor rounds."""

    GPTQ = "gptq"
    AWQ = "awq"


def merge(
    models: Annotated[list[str], typer.Argument(help="Two or more versions: NAME:7, NAME@ALIAS, or NAME.")],
    name: Annotated[str, typer.Option(help="The result's name.")],
    how: Annotated[Way, typer.Option(help="linear, cat, svd, ties or dare.")] = Way.SVD,
    weights: Annotated[str, typer.Option(help="One a version, such as 1,0.5; left out: 1 each.")] = "",
    density: Annotated[float, typer.Option(help="The share of changes that ties and dare keep.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Decides what dare drops.")] = 0,
    rows: Rows = None,
    note: Note = "",
    wait_s: WaitS = 60.0,
    dry_run: DryRun = False,
) -> None:
    """Make one adapter of several that were trained on the same base, and register it."""
    settings = load(os.environ)
    control, target = open_control(settings), _target(settings, name, note, dry_run=dry_run)
    made = reshaping.merged(
        control,
        models,
        target,
        how=next(one for one in HOW if one == how),
        weights=_weights(weights, len(models)),
        density=density,
        seed=seed,
        sources=_sources(rows),
    )
    _told(control, made, wait_s=wait_s)


def reduce(
    model: Annotated[str, typer.Argument(help="A version, NAME:7, or the folder of a DoRA adapter.")],
    rank: Annotated[int, typer.Option(min=1, help="The largest rank that the result may have.")],
    name: Annotated[str, typer.Option(help="The result's name; left out: a new version of the same.")] = "",
    rows: Rows = None,
    note: Note = "",
    wait_s: WaitS = 60.0,
    dry_run: DryRun = False,
) -> None:
    """Make an adapter smaller: the nearest plain LoRA of a rank, registered and scored beside what it was."""
    if not name and Path(model).is_dir():
        raise typer.BadParameter("a folder has no name: give --name")
    settings = load(os.environ)
    control = open_control(settings)
    target = _target(settings, name or control.registry.resolve_name(model).name, note, dry_run=dry_run)
    made = reshaping.reduced(control, model, target, rank=rank, sources=_sources(rows))
    _told(control, made, wait_s=wait_s)


def export_model(
    model: Annotated[str, typer.Argument(help="A version: NAME:7, NAME@ALIAS, or NAME for what is live.")],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    quantize: Annotated[Scheme | None, typer.Option(help="Pack it: w4a16 or w4a16_asym; left out: bf16.")] = None,
    group: Annotated[int, typer.Option(help="Weights that share a scale.")] = 64,
    onto: Annotated[
        Path | None, typer.Option(help="The bf16 checkpoint to merge onto; left out: the base, unpacked.")
    ] = None,
    rows: Rows = None,
    compressor: Annotated[
        Path | None, typer.Option(help="Pack by llm-compressor: the Python of its own environment.")
    ] = None,
    rounding: Annotated[Rounding, typer.Option(help="How llm-compressor rounds.")] = Rounding.GPTQ,
) -> None:
    """Write base and adapter as one model that needs no adapter, and score it before and after."""
    from training.exporting.export import export_model as run
    from training.quantize import Scheme as Packing

    if compressor is not None and quantize is None:
        raise typer.BadParameter("--compressor packs: give --quantize too")
    control, sources = open_control(load(os.environ)), _sources(rows)
    version, base = control.registry.resolve_name(model), control.base
    about = {
        "adapter": {"name": version.name, "number": version.number, "digest": version.digest},
        "base": {"name": base.name, "digest": base.digest}, "carried": version.carried.document(),
    }  # fmt: skip
    done = run(
        base.folder,
        control.registry.verify(version.name, version.number),
        out,
        about=about,
        sources=sources,
        onto=onto,
        scheme=next((one for one in get_args(Packing) if one == quantize), None),
        group=group,
        by=_compressor(compressor, rounding, sources, base.folder) if compressor else None,
    )
    _scores(done.scores)
    if version.carried:
        say(f"{model} carries defaults, such as a system prompt. They are not in the model; card.json tells them.")
    say(f"{out}: {done.digest}. Serve it with `graftline up --base {out}`.")


def _compressor(python: Path, rounding: Rounding, sources: Mapping[str, Sequence[Row]], base: Path) -> Compressor:
    """llm-compressor as it will be called: it rounds by the rows that the model is scored on."""
    method: Method = "gptq" if rounding is Rounding.GPTQ else "awq"
    return Compressor(python=python, method=method, texts=spoken(sources, base))


def _told(control: Control, made: reshaping.Made, *, wait_s: float) -> None:
    """The scores, and what became of the version."""
    _scores(made.scores)
    for warning in made.warnings:
        say(warning)
    say(f"rank {made.rank}; {made.loss:.4f} of the wanted change is lost")
    if made.version is None:
        say("It was not registered.")
        return
    version = made.version
    say(f"{version.name}:{version.number} {version.digest} {version.state}, from {version.source}")
    version = wait_verified(control, version, timeout_s=wait_s)
    say(f"{version.name}:{version.number} is {version.state}")
    if version.state is not State.VERIFIED:
        raise typer.Exit(2)


def _scores(scores: Sequence[Score]) -> None:
    others = list(dict.fromkeys(name for score in scores for name in score.near))
    columns = ["rows from", "model", "tokens", "loss", *(f"same next word as {name}" for name in others)]
    lines = []
    for score in scores:
        near = [f"{score.near[name].same_next:.3f}" if name in score.near else "" for name in others]
        lines.append((score.source, score.subject, score.tokens, f"{score.loss:.4f}", *near))
    table("Before and after", columns, lines)


def _sources(names: Sequence[str] | None) -> dict[str, list[Row]]:
    return {name: rows_of.read(name, split="evaluation") for name in names or ()}


def _target(settings: Settings, name: str, note: str, *, dry_run: bool) -> reshaping.Target:
    from gateway.tuning.signing import make_sign

    return reshaping.Target(name=name, who=WHO, note=note, dry_run=dry_run, sign=make_sign(settings))


def _weights(said: str, count: int) -> list[float]:
    try:
        found = [float(part) for part in said.split(",")] if said else [1.0] * count
    except ValueError as error:
        raise typer.BadParameter(f"--weights are numbers with commas between them; found {said!r}") from error
    return found
