"""What must be watched while a request runs: a client that leaves or stops reading, a request past its time.

One ticker looks at all running exchanges, so that a request costs no timers of its own and a token costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from gateway.engines.errors import EngineTimeout
from gateway.engines.sse import KEEP_ALIVE

_COMMENT_S = 0.1

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


class Connection(Protocol):
    """What a request needs of the connection that it came over."""

    on_lost: Callable[[], None] | None

    @property
    def whole(self) -> bool: ...


class Exchange:
    """One running request, from its whole body to its last byte."""

    __slots__ = ("begun", "client_left", "commented", "ended", "fault", "moved", "send", "sending", "streaming", "task")

    def __init__(self, task: asyncio.Task[Any], send: Send, now: float) -> None:
        self.task, self.send = task, send
        self.begun = self.moved = self.commented = now
        self.streaming = False  # the head of a stream is out: silence may be filled with comments
        self.sending = False  # waiting for the client to read
        self.client_left = False
        self.ended = False
        self.fault: EngineTimeout | None = None

    def leave(self) -> None:
        """The client is gone: stop the request, and so the engine's work on it."""
        if not self.ended:
            self.client_left = True
            self.task.cancel()

    def stop(self, fault: EngineTimeout) -> None:
        if not self.ended and self.fault is None:
            self.fault = fault
            self.task.cancel()


class Watch:
    """All exchanges of this process."""

    def __init__(self, *, request_timeout_s: float, send_timeout_s: float, keep_alive_s: float):
        self._request_s, self._send_s, self._keep_alive_s = request_timeout_s, send_timeout_s, keep_alive_s
        self._running: set[Exchange] = set()

    def __len__(self) -> int:
        return len(self._running)

    def begin(self, send: Send, connection: Connection) -> Exchange:
        """Watch the current task as an exchange; it must be ended with `end`."""
        task = asyncio.current_task()
        assert task is not None
        exchange = Exchange(task, send, task.get_loop().time())
        self._running.add(exchange)
        connection.on_lost = exchange.leave
        return exchange

    def end(self, exchange: Exchange) -> None:
        exchange.ended = True
        self._running.discard(exchange)

    async def tick(self) -> None:
        """Look at every exchange once; called about every second."""
        now = asyncio.get_running_loop().time()
        silent: list[Exchange] = []
        for exchange in tuple(self._running):
            silent_s = now - exchange.moved
            if exchange.sending and silent_s > self._send_s:
                exchange.leave()
            elif now - exchange.begun > self._request_s:
                exchange.stop(EngineTimeout(f"The request took longer than the {self._request_s:g} s that it may."))
            elif exchange.sending:
                continue
            elif exchange.streaming and now - max(exchange.moved, exchange.commented) > self._keep_alive_s:
                exchange.commented = now
                silent.append(exchange)
        if silent:
            await _comment(silent)


async def _comment(exchanges: list[Exchange]) -> None:
    """A comment line to each. A client that does not read is not waited for, nor is one that has just been answered."""
    message = {"type": "http.response.body", "body": KEEP_ALIVE, "more_body": True}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_COMMENT_S):
            await asyncio.gather(*(each.send(message) for each in exchanges), return_exceptions=True)
