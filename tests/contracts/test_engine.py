"""What we rely on in an engine, asked of the scripted one and of real vLLM alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.engines.errors import AdapterMissing, EnginePoisoned, EngineRefused
from gateway.engines.scripted import Options, running
from gateway.engines.vllm import Vllm
from tests.engines import MAX_MODEL_LEN, MODEL, tiny_adapter

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
MESSAGES = [{"role": "user", "content": "Where is my order 4711?"}]
#: In the order in which they stand, so that whoever reads bytes may rely on it.
CHAT_KEYS = (
    "id object created model choices service_tier system_fingerprint usage prompt_logprobs prompt_token_ids "
    "prompt_text kv_transfer_params ec_transfer_params metrics"
)
COMPLETION_KEYS = (
    "id object created model choices service_tier system_fingerprint usage kv_transfer_params ec_transfer_params "
    "metrics"
)
CHAT_CHOICE_KEYS = "index message logprobs finish_reason stop_reason token_ids routed_experts"
COMPLETION_CHOICE_KEYS = (
    "index text logprobs finish_reason stop_reason token_ids prompt_logprobs prompt_token_ids routed_experts"
)
BYTES_MAX = 1 << 20


@pytest.fixture(params=["scripted", pytest.param("vllm", marks=[pytest.mark.vllm, pytest.mark.slow])])
def real_url(request: pytest.FixtureRequest) -> str:
    """The URL of a real vLLM, or empty for the scripted engine."""
    return str(request.getfixturevalue("vllm_engine").url) if request.param == "vllm" else ""


@pytest.fixture
async def engine(real_url: str, tmp_path: Path) -> AsyncIterator[Vllm]:
    if real_url:
        vllm = Vllm("real", real_url)
        yield vllm
        for name in await vllm.adapters():
            await vllm.unload(name)
        await vllm.close()
        return
    async with running(Options(model=MODEL, max_model_len=MAX_MODEL_LEN), uds=tmp_path / "s") as scripted:
        vllm = Vllm("scripted", scripted.url)
        yield vllm
        await vllm.close()


async def ask(engine: Vllm, path: str, body: dict[str, Any] | bytes, request_id: str = "r1") -> tuple[int, bytes]:
    sent = body if isinstance(body, bytes) else orjson.dumps(body)
    answer = await engine.generate(path, sent, request_id, head_timeout_s=60)
    try:
        return answer.status, await answer.read(BYTES_MAX)
    finally:
        answer.close()


async def refused(engine: Vllm, path: str, body: dict[str, Any] | bytes) -> EngineRefused:
    status, answer = await ask(engine, path, body)
    assert status != 200
    return engine.refusal(status, answer, path)


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": MESSAGES, "max_tokens": 4, "temperature": 0, **fields}


def completion(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "prompt": "Where is my order 4711?", "max_tokens": 4, "temperature": 0, **fields}


def events(body: bytes) -> list[bytes]:
    assert body.endswith(b"\n\n")
    return body.removesuffix(b"\n\n").split(b"\n\n")


def documents(body: bytes) -> list[dict[str, Any]]:
    *chunks, done = events(body)
    assert done == b"data: [DONE]"
    return [orjson.loads(chunk.removeprefix(b"data: ")) for chunk in chunks]


async def test_an_engine_says_that_it_is_well_and_what_it_serves(engine: Vllm) -> None:
    assert await engine.healthy()
    info = await engine.describe()
    assert (info.model, info.max_model_len, info.version) == (MODEL, MAX_MODEL_LEN, "0.32.0")
    gauges = await engine.gauges()
    assert gauges.started_at > 1_700_000_000
    assert gauges.running == 0


async def test_an_adapter_is_loaded_listed_answers_under_its_name_and_is_forgotten(
    engine: Vllm, tmp_path: Path
) -> None:
    assert await engine.adapters() == frozenset()
    seconds = await engine.load("support@0123456789abcdef", str(tiny_adapter(tmp_path / "a")))
    assert 0 <= seconds < 60
    assert await engine.adapters() == {"support@0123456789abcdef"}
    status, body = await ask(engine, CHAT, chat(model="support@0123456789abcdef"))
    assert status == 200
    assert orjson.loads(body)["model"] == "support@0123456789abcdef"
    await engine.unload("support@0123456789abcdef")
    assert await engine.adapters() == frozenset()
    assert isinstance(await refused(engine, CHAT, chat(model="support@0123456789abcdef")), AdapterMissing)


async def test_loading_a_name_again_changes_nothing(engine: Vllm, tmp_path: Path) -> None:
    folder = str(tiny_adapter(tmp_path / "a"))
    await engine.load("twice@1", folder)
    await engine.load("twice@1", folder)
    assert await engine.adapters() == {"twice@1"}


async def test_an_adapter_that_is_not_there_is_refused_without_showing_a_path(engine: Vllm, tmp_path: Path) -> None:
    with pytest.raises(EngineRefused) as caught:
        await engine.load("nowhere@1", str(tmp_path / "nowhere"))
    assert caught.value.code == "adapter_path_not_found"
    assert str(tmp_path) not in caught.value.message


async def test_an_adapter_of_too_high_a_rank_is_refused_with_the_reason(engine: Vllm, tmp_path: Path) -> None:
    with pytest.raises(EngineRefused) as caught:
        await engine.load("wide@1", str(tiny_adapter(tmp_path / "a", rank=24)))
    assert caught.value.code == "adapter_refused"
    assert "LoRA rank 24 is greater than max_lora_rank 16" in caught.value.message
    assert await engine.healthy()


async def test_unloading_what_is_not_loaded_says_so(engine: Vllm) -> None:
    with pytest.raises(AdapterMissing):
        await engine.unload("stranger@1")


async def test_a_probe_is_finite_repeatable_and_tells_an_adapter_from_the_base(engine: Vllm, tmp_path: Path) -> None:
    await engine.load("loud@1", str(tiny_adapter(tmp_path / "a")))
    base = await engine.probe(MODEL, "Where is my order", tokens=4)
    again = await engine.probe(MODEL, "Where is my order", tokens=4)
    adapter = await engine.probe("loud@1", "Where is my order", tokens=4)
    assert base.finite
    assert adapter.finite
    assert 1 <= len(base.tokens) == len(base.logprobs) <= 4
    assert len(base.prompt_logprobs) == len(adapter.prompt_logprobs) >= 3
    assert base.prompt_logprobs == pytest.approx(again.prompt_logprobs, abs=1e-3)
    assert max(abs(a - b) for a, b in zip(base.prompt_logprobs, adapter.prompt_logprobs, strict=True)) > 0.01


async def test_probing_a_stranger_says_that_it_is_missing(engine: Vllm) -> None:
    with pytest.raises(AdapterMissing):
        await engine.probe("stranger@1", "Where is my order")


@pytest.mark.parametrize(
    ("path", "body", "prefix", "keys", "choice_keys"),
    [
        (CHAT, chat(n=2), "chatcmpl-", CHAT_KEYS, CHAT_CHOICE_KEYS),
        (COMPLETIONS, completion(n=2), "cmpl-", COMPLETION_KEYS, COMPLETION_CHOICE_KEYS),
    ],
    ids=["chat", "completions"],
)
async def test_an_answer_in_one_piece_has_the_known_shape(
    engine: Vllm, path: str, body: dict[str, Any], prefix: str, keys: str, choice_keys: str
) -> None:
    status, answer = await ask(engine, path, body | {"temperature": 1}, "0190-abc")
    assert status == 200
    document = orjson.loads(answer)
    assert " ".join(document) == keys
    assert document["id"] == f"{prefix}0190-abc"
    assert document["system_fingerprint"].startswith("vllm-")
    assert [" ".join(choice) for choice in document["choices"]] == [choice_keys] * 2
    assert [choice["index"] for choice in document["choices"]] == [0, 1]
    usage = document["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"]["cached_tokens"] >= 0


@pytest.mark.parametrize(("path", "body"), [(CHAT, chat()), (COMPLETIONS, completion())], ids=["chat", "completions"])
@pytest.mark.parametrize("usage", [True, False], ids=["usage", "no usage"])
async def test_a_stream_has_the_known_shape(engine: Vllm, path: str, body: dict[str, Any], usage: bool) -> None:
    body = body | {"stream": True} | ({"stream_options": {"include_usage": True}} if usage else {})
    status, answer = await ask(engine, path, body, "0190-abc")
    assert status == 200
    chunks = documents(answer)
    assert all(list(chunk)[:5] == ["id", "object", "created", "model", "choices"] for chunk in chunks)
    assert {chunk["id"] for chunk in chunks} == {("chatcmpl-" if path == CHAT else "cmpl-") + "0190-abc"}
    counted = [chunk for chunk in chunks if "usage" in chunk]
    assert len(counted) == (1 if usage else 0)
    if usage:
        assert counted == [chunks[-1]]
        assert b'"choices":[],"usage":{"prompt_tokens":' in answer
        assert list(chunks[-1]["usage"])[:3] == ["prompt_tokens", "total_tokens", "completion_tokens"]
    said = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    assert [choice["finish_reason"] for choice in said[:-1]] == [None] * (len(said) - 1)
    assert said[-1]["finish_reason"] in ("stop", "length")
    if path == CHAT:
        assert said[0]["delta"] == {"role": "assistant", "content": ""}
    assert ["system_fingerprint" in chunk for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


async def test_log_probabilities_are_there_when_asked_for(engine: Vllm) -> None:
    _, answer = await ask(engine, CHAT, chat(logprobs=True))
    tokens = orjson.loads(answer)["choices"][0]["logprobs"]["content"]
    assert all(list(token) == ["token", "logprob", "bytes", "top_logprobs"] for token in tokens)
    _, answer = await ask(engine, COMPLETIONS, completion(logprobs=1))
    found = orjson.loads(answer)["choices"][0]["logprobs"]
    assert list(found) == ["text_offset", "token_logprobs", "tokens", "top_logprobs"]


async def test_the_responses_api_makes_up_its_own_id_and_ends_without_done(engine: Vllm) -> None:
    body = {"model": MODEL, "input": "Hello", "max_output_tokens": 8}
    status, answer = await ask(engine, RESPONSES, body, "0190-abc")
    document = orjson.loads(answer)
    assert status == 200
    assert document["id"].startswith("resp_")
    assert "0190-abc" not in document["id"]
    assert document["usage"]["total_tokens"] == document["usage"]["input_tokens"] + document["usage"]["output_tokens"]
    _, stream = await ask(engine, RESPONSES, body | {"stream": True})
    kinds = [event.split(b"\n")[0] for event in events(stream)]
    assert kinds[0] == b"event: response.created"
    assert kinds[-1] == b"event: response.completed"


async def test_fields_that_nobody_knows_are_ignored_and_a_salt_is_taken(engine: Vllm) -> None:
    status, _ = await ask(engine, CHAT, chat(banana=1, cache_salt="0123456789abcdef"))
    assert status == 200


LONG = "order " * 3000
REFUSALS: list[tuple[str, str, dict[str, Any] | bytes, int, str, str | None]] = [
    ("negative temperature", CHAT, chat(temperature=-1), 400, "invalid_value", "temperature"),
    ("high temperature", CHAT, chat(temperature=3), 400, "invalid_value", "temperature"),
    ("temperature in words", CHAT, chat(temperature="hot"), 400, "invalid_type", "temperature"),
    ("top_p", CHAT, chat(top_p=7), 400, "invalid_value", "top_p"),
    ("no answers", CHAT, chat(n=0), 400, "invalid_value", "n"),
    ("negative tokens", CHAT, chat(max_tokens=-5), 400, "invalid_value", "max_tokens"),
    ("too many tokens", CHAT, chat(max_tokens=5000), 400, "context_length_exceeded", "max_tokens"),
    (
        "long chat",
        CHAT,
        chat(messages=[{"role": "user", "content": LONG}]),
        400,
        "context_length_exceeded",
        "messages",
    ),
    ("long prompt", COMPLETIONS, completion(prompt=LONG), 400, "context_length_exceeded", "prompt"),
    ("many logprobs", CHAT, chat(logprobs=True, top_logprobs=100), 400, "invalid_value", "logprobs"),
    ("no messages", CHAT, {"model": MODEL}, 400, "missing_required_parameter", "messages"),
    ("empty messages", CHAT, chat(messages=[]), 400, "invalid_value", "messages"),
    ("no prompt", COMPLETIONS, {"model": MODEL}, 400, "missing_required_parameter", "prompt"),
    (
        "stream options",
        CHAT,
        chat(stream_options={"include_usage": True}),
        400,
        "invalid_value",
        "stream_options",
    ),
    ("empty salt", CHAT, chat(cache_salt=""), 400, "invalid_value", "cache_salt"),
    (
        "image",
        CHAT,
        chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]}]),
        400,
        "invalid_value",
        None,
    ),
    (
        "tools",
        CHAT,
        chat(tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]),
        400,
        "unsupported_value",
        "tools",
    ),
    ("no body", CHAT, b"", 400, "missing_required_parameter", None),
    ("not UTF-8", CHAT, b'{"model":"\xff"}', 400, "invalid_value", None),
    ("embeddings", "/v1/embeddings", {"model": MODEL, "input": "x"}, 404, "unsupported_endpoint", None),
    ("unknown model", CHAT, chat(model="stranger"), 404, "model_not_found", "model"),
    ("unknown model, streamed", COMPLETIONS, completion(model="x", stream=True), 404, "model_not_found", "model"),
    ("unknown model, responses", RESPONSES, {"model": "x", "input": "x"}, 404, "model_not_found", "model"),
]


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "param"), [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS]
)
async def test_a_refusal_has_a_status_a_code_and_a_field(
    engine: Vllm, path: str, body: dict[str, Any] | bytes, status: int, code: str, param: str | None
) -> None:
    error = await refused(engine, path, body)
    assert (error.status, error.code, error.param) == (status, code, param)
    assert error.message
    assert "body." not in error.message
    assert "parameter=" not in error.message
    assert not error.retryable or isinstance(error, AdapterMissing)


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "in one piece"])
async def test_closing_an_answer_stops_the_engines_work(engine: Vllm, stream: bool) -> None:
    prompt = "[[ttft:0.01]][[pace:0.05]] Hello"
    body = orjson.dumps(completion(prompt=prompt, max_tokens=900, min_tokens=900, stream=stream))
    if stream:
        answer = await engine.generate(COMPLETIONS, body, "r1", head_timeout_s=30)
        async for _ in answer:
            break
        answer.close()
    else:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await engine.generate(COMPLETIONS, body, "r1", head_timeout_s=30)
    before = (await engine.gauges()).generation_tokens
    for _ in range(200):
        if not (await engine.gauges()).running:
            break
        await asyncio.sleep(0.02)
    gauges = await engine.gauges()
    assert not gauges.running
    assert gauges.generation_tokens - before < 400


async def test_many_answers_at_once_keep_to_their_own_names(engine: Vllm, tmp_path: Path) -> None:
    names = [MODEL, *(f"voice{seed}@1" for seed in range(3))]
    for seed, name in enumerate(names[1:]):
        await engine.load(name, str(tiny_adapter(tmp_path / name, seed=seed)))

    async def one(at: int) -> None:
        name = names[at % len(names)]
        status, body = await ask(engine, COMPLETIONS, completion(model=name), f"r{at}")
        document = orjson.loads(body)
        assert (status, document["model"], document["id"]) == (200, name, f"cmpl-r{at}")

    await asyncio.gather(*(one(at) for at in range(24)))


async def test_a_request_whose_logits_are_nan_ends_with_an_error_that_names_it(
    engine: Vllm, real_url: str, tmp_path: Path
) -> None:
    """Our plugin's doing. On the CPU, where this runs, it leaves nothing behind that could reach other tests."""
    name = "nan@00000000000000ff"
    await engine.load(name, str(tiny_adapter(tmp_path / "a", scale=float("nan"))))
    if not real_url:
        await post(engine, "/script", {"nan": [name]})
    before = (await engine.gauges()).corrupted
    status, body = await ask(engine, CHAT, chat(model=name))
    assert status == 500
    found = [engine.refusal(status, body, CHAT)]
    status, body = await ask(engine, CHAT, chat(model=name, stream=True))
    assert status == 200
    (error,) = documents(body)
    found.append(engine.refusal(500, orjson.dumps(error), CHAT))
    status, body = await ask(engine, RESPONSES, {"model": name, "input": "Hello you", "stream": True})
    *_, last = body.removesuffix(b"\n\n").split(b"\n\n")
    found.append(engine.refusal(500, last.removeprefix(b"event: error\ndata: "), RESPONSES))
    started_at = (await engine.gauges()).started_at
    for each in found:
        assert isinstance(each, EnginePoisoned)
        assert (each.code, each.first, each.retryable) == ("engine_poisoned", (name,), False)
        assert started_at < each.first_at <= each.at
    assert not (await engine.probe(name, "Hello there!")).finite
    assert (await engine.gauges()).corrupted == before + 4
    assert (await ask(engine, CHAT, chat()))[0] == 200


async def post(engine: Vllm, path: str, body: dict[str, Any]) -> None:
    status, answer = await ask(engine, path, body)
    assert status == 200, answer
