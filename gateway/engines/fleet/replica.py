"""One replica as the fleet sees it: what its engine has, what of it is proven, and one pass that brings it nearer."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Sequence

from adapters.checks.parity import Certificate
from adapters.registry import engine_name
from adapters.store import Version
from gateway.engines.errors import AdapterMissing, EngineBroke, EngineError
from gateway.engines.fleet.capacity import room
from gateway.engines.fleet.loading import Loading
from gateway.engines.fleet.means import Means
from gateway.engines.fleet.opening import Opening
from gateway.engines.fleet.reconcile import Plan, drained, emptied, plan
from gateway.engines.fleet.store import Loads
from gateway.engines.fleet.view import View
from gateway.engines.vllm import Vllm
from gateway.routing.store import Out

log = logging.getLogger("graftline.fleet")

BEAT_AGE_MAX_S = 5.0
#: The list of a thousand adapters costs the engine tens of milliseconds: it is asked for that much more seldom.
LIST_EVERY_S, LIST_EVERY_MOST_S, LIST_SHARE = 0.2, 1.0, 0.02
#: A restart that was asked for and did not come is asked for again.
ASK_AGAIN_S = 120.0
#: An engine that differs again after so many restarts is left out, for a person to look at.
RESTARTS_MAX = 2


class Forgotten(Exception):
    """The duty went to another worker in the middle of a pass."""


class Replica:
    """State of one engine's life, begun anew when it restarts. Used by one loop at a time."""

    def __init__(self, name: str, engine: Vllm, means: Means, served_elsewhere: Callable[[str, str], bool]) -> None:
        self.name, self.engine, self.means = name, engine, means
        #: Whether another replica than the first argument serves the engine-side name.
        self.served_elsewhere = served_elsewhere
        self.up: bool | None = None
        self.open = False  # the base and a sample answered as recorded
        self.started_at, self.fingerprint, self.loads = 0.0, "", 0
        self.have: set[str] = set()
        self.proven: set[str] = set()
        self.reported: frozenset[str] | None = None
        self.failing: dict[str, float] = {}  # engine-side name → when to try again
        self.patrolled: dict[str, float] = {}
        self.restoring = True
        self._loading = Loading(self)
        self.opening = Opening(self, self._loading)
        self._leaving: dict[str, tuple[int, float]] = {}  # engine-side name → revision without it, and since when
        self.list_every_s, self.list_share = LIST_EVERY_S, LIST_SHARE
        self._list_at = 0.0
        self._settled: tuple[View, int, int] | None = None
        self._out_at: tuple[float, int] | None = None  # the engine that is out, and the revision that says so
        self._asked_at = 0.0
        self._taken: tuple[float, bool] | None = None  # the engine that we took out, and whether the view shows it
        self.well_at = 0.0  # when it last answered as recorded
        self.nan_at = 0.0  # when it last gave the fleet itself numbers that are none

    async def step(self, view: View) -> int:
        """One pass; returns how many loads and unloads were done."""
        out = view.out.get(self.name)
        if out is None and self._taken == (self.started_at, False):
            return 0  # the view is older than our own decision
        self._taken = None if out is None else (self.started_at, True)
        try:
            await self._look(often=out is not None or self.restoring)
            if out is not None and self._is_old(out):
                await self._recycle(view, out)
                return 0
            share = view.shares.get(self.name, ())
            if not self.open and not await self.opening.run(view, share):
                return 0
            if out is not None:
                await asyncio.to_thread(self.means.fleet.bring_back, self.name)
                log.warning("engine %s is back after a restart (%s)", self.name, out.why)
            return await self._bring(view, share)
        except EngineError as error:
            await self._lost(error)
            return 0
        except Forgotten:
            return 0

    async def differs(self, version: Version, found: Certificate) -> None:
        """What this replica holds no longer answers as recorded."""
        await self._loading.differs(version, found)

    @property
    def room(self) -> int:
        """How many more adapters the engine can load before a restart."""
        return room(self.means.terms.bound, self.loads)

    def struck(self, name: str) -> bool:
        """Whether this engine, or the one before it, died over this version."""
        return name in self._loading.struck

    def forget(self) -> None:
        """Believe nothing of the engine any more; what was reported of it stands."""
        self.up, self.started_at, self.open, self.reported = None, 0.0, False, None
        self.have, self.proven, self._settled, self._taken = set(), set(), None, None

    def on_duty(self) -> None:
        """Go on only while this worker has the duty; raises Forgotten. Loads that the next one does not count would
        make the engine evict."""
        if not self.started_at:
            raise Forgotten

    async def take_out(self, why: str, *, since: float | None = None) -> None:
        """No gateway uses this replica any more; the next pass drains and recycles it. `why` begins with one word.

        Where the word says that they may be wrong, those from `since` on are marked: by default, since it was last seen
        well.
        """
        log.error("engine %s is taken out: %s", self.name, why)
        now, means = self.means.clock(), self.means
        self.open, self._taken = False, (self.started_at, False)
        if not why.startswith(("full", "contained")):
            began = since or self.well_at or self.started_at
            await asyncio.to_thread(means.taint, self.name, began, now + means.terms.poison_drain_s, why)
        await asyncio.to_thread(self.means.fleet.take_out, self.name, why=why, at=now, started_at=self.started_at)
        self.means.metrics.gauge("graftline_replica_out", replica=self.name).set(1)

    async def report(self, names: View) -> None:
        """Say what this replica serves, where that is news."""
        self.on_duty()
        serving, gauge = frozenset(self.proven & self.have & names.names.keys()), self.means.metrics.gauge
        if serving != self.reported:
            await asyncio.to_thread(self.means.fleet.hold, self.name, serving)
            self.reported = serving
        gauge("graftline_replica_up", replica=self.name).set(1)
        gauge("graftline_replica_adapters", replica=self.name).set(len(serving))
        gauge("graftline_replica_room", replica=self.name).set(self.room)

    async def inflight(self) -> int:
        """Requests that gateways have here, as of their last signs of life."""
        beats = await asyncio.to_thread(self.means.fleet.beats, self.means.clock() - BEAT_AGE_MAX_S)
        return sum(beat.by_replica.get(self.name, 0) for beat in beats)

    # what the engine is

    async def _look(self, *, often: bool) -> None:
        """Whether it lives, and from time to time what it has. Raises EngineError."""
        now = time.monotonic()
        if self.up and not often and now < self._list_at:
            if not await self.engine.healthy():
                raise EngineBroke("its core is dead", engine=self.name)
            return
        have = set(await self.engine.adapters())
        took = time.monotonic() - now
        self._list_at = now + min(LIST_EVERY_MOST_S, max(self.list_every_s, took / self.list_share))
        if not self.up or often or self.have - have:
            started_at = (await self.engine.gauges()).started_at
            if started_at != self.started_at:
                await self._born(started_at, have)
            elif lost := self.have - have:
                log.warning("engine %s has forgotten %d adapters", self.name, len(lost))
                self.proven &= have
        if not self.up:
            log.info("engine %s is up with %d adapters", self.name, len(have))
        if have != self.have:
            self._settled = None
        self.up, self.have = True, have

    async def _born(self, started_at: float, have: set[str]) -> None:
        """Another engine than the one we knew: nothing of it is proven."""
        terms = self.means.terms
        version = (await self.engine.describe()).version
        key = f"{terms.base_digest}\0{version}\0{terms.flags}"
        noted = await asyncio.to_thread(self.means.duties.loads, self.name)
        known = noted is not None and noted.started_at == started_at
        self.loads = max(noted.count, len(have)) if known and noted is not None else len(have)
        self.started_at, self.fingerprint = started_at, hashlib.sha256(key.encode()).hexdigest()[:16]
        self.open, self.restoring, self._settled, self.well_at = False, True, None, 0.0
        self.proven, self.failing, self.patrolled, self._leaving = set(), {}, {}, {}

    async def _lost(self, error: EngineError) -> None:
        if self.up is not False:
            log.warning("engine %s is down: %s", self.name, error)
        self.up, self._settled = False, None
        if self.reported != frozenset():
            await asyncio.to_thread(self.means.fleet.hold, self.name, frozenset())
            self.reported = frozenset()
        for gauge in ("graftline_replica_up", "graftline_replica_adapters"):
            self.means.metrics.gauge(gauge, replica=self.name).set(0)

    # what it should be

    async def _bring(self, view: View, share: Sequence[Version]) -> int:
        now = self.means.clock()
        if any(until <= now for until in self.failing.values()):
            self.failing = {name: until for name, until in self.failing.items() if until > now}
            self._settled = None
        mark = (view, len(self.proven), len(self.have))
        if self._settled is not None and self._settled[0] is view and self._settled == mark:
            return 0
        todo = plan(share, view.names, self.have, self.proven)
        await self.report(view)  # what it lost is news even if it is back at once: gateways wait for a revision
        done = await self._loading.run(view, [v for v in todo.load if engine_name(v) not in self.failing])
        await self.report(view)
        done += await self._unload(todo)
        rest = plan(share, view.names, self.have, self.proven)
        if not rest.unload and all(engine_name(v) in self.failing for v in rest.load):
            self.restoring = False
            self._settled = (view, len(self.proven), len(self.have))
        return done

    async def _unload(self, todo: Plan) -> int:
        """Unload what no gateway routes to any more and none still runs; the first look only marks the revision."""
        self._leaving = {name: at for name, at in self._leaving.items() if name in todo.unload}
        if not todo.unload:
            return 0
        means, now, done = self.means, self.means.clock(), 0
        revision, beats = await asyncio.to_thread(lambda: (means.revision(), means.fleet.beats(now - BEAT_AGE_MAX_S)))
        for name in todo.unload:
            marked, since = self._leaving.setdefault(name, (revision, now))
            if drained(name, beats, marked) or now - since > means.terms.drain_timeout_s:
                try:
                    await self.engine.unload(name)
                except AdapterMissing:
                    log.warning("engine %s had forgotten %s already", self.name, name)
                self.have.discard(name)
                self.proven.discard(name)
                self._leaving.pop(name)
                done += 1
        return done

    # out of service

    def _is_old(self, out: Out) -> bool:
        """Whether the engine that was meant is still the one that runs."""
        return self.started_at == out.started_at if out.started_at else self.started_at <= out.at

    async def _recycle(self, view: View, out: Out) -> None:
        """Wait until no gateway uses it, at most so long; then have it restarted, or say that somebody must."""
        means, now = self.means, self.means.clock()
        means.metrics.gauge("graftline_replica_out", replica=self.name).set(1)
        if self._out_at is None or self._out_at[0] != self.started_at:
            self._out_at, self._asked_at = (self.started_at, view.revision), 0.0
        beats = await asyncio.to_thread(means.fleet.beats, now - BEAT_AGE_MAX_S)
        if not emptied(self.name, beats, self._out_at[1]) and now - out.at < means.terms.poison_drain_s:
            return
        why = out.why.partition(":")[0]
        differed = max(self.opening.differed, self._loading.differed_most if why != "full" else 0)
        if now - self._asked_at < ASK_AGAIN_S or differed > RESTARTS_MAX:
            return
        self._asked_at = now
        if await asyncio.to_thread(means.restart, self.name, started_at=self.started_at, why=why):
            log.warning("engine %s is being restarted (%s)", self.name, out.why)
            means.metrics.counter("graftline_replica_recycles_total", replica=self.name, why=why).add(1)
        else:
            log.error("engine %s is out (%s) and cannot be restarted from here: restart it", self.name, out.why)

    async def note_loads(self, count: int) -> None:
        """Write the count before loads that it covers, so that it is never too small after a crash."""
        self.on_duty()
        row = Loads(started_at=self.started_at, count=count)
        await asyncio.to_thread(self.means.duties.note_loads, self.name, row)
