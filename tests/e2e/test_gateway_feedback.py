"""Feedback as applications send it: durable when it is answered, refused by name, and silent about what others have."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from loadtests.stack import free_port, scripted, stack
from monitoring.records.events import Feedback
from monitoring.records.sql import SqlRecords
from tests.e2e.houses import BASE, House, eventually, start_gateway, worker
from tests.e2e.verbs import graftline

pytestmark = pytest.mark.slow
FEEDBACK = "/v1/feedback"


@pytest.fixture(scope="module")
def theirs(house: House) -> str:
    """A key of another tenant."""
    return house.new_key(tenant="other-tenant")[0]


def completion(house: House, **fields: Any) -> str:
    return str(house.chat(**fields).json()["id"])


def send(house: House, key: str | None = None, **said: Any) -> httpx.Response:
    with house.client(key) as client:
        return client.post(FEEDBACK, json=said)


def listed(house: House, key: str | None = None, **params: Any) -> list[dict[str, Any]]:
    with house.client(key) as client:
        answer = client.get(FEEDBACK, params=params)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def told(house: House, count: int, **params: Any) -> list[dict[str, Any]]:
    """The same, once so many are there."""
    eventually(lambda: len(listed(house, **params)) == count)
    return listed(house, **params)


def test_each_kind_is_taken_on_an_answer_and_can_be_read_again(house: House) -> None:
    target, other = completion(house), completion(house)
    said: list[dict[str, Any]] = [
        {"kind": "thumbs", "value": 1, "rater": "user-7"},
        {"kind": "scalar", "name": "stars", "value": 4.5},
        {"kind": "comment", "text": "write to ada@example.com"},
        {"kind": "correction", "text": "better so"},
        {"kind": "preference", "other": other},
        {"kind": "implicit", "name": "copied"},
        {"kind": "thumbs", "value": 0, "rater": "judge-1", "rater_kind": "judge"},
    ]
    for one in said:
        answer = send(house, target=target, **one)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert uuid.UUID(found.pop("id")).version == 7
        assert found == {"object": "feedback", "target": target, "kind": one["kind"]}
    rows = told(house, len(said), target=target)
    assert [row["kind"] for row in rows] == [one["kind"] for one in said]
    assert rows[2]["text"] == "write to [EMAIL]"
    assert (rows[0]["rater"], rows[0]["value"], rows[4]["other"]) == ("user-7", 1.0, other)
    assert rows[-1]["rater_kind"] == "judge"


def test_the_last_word_counts_the_history_is_kept_and_a_conversation_takes_feedback_too(house: House) -> None:
    talk = f"talk-{uuid.uuid4()}"
    for value in (1, -1, None):
        assert send(house, target=talk, target_kind="conversation", kind="thumbs", value=value).status_code == 200
    rows = told(house, 3, target=talk, history=True)
    assert [row["value"] for row in rows] == [1.0, -1.0, None]
    assert listed(house, target=talk) == rows[-1:]
    with house.client() as client:
        page = client.get(FEEDBACK, params={"target": talk, "history": True, "limit": 2}).json()
        assert (page["has_more"], page["last_id"]) == (True, rows[1]["id"])
        rest = client.get(FEEDBACK, params={"target": talk, "history": True, "after": page["last_id"]}).json()
    assert (rest["data"], rest["has_more"]) == (rows[2:], False)


def test_feedback_that_comes_before_its_answer_waits_for_it(house: House) -> None:
    key, _ = house.new_key(tenant="early", roles=["user", "engineer"])
    talk = f"talk-{uuid.uuid4()}"
    assert send(house, key, target=talk, target_kind="conversation", kind="thumbs", value=1).status_code == 200
    eventually(lambda: [row["target"] for row in listed(house, key, pending=True)] == [talk])
    house.chat(key=key, metadata={"conversation_id": talk})
    eventually(lambda: listed(house, key, pending=True) == [])
    assert listed(house, key, target=talk)[0]["value"] == 1


def test_a_foreign_answer_and_a_made_up_one_get_the_same_answer_byte_for_byte(house: House, theirs: str) -> None:
    known = completion(house)
    house.record(house.chat().headers["x-request-id"])
    made_up = "chatcmpl-" + "0" * (len(known) - len("chatcmpl-"))
    seen = []
    for target in (known, made_up):
        answer = send(house, theirs, target=target, kind="thumbs", value=1)
        headers = {k: v for k, v in answer.headers.items() if k not in ("x-request-id", "date")}
        body = answer.content.replace(answer.json()["id"].encode(), b"ID").replace(target.encode(), b"TARGET")
        seen.append((answer.status_code, headers, body))
    assert seen[0] == seen[1]
    assert seen[0][0] == 200
    assert [row["target"] for row in listed(house, target=known)] == []  # and it is not ours


def test_a_batch_is_taken_whole_or_not_at_all(house: House) -> None:
    target = completion(house)
    items = [{"target": target, "kind": "thumbs", "value": 1, "rater": f"u-{i}"} for i in range(1000)]
    answer = send(house, items=items)
    assert answer.status_code == 200, answer.text
    assert answer.json()["object"] == "list"
    assert len({row["id"] for row in answer.json()["data"]}) == 1000
    eventually(lambda: len(listed(house, target=target, limit=1000)) == 1000)
    spoiled = [*items[:3], {**items[3], "value": "up"}]
    refused = send(house, items=spoiled)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "items.3.value")
    assert send(house, items=[*items, items[0]]).status_code == 400
    assert send(house, items=[]).status_code == 400
    eventually(lambda: house.record(house.chat().headers["x-request-id"]))
    assert len(listed(house, target=target, limit=1000, history=True)) == 1000


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ('{"target": "chatcmpl-1", "kind": "thumbs", "value": NaN}', 400, "value"),
        ('{"target": "chatcmpl-1", "kind": "scalar", "name": "s", "value": Infinity}', 400, "value"),
        ('{"target": "chatcmpl-1", "kind": "scalar", "name": "s", "value": 1e999}', 400, "value"),
        ('{"target": "chatcmpl-1", "kind": "scalar", "name": "s", "value": 1' + "0" * 400 + "}", 400, "value"),
        ('{"target": "chatcmpl-1", "kind": "scalar", "name": "s", "value": "4"}', 400, "value"),
        ('{"target": "chatcmpl-1", "kind": "thumbs", "value": true}', 400, "value"),
        ('{"target": "chatcmpl-1", "kind": "scalar", "value": 4}', 400, "name"),
        ('{"target": "chatcmpl-1", "kind": "correction"}', 400, "text"),
        ('{"target": "chatcmpl-1", "kind": "applause", "value": 1}', 400, "kind"),
        ('{"target": 7, "kind": "thumbs", "value": 1}', 400, "target"),
        ('{"kind": "thumbs", "value": 1}', 400, "target"),
        ('{"target": "chatcmpl-1", "kind": "thumbs", "value": 1, "mood": "good"}', 400, "mood"),
        ('{"target": "chatcmpl-1", "kind": "comment", "text": "\\ud800"}', 400, "text"),
        ('{"target": "chatcmpl-1", "kind": "comment", "text": "' + "x" * 70_000 + '"}', 413, "text"),
        ('{"target": "chatcmpl-1", "kind": "comment", "text": "' + "x" * 1_000_000 + '"}', 413, "text"),
        ('{"target": "chatcmpl-1", "kind": "comment", "text": "' + "x" * 2_000_000 + '"}', 413, None),
        ("[" * 100_000, 400, None),
        ("[]", 400, None),
        ("{", 400, None),
        ("", 400, None),
    ],
    ids=lambda value: str(value)[:60],
)
def test_bad_feedback_is_refused_by_name(house: House, body: str, status: int, param: str | None) -> None:
    with house.client() as client:
        answer = client.post(FEEDBACK, content=body, headers={"content-type": "application/json"})
    error = answer.json()["error"]
    assert answer.status_code == status, answer.text
    assert error["type"] == "invalid_request_error"
    assert error["code"]
    if param is not None:
        assert error["param"] == param


@pytest.mark.parametrize(
    ("role", "sends", "reads"),
    [("user", 200, 403), ("engineer", 200, 200), ("operator", 403, 200), ("auditor", 403, 200)],
)
def test_roles_send_and_read_what_is_theirs(house: House, role: str, sends: int, reads: int) -> None:
    key, _ = house.new_key(roles=[role])
    assert send(house, key, target="chatcmpl-1", kind="thumbs", value=1).status_code == sends
    with house.client(key) as client:
        assert client.get(FEEDBACK, params={"limit": 1}).status_code == reads
    judged = send(house, key, target="chatcmpl-1", kind="thumbs", value=1, rater_kind="judge")
    assert judged.status_code == (200 if role == "engineer" else 403)


@pytest.mark.parametrize(
    "params", [{"after": "x"}, {"limit": 0}, {"limit": 1001}, {"pending": True, "history": True}, {"since": "nan"}]
)
def test_odd_questions_are_refused(house: House, params: dict[str, Any]) -> None:
    with house.client() as client:
        answer = client.get(FEEDBACK, params=params)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"]


@pytest.fixture(scope="module")
def bare() -> Iterator[House]:
    """A gateway alone, that one rater may tell 50 things a minute."""
    with stack(feedback_per_rater_per_min="50") as running:
        engine = scripted(running, "engine-0", port=free_port(), model=BASE)
        running.env |= {"GRAFTLINE_ENGINE_URLS": engine, "GRAFTLINE_PROBE": "off"}
        yield start_gateway(running)


def stored(house: House) -> list[Feedback]:
    records = SqlRecords(house.running.home / "records")
    try:
        return records.feedback(limit=100_000, history=True)
    finally:
        records.close()


def test_a_flood_from_one_rater_is_stemmed_and_nothing_that_was_accepted_is_lost_with_the_process(bare: House) -> None:
    """Ten thousand things in one go; then the gateway is killed before anybody moved a line, and only then ingested."""
    taken: list[str] = []
    refused: list[httpx.Response] = []
    with bare.client() as client:
        for number in range(10):
            items = [
                {"target": f"chatcmpl-{number}", "kind": "scalar", "name": f"n{i}", "value": i, "rater": "angry"}
                for i in range(1000)
            ]
            refused.append(client.post(FEEDBACK, json={"items": items}))
        for number in range(120):
            said = {"target": f"chatcmpl-{number}", "kind": "thumbs", "value": 1, "rater": "angry"}
            answer = client.post(FEEDBACK, json=said)
            if answer.status_code == 200:
                taken.append(answer.json()["id"])
            else:
                refused.append(answer)
        other = client.post(FEEDBACK, json={"target": "chatcmpl-1", "kind": "thumbs", "value": 1, "rater": "calm"})
        assert other.status_code == 200
        taken.append(other.json()["id"])
    assert len(taken) == 51
    assert {answer.status_code for answer in refused} == {429}
    assert refused[0].headers["x-should-retry"] == "false"  # a thousand never fit
    assert 1 <= int(refused[-1].headers["retry-after"]) <= 61
    assert refused[-1].json()["error"]["code"] == "feedback_limit_exceeded"
    bare.running.kill("gateway")
    worker(bare.running)
    eventually(lambda: len(stored(bare)) >= 51)
    assert sorted(each.id for each in stored(bare)) == sorted(taken)


def test_the_cli_says_and_shows_the_same(house: House) -> None:
    home, target = house.running.home, f"talk-{uuid.uuid4()}"
    (home / "cli.key").write_text(house.key)
    here = ["--url", house.url, "--key-file", str(home / "cli.key")]
    said = graftline(home, "feedback", "send", target, "--conversation", "--kind", "thumbs", "--value", "1")
    assert said.returncode == 0, said.stdout + said.stderr
    elsewhere = graftline(
        home, "feedback", "send", target, "--conversation", "--kind", "comment", "--text", "ada@example.com", *here
    )
    assert elsewhere.returncode == 0, elsewhere.stdout + elsewhere.stderr
    rows = told(house, 2, target=target)
    assert [row["id"] for row in rows] == [said.stdout.strip(), elsewhere.stdout.strip()]
    shown = graftline(home, "feedback", "list", "--target", target)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "[EMAIL]" in shown.stdout
    assert rows[0]["id"] in shown.stdout
