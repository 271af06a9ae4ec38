"""`graftline gc`."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer

from adapters.collect import Decision
from gateway.collecting import collect_unneeded
from gateway.control import open_control
from gateway.engines.vllm import Vllm
from gateway.settings import Settings, load
from gateway.verbs.console import say, table


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    now: Annotated[bool, typer.Option("--now", help="Do not wait the days that settings ask for.")] = False,
) -> None:
    """Delete the bytes of adapters that nobody needs, and explain what is kept."""
    settings = load(os.environ)
    decisions = asyncio.run(_collect(settings, dry_run=dry_run, at_once=now))
    rows = ((d.action, d.digest[:23], " ".join(d.versions), d.why) for d in decisions)
    table("Bytes of adapters", ("", "digest", "versions", "why"), rows)
    gone = sum(decision.action == "delete" for decision in decisions)
    say(f"{gone} {'to delete' if dry_run else 'deleted'}, {len(decisions) - gone} kept")


async def _collect(settings: Settings, *, dry_run: bool, at_once: bool) -> tuple[Decision, ...]:
    engines = {name: Vllm(name, url) for name, url in settings.replicas.items()}
    try:
        return await collect_unneeded(open_control(settings), settings, engines, dry_run=dry_run, at_once=at_once)
    finally:
        for engine in engines.values():
            await engine.close()
