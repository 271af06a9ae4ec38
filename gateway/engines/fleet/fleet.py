"""The whole fleet: what should be where, who may serve now, who is out. One loop looks, one for each replica acts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from adapters.errors import AdapterError
from adapters.store import Version
from gateway.engines.fleet.book import WHO, reason
from gateway.engines.fleet.capacity import capacity
from gateway.engines.fleet.means import Means
from gateway.engines.fleet.poison import Cure
from gateway.engines.fleet.reconcile import HELD
from gateway.engines.fleet.replica import Replica
from gateway.engines.fleet.view import View, view
from gateway.engines.vllm import Vllm

log = logging.getLogger("graftline.fleet")

#: Reading a thousand rows takes 40 ms: under a storm of changes that is done a fifth of the time.
REST = 4.0


class Fleet:
    """`look` and every loop of `passes` run beside each other in the worker; `step` runs all of them once."""

    def __init__(self, engines: Mapping[str, Vllm], means: Means, *, rest: float = REST) -> None:
        self.replicas = {name: Replica(name, engine, means, self.served_elsewhere) for name, engine in engines.items()}
        self.view = View()
        self._means = means
        self._cure = Cure(self.replicas, means)
        self._told: set[str] = set()
        self._rest, self._rest_until = rest, 0.0

    def passes(self) -> Mapping[str, Callable[[], Awaitable[int]]]:
        """One pass for each replica, by name: one that hangs holds up no other."""

        def each(replica: Replica) -> Callable[[], Awaitable[int]]:
            return lambda: replica.step(self.view)

        return {name: each(replica) for name, replica in self.replicas.items()}

    async def step(self) -> int:
        """Look, bring every replica one pass nearer, look again; returns how many loads and unloads were done."""
        await self.look()
        done = await asyncio.gather(*(run() for run in self.passes().values()), return_exceptions=True)
        for problem in done:
            if isinstance(problem, BaseException):
                raise problem
        await self.look()
        return sum(count for count in done if isinstance(count, int))

    async def look(self) -> None:
        """Read the rows where they changed, deal with poison, admit what every replica of its own has proven."""
        means = self._means
        revision = await asyncio.to_thread(means.revision)
        capacities = self._capacities()
        full = {n: frozenset(r.have) for n, r in self.replicas.items() if r.up and not r.room}
        seen = self.view
        changed = revision != seen.revision or capacities != seen.capacities or full.keys() != seen.full
        if changed and (began := time.monotonic()) >= self._rest_until:
            self.view = await asyncio.to_thread(self._read, revision, capacities, full)
            self._rest_until = time.monotonic() + self._rest * (time.monotonic() - began)
            await self._tell_of_room()
        await self._cure.step(self.view)
        await self._admit()
        means.metrics.gauge("graftline_adapters_damaged").set(len(means.book.damaged))

    def forget(self) -> None:
        """Another worker has the duty, and may change everything: believe nothing any more."""
        self.view = View()
        for replica in self.replicas.values():
            replica.forget()

    def served_elsewhere(self, but: str, name: str) -> bool:
        return any(
            replica.open and replica.up and name in (replica.reported or ())
            for other, replica in self.replicas.items()
            if other != but
        )

    async def close(self) -> None:
        for replica in self.replicas.values():
            await replica.engine.close()

    def _capacities(self) -> dict[str, int]:
        """Replicas that can hold something: those that are up, and all of them before they were looked at."""
        size = capacity(self._means.terms.bound, self._means.terms.headroom)
        alive = [n for n, r in self.replicas.items() if r.up is not False and n not in self.view.out]
        return dict.fromkeys(alive or self.replicas, size)

    def _read(self, revision: int, capacities: Mapping[str, int], full: Mapping[str, frozenset[str]]) -> View:
        store, terms = self._means.store, self._means.terms
        versions, aliases, out = store.list(states=HELD), store.aliases(), self._means.fleet.out()
        return view(revision, versions, aliases, out, capacities, terms.copies_min, full, self._means.arms())

    async def _admit(self) -> None:
        """A new version may serve once every replica that should hold it has proven it and says that it holds it; one
        that our own training made, once it has passed its gate as well: until then it is there to be asked."""
        for each in self.view.new:
            holders = [self.replicas[name] for name, share in self._holders(each.version)]
            if not holders or not all(each.name in (replica.reported or ()) for replica in holders):
                continue
            if any(replica.struck(each.name) and each.name not in replica.proven for replica in self.replicas.values()):
                continue  # an engine died over it: that replica has to have it too
            names = ", ".join(replica.name for replica in holders)
            try:
                trained = each.version.origin == "training"
                if trained and await asyncio.to_thread(self._means.registry.waits, each.version):
                    continue
                await asyncio.to_thread(self._means.registry.admit, each.version, who=WHO, note=f"proved on {names}")
            except AdapterError as error:  # retired meanwhile, say: the next look sees what it is now
                log.warning("%s was proved and not admitted: %s", each.name, error)
                continue
            log.info("verified %s:%d on %s", each.version.name, each.version.number, names)

    def _holders(self, version: Version) -> list[tuple[str, tuple[Version, ...]]]:
        return [
            (name, share)
            for name, share in self.view.shares.items()
            if version in share and self.replicas[name].up is not False and name not in self.view.out
        ]

    async def _tell_of_room(self) -> None:
        """New versions that no replica has a place for wait; each is told so once."""
        for each in self.view.new:
            if each.name in self._told or any(each.version in share for share in self.view.shares.values()):
                continue
            self._told.add(each.name)
            size = sum(self.view.capacities.values())
            found = reason(
                "waiting_for_room",
                f"{len(self.view.names)} versions want one of {size} places",
                field="room",
                allowed=f"{size} places in {len(self.view.capacities)} engines",
                advice="Retire versions, raise [engine] max_cpu_loras, or add an engine.",
            )
            log.warning("%s waits for room: %s", each.name, found.found)
            await asyncio.to_thread(self._means.book.failed, each.version, "load", [found])
