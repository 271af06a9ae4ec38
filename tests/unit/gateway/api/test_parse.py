"""From bytes to a call: what passes, what is kept back, what is refused, and how much is reserved."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.api.openai.fields import OURS, TABLES, Bounds
from gateway.api.openai.parse import Head, head, parse
from gateway.errors import BadField, BadJson, BadRequest, UnknownField
from gateway.values import Call, Endpoint

HI = [{"role": "user", "content": "hi"}]
NEEDED: dict[Endpoint, dict[str, Any]] = {
    "chat": {"messages": HI},
    "completions": {"prompt": "hi"},
    "responses": {"input": "hi"},
    "embeddings": {"input": "hi"},
}


def call(endpoint: Endpoint = "chat", *, head: Head | None = None, **fields: Any) -> Call:
    raw = orjson.dumps({"model": "m", **NEEDED[endpoint], **fields})
    return parse(endpoint, raw, head or Head(), "req-1", Bounds(n_max=4), {"ok.example"})


def refused(endpoint: Endpoint = "chat", **fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        call(endpoint, **fields)
    return caught.value


@pytest.mark.parametrize("endpoint", list(NEEDED))
def test_the_least_that_a_request_may_say(endpoint: Endpoint) -> None:
    made = call(endpoint)
    assert (made.model, made.stream, made.wants_usage, made.request_id) == ("m", False, False, "req-1")
    assert "model" not in made.document


@pytest.mark.parametrize("endpoint", list(NEEDED))
def test_what_is_needed_is_needed(endpoint: Endpoint) -> None:
    for name in ("model", *NEEDED[endpoint]):
        error = refused(endpoint, **{name: None})
        assert (error.code, error.param) == ("missing_required_parameter", name)
    assert refused(endpoint, model="").param == "model"


@pytest.mark.parametrize("endpoint", list(NEEDED))
def test_a_field_in_no_table_is_refused(endpoint: Endpoint) -> None:
    error = refused(endpoint, surprise=1)
    assert isinstance(error, UnknownField)
    assert error.param == "surprise"


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"1", b"null", b'"x"', b"\xff", b'{"a":1,}', b'{"a":NaN}', b'{"a":1e999}']
)
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(BadJson):
        parse("chat", raw, Head(), "r", Bounds(), ())


@pytest.mark.parametrize("depth", [129, 300, 1000])
def test_what_is_nested_beyond_reason_is_refused(depth: int) -> None:
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        deep = opening * depth + b"1" + closing * depth
        with pytest.raises(BadJson):
            parse("chat", b'{"model":"m","messages":%b}' % deep, Head(), "r", Bounds(), ())


def test_many_brackets_on_one_level_are_no_depth() -> None:
    assert call(messages=HI * 500)
    assert call(messages=[{"role": "user", "content": "[[[[{{{{" * 500}])


def test_fields_of_ours_stay_here() -> None:
    made = call(
        user="u",
        safety_identifier="s",
        metadata={"conversation_id": "c", "k": "v"},
        store=True,
        service_tier="auto",
        prompt_cache_key="p",
        prompt_cache_retention="24h",
        head=Head(conversation="from the head", retry_count=2),
    )
    assert not set(OURS) & set(made.document)
    tags = made.tags
    assert (tags.user, tags.conversation, tags.store, tags.retry_count) == ("s", "c", True, 2)
    assert call(head=Head(conversation="from the head")).tags.conversation == "from the head"
    assert call(user="u").tags.user == "u"


def test_the_engine_is_always_asked_for_usage_and_never_to_keep_answers() -> None:
    assert call(stream=True).document["stream_options"] == {"include_usage": True}
    assert not call(stream=True).wants_usage
    assert call(stream=True, stream_options={"include_usage": True}).wants_usage
    assert "stream_options" not in call(stream_options={"include_usage": True}).document
    assert call("responses", store=True).document["store"] is False
    assert "stream_options" not in call("responses", stream=True).document


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 5}, "n"),
        ({"n": 0}, "n"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"stream": 1}, "stream"),
        ({"stop": 1}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"logit_bias": []}, "logit_bias"),
        ({"stop_token_ids": {}}, "stop_token_ids"),
        ({"user": "x" * 513}, "user"),
        ({"user": 1}, "user"),
        ({"metadata": {"k": 1}}, "metadata.k"),
        ({"metadata": {"k": "x" * 513}}, "metadata"),
        ({"metadata": {"k" * 65: "x"}}, "metadata"),
        ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages.0"),
        ({"messages": [{"content": "hi"}]}, "messages.0"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"tools": [{}] * 129}, "tools"),
        ({"tools": [{"x": "y" * 600_000}]}, "tools"),
        ({"logit_bias": {str(i): 1 for i in range(1025)}}, "logit_bias"),
        ({"stop_token_ids": list(range(257))}, "stop_token_ids"),
        ({"stop_token_ids": ["a"]}, "stop_token_ids"),
        ({"response_format": {"x": "y" * 70_000}}, "response_format"),
        ({"response_format": "json"}, "response_format"),
        ({"structured_outputs": {"regex": "y" * 70_000}}, "structured_outputs"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"stream_options": {"continuous_usage_stats": True}}, "stream_options.continuous_usage_stats"),
    ],
)
def test_a_field_of_the_wrong_type_or_size_is_named(fields: dict[str, Any], param: str) -> None:
    error = refused(**fields)
    assert isinstance(error, BadField | UnknownField)
    assert error.param == param


@pytest.mark.parametrize(
    "name", ["cache_salt", "chat_template", "chat_template_kwargs", "priority", "request_id", "mm_processor_kwargs"]
)
def test_what_would_reach_into_the_engine_is_refused_with_the_reason(name: str) -> None:
    fields: dict[str, Any] = {name: "x"}
    error = refused(**fields)
    assert (error.code, error.param) == ("unknown_parameter", name)
    assert "not taken here" in str(error)


def test_what_the_engine_checks_is_left_to_it() -> None:
    made = call(messages=[{"role": "robot", "content": None, "tool_calls": [{"id": "x"}]}], tool_choice={"odd": 1})
    assert made.document["messages"][0]["role"] == "robot"


def test_null_is_not_looked_at() -> None:
    for endpoint, table in TABLES.items():
        optional = {name: None for name in table if name not in NEEDED[endpoint] and name != "model"}
        assert call(endpoint, **optional)


@pytest.mark.parametrize(
    ("endpoint", "fields", "answers"),
    [
        ("chat", {"max_tokens": 100}, 100),
        ("chat", {"max_tokens": 100, "max_completion_tokens": 50}, 50),
        ("chat", {"max_tokens": 100, "n": 4}, 400),
        ("chat", {}, 1024),
        ("completions", {"max_tokens": 10, "prompt": ["a", "b"], "n": 2}, 40),
        ("completions", {"max_tokens": 10, "best_of": 3}, 30),
        ("completions", {"max_tokens": 10, "prompt": [1, 2, 3]}, 10),
        ("completions", {"max_tokens": 10, "prompt": [[1, 2], [3]]}, 20),
        ("responses", {"max_output_tokens": 7}, 7),
    ],
)
def test_what_is_reserved_covers_every_answer(endpoint: Endpoint, fields: dict[str, Any], answers: int) -> None:
    size = len(orjson.dumps({"model": "m", **NEEDED[endpoint], **fields}))
    assert call(endpoint, **fields).tokens_max == size // 4 + answers


def test_prompts_in_one_call_are_counted_like_answers() -> None:
    assert call("completions", prompt=list("abcd"))
    assert refused("completions", prompt=list("abcde")).param == "prompt"
    assert refused("completions", prompt={"x": 1}).param == "prompt"
    assert call("completions", prompt=[1] * 5000)


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        (b"x-request-id", b"abc-1.2_3:4", {"request_id": b"abc-1.2_3:4"}),
        (b"x-request-id", b"a b", {"request_id": b""}),
        (b"x-request-id", b"x" * 129, {"request_id": b""}),
        (b"x-request-id", b"abc\n", {"request_id": b""}),
        (b"x-request-id", b"", {"request_id": b""}),
        (b"x-stainless-retry-count", b"2", {"retry_count": 2}),
        (b"x-stainless-retry-count", b"-1", {"retry_count": 0}),
        (b"x-stainless-retry-count", b"9999", {"retry_count": 0}),
        (b"x-stainless-retry-count", b"\xb2", {"retry_count": 0}),
        (b"x-graftline-conversation", b"c" * 300, {"conversation": "c" * 256}),
        (b"authorization", b"Bearer x", {"bearer": b"Bearer x"}),
        (b"accept", b"*/*", {}),
    ],
)
def test_odd_values_in_a_head_are_dropped(name: bytes, value: bytes, found: dict[str, Any]) -> None:
    assert head([(name, value)]) == Head(**found)
