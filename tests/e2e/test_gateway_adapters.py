"""Adapters over HTTP, from the folder to the answer: registered, proved, promoted, rolled back, retired."""

from __future__ import annotations

import io
import json
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadtests.stack import scripted, stack
from tests.e2e.houses import BASE, House, eventually, open_house, worker
from tests.engines import tiny_adapter

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shelter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house whose engine may be made to forget."""
    with stack(source_folders=str(tmp_path_factory.getbasetemp()), adapter_wait_s="5") as running:
        yield open_house(running, engines=1)


def point(house: House, name: str, number: int, **fields: Any) -> None:
    """Promote, and wait until requests go there."""
    with house.client() as client:
        moved = client.post(f"/v1/adapters/{name}/promote", json={"number": number, **fields})
    assert moved.status_code == 200, moved.text
    eventually(lambda: made_by(house, f"{name}@{fields.get('alias', 'live')}") == f"{name}:{number}")


def made_by(house: House, model: str) -> str:
    answer = house.chat(model=model)
    return answer.headers.get("x-graftline-adapter", "").partition("@")[0] if answer.status_code == 200 else answer.text


def test_the_first_version_goes_live_and_the_next_becomes_its_candidate(house: House, tmp_path: Path) -> None:
    first = house.register("support", tmp_path / "a", seed=1)
    assert first["state"] == "verified"
    answer = house.chat(model="support")
    assert answer.headers["x-graftline-adapter"] == f"support:1@{first['digest']}"
    assert answer.json()["model"] == "support"
    assert answer.json()["choices"][0]["message"]["content"].startswith("support")

    second = house.register("support", tmp_path / "b", seed=2)
    assert second["number"] == 2
    assert made_by(house, "support") == "support:1"
    eventually(lambda: made_by(house, "support@candidate") == "support:2")
    point(house, "support", 2)
    assert made_by(house, "support:1") == "support:1"
    with house.client() as client:
        assert client.post("/v1/adapters/support/rollback", json={"why": "test"}).json()["number"] == 1
    eventually(lambda: made_by(house, "support") == "support:1")


def test_the_same_bytes_again_are_the_same_version(house: House, tmp_path: Path) -> None:
    first = house.register("twice", tmp_path / "a", seed=3)
    again = house.register("twice", tmp_path / "a", seed=3)
    assert (again["number"], again["digest"]) == (first["number"], first["digest"])


def test_every_chunk_of_a_stream_names_the_model_as_asked(house: House, tmp_path: Path) -> None:
    house.register("named", tmp_path / "a", seed=4)
    for model in ("named", "named@live", "named:1"):
        found = house.stream("hello [[split]]", model=model, stream_options={"include_usage": True})
        assert {event["model"] for event in found[:-1]} == {model}
        assert "@" not in json.dumps(found) or model == "named@live"
    assert house.script()["last"]["body"]["model"].startswith("named@")


def test_tenants_and_versions_never_share_a_cache(house: House, tmp_path: Path) -> None:
    house.register("salted", tmp_path / "a", seed=5)
    other, _ = house.new_key(tenant="other")
    salts = []
    for key in (house.key, other):
        for model in (BASE, "salted"):
            assert house.chat(model=model, key=key).status_code == 200
            salts.append(house.script()["last"]["body"]["cache_salt"])
    assert len(set(salts)) == 4


def test_an_archive_is_registered_too(house: House, tmp_path: Path) -> None:
    folder = tiny_adapter(tmp_path / "a", seed=6)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(folder, arcname=".")
    with house.client() as client:
        files = {"file": ("a.tar.gz", packed.getvalue())}
        made = client.post("/v1/adapters", files=files, data={"name": "packed", "wait_s": "20", "unprobed": "true"})
        assert made.status_code == 201, made.text
        odd = client.post("/v1/adapters", files=files, data={"name": "packed", "wait_s": "²"})
        assert odd.status_code == 400
        torn = client.post("/v1/adapters", files={"file": ("a.tgz", packed.getvalue()[:200])}, data={"name": "torn"})
        assert torn.status_code == 400
        assert torn.json()["error"]["code"] == "bad_archive"


@pytest.mark.parametrize("source", ["/etc", "/", "relative/folder", "file:///root", "{base}/../../../etc"])
def test_a_source_must_lie_below_an_allowed_folder(house: House, source: str, tmp_path: Path) -> None:
    with house.client() as client:
        body = {"name": "x", "source": source.format(base=tmp_path)}
        answer = client.post("/v1/adapters", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "source"


def test_a_broken_adapter_is_refused_with_every_reason(house: House, tmp_path: Path) -> None:
    folder = tiny_adapter(tmp_path / "a")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True, "bias": "all"}))
    with house.client() as client:
        answer = client.post("/v1/adapters", json={"name": "broken", "source": str(folder), "unprobed": True})
    assert answer.status_code == 422
    found = answer.json()["error"]
    assert found["code"] == "adapter_rejected"
    assert len(found["reasons"]) >= 2
    assert {"code", "field", "found", "allowed", "advice"} <= set(found["reasons"][0])


def test_an_adapter_whose_numbers_are_not_finite_is_rejected_by_its_first_forward(house: House, tmp_path: Path) -> None:
    source = {"name": "nan", "source": str(tiny_adapter(tmp_path / "a", seed=7)), "unprobed": True, "wait_s": 20}
    house.script(contained=True)  # or the only engine would be out for good, and every test after this one with it
    with house.client() as client:
        first = client.post("/v1/adapters", json=source).json()
        house.script(nan=[f"nan@{first['digest'].removeprefix('sha256:')[:16]}"])
        client.delete("/v1/models/nan")
        eventually(lambda: not any(name.startswith("nan@") for name in house.script()["adapters"]))
        answer = client.post("/v1/adapters", json=source)
        house.script(nan=[], contained=False)
        assert answer.status_code == 422, answer.text
        assert answer.json()["error"]["reasons"][0]["code"] == "not_finite"
        assert client.get("/v1/adapters/nan/2").json()["state"] == "rejected"
    assert house.chat(model="nan:2").status_code == 404
    assert not any(name.startswith("nan@") for name in house.script()["adapters"])


def test_bytes_that_were_retired_can_be_registered_at_once_again(house: House, tmp_path: Path) -> None:
    """The engine may still hold them under the same name: they are proved all the same."""
    house.register("phoenix", tmp_path / "a", seed=8)
    with house.client() as client:
        assert client.delete("/v1/models/phoenix").status_code == 200
        source = {"name": "phoenix", "source": str(tmp_path / "a"), "unprobed": True, "wait_s": 10}
        made = client.post("/v1/adapters", json=source)
    assert made.status_code == 201, made.text
    assert made.json()["number"] == 2
    eventually(lambda: made_by(house, "phoenix") == "phoenix:2")


def test_what_is_retired_is_gone_for_requests_and_then_for_the_engine(house: House, tmp_path: Path) -> None:
    made = house.register("leaver", tmp_path / "a", seed=9)
    with house.client() as client:
        held = client.delete("/v1/adapters/leaver/1")
        assert held.status_code == 409
        assert held.headers["x-should-retry"] == "false"
        assert client.delete("/v1/models/leaver").json() == {"id": "leaver", "object": "model", "deleted": True}
        eventually(lambda: house.chat(model="leaver").status_code == 404)
        name = f"leaver@{made['digest'].removeprefix('sha256:')[:16]}"
        eventually(lambda: name not in house.script()["adapters"])
        assert client.get("/v1/models/leaver").status_code == 404
        assert client.delete("/v1/models/leaver").status_code == 404
        rows = client.get("/v1/adapters/leaver/audit").json()["data"]
    assert {"at", "who", "action", "subject", "before", "after", "why"} <= set(rows[0])


def test_a_running_stream_keeps_its_version_until_it_ends(house: House, tmp_path: Path) -> None:
    made = house.register("drained", tmp_path / "a", seed=10)
    said: list[Any] = []
    running = threading.Thread(target=lambda: said.extend(house.stream("[[tokens:20]] [[pace:0.1]]", model="drained")))
    running.start()
    eventually(lambda: house.script()["running"] == 1)
    with house.client() as client:
        client.delete("/v1/models/drained")
    time.sleep(1)
    name = f"drained@{made['digest'].removeprefix('sha256:')[:16]}"
    assert name in house.script()["adapters"]
    running.join()
    assert said[-1] == "[DONE]"
    eventually(lambda: name not in house.script()["adapters"])


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("none/promote", {"number": 1}, 404, "adapter_not_found"),
        ("none/rollback", {}, 404, "adapter_not_found"),
        ("ruled/promote", {"number": 9}, 404, "adapter_not_found"),
        ("ruled/promote", {"number": 1, "expected": 7}, 409, "adapter_conflict"),
        ("ruled/promote", {"number": 1, "alias": "Not An Alias"}, 400, "bad_adapter_name"),
        ("ruled/promote", {"number": "1"}, 400, "invalid_value"),
        ("ruled/promote", {"number": 1, "on_unavailable": "maybe"}, 400, "invalid_value"),
        ("ruled/promote", {}, 400, "invalid_value"),
        ("ruled/rollback", {}, 409, "illegal_adapter_move"),
    ],
)
def test_moves_that_are_not_allowed(
    house: House, tmp_path_factory: pytest.TempPathFactory, path: str, body: dict[str, Any], status: int, code: str
) -> None:
    house.register("ruled", tmp_path_factory.getbasetemp() / "ruled", seed=11)
    with house.client() as client:
        answer = client.post(f"/v1/adapters/{path}", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_an_engine_that_forgets_gets_its_adapters_back_while_requests_wait(shelter: House, tmp_path: Path) -> None:
    shelter.register("kept", tmp_path / "a", seed=12)
    for _ in range(3):
        shelter.script(forget=True)
        answers = [shelter.chat(model="kept") for _ in range(3)]
        assert {a.status_code for a in answers} == {200}
        assert {a.headers["x-graftline-adapter"].partition("@")[0] for a in answers} == {"kept:1"}


def test_without_a_worker_a_lost_adapter_is_a_typed_failure_or_what_its_alias_declares(
    shelter: House, tmp_path: Path
) -> None:
    shelter.register("choosy", tmp_path / "a", seed=13)
    shelter.register("choosy", tmp_path / "b", seed=14)
    two = f"choosy@{shelter.register('choosy', tmp_path / 'b', seed=14)['digest'].removeprefix('sha256:')[:16]}"
    point(shelter, "choosy", 2, on_unavailable="previous")
    shelter.running.stop("worker")
    try:
        engine = shelter.engines[0]
        httpx.post(f"{engine}/v1/unload_lora_adapter", json={"lora_name": two}, trust_env=False).raise_for_status()
        answer = shelter.chat(model="choosy")
        assert answer.headers["x-graftline-fallback"] == "previous"
        assert answer.headers["x-graftline-adapter"].startswith("choosy:1@")
        assert answer.json()["model"] == "choosy"
        point_anyway(shelter, "choosy", 2, "base")
        answer = shelter.chat(model="choosy")
        assert answer.headers["x-graftline-fallback"] == "base"
        assert answer.headers["x-graftline-adapter"] == BASE
        point_anyway(shelter, "choosy", 2, "fail")
        began = time.monotonic()
        answer = shelter.chat(model="choosy")
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "adapter_unavailable"
        assert 4.5 < time.monotonic() - began < 8
        assert shelter.ready()["status"] in ("ready", "degraded")
        assert shelter.chat(model="choosy:1").status_code == 200
    finally:
        worker(shelter.running)
    eventually(lambda: made_by(shelter, "choosy") == "choosy:2")


def point_anyway(house: House, name: str, number: int, on_unavailable: str) -> None:
    """Promote to where it points, for the sake of what it declares, and wait until gateways know."""
    before = house.ready()["snapshot"]["revision"]
    with house.client() as client:
        body = {"number": number, "on_unavailable": on_unavailable}
        assert client.post(f"/v1/adapters/{name}/promote", json=body).status_code == 200
    eventually(lambda: house.ready()["snapshot"]["revision"] > before)


def test_readiness_names_the_adapters_that_are_missing(shelter: House, tmp_path: Path) -> None:
    shelter.register("missed", tmp_path / "a", seed=15)
    eventually(lambda: shelter.ready()["status"] == "ready")
    shelter.script(load_s=1.0, forget=True)
    try:
        eventually(lambda: shelter.ready()["adapters"]["missing"] != [])
        assert shelter.ready()["status"] == "degraded"
    finally:
        shelter.script(load_s=0.0)
    eventually(lambda: shelter.ready()["status"] == "ready", timeout_s=20)


def test_a_worker_killed_between_load_and_proof_leaves_nothing_half_done(tmp_path: Path) -> None:
    with stack(source_folders=str(tmp_path)) as running:
        house = open_house(running, engines=1)
        house.script(next=["[[hang]]"])  # the first probe never comes back
        with house.client() as client:
            folder = str(tiny_adapter(tmp_path / "a", seed=16))
            source = {"name": "halfway", "source": folder, "unprobed": True, "wait_s": 0}
            assert client.post("/v1/adapters", json=source).status_code == 202
            eventually(lambda: house.script()["running"] == 1)
            running.kill("worker")
            worker(running)
            eventually(lambda: client.get("/v1/adapters/halfway/1").json()["state"] == "verified")
        eventually(lambda: made_by(house, "halfway") == "halfway:1")


def test_two_engines_hold_the_same_and_one_may_die(tmp_path: Path) -> None:
    with stack(source_folders=str(tmp_path)) as running:
        house = open_house(running, engines=2)
        house.register("shared", tmp_path / "a", seed=17)
        eventually(lambda: all(house.script(i)["adapters"] for i in (0, 1)))
        running.kill("engine-0")
        for _ in range(5):
            answer = house.chat(model="shared")
            assert answer.headers["x-graftline-replica"] == "engine-1"
        port = int(house.engines[0].rpartition(":")[2])
        scripted(running, "engine-0", port=port, model=BASE)
        eventually(lambda: house.script(0)["adapters"] and house.ready()["status"] == "ready")
