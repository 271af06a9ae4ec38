"""The review queue over HTTP and by the CLI: from a client's answer to a reviewer's word in the records."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from monitoring.records.sql import SqlRecords
from tests.e2e.houses import House, eventually
from tests.e2e.verbs import graftline

pytestmark = pytest.mark.slow


@pytest.fixture
def key(house: House, request: pytest.FixtureRequest) -> str:
    """An engineer's, in a tenant of its own."""
    tenant = f"review-{zlib.crc32(request.node.name.encode())}"
    return house.new_key(tenant=tenant, name="ann", roles=["user", "engineer"])[0]


def served(house: House, key: str, *texts: str, **fields: Any) -> list[str]:
    """The ids of answers whose records have arrived."""
    answers = [house.chat(text, key=key, **fields) for text in texts]
    for answer in answers:
        house.record(answer.headers["x-request-id"])
    return [str(answer.json()["id"]) for answer in answers]


def post(house: House, key: str, path: str, **body: Any) -> httpx.Response:
    with house.client(key) as client:
        return client.post(f"/v1/review/{path}", json=body)


def said(house: House, target: str) -> dict[str, Any]:
    found = SqlRecords(house.running.home / "records").feedback(target=target)
    return {word.kind: word.text or word.value for word in found if word.rater_kind == "reviewer"}


def test_an_answer_is_picked_shown_labelled_and_becomes_feedback(house: House, key: str) -> None:
    (completion,) = served(house, key, "why is the sky blue?")
    picked = post(house, key, "picks", by="query", query={"model": "tidewell"})
    assert picked.status_code == 201, picked.text
    assert [task["completions"] for task in picked.json()["data"]] == [[completion]]
    claim = post(house, key, "next").json()
    assert "why is the sky blue?" in claim["prompt"]
    assert claim["answer"]
    task = claim["task"]["id"]
    assert post(house, key, "next").json()["task"] is None
    assert post(house, key, f"{task}/answer").json()["error"]["code"] == "bad_answer"
    done = post(house, key, f"{task}/answer", thumbs=1, comment="fine, ann@example.com", scalars={"tone": 4})
    assert done.status_code == 200, done.text
    assert done.json()["done"] is True
    twice = post(house, key, f"{task}/answer", thumbs=1)
    assert (twice.status_code, twice.json()["error"]["code"]) == (409, "already_answered")
    assert eventually(lambda: said(house, completion)) == {"thumbs": 1.0, "comment": "fine, [EMAIL]", "scalar": 4.0}


def test_roles_and_tenants_are_kept_apart(house: House, key: str) -> None:
    served(house, key, "hello")
    task = post(house, key, "picks", by="query").json()["data"][0]["id"]
    user, auditor, other = (
        house.new_key(tenant="elsewhere", roles=[role])[0] for role in ("user", "auditor", "engineer")
    )
    for path, body in (("picks", {"by": "query"}), ("next", {}), (f"{task}/skip", {})):
        for secret in (user, auditor):
            assert post(house, secret, path, **body).status_code == 403
    with house.client(user) as client:
        assert client.get("/v1/review").status_code == 403
    with house.client(auditor) as client:
        assert client.get("/v1/review").json()["data"] == []
    for secret in (other,):
        assert post(house, secret, "next").json()["task"] is None
        assert post(house, secret, f"{task}/answer", thumbs=1).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("picks", {"by": "luck"}, 400),
        ("picks", {"by": "query", "n": 0}, 400),
        ("picks", {"by": "query", "colour": "red"}, 400),
        ("picks", {"by": "query", "query": {"since": 5, "until": 4}}, 400),
        ("picks", {"by": "query", "query": {"completions": ["chatcmpl-none"]}}, 404),
        ("next", {"reviewer": "a\0b"}, 400),
        ("nowhere/answer", {"thumbs": 1}, 404),
        ("nowhere/answer", {"thumbs": 3}, 400),
        ("nowhere/answer", {"scalars": {"a": "4"}}, 400),
        ("import", {"data": 1}, 400),
    ],
)
def test_what_cannot_be_is_refused_with_a_type(house: House, path: str, body: dict[str, Any], status: int) -> None:
    found = post(house, house.key, path, **body)
    assert found.status_code == status, found.text
    assert found.json()["error"]["code"]


def test_numbers_that_are_none_and_bodies_that_are_too_large_are_refused(house: House, key: str) -> None:
    with house.client(key) as client:
        nan = client.post(
            "/v1/review/x/answer", content=b'{"scalars":{"a":NaN}}', headers={"content-type": "application/json"}
        )
        large = client.post("/v1/review/import", content=b"[" + b" " * (1 << 20) + b"]")
    assert (nan.status_code, large.status_code) == (400, 413)


def test_a_task_goes_to_label_studio_and_its_labels_come_back(house: House, key: str) -> None:
    completions = served(house, key, "one", "two")
    post(house, key, "picks", by="query")
    with house.client(key) as client:
        file = client.get("/v1/review/export").json()
        assert {task["data"]["kind"] for task in file} == {"label"}
        for task in file:
            result = {"id": "z", "from_name": "correction", "type": "textarea", "value": {"text": ["better"]}}
            task["annotations"] = [{"completed_by": 3, "result": [result]}]
        taken = client.post("/v1/review/import", json=file)
        assert taken.json() == {"object": "review.import", "answers": 2, "known": 0, "tasks": 2}
        assert client.post("/v1/review/import", json=file).json()["known"] == 2
        assert client.get("/v1/review").json()["data"] == []
        assert len(client.get("/v1/review", params={"state": "done"}).json()["data"]) == 2
        assert client.get("/v1/review/agreement").json()["answers"] == 2
    for completion in completions:
        assert eventually(lambda: said(house, completion)) == {"correction": "better"}  # noqa: B023


def test_the_cli_does_all_of_it_too(house: House, key: str, tmp_path: Path) -> None:
    home = house.running.home
    tenant = house.record(house.chat("cli?", key=key).headers["x-request-id"]).tenant
    mine = ("--tenant", tenant)

    def review(*args: str) -> str:
        done = graftline(home, "review", *args, *mine)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "looked at 1 records" in review("pick", "--by", "query", "--dry-run")
    task = review("pick", "--by", "query", "--overlap", "2").split("│")[1].strip()
    assert "cli?" in review("next", "--reviewer", "ann")
    review("answer", task, "--reviewer", "ann", "--thumbs", "down", "--scalar", "tone=2")
    assert task in review("next", "--reviewer", "bob")
    review("skip", task, "--reviewer", "bob")
    assert "1 of 2" in review("list")
    assert "Krippendorff" in review("agreement")
    file = tmp_path / "out.json"
    review("export", str(file))
    assert "<View>" in file.with_suffix(".xml").read_text()
    (out,) = json.loads(file.read_text())
    out["annotations"][0]["graftline_reviewer"] = "eve"
    file.write_text(json.dumps([out]))
    assert "1 answers on 1 tasks" in review("import", str(file))
    assert "nothing waits" in review("next", "--reviewer", "joe")
    wrong = graftline(home, "review", "answer", task, "--thumbs", "up", *mine)
    assert wrong.returncode == 1
    assert "claim_lost" in wrong.stdout
    assert graftline(home, "review", "pick", "-n", "0", *mine).returncode == 2


def test_the_cli_works_at_a_gateway_elsewhere(house: House, key: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(key)
    served(house, key, "from afar")

    def review(*args: str) -> str:
        there = ("--url", house.url, "--key-file", str(tmp_path / "key"))
        done = graftline(tmp_path, "review", *args, *there)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "looked at 1 records" in review("pick")
    claim = json.loads(review("next", "--reviewer", "ann", "--json"))
    assert "from afar" in claim["prompt"]
    review("answer", claim["task"]["id"], "--reviewer", "ann", "--thumbs", "up", "--scalar", "tone=1.5")
    assert json.loads(review("list", "--state", "done", "--json"))["data"][0]["answered"] == 1
    assert json.loads(review("agreement", "--json"))["answers"] == 1
    file = tmp_path / "out.json"
    assert "1 tasks in" in review("export", str(file))
    assert "0 answers on 0 tasks; 1 were known" in review("import", str(file))
