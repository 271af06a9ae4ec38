"""`graftline datasets build`, `show` and `import`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gateway.capture.compose import pseudonym
from gateway.control import Control, find_base, open_control, pseudonym_secret
from gateway.settings import Settings, load
from gateway.verbs.console import say, table
from monitoring.records.sql import SqlRecords
from training.data import values
from training.data.rules import Rules, parse
from training.data.rules import read as read_rules

if TYPE_CHECKING:
    from training.data.build import Built, Place

app = typer.Typer(no_args_is_help=True)

RulesFile = Annotated[Path | None, typer.Option("--rules", help="A TOML file with what the dataset is built by.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
_FOLDER = "datasets"
_DAY_S = 86_400.0


@app.command()
def build(
    kind: Annotated[str, typer.Option(help=f"What for: {', '.join(values.KINDS)}.")],
    rules: RulesFile = None,
    days: Annotated[float, typer.Option(help="Answers of the last so many days.", min=0.0)] = 30.0,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's; else all.")] = None,
    opt_outs: Annotated[Path | None, typer.Option(help="Users who must not be learnt from, one a line.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a dataset from what was answered and what was said of it."""
    from training.data.build import build as run
    from training.data.signals.stream import Window

    settings = load(os.environ)
    control = open_control(settings)
    asked = _rules(rules, kind=kind, **({"tenant": tenant} if tenant is not None else {}))
    running = [each.id for each in control.experiments.list(active=True) if not each.selftest]
    users = _users(opt_outs, pseudonym_secret(settings))
    with _place(settings, control) as place, _records(settings) as records:
        window = Window(since=time.time() - days * _DAY_S)
        made = run(records, asked, place, window=window, opted_out=users, experiments=running)
    _tell(made, as_json=as_json)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="JSONL, JSON, CSV, TSV, text or Parquet.")],
    kind: Annotated[str, typer.Option(help=f"What for: {', '.join(values.KINDS)}; by its first row when empty.")] = "",
    rules: RulesFile = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad lines out instead of refusing all.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what the file holds.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a dataset from a file; every bad line is named by its number."""
    from training.data.errors import BadFile
    from training.data.imports.read import check, import_file

    if dry_run or not kind:
        found = check(file, kind=parse({"kind": kind}).kind if kind else None)
        say(f"{file.name}: {found.rows} rows for {found.kind}, {found.bad} bad lines")
        if found.problems and not skip_bad:
            raise BadFile(file.name, found.problems, found=found.bad)
        kind = found.kind
    if not dry_run:
        with _place(load(os.environ), None) as place:
            made = import_file(file, _rules(rules, kind=kind), place, skip_bad=skip_bad)
        _tell(made, as_json=as_json)


@app.command()
def teach(
    name: Annotated[str, typer.Argument(help="A folder, or the beginning of a digest.")],
    url: Annotated[str, typer.Option(help="The teacher: an endpoint with OpenAI's chat completions, to /v1.")],
    model: Annotated[str, typer.Option(help="Which of its models.")],
    key_file: Annotated[Path | None, typer.Option(help="A file with the endpoint's key.")] = None,
    wordings: Annotated[int, typer.Option(help="Other wordings of each question.", min=0)] = 1,
    answers: Annotated[bool, typer.Option("--answers", help="Answers too, where a row wants one.")] = False,
    share: Annotated[float, typer.Option(help="The teacher's share of training rows, at most.")] = 0.2,
    as_json: AsJson = False,
) -> None:
    """A new dataset with rows of a teacher model: verified, marked, capped, and none in evaluation."""
    from training.data.parquet import find
    from training.data.teacher.ask import Endpoint
    from training.data.teacher.teach import Teaching
    from training.data.teacher.teach import teach as run

    with _place(load(os.environ), None) as place:
        folder = find(place.root, name)
        key = key_file.read_text().strip() if key_file else ""
        kept = place.root / f".taught-{folder.name[:16]}.jsonl"
        teacher = Endpoint(url=url, model=model, key=key, kept=kept)
        made = run(folder, teacher, Teaching(wordings=wordings, answers=answers, share_max=share), place)
        kept.unlink(missing_ok=True)
    _tell(made, as_json=as_json)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A folder, or the beginning of a digest; all of them when empty.")] = "",
    verify: Annotated[bool, typer.Option("--verify", help="Read all rows, and check that they are the ones.")] = False,
    as_json: AsJson = False,
) -> None:
    """List datasets, or tell what one holds and what it left out."""
    from training.data.manifest import REPORTS
    from training.data.parquet import find
    from training.data.parquet import load as load_dataset

    root = load(os.environ).home / _FOLDER
    if not name:
        rows = [
            (each.digest[7:19], each.kind, each.parts["train"].rows, each.parts["evaluation"].rows, each.origin[:40])
            for each in (load_dataset(path.parent) for path in sorted(root.glob("*/manifest.json")))
        ]
        table("Datasets", ("digest", "kind", "train", "evaluation", "from"), rows)
        return
    folder = find(root, name)
    load_dataset(folder, verify=verify)
    say((folder / REPORTS[as_json]).read_text().rstrip())
    if verify:
        say("verified: its rows are the ones that its name stands for")


def _users(path: Path | None, secret: bytes) -> list[str]:
    """As records name them, whether the file has their names or their pseudonyms."""
    return [pseudonym(name.strip(), secret) for name in path.read_text().splitlines() if name.strip()] if path else []


def _rules(path: Path | None, **over: Any) -> Rules:
    return read_rules(path, **over) if path else parse(over)


@contextmanager
def _records(settings: Settings) -> Iterator[SqlRecords]:
    records = SqlRecords(settings.records_url or settings.home.absolute() / "records")
    try:
        yield records
    finally:
        records.close()


@contextmanager
def _place(settings: Settings, control: Control | None) -> Iterator[Place]:
    """Where datasets go, with a progress line on a terminal."""
    from training.data.build import Place
    from training.data.template import Template

    base = find_base(settings)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading", total=None)
        yield Place(
            root=settings.home.absolute() / _FOLDER,
            template=Template(base.folder),
            base=base.digest,
            generations=_generations(control) if control else {},
            progress=lambda stage, done, total: progress.update(task, description=stage, completed=done, total=total),
        )


def _generations(control: Control) -> dict[str, int]:
    """How many versions came after each, up to the one that is live; the base came before all of them."""
    after: dict[str, int] = {}
    newest = 0
    for alias in control.adapters.aliases():
        if alias.alias == "live":
            newest = max(newest, alias.number)
            for version in control.adapters.list(alias.name):
                behind = max(0, alias.number - version.number)
                after[version.digest] = min(behind, after.get(version.digest, behind))
    return {control.base.digest: newest, **after}


def _tell(made: Built, *, as_json: bool) -> None:
    say(json.dumps(made.report.document(), ensure_ascii=False) if as_json else made.report.text().rstrip())
    if not as_json:
        say(f"written to {made.folder}")
