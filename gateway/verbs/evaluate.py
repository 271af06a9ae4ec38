"""`graftline evaluate`: a version against its base and the live one, on the engine that serves."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from adapters.errors import NotFound
from adapters.registry import engine_name
from adapters.store import Version
from gateway.control import Control, open_control
from gateway.settings import Settings, load
from gateway.tuning.suites import judge_of
from gateway.verbs.console import say, table
from training.data.errors import DatasetNotFound
from training.data.parquet import find
from training.evaluation.errors import BadPlan
from training.evaluation.kept import Kept
from training.evaluation.progress import Asking, Event, Noted
from training.evaluation.run import evaluate as run
from training.evaluation.suites.standard import Evaluating, suites
from training.evaluation.values import Difference, Endpoint, Evaluation, Judge, Measured, Models, Plan
from training.recipes import strict_yaml

_FOLDER = "evaluations"


def evaluate(
    name: Annotated[str, typer.Argument(help="NAME, NAME@ALIAS or NAME:NUMBER.")],
    held: Annotated[str, typer.Option(help="Held-out rows: a file, a dataset, or tidewell:NAME.")] = "",
    plan: Annotated[Path | None, typer.Option(help="A YAML file as the `evaluation:` section of a recipe.")] = None,
    judge_url: Annotated[
        str, typer.Option(help="An OpenAI-compatible endpoint that compares answers; by the settings when empty.")
    ] = "",
    judge_model: Annotated[str, typer.Option(help="The judge's model.")] = "",
    judge_key_file: Annotated[Path | None, typer.Option(help="The file that holds the judge's key.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where evaluation.json goes; under `home` when empty.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the evaluation instead of a table.")] = False,
) -> None:
    """Ask a version held-out questions, and compare its answers with the base's and the live version's."""
    settings = load(os.environ)
    control = open_control(settings)
    version = control.registry.resolve_name(name)
    wanted = _wanted(plan)
    asked = Plan(
        engine=Endpoint(url=next(iter(settings.replicas.values()))),
        models=Models(candidate=engine_name(version), base=settings.served_name, live=_live(control, version)),
        suites=suites(wanted, held=_source(held, settings), shop=settings.base == "tidewell"),
        judge=_judge(judge_url, judge_model, judge_key_file) or judge_of(settings),
    )
    path = out or settings.home.absolute() / _FOLDER / f"{version.name}-{version.number}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with _bars() as progress, Kept(path.with_suffix(".part")) as kept:
        done, _ = asyncio.run(run(asked, progress, kept=kept))
    path.write_bytes(done.dump())
    if as_json:
        say(json.dumps(done.document(), ensure_ascii=False))
        return
    show(done, f"{version.name}:{version.number}")
    say(f"written to {path}")


def show(done: Evaluation, title: str) -> None:
    """The candidate's numbers beside what they are held against, with intervals."""
    rows = [
        (each.name, each.n, _number(each), *map(_apart, (each, each), ("base", "live")))
        for each in done.of("candidate")
    ]
    table(f"{title}, {done.level:.0%} intervals", ("measure", "rows", "value", "against base", "against live"), rows)
    cuts = [
        (each.name, cut.by, cut.worst, f"{cut.gap:.3g}")
        for each in done.of("candidate")
        for cut in each.cuts
        if cut.gap
    ]
    if cuts:
        table("Slices", ("measure", "by", "worst", "gap"), cuts)
    for text in done.warnings:
        say(text)


def _number(each: Measured) -> str:
    return f"{each.value:.3f} [{each.low:.3f}, {each.high:.3f}]"


def _apart(each: Measured, other: str) -> str:
    found: Difference | None = next((one for one in each.versus if one.versus == other), None)
    return "" if found is None else f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def _wanted(path: Path | None) -> Evaluating:
    if path is None:
        return Evaluating()
    fields = strict_yaml.read(path.read_text(encoding="utf-8"))
    try:
        return Evaluating.model_validate_json(json.dumps(fields), strict=True)
    except ValueError as error:
        raise BadPlan([str(error)]) from error


def _live(control: Control, version: Version) -> str:
    """The engine's name of the version that is live, unless it is this one."""
    try:
        live = control.registry.resolve_name(version.name)
    except NotFound:
        return ""
    return "" if live.digest == version.digest else engine_name(live)


def _source(held: str, settings: Settings) -> str:
    """A dataset may be named by its digest."""
    if not held or held.startswith("tidewell:") or Path(held).exists():
        return held
    try:
        return str(find(settings.home.absolute() / "datasets", held))
    except DatasetNotFound as error:
        raise BadPlan([f"--held: {error}"]) from error


def _judge(url: str, model: str, key_file: Path | None) -> Judge | None:
    if not url:
        return None
    if not model:
        raise BadPlan(["--judge-url needs --judge-model"])
    key = key_file.read_text().strip() if key_file is not None else ""
    return Judge(url=url, model=model, key=SecretStr(key))


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Progress as a bar for each suite and subject."""

    bars: Bars
    tasks: dict[str, TaskID]

    def said(self, event: Event) -> None:
        """Draw it."""
        if isinstance(event, Asking):
            name = f"{event.suite}, {event.who}"
            if name not in self.tasks:
                self.tasks[name] = self.bars.add_task(name, total=event.of)
            self.bars.update(self.tasks[name], completed=event.done)
        elif isinstance(event, Noted):
            self.bars.console.print(event.text, markup=False)


@contextmanager
def _bars() -> Iterator[_Drawn]:
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        yield _Drawn(bars, {})
