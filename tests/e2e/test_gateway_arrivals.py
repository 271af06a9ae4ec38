"""Many adapters that arrive slowly, and one that went: the rest of the gateway does not wait, and says what it does."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from gateway.api.control.caller import ARRIVALS_MAX
from loadtests.stack import stack
from tests.e2e.houses import eventually, open_house, start_gateway
from tests.e2e.outside import web_host

pytestmark = pytest.mark.slow

#: More than all routes together have threads.
SLOW = 60


def test_slow_sources_do_not_keep_other_routes_from_their_threads() -> None:
    with web_host() as shelf, stack(source_hosts=shelf.host, source_timeout_s="4") as running:
        house = start_gateway(running)

        def slow(number: int) -> tuple[int, str]:
            with house.client() as client:
                asked = {"name": f"slow{number}", "source": f"{shelf.url}/slow", "unprobed": True, "wait_s": 0}
                answer = client.post("/v1/adapters", json=asked)
            return answer.status_code, str(answer.json()["error"]["code"])

        with ThreadPoolExecutor(SLOW) as pool:
            asked = [pool.submit(slow, number) for number in range(SLOW)]
            eventually(lambda: len(shelf.asked) >= ARRIVALS_MAX)
            began = time.monotonic()
            with house.client() as client:
                assert client.get("/v1/adapters").status_code == 200
            assert time.monotonic() - began < 2
            found = [each.result() for each in asked]
        assert set(found) == {(502, "source_unavailable"), (503, "no_capacity")}
        assert len(shelf.asked) < SLOW / 2


def test_what_stands_in_for_an_adapter_is_told_after_a_second_try_too(tmp_path: Path) -> None:
    with stack(source_folders=str(tmp_path), probe="off") as running:
        house = open_house(running, engines=2)
        eventually(lambda: list(house.ready()["engines"].values()) == ["up", "up"])
        house.register("choosy", tmp_path / "a", seed=13)
        two = house.register("choosy", tmp_path / "b", seed=14)
        with house.client() as client:
            told = {"number": 2, "on_unavailable": "previous"}
            assert client.post("/v1/adapters/choosy/promote", json=told).status_code == 200
        eventually(lambda: house.chat(model="choosy").headers["x-graftline-adapter"].startswith("choosy:2@"))
        running.stop("worker")
        gone = {"lora_name": f"choosy@{two['digest'].removeprefix('sha256:')[:16]}"}
        for engine in house.engines:
            httpx.post(f"{engine}/v1/unload_lora_adapter", json=gone, trust_env=False).raise_for_status()
        house.chat(model="choosy")
        for number in range(2):
            house.script(number, next=["[[error:0]]"])
            answer = house.chat(model="choosy")
            assert answer.status_code == 200
            assert answer.headers["x-graftline-adapter"].startswith("choosy:1@")
            assert answer.headers["x-graftline-fallback"] == "previous"
            house.script(number, next=[])
