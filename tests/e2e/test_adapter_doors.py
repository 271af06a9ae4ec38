"""How adapters come in and go out, over HTTP and by the CLI: looked at first, from elsewhere, taken out again."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.artifacts import digest_folder
from loadtests.stack import stack
from tests.e2e.houses import House, eventually, start_gateway
from tests.e2e.outside import FakeHub, Repo, Shelf, fake_hub, web_host
from tests.e2e.verbs import verb
from tests.engines import tiny_adapter

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shelf() -> Iterator[Shelf]:
    with web_host() as running:
        yield running


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with fake_hub() as running:
        yield running


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory, shelf: Shelf, hub: FakeHub) -> Iterator[House]:
    """A gateway without worker and engine: what is registered stays as it was checked."""
    roots = str(tmp_path_factory.getbasetemp())
    with stack(source_folders=roots, source_hosts=shelf.host, hub_endpoint=hub.url) as running:
        yield start_gateway(running)


def cli(house: House, *args: str) -> subprocess.CompletedProcess[str]:
    return verb({**house.running.env, "COLUMNS": "200"}, "adapters", *args)


def post(house: House, **body: Any) -> Any:
    with house.client() as client:
        answer = client.post("/v1/adapters", json={"wait_s": 0, **body})
    assert answer.status_code in (200, 202), answer.text
    return answer.json()


def packed(folder: Path) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as archive:
        archive.add(folder, arcname=".")
    return whole.getvalue()


def rows(house: House) -> int:
    with house.client() as client:
        return len(client.get("/v1/adapters").json()["data"])


def stored(house: House) -> list[str]:
    return sorted(os.listdir(house.running.home / "artifacts")) if (house.running.home / "artifacts").is_dir() else []


def test_a_dry_run_reports_everything_and_stores_nothing(door: House, tmp_path: Path) -> None:
    folder = tiny_adapter(tmp_path / "a", seed=100)
    (folder / "graftline.json").write_text('{"stop": ["END"]}')
    before = rows(door), stored(door), door.ready()["snapshot"]["revision"]
    by_name = post(door, name="dry", source=str(folder), check=True)
    with door.client() as client:
        files = {"file": ("a.tgz", packed(folder))}
        answer = client.post("/v1/adapters", files=files, data={"name": "dry", "check": "true"})
    assert answer.status_code == 200
    assert answer.json() == by_name
    assert by_name["object"] == "adapter.check"
    assert by_name["digest"] == digest_folder(folder)
    assert (by_name["rank"], by_name["alpha"], by_name["coverage"]) == (4, 8, "8 of 28 modules")
    assert by_name["carried"] == {"stop": ["END"]}
    assert by_name["bytes"] == sum(path.stat().st_size for path in folder.iterdir())
    by_cli = cli(door, "register", str(folder), "--name", "dry", "--check")
    assert by_cli.returncode == 0, by_cli.stdout
    assert by_name["digest"] in by_cli.stdout
    assert (rows(door), stored(door), door.ready()["snapshot"]["revision"]) == before


def test_a_dry_run_refuses_what_registration_would_refuse_in_the_same_words(door: House, tmp_path: Path) -> None:
    folder = tiny_adapter(tmp_path / "a")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    (folder / "graftline.json").write_text('{"sampling": {"temperature": 9}, "prompt": 1}')
    answers = []
    with door.client() as client:
        for check in (True, False):
            answer = client.post("/v1/adapters", json={"name": "bad", "source": str(folder), "check": check})
            assert answer.status_code == 422
            answers.append(answer.json()["error"])
    assert answers[0] == answers[1]
    assert {"unsupported_feature", "unknown_field", "bad_value"} <= {reason["code"] for reason in answers[0]["reasons"]}
    by_cli = cli(door, "register", str(folder), "--name", "bad", "--check")
    assert by_cli.returncode == 1
    assert "adapter_rejected" in by_cli.stdout


def test_sources_over_http_are_the_same_strings_and_their_origin_is_told(
    door: House, tmp_path: Path, shelf: Shelf, hub: FakeHub
) -> None:
    folder = tiny_adapter(tmp_path / "a", seed=101)
    shelf.files["/a.tgz"] = packed(folder)
    hub.repos["org/a"] = Repo()
    sha = hub.repos["org/a"].commit({path.name: path.read_bytes() for path in folder.iterdir()})
    assert post(door, name="fromweb", source=f"{shelf.url}/a.tgz?token=hidden")["source"] == f"{shelf.url}/a.tgz"
    assert post(door, name="fromhub", source="hub:org/a")["source"] == f"hub:org/a@{sha}"
    assert post(door, name="fromfolder", source=f"file://{folder}")["source"] == "folder"
    with door.client() as client:
        assert "hidden" not in client.get("/v1/adapters/fromweb/audit").text
    assert cli(door, "register", "hub:org/a", "--name", "again", "--wait-s", "0").returncode == 2  # nothing proves it
    with door.client() as client:
        assert client.get("/v1/adapters/again/1").json()["source"] == f"hub:org/a@{sha}"


@pytest.mark.parametrize(
    ("source", "status", "code"),
    [
        ("/etc", 400, "source_refused"),
        ("s3://models/a", 400, "source_refused"),
        ("http://127.0.0.1:1/a", 400, "source_refused"),
        ("http://169.254.169.254/latest", 400, "source_refused"),
        ("hub:org/none", 400, "bad_source"),
        ("gopher://x", 400, "bad_source"),
        ("", 400, "invalid_value"),
    ],
)
def test_a_source_that_is_not_taken_is_a_typed_error(door: House, source: str, status: int, code: str) -> None:
    with door.client() as client:
        answer = client.post("/v1/adapters", json={"name": "x", "source": source})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, "source")


@pytest.mark.parametrize(
    "data",
    [
        {"name": "x", "check": "maybe"},
        {"name": "x", "carried": "{"},
        {"name": "x", "source": "/a"},
        {"name": "x", "o": "1"},
    ],
)
def test_a_part_that_cannot_be_used_is_named(door: House, data: dict[str, str]) -> None:
    with door.client() as client:
        answer = client.post("/v1/adapters", files={"file": ("a.tgz", b"x")}, data=data)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] in data


def test_what_is_carried_is_written_into_our_copy_and_never_into_the_senders_folder(
    door: House, tmp_path: Path
) -> None:
    folder = tiny_adapter(tmp_path / "a", seed=102)
    plain = post(door, name="carrier", source=str(folder))
    wanted = {"system": "Be brief.", "sampling": {"temperature": 0.5}, "stop": ["END"]}
    made = post(door, name="carrier", source=str(folder), carried=wanted)
    assert made["carried"] == wanted
    assert made["digest"] != plain["digest"]
    assert not (folder / "graftline.json").exists()
    (tmp_path / "system.txt").write_text("Be brief.")
    said = ["--system-file", str(tmp_path / "system.txt"), "--sampling", '{"temperature": 0.5}', "--stop", "END"]
    by_cli = cli(door, "register", str(folder), "--name", "carrier", "--check", *said)
    assert made["digest"] in by_cli.stdout, by_cli.stdout
    with door.client() as client:
        odd = {"name": "carrier", "source": str(folder), "carried": {"sampling": {"logit_bias": 1}}}
        assert client.post("/v1/adapters", json=odd).status_code == 422
        diff = client.get("/v1/adapters/carrier/diff", params={"from": 1, "to": 2}).json()
    assert {change["field"] for change in diff["carried"]} == {
        "graftline.json: stop",
        "graftline.json: system",
        "graftline.json: temperature",
    }
    assert {module["kind"] for module in diff["modules"]} == {"same"}


def test_two_versions_are_compared_by_cli_and_api(door: House, tmp_path: Path) -> None:
    post(door, name="moved", source=str(tiny_adapter(tmp_path / "a", seed=103)))
    post(door, name="moved", source=str(tiny_adapter(tmp_path / "b", seed=104, rank=8)))
    with door.client() as client:
        found = client.get("/v1/adapters/moved/diff", params={"from": 1, "to": 2}).json()
        assert client.get("/v1/adapters/moved/diff", params={"from": 1, "to": 9}).status_code == 404
        assert client.get("/v1/adapters/moved/diff").status_code == 400
    assert {change["field"] for change in found["config"]} == {"lora_alpha", "r"}
    sizes = [module["change"] for module in found["modules"]]
    assert len(sizes) == 8
    assert sizes == sorted(sizes, reverse=True)
    assert all(0.5 < size < 1.5 for size in sizes)
    shown = cli(door, "diff", "moved:1", "moved:2")
    assert shown.returncode == 0
    assert found["modules"][0]["module"] in shown.stdout


def test_what_is_taken_out_by_api_or_cli_comes_back_as_it_was(door: House, tmp_path: Path, hub: FakeHub) -> None:
    folder = tiny_adapter(tmp_path / "a", seed=105)
    made = post(door, name="leaver", source=str(folder))
    with door.client() as client:
        answer = client.get("/v1/adapters/leaver/1/download")
        assert answer.status_code == 200
        assert client.get("/v1/adapters/leaver/7/download").status_code == 404
        back = client.post("/v1/adapters", files={"file": ("a", answer.content)}, data={"name": "back", "wait_s": "0"})
        assert back.json()["digest"] == made["digest"], back.text
        assert client.post("/v1/adapters/leaver/1/verify").json()["intact"] is True
        seen = client.get("/v1/adapters/leaver/1").json()["evidence"]
    assert [found["kind"] for found in seen] == ["static"]
    out = tmp_path / "out"
    assert cli(door, "export", "leaver:1", str(out), "--dry-run").returncode == 0
    assert not out.exists()
    done = cli(door, "export", "leaver:1", str(out))
    assert done.returncode == 0, done.stdout
    assert {path.name: path.read_bytes() for path in folder.iterdir()}.items() <= {
        path.name: path.read_bytes() for path in out.iterdir()
    }.items()
    assert post(door, name="leaver", source=str(out))["number"] == 1
    again = cli(door, "export", "leaver:1", str(out))
    assert again.returncode == 1
    assert "bad_export" in again.stdout
    assert cli(door, "export", "leaver:1", "hub:org/leaver").returncode == 0
    assert post(door, name="leaver", source="hub:org/leaver")["digest"] == made["digest"]
    assert "is intact" in cli(door, "verify", "leaver:1").stdout


def test_a_folder_is_sent_to_a_gateway_elsewhere_while_it_is_packed(door: House, tmp_path: Path) -> None:
    folder = tiny_adapter(tmp_path / "a", seed=106)
    key = tmp_path / "key"
    key.write_text(door.key + "\n")
    there = ["--to", door.url, "--key-file", str(key), "--wait-s", "0"]
    looked = cli(door, "register", str(folder), "--name", "sent", "--check", *there)
    assert looked.returncode == 0, looked.stdout + looked.stderr
    assert digest_folder(folder) in looked.stdout
    sent = cli(door, "register", str(folder), "--name", "sent", "--note", "as ünïcode", *there)
    assert sent.returncode == 2, sent.stdout + sent.stderr  # registered; nothing here proves it
    with door.client() as client:
        version = client.get("/v1/adapters/sent/1").json()
    assert (version["digest"], version["note"], version["source"]) == (digest_folder(folder), "as ünïcode", "archive")
    (tmp_path / "a.tgz").write_bytes(packed(folder))
    assert "sent:1" in cli(door, "register", str(tmp_path / "a.tgz"), "--name", "sent", *there).stdout
    assert "source_refused" in cli(door, "register", "s3://models/a", "--name", "sent", *there).stdout
    key.write_text("gl-wrong")
    refused = cli(door, "register", str(folder), "--name", "sent", *there)
    assert refused.returncode == 1
    assert "error (" in refused.stdout
    away = cli(door, "register", str(folder), "--name", "sent", "--to", "http://127.0.0.1:1", "--key-file", str(key))
    assert "gateway_away" in away.stdout


def test_requests_get_what_the_version_carries_beneath_their_own_values(house: House, tmp_path: Path) -> None:
    folder = tiny_adapter(tmp_path / "a", seed=107)
    carried = {"system": "Be brief.", "sampling": {"temperature": 0.25}, "stop": ["END"]}
    with house.client() as client:
        body = {"name": "voiced", "source": str(folder), "carried": carried, "unprobed": True, "wait_s": 20}
        made = client.post("/v1/adapters", json=body)
    assert made.status_code == 201, made.text
    eventually(lambda: house.chat(model="voiced").status_code == 200)
    sent = house.script()["last"]["body"]
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (sent["temperature"], sent["stop"]) == (0.25, ["END"])
    assert house.chat(model="voiced", temperature=1, stop="MINE").status_code == 200
    sent = house.script()["last"]["body"]
    assert (sent["temperature"], sent["stop"]) == (1, "MINE")
    assert house.chat(model="voiced:1").status_code == 200
    assert house.script()["last"]["body"]["temperature"] == 0.25


def test_an_alias_is_pinned_and_let_go_by_api_and_cli(house: House, tmp_path: Path) -> None:
    folder = tiny_adapter(tmp_path / "a", seed=108)
    with house.client() as client:
        body = {"name": "guard", "source": str(folder), "unprobed": True, "wait_s": 20}
        assert client.post("/v1/adapters", json=body).status_code == 201
        pinned = client.post("/v1/adapters/guard/pin", json={"why": "a guard never waits"})
        assert (pinned.status_code, pinned.json()["pinned"]) == (200, True)
        assert client.post("/v1/adapters/none/pin", json={}).status_code == 404
        assert cli(house, "unpin", "guard", "--why", "enough").returncode == 0
        aliases = client.get("/v1/adapters", params={"name": "guard"}).json()["aliases"]
        assert [alias["pinned"] for alias in aliases] == [False]
        whys = [row["why"] for row in client.get("/v1/adapters/guard/audit").json()["data"]]
    assert {"a guard never waits", "enough"} <= set(whys)
    foreseen = cli(house, "promote", "guard", "1", "--dry-run")
    assert "would point guard@live → 1 (now 1)" in foreseen.stdout
    assert cli(house, "show", "nobody").returncode != 0
    shown = cli(house, "show", "guard")
    assert "static" in shown.stdout
