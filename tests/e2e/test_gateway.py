"""The endpoint as a client meets it: what it takes, what it refuses and in which words, whatever is sent to it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.e2e.houses import BASE, House

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"


def error(answer: httpx.Response) -> dict[str, Any]:
    """The error of an answer, after checking that it has OpenAI's shape."""
    found: dict[str, Any] = answer.json()["error"]
    assert set(found) >= {"message", "type", "param", "code"}
    assert isinstance(found["code"], str)
    assert isinstance(found["message"], str)
    assert answer.headers["x-request-id"]
    assert answer.headers["content-type"] == "application/json"
    return found


@pytest.mark.parametrize(
    ("content", "code", "param"),
    [
        (b"{", "invalid_json", None),
        (b"", "invalid_json", None),
        (b"[]", "invalid_json", None),
        (b"null", "invalid_json", None),
        (b'{"model": "\xff\xfe"}', "invalid_json", None),
        (b'{"model": "\\ud800"}', "invalid_json", None),
        (b'{"a":' * 900 + b"1" + b"}" * 900, "invalid_json", None),
        (b"[" * 100_000, "invalid_json", None),
        (b'{"messages": []}', "invalid_value", "messages"),
        (b'{"messages": [{"role": "user", "content": "x"}]}', "missing_required_parameter", "model"),
        (b'{"model": "tidewell"}', "missing_required_parameter", "messages"),
        (b'{"model": 5, "messages": [{"role": "user"}]}', "invalid_value", "model"),
    ],
)
def test_a_body_that_cannot_be_understood_is_told_so(
    house: House, content: bytes, code: str, param: str | None
) -> None:
    with house.client() as client:
        answer = client.post(CHAT, content=content)
    assert answer.status_code == 400
    assert (error(answer)["code"], error(answer)["param"]) == (code, param)


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"temperature": "hot"}, "invalid_value", "temperature"),
        ({"temperature": 9}, "invalid_value", "temperature"),
        ({"stream": "yes"}, "invalid_value", "stream"),
        ({"n": 5}, "invalid_value", "n"),
        ({"n": True}, "invalid_value", "n"),
        ({"logprobs": True, "top_logprobs": 21}, "invalid_value", "top_logprobs"),
        ({"max_tokens": -1}, "invalid_value", "max_tokens"),
        ({"max_tokens": 10**30}, "invalid_value", "max_tokens"),
        ({"messages": "hi"}, "invalid_value", "messages"),
        ({"messages": [7]}, "invalid_value", "messages.0"),
        ({"stop": list("abcdefghijklmnopqrs")}, "invalid_value", "stop"),
        ({"metadata": {"a": 1}}, "invalid_value", "metadata.a"),
        ({"metadata": {str(i): "x" for i in range(17)}}, "invalid_value", "metadata"),
        ({"foo_bar": 1}, "unknown_parameter", "foo_bar"),
        ({"cache_salt": "mine"}, "unknown_parameter", "cache_salt"),
        ({"priority": 1}, "unknown_parameter", "priority"),
        ({"request_id": "mine"}, "unknown_parameter", "request_id"),
        ({"chat_template": "{{x}}"}, "unknown_parameter", "chat_template"),
        ({"mm_processor_kwargs": {}}, "unknown_parameter", "mm_processor_kwargs"),
        (
            {"stream_options": {"continuous_usage_stats": True}},
            "unknown_parameter",
            "stream_options.continuous_usage_stats",
        ),
        ({"response_format": {"type": "json_schema", "x": "y" * 70_000}}, "invalid_value", "response_format"),
        ({"model": "nobody"}, "model_not_found", "model"),
        ({"model": "nobody@candidate"}, "model_not_found", "model"),
        ({"model": "../../etc/passwd"}, "model_not_found", "model"),
        ({"max_tokens": 5000}, "context_length_exceeded", "max_tokens"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "unsupported_value", "tools"),
    ],
)
def test_a_field_at_fault_is_named(house: House, fields: dict[str, Any], code: str, param: str) -> None:
    answer = house.chat(**fields)
    assert answer.status_code == (404 if code == "model_not_found" else 400)
    assert (error(answer)["code"], error(answer)["param"]) == (code, param)
    assert error(answer)["type"] == "invalid_request_error"


def test_a_prompt_that_is_too_long_is_told_so_in_openai_words(house: House) -> None:
    answer = house.chat("word " * 2000)
    assert answer.status_code == 400
    assert error(answer)["code"] == "context_length_exceeded"
    assert error(answer)["param"] == "messages"


@pytest.mark.parametrize("fields", [{"temperature": None}, {"max_tokens": None, "stop": None, "user": None}])
def test_null_means_unset(house: House, fields: dict[str, Any]) -> None:
    assert house.chat(**fields).status_code == 200


def test_fields_of_ours_never_reach_the_engine(house: House) -> None:
    ours: dict[str, Any] = {
        "metadata": {"k": "v"},
        "user": "u",
        "store": True,
        "service_tier": "auto",
        "prompt_cache_key": "p",
    }
    answer = house.chat("hello", headers={"x-request-id": "mine-1"}, **ours)
    assert answer.json()["metadata"] == {"k": "v"}
    assert answer.headers["x-request-id"] == "mine-1"
    sent = house.script()["last"]
    assert not set(ours) & set(sent["body"])
    assert sent["request_id"] != "mine-1"
    assert len(sent["body"]["cache_salt"]) == 32


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("https://images.example/cat.png", 400),  # may pass; this engine takes no images
        ("http://169.254.169.254/latest", 400),
        ("file:///etc/passwd", 400),
        ("http://10.0.0.1\\@images.example/", 400),
        ("http://[::1", 400),
        ("http://exa\u2100mple.com/", 400),
        ("http://images.example@10.0.0.1/", 400),
        ("data:image/png;base64,AAAA", 400),
    ],
)
def test_remote_media_only_from_hosts_on_the_list(house: House, url: str, status: int) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    answer = house.chat(messages=[{"role": "user", "content": [{"type": "text", "text": "x"}, part]}])
    assert answer.status_code == status
    passed = url.startswith(("https://images.example/", "data:"))
    assert (error(answer)["message"] == "base is not a multimodal model") == passed
    assert passed or error(answer)["param"] == "messages.0.content.1.image_url.url"


@pytest.mark.parametrize("request_id", ["a b", "x" * 129, "é", "a,b", "{}", "\x01"])
def test_an_odd_request_id_is_replaced(house: House, request_id: str) -> None:
    answer = house.chat(headers=[(b"x-request-id", request_id.encode("utf-8"))])
    if request_id == "\x01":
        assert answer.status_code == 400
    else:
        assert answer.status_code == 200
        assert answer.headers["x-request-id"].startswith("req-")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("PUT", CHAT, 405, "method_not_allowed"),
        ("DELETE", "/v1/completions", 405, "method_not_allowed"),
        ("POST", "/v1/nothing", 404, "unknown_url"),
        ("GET", "/", 404, "unknown_url"),
        ("POST", "/v1/chat/completions/", 404, "unknown_url"),
        ("GET", "/v1/adapters/", 404, "unknown_url"),
        ("POST", "/healthz", 405, "method_not_allowed"),
        ("PATCH", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/v1/embeddings", 404, "unsupported_endpoint"),
    ],
)
def test_routes_and_methods_that_are_not_there(house: House, method: str, path: str, status: int, code: str) -> None:
    with house.client() as client:
        answer = client.request(method, path, json={"model": BASE, "input": "x"})
    assert answer.status_code == status
    assert error(answer)["code"] == code
