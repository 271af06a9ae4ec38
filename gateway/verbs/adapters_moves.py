"""`graftline adapters promote`, `rollback`, `pin`, `unpin`, `retire`."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated

import typer

from adapters.errors import IllegalMove
from adapters.gate import make_gate
from adapters.store import Alias
from gateway.control import open_control
from gateway.settings import load
from gateway.verbs.console import say

WHO = "cli"


class Instead(StrEnum):
    """What answers while an alias's version cannot."""

    FAIL = "fail"
    PREVIOUS = "previous"
    BASE = "base"


Name = Annotated[str, typer.Argument(help="The adapter's name.")]
Number = Annotated[int, typer.Argument(help="The version.")]
Why = Annotated[str, typer.Option(help="The reason, for the audit row.")]
Which = Annotated[str, typer.Option(help="Which alias.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")]


def promote(
    name: Name,
    number: Number,
    alias: Which = "live",
    on_unavailable: Annotated[Instead | None, typer.Option(help="What answers while the version cannot.")] = None,
    why: Why = "",
    override: Annotated[str, typer.Option(help="The reason to go past a closed gate; it is kept.")] = "",
    dry_run: DryRun = False,
) -> None:
    """Point an alias at a verified version."""
    if dry_run:
        _foreseen(name, number, alias)
        return
    moved = open_control(load(os.environ)).registry.promote(
        name,
        number,
        alias=alias,
        who=WHO,
        why=why,
        on_unavailable=on_unavailable.value if on_unavailable else None,
        override=override.strip(),
    )
    _told(moved)


def rollback(name: Name, alias: Which = "live", why: Why = "", dry_run: DryRun = False) -> None:
    """Point an alias back at the version before."""
    control = open_control(load(os.environ))
    if not dry_run:
        _told(control.registry.rollback(name, alias=alias, who=WHO, why=why))
        return
    held = control.adapters.alias(name, alias)
    if held.previous is None:
        raise IllegalMove(f"{name}@{alias} has nothing to go back to.")
    say(f"would point {name}@{alias} → {held.previous} (now {held.number})")


def pin(name: Name, alias: Which = "live", why: Why = "") -> None:
    """Give an alias a slot of its own in every engine: it never waits, and leaves fewer slots to all others."""
    open_control(load(os.environ)).registry.pin(name, alias, True, who=WHO, why=why)
    say(f"{name}@{alias} is pinned")


def unpin(name: Name, alias: Which = "live", why: Why = "") -> None:
    """Let an alias share the engine's slots again."""
    open_control(load(os.environ)).registry.pin(name, alias, False, who=WHO, why=why)
    say(f"{name}@{alias} is not pinned")


def retire(name: Name, number: Number, why: Why = "", dry_run: DryRun = False) -> None:
    """Take a version out of service for good."""
    control = open_control(load(os.environ))
    if not dry_run:
        version = control.registry.retire(name, number, who=WHO, why=why)
        say(f"{version.name}:{version.number} is {version.state}")
        return
    version = control.adapters.get(name, number)
    pointing = [alias.alias for alias in control.adapters.aliases(name) if alias.number == number]
    held = f"refused while {', '.join(pointing)} points at it" if pointing else "would become retired"
    say(f"{name}:{number} is {version.state}: {held}")


def _told(moved: Alias) -> None:
    say(f"{moved.name}@{moved.alias} → {moved.number} (was {moved.previous})")


def _foreseen(name: str, number: int, alias: str) -> None:
    """What a promotion would do, and whether it would be let through."""
    settings = load(os.environ)
    control = open_control(settings)
    version = control.adapters.get(name, number)
    now = next((held.number for held in control.adapters.aliases(name) if held.alias == alias), None)
    verdict = make_gate(settings.gate).decide(version, control.registry.evidence(name, number))
    gate = "open" if alias != "live" or verdict.passed else f"closed: {'; '.join(verdict.reasons)}"
    say(f"would point {name}@{alias} → {number} (now {now}); {name}:{number} is {version.state}; the gate is {gate}")
