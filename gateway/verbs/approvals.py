"""`graftline approvals`: what waits for a person, and the answers."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.api.control.approvals import ANSWERS
from gateway.api.control.experiments_documents import proposed
from gateway.control import open_control
from gateway.experimenting.opening import answer_proposal
from gateway.settings import load
from gateway.verbs.console import say, table, when
from gateway.verbs.elsewhere import KeyFile, Url, door

app = typer.Typer(no_args_is_help=True)
WHO = "cli"

Id = Annotated[str, typer.Argument(metavar="ID", help="The proposal's id, as `list` shows it.")]
Why = Annotated[str, typer.Option(help="The reason; it stays with the proposal.")]


@app.command("list")
def list_approvals(
    every: Annotated[bool, typer.Option("--all", help="Also what is over.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, as the route gives it.")] = False,
    url: Url = "",
    key_file: KeyFile = None,
) -> None:
    """Show what waits to be answered or carried out, the newest first."""
    if url:
        data = door(url, key_file).get("/v1/approvals", all=every)["data"]
    else:
        data = [proposed(each) for each in open_control(load(os.environ)).experiments.proposals(open_only=not every)]
    if as_json:
        say(json.dumps({"object": "list", "data": data, "has_more": False}, indent=2, ensure_ascii=False))
        return
    columns = ("id", "what", "needs", "until (UTC)", "answer", "by", "why", "because")
    table("Approvals", columns, map(_row, data))


@app.command()
def approve(proposal: Id, why: Why = "", url: Url = "", key_file: KeyFile = None) -> None:
    """Let a decision be carried out at the next look."""
    _answer("approve", proposal, why, url, key_file)


@app.command()
def reject(proposal: Id, why: Why = "", url: Url = "", key_file: KeyFile = None) -> None:
    """Refuse a decision; it is not asked again before it would have expired."""
    _answer("reject", proposal, why, url, key_file)


def _answer(answer: str, proposal: str, why: str, url: str, key_file: Path | None) -> None:
    if url:
        found = door(url, key_file).post(f"/v1/approvals/{proposal}", {"answer": answer, "why": why})
    else:
        control = open_control(load(os.environ))
        found = proposed(answer_proposal(control, proposal, ANSWERS[answer], who=WHO, why=why, now=time.time()))
    say(f"{found['id']}: {found['verdict']} {found['arm']} is {found['answer']}")


def _row(each: dict[str, Any]) -> tuple[object, ...]:
    what = f"{each['verdict']} {each['arm']}".strip()
    reasons = "; ".join(each["reasons"])
    return (
        each["id"],
        what,
        each["role"],
        when(each["expires_at"]),
        each["answer"],
        each["decided_by"],
        each["why"],
        reasons,
    )
