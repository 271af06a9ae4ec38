"""One ticker for all requests: it must never wait for one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.api.openai import exchange as room
from gateway.api.openai.body import ClientLeft, read
from gateway.api.openai.exchange import Exchange, Watch
from gateway.engines.sse import KEEP_ALIVE
from gateway.errors import BadRequest, ClientTimeout, TooLarge


class Client:
    """One end of an exchange. `reads` says whether it takes what is sent."""

    def __init__(self, reads: bool = True) -> None:
        self.reads, self.got = reads, []  # type: ignore[var-annotated]
        self.whole = True
        self.on_lost: Callable[[], None] | None = None

    async def send(self, message: dict[str, Any]) -> None:
        if not self.reads:
            await asyncio.Event().wait()
        self.got.append(message["body"])


class Running:
    """A request that waits until it is cancelled."""

    def __init__(self, watch: Watch, client: Client) -> None:
        self.watch, self.client = watch, client
        self.exchange: Exchange | None = None
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        self.exchange = self.watch.begin(self.client.send, self.client)
        try:
            await asyncio.Event().wait()
        finally:
            self.watch.end(self.exchange)


async def begun(watch: Watch, client: Client) -> Exchange:
    running = Running(watch, client)
    await asyncio.sleep(0)
    assert running.exchange is not None
    return running.exchange


async def ended(exchange: Exchange) -> None:
    with pytest.raises(asyncio.CancelledError):
        await exchange.task


@pytest.fixture
def watch() -> Watch:
    return Watch(request_timeout_s=100, send_timeout_s=50, keep_alive_s=10)


async def test_silence_is_commented_once_a_while_and_only_in_streams(watch: Watch) -> None:
    client = Client()
    exchange = await begun(watch, client)
    exchange.moved -= 11
    exchange.commented -= 11
    await watch.tick()
    assert client.got == []
    exchange.streaming = True
    await watch.tick()
    await watch.tick()
    assert client.got == [KEEP_ALIVE]
    exchange.task.cancel()
    await ended(exchange)


async def test_a_client_that_does_not_read_holds_up_nobody(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_COMMENT_S", 0.001)
    deaf, other = Client(reads=False), Client()
    found = [await begun(watch, deaf), await begun(watch, other)]
    for exchange in found:
        exchange.streaming, exchange.moved, exchange.commented = True, exchange.moved - 11, exchange.commented - 11
    async with asyncio.timeout(1):
        await watch.tick()
    assert other.got == [KEEP_ALIVE]
    for exchange in found:
        exchange.task.cancel()
        await ended(exchange)


async def test_a_client_that_stops_reading_is_left_even_when_the_request_is_past_its_time(watch: Watch) -> None:
    exchange = await begun(watch, Client())
    exchange.sending, exchange.moved, exchange.begun = True, exchange.moved - 51, exchange.begun - 101
    await watch.tick()
    assert exchange.client_left
    await ended(exchange)


async def test_a_request_past_its_time_is_stopped_with_a_fault(watch: Watch) -> None:
    exchange = await begun(watch, Client())
    exchange.begun -= 101
    await watch.tick()
    assert exchange.fault is not None
    assert not exchange.client_left
    await ended(exchange)
    assert len(watch) == 0


async def test_a_client_that_leaves_stops_its_request_and_one_that_was_answered_does_not(watch: Watch) -> None:
    client = Client()
    exchange = await begun(watch, client)
    assert client.on_lost is not None
    client.on_lost()
    await ended(exchange)
    assert exchange.client_left
    done = Exchange(asyncio.ensure_future(asyncio.sleep(0)), client.send, 0.0)
    done.ended = True
    done.leave()
    assert not done.client_left
    await done.task


def feed(*messages: dict[str, Any]) -> Any:
    left = list(messages)

    async def receive() -> dict[str, Any]:
        if left:
            return left.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    return receive


def part(body: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_body_is_read_whole() -> None:
    assert await read(feed(part(b"a")), [], bytes_max=9, timeout_s=1) == b"a"
    assert await read(feed(part(b"a", True), part(b"b", True), part(b"c")), [], bytes_max=9, timeout_s=1) == b"abc"


async def test_a_body_past_its_limits_is_refused() -> None:
    with pytest.raises(TooLarge):
        await read(feed(), [(b"content-length", b"10")], bytes_max=9, timeout_s=1)
    with pytest.raises(TooLarge):
        await read(feed(), [(b"content-length", b"x")], bytes_max=9, timeout_s=1)
    with pytest.raises(TooLarge):
        await read(feed(part(b"x" * 10)), [], bytes_max=9, timeout_s=1)
    with pytest.raises(TooLarge):
        await read(feed(part(b"x" * 5, True), part(b"x" * 5, True)), [], bytes_max=9, timeout_s=1)
    with pytest.raises(BadRequest):
        await read(feed(part(b"")), [(b"content-encoding", b"gzip")], bytes_max=9, timeout_s=1)
    with pytest.raises(ClientTimeout):
        await read(feed(part(b"x", True)), [], bytes_max=9, timeout_s=0.001)
    with pytest.raises(ClientLeft):
        await read(feed(part(b"x", True), {"type": "http.disconnect"}), [], bytes_max=9, timeout_s=1)
