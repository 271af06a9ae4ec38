"""The scripted engine's adapter slots, as unfair as vLLM's: whoever's adapter runs goes ahead of all who wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator


class Slots:
    """At most `count` distinct adapters run at once, 0 for no limit. `most` is how many were ever asked for at once."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._running: Counter[str] = Counter()
        self._waiting: list[tuple[str, asyncio.Event]] = []
        self.most = 0

    @contextlib.asynccontextmanager
    async def slot(self, adapter: str) -> AsyncIterator[None]:
        """Wait until the adapter runs already or a slot is free, then keep it running."""
        event = asyncio.Event()
        self._waiting.append((adapter, event))
        self._schedule()
        self.most = max(self.most, len({*self._running, *(name for name, _ in self._waiting)}))
        try:
            await event.wait()
            yield
        finally:
            if event.is_set():
                self._running[adapter] -= 1
                self._running += Counter()  # drops the zeros
            else:
                self._waiting.remove((adapter, event))
            self._schedule()

    def _schedule(self) -> None:
        """First come first served, but those whose adapter has no slot are passed over."""
        left = []
        for adapter, event in self._waiting:
            if adapter in self._running or not self._count or len(self._running) < self._count:
                self._running[adapter] += 1
                event.set()
            else:
                left.append((adapter, event))
        self._waiting = left
