"""From a draft to a record."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import orjson
import pytest

from adapters.experiments.assignment import Assigned, Plan
from adapters.experiments.values import Arm, Unit
from gateway.access.keys import Capture, mint
from gateway.api.openai.fields import Bounds
from gateway.api.openai.parse import Head, parse
from gateway.capture.compose import compose, exposure
from gateway.capture.draft import Draft
from gateway.routing.trials import Met, Running
from gateway.values import Endpoint, Target
from monitoring.records.events import decode, encode

WHOLE = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "m",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "hi ada@example.com"}, "finish_reason": "stop"}
    ],
    "usage": {
        "prompt_tokens": 5,
        "total_tokens": 8,
        "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 2},
    },
}


def draft(
    document: dict[str, Any] | None = None, *, endpoint: Endpoint = "chat", capture: Capture = "full", **fields: Any
) -> Draft:
    made = Draft(endpoint, "req-1", "abc")
    made.key = mint(tenant="acme", name="k", roles=["user"], now=1.0, capture=capture)[1]
    body = document or {"model": "m", "messages": [{"role": "user", "content": "hello"}], **fields}
    made.raw = orjson.dumps(body)
    made.call = parse(endpoint, made.raw, Head(), "req-1", Bounds(), ())
    made.target = Target(engine_name="s@1", adapter="s:1", digest="sha256:d")
    made.status, made.attempts, made.ended = 200, 1, made.started + 0.5
    return made


def sse(*events: Any) -> bytes:
    return b"".join(b"data: " + orjson.dumps(e) + b"\n\n" for e in events) + b"data: [DONE]\n\n"


def piece(index: int = 0, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def streamed(made: Draft, data: bytes, *, bytes_max: int = 1 << 20, cuts: int = 7) -> Draft:
    made.streamed = True
    for at in range(0, len(data), cuts):
        made.keep(data[at : at + cuts], bytes_max)
    return made


def test_an_answer_in_one_piece() -> None:
    made = draft(user="u", metadata={"conversation_id": "c"}, store=True)
    made.keep(orjson.dumps(WHOLE), 1 << 20)
    record = compose(made, "sha256:base")
    assert (record.completion_id, record.finish, record.tenant) == ("chatcmpl-1", "stop", "acme")
    assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (5, 3, 2)
    assert (record.adapter, record.digest, record.base_digest) == ("s:1", "sha256:d", "sha256:base")
    assert (record.user, record.conversation, record.stored, record.captured) == ("u", "c", True, "full")
    assert record.total_ms == 500
    assert record.first_byte_ms is None
    assert "[EMAIL]" in str(record.response)
    assert decode(encode(record)) == record


@pytest.mark.parametrize(
    ("capture", "store", "captured"),
    [
        ("full", None, "full"),
        ("full", True, "full"),
        ("full", False, "metadata"),
        ("metadata", True, "metadata"),
        ("off", True, "off"),
        ("off", False, "off"),
    ],
)
def test_policy_and_caller_decide_what_is_kept(capture: Capture, store: bool | None, captured: str) -> None:
    made = draft(capture=capture, store=store, metadata={"k": "v"})
    made.keep(orjson.dumps(WHOLE), 1 << 20)
    record = compose(made, "b")
    assert record.captured == captured
    assert (record.request is None, record.response is None) == (captured != "full", captured != "full")
    assert bool(record.metadata) == (capture != "off")
    assert record.stored == (captured == "full" and bool(store))
    assert record.completion_tokens == 3


def test_a_stream_is_put_together_choice_by_choice() -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a"'}}
    more = {"index": 0, "function": {"arguments": ":1}"}}
    data = sse(
        piece(0, role="assistant", content=""),
        piece(1, role="assistant", content=""),
        piece(0, content="he"),
        piece(1, tool_calls=[call]),
        piece(0, content="llo", finish="stop"),
        piece(1, tool_calls=[more], finish="tool_calls"),
    )
    made = streamed(draft(), data)
    made.usage = orjson.dumps({"choices": [], "usage": WHOLE["usage"]})
    record = compose(made, "b")
    choices = orjson.loads(str(record.response))["choices"]
    assert choices[0]["message"] == {"role": "assistant", "content": "hello"}
    assert choices[1]["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a":1}'}
    assert (record.finish, record.completion_id, record.completion_tokens) == ("stop", "chatcmpl-1", 3)


def test_a_stream_of_completions_is_put_together_too() -> None:
    made = draft({"model": "m", "prompt": "x"}, endpoint="completions")
    events = [
        {"id": "cmpl-1", "choices": [{"index": 0, "text": t, "finish_reason": f}]}
        for t, f in (("a", None), ("b", "length"))
    ]
    record = compose(streamed(made, sse(*events)), "b")
    assert orjson.loads(str(record.response))["choices"][0]["text"] == "ab"
    assert record.finish == "length"


def test_a_responses_stream_is_what_its_last_event_says() -> None:
    done = {
        "id": "resp_1",
        "status": "completed",
        "usage": {"input_tokens": 4, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 1}},
    }
    data = b"event: response.created\n" + sse({"response": {"id": "resp_1", "status": "in_progress"}}).replace(
        b"data: [DONE]\n\n", b""
    )
    end = b"event: response.completed\ndata: " + orjson.dumps({"response": done}) + b"\n\n"
    made = streamed(draft({"model": "m", "input": "x"}, endpoint="responses"), data + end)
    made.usage = end
    record = compose(made, "b")
    assert (record.completion_id, record.finish) == ("resp_1", "completed")
    assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (4, 2, 1)


def test_a_stream_that_broke_off_keeps_what_came() -> None:
    made = streamed(
        draft(), sse(piece(content="half")).replace(b"data: [DONE]\n\n", b'data: {"error":{"code":"x"}}\n\n')
    )
    made.incomplete, made.error = True, "engine_broke"
    record = compose(made, "b")
    assert "half" in str(record.response)
    assert (record.incomplete, record.error, record.finish) == (True, "engine_broke", "")


def test_what_is_too_large_is_cut_and_says_so() -> None:
    made = draft({"model": "m", "messages": [{"role": "user", "content": "x" * 5000}], "temperature": 1})
    made.keep(orjson.dumps(WHOLE | {"long": "y" * 5000}), 1000)
    made.usage = orjson.dumps({"usage": WHOLE["usage"]})
    record = compose(made, "b", 1000)
    assert orjson.loads(str(record.request)) == {
        "model": "m",
        "temperature": 1,
        "truncated": True,
        "bytes": len(made.raw),
    }
    assert orjson.loads(str(record.response)) == {"id": "chatcmpl-1", "truncated": True}
    assert (record.completion_id, record.completion_tokens) == ("chatcmpl-1", 3)
    assert made.bytes <= len(made.raw) + 1000
    half = streamed(draft(), sse(piece(content="some"), piece(content="z" * 5000)), bytes_max=400)
    assert orjson.loads(str(compose(half, "b").response))["choices"][0]["message"]["content"] == "some"


def test_media_are_replaced_by_their_digest() -> None:
    data = bytes(range(256)) * 4
    coded = base64.b64encode(data).decode()
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{coded}"}},
        {"type": "input_audio", "input_audio": {"data": coded, "format": "wav"}},
        {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{coded}"}},
        {"type": "text", "text": "data: is not the plural, it is"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,not base64!"}},
    ]
    made = draft({"model": "m", "messages": [{"role": "user", "content": parts}]})
    content = orjson.loads(str(compose(made, "b").request))["messages"][0]["content"]
    digest = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    assert content[0]["image_url"]["url"] == {"media": "image/png", **digest}
    assert content[1]["input_audio"]["data"] == {"media": "", **digest}
    assert content[2]["file"]["file_data"] == {"media": "application/pdf", **digest}
    assert content[3]["text"] == "data: is not the plural, it is"
    assert content[4]["image_url"]["url"]["bytes"] == len("not base64!")


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"\xff\xfe", b'{"a":' * 1000 + b"1" + b"}" * 1000, b"[1,2]", b'"ada@example.com"']
)
def test_a_request_that_was_never_understood_is_recorded_all_the_same(raw: bytes) -> None:
    made = Draft("chat", "req-1", "abc")
    made.key = mint(tenant="acme", name="k", roles=["user"], now=1.0)[1]
    made.raw, made.status, made.error = raw, 400, "invalid_json"
    record = compose(made, "b")
    assert (record.status, record.error, record.model, record.tenant) == (400, "invalid_json", "", "acme")
    assert (record.request is None) == (raw == b"")
    assert "ada@" not in str(record.request)
    assert decode(encode(record)) == record


def test_a_stranger_s_request_leaves_no_body() -> None:
    made = Draft("chat", "req-1", "abc")
    made.raw, made.status = b'{"secret": 1}', 401
    record = compose(made, "b")
    assert (record.tenant, record.key_id, record.request) == ("", "", None)


def test_the_logprobs_of_a_stream_are_put_together() -> None:
    first, second = piece(content="a"), piece(content="b", finish="stop")
    first["choices"][0]["logprobs"] = {"content": [{"token": "a", "logprob": -0.5}]}
    second["choices"][0]["logprobs"] = {"content": [{"token": "b", "logprob": -1.5}], "refusal": None}
    record = compose(streamed(draft(stream=True), sse(first, second)), "b")
    (choice,) = orjson.loads(record.response or "")["choices"]
    assert [each["logprob"] for each in choice["logprobs"]["content"]] == [-0.5, -1.5]


def trialled(made: Draft, *, kind: Unit = Unit.USER, tags: tuple[str, ...] = ()) -> Draft:
    assert made.call is not None
    arm = Assigned(arm=Arm(name="new", number=2), propensity=0.5)
    plan = Plan(experiment="e1", key=b"k", arms=(arm,), table=b"\0" * 10_000)
    running = Running(
        plan=plan,
        unit=Unit.USER,
        alias="support@live",
        targets={"new": Target(engine_name="s@2", adapter="s:2", digest="sha256:new")},
        tags=tags,
    )
    made.met = Met(running=running, assigned=arm, unit=made.call.tags.user, kind=kind, bucket=17)
    return made


def test_an_exposure_names_the_unit_as_the_record_of_the_answer_does() -> None:
    made = trialled(draft(user="ada@example.com", metadata={"topic": "tea", "other": "x"}), tags=("topic", "none"))
    found, record = exposure(made, b"secret"), compose(made, "b", secret=b"secret")
    assert found == decode(encode(found))
    assert found.unit == record.user != "ada@example.com"
    assert (found.request_id, found.experiment, found.arm) == (record.request_id, record.experiment, record.arm)
    assert (found.tenant, found.alias, found.unit_kind, found.bucket) == ("acme", "support@live", "user", 17)
    assert (found.digest, found.propensity, found.completion_id) == ("sha256:new", 0.5, "chatcmpl-abc1")
    assert found.tags == {"topic": "tea"}


def test_under_off_a_unit_is_a_keyed_hash_and_tags_are_not_kept() -> None:
    made = trialled(draft(user="u7", metadata={"topic": "tea"}, capture="off"), tags=("topic",))
    found = exposure(made, b"secret")
    assert found.unit.startswith("hmac:")
    assert found.tags == {}
    assert compose(made, "b", secret=b"secret").user == ""


def test_what_a_shadow_answered_is_on_no_bill_and_in_no_experiment() -> None:
    made = draft()
    made.shadows, made.arm = True, "dark"
    record = compose(made, "b")
    assert (record.key_id, record.experiment, record.arm, record.tenant) == ("", "", "dark", "acme")
