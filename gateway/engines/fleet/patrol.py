"""Asks every adapter that an engine holds again, a few a second in quiet moments: does it still answer as recorded?

What was loaded since a restart comes first, for it was trusted and not asked; then what was asked longest ago.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from adapters.checks.parity import AGAIN_ONE
from adapters.checks.probe import Recorded
from adapters.errors import NotFound
from adapters.store import Version
from gateway.engines.errors import AdapterMissing, EngineError
from gateway.engines.fleet.fleet import Fleet
from gateway.engines.fleet.loading import QUIET_MAX
from gateway.engines.fleet.means import Means
from gateway.engines.fleet.prove import certify
from gateway.engines.fleet.replica import Replica

log = logging.getLogger("graftline.fleet")


class Patrol:
    def __init__(self, fleet: Fleet, means: Means) -> None:
        self._fleet, self._means, self._turn = fleet, means, 0

    async def step(self) -> int:
        """Ask one version on each replica that is quiet; returns how many were asked."""
        replicas = [r for r in self._fleet.replicas.values() if r.open and r.up and not r.restoring]
        asked = await asyncio.gather(*(self._ask(replica) for replica in replicas))
        return sum(asked)

    async def _ask(self, replica: Replica) -> int:
        names = self._fleet.view.names
        held = [name for name in replica.proven if name in names]
        if not held or await replica.inflight() > QUIET_MAX:
            return 0
        name = min(held, key=lambda name: (replica.patrolled.get(name, 0.0), name))
        version, now = names[name], self._means.clock()
        replica.patrolled[name] = now
        await asyncio.to_thread(self._look_at_files, version, replica.name)
        known = await asyncio.to_thread(self._means.book.recorded, version)
        if known is None:
            return 0
        self._turn += 1
        try:
            found = await certify(replica.engine, name, _one(known, self._turn), tolerances=AGAIN_ONE)
        except AdapterMissing:
            return 0  # it was unloaded meanwhile
        except EngineError as error:
            log.warning("the patrol could not ask engine %s: %s", replica.name, error)
            return 0
        result = "passed" if found.passed else "differs"
        self._means.metrics.counter("graftline_patrol_probes_total", replica=replica.name, result=result).add(1)
        if found.passed:
            replica.well_at = now
        elif replica.open and name in replica.proven:
            await replica.differs(version, found)
        return 1

    def _look_at_files(self, version: Version, subject: str) -> None:
        """An engine that evicts reads its files again, and dies where they are gone: better known before."""
        book, there = self._means.book, self._means.staging.present(version.digest)
        if there and book.damaged.get(version.digest) == NotFound.code:
            book.mended(version)
        elif not there and version.digest not in book.damaged:
            error = NotFound(f"The files of {version.name}:{version.number} are gone; it serves from engines' memory.")
            log.error("%s", error)
            book.damage(version, error, subject=subject)


def _one(known: Recorded, turn: int) -> Recorded:
    """One prompt of a recording, another each time."""
    at = turn % len(known.prompts)
    return replace(
        known,
        prompts=known.prompts[at : at + 1],
        logprobs=known.logprobs[at : at + 1],
        base_logprobs=known.base_logprobs[at : at + 1],
    )
