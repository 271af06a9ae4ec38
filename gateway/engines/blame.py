"""Which version poisoned an engine: decided from the order in which its answers turned to NaN. Pure.

An engine with our plugin names each such request (`blame`). One without it only counts them (`moved`, `suspects`).

NaN crosses tenants. Once one request has left it in freed KV blocks, the base and healthy neighbours may answer with it
too, so only the first one since the engine's start says who did it; those that follow are as likely its victims.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

#: What every engine-side name of an adapter ends with, and no base's name does.
_ADAPTER = re.compile(r"@[0-9a-f]{4,64}$")


class Report(Protocol):
    """One answer with NaN. `at` is the engine's own clock, unix seconds, so it orders what several gateways saw.

    `engine_name` is empty when the engine no longer knew whose the request was.
    """

    @property
    def engine_name(self) -> str: ...

    @property
    def at(self) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """`withdraw` is the engine-side name of the culprit, empty when it cannot be told; `suspects` are all the other
    adapters that were hit, in order: proved again after the replica's restart, never withdrawn for this."""

    withdraw: str = ""
    suspects: tuple[str, ...] = ()


def blame(poisons: Iterable[Report], started_at: float) -> Blame:
    """Who is to blame for what one replica reported since `started_at`, its start by its own clock.

    Rows of one step have the same time. One adapter alone among the first: the culprit, whatever came after, and the
    base beside it changes nothing, for the base answered well before. Several adapters, or an owner unknown: nobody.
    """
    found = sorted((p for p in poisons if p.at >= started_at), key=lambda p: p.at)
    hit = tuple(dict.fromkeys(p.engine_name for p in found if is_adapter(p.engine_name)))
    first = {p.engine_name for p in found if p.at == found[0].at}
    adapters = {name for name in first if is_adapter(name)}
    if len(adapters) != 1 or "" in first:
        return Blame(suspects=hit)
    culprit = adapters.pop()
    return Blame(withdraw=culprit, suspects=tuple(name for name in hit if name != culprit))


def is_adapter(engine_name: str) -> bool:
    return _ADAPTER.search(engine_name) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What an engine's gauges said: its start by its own clock, and how many answers with NaN it has given since."""

    started_at: float
    corrupted: int


def moved(before: Count | None, now: Count) -> bool:
    """Whether NaN was given between two looks. At the first look what is counted already counts: it may linger."""
    if before is None or before.started_at != now.started_at:
        return now.corrupted > 0
    return now.corrupted > before.corrupted


def suspects(ran: Iterable[str]) -> Blame:
    """Who may have done it where nobody was named: of all engine-side names that ran there between two looks.

    One adapter alone did it: the base does not.
    """
    adapters = tuple(sorted({name for name in ran if is_adapter(name)}))
    return Blame(withdraw=adapters[0]) if len(adapters) == 1 else Blame(suspects=adapters)
