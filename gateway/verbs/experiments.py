"""`graftline experiments`: opened, listed, shown, stopped, here or at a gateway elsewhere."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.api.control.experiments import Asked, defined
from gateway.api.control.experiments_documents import RULINGS_NEEDED, document, looked, ruled
from gateway.control import Control, open_control
from gateway.experimenting.opening import open_experiment, stop_experiment
from gateway.experimenting.tables import counted
from gateway.settings import Settings, load
from gateway.verbs import plot as plots
from gateway.verbs.console import say, table, when
from gateway.verbs.definitions import asked, by_options, read
from gateway.verbs.elsewhere import KeyFile, Url, door
from monitoring.records.sql import SqlRecords

app = typer.Typer(no_args_is_help=True)
WHO = "cli"
#: How many looks a plot is drawn of at most.
PLOTTED_MAX = 10_000

Id = Annotated[str, typer.Argument(metavar="ID", help="The experiment's id, as `list` shows it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, as the route gives it.")]


@app.command("open")
def open_(
    file: Annotated[
        Path | None, typer.Argument(help="YAML, JSON or TOML with the fields of POST /v1/experiments.")
    ] = None,
    name: Annotated[str, typer.Option(help="The adapter.")] = "",
    alias: Annotated[str, typer.Option(help="Which alias of it.")] = "live",
    arm: Annotated[list[str] | None, typer.Option(help="NAME=NUMBER; the control first. May be repeated.")] = None,
    primary: Annotated[str, typer.Option(help="The metric that decides.")] = "",
    guardrail: Annotated[list[str] | None, typer.Option(help="METRIC=MARGIN. May be repeated.")] = None,
    unit: Annotated[str, typer.Option(help="user, conversation, key or request.")] = "user",
    share: Annotated[
        int | None, typer.Option(help="Basis points of the units in each arm, at once; else a ramp.")
    ] = None,
    ask: Annotated[bool, typer.Option(help="Promote only once a person has approved.")] = False,
    note: Annotated[str, typer.Option(help="What this is about.")] = "",
    as_json: AsJson = False,
    url: Url = "",
    key_file: KeyFile = None,
) -> None:
    """Open an experiment on an alias, from a file or from options."""
    if file is not None:
        body = asked(read(file))
    else:
        body = by_options(
            name=name,
            alias=alias,
            arms=arm or [],
            primary=primary,
            guardrails=guardrail or [],
            unit=unit,
            share=share,
            ask=ask,
            note=note,
        )
    found = door(url, key_file).post("/v1/experiments", body.model_dump()) if url else _opened(body)
    if as_json:
        _print(found)
    else:
        say(_standing(found))


@app.command("list")
def list_experiments(
    name: Annotated[str | None, typer.Option(help="Only of this adapter.")] = None,
    active: Annotated[bool, typer.Option("--active", help="Only what runs.")] = False,
    as_json: AsJson = False,
    url: Url = "",
    key_file: KeyFile = None,
) -> None:
    """Show every experiment, the newest first."""
    if url:
        query: dict[str, str | int | bool] = {"active": active, **({"name": name} if name else {})}
        data = door(url, key_file).get("/v1/experiments", **query)["data"]
    else:
        data = [document(each) for each in open_control(load(os.environ)).experiments.list(name, active=active)]
    if as_json:
        _print({"object": "list", "data": data, "has_more": False})
        return
    rows = (
        (
            each["id"],
            f"{each['name']}@{each['alias']}",
            each["stage"],
            f"{each['share'] / 100:g} %",
            " ".join(f"{arm['name']}={arm['number']}" for arm in each["arms"]),
            when(each["opened_at"]),
            each["opened_by"],
        )
        for each in data
    )
    table("Experiments", ("id", "alias", "stage", "share", "arms", "opened (UTC)", "by"), rows)


@app.command()
def show(
    experiment: Id,
    plot: Annotated[Path | None, typer.Option(help="Write the intervals over time to this PNG.")] = None,
    as_json: AsJson = False,
    url: Url = "",
    key_file: KeyFile = None,
) -> None:
    """Show arms, units, estimates with intervals, guardrails, sample ratio, and what it is waiting for."""
    at = door(url, key_file) if url else None
    settings = None if at else load(os.environ)
    control = open_control(settings) if settings else None
    found: dict[str, Any]
    if settings and control:
        found = _shown(settings, control, experiment)
    else:
        assert at is not None
        found = at.get(f"/v1/experiments/{experiment}", counts=True)
    if as_json:
        _print(found)
    else:
        _told(found)
    if plot is not None:
        if control:
            rulings = [ruled(each) for each in control.experiments.rulings(found["id"], PLOTTED_MAX)]
        else:
            assert at is not None
            rulings = at.get(f"/v1/experiments/{experiment}/rulings", limit=PLOTTED_MAX)["data"]
        plots.draw(found, rulings, plot)
        if not as_json:
            say(f"wrote {plot}")


@app.command()
def stop(
    experiment: Id,
    why: Annotated[str, typer.Option(help="The reason, for the ruling.")] = "",
    url: Url = "",
    key_file: KeyFile = None,
) -> None:
    """End an experiment without a decision: everybody is served what the alias points at."""
    if url:
        stage = door(url, key_file).post(f"/v1/experiments/{experiment}/stop", {"why": why})["stage"]
    else:
        control = open_control(load(os.environ))
        stage = stop_experiment(control, experiment, who=WHO, why=why, now=time.time()).stage
    say(f"{experiment} is {stage}")


def _opened(body: Asked) -> dict[str, Any]:
    settings = load(os.environ)
    return looked(open_experiment(open_control(settings), settings, defined(body), who=WHO, now=time.time()))


def _shown(settings: Settings, control: Control, id_: str) -> dict[str, Any]:
    store = control.experiments
    found = store.get(id_)
    records = SqlRecords(settings.records_url or settings.home.absolute() / "records")
    try:
        counts = counted(found, records.trial(found.id))
    finally:
        records.close()
    return {**looked(found, store.rulings(found.id, RULINGS_NEEDED), store.proposals(found.id)), "counts": counts}


def _print(found: dict[str, Any]) -> None:
    say(json.dumps(found, indent=2, ensure_ascii=False))


def _standing(found: dict[str, Any]) -> str:
    share = f"{found['share'] / 100:g} % of the units in each arm"
    return f"{found['id']} on {found['name']}@{found['alias']}: {found['stage']}, {share}"


def _told(found: dict[str, Any]) -> None:
    say(_standing(found))
    say(
        f"opened {when(found['opened_at'])} UTC by {found['opened_by']}"
        + (f": {found['note']}" if found["note"] else "")
    )
    arms = found["counts"]["arms"]
    rows = (
        (
            arm["name"] + (" (dropped)" if arm["name"] in found["dropped"] else ""),
            arm["number"],
            found["units"].get(arm["name"], 0),
            found["settled"].get(arm["name"], 0),
            *(arms[arm["name"]][column] for column in ("requests", "errors", "thumbs_up", "thumbs_down")),
        )
        for arm in found["arms"]
    )
    table("Arms", ("arm", "version", "units", "settled", "requests", "errors", "up", "down"), rows)
    columns = ("metric", "role", "arm", "control", "treatment", "difference (above 0 is better)", "guard")
    table("Estimates", columns, map(_estimate, found["estimates"]))
    if (srm := found["srm"]) is not None:
        state = "ALARM" if srm["alarm"] else "quiet"
        say(f"sample ratio: {state} (evidence {srm['evidence']:.2f}, alarm from {srm['threshold']:.2f} on)")
    for proposal in found["proposals"]:
        say(f"proposal {proposal['id']}: {proposal['verdict']} {proposal['arm']}, {proposal['answer']}")
    for reason in found["waits_for"]:
        say(f"{found['verdict']}: {reason}")


def _estimate(found: dict[str, Any]) -> tuple[object, ...]:
    lower, upper = found["lower"], found["upper"]
    between = f" [{_number(lower, '-∞')}, {_number(upper, '+∞')}]"
    levels = (_number(found["control"], "?"), _number(found["treatment"], "?"))
    return (
        found["metric"],
        found["role"],
        found["arm"],
        *levels,
        _number(found["estimate"], "?") + between,
        found["guard"] or "",
    )


def _number(value: float | None, otherwise: str) -> str:
    return otherwise if value is None else f"{value:.4g}"
