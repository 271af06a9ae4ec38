"""`graftline keys`."""

from __future__ import annotations

import os
import time
from enum import StrEnum
from typing import Annotated

import typer

from gateway.access.keys import Capture, Limits, Role, mint
from gateway.control import open_control
from gateway.settings import load
from gateway.verbs.console import say, table


class Kept(StrEnum):
    """What a key's records keep."""

    FULL = "full"
    METADATA = "metadata"
    OFF = "off"


app = typer.Typer(no_args_is_help=True)
WHO = "cli"


@app.command()
def create(
    name: Annotated[str, typer.Option(help="What the key is for.")],
    tenant: Annotated[str, typer.Option(help="Whose it is: caches and records are kept apart by tenant.")] = "default",
    role: Annotated[
        list[str] | None, typer.Option(help="user, engineer, operator or auditor; may be repeated.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="A model the key may use; all when left out.")] = None,
    capture: Annotated[Kept, typer.Option(help="What records keep of a request.")] = Kept.FULL,
    requests_per_min: Annotated[int | None, typer.Option(help="Requests a minute.")] = None,
    tokens_per_min: Annotated[int | None, typer.Option(help="Tokens a minute.")] = None,
    concurrent: Annotated[int | None, typer.Option(help="Requests at a time.")] = None,
    token_budget: Annotated[int | None, typer.Option(help="Tokens in all.")] = None,
) -> None:
    """Make a key; its secret is printed once and kept nowhere."""
    secret, key = mint(
        tenant=tenant,
        name=name,
        roles=role or [Role.USER],
        now=time.time(),
        who=WHO,
        models=model or None,
        capture=_capture(capture),
        limits=Limits(
            requests_per_min=requests_per_min,
            tokens_per_min=tokens_per_min,
            concurrent=concurrent,
            token_budget=token_budget,
        ),
    )
    open_control(load(os.environ)).keys.insert(key)
    say(secret)


@app.command("list")
def list_keys() -> None:
    """Show every key; secrets are not among what is kept."""
    keys = open_control(load(os.environ)).keys.list()
    table(
        "Keys",
        ("id", "tenant", "name", "roles", "models", "revoked"),
        (
            (
                k.id,
                k.tenant,
                k.name,
                " ".join(sorted(k.roles)),
                "all" if k.models is None else " ".join(sorted(k.models)),
                "" if k.revoked_at is None else f"by {k.revoked_by}",
            )
            for k in keys
        ),
    )


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(help="The key's id, as `list` shows it.")]) -> None:
    """End a key: no gateway takes it any more 250 ms later."""
    key = open_control(load(os.environ)).keys.revoke(key_id, who=WHO, now=time.time())
    say(f"revoked {key.id} ({key.name})")


def _capture(kept: Kept) -> Capture:
    return {Kept.FULL: "full", Kept.METADATA: "metadata", Kept.OFF: "off"}[kept]  # type: ignore[return-value]
