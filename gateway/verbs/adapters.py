"""`graftline adapters`."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from adapters.lifecycle import State
from gateway.control import open_control, wait_verified
from gateway.settings import load
from gateway.verbs.console import say, table


class Instead(StrEnum):
    """What answers while an alias's version cannot."""

    FAIL = "fail"
    PREVIOUS = "previous"
    BASE = "base"


app = typer.Typer(no_args_is_help=True)
WHO = "cli"

Name = Annotated[str, typer.Argument(help="The adapter's name.")]
Why = Annotated[str, typer.Option(help="The reason, for the audit row.")]


@app.command()
def register(
    folder: Annotated[Path, typer.Argument(help="A PEFT adapter folder.")],
    name: Annotated[str, typer.Option(help="The adapter's name.")],
    note: Annotated[str, typer.Option(help="A line about this version.")] = "",
    promote: Annotated[bool, typer.Option(help="Make it live once it is verified.")] = False,
    wait_s: Annotated[float, typer.Option(help="How long to wait for an engine to prove it.")] = 60.0,
) -> None:
    """Check an adapter, store it, and wait until an engine has loaded and proved it."""
    control = open_control(load(os.environ))
    version = control.registry.register(folder, name=name, who=WHO, note=note)
    say(f"{version.name}:{version.number} {version.digest} {version.state} (covers {version.coverage})")
    version = wait_verified(control, version, timeout_s=wait_s)
    if version.state is not State.VERIFIED:
        say(f"still {version.state}: no engine has proved it yet; `graftline adapters show {name}` tells when one has")
        raise typer.Exit(2)
    say(f"verified: {version.note}" if version.note else "verified")
    if promote:
        alias = control.registry.promote(name, version.number, who=WHO, why="register --promote")
        say(f"{alias.name}@{alias.alias} → {alias.number}")


@app.command("list")
def list_adapters() -> None:
    """Show every adapter with the versions its aliases point at."""
    control = open_control(load(os.environ))
    pointed: dict[str, list[str]] = {}
    for alias in control.adapters.aliases():
        pointed.setdefault(alias.name, []).append(f"{alias.alias}→{alias.number}")
    counts: dict[str, list[str]] = {}
    for version in control.adapters.list():
        counts.setdefault(version.name, []).append(f"{version.number}:{version.state}")
    rows = ((name, " ".join(pointed.get(name, [])), " ".join(found[-8:])) for name, found in sorted(counts.items()))
    table("Adapters", ("name", "aliases", "versions (newest last)"), rows)


@app.command()
def show(name: Name) -> None:
    """Show an adapter's versions, aliases and history."""
    control = open_control(load(os.environ))
    table(
        name,
        ("version", "state", "digest", "rank", "coverage", "why not"),
        (
            (v.number, v.state, v.digest[:23], v.rank, v.coverage, "; ".join(map(str, v.reasons)))
            for v in control.adapters.list(name)
        ),
    )
    table(
        "History",
        ("who", "action", "what", "from", "to", "why"),
        ((a.who, a.action, a.subject, a.before, a.after, a.why) for a in control.adapters.audit(name, 20)),
    )


@app.command()
def promote(
    name: Name,
    number: Annotated[int, typer.Argument(help="The version.")],
    alias: Annotated[str, typer.Option(help="Which alias to move.")] = "live",
    on_unavailable: Annotated[Instead | None, typer.Option(help="What answers while the version cannot.")] = None,
    why: Why = "",
) -> None:
    """Point an alias at a verified version."""
    moved = open_control(load(os.environ)).registry.promote(
        name,
        number,
        alias=alias,
        who=WHO,
        why=why,
        on_unavailable=on_unavailable.value if on_unavailable else None,
    )
    say(f"{moved.name}@{moved.alias} → {moved.number} (was {moved.previous})")


@app.command()
def rollback(name: Name, why: Why = "") -> None:
    """Point `live` back at the version before."""
    moved = open_control(load(os.environ)).registry.rollback(name, who=WHO, why=why)
    say(f"{moved.name}@{moved.alias} → {moved.number} (was {moved.previous})")


@app.command()
def retire(name: Name, number: Annotated[int, typer.Argument(help="The version.")], why: Why = "") -> None:
    """Take a version out of service for good."""
    version = open_control(load(os.environ)).registry.retire(name, number, who=WHO, why=why)
    say(f"{version.name}:{version.number} is {version.state}")
