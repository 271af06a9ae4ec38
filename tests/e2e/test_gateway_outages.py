"""What a gateway does without its database, its disk or its engines, beside a twin, and at its end."""

from __future__ import annotations

import contextlib
import fcntl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtests.stack import free_port, make_key, scripted, stack, wait_for
from monitoring.records.ingest import Ingester
from monitoring.records.store import MemoryRecords
from tests.e2e.houses import BASE, House, asked, events, eventually, open_house, start_gateway

pytestmark = pytest.mark.slow
CHAT = "/v1/chat/completions"


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
    house = start_gateway(running)
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
