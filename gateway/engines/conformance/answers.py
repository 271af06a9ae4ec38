"""The form of answers and refusals: ids, chunks, usage, caches, and the words that we translate."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.engines.conformance.bench import Bench, Check, Found, told

#: About 700 tokens of the embedded base, so that several cache blocks fill.
LONG = "Where is my order 48213? " * 60


async def chat_id(bench: Bench) -> Found:
    return await _id(bench, "/v1/chat/completions", "chatcmpl-")


async def completion_id(bench: Bench) -> Found:
    return await _id(bench, "/v1/completions", "cmpl-")


async def _id(bench: Bench, path: str, prefix: str) -> Found:
    asked = "0192f0c1-7e5f-7000-8000-0000000000ab"
    body: dict[str, Any] = {"model": bench.base, "max_tokens": 4, "request_id": "not-this-one"}
    body |= {"prompt": "Hello"} if prefix == "cmpl-" else {"messages": [{"role": "user", "content": "Hello!"}]}
    answer = await bench.http.post(path, json=body, headers={"x-request-id": asked})
    found = str(answer.json().get("id"))
    return Found(text=found, ok=found == prefix + asked)


async def answers_name_the_adapter(bench: Bench) -> Found:
    marker = bench.markers[0]
    found = (await bench.chat(marker.name, "Hello!")).json()["model"]
    return Found(text=str(found), ok=found == marker.name)


async def usage_chunk(bench: Bench) -> Found:
    """The last event before [DONE] carries usage and no choices; no other event carries usage."""
    fields = {"stream_options": {"include_usage": True}}
    async with bench.streaming(bench.base, "Hello!", **fields) as events:
        told_events = [event async for event in events]
    if told_events[-1] != "[DONE]":
        return Found(text=f"ends with {told_events[-1][:60]}", ok=False)
    chunks = [orjson.loads(event) for event in told_events[:-1]]
    usage = chunks[-1].get("usage") or {}
    counted = all(isinstance(usage.get(key), int) for key in ("prompt_tokens", "completion_tokens", "total_tokens"))
    others = sum("usage" in chunk for chunk in chunks[:-1])
    roles = chunks[0]["choices"][0]["delta"].get("role") == "assistant"
    finish = [c["choices"][0]["finish_reason"] for c in chunks[:-1] if c["choices"][0]["finish_reason"]]
    ok = counted and chunks[-1]["choices"] == [] and others == 0 and roles and finish == ["stop"]
    return Found(text=f"usage {usage}, {others} others, finish {finish}", ok=ok)


async def cached_tokens(bench: Bench) -> Found:
    """The same salt finds the prompt in the cache, another does not: versions and tenants stay apart."""
    counts = []
    for salt in ("engine-check-a", "engine-check-a", "engine-check-b"):
        answer = await bench.chat(bench.base, LONG, max_tokens=2, cache_salt=salt)
        answer.raise_for_status()
        counts.append(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])
    return Found(text=f"cached {counts}", ok=counts[0] == 0 and counts[1] > 0 and counts[2] == 0)


async def adapters_do_not_share_the_cache(bench: Bench) -> Found:
    """One salt for all: an adapter's blocks are still its own."""
    counts = []
    for model in (bench.base, bench.markers[0].name, bench.markers[1].name):
        answer = await bench.chat(model, LONG, max_tokens=2, cache_salt="engine-check-shared")
        counts.append(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])
    return Found(text=f"cached {counts}", ok=counts == [0, 0, 0])


async def empty_salt(bench: Bench) -> Found:
    answer = await bench.chat(bench.base, "Hello!", cache_salt="")
    return Found(text=told(answer), ok=answer.status_code == 400 and "cache_salt" in answer.text)


async def too_long(bench: Bench) -> Found:
    return await _refusal(bench, {"max_tokens": 8}, "context_length_exceeded", question=LONG * 20)


async def too_many_tokens(bench: Bench) -> Found:
    return await _refusal(bench, {"max_tokens": 1_000_000}, "context_length_exceeded")


async def bad_value(bench: Bench) -> Found:
    return await _refusal(bench, {"temperature": -1}, "invalid_value", param="temperature")


async def bad_type(bench: Bench) -> Found:
    return await _refusal(bench, {"temperature": "hot"}, "invalid_type", param="temperature")


async def bad_schema(bench: Bench) -> Found:
    """The grammar is built after the head of a stream has gone, so a stream refuses within."""
    wish = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "banana"}}}
    answer = await bench.chat(bench.base, "Hello!", response_format=wish)
    streamed = await bench.chat(bench.base, "Hello!", response_format=wish, stream=True)
    meant = bench.vllm.refusal(answer.status_code, answer.content, "/v1/chat/completions")
    inside = [line for line in streamed.text.splitlines() if line.startswith('data: {"error"')]
    ok = answer.status_code == 400 and meant.code == "invalid_value" and meant.param == "response_format"
    text = f"{answer.status_code}, read as {meant.code} {meant.param}; streamed {streamed.status_code} {inside[:1]}"
    return Found(text=text, ok=ok and (streamed.status_code == 400 or bool(inside)))


async def _refusal(
    bench: Bench, fields: dict[str, Any], code: str, *, param: str = "", question: str = "Hello!"
) -> Found:
    """The engine refuses with 400, streaming too, and our translation still finds the code and field in its words."""
    answer = await bench.chat(bench.base, question, **fields)
    streamed = await bench.chat(bench.base, question, **fields, stream=True)
    meant = bench.vllm.refusal(answer.status_code, answer.content, "/v1/chat/completions")
    ok = answer.status_code == streamed.status_code == 400 and meant.code == code and param in ("", meant.param)
    return Found(
        text=f"{answer.status_code}, streamed {streamed.status_code}, read as {meant.code} {meant.param}", ok=ok
    )


async def structured(bench: Bench) -> Found:
    """A schema that leaves a model of any size no room for blanks without end."""
    schema = {"type": "string", "enum": ["yes", "no"]}
    wish = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    said = await bench.say(bench.base, "Hello!", response_format=wish)
    return Found(text=said[:60], ok=said in ('"yes"', '"no"'))


async def responses(bench: Bench) -> Found:
    answer = await bench.http.post(
        "/v1/responses", json={"model": bench.base, "input": "Hello!", "max_output_tokens": 8}
    )
    found = str(answer.json().get("id"))
    return Found(text=f"{answer.status_code} {found[:12]}…", ok=answer.status_code == 200 and found.startswith("resp_"))


async def embeddings(bench: Bench) -> Found:
    answer = await bench.http.post("/v1/embeddings", json={"model": bench.base, "input": "Hello!"})
    return Found(text=told(answer), ok=answer.status_code == 404 and "error" not in answer.json())


CHECKS = (
    Check(behaviour="chat id from X-Request-Id", expected="chatcmpl-<it>, over the body's request_id", run=chat_id),
    Check(behaviour="completion id from X-Request-Id", expected="cmpl-<it>", run=completion_id),
    Check(behaviour="`model` in an adapter's answer", expected="the adapter's name", run=answers_name_the_adapter),
    Check(behaviour="include_usage", expected="role first, one usage chunk without choices, [DONE]", run=usage_chunk),
    Check(behaviour="cache_salt", expected="same salt: cached; another: not", run=cached_tokens),
    Check(behaviour="prefix cache across adapters", expected="nothing shared", run=adapters_do_not_share_the_cache),
    Check(behaviour="empty cache_salt", expected="400", run=empty_salt),
    Check(behaviour="prompt too long", expected="400, context_length_exceeded", run=too_long),
    Check(behaviour="max_tokens too large", expected="400, context_length_exceeded", run=too_many_tokens),
    Check(behaviour="value out of range", expected="400, invalid_value temperature", run=bad_value),
    Check(behaviour="value of the wrong type", expected="400, invalid_type temperature", run=bad_type),
    Check(behaviour="schema that is none", expected="400, invalid_value; a stream: 400 or an event", run=bad_schema),
    Check(behaviour="response_format json_schema", expected="what the schema allows", run=structured),
    Check(behaviour="/v1/responses", expected="200, an id of the engine's own", run=responses),
    Check(behaviour="/v1/embeddings on a generating model", expected="404 without an error object", run=embeddings),
)
