"""NaN in engines without our plugin: nobody names such a request, and the answer is 200, but vLLM counts it.

The count is looked at every second or so. Where it moved and no gateway has said whose it was by the next look, the
fleet is told of NaN from all that ran there in between: one adapter alone is withdrawn, of several none, and the engine
is recycled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from adapters.registry import spelled
from gateway.engines.blame import Count, moved, suspects
from gateway.engines.errors import EngineError
from gateway.engines.fleet.means import Means
from gateway.engines.fleet.replica import BEAT_AGE_MAX_S, Replica
from gateway.routing.store import Poison
from monitoring.records.errors import RecordsError
from monitoring.records.store import Records

log = logging.getLogger("graftline.fleet")

WHO = "worker"
_PAGE = 1000

#: (replica, since, until in unix seconds) → the engine-side names of what ran there in between; None: nobody can tell.
Ran = Callable[[str, float, float], Collection[str] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One look at `at`: what the engine had counted, and what gateways had in flight, on whichever engine."""

    at: float
    count: Count
    running: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """The count moved after `since`, unix seconds; `known` where there was a look before it, with what ran then."""

    since: float
    running: frozenset[str]
    known: bool


class Counting:
    def __init__(self, replicas: Mapping[str, Replica], means: Means, ran: Ran) -> None:
        self._replicas, self._means, self._ran = replicas, means, ran
        self._seen: dict[str, Seen] = {}
        self._moved: dict[str, Moved] = {}

    async def step(self) -> int:
        """One look at every engine that serves; returns how many were found to have given NaN that nobody told of."""
        beats = await asyncio.to_thread(self._means.fleet.beats, self._means.clock() - BEAT_AGE_MAX_S)
        running = frozenset(name for beat in beats for name, number in beat.inflight.items() if number)
        serving = [each for each in self._replicas.values() if each.up and each.open]
        return sum(await asyncio.gather(*(self._look(replica, running) for replica in serving)))

    async def _look(self, replica: Replica, running: frozenset[str]) -> bool:
        name, now = replica.name, self._means.clock()
        try:
            gauges = await replica.engine.gauges()
        except EngineError:
            return False  # the fleet's own look says so
        count = Count(started_at=gauges.started_at, corrupted=gauges.corrupted)
        seen, before = Seen(at=now, count=count, running=running), self._seen.get(name)
        if before is not None and before.count.started_at != count.started_at:
            self._moved.pop(name, None)  # what it was is gone
        if waited := self._moved.get(name):
            told = await self._tell(replica, waited, seen)
            self._seen[name] = seen
            del self._moved[name]
            return told
        self._seen[name] = seen
        if moved(before.count if before else None, count):
            if before is not None and before.count.started_at == count.started_at:
                self._moved[name] = Moved(since=before.at, running=before.running | running, known=True)
            else:
                self._moved[name] = Moved(since=count.started_at, running=running, known=False)
        return False

    async def _tell(self, replica: Replica, found: Moved, seen: Seen) -> bool:
        """Write who may have done it, unless somebody has told: gateways of requests, the fleet of its own probes."""
        means, started_at = self._means, seen.count.started_at
        poisons = await asyncio.to_thread(means.fleet.poisons, started_at)
        if replica.nan_at >= found.since or any(p.replica == replica.name for p in poisons):
            return False
        ran = await asyncio.to_thread(self._ran, replica.name, found.since, seen.at) if found.known else None
        names = [""]
        if ran is not None:
            verdict = suspects({*ran, *found.running, *seen.running})
            names = [verdict.withdraw] if verdict.withdraw else ["", *verdict.suspects]
        log.error("engine %s has counted NaN that nobody told of; what ran there: %s", replica.name, names)
        at = max(found.since, started_at)
        for name in names:  # at one time: of several nobody is the first
            poison = Poison(replica=replica.name, engine_name=name, at=at, gateway=WHO)
            await asyncio.to_thread(means.fleet.poison, poison)
        return True


def ran_by_records(records: Records, longest_s: float) -> Ran:
    """From the records of answers, none of which took longer than `longest_s`."""

    def ran(replica: str, since: float, until: float) -> Collection[str] | None:
        names: set[str] = set()
        after = None
        try:
            while page := records.query(since=since - longest_s, until=until, after=after, limit=_PAGE):
                for each in page:
                    if each.replica == replica and each.digest and each.started_at + each.total_ms / 1e3 >= since:
                        names.add(spelled(each.adapter.partition(":")[0], each.digest))
                after = page[-1].id
        except RecordsError as error:
            log.warning("the records cannot say what ran on engine %s: %s", replica, error)
            return None
        return names

    return ran
