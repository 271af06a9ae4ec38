"""What is left of a request: one record, holding what its key's policy allows and nothing that identifies a person."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections import Counter
from typing import Any

import pytest

from loadtests.stack import stack
from tests.e2e.houses import BASE, House, asked, eventually, open_house

pytestmark = pytest.mark.slow


def test_every_request_leaves_exactly_one_record(house: House) -> None:
    ids = [f"one-{i}" for i in range(30)]
    ways: list[dict[str, Any]] = [
        {},
        {"stream": True},
        {"n": 99},
        {"model": "nobody"},
        {"text": "[[cut:1]]", "stream": True},
    ]
    for i, request_id in enumerate(ids):
        house.chat(headers={"x-request-id": request_id}, **ways[i % 5])
    for request_id in ids:
        house.record(request_id)
    counts = Counter(r.request_id for r in house.records())
    assert all(counts[request_id] == 1 for request_id in ids)


def test_a_record_says_what_happened(house: House) -> None:
    key, key_id = house.new_key(tenant="acme")
    answer = house.chat(
        "hello there",
        key=key,
        user="u-1",
        metadata={"conversation_id": "c-9", "color": "red"},
        store=True,
        headers={"x-stainless-retry-count": "2"},
    )
    record = house.record(answer.headers["x-request-id"])
    assert record.completion_id == answer.json()["id"]
    assert (record.tenant, record.key_id, record.endpoint, record.model) == ("acme", key_id, "chat", BASE)
    assert (record.status, record.error, record.finish, record.incomplete) == (200, "", "stop", False)
    assert (record.attempts, record.retry_count, record.replica, record.stream) == (1, 2, "engine-0", False)
    usage = answer.json()["usage"]
    assert (record.prompt_tokens, record.completion_tokens) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert (record.user, record.conversation, dict(record.metadata)["color"]) == ("u-1", "c-9", "red")
    assert (record.captured, record.stored) == ("full", True)
    assert record.base_digest.startswith("sha256:")
    assert (record.adapter, record.digest) == ("", "")
    assert record.request is not None
    assert record.response is not None
    assert json.loads(record.request)["messages"][0]["content"] == "hello there"
    assert json.loads(record.response)["choices"][0]["message"]["content"].startswith(BASE)
    assert record.total_ms >= (record.first_byte_ms or 0) > 0


@pytest.mark.parametrize("endpoint", ["chat", "completions", "responses"])
def test_a_streamed_answer_is_put_together_again(house: House, endpoint: str) -> None:
    body: dict[str, Any] = {
        "chat": asked("hello there [[ttft:0.05]] [[pace:0.02]]", stream=True),
        "completions": {"model": BASE, "prompt": "hello there [[ttft:0.05]] [[pace:0.02]]", "stream": True},
        "responses": {"model": BASE, "input": "hello there [[pace:0.02]]", "stream": True},
    }[endpoint]
    path = {"chat": "chat/completions"}.get(endpoint, endpoint)
    with house.client() as client:
        answer = client.post(f"/v1/{path}", json=body)
    record = house.record(answer.headers["x-request-id"])
    assert record.endpoint == endpoint
    assert record.stream
    assert record.completion_id in answer.text
    assert record.prompt_tokens > 0
    assert record.completion_tokens > 1
    assert record.first_token_ms is not None
    assert record.last_token_ms is not None
    assert 0 < (record.first_byte_ms or 0) <= record.first_token_ms < record.last_token_ms <= record.total_ms
    assert f"{BASE} heard hello there" in str(record.response)
    assert record.finish in ("stop", "completed")


@pytest.mark.parametrize(
    ("capture", "store", "bodies"),
    [
        ("full", None, True),
        ("full", True, True),
        ("full", False, False),
        ("metadata", None, False),
        ("metadata", True, False),
    ],
)
def test_bodies_are_kept_as_the_key_and_the_caller_allow(
    house: House, capture: str, store: bool | None, bodies: bool
) -> None:
    key, _ = house.new_key(capture=capture)
    record = house.record(house.chat("secret words", key=key, store=store).headers["x-request-id"])
    assert (record.request is not None, record.response is not None) == (bodies, bodies)
    assert record.captured == ("full" if bodies else "metadata")
    assert record.stored == bool(bodies and store)
    assert record.completion_tokens > 0


def test_a_key_that_captures_nothing_leaves_numbers_alone(house: House) -> None:
    key, _ = house.new_key(capture="off")
    answer = house.chat("x", key=key, user="u-7", metadata={"conversation_id": "c-7", "k": "v"})
    record = house.record(answer.headers["x-request-id"])
    assert (record.captured, record.completion_tokens > 0) == ("off", True)
    said = (record.user, record.conversation, dict(record.metadata), record.request, record.response)
    assert said == ("", "", {}, None, None)


def test_what_identifies_a_person_is_redacted_before_it_is_written(house: House) -> None:
    text = "I am ada@example.com, card 4111 1111 1111 1111, from 203.0.113.7"
    answer = house.chat(
        f"{text} [[say:write to bob@example.com]]", user="eve@example.com", metadata={"who": "mallory@example.com"}
    )
    record = house.record(answer.headers["x-request-id"])
    written = f"{record.request} {record.response} {record.user} {dict(record.metadata)}"
    for found in ("ada@", "bob@", "eve@", "mallory@", "4111", "203.0.113.7"):
        assert found not in written
    assert "[EMAIL]" in str(record.request)
    assert "bob@example.com" in answer.text


def test_media_are_kept_by_digest_and_size(house: House) -> None:
    data = bytes(range(256)) * 40
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(data).decode()}}
    answer = house.chat(messages=[{"role": "user", "content": [part, {"type": "text", "text": "data: my order"}]}])
    record = house.record(answer.headers["x-request-id"])
    content = json.loads(str(record.request))["messages"][0]["content"]
    assert content[0]["image_url"]["url"] == {
        "media": "image/png",
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
    }
    assert content[1]["text"] == "data: my order"


def test_malformed_and_refused_requests_are_recorded_under_their_key(house: House) -> None:
    with house.client() as client:
        answer = client.post("/v1/chat/completions", content=b'{"messages": "\xff')
    record = house.record(answer.headers["x-request-id"])
    assert (record.status, record.error, record.tenant) == (400, "invalid_json", "default")


def test_a_stranger_is_counted_and_cannot_fill_the_disk(house: House) -> None:
    before = house.metric("graftline_requests_total")
    stranger = house.chat(key="gl-wrong")
    assert stranger.status_code == 401
    house.record(house.chat("y").headers["x-request-id"])
    assert stranger.headers["x-request-id"] not in {r.request_id for r in house.records()}
    eventually(lambda: house.metric("graftline_requests_total") > before)


def test_a_user_known_by_an_address_stays_the_same_user_without_it(house: House) -> None:
    records = [
        house.record(house.chat("x", user=user).headers["x-request-id"]).user
        for user in ("ada@example.com", "ada@example.com", "bob@example.com", "u-7")
    ]
    assert records[0] == records[1]
    assert len({*records}) == 3
    assert records[3] == "u-7"
    assert not any("@" in user for user in records)


def test_an_oversized_answer_or_request_is_cut_in_the_record_and_still_counted() -> None:
    with stack(capture_bytes_max="2000") as running:
        house = open_house(running, engines=1)
        for stream in (False, True):
            answer = house.chat("word " * 600 + "[[tokens:300]]", stream=stream)
            assert answer.status_code == 200
            record = house.record(answer.headers["x-request-id"])
            assert record.completion_tokens == 301 or record.completion_tokens == 300
            assert record.completion_id in answer.text
            assert record.completion_id
            assert json.loads(str(record.response))["truncated"] is True
            assert json.loads(str(record.request))["truncated"] is True
            assert len(str(record.response)) + len(str(record.request)) < 5000


def test_nothing_answered_is_lost_when_the_gateway_is_killed() -> None:
    with stack() as running:
        house = open_house(running, engines=1)
        ids = [house.chat().headers["x-request-id"] for _ in range(40)]
        eventually(lambda: list((running.home / "spool").glob("*.spool")))
        time.sleep(0.06)
        running.kill("gateway")
        for request_id in ids:
            house.record(request_id)
