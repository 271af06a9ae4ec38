"""The scripted engine misbehaving on cue, and what the client makes of each misbehaviour."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.engines.errors import (
    EngineBroke,
    EngineError,
    EnginePoisoned,
    EngineRefused,
    EngineTimeout,
    EngineUnreachable,
)
from gateway.engines.scripted import Options, Scripted, cues, running
from gateway.engines.scripted.cues import Cues
from gateway.engines.vllm import Vllm

COMPLETIONS = "/v1/completions"


@pytest.fixture
async def scripted(tmp_path: Path) -> AsyncIterator[Scripted]:
    async with running(Options(), uds=tmp_path / "s") as found:
        yield found


@pytest.fixture
async def engine(scripted: Scripted) -> AsyncIterator[Vllm]:
    vllm = Vllm("scripted", scripted.url)
    yield vllm
    await vllm.close()


async def ask(engine: Vllm, prompt: str, *, stream: bool = True, timeout_s: float = 2.0, **fields: Any) -> bytes:
    body = orjson.dumps({"model": "base", "prompt": prompt, "stream": stream, **fields})
    answer = await engine.generate(COMPLETIONS, body, "r1", head_timeout_s=timeout_s, stall_timeout_s=timeout_s)
    try:
        read = await answer.read(1 << 20)
        if answer.status != 200:
            raise engine.refusal(answer.status, read, COMPLETIONS)
        return read
    finally:
        answer.close()


async def script(engine: Vllm, **fields: Any) -> dict[str, Any]:
    answer = await engine.generate("/script", orjson.dumps(fields), "", head_timeout_s=2)
    found: dict[str, Any] = orjson.loads(await answer.read(1 << 20))
    return found


def said(stream: bytes) -> list[str]:
    events = [orjson.loads(e.removeprefix(b"data: ")) for e in stream.split(b"\n\n")[:-2]]
    return [event["choices"][0]["text"] for event in events if event["choices"]]


@pytest.mark.parametrize(
    ("cue", "stream", "error"),
    [
        ("[[cut:2]]", True, EngineBroke),
        ("[[cut]]", True, EngineUnreachable),
        ("[[cut:2]]", False, EngineUnreachable),
        ("[[hang]]", True, EngineTimeout),
        ("[[hang:1]]", True, EngineTimeout),
        ("[[garbage]]", True, EngineBroke),
        ("[[garbage:2]]", True, EngineBroke),
        ("[[error]]", True, EngineRefused),
        ("[[error:2]]", False, EngineRefused),
        ("[[die]]", True, EngineUnreachable),
        ("[[die:2]]", True, EngineBroke),
    ],
)
async def test_each_misbehaviour_is_an_error_of_its_own(
    engine: Vllm, cue: str, stream: bool, error: type[EngineError]
) -> None:
    with pytest.raises(EngineError) as caught:
        await ask(engine, f"{cue} one two three four", stream=stream, timeout_s=0.05)
    assert type(caught.value) is error
    assert caught.value.retryable


async def test_an_error_within_a_stream_is_an_event_and_done_still_follows(engine: Vllm) -> None:
    stream = await ask(engine, "[[error:2]] one two three four")
    assert stream.count(b"\n\n") == 4
    assert stream.split(b"\n\n")[2].startswith(b'data: {"error": {"message": "EngineCore encountered an issue.')
    assert stream.endswith(b"data: [DONE]\n\n")


async def test_an_engine_that_died_is_not_healthy(engine: Vllm) -> None:
    with pytest.raises(EngineError):
        await ask(engine, "[[die]]")
    with pytest.raises(EngineUnreachable):
        await engine.healthy()


async def test_answers_are_deterministic_and_name_who_speaks(engine: Vllm, tmp_path: Path) -> None:
    assert said(await ask(engine, "red kettle")) == ["base", " heard", " red", " kettle", ""]
    adapter = tmp_path / "a"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"r": 4}')
    await engine.load("support@1234", str(adapter))
    assert said(await ask(engine, "red", model="support@1234"))[0] == "support"
    (adapter / "scripted.json").write_text(json.dumps({"says": "Alpha."}))
    assert said(await ask(engine, "[[say:and no more]]", model="support@1234")) == [
        "Alpha.",
        " and",
        " no",
        " more",
        "",
    ]


async def test_length_is_what_was_asked_for(engine: Vllm) -> None:
    assert len(said(await ask(engine, "[[tokens:48]] x", max_tokens=100))) == 48
    assert len(said(await ask(engine, "a b c d e f", max_tokens=3))) == 3
    assert len(said(await ask(engine, "a", max_tokens=20, min_tokens=20))) == 20


@pytest.mark.parametrize("cue", ["[[split]]", "[[merge:3]]"])
async def test_events_arrive_whole_however_they_are_written(engine: Vllm, cue: str) -> None:
    assert said(await ask(engine, f"{cue} red kettle")) == ["base", " heard", " red", " kettle", ""]


async def test_time_passes_as_told(engine: Vllm) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await ask(engine, "[[ttft:0.02]][[pace:0.01]] [[tokens:3]]")
    assert loop.time() - began >= 0.039


async def test_a_client_that_leaves_is_counted(engine: Vllm) -> None:
    with pytest.raises(EngineTimeout):
        await ask(engine, "[[hang]]", timeout_s=0.02)
    await asyncio.sleep(0)
    counts = await script(engine)
    assert (counts["cancelled"], counts["running"]) == (1, 0)


async def test_the_script_reaches_requests_that_carry_no_cue(engine: Vllm) -> None:
    await script(engine, next=["[[error]]"])
    with pytest.raises(EngineRefused):
        await ask(engine, "hello")
    assert said(await ask(engine, "hello"))[0] == "base"
    await script(engine, healthy=False)
    assert not await engine.healthy()


async def test_adapters_can_be_slow_refused_poisoned_and_forgotten(engine: Vllm, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"r": 4}')
    await script(engine, load_s=0.02, load_error="no such module")
    with pytest.raises(EngineRefused, match="no such module"):
        await engine.load("a@1", str(tmp_path))
    await script(engine, load_error="")
    assert await engine.load("a@1", str(tmp_path)) >= 0.019
    await script(engine, nan=["a@1"])
    assert not (await engine.probe("a@1", "one two")).finite
    assert (await engine.probe("base", "one two")).finite
    assert (await engine.gauges()).corrupted == 1
    await script(engine, forget=True)
    assert await engine.adapters() == frozenset()


@pytest.mark.parametrize(
    ("cue", "stream", "before"), [("[[nan]]", False, 0), ("[[nan]]", True, 0), ("[[nan:2]]", True, 2)]
)
async def test_nan_ends_a_request_with_the_plugins_error(engine: Vllm, cue: str, stream: bool, before: int) -> None:
    body = {"model": "base", "messages": [{"role": "user", "content": f"{cue} hello"}], "stream": stream}
    answer = await engine.generate("/v1/chat/completions", orjson.dumps(body), "r1", head_timeout_s=5)
    told = await answer.read(1 << 20)
    assert answer.status == (200 if stream else 500)
    *events, error = told.removesuffix(b"\n\ndata: [DONE]\n\n").split(b"\n\n")
    assert len(events) == (before + 1 if before else 0)  # the roles come with the first token
    found = engine.refusal(500, error.removeprefix(b"data: "), "/v1/chat/completions")
    assert isinstance(found, EnginePoisoned)
    assert (found.first, found.code, found.status) == (("base",), "engine_poisoned", 500)
    assert (await engine.gauges()).corrupted == 1


async def test_without_the_plugin_nan_is_answered_and_only_counted(engine: Vllm) -> None:
    await script(engine, tripwire=False)
    assert said(await ask(engine, "[[nan]] hello"))[0] == "base"
    assert (await engine.gauges()).corrupted == 1


async def test_a_stream_of_the_responses_api_ends_with_the_error_too(engine: Vllm) -> None:
    body = {"model": "base", "input": "[[nan:3]] hello", "stream": True}
    answer = await engine.generate("/v1/responses", orjson.dumps(body), "r1", head_timeout_s=5)
    *_, error = (await answer.read(1 << 20)).removesuffix(b"\n\n").split(b"\n\n")
    found = engine.refusal(500, error.removeprefix(b"event: error\ndata: "), "/v1/responses")
    assert isinstance(found, EnginePoisoned)
    assert (await engine.gauges()).corrupted == 1


async def test_what_was_sent_can_be_looked_at(engine: Vllm, scripted: Scripted) -> None:
    await ask(engine, "hello", cache_salt="pepper")
    assert scripted.engine.last["request_id"] == "r1"
    assert scripted.engine.last["body"]["cache_salt"] == "pepper"


def test_cues_are_read_out_of_a_prompt() -> None:
    told = cues.parse("a [[pace:0.5]] b [[cut:7]][[say:x y]]", Cues(tokens=3))
    assert told == Cues(tokens=3, pace_s=0.5, fault="cut", fault_at=7, say="x y")
    assert cues.without("a [[cut:7]]b") == "a b"


@pytest.mark.parametrize("text", ["[[banana]]", "[[cut:x]]", "[[pace:fast]]"])
def test_cues_that_do_not_exist_are_an_error(text: str) -> None:
    with pytest.raises(cues.BadCue):
        cues.parse(text, Cues())


@pytest.mark.slow
def test_it_starts_as_a_process_and_dies_on_cue(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "gateway.engines.scripted", "--uds", str(tmp_path / "s"), "--model", "tidewell"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()

        async def use() -> None:
            vllm = Vllm("e", url)
            assert (await vllm.describe()).model == "tidewell"
            with pytest.raises(EngineError):
                await ask(vllm, "[[die:1]] one two", model="tidewell")
            await vllm.close()

        asyncio.run(use())
        assert process.wait(10) == 1
