"""Who may ask, for what, and how much: keys as the gateway enforces them, on every way out of a request."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import httpx
import pytest

from tests.e2e.houses import BASE, House, asked, eventually

pytestmark = pytest.mark.slow
CHAT = "/v1/chat/completions"


def code(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["code"])


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer gl-wrong", "Basic abc", "Bearer " + "x" * 5000, "Bearer gl-aaaaaaaaaaaaaaaa-b"]
)
@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/v1/keys"])
def test_without_a_good_key_nothing_is_answered(house: House, header: str, path: str) -> None:
    with httpx.Client(base_url=house.url, trust_env=False) as client:
        method = "POST" if path == CHAT else "GET"
        answer = client.request(method, path, json=asked(), headers={"Authorization": header} if header else {})
    assert answer.status_code == 401
    assert code(answer) == "invalid_api_key"
    assert answer.json()["error"]["type"] == "authentication_error"


def test_a_stranger_s_body_is_not_even_read(house: House) -> None:
    with httpx.Client(base_url=house.url, trust_env=False) as client:
        answer = client.post(CHAT, content=b"{" * 1_000_000)
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("user", {"infer"}),
        ("engineer", {"adapters", "promote"}),
        ("operator", {"adapters", "keys", "mint"}),
        ("auditor", {"adapters", "keys"}),
    ],
)
def test_a_role_opens_its_own_doors_and_no_other(house: House, role: str, may: set[str]) -> None:
    key, _ = house.new_key(roles=[role])
    with house.client(key) as client:
        answers = {
            "infer": client.post(CHAT, json=asked()),
            "adapters": client.get("/v1/adapters"),
            "promote": client.post("/v1/adapters/none/promote", json={"number": 1}),
            "keys": client.get("/v1/keys"),
            "mint": client.post("/v1/keys", json={"name": "x", "roles": ["user"]}),
        }
    assert {name for name, answer in answers.items() if answer.status_code != 403} == may
    assert all(code(a) == "permission_denied" for name, a in answers.items() if name not in may)


def test_a_revoked_key_is_refused_within_a_quarter_of_a_second(house: House) -> None:
    key, key_id = house.new_key()
    assert house.chat(key=key).status_code == 200
    with house.client() as client, house.client(key) as theirs:
        client.delete(f"/v1/keys/{key_id}")
        began = time.monotonic()
        while theirs.post(CHAT, json=asked()).status_code == 200:
            assert time.monotonic() - began < 0.25
        again = client.delete(f"/v1/keys/{key_id}")
    assert again.status_code == 200
    assert code(house.chat(key=key)) == "invalid_api_key"


def test_the_list_of_keys_shows_no_secret(house: House) -> None:
    key, key_id = house.new_key(name="visible")
    with house.client() as client:
        text = client.get("/v1/keys").text
    assert key_id in text
    assert key not in text
    assert key.rpartition("-")[2] not in text


def test_models_a_key_may_not_use_look_like_models_that_do_not_exist(house: House) -> None:
    key, _ = house.new_key(models=["elsewhere"])
    refused, unknown = house.chat(key=key), house.chat(key=key, model="tidewelt")
    assert refused.status_code == unknown.status_code == 404
    assert refused.text.replace(BASE, "?") == unknown.text.replace("tidewelt", "?")
    with house.client(key) as client:
        assert client.get("/v1/models").json()["data"] == []
        assert client.get(f"/v1/models/{BASE}").status_code == 404


def test_requests_a_minute_are_counted_and_told(house: House) -> None:
    key, _ = house.new_key(limits={"requests_per_min": 3})
    answers = [house.chat(key=key) for _ in range(4)]
    assert [a.status_code for a in answers] == [200, 200, 200, 429]
    assert [a.headers["x-ratelimit-remaining-requests"] for a in answers[:3]] == ["2", "1", "0"]
    assert answers[0].headers["x-ratelimit-limit-requests"] == "3"
    assert answers[0].headers["x-ratelimit-reset-requests"].endswith("s")
    assert "x-ratelimit-limit-tokens" not in answers[0].headers
    assert answers[3].headers["x-ratelimit-remaining-requests"] == "0"
    assert code(answers[3]) == "rate_limit_exceeded"
    assert 0 < int(answers[3].headers["retry-after-ms"]) <= 120_000
    assert "x-should-retry" not in answers[3].headers


def test_a_request_over_the_minute_s_tokens_never_fits(house: House) -> None:
    key, _ = house.new_key(limits={"tokens_per_min": 100})
    answer = house.chat(key=key, max_tokens=500)
    assert answer.status_code == 429
    assert code(answer) == "request_over_limit"
    assert answer.headers["x-should-retry"] == "false"
    assert house.chat(key=key, max_tokens=20).status_code == 200


def test_a_spent_budget_is_final(house: House) -> None:
    key, _ = house.new_key(limits={"token_budget": 130})
    assert house.chat("a [[tokens:60]]", key=key, max_tokens=90).status_code == 200
    answer = house.chat(key=key, max_tokens=90)
    assert answer.status_code == 429
    assert code(answer) == "insufficient_quota"
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers


def test_only_so_many_at_a_time(house: House) -> None:
    key, _ = house.new_key(limits={"concurrent": 1})
    with (
        house.client(key) as client,
        client.stream("POST", CHAT, json=asked("[[tokens:30]] [[pace:0.2]]", stream=True)) as one,
    ):
        assert one.status_code == 200
        answer = house.chat(key=key)
        assert answer.status_code == 429
        assert code(answer) == "rate_limit_exceeded"
    eventually(lambda: house.chat(key=key).status_code == 200)


@pytest.mark.parametrize(
    "way",
    ["answered", "streamed", "cut", "refused by the engine", "engine error", "bad input", "unknown model", "left"],
)
def test_every_way_out_gives_the_place_back(house: House, way: str) -> None:
    """One request at a time and a thousand tokens: whatever happened before, the next one finds both again."""
    key, _ = house.new_key(limits={"concurrent": 1, "tokens_per_min": 1000})
    ways: dict[str, dict[str, Any]] = {
        "answered": {},
        "streamed": {"stream": True},
        "cut": {"text": "[[cut:2]]", "stream": True},
        "refused by the engine": {"max_tokens": 900, "text": "word " * 1200},
        "engine error": {"text": "[[error]]"},
        "bad input": {"n": 99},
        "unknown model": {"model": "nobody"},
        "left": {"text": "[[tokens:100]] [[pace:0.2]]", "stream": True},
    }
    limits = {"max_tokens": 500} | ways[way]
    if way == "refused by the engine":
        key, _ = house.new_key(limits={"concurrent": 1, "tokens_per_min": 4000})
        limits["max_tokens"] = 900
    if way == "left":
        with (
            house.client(key) as client,
            client.stream("POST", CHAT, json=asked(limits.pop("text"), **limits)) as answer,
        ):
            next(answer.iter_lines())
    else:
        with contextlib.suppress(httpx.RemoteProtocolError):
            house.chat(limits.pop("text", "hello"), key=key, **limits)
    eventually(lambda: house.chat(key=key, max_tokens=500).status_code == 200, timeout_s=5)


def test_a_stream_is_settled_by_what_it_used(house: House) -> None:
    key, _ = house.new_key(limits={"tokens_per_min": 1200})
    first = house.chat("hello [[tokens:10]]", key=key, stream=True, max_tokens=900)
    reserved = int(first.headers["x-ratelimit-remaining-tokens"])
    assert reserved < 300
    left = int(house.chat(key=key, max_tokens=10).headers["x-ratelimit-remaining-tokens"])
    assert 1100 < left < 1200


def test_leaving_early_is_not_free(house: House) -> None:
    key, _ = house.new_key(limits={"token_budget": 100_000})
    before = house.script()["cancelled"]
    with house.client(key) as client, contextlib.suppress(httpx.ReadTimeout):
        client.post(CHAT, json=asked("word " * 800 + "[[slow:5]]", max_tokens=10), timeout=0.3)
    eventually(lambda: house.script()["cancelled"] > before)
    with house.client() as client:
        assert key.split("-")[1] in client.get("/v1/keys").text
    small, _ = house.new_key(limits={"token_budget": 1100})
    with house.client(small) as client, contextlib.suppress(httpx.ReadTimeout):
        client.post(CHAT, json=asked("word " * 800 + "[[slow:5]]", max_tokens=10), timeout=0.3)
    eventually(lambda: code(house.chat(key=small, max_tokens=400)) == "insufficient_quota")


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        (b"{", "bad_json"),
        (b'{"name": "x", "roles": ["king"]}', "roles"),
        (b'{"name": ""}', "name"),
        (b'{"name": "x", "limits": {"tokens": 1}}', "limits"),
        (b'{"name": "x", "limits": {"concurrent": 0}}', "concurrent"),
        (b'{"name": "x", "expires_at": 5}', "expiry"),
        (b'{"name": "x", "surprise": 1}', "surprise"),
        (b"[]", "body"),
    ],
)
def test_a_key_that_may_not_be_made(house: House, body: bytes, wrong: str) -> None:
    with house.client() as client:
        answer = client.post("/v1/keys", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert isinstance(code(answer), str)
    assert wrong in ("bad_json", "body") or wrong in answer.text
