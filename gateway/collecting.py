"""Joins the collection of unneeded bytes with what only the gateway's floor knows: engines and requests in flight."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from adapters.collect import Decision, Holder, collect
from gateway.control import Control
from gateway.engines.errors import EngineUnreachable
from gateway.engines.vllm import Vllm
from gateway.routing.store import FleetStore
from gateway.settings import Settings

_DAY_S = 86400.0


class FleetHolder:
    """What replicas serve, and what requests in flight use. A gateway that fell silent counts for as long as one of its
    requests may last."""

    def __init__(self, fleet: FleetStore, *, silence_s: float, clock: Callable[[], float] = time.time) -> None:
        self._fleet, self._silence_s, self._clock = fleet, silence_s, clock

    def holds(self) -> Mapping[str, str]:
        held: dict[str, str] = {}
        for replica, names in self._fleet.residents().items():
            held |= {_short(name): f"the replica {replica} serves it as {name}" for name in names}
        for beat in self._fleet.beats(self._clock() - self._silence_s):
            used = {name: count for name, count in beat.inflight.items() if count}
            held |= {_short(name): f"{beat.gateway} has requests in flight on {name}" for name in used}
        return held


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineHolder:
    """What the engines had when they were asked: an engine that misses the file of a name that it knows dies of it."""

    names: Mapping[str, frozenset[str]]

    @classmethod
    async def ask(cls, engines: Mapping[str, Vllm], *, here: bool) -> EngineHolder:
        """Raises EngineError where an engine does not say; one that should run `here` and cannot be reached is down."""
        names = {}
        for replica, engine in engines.items():
            try:
                names[replica] = await engine.adapters()
            except EngineUnreachable:
                if not here:
                    raise
        return cls(names=names)

    def holds(self) -> Mapping[str, str]:
        return {_short(n): f"the replica {replica} knows it as {n}" for replica, ns in self.names.items() for n in ns}


async def collect_unneeded(
    control: Control,
    settings: Settings,
    engines: Mapping[str, Vllm],
    *,
    dry_run: bool,
    holders: Sequence[Holder] = (),
    at_once: bool = False,
) -> tuple[Decision, ...]:
    """One pass over all artifacts, for the worker's loop and for the CLI. `at_once` deletes the bytes of what was
    retired or rejected just now, too. Raises EngineError where an engine does not say what it has: then nothing is
    deleted."""
    asked = await EngineHolder.ask(engines, here=not settings.engine.urls)
    fleet = FleetHolder(control.fleet, silence_s=settings.request_timeout_s)
    return await asyncio.to_thread(
        collect,
        control.adapters,
        control.artifacts,
        (fleet, asked, *holders),
        dry_run=dry_run,
        keep_s=0.0 if at_once else settings.artifacts_keep_days * _DAY_S,
    )


def _short(engine_name: str) -> str:
    return engine_name.rpartition("@")[2]
