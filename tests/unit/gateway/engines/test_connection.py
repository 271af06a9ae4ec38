"""The parser side of an engine connection, fed by hand: whatever arrives, an answer is whole or an error is raised."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.engines.answer import HELD_BYTES_MAX, Answer
from gateway.engines.connection import BARREN_BYTES_MAX, Connection
from gateway.engines.errors import EngineBroke, EngineError, EngineTimeout, EngineUnreachable

PLAIN = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5\r\n\r\nhello"
STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    b"6\r\none\r\n\n\r\n4\r\ntwo\n\r\n0\r\n\r\n"
)


class Wire(asyncio.Transport):
    """A transport that goes nowhere and remembers what was asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.aborted = self.paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data)

    def writelines(self, list_of_data: Any) -> None:
        self.sent += b"".join(list_of_data)

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


class Pool:
    name = "e1"

    def __init__(self) -> None:
        self.freed: list[Connection] = []
        self.gone: list[Connection] = []

    def opened(self, connection: Connection) -> None:
        pass

    def free(self, connection: Connection) -> None:
        self.freed.append(connection)

    def lost(self, connection: Connection) -> None:
        self.gone.append(connection)


class Rig:
    """A connection with one request sent on it."""

    def __init__(self, *, stall_timeout_s: float = 5.0) -> None:
        self.pool = Pool()
        self.wire = Wire()
        self.connection = Connection(self.pool, asyncio.get_running_loop())
        self.connection.connection_made(self.wire)
        self.answer: Answer = self.connection.send(b"HEAD\r\n\r\n", b"body", stall_timeout_s)

    def feed(self, *pieces: bytes) -> None:
        for piece in pieces:
            if not self.wire.aborted:
                self.connection.data_received(piece)


async def outcome(rig: Rig) -> tuple[int, bytes]:
    await rig.answer.head(0.5)
    return rig.answer.status, await rig.answer.read(1 << 20)


async def test_a_request_is_written_whole_and_its_answer_is_read_whole() -> None:
    rig = Rig()
    rig.feed(PLAIN)
    assert rig.wire.sent == b"HEAD\r\n\r\nbody"
    assert await outcome(rig) == (200, b"hello")
    assert rig.answer.content_type == b"application/json"
    assert rig.pool.freed == [rig.connection]


async def test_a_read_that_holds_several_chunks_is_handed_on_as_one() -> None:
    rig = Rig()
    rig.feed(STREAM)
    await rig.answer.head(0.5)
    assert [part async for part in rig.answer] == [b"one\r\n\ntwo\n"]


async def test_each_read_is_handed_on_by_itself() -> None:
    rig = Rig()
    at = STREAM.index(b"4\r\ntwo")
    rig.feed(STREAM[:at])
    await rig.answer.head(0.5)
    assert await anext(rig.answer) == b"one\r\n\n"
    rig.feed(STREAM[at:])
    assert await anext(rig.answer) == b"two\n"
    with pytest.raises(StopAsyncIteration):
        await anext(rig.answer)


async def test_a_connection_carries_a_second_exchange_after_the_first() -> None:
    rig = Rig()
    rig.feed(STREAM)
    assert (await outcome(rig))[1] == b"one\r\n\ntwo\n"
    rig.answer = rig.connection.send(b"AGAIN\r\n\r\n", b"", 5.0)
    rig.feed(PLAIN)
    assert await outcome(rig) == (200, b"hello")


async def test_an_informational_answer_is_passed_over() -> None:
    rig = Rig()
    rig.feed(b"HTTP/1.1 100 Continue\r\nx-early: 1\r\n\r\n" + PLAIN)
    assert await outcome(rig) == (200, b"hello")
    assert rig.answer.header(b"x-early") == b""


async def test_a_reader_that_falls_behind_stops_the_socket_until_it_catches_up() -> None:
    rig = Rig()
    size = HELD_BYTES_MAX + 1
    rig.feed(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (size + 1), b"x" * size)
    assert rig.wire.paused
    await rig.answer.head(0.5)
    assert len(await anext(rig.answer)) == size
    assert not rig.wire.paused
    rig.feed(b"y")
    assert await rig.answer.read(10) == b"y"


async def test_closing_an_unfinished_answer_drops_the_connection() -> None:
    rig = Rig()
    rig.feed(STREAM[:-5])
    await rig.answer.head(0.5)
    rig.answer.close()
    rig.answer.close()
    assert rig.wire.aborted
    assert rig.pool.freed == []
    assert await anext(rig.answer) == b"one\r\n\ntwo\n"
    with pytest.raises(EngineBroke):
        await anext(rig.answer)


async def test_closing_a_finished_answer_leaves_the_connection_alone() -> None:
    rig = Rig()
    rig.feed(PLAIN)
    await outcome(rig)
    rig.answer.close()
    assert not rig.wire.aborted


@pytest.mark.parametrize(
    "sent",
    [
        b"hello",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 700 Odd\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * (BARREN_BYTES_MAX + 10),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_what_is_not_http_is_a_broken_engine(sent: bytes) -> None:
    rig = Rig()
    rig.feed(sent)
    with pytest.raises(EngineBroke):
        await outcome(rig)
    assert rig.wire.aborted
    assert rig.pool.freed == []


async def test_endless_trailers_end() -> None:
    rig = Rig()
    rig.feed(STREAM[:-2], *[b"x-%d: %b\r\n" % (i, b"a" * 1000) for i in range(100)])
    with pytest.raises(EngineBroke):
        await outcome(rig)


async def test_a_connection_lost_before_a_byte_is_an_engine_that_cannot_be_reached() -> None:
    rig = Rig()
    rig.connection.connection_lost(None)
    with pytest.raises(EngineUnreachable):
        await outcome(rig)


@pytest.mark.parametrize("cut", [1, 20, len(PLAIN) - 1])
async def test_a_connection_lost_within_an_answer_is_a_broken_engine(cut: int) -> None:
    rig = Rig()
    rig.feed(PLAIN[:cut])
    rig.connection.connection_lost(ConnectionResetError("reset"))
    with pytest.raises(EngineBroke, match="reset"):
        await outcome(rig)


@pytest.mark.parametrize("after", [b"HTTP/1.1 200 OK\r\n", PLAIN, b"junk"])
async def test_bytes_beyond_an_answer_end_the_connection_but_not_the_answer(after: bytes) -> None:
    rig = Rig()
    rig.feed(PLAIN + after)
    assert await outcome(rig) == (200, b"hello")
    assert rig.wire.aborted
    assert rig.pool.freed == []


async def test_bytes_that_nobody_asked_for_end_the_connection() -> None:
    rig = Rig()
    rig.feed(PLAIN)
    await outcome(rig)
    rig.connection.data_received(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert rig.wire.aborted


async def test_a_connection_that_the_engine_closes_is_not_kept() -> None:
    rig = Rig()
    rig.feed(PLAIN.replace(b"content-type", b"connection: close\r\ncontent-type"))
    assert await outcome(rig) == (200, b"hello")
    assert rig.pool.freed == []


async def test_an_answer_longer_than_the_limit_is_dropped() -> None:
    rig = Rig()
    rig.feed(PLAIN[:-1])
    await rig.answer.head(0.5)
    with pytest.raises(EngineBroke, match="longer than 3 bytes"):
        await rig.answer.read(3)
    assert rig.wire.aborted


async def test_a_head_that_drips_in_is_given_no_more_time_for_it() -> None:
    rig = Rig()
    waiting = asyncio.ensure_future(rig.answer.head(0.03))
    for at in range(8):
        rig.feed(PLAIN[at : at + 1])
        await asyncio.sleep(0.005)
    with pytest.raises(EngineTimeout):
        await waiting
    assert rig.wire.aborted


async def test_silence_within_an_answer_is_a_timeout() -> None:
    rig = Rig(stall_timeout_s=0.02)
    rig.feed(STREAM[:-5])
    await rig.answer.head(0.5)
    assert await anext(rig.answer)
    with pytest.raises(EngineTimeout):
        await anext(rig.answer)
    assert rig.wire.aborted


def splits(message: bytes, cuts: list[int]) -> list[bytes]:
    at = [0, *sorted(cut % (len(message) + 1) for cut in cuts), len(message)]
    return [message[a:b] for a, b in pairwise(at) if a < b]


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(cuts=st.lists(st.integers(0, 1 << 16), max_size=12), message=st.sampled_from([PLAIN, STREAM]))
async def test_an_answer_is_the_same_however_it_is_split(cuts: list[int], message: bytes) -> None:
    rig = Rig()
    rig.feed(*splits(message, cuts))
    assert (await outcome(rig))[1] == (b"hello" if message is PLAIN else b"one\r\n\ntwo\n")
    assert rig.pool.freed == [rig.connection]


MUTATIONS: st.SearchStrategy[Callable[[bytes], bytes]] = st.one_of(
    st.tuples(st.integers(0, 200), st.binary(max_size=8)).map(
        lambda v: cast(Callable[[bytes], bytes], lambda m: m[: v[0]] + v[1] + m[v[0] :])
    ),
    st.tuples(st.integers(0, 200), st.integers(1, 40)).map(
        lambda v: cast(Callable[[bytes], bytes], lambda m: m[: v[0]] + m[v[0] + v[1] :])
    ),
    st.tuples(st.integers(0, 200), st.binary(min_size=1, max_size=4)).map(
        lambda v: cast(Callable[[bytes], bytes], lambda m: m[: v[0]] + v[1] + m[v[0] + len(v[1]) :])
    ),
)


@pytest.mark.slow
@settings(deadline=None, max_examples=400)
@given(
    message=st.sampled_from([PLAIN, STREAM, b""]),
    mutations=st.lists(MUTATIONS, min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 1 << 16), max_size=4),
)
async def test_no_bytes_hang_a_reader_or_raise_anything_foreign(
    message: bytes, mutations: list[Callable[[bytes], bytes]], cuts: list[int]
) -> None:
    for mutate in mutations:
        message = mutate(message)
    rig = Rig()
    rig.feed(*splits(message, cuts))
    if not rig.wire.aborted:
        rig.connection.connection_lost(None)
    try:
        await outcome(rig)
    except EngineError:
        assert rig.pool.freed == []
    else:
        assert rig.answer.done
