"""Engines that fail and clients that leave: what the others notice is nothing."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from loadtests.stack import free_port, scripted, stack
from tests.e2e.houses import BASE, House, asked, events, eventually, open_house, start_gateway

pytestmark = pytest.mark.slow
CHAT = "/v1/chat/completions"
LONG = "x" * 4000  # a word, and so a token: an answer of such tokens is more than the kernel will hold for a client


@pytest.fixture(scope="module")
def pair() -> Iterator[House]:
    """Two engines behind one gateway."""
    with stack(stall_timeout_s="2", send_timeout_s="1", adapter_wait_s="2") as running:
        yield open_house(running, engines=2)


def both_up(house: House) -> bool:
    return list(house.ready()["engines"].values()) == ["up", "up"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("cue", ["[[error]]", "[[cut]]", "[[garbage]]"])
def test_a_failure_before_the_first_byte_is_tried_elsewhere(pair: House, cue: str, stream: bool) -> None:
    eventually(lambda: both_up(pair))
    pair.script(0, next=[cue, cue])  # twice, for a kept connection that closes without a byte is replaced first
    answer = pair.chat("hello", stream=stream)
    pair.script(0, next=[])
    assert answer.status_code == 200
    assert answer.headers["x-graftline-replica"] == "engine-1"
    assert "hello" in answer.text
    record = pair.record(answer.headers["x-request-id"])
    assert (record.attempts, record.replica, record.incomplete, record.error) == (2, "engine-1", False, "")


def test_an_error_event_that_comes_first_is_tried_elsewhere_too(pair: House) -> None:
    """The head of a stream says 200 before the engine has worked; nothing has been told to the client yet."""
    eventually(lambda: both_up(pair))
    pair.script(0, next=["[[error:1]] [[merge:99]]"])
    with httpx.Client(base_url=pair.url, trust_env=False, headers={"Authorization": f"Bearer {pair.key}"}) as client:
        body = {"model": BASE, "prompt": "hello", "stream": True, "max_tokens": 5}
        pair.script(0, next=["[[cut:0]]"])
        answer = client.post("/v1/completions", json=body)
    assert events(answer.text)[-1] == "[DONE]"
    assert all("error" not in event for event in events(answer.text)[:-1])


@pytest.mark.parametrize("stream", [False, True])
def test_when_every_engine_fails_the_status_says_so(pair: House, stream: bool) -> None:
    eventually(lambda: both_up(pair))
    answer = pair.chat("[[error]]", stream=stream)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "engine_unavailable"
    assert answer.headers["retry-after"] == "5"
    assert answer.headers["content-type"] == "application/json"
    record = pair.record(answer.headers["x-request-id"])
    assert (record.status, record.error, record.attempts) == (503, "engine_unavailable", 2)


@pytest.mark.parametrize(
    ("cue", "code"),
    [
        ("[[error:2]]", "engine_error"),
        ("[[cut:2]]", "engine_broke"),
        ("[[garbage:2]]", "engine_broke"),
        ("[[hang:2]]", "engine_timeout"),
    ],
)
def test_a_failure_after_the_first_byte_is_an_event_and_never_a_retry(pair: House, cue: str, code: str) -> None:
    eventually(lambda: both_up(pair))
    before = sum(pair.script(i)["requests"] for i in (0, 1))
    answer = pair.chat(f"hello there {cue}", stream=True)
    assert answer.status_code == 200
    found = events(answer.text)
    assert found[-1] == "[DONE]"
    assert found[-2]["error"]["code"] == code
    assert "EngineCore" not in answer.text
    assert found[0]["choices"][0]["delta"]["role"] == "assistant"
    assert sum(pair.script(i)["requests"] for i in (0, 1)) == before + 1
    record = pair.record(answer.headers["x-request-id"])
    assert (record.status, record.incomplete, record.error, record.attempts) == (200, True, code, 1)
    assert eventually(lambda: pair.metric("graftline_stream_errors_total")) >= 1


def test_silence_before_the_first_byte_is_a_timeout_and_not_an_outage(pair: House) -> None:
    eventually(lambda: both_up(pair))
    answer = pair.chat("[[hang]]", stream=True)
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "engine_timeout"
    assert both_up(pair)


def test_one_torn_answer_does_not_take_the_engine_from_the_others(house: House) -> None:
    house.script(0, next=["[[garbage]]"])
    assert house.chat("x").status_code == 503
    assert house.chat("x").status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_the_engine_s_work(pair: House, stream: bool) -> None:
    with pair.client() as client, contextlib.suppress(httpx.ReadTimeout):
        body = asked("[[tokens:200]] [[pace:0.1]]", stream=stream)
        with client.stream(
            "POST", CHAT, json=body, headers={"x-request-id": f"leaver-{stream}"}, timeout=0.5
        ) as answer:
            next(answer.iter_lines())
    eventually(lambda: all(pair.script(i)["running"] == 0 for i in (0, 1)), timeout_s=2)
    record = pair.record(f"leaver-{stream}")
    assert (record.error, record.incomplete, record.stream) == ("client_left", True, stream)
    assert record.status == (200 if stream else 499)


def test_a_client_that_closes_at_the_end_mark_has_had_its_answer(pair: House) -> None:
    with pair.client() as client:
        for number in range(10):
            headers = {"x-request-id": f"done-{number}"}
            with client.stream("POST", CHAT, json=asked("hi", stream=True), headers=headers) as answer:
                for line in answer.iter_lines():
                    if line == "data: [DONE]":
                        break
    found = [pair.record(f"done-{number}") for number in range(10)]
    assert {(r.error, r.incomplete, r.status) for r in found} == {("", False, 200)}


def test_a_client_that_stops_reading_is_cut_off(pair: House) -> None:
    host, _, port = pair.url.removeprefix("http://").partition(":")
    body = json.dumps(asked(f"[[tokens:900]] [[say:{LONG}]]", stream=True, n=8, logprobs=True, max_tokens=900)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {pair.key}\r\nx-request-id: deaf\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect((host, int(port)))
        connection.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        eventually(lambda: _owned(connection))
        record = pair.record("deaf")
        assert (record.status, record.error, record.incomplete) == (200, "client_left", True)
        assert 900 < record.total_ms < 5000
        eventually(lambda: not _owned(connection))


def _owned(connection: socket.socket) -> bool:
    """Whether a process still holds the other end: an orphan, left to the kernel to drain, has no inode."""
    ends = f"{connection.getpeername()[1]:04X}", f"{connection.getsockname()[1]:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if (fields[1].partition(":")[2], fields[2].partition(":")[2]) == ends:
            return fields[9] != "0"
    return False


def test_no_engine_at_all(tmp_path: Path) -> None:
    with stack() as running:
        port = free_port()
        running.env["GRAFTLINE_ENGINE_URLS"] = f"http://127.0.0.1:{port}"
        house = start_gateway(running)
        answer = house.chat()
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "engine_unavailable"
        assert house.ready()["status"] == "unready"
        assert httpx.get(f"{house.url}/readyz", trust_env=False).status_code == 503
        assert httpx.get(f"{house.url}/healthz", trust_env=False).status_code == 200
        scripted(running, "late", port=port, model=BASE)
        eventually(lambda: house.chat().status_code == 200, timeout_s=3)


def test_an_engine_that_serves_another_base_is_not_asked_for_ever() -> None:
    with stack() as running:
        port = free_port()
        url = scripted(running, "engine", port=port, model="somebody-else")
        running.env["GRAFTLINE_ENGINE_URLS"] = url
        house = start_gateway(running)
        eventually(lambda: house.ready()["engines"] == {"engine-0": "up"})
        answer = house.chat()
        assert answer.status_code == 503
        assert httpx.get(f"{url}/metrics", trust_env=False).status_code == 200
        assert httpx.post(f"{url}/script", json={}, trust_env=False).json()["requests"] <= 3


def test_an_engine_that_dies_mid_stream_and_comes_back() -> None:
    with stack() as running:
        port = free_port()
        scripted(running, "engine", port=port, model=BASE)
        running.env["GRAFTLINE_ENGINE_URLS"] = f"http://127.0.0.1:{port}"
        house = start_gateway(running)
        eventually(lambda: house.ready()["status"] != "unready")
        found = events(house.chat("hello there [[die:3]]", stream=True).text)
        assert found[-2]["error"]["code"] == "engine_broke"
        eventually(lambda: house.ready()["status"] == "unready", timeout_s=2)
        assert house.chat().json()["error"]["code"] == "engine_unavailable"
        running.processes.pop("engine").wait()
        scripted(running, "engine", port=port, model=BASE)
        eventually(lambda: house.chat().status_code == 200, timeout_s=3)
