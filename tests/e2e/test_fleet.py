"""The fleet with real processes: an engine restarted empty, a worker killed at work, two workers, files deleted."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.stack import scripted, stack
from tests.e2e.houses import BASE, House, eventually, open_house, worker
from tests.e2e.verbs import verb
from tests.engines import tiny_adapter

pytestmark = pytest.mark.slow


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with stack(source_folders=str(tmp_path), probe="off") as running:
        found = open_house(running, engines=2)
        eventually(lambda: list(found.ready()["engines"].values()) == ["up", "up"])
        yield found


def held(house: House) -> list[int]:
    return [len(house.script(n)["adapters"]) for n in range(2)]


def test_an_engine_that_comes_back_empty_gets_everything_again_before_it_serves(house: House, tmp_path: Path) -> None:
    for n in range(5):
        house.register(f"many-{n}", tmp_path / str(n), seed=n)
    eventually(lambda: held(house) == [5, 5])
    port = int(house.engines[0].rpartition(":")[2])
    house.running.kill("engine-0")
    eventually(lambda: house.ready()["engines"]["engine-0"] == "down")
    assert all(house.chat(model=f"many-{n}").status_code == 200 for n in range(5))
    scripted(house.running, "engine-0", port=port, model=BASE)
    eventually(lambda: held(house) == [5, 5])
    assert house.metric('graftline_adapter_load_stall_seconds_count{replica="engine-0"}') == 10


def test_a_worker_killed_in_the_middle_is_followed_by_another_that_finishes(house: House, tmp_path: Path) -> None:
    house.script(0, load_s=0.5)
    folder = tiny_adapter(tmp_path / "one")
    with house.client() as client:
        asked = {"name": "support", "source": str(folder), "unprobed": True, "wait_s": 0}
        assert client.post("/v1/adapters", json=asked).status_code in (201, 202)
        house.running.kill("worker")
        worker(house.running)
        eventually(lambda: client.get("/v1/adapters/support/1").json()["state"] == "verified", timeout_s=20)
    eventually(lambda: house.chat(model="support").status_code == 200)


def test_of_two_workers_one_runs_the_fleet_and_the_other_takes_over(house: House, tmp_path: Path) -> None:
    second = house.running.start("second", [sys.executable, "-m", "gateway.cli", "work"])
    eventually(lambda: "another worker is on duty" in house.running.log("second"), timeout_s=30)
    house.register("first", tmp_path / "1", seed=1)
    assert "on duty for the fleet" in house.running.log("worker")
    assert "verified first:1" not in house.running.log("second")
    house.running.stop("worker")
    house.register("second", tmp_path / "2", seed=2)
    assert "verified second:1" in house.running.log("second")
    assert second.poll() is None


def test_files_deleted_behind_our_back_are_reported_while_the_version_serves_on(house: House, tmp_path: Path) -> None:
    house.register("support", tmp_path / "1", seed=1)
    (artifact,) = [path for path in (house.running.home / "artifacts").iterdir() if not path.name.startswith(".")]
    artifact.chmod(0o755)
    shutil.rmtree(artifact)
    eventually(lambda: house.metric("graftline_adapters_damaged") == 1)
    assert house.chat(model="support").status_code == 200
    house.script(0, forget=True)
    house.script(1, forget=True)
    eventually(lambda: house.chat(model="support").status_code != 200)
    again = ("register", str(tmp_path / "1"), "--name", "support", "--unprobed")
    assert verb(house.running.env, "adapters", *again).returncode == 0
    eventually(lambda: house.chat(model="support").status_code == 200, timeout_s=30)
    eventually(lambda: house.metric("graftline_adapters_damaged") == 0)
