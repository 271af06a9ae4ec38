"""Rows as the stores give them, for tests of what is decided on them."""

from __future__ import annotations

from adapters.lifecycle import State
from adapters.values import Alias, Version
from gateway.routing.store import Beat


def version(
    number: int, state: State = State.VERIFIED, *, name: str = "support", at: float = 0.0, digest: str = ""
) -> Version:
    return Version(
        id=f"{name}:{number}",
        name=name,
        number=number,
        digest=digest or f"sha256:{number:016x}{0:048x}",
        state=state,
        created_at=at or float(number),
        created_by="t",
        base_digest="sha256:base",
        rank=4,
        alpha=8,
        bytes=1,
        coverage="all",
    )


def alias(number: int, *, name: str = "support", to: str = "live", previous: int | None = None) -> Alias:
    return Alias(
        name=name,
        alias=to,
        number=number,
        previous=previous,
        revision=1,
        on_unavailable="fail",
        moved_by="t",
        moved_at=0.0,
        why="",
    )


def beat(revision: int, **inflight: int) -> Beat:
    return Beat(gateway="g", at=0.0, revision=revision, inflight=inflight)
