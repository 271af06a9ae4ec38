"""One worker at a time runs the fleet: a lease in the control database, renewed every half second."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from gateway.engines.fleet.store import Duties

log = logging.getLogger("graftline.fleet")

RENEW_EVERY_S = 0.5
#: Workers' clocks may differ by less than this.
TTL_S = 4.0


class Duty:
    def __init__(
        self,
        duties: Duties,
        owner: str,
        *,
        gained: Callable[[], None],
        lost: Callable[[], None],
        clock: Callable[[], float] = time.time,
        mono: Callable[[], float] = time.monotonic,
    ) -> None:
        """`gained` is called, in a thread, before the first step on duty; `lost` when it went to another worker."""
        self._duties, self._owner, self._clock, self._mono = duties, owner, clock, mono
        self._gained, self._lost = gained, lost
        self._until = 0.0
        self._told = False
        self._had = False

    @property
    def held(self) -> bool:
        """Whether this worker is on duty; false by itself when the lease could not be renewed in time."""
        return self._mono() < self._until

    async def renew(self) -> None:
        began = self._mono()
        taken = await asyncio.to_thread(self._duties.on_duty, self._owner, now=self._clock(), ttl_s=TTL_S)
        if taken:
            if not self._had:
                log.info("this worker is on duty for the fleet")
                await asyncio.to_thread(self._gained)
            self._until = began + TTL_S / 2
            self._had, self._told = True, False
            return
        self._until = 0.0
        if self._had:
            self._lost()
        if not self._told:
            log.warning("another worker is on duty for the fleet; this one waits")
        self._had, self._told = False, True

    async def end(self) -> None:
        self._until = 0.0
        await asyncio.to_thread(self._duties.off_duty, self._owner)

    def on_duty(self, step: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[None]]:
        """The step, done only while on duty."""

        async def guarded() -> None:
            if self.held:
                await step()

        return guarded
