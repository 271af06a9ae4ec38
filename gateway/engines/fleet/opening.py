"""Before anything of a (re)started engine is served: does the base answer as recorded, and do a few of the versions?

While it is asked, what an engine like it certified is loaded already, without a word to any gateway: of a thousand
adapters' loads, those are seconds that nobody waits for twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from adapters.checks.parity import AGAIN
from adapters.lifecycle import State
from adapters.registry import engine_name
from adapters.store import Version
from gateway.engines.fleet.prove import certify, certify_base
from gateway.engines.fleet.view import View

if TYPE_CHECKING:
    from gateway.engines.fleet.loading import Loading
    from gateway.engines.fleet.replica import Replica

log = logging.getLogger("graftline.fleet")

#: Versions that are asked for with the base.
SAMPLE = 3


class Opening:
    def __init__(self, replica: Replica, loading: Loading) -> None:
        self._replica, self._loading = replica, loading
        self.asking = False
        #: How often, one engine after the other, something differed.
        self.differed = 0

    async def run(self, view: View, share: Sequence[Version]) -> bool:
        """Ask, and open the replica or take it out; returns whether it is open. Raises what an absent engine raises."""
        self.asking = True
        sample = await asyncio.to_thread(self._sample, share or view.wanted)  # who is out has no share
        there = [version for version in sample if await self._loading.fetch(version)]
        asked, loaded = await asyncio.gather(
            self._asked(there), self._loading.ahead(view, share), return_exceptions=True
        )
        for found in (asked, loaded):
            if isinstance(found, BaseException):
                raise found
        return asked is True

    async def _asked(self, sample: Sequence[Version]) -> bool:
        try:
            return await self._answers(sample)
        finally:
            self.asking = False

    async def _answers(self, sample: Sequence[Version]) -> bool:
        replica, means = self._replica, self._replica.means
        idle = not await replica.inflight()
        known = means.book.recorded(sample[0]) if sample else None
        found = await certify_base(replica.engine, means.terms.base_name, known, idle=idle)
        if not found.passed:
            await self._differs(f"the base: {found.reasons[0]}")
            return False
        for version in sample:
            recorded = means.book.recorded(version)
            assert recorded is not None
            found = await certify(replica.engine, engine_name(version), recorded, idle=idle, tolerances=AGAIN)
            if not found.passed:
                await asyncio.to_thread(means.book.failed, version, "parity", found.reasons, subject=replica.name)
                await self._differs(f"{version.name}:{version.number}: {found.reasons[0]}")
                return False
            replica.proven.add(engine_name(version))
        replica.open, self.differed, replica.well_at = True, 0, means.clock()
        log.info("engine %s answers as it should: it is opened", replica.name)
        means.metrics.gauge("graftline_replica_out", replica=replica.name).set(0)
        return True

    def _sample(self, share: Sequence[Version]) -> list[Version]:
        """The first few that an engine like this one certified and of which it is known what they answer."""
        book, mark = self._replica.means.book, self._replica.fingerprint
        found = (v for v in share if v.state is State.VERIFIED and book.trusted(v, mark))
        return [v for v, _ in zip((v for v in found if book.recorded(v)), range(SAMPLE), strict=False)]

    async def _differs(self, what: str) -> None:
        self.differed += 1
        await self._replica.take_out(f"differs: {what}")
