"""Engines that fail, clients that leave, disks that fill, databases that go: what the others notice is nothing."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadtests.stack import free_port, make_key, scripted, stack, wait_for
from tests.e2e.houses import BASE, House, asked, events, eventually, open_house

pytestmark = pytest.mark.slow
CHAT = "/v1/chat/completions"


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


def test_a_client_that_stops_reading_is_dropped(pair: House) -> None:
    host, _, port = pair.url.removeprefix("http://").partition(":")
    body = (
        b'{"model":"%s","stream":true,"max_tokens":900,"messages":[{"role":"user","content":"[[tokens:900]]"}]}'
        % BASE.encode()
    )
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect((host, int(port)))
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {pair.key}\r\nx-request-id: deaf\r\n"
        long = b"x" * 60_000
        for _ in range(1):
            connection.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        del long
        record = pair.record("deaf")
        eventually(lambda: pair.chat().status_code == 200)
    assert record.status == 200


def test_no_engine_at_all(tmp_path: Path) -> None:
    with stack() as running:
        port = free_port()
        running.env["GRAFTLINE_ENGINE_URLS"] = f"http://127.0.0.1:{port}"
        house = _without_engine(running)
        answer = house.chat()
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "engine_unavailable"
        assert house.ready()["status"] == "unready"
        assert httpx.get(f"{house.url}/readyz", trust_env=False).status_code == 503
        assert httpx.get(f"{house.url}/healthz", trust_env=False).status_code == 200
        scripted(running, "late", port=port, model=BASE)
        eventually(lambda: house.chat().status_code == 200, timeout_s=3)


def _without_engine(running: Any) -> House:
    key = make_key(running)
    port = free_port()
    running.start("gateway", [sys.executable, "-m", "gateway.cli", "serve"], {"GRAFTLINE_PORT": str(port)})
    wait_for(f"http://127.0.0.1:{port}/healthz", timeout_s=30)
    return House(running, f"http://127.0.0.1:{port}", (), key)


def test_an_engine_that_serves_another_base_is_not_asked_for_ever() -> None:
    with stack() as running:
        port = free_port()
        url = scripted(running, "engine", port=port, model="somebody-else")
        running.env["GRAFTLINE_ENGINE_URLS"] = url
        house = _without_engine(running)
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
        house = _without_engine(running)
        eventually(lambda: house.ready()["status"] != "unready")
        found = events(house.chat("hello there [[die:3]]", stream=True).text)
        assert found[-2]["error"]["code"] == "engine_broke"
        eventually(lambda: house.ready()["status"] == "unready", timeout_s=2)
        assert house.chat().json()["error"]["code"] == "engine_unavailable"
        running.processes.pop("engine").wait()
        scripted(running, "engine", port=port, model=BASE)
        eventually(lambda: house.chat().status_code == 200, timeout_s=3)


def test_two_workers_share_one_quota() -> None:
    with stack(workers="2") as running:
        url = scripted(running, "engine", port=free_port(), model=BASE)
        running.env["GRAFTLINE_ENGINE_URLS"] = url
        key = make_key(running, requests_per_min="6", concurrent="2")
        ports = [free_port(), free_port()]
        for number, port in enumerate(ports):
            argv = [sys.executable, "-m", "gateway.cli", "serve", "--worker", str(number)]
            running.start(f"gateway-{number}", argv, {"GRAFTLINE_PORT": str(port)})
        houses = [House(running, f"http://127.0.0.1:{port}", (url,), key) for port in ports]
        for house in houses:
            wait_for(f"{house.url}/healthz", timeout_s=30)
        eventually(lambda: all(h.ready()["status"] != "unready" for h in houses))
        with houses[0].client() as one, houses[1].client() as two:
            slow = asked("[[tokens:50]] [[pace:0.1]]", stream=True)
            with one.stream("POST", CHAT, json=slow), two.stream("POST", CHAT, json=slow):
                assert houses[0].chat().status_code == houses[1].chat().status_code == 429
        eventually(lambda: house.script()["running"] == 0)
        codes = [houses[i % 2].chat().status_code for i in range(8)]
        assert codes.count(200) == 4
        assert codes[4:] == [429] * 4


def test_the_same_place_is_not_taken_twice(house: House) -> None:
    argv = [sys.executable, "-m", "gateway.cli", "serve"]
    done = subprocess.run(
        argv, env=house.running.env | {"GRAFTLINE_PORT": str(free_port())}, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert "quota_ledger_in_use" in done.stdout


@contextlib.contextmanager
def database_away(home: Path) -> Iterator[None]:
    """Nobody else can begin to read or write `control.db`: its readers' and writer's locks are ours."""
    with (home / "control.db-shm").open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 8, 120)
        yield
        fcntl.lockf(file, fcntl.LOCK_UN, 8, 120)


def test_the_database_may_go_away(house: House) -> None:
    with database_away(house.running.home):
        eventually(lambda: "control_database_away" in str(house.ready()["alarms"]), timeout_s=20)
        assert house.ready()["status"] == "degraded"
        answers = [house.chat() for _ in range(5)]
        assert {a.status_code for a in answers} == {200}
        with house.client() as client:
            assert client.get("/v1/models").status_code == 200
            made = client.post("/v1/keys", json={"name": "x"}, timeout=30)
        assert made.status_code == 503
        assert isinstance(made.json()["error"]["code"], str)
    eventually(lambda: house.ready()["alarms"] == [], timeout_s=20)
    house.record(answers[-1].headers["x-request-id"])


def test_a_snapshot_that_is_too_old_vouches_for_no_key() -> None:
    with stack(snapshot_age_max_s="1") as running:
        house = open_house(running, engines=1)
        with database_away(running.home):
            eventually(lambda: house.chat().status_code == 503, timeout_s=20)
            answer = house.chat()
            assert answer.json()["error"]["code"] == "control_state_stale"
            assert house.ready()["status"] == "unready"
        eventually(lambda: house.chat().status_code == 200, timeout_s=20)


def test_the_disk_may_be_full(tmp_path: Path) -> None:
    spool = tmp_path / "home" / "spool"
    spool.mkdir(parents=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(spool)], capture_output=True)
    if done.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        with stack(outbox_records_max="20", home=str(tmp_path / "home")) as running:
            _fill(open_without_worker(running, tmp_path / "home"), spool)
    finally:
        subprocess.run(["umount", "-l", str(spool)], check=True)


def open_without_worker(running: Any, home: Path) -> House:
    url = scripted(running, "engine", port=free_port(), model=BASE)
    running.env["GRAFTLINE_ENGINE_URLS"] = url
    running.home = home
    house = _without_engine(running)
    eventually(lambda: house.ready()["status"] == "ready")
    return house


def _fill(house: House, spool: Path) -> None:
    answers = [house.chat("word " * 100) for _ in range(80)]
    assert {a.status_code for a in answers} == {200}
    eventually(lambda: "records_dropped" in str(house.ready()["alarms"]))
    assert "spool_refused" in str(house.ready()["alarms"])
    assert house.ready()["status"] == "degraded"
    assert eventually(lambda: house.metric("graftline_records_dropped_total")) > 0
    assert house.metric("graftline_spool_errors_total") > 0
    subprocess.run(["mount", "-o", "remount,size=64m", str(spool)], check=True)
    eventually(lambda: "spool_refused" not in str(house.ready()["alarms"]))
    from monitoring.records.ingest import Ingester
    from monitoring.records.store import MemoryRecords

    store = MemoryRecords()
    Ingester(spool, store).step()
    kept = store.count()
    assert kept + house.metric("graftline_records_dropped_total") == 80
    assert kept >= 20


def test_streams_end_before_the_process_does() -> None:
    with stack(drain_timeout_s="10") as running:
        house = open_house(running, engines=1)
        with (
            house.client() as client,
            client.stream("POST", CHAT, json=asked("[[tokens:15]] [[pace:0.1]]", stream=True)) as answer,
        ):
            running.processes["gateway"].terminate()
            text = answer.read().decode()
            request_id = answer.headers["x-request-id"]
        assert events(text)[-1] == "[DONE]"
        assert running.processes.pop("gateway").wait(20) == 0
        assert house.record(request_id).status == 200
