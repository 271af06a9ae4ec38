"""One HTTP/1.1 connection to an engine, which carries one exchange at a time.

The parser takes the chunk framing off and nothing else. Nothing here retries or opens connections.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol, cast

import httptools

from gateway.engines.answer import Answer
from gateway.engines.errors import EngineBroke, EngineUnreachable

#: Bytes in a row that bring no body: heads, trailers and chunk extensions end here.
BARREN_BYTES_MAX = 64 << 10
#: Larger request bodies are not copied behind their head.
JOIN_BYTES_MAX = 64 << 10


class Pool(Protocol):
    """Who owns connections: told when one is free for the next exchange, and when one is gone."""

    name: str

    def opened(self, connection: Connection) -> None: ...

    def free(self, connection: Connection) -> None: ...

    def lost(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """One socket and its parser; carries one exchange at a time."""

    __slots__ = (
        "_answer",
        "_barren",
        "_flaw",
        "_heard",
        "_loop",
        "_parser",
        "_paused",
        "_transport",
        "freed_at",
        "pool",
    )

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        self.pool = pool
        self.freed_at = 0.0
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self._answer: Answer | None = None
        self._transport: asyncio.Transport | None = None
        self._barren = 0
        self._flaw = ""
        self._heard = self._paused = False

    def send(self, head: bytes, body: bytes, stall_timeout_s: float) -> Answer:
        """Write one whole request; its answer follows on the returned value."""
        assert self._answer is None
        self._answer = answer = Answer(self, self._loop, engine=self.pool.name, stall_timeout_s=stall_timeout_s)
        self._barren = 0
        self._heard = False
        if self._transport is None or self._transport.is_closing():
            self._lose(None)
        elif len(body) <= JOIN_BYTES_MAX:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        return answer

    def flow(self) -> None:
        """The reader has caught up."""
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        """Drop the socket at once, and with it the answer in progress."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.fail(EngineBroke("The connection to the engine was dropped on this side.", engine=self.pool.name))
        self.pool.lost(self)
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.pool.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.pool.lost(self)
        self._lose(exc)

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:  # nobody asked: a late 408, or an engine that cannot count
            self.abort()
            return
        self._heard = True
        self._barren += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._flaw = self._flaw or str(error) or type(error).__name__
        if answer.done:
            self._finish(answer)
        elif self._flaw or self._barren > BARREN_BYTES_MAX:
            flaw = self._flaw or f"{self._barren} bytes brought no body"
            answer.fail(EngineBroke(f"The engine's answer is not HTTP: {flaw}.", engine=self.pool.name))
            self.abort()
        else:
            answer.wake()

    # httptools; an exception here would be wrapped by the parser, so flaws are noted and judged after the feed

    def on_message_begin(self) -> None:
        if self._answer is None or self._answer.done:
            self._flaw = "a second answer to one request"

    def on_header(self, name: bytes, value: bytes) -> None:
        answer = self._answer
        if answer is not None and not answer.status:
            answer.headers.append((name, value))

    def on_headers_complete(self) -> None:
        answer = self._answer
        if answer is None or answer.done:
            return
        status = self._parser.get_status_code()
        if status < 200:
            answer.headers.clear()  # 100 Continue and its kind; the answer is yet to come
        elif status not in (204, 304) and not (
            answer.header(b"content-length") or answer.header(b"transfer-encoding").lower().endswith(b"chunked")
        ):
            self._flaw = "neither a length nor chunks, so a cut answer would look complete"
        elif not 200 <= status <= 599:
            self._flaw = f"status {status}"
        else:
            answer.status = status

    def on_body(self, body: bytes) -> None:
        answer = self._answer
        if answer is None or answer.done or self._flaw:
            return
        self._barren = 0
        if answer.take(body) and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        answer = self._answer
        if answer is None or not answer.status or self._flaw:
            return
        answer.done = True
        if not self._parser.should_keep_alive():  # only true here: the parser forgets right after
            self._flaw = "closed by the engine"

    # private

    def _finish(self, answer: Answer) -> None:
        self._answer = None
        self.flow()
        if self._flaw or self._transport is None or self._transport.get_write_buffer_size():
            self.abort()
        else:
            self.freed_at = self._loop.time()
            self.pool.free(self)
        answer.complete()

    def _lose(self, exc: Exception | None) -> None:
        answer, self._answer = self._answer, None
        if answer is None or answer.done:
            return
        why = f" ({exc})" if exc is not None else ""
        if self._heard:
            answer.fail(EngineBroke(f"The engine broke off its answer{why}.", engine=self.pool.name))
        else:
            closed = f"The engine closed the connection without an answer{why}."
            answer.fail(EngineUnreachable(closed, engine=self.pool.name))
