"""A replica whose engine takes no load more before a restart: who waits is told, and a restart is asked for in time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from adapters.registry import engine_name
from adapters.store import Version
from gateway.engines.fleet.book import reason
from gateway.engines.fleet.capacity import when_full
from gateway.engines.fleet.view import View

if TYPE_CHECKING:
    from gateway.engines.fleet.replica import Replica

log = logging.getLogger("graftline.fleet")


class Full:
    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.idle_since: float | None = None
        self._told: set[str] = set()

    async def step(self, view: View, waiting: Sequence[Version]) -> None:
        """Loads wait for room; a restart makes some, where somebody else can serve meanwhile or nobody asks."""
        replica, now = self._replica, time.monotonic()
        if await replica.inflight():
            self.idle_since = None
        elif self.idle_since is None:
            self.idle_since = now
        words = f"{replica.loads} of {replica.means.terms.bound} places were used since the engine's start"
        for version in waiting:
            if (name := engine_name(version)) not in self._told:
                log.warning("engine %s has no room for %s: %s", replica.name, name, words)
                self._told.add(name)
                found = reason("waiting_for_room", words, field="room", advice="It loads after the engine's restart.")
                await asyncio.to_thread(replica.means.book.failed, version, "load", [found], subject=replica.name)
        carried = all(replica.served_elsewhere(replica.name, name) for name in replica.reported or ())
        share = view.shares.get(replica.name, ())
        decided = when_full(
            reclaimable=replica.loads - len(share),
            needed=bool(waiting),
            others_carry=carried and bool(replica.reported),
            idle_s=0.0 if self.idle_since is None else now - self.idle_since,
        )
        if decided == "recycle" and not view.out:
            await replica.take_out(f"full: {words}")
