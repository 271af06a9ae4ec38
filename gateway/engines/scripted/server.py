"""The wire of the scripted engine: HTTP/1.1 on TCP or a unix socket, written so that it can also be spoken badly."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from pathlib import Path
from typing import cast

import httptools

from gateway.engines.scripted.engine import Engine
from gateway.engines.scripted.values import Options, Request

_JSON = b"application/json"
_SSE = b"text/event-stream; charset=utf-8"


class Reply:
    """Where one answer is written."""

    __slots__ = ("_transport", "_wire")

    def __init__(self, wire: Wire, transport: asyncio.Transport) -> None:
        self._wire = wire
        self._transport = transport

    def whole(self, status: int, body: bytes, content_type: bytes = _JSON) -> None:
        typed = b"content-type: %b\r\n" % content_type if content_type else b""
        self.raw(b"%bcontent-length: %d\r\n%b\r\n%b" % (_head(status), len(body), typed, body))

    def begin(self) -> None:
        """The head of a stream."""
        self.raw(b"%bcontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n" % (_head(200), _SSE))

    async def event(self, data: bytes, *, split: bool = False) -> None:
        """One chunk; waits while the reader is behind. `split` tears it over two writes."""
        framed = b"%x\r\n%b\r\n" % (len(data), data)
        if split:
            self.raw(framed[: len(framed) // 2])
            await asyncio.sleep(0.002)
            framed = framed[len(framed) // 2 :]
        self.raw(framed)
        await self._wire.writable.wait()

    def end(self) -> None:
        self.raw(b"0\r\n\r\n")

    def raw(self, data: bytes) -> None:
        self._transport.write(data)

    def cut(self) -> None:
        """Send what is buffered, then close in the middle."""
        self._transport.close()


class Wire(asyncio.Protocol):
    """One client connection; requests are answered one after the other."""

    def __init__(self, scripted: Scripted) -> None:
        self._scripted = scripted
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._waiting: list[Request] = []
        self._task: asyncio.Task[None] | None = None
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._scripted.wires.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._scripted.wires.discard(self)
        self.writable.set()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if self._transport is not None:
                self._transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                self._transport.close()

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body = b"", {}, []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        request = Request(
            method=self._parser.get_method().decode(),
            path=self._url.decode("latin-1").partition("?")[0],
            request_id=self._headers.get(b"x-request-id", b"").decode("latin-1"),
            body=b"".join(self._body),
        )
        self._waiting.append(request)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._answer())

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def _answer(self) -> None:
        try:
            while self._waiting and self._transport is not None:
                await self._scripted.engine.handle(self._waiting.pop(0), Reply(self, self._transport))
        finally:
            self._task = None


class Scripted:
    """A scripted engine that is listening. `url` is what `Vllm` takes."""

    def __init__(self, options: Options, on_death: Callable[[], None] | None = None) -> None:
        """`on_death` replaces what `[[die]]` does, which is to stop listening and drop every connection."""
        self.engine = Engine(options, on_death or self.close)
        self.url = ""
        self.wires: set[Wire] = set()
        self._server: asyncio.Server | None = None

    async def listen(self, *, uds: Path | None = None, host: str = "127.0.0.1", port: int = 0) -> None:
        loop = asyncio.get_running_loop()
        if uds is not None:
            self._server = await loop.create_unix_server(lambda: Wire(self), str(uds))
            self.url = f"unix:{uds}"
        else:
            self._server = await loop.create_server(lambda: Wire(self), host, port)
            self.url = f"http://{host}:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        """Stop listening and drop every connection, as a killed process would."""
        if self._server is not None:
            self._server.close()
        for wire in tuple(self.wires):
            wire.abort()


@contextlib.asynccontextmanager
async def running(options: Options | None = None, *, uds: Path | None = None) -> AsyncIterator[Scripted]:
    """A scripted engine within this process, gone at the end of the block."""
    scripted = Scripted(options or Options())
    await scripted.listen(uds=uds)
    try:
        yield scripted
    finally:
        scripted.close()
        await asyncio.sleep(0)  # lets the connections close


def _head(status: int) -> bytes:
    return b"HTTP/1.1 %d %b\r\nserver: scripted\r\n" % (status, HTTPStatus(status).phrase.encode())
