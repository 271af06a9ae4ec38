"""What the client of vLLM does with answers that vLLM would not give."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.engines.errors import EngineBroke, EngineRefused
from gateway.engines.vllm import Vllm


@asynccontextmanager
async def answering(path: Path, body: bytes, status: bytes = b"200 OK") -> AsyncIterator[Vllm]:
    """An engine that says the same to everything."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (status, len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(handle, path)
    engine = Vllm("odd", f"unix:{path}")
    try:
        yield engine
    finally:
        await engine.close()
        server.close()
        await asyncio.sleep(0)


CALLS: list[Callable[[Vllm], Awaitable[object]]] = [
    lambda engine: engine.describe(),
    lambda engine: engine.adapters(),
    lambda engine: engine.probe("base", "one two"),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'{"data":7}', b'{"data":[{}]}', b'{"choices":[{}]}'])
async def test_an_answer_that_is_not_vllms_is_a_broken_engine(
    tmp_path: Path, call: Callable[[Vllm], Awaitable[object]], body: bytes
) -> None:
    async with answering(tmp_path / "s", body) as engine:
        with pytest.raises(EngineBroke, match="not one that vLLM gives"):
            await call(engine)


async def test_a_failing_engine_is_a_refusal_wherever_it_happens(tmp_path: Path) -> None:
    async with answering(tmp_path / "s", b"", b"503 Service Unavailable") as engine:
        assert not await engine.healthy()
        for call in CALLS:
            with pytest.raises(EngineRefused):
                await call(engine)
        for answer in (engine.gauges(), engine.load("a", "/a"), engine.unload("a")):
            with pytest.raises(EngineRefused):
                await answer


async def test_metrics_are_summed_over_engine_cores_and_missing_ones_are_zero(tmp_path: Path) -> None:
    text = (
        b"# HELP process_start_time_seconds Start time.\nprocess_start_time_seconds 1.79524156526e+09\n"
        b'vllm:num_requests_running{engine="0",model_name="b"} 2.0\n'
        b'vllm:num_requests_running{engine="1",model_name="b"} 3.0\n'
        b'vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0\n'
    )
    async with answering(tmp_path / "s", text) as engine:
        gauges = await engine.gauges()
    assert (gauges.started_at, gauges.running, gauges.waiting) == (1795241565.26, 5, 0)


async def test_metrics_that_are_no_numbers_are_a_broken_engine(tmp_path: Path) -> None:
    async with answering(tmp_path / "s", b"process_start_time_seconds soon\n") as engine:
        with pytest.raises(EngineBroke):
            await engine.gauges()


def test_a_url_that_cannot_be_used_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="engine URL"):
        Vllm("e", "engine:8000")
