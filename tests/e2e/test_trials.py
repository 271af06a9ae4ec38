"""A request's part in an experiment, through a real gateway: which arm it met, what is recorded, what is mirrored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from monitoring.records.events import Exposure
from monitoring.records.sql import SqlRecords
from tests.e2e.houses import House, asked, eventually

pytestmark = pytest.mark.slow


def opened(house: House, name: str, folder: Path, **fields: Any) -> str:
    """An experiment at half and half between the first two of three versions."""
    for number in (1, 2, 3):
        house.register(name, folder / f"{name}-{number}", seed=100 * ord(name[-1]) + number)
    body = {
        "name": name,
        "arms": [{"name": "old", "number": 1}, {"name": "new", "number": 2}],
        "metrics": [{"name": "thumbs_rate", "role": "primary"}],
        "ramp": [{"share": 5000, "at_least_s": 0}],
        **fields,
    }
    with house.client() as client:
        made = client.post("/v1/experiments", json=body)
        assert made.status_code == 201, made.text
        probe = asked("ready?", model=name, user="probe", metadata={"conversation_id": "probe"})
        eventually(lambda: "x-graftline-arm" in client.post("/v1/chat/completions", json=probe).headers)
    return str(made.json()["id"])


def exposures(house: House, experiment: str, request_id: str) -> list[Exposure]:
    store = SqlRecords(house.running.home / "records")
    return [each for each in store.exposures(experiment, limit=10_000) if each.request_id == request_id]


def test_an_answer_names_its_arm_and_both_records_say_the_same(house: House, tmp_path: Path) -> None:
    id_ = opened(house, "trial-a", tmp_path)
    answer = house.chat(model="trial-a", user="ada@example.com", headers={"x-request-id": "trial-a-1"})
    arm = answer.headers["x-graftline-arm"]
    assert answer.headers["x-graftline-experiment"] == id_
    assert answer.headers["x-graftline-adapter"].startswith("trial-a:1" if arm == "old" else "trial-a:2")
    record = house.record("trial-a-1")
    assert (record.experiment, record.arm) == (id_, arm)
    (met,) = eventually(lambda: exposures(house, id_, "trial-a-1"))
    assert (met.arm, met.unit, met.unit_kind, met.alias) == (arm, record.user, "user", "trial-a@live")
    assert (met.propensity, met.completion_id) == (0.5, answer.json()["id"])
    assert "example.com" not in met.unit


def test_a_user_meets_one_arm_by_every_spelling_streamed_or_not_and_again(house: House, tmp_path: Path) -> None:
    opened(house, "trial-b", tmp_path)
    for user in ("u1", "u2", "u3", "u4", "u5", "u6"):
        arms = {
            house.chat(**fields, user=user).headers["x-graftline-arm"]
            for fields in (
                {"model": "trial-b"},
                {"model": "trial-b@live", "stream": True},
                {"model": "trial-b", "headers": {"x-stainless-retry-count": "1"}},
            )
        }
        assert len(arms) == 1
    by_number = house.chat(model="trial-b:2", user="u1")
    assert "x-graftline-arm" not in by_number.headers


def test_a_request_without_the_unit_is_served_by_the_alias_and_counted_apart(house: House, tmp_path: Path) -> None:
    id_ = opened(house, "trial-c", tmp_path, unit="conversation")
    answer = house.chat(model="trial-c", user="u1", headers={"x-request-id": "trial-c-1"})
    assert "x-graftline-arm" not in answer.headers
    assert answer.headers["x-graftline-adapter"].startswith("trial-c:1")
    (met,) = eventually(lambda: exposures(house, id_, "trial-c-1"))
    assert met.unit_kind == "request"
    arms = {
        house.chat(model="trial-c", headers={"x-graftline-conversation": "c7"}).headers["x-graftline-arm"],
        house.chat(model="trial-c", metadata={"conversation_id": "c7"}).headers["x-graftline-arm"],
    }
    assert len(arms) == 1


def test_that_an_arm_was_met_is_known_also_where_no_answer_came(house: House, tmp_path: Path) -> None:
    id_ = opened(house, "trial-d", tmp_path)
    failed = house.chat("[[error:0]]", model="trial-d", user="u9", headers={"x-request-id": "trial-d-1"})
    assert failed.status_code >= 500
    (met,) = eventually(lambda: exposures(house, id_, "trial-d-1"))
    record = house.record("trial-d-1")
    assert record.status == failed.status_code
    assert record.arm == met.arm


def test_an_engineer_may_ask_for_an_arm_and_is_not_counted(house: House, tmp_path: Path) -> None:
    id_ = opened(house, "trial-e", tmp_path)
    asked_for = {"x-graftline-arm": "new", "x-request-id": "trial-e-1"}
    answer = house.chat(model="trial-e", user="u1", headers=asked_for)
    assert answer.headers["x-graftline-adapter"].startswith("trial-e:2")
    assert answer.headers["x-graftline-arm"] == "new"
    record = house.record("trial-e-1")
    assert (record.arm, record.experiment) == ("new", "")
    assert exposures(house, id_, "trial-e-1") == []
    secret, _ = house.new_key(roles=["user"])
    assert house.chat(model="trial-e", key=secret, headers={"x-graftline-arm": "new"}).status_code == 403
    wrong = house.chat(model="trial-e", headers={"x-graftline-arm": "newer"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "x-graftline-arm")


def test_a_shadow_is_asked_the_same_and_answers_nobody(house: House, tmp_path: Path) -> None:
    id_ = opened(house, "trial-f", tmp_path, shadow={"name": "dark", "number": 3})
    before = house.metric('graftline_shadow_requests_total{outcome="answered"')
    answer = house.chat("mirror me", model="trial-f", user="u1", stream=True, headers={"x-request-id": "trial-f-1"})
    assert not answer.headers["x-graftline-adapter"].startswith("trial-f:3")
    mirrored = house.record("trial-f-1.shadow")
    assert (mirrored.adapter, mirrored.arm, mirrored.experiment) == ("trial-f:3", "dark", "")
    assert (mirrored.key_id, mirrored.status, mirrored.stream) == ("", 200, False)
    assert "mirror me" in (mirrored.request or "")
    assert exposures(house, id_, "trial-f-1.shadow") == []
    eventually(lambda: house.metric('graftline_shadow_requests_total{outcome="answered"') > before)
