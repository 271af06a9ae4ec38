"""An answer that is arriving from an engine: status, head, and a body in the pieces the socket gave.

One item for each read that held body, never one for each event. A reader that falls behind stops the socket.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from gateway.engines.errors import EngineBroke, EngineError, EngineTimeout

Header = tuple[bytes, bytes]

#: Body bytes that wait for the reader before the socket is stopped.
HELD_BYTES_MAX = 256 << 10


class Carrier(Protocol):
    """The connection an answer comes over."""

    def flow(self) -> None: ...

    def abort(self) -> None: ...


class Answer:
    """A status and head that have arrived, and a body that is arriving.

    Read it with `read` or by iteration; call `close` on every way out. Closing an unfinished answer drops the
    connection, by which the engine learns to stop working. Errors: `EngineBroke`, `EngineTimeout`.
    """

    __slots__ = (
        "_connection",
        "_engine",
        "_error",
        "_held",
        "_limit_s",
        "_loop",
        "_parts",
        "_quiet_since",
        "_stall_timeout_s",
        "_timer",
        "_waiter",
        "done",
        "headers",
        "status",
    )

    def __init__(
        self, connection: Carrier, loop: asyncio.AbstractEventLoop, *, engine: str, stall_timeout_s: float
    ) -> None:
        #: 0 until the head has arrived.
        self.status = 0
        self.headers: list[Header] = []
        #: The whole answer has been received, though not necessarily read.
        self.done = False
        self._connection: Carrier | None = connection
        self._engine = engine
        self._error: EngineError | None = None
        self._parts: list[bytes] = []
        self._held = 0
        self._loop = loop
        self._waiter: asyncio.Future[bool] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._quiet_since = 0.0
        self._limit_s = 0.0
        self._stall_timeout_s = stall_timeout_s

    @property
    def content_type(self) -> bytes:
        return self.header(b"content-type")

    def header(self, name: bytes) -> bytes:
        """The first header of this lower-case name, or empty."""
        return next((value for key, value in self.headers if key.lower() == name), b"")

    async def read(self, limit: int) -> bytes:
        """The whole body. One longer than `limit` bytes is dropped: `EngineBroke`."""
        parts: list[bytes] = []
        size = 0
        async for part in self:
            size += len(part)
            if size > limit:
                self.close()
                raise EngineBroke(f"The engine's answer is longer than {limit} bytes.", engine=self._engine)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> bytes:
        while not self._parts:
            if self._error is not None:
                raise self._error
            if self.done:
                raise StopAsyncIteration
            if not await self._something(self._stall_timeout_s):
                self.close()
                raise EngineTimeout(
                    f"The engine sent nothing for {self._stall_timeout_s:g} s within its answer.", engine=self._engine
                )
        parts, self._parts = self._parts, []
        self._held = 0
        if self._connection is not None:
            self._connection.flow()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Let go of the connection; drops it unless the answer is complete. Calling it again does nothing."""
        if self._connection is not None:
            connection = self._connection
            self.fail(EngineBroke("The answer was closed before it was complete.", engine=self._engine))
            connection.abort()

    # What follows is for this room only.

    async def head(self, timeout_s: float) -> None:
        """Wait for status and headers, `timeout_s` in all however they drip in."""
        limit = self._loop.time() + timeout_s
        while not self.status:
            if self._error is not None:
                raise self._error
            left = limit - self._loop.time()
            if left <= 0 or not await self._something(left):
                self.close()
                raise EngineTimeout(f"The engine did not begin to answer within {timeout_s:g} s.", engine=self._engine)

    def take(self, body: bytes) -> bool:
        """Hold a piece of body for the reader; says whether the socket should stop."""
        self._parts.append(body)
        self._held += len(body)
        return self._held > HELD_BYTES_MAX

    def complete(self) -> None:
        self.done = True
        self._connection = None
        self.wake()

    def fail(self, error: EngineError) -> None:
        if self._error is None and not self.done:
            self._error = error
        self._connection = None
        self.wake()

    def wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(True)
        if self._connection is None and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _something(self, limit_s: float) -> bool:
        """Wait for news; False after `limit_s` without any. One timer serves many waits, so a token costs no timer."""
        self._limit_s = limit_s
        self._quiet_since = self._loop.time()
        if self._timer is not None and self._timer.when() > self._quiet_since + limit_s:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_later(limit_s, self._tick)
        self._waiter = self._loop.create_future()
        try:
            return await self._waiter
        finally:
            self._waiter = None

    def _tick(self) -> None:
        self._timer = None
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        left = self._quiet_since + self._limit_s - self._loop.time()
        if left > 0.001:
            self._timer = self._loop.call_later(left, self._tick)
        else:
            waiter.set_result(False)
