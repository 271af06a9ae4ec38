"""The endpoint as a client meets it: what it takes, what it refuses and in which words, whatever is sent to it."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import httpx
import pytest

from tests.e2e.houses import BASE, House, asked, events, eventually, raw

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


def head(house: House, *lines: str, path: str = CHAT, method: str = "POST") -> bytes:
    found = [f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {house.key}", *lines]
    return "\r\n".join(found).encode() + b"\r\n\r\n"


def test_an_answer_carries_who_made_it(house: House) -> None:
    answer = house.chat("hello")
    assert answer.status_code == 200
    assert answer.headers["x-graftline-adapter"] == BASE
    assert answer.headers["x-graftline-replica"] == "engine-0"
    assert answer.headers["x-request-id"].startswith("req-")
    assert answer.headers["openai-processing-ms"].isdigit()
    body = answer.json()
    assert body["id"].startswith("chatcmpl-")
    assert body["model"] == BASE
    assert body["choices"][0]["message"]["content"].startswith(BASE)


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
        ("GET", CHAT, 405, "method_not_allowed"),
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


def test_a_hundred_megabytes_are_refused_before_they_are_sent(house: House) -> None:
    said = raw(house.url, head(house, "Content-Length: 104857600") + b"x" * (1 << 20))
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"request_too_large"' in said


def test_a_hundred_megabytes_in_chunks_are_refused_on_the_way(house: House) -> None:
    chunk = b"%x\r\n" % (1 << 20) + b"x" * (1 << 20) + b"\r\n"
    said = raw(house.url, head(house, "Transfer-Encoding: chunked") + chunk * 100 + b"0\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 413 ")


def test_a_client_library_gets_to_read_why_its_hundred_megabytes_were_refused(house: House) -> None:
    with house.client() as client:
        answer = client.post(CHAT, content=b"x" * (100 << 20))
    assert answer.status_code == 413
    assert error(answer)["code"] == "request_too_large"


def test_a_large_body_on_a_control_route_is_refused_too(house: House) -> None:
    with house.client() as client:
        answer = client.post(
            "/v1/keys", content=iter([b"x" * (1 << 20)] * 3), headers={"content-type": "application/json"}
        )
    assert answer.status_code == 413
    assert error(answer)["code"] == "request_too_large"


@pytest.mark.parametrize("path", [CHAT, "/v1/keys", "/v1/adapters/x/promote"])
def test_a_body_that_never_comes_is_not_waited_for(house: House, path: str) -> None:
    began = time.monotonic()
    said = raw(house.url, head(house, "Content-Type: application/json", "Content-Length: 100", path=path) + b"{")
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in said
    assert time.monotonic() - began < 4


def test_a_head_that_drips_is_cut_off(house: House) -> None:
    host, _, port = house.url.removeprefix("http://").partition(":")
    began = time.monotonic()
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        try:
            for byte in b"POST /v1/chat/completions HTTP/1.1\r\nHost: slow.example\r\n":
                connection.sendall(bytes([byte]))
                time.sleep(0.05)
        except OSError:
            pass
        said = connection.recv(65536)
    assert said.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began < 5


def test_a_connection_that_says_nothing_is_closed(house: House) -> None:
    began = time.monotonic()
    assert raw(house.url, b"") == b""
    assert time.monotonic() - began < 4


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Big: " + b"x" * 40_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"x-%d: y\r\n" % i for i in range(5000)) + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Endless: " + b"x" * 400_000,
    ],
)
def test_an_oversized_head_is_refused(house: House, data: bytes) -> None:
    said = raw(house.url, data)
    assert said.startswith(b"HTTP/1.1 431 ")
    assert b'"code":"request_head_too_large"' in said


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_what_is_not_http_gets_one_typed_answer(house: House, data: bytes) -> None:
    said = raw(house.url, data)
    assert said.startswith(b"HTTP/1.1 400 ")
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_http"


def test_endless_trailers_are_cut_off(house: House) -> None:
    body = b"2\r\n{}\r\n0\r\n"
    data = head(house, "Transfer-Encoding: chunked") + body + b"x: " + b"y" * (4 << 20)
    said = raw(house.url, data)
    assert b'"code":"invalid_http"' in said or said == b""


def test_an_upgrade_that_nobody_asked_for_is_an_ordinary_request(house: House) -> None:
    with house.client() as client:
        answer = client.post(CHAT, json=asked(), headers={"connection": "upgrade", "upgrade": "h2c"})
    assert answer.status_code == 200


def test_compressed_bodies_are_declined(house: House) -> None:
    with house.client() as client:
        answer = client.post(CHAT, content=b"\x1f\x8b", headers={"content-encoding": "gzip"})
    assert answer.status_code == 400


def test_bad_input_disturbs_nobody_else(house: House) -> None:
    host, _, port = house.url.removeprefix("http://").partition(":")
    slow = [socket.create_connection((host, int(port))) for _ in range(50)]
    for connection in slow:
        connection.sendall(b"POST / HTTP/1.1\r\nHo")
    try:
        began = time.monotonic()
        assert house.chat().status_code == 200
        assert time.monotonic() - began < 1
    finally:
        for connection in slow:
            connection.close()


@pytest.mark.parametrize("model", [BASE, f"{BASE[:4]}%{ord(BASE[4]):x}{BASE[5:]}"])
def test_a_model_is_found_by_its_id(house: House, model: str) -> None:
    with house.client() as client:
        answer = client.get(f"/v1/models/{model}")
        listed = client.get("/v1/models").json()
    assert answer.json()["id"] == BASE
    assert answer.json()["object"] == "model"
    assert "/" not in answer.json()["root"]
    assert BASE in [row["id"] for row in listed["data"]]
    assert listed["has_more"] is False


@pytest.mark.parametrize("model", ["nobody", "a%2Fb", "a/b/c", "x" * 500, "%00", "%f0%9f%a6%8a"])
def test_a_model_that_is_not_there(house: House, model: str) -> None:
    with house.client() as client:
        answer = client.get(f"/v1/models/{model}")
    assert answer.status_code == 404
    assert error(answer)["code"] == "model_not_found"


def test_the_base_cannot_be_deleted(house: House) -> None:
    with house.client() as client:
        assert client.delete(f"/v1/models/{BASE}").status_code == 404


def test_health_readiness_and_metrics(house: House) -> None:
    with httpx.Client(base_url=house.url, trust_env=False) as client:
        assert client.get("/healthz").json() == {"status": "alive"}
        assert client.head("/healthz").status_code == 200
        assert client.get("/readyz").json()["status"] == "ready"
        assert "graftline_requests_total" in client.get("/metrics").text
    eventually(lambda: house.metric("graftline_requests_total") > 0)


def test_completions_and_responses_go_the_same_way(house: House) -> None:
    with house.client() as client:
        plain = client.post("/v1/completions", json={"model": BASE, "prompt": ["a", "b"], "n": 2, "max_tokens": 3})
        assert len(plain.json()["choices"]) == 4
        many = client.post("/v1/completions", json={"model": BASE, "prompt": list("abcde"), "max_tokens": 3})
        assert error(many)["param"] == "prompt"
        whole = client.post("/v1/responses", json={"model": BASE, "input": "hi"})
        assert whole.json()["object"] == "response"
        assert house.script()["last"]["body"]["store"] is False
        streamed = client.post("/v1/responses", json={"model": BASE, "input": "hi", "stream": True})
        assert "response.completed" in streamed.text
        kept = client.post("/v1/responses", json={"model": BASE, "input": "hi", "previous_response_id": "r"})
        assert error(kept)["code"] == "unknown_parameter"


def test_streams_arrive_in_order_and_end(house: House) -> None:
    found = house.stream("hello [[tokens:5]]")
    assert found[-1] == "[DONE]"
    assert found[0]["choices"][0]["delta"]["role"] == "assistant"
    assert {event["model"] for event in found[:-1]} == {BASE}
    assert [e["choices"][0]["finish_reason"] for e in found[:-1]][-1] == "stop"
    assert all(event["choices"] for event in found[:-1])


def test_usage_comes_only_when_it_was_asked_for(house: House) -> None:
    found = house.stream("hello", stream_options={"include_usage": True})
    assert found[-1] == "[DONE]"
    assert found[-2]["choices"] == []
    assert found[-2]["usage"]["completion_tokens"] > 0
    assert house.stream("hello", stream_options={"include_usage": False})[-2]["choices"]


@pytest.mark.parametrize("cue", ["[[split]]", "[[merge:3]]", "[[merge:99]]", "[[split]] [[merge:2]]"])
def test_events_stay_whole_however_the_engine_writes_them(house: House, cue: str) -> None:
    found = house.stream(f"one two three {cue}")
    assert found[-1] == "[DONE]"
    said = "".join(event["choices"][0]["delta"].get("content") or "" for event in found[:-1])
    assert said.startswith(f"{BASE} heard one two three")


def test_silence_is_filled_with_comments(house: House) -> None:
    text = house.chat("hello [[tokens:3]] [[pace:1.5]]", stream=True).text
    assert ": keep-alive\n\n" in text
    assert events(text)[-1] == "[DONE]"


def test_a_keep_alive_connection_serves_many(house: House) -> None:
    with house.client() as client:
        for _ in range(3):
            assert client.post(CHAT, json=asked()).status_code == 200
            assert client.post(CHAT, content=b"{").status_code == 400
