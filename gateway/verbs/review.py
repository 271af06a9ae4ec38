"""`graftline review`."""

from __future__ import annotations

import getpass
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from gateway.api.control.review import Among, Picks, Spoken
from gateway.verbs.console import say, table, when
from gateway.verbs.elsewhere import KeyFile, Url
from gateway.verbs.review_places import place
from monitoring.review.label_studio import config
from monitoring.review.values import By, Kind, Sides, State, Thumbs

app = typer.Typer(no_args_is_help=True)


class Side(StrEnum):
    LEFT = "left"
    RIGHT = "right"
    TIE = "tie"


class Thumb(StrEnum):
    UP = "up"
    DOWN = "down"


class Which(StrEnum):
    OPEN = "open"
    DONE = "done"
    ALL = "all"


Tenant = Annotated[str, typer.Option(help="Whose records, on this machine; elsewhere it is the key's.")]
Who = Annotated[str, typer.Option("--reviewer", help="Who reviews; your login when left out.")]
TaskId = Annotated[str, typer.Argument(help="The task, as `next` and `list` show it.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")]
Pairs = Annotated[list[str] | None, typer.Option(help="NAME=VALUE; may be repeated.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the route's document.")]


@app.command()
def pick(
    by: Annotated[By, typer.Option(help="What makes a record worth a look.")] = By.QUERY,
    n: Annotated[int, typer.Option("--n", "-n", help="How many.")] = 20,
    compare: Annotated[bool, typer.Option(help="Pair each with another adapter's answer to the same prompt.")] = False,
    overlap: Annotated[int, typer.Option(help="How many people are asked.")] = 1,
    since_h: Annotated[float, typer.Option(help="Only records of the last so many hours.")] = 168.0,
    model: Annotated[str, typer.Option(help="Asked for by this name.")] = "",
    adapter: Annotated[str, typer.Option(help="Answered by NAME or NAME:VERSION.")] = "",
    arm: Annotated[str, typer.Option(help="Of an experiment.")] = "",
    experiment: Annotated[str, typer.Option(help="By its id.")] = "",
    metadata: Pairs = None,
    completion: Annotated[list[str] | None, typer.Option(help="This answer, by its id; may be repeated.")] = None,
    tenant: Tenant = "default",
    dry_run: DryRun = False,
    url: Url = "",
    key_file: KeyFile = None,
) -> None:
    """Choose records for people to look at; each says why."""
    with _checked():
        among = Among(
            model=model,
            adapter=adapter,
            arm=arm,
            experiment=experiment,
            metadata=_pairs(metadata),
            completions=completion or [],
            since=max(time.time() - since_h * 3600, 0.0),
        )
        body = Picks(by=by, query=among, n=n, compare=compare, overlap=overlap, dry_run=dry_run)
    with place(url, key_file, tenant) as at:
        found = at.pick(body)
    _tasks("Would be picked" if dry_run else "Picked", found["data"])
    seen = f"looked at {found['looked_at']} records: {found['matching']} match, {found['hidden']} cannot be shown"
    say(f"{seen}, {found['found']} deserve a look; tasks are made of those that have none yet")


@app.command("next")
def following(
    kind: Annotated[Kind | None, typer.Option(help="Only tasks of this kind.")] = None,
    reviewer: Who = "",
    tenant: Tenant = "default",
    as_json: AsJson = False,
    url: Url = "",
    key_file: KeyFile = None,
) -> None:
    """Claim the next task and show it."""
    with place(url, key_file, tenant) as at:
        found = at.following(_reviewer(reviewer), kind)
    if as_json:
        say(json.dumps(found, ensure_ascii=False))
    elif found["task"] is None:
        say("nothing waits for you")
    else:
        for part in ("prompt", "answer", "left", "right"):
            if part in found:
                say(f"--- {part} ---\n{found[part]}")
        say(f"--- {found['task']['kind']} {found['task']['id']}, yours until {when(found['until'])} UTC ---")


@app.command()
def answer(
    task: TaskId,
    thumbs: Annotated[Thumb | None, typer.Option(help="Good or bad.")] = None,
    scalar: Pairs = None,
    comment: Annotated[str, typer.Option(help="In your own words.")] = "",
    correction_file: Annotated[Path | None, typer.Option(help="What the answer should have been.")] = None,
    choice: Annotated[Side | None, typer.Option(help="Which of two is better.")] = None,
    reviewer: Who = "",
    tenant: Tenant = "default",
    url: Url = "",
    key_file: KeyFile = None,
) -> None:
    """Say what you think of a task; it becomes feedback."""
    with _checked():
        body = Spoken(
            reviewer=_reviewer(reviewer),
            thumbs=_thumbs(thumbs),
            scalars={name: _number(name, value) for name, value in _pairs(scalar).items()},
            comment=comment,
            correction=correction_file.read_text() if correction_file else None,
            choice=_side(choice),
        )
    with place(url, key_file, tenant) as at:
        done = at.answer(task, body)
    say(f"answered: {done['answered']} of {done['overlap']}")


@app.command()
def skip(task: TaskId, reviewer: Who = "", tenant: Tenant = "default", url: Url = "", key_file: KeyFile = None) -> None:
    """Pass a task over; it does not come back to you."""
    with place(url, key_file, tenant) as at:
        at.skip(task, _reviewer(reviewer))
    say("passed over")


@app.command("list")
def list_tasks(
    state: Annotated[Which, typer.Option(help="Which of them.")] = Which.OPEN,
    limit: Annotated[int, typer.Option(help="How many at most.")] = 100,
    tenant: Tenant = "default",
    as_json: AsJson = False,
    url: Url = "",
    key_file: KeyFile = None,
) -> None:
    """Show tasks, oldest first."""
    with place(url, key_file, tenant) as at:
        found = at.list(_state(state), limit)
    if as_json:
        say(json.dumps(found, ensure_ascii=False))
    else:
        _tasks("Review", found["data"])


@app.command()
def agreement(tenant: Tenant = "default", as_json: AsJson = False, url: Url = "", key_file: KeyFile = None) -> None:
    """Show how far reviewers agree, and on how many tasks."""
    with place(url, key_file, tenant) as at:
        found = at.agreement()
    if as_json:
        say(json.dumps(found, ensure_ascii=False))
        return
    rows: list[tuple[object, ...]] = []
    for name in ("thumbs", "choices"):
        alpha, kappa, pairs = (found[name][each] for each in ("krippendorff_alpha", "fleiss_kappa", "cohen_kappa"))
        rows.append((name, "Krippendorff's alpha", *_figure(alpha)))
        rows.append((name, f"Fleiss' kappa, {kappa['reviewers']} each", *_figure(kappa)))
        rows += ((name, f"Cohen's kappa, {' and '.join(pair['reviewers'])}", *_figure(pair)) for pair in pairs)
    for name, figures in found["scalars"].items():
        rows.append((name, "Krippendorff's alpha, interval", *_figure(figures["krippendorff_alpha"])))
    table(f"Agreement ({found['answers']} answers)", ("of", "coefficient", "value", "tasks", "ratings"), rows)


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="A new JSON file for Label Studio.")],
    kind: Annotated[Kind, typer.Option(help="Each kind has a labelling interface of its own.")] = Kind.LABEL,
    state: Annotated[Which, typer.Option(help="Which tasks.")] = Which.ALL,
    scalar: Annotated[list[str] | None, typer.Option(help="A number to ask for; may be repeated.")] = None,
    tenant: Tenant = "default",
    url: Url = "",
    key_file: KeyFile = None,
) -> None:
    """Write tasks and answers in Label Studio's JSON, and the labelling interface beside it."""
    with place(url, key_file, tenant) as at:
        found = list(at.export(kind, _state(state)))
    file.write_text(json.dumps(found, ensure_ascii=False, indent=1))
    interface = file.with_suffix(".xml")
    interface.write_text(config(kind, scalar or ()))
    say(f"{len(found)} tasks in {file}, the labelling interface in {interface}")


@app.command("import")
def bring(
    file: Annotated[Path, typer.Argument(help="What Label Studio exported: JSON.")],
    tenant: Tenant = "default",
    url: Url = "",
    key_file: KeyFile = None,
) -> None:
    """Take what was labelled in Label Studio; all of a file or nothing."""
    with place(url, key_file, tenant) as at:
        found = at.bring(file)
    say(f"{found['answers']} answers on {found['tasks']} tasks; {found['known']} were known")


@contextmanager
def _checked() -> Iterator[None]:
    """What a body does not take, as a wrong option."""
    try:
        yield
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise typer.BadParameter("; ".join(lines)) from error


def _tasks(title: str, tasks: list[dict[str, Any]]) -> None:
    rows = (
        (each["id"], each["kind"], each["picked"]["by"], each["picked"].get("why", ""), _progress(each))
        for each in tasks
    )
    table(title, ("task", "kind", "picked by", "why", "answers"), rows)


def _progress(task: dict[str, Any]) -> str:
    return f"{task['answered']} of {task['overlap']}"


def _figure(found: dict[str, Any]) -> tuple[object, ...]:
    value = found["value"]
    return "-" if value is None else f"{value:.3f}", found["tasks"], found["ratings"]


def _reviewer(name: str) -> str:
    return name or getpass.getuser()


def _pairs(said: list[str] | None) -> dict[str, str]:
    found = [each.partition("=") for each in said or ()]
    if bad := [name for name, sign, _ in found if not sign or not name]:
        raise typer.BadParameter(f"{bad[0]!r} is not NAME=VALUE")
    return {name: value for name, _, value in found}


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise typer.BadParameter(f"{name}={value} is not a number") from None


def _thumbs(thumb: Thumb | None) -> Thumbs | None:
    return None if thumb is None else 1 if thumb is Thumb.UP else -1


def _side(choice: Side | None) -> Sides | None:
    sides: dict[Side, Sides] = {Side.LEFT: "left", Side.RIGHT: "right", Side.TIE: "tie"}
    return None if choice is None else sides[choice]


def _state(which: Which) -> State:
    states: dict[Which, State] = {Which.OPEN: "open", Which.DONE: "done", Which.ALL: "all"}
    return states[which]
