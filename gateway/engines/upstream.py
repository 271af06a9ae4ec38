"""The HTTP client of the hot path: keep-alive connections to one engine over TCP, TLS or a unix socket.

Known upstreams only, so no proxies, cookies, redirects, compression or DNS games. How many exchanges run at once is the
caller's limit; here a connection is opened when none is idle.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway.engines.answer import Answer, Header
from gateway.engines.connection import Connection
from gateway.engines.errors import EngineUnreachable

__all__ = ["Address", "Answer", "Header", "Upstream", "parse_url"]

#: Younger than the 5 s after which vLLM's server closes an idle connection, so that we rarely meet one it is closing.
IDLE_S_MAX = 4.0
IDLE_CONNECTIONS_MAX = 256
HEADS_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where an engine listens: `unix_path`, or host and port."""

    host: str
    port: int = 0
    unix_path: str = ""
    tls: bool = False
    prefix: str = ""


def parse_url(url: str) -> Address:
    """Read `http://host:port`, `https://host` or `unix:/path/to.sock`. `ValueError` says what is wrong."""
    if url.startswith("unix:"):
        path = url.removeprefix("unix:").removeprefix("//")
        if not path.startswith("/"):
            raise ValueError(f"engine URL {url!r}: unix: needs an absolute path, such as unix:/run/engine.sock")
        return Address(host="localhost", unix_path=path)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"engine URL {url!r}: give http://HOST:PORT, https://HOST:PORT or unix:/PATH")
    if parts.username or parts.query or parts.fragment:
        raise ValueError(f"engine URL {url!r}: no user, query or fragment is allowed")
    tls = parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    return Address(host=parts.hostname, port=port, tls=tls, prefix=parts.path.rstrip("/"))


class Upstream:
    """Connections to one engine. Belongs to the event loop that first uses it."""

    def __init__(
        self,
        url: str,
        *,
        name: str = "engine",
        connect_timeout_s: float = 5.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.name = name
        self.address = parse_url(url)
        self._connect_timeout_s = connect_timeout_s
        self._tls = tls or (ssl.create_default_context() if self.address.tls else None)
        self._heads: dict[tuple[str, str], bytes] = {}
        self._idle: dict[Connection, None] = {}  # ordered: the youngest last
        self._open: set[Connection] = set()
        self._closed = False

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Sequence[Header] = (),
        *,
        head_timeout_s: float,
        stall_timeout_s: float = 120.0,
    ) -> Answer:
        """Send one request and wait for the head of its answer.

        `head_timeout_s` covers connecting and waiting; `stall_timeout_s` is the longest silence within the body. A
        kept connection that the engine had already closed is replaced once, and only if not a byte of answer came.
        Errors: `EngineUnreachable`, `EngineTimeout`, `EngineBroke`.
        """
        loop = asyncio.get_running_loop()
        head = self._head(method, path, len(body), headers)
        began = loop.time()
        connection = self._reuse(began)
        if connection is not None:
            try:
                return await _exchange(connection, head, body, head_timeout_s, stall_timeout_s)
            except EngineUnreachable:
                head_timeout_s -= loop.time() - began
        connection = await self._connect(loop, min(self._connect_timeout_s, head_timeout_s))
        return await _exchange(connection, head, body, head_timeout_s - (loop.time() - began), stall_timeout_s)

    def close(self) -> None:
        """Drop every connection, answers in progress included."""
        self._closed = True
        for connection in tuple(self._open):
            connection.abort()

    @property
    def connections(self) -> int:
        """Open connections, idle ones included."""
        return len(self._open)

    # what a connection tells its pool

    def opened(self, connection: Connection) -> None:
        self._open.add(connection)

    def free(self, connection: Connection) -> None:
        if len(self._idle) < IDLE_CONNECTIONS_MAX:
            self._idle[connection] = None
        else:
            connection.abort()

    def lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._idle.pop(connection, None)

    # private

    def _head(self, method: str, path: str, length: int, headers: Sequence[Header]) -> bytes:
        head = self._heads.get((method, path)) or self._new_head(method, path)
        for name, value in headers:
            if b"\n" in value or b"\r" in value:
                raise ValueError(f"header {name!r} holds a line break")
            head += b"%b: %b\r\n" % (name, value)
        return head + (b"\r\n" if method == "GET" else b"content-length: %d\r\n\r\n" % length)

    def _new_head(self, method: str, path: str) -> bytes:
        """The lines that are the same for every request of this kind, kept for the next one."""
        if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path:
            raise ValueError(f"path {path!r} cannot be sent")
        at = self.address
        host = f"[{at.host}]" if ":" in at.host else at.host
        head = f"{method} {at.prefix}{path} HTTP/1.1\r\nhost: {host}{f':{at.port}' if at.port else ''}\r\n".encode()
        if method != "GET":
            head += b"content-type: application/json\r\n"
        if len(self._heads) < HEADS_MAX:
            self._heads[method, path] = head
        return head

    def _reuse(self, now: float) -> Connection | None:
        """The idle connection used last; if even that one is too old, so are all the others."""
        if not self._idle:
            return None
        connection, _ = self._idle.popitem()
        if now - connection.freed_at <= IDLE_S_MAX:
            return connection
        connection.abort()
        for other in tuple(self._idle):
            other.abort()
        return None

    async def _connect(self, loop: asyncio.AbstractEventLoop, limit_s: float) -> Connection:
        if self._closed:
            raise EngineUnreachable("This client has been closed.", engine=self.name)
        at = self.address
        try:
            async with asyncio.timeout(limit_s):
                if at.unix_path:
                    _, connection = await loop.create_unix_connection(lambda: Connection(self, loop), at.unix_path)
                else:
                    _, connection = await loop.create_connection(
                        lambda: Connection(self, loop), at.host, at.port, ssl=self._tls
                    )
        except TimeoutError as error:
            raise EngineUnreachable(f"No connection to the engine within {limit_s:g} s.", engine=self.name) from error
        except OSError as error:
            raise EngineUnreachable(f"No connection to the engine: {error}.", engine=self.name) from error
        return connection


async def _exchange(
    connection: Connection, head: bytes, body: bytes, head_timeout_s: float, stall_timeout_s: float
) -> Answer:
    answer = connection.send(head, body, stall_timeout_s)
    try:
        await answer.head(head_timeout_s)
    finally:
        if not answer.status:  # failed, or the caller was cancelled
            answer.close()
    return answer
