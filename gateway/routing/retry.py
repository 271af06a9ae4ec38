"""When a request that has not been answered yet is tried again, and how long it waits for its adapter."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gateway.errors import AdapterUnavailable

ATTEMPTS_MAX = 3
_LOOK_S = 0.05


class Patience:
    """One request's count of tries. `tried` holds the replicas that failed it."""

    __slots__ = ("_adapter_wait_s", "_clock", "_until", "tried")

    def __init__(self, *, adapter_wait_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.tried: list[str] = []
        self._adapter_wait_s, self._clock = adapter_wait_s, clock
        self._until = 0.0

    def again(self, replica: str) -> bool:
        """Count a failure of `replica`; whether another try is allowed."""
        self.tried.append(replica)
        return len(self.tried) < ATTEMPTS_MAX

    async def wait(self) -> None:
        """Wait a moment for an adapter that should be there; raises `AdapterUnavailable` in the end."""
        now = self._clock()
        self._until = self._until or now + self._adapter_wait_s
        if now >= self._until:
            raise AdapterUnavailable(
                f"No engine that is up serves this adapter version; waited {self._adapter_wait_s:g} s for it.",
                retry_after_s=2,
            )
        await asyncio.sleep(_LOOK_S)
