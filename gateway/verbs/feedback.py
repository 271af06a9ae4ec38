"""`graftline feedback`."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated, Any

import typer

from gateway.api.control.feedback import listed
from gateway.control import pseudonym_secret
from gateway.saying import about, say_here
from gateway.settings import load
from gateway.verbs.console import say, table, when
from gateway.verbs.elsewhere import KeyFile, Url, door
from gateway.words import Speaker, Word, checked
from monitoring.records.sql import SqlRecords

app = typer.Typer(no_args_is_help=True)


class Said(StrEnum):
    """The kinds of feedback."""

    THUMBS = "thumbs"
    SCALAR = "scalar"
    COMMENT = "comment"
    CORRECTION = "correction"
    PREFERENCE = "preference"
    IMPLICIT = "implicit"


class Rater(StrEnum):
    """Who says it."""

    USER = "user"
    REVIEWER = "reviewer"
    JUDGE = "judge"
    SYSTEM = "system"


Tenant = Annotated[str, typer.Option(help="Whose answers; elsewhere it is the key's tenant.")]


@app.command()
def send(
    target: Annotated[str, typer.Argument(help="The completion's id, or a conversation with --conversation.")],
    kind: Annotated[Said, typer.Option(help="What is said.")],
    value: Annotated[float | None, typer.Option(help="A thumb (1, 0 or -1) or a scalar's number.")] = None,
    name: Annotated[str, typer.Option(help="Of a scalar; or copied, regenerated, abandoned.")] = "",
    text: Annotated[str | None, typer.Option(help="A comment, or the answer as it should have been.")] = None,
    other: Annotated[str | None, typer.Option(help="The completion that this one is preferred to.")] = None,
    rater: Annotated[str, typer.Option(help="Who says it; the last word of each counts.")] = "",
    rater_kind: Annotated[Rater, typer.Option(help="What the rater is.")] = Rater.USER,
    conversation: Annotated[bool, typer.Option("--conversation", help="The target is a conversation.")] = False,
    take_back: Annotated[bool, typer.Option("--take-back", help="What this rater said before does not hold.")] = False,
    tenant: Tenant = "default",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check it; keep nothing.")] = False,
    url: Url = "",
    key_file: KeyFile = None,
) -> None:
    """Say something of an answer; it is on the disk when this returns."""
    word = Word(
        target=target,
        target_kind="conversation" if conversation else "completion",
        kind=kind.value,
        name=name,
        value=value,
        taken_back=take_back,
        text=text,
        other=other,
        rater=rater,
        rater_kind=rater_kind.value,
    )
    speaker = Speaker(tenant=tenant)
    checked(word, speaker)
    if dry_run:
        say(f"would be kept: {kind} of {target}")
    elif url:
        sent = door(url, key_file).post("/v1/feedback", _body(word))
        say(str(sent["id"]))
    else:
        (said,) = say_here(load(os.environ), [word], speaker)
        say(said.id)


@app.command("list")
def list_feedback(
    target: Annotated[str, typer.Option(help="Only of this completion or conversation.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, oldest first.")] = 100,
    after: Annotated[str, typer.Option(help="The id that the page before ended with.")] = "",
    history: Annotated[bool, typer.Option("--history", help="Also what a later word has replaced.")] = False,
    pending: Annotated[bool, typer.Option("--pending", help="What no answer is known for.")] = False,
    tenant: Tenant = "default",
    url: Url = "",
    key_file: KeyFile = None,
) -> None:
    """Show what was said, oldest first."""
    if url:
        asked: dict[str, str | int | bool] = {
            "target": target,
            "after": after,
            "limit": limit,
            "history": history,
            "pending": pending,
        }
        _show(door(url, key_file).get("/v1/feedback", **{name: value for name, value in asked.items() if value}))
        return
    settings = load(os.environ)
    records = SqlRecords(settings.records_url or settings.home.absolute() / "records")
    kept = about(target, pseudonym_secret(settings)) if target else None
    try:
        _show(listed(records, tenant, target=kept, since=0, after=after, limit=limit, history=history, pending=pending))
    finally:
        records.close()


def _show(page: dict[str, Any]) -> None:
    table(
        "Feedback",
        ("id", "when", "target", "kind", "name", "value", "text", "other", "rater", "source"),
        (
            (
                each["id"],
                when(each["created_at"]),
                each["target"],
                each["kind"],
                each["name"],
                "" if each["value"] is None else f"{each['value']:g}",
                (each["text"] or "")[:60],
                each["other"] or "",
                f"{each['rater_kind']} {each['rater']}".strip(),
                each["source"],
            )
            for each in page["data"]
        ),
    )
    if page["has_more"]:
        say(f"there is more: --after {page['last_id']}")


def _body(word: Word) -> dict[str, Any]:
    """The word as the route takes it: a value of null takes back."""
    named: dict[str, Any] = {
        "target": word.target,
        "target_kind": word.target_kind,
        "kind": word.kind,
        "name": word.name,
        "text": word.text,
        "other": word.other,
        "rater": word.rater,
        "rater_kind": word.rater_kind,
    }
    return named | ({"value": word.value} if word.value is not None or word.taken_back else {})
