"""Desired state → every engine: loads what should be there, proves it, unloads what nobody uses any more.

Runs once in a fleet, in the worker. It alone calls an engine's load and unload; gateways only read what it reports.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from adapters.artifacts.local import Artifacts
from adapters.errors import AdapterError, DigestMismatch, Reason
from adapters.lifecycle import State
from adapters.registry import Registry, engine_name
from adapters.store import Alias, Store, Version
from gateway.engines.errors import EngineError, EngineRefused
from gateway.engines.prove import Proof, prove
from gateway.engines.reconcile import Plan, desired, drained, plan
from gateway.engines.vllm import Vllm
from gateway.routing.store import FleetStore
from monitoring.telemetry.shared import Metrics

log = logging.getLogger("graftline.fleet")

REPORT_EVERY_S = 0.2
SLICE_S = 10.0
BEAT_AGE_MAX_S = 5.0
REFUSED_AGAIN_S = 60.0


@dataclass(slots=True)
class _Replica:
    engine: Vllm
    serving: frozenset[str] = frozenset()
    failing: dict[str, float] = field(default_factory=dict)  # engine-side name → when to try again
    leaving: dict[str, int] = field(default_factory=dict)  # engine-side name → revision without it
    leaving_since: dict[str, float] = field(default_factory=dict)
    up: bool | None = None
    base: dict[str, Sequence[float]] = field(default_factory=dict)  # what the base says to the probe's prompts


class Fleet:
    """The reconcile loop's state. `step` makes one pass over all replicas."""

    def __init__(
        self,
        engines: Mapping[str, Vllm],
        *,
        registry: Registry,
        store: Store,
        artifacts: Artifacts,
        fleet: FleetStore,
        metrics: Metrics,
        revision: Callable[[], int],
        base_name: str,
        capacity: int,
        drain_timeout_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._replicas = {name: _Replica(engine) for name, engine in engines.items()}
        self._registry, self._store, self._artifacts = registry, store, artifacts
        self._fleet, self._metrics, self._revision, self._base_name = fleet, metrics, revision, base_name
        self._capacity, self._drain_timeout_s, self._clock = capacity, drain_timeout_s, clock

    async def step(self) -> int:
        """Bring every replica one pass nearer to what should be; returns how many loads and unloads were done."""
        versions, aliases = await asyncio.to_thread(lambda: (self._store.list(), self._store.aliases()))
        wanted = desired(versions, aliases, self._capacity)
        bringing = (self._bring(name, wanted, aliases) for name in self._replicas)
        done = await asyncio.gather(*bringing, return_exceptions=True)  # all end before the next pass begins
        for problem in done:
            if isinstance(problem, BaseException):
                raise problem
        return sum(count for count in done if isinstance(count, int))

    async def close(self) -> None:
        for replica in self._replicas.values():
            await replica.engine.close()

    async def _bring(self, name: str, wanted: Sequence[Version], aliases: Sequence[Alias]) -> int:
        replica = self._replicas[name]
        try:
            have = await replica.engine.adapters()
        except EngineError as error:
            if replica.up is not False:
                log.warning("engine %s is down: %s", name, error)
            replica.up = False
            await self._report(name, replica, frozenset())
            return 0
        if not replica.up:
            log.info("engine %s is up with %d adapters", name, len(have))
            replica.up, replica.leaving, replica.failing, replica.base = True, {}, {}, {}
        now = self._clock()
        replica.failing = {n: until for n, until in replica.failing.items() if until > now}
        todo = plan(wanted, have, replica.failing)
        await self._report(name, replica, todo.serving)
        done = await self._load(name, replica, todo, aliases)
        return done + await self._unload(replica, todo.unload)

    async def _load(self, name: str, replica: _Replica, todo: Plan, aliases: Sequence[Alias]) -> int:
        """Load one at a time; what was verified before serves again at once, what is new is proved first."""
        done, began = 0, time.monotonic()
        reported = began
        serving = set(todo.serving)
        for version in todo.load:
            engine_side = engine_name(version)
            try:
                path = await asyncio.to_thread(self._artifacts.verify, version.digest)
                seconds = await replica.engine.load(engine_side, str(path))
            except (DigestMismatch, EngineRefused) as error:
                replica.failing[engine_side] = self._clock() + REFUSED_AGAIN_S
                await self._refused(name, version, error)
                continue
            except EngineError as error:
                log.warning("loading %s on %s broke off: %s", engine_side, name, error)
                break
            self._metrics.histogram("graftline_adapter_load_seconds", replica=name).observe(seconds)
            done += 1
            if version.state is State.VERIFIED:
                serving.add(engine_side)
            else:
                await self._prove(name, replica, version, serving, aliases)
            if time.monotonic() - began > SLICE_S:
                break  # the next pass goes on, and sees what people moved meanwhile
            if time.monotonic() - reported > REPORT_EVERY_S:
                await self._report(name, replica, frozenset(serving))
                reported = time.monotonic()
        if done:
            await self._report(name, replica, frozenset(serving))
        return done

    async def _prove(
        self, name: str, replica: _Replica, version: Version, serving: set[str], aliases: Sequence[Alias]
    ) -> None:
        """The first forward: what passes is verified, what fails is taken off the engine at once and rejected."""
        engine_side = engine_name(version)
        proof: Proof = await prove(replica.engine, engine_side, self._base_name, replica.base)
        if not proof.passed:
            await replica.engine.unload(engine_side)
            await self._reject(version, proof.reasons)
            return
        await self._report(name, replica, frozenset(serving | {engine_side}))
        serving.add(engine_side)
        try:
            await asyncio.to_thread(self._registry.verified, version, who="fleet", note=proof.note)
        except AdapterError as error:  # retired meanwhile, say: the next pass sees what it is now
            log.warning("%s:%d passed its probe and was not verified: %s", version.name, version.number, error)
            return
        log.info("verified %s:%d on %s (%s)", version.name, version.number, name, proof.note)
        await asyncio.to_thread(self._point, version)

    def _point(self, version: Version) -> None:
        """The first version of a name goes live; a later one becomes its candidate."""
        names = {a.alias: a for a in self._store.aliases(version.name)}
        alias = "candidate" if "live" in names else "live"
        held = names.get(alias)
        try:
            self._registry.promote(
                version.name,
                version.number,
                alias=alias,
                expected=held.number if held else None,
                who="fleet",
                why="first verified version" if alias == "live" else "newest verified version",
            )
        except AdapterError as error:
            log.warning("%s:%d was verified, but %s was not moved: %s", version.name, version.number, alias, error)

    async def _refused(self, name: str, version: Version, error: AdapterError | EngineRefused) -> None:
        log.error("engine %s does not take %s:%d: %s", name, version.name, version.number, error)
        if version.state is not State.VERIFIED:
            await self._reject(version, Proof.refused(error).reasons)

    async def _reject(self, version: Version, reasons: Sequence[Reason]) -> None:
        try:
            await asyncio.to_thread(self._registry.rejected, version, reasons, who="fleet")
        except AdapterError as error:
            log.warning("%s:%d failed its probe and was not rejected: %s", version.name, version.number, error)
            return
        log.warning("rejected %s:%d: %s", version.name, version.number, reasons[0])

    async def _unload(self, replica: _Replica, names: Collection[str]) -> int:
        """Unload what no gateway routes to any more and none still runs; the first look only marks the revision."""
        now, done = self._clock(), 0
        replica.leaving = {name: at for name, at in replica.leaving.items() if name in names}
        replica.leaving_since = {name: at for name, at in replica.leaving_since.items() if name in names}
        if not names:
            return 0
        revision, beats = await asyncio.to_thread(lambda: (self._revision(), self._fleet.beats(now - BEAT_AGE_MAX_S)))
        for name in names:
            since = replica.leaving_since.setdefault(name, now)
            marked = replica.leaving.setdefault(name, revision)
            if drained(name, beats, marked) or now - since > self._drain_timeout_s:
                await replica.engine.unload(name)
                replica.leaving.pop(name)
                replica.leaving_since.pop(name)
                done += 1
        return done

    async def _report(self, name: str, replica: _Replica, serving: frozenset[str]) -> None:
        if serving != replica.serving or replica.up is False:
            await asyncio.to_thread(self._fleet.hold, name, serving)
            replica.serving = serving
        self._metrics.gauge("graftline_replica_up", replica=name).set(float(bool(replica.up)))
        self._metrics.gauge("graftline_replica_adapters", replica=name).set(len(serving))
