"""The HTTP/1.1 protocol of the gateway: uvicorn's, with typed errors, and with the limits that it leaves to a proxy in
front, of which we have none.

A client that sends its head a byte a second is dropped, one that never finishes it costs a timer and nothing else, and
one that stops reading its answer is cut off with whatever was still to be sent.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

#: The ASGI extension by which a request reaches its connection, and is told of its loss without a task that listens.
CONNECTION = "graftline.connection"

_CONTINUE = b"HTTP/1.1 100 "
_UPGRADE = re.compile(rb"\r\n[Uu]pgrade:")


def bounded(header_bytes_max: int, header_timeout_s: float, send_timeout_s: float) -> type[HttpToolsProtocol]:
    """The protocol class with these limits; uvicorn makes one instance a connection."""
    limits = {
        "header_bytes_max": header_bytes_max,
        "header_timeout_s": header_timeout_s,
        "send_timeout_s": send_timeout_s,
    }
    return type("Bounded", (Bounded,), limits)


class Bounded(HttpToolsProtocol):
    """One connection. The limits are set by `bounded`."""

    header_bytes_max = 32 << 10
    header_timeout_s = 10.0
    send_timeout_s = 60.0

    #: Called when the connection is lost. Who runs on it sets this, and finds us as the scope's extension `CONNECTION`.
    on_lost: Callable[[], None] | None = None

    _head_bytes = 0
    _barren_bytes = 0  # since the body last grew: trailers and chunk extensions, which no part of us wants
    _in_head = True
    _head_timer: asyncio.TimerHandle | None = None
    _stuck_timer: asyncio.TimerHandle | None = None

    @property
    def whole(self) -> bool:
        """Every request that has begun is here to its last byte, so that no reader of a body will wait."""
        return self.cycle is not None and not self.cycle.more_body

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
            super().data_received(_without_upgrade(data) if b"pgrade" in data else data)
            if self._in_head and self._head_bytes > self.header_bytes_max:
                self._refuse(
                    431, "request_head_too_large", f"The request's head is over {self.header_bytes_max} bytes."
                )
            elif self._in_head and self._head_bytes and self._head_timer is None:
                self._wait_for_head()
            return
        self._barren_bytes += len(data)
        super().data_received(data)
        if self._barren_bytes > self.header_bytes_max:
            self._refuse(400, "invalid_http", "The request's body holds more chunk extensions or trailers than may be.")

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        if sum(len(n) + len(v) for n, v in self.headers) + len(self.url) > self.header_bytes_max:
            self._refuse(431, "request_head_too_large", f"The request's head is over {self.header_bytes_max} bytes.")
            return
        self.scope["extensions"] = {CONNECTION: self}  # type: ignore[dict-item]
        super().on_headers_complete()
        if self.cycle is not None and self.scope["method"] != "HEAD":  # whose answer has no body to wait for
            self.cycle.transport = Joining(self.transport)  # type: ignore[assignment]

    def on_message_complete(self) -> None:
        if self.cycle is not None:
            super().on_message_complete()
            if not self.pipeline:  # a large body has stopped the reading, and only who reads hears of a loss
                self.flow.resume_reading()
        self._in_head, self._head_bytes, self._barren_bytes = True, 0, 0

    def on_body(self, body: bytes) -> None:
        self._barren_bytes = 0
        if self.cycle is not None:
            super().on_body(body)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck_timer = self.loop.call_later(self.send_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        if self._stuck_timer is not None:
            self._stuck_timer.cancel()
            self._stuck_timer = None
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head_timer, self._stuck_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._stuck_timer = None
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()
            self.on_lost = None

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "invalid_http", "This is not an HTTP/1.1 request that can be understood.")

    def _wait_for_head(self) -> None:
        self._head_timer = self.loop.call_later(self.header_timeout_s, self._too_slow)

    def _too_slow(self) -> None:
        self._head_timer = None
        if self._head_bytes == 0:
            self.transport.close()
        else:
            self._refuse(408, "request_timeout", f"The request's head took longer than {self.header_timeout_s:g} s.")

    def _refuse(self, status: int, code: str, message: str) -> None:
        if self.transport.is_closing():
            return
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
        content = orjson.dumps({"error": error})
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(content)
        self.transport.write(STATUS_LINE[status] + head + content)
        self.transport.close()


class Joining:
    """The transport of one answer: its head waits for the first bytes of its body, and both leave in one write.

    uvloop writes at once, so the head alone would be a system call, a packet and a waking of the client for nothing.
    """

    __slots__ = ("_begun", "_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport, self._head = transport, b""
        self._begun = False

    def write(self, data: bytes) -> None:
        if self._begun:
            self._transport.write(self._head + data if self._head else data)
            self._head = b""
        elif data.startswith(_CONTINUE):
            self._transport.write(data)
        else:
            self._begun, self._head = True, data

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        if self._head:
            self.write(b"")
        self._transport.close()


def _without_upgrade(data: bytes) -> bytes:
    """The same head without its offer to speak another protocol, which a server may ignore (RFC 9110 §7.8) and at
    which the parser would stop reading. Java's client makes it on every plain connection."""
    end = data.find(b"\r\n\r\n")
    end = len(data) if end < 0 else end
    return _UPGRADE.sub(b"\r\nx-offer:", data[:end]) + data[end:]
