"""What the endpoint answers: models, streams, the other endpoints, and how it says that it is well."""

from __future__ import annotations

import httpx
import pytest

from tests.e2e.houses import BASE, House, asked, events, eventually

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"


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
    assert answer.json()["error"]["code"] == "model_not_found"


def test_the_base_cannot_be_deleted(house: House) -> None:
    with house.client() as client:
        assert client.delete(f"/v1/models/{BASE}").status_code == 404


def test_health_readiness_and_metrics(house: House) -> None:
    with httpx.Client(base_url=house.url, trust_env=False) as client:
        assert client.get("/healthz").json() == {"status": "alive"}
        assert client.head("/healthz").status_code == 200
        assert client.get("/readyz").json()["status"] == "ready"
    assert house.chat().status_code == 200
    eventually(lambda: house.metric("graftline_requests_total") > 0)


def test_completions_and_responses_go_the_same_way(house: House) -> None:
    with house.client() as client:
        plain = client.post("/v1/completions", json={"model": BASE, "prompt": ["a", "b"], "n": 2, "max_tokens": 3})
        assert len(plain.json()["choices"]) == 4
        many = client.post("/v1/completions", json={"model": BASE, "prompt": list("abcde"), "max_tokens": 3})
        assert many.json()["error"]["param"] == "prompt"
        whole = client.post("/v1/responses", json={"model": BASE, "input": "hi"})
        assert whole.json()["object"] == "response"
        assert house.script()["last"]["body"]["store"] is False
        streamed = client.post("/v1/responses", json={"model": BASE, "input": "hi", "stream": True})
        assert "response.completed" in streamed.text
        kept = client.post("/v1/responses", json={"model": BASE, "input": "hi", "previous_response_id": "r"})
        assert kept.json()["error"]["code"] == "unknown_parameter"


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
