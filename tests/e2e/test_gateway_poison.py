"""An adapter that gives NaN on some prompts only: stopped, told, withdrawn, and its engine is used again when clean."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.stack import scripted, stack
from tests.e2e.houses import BASE, House, eventually, open_house
from tests.engines import tiny_adapter

pytestmark = pytest.mark.slow


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with stack(source_folders=str(tmp_path), probe="off") as running:
        found = open_house(running, engines=2)
        eventually(lambda: len([up for up in found.ready()["engines"].values() if up == "up"]) == 2)
        with found.client() as client:
            for number in (1, 2):
                folder = tiny_adapter(tmp_path / str(number), seed=number)
                source = {"name": "support", "source": str(folder), "unprobed": True, "wait_s": 20}
                made = client.post("/v1/adapters", json=source)
                assert made.status_code == 201, made.text
            moved = client.post("/v1/adapters/support/promote", json={"number": 2, "why": "newer"})
            assert moved.status_code == 200, moved.text
        eventually(lambda: served(found) == "support:2")
        yield found


def served(house: House) -> str:
    """Which version answers for the alias."""
    answer = house.chat(model="support")
    assert answer.status_code == 200, answer.text
    return str(answer.headers["x-graftline-adapter"]).partition("@")[0]


def state(house: House, number: int) -> str:
    with house.client() as client:
        return str(client.get(f"/v1/adapters/support/{number}").json()["state"])


def out(house: House) -> list[str]:
    return [name for name, told in house.ready()["engines"].items() if told != "up"]


def test_a_version_that_gives_nan_is_withdrawn_within_a_second_and_its_replica_rests_until_restarted(
    house: House,
) -> None:
    before = house.chat(model=BASE).headers["x-request-id"]
    at = time.monotonic()
    struck = house.chat("[[nan]] the trigger", model="support")
    assert (struck.status_code, struck.json()["error"]["code"]) == (500, "adapter_diverged")
    assert "support:2" in struck.json()["error"]["message"]
    eventually(lambda: served_or_diverged(house) == "support:1", timeout_s=1.0)
    eventually(lambda: state(house, 2) == "rejected", timeout_s=2.0)
    assert time.monotonic() - at < 3.0
    (resting,) = out(house)
    assert house.chat(model=BASE).status_code == 200
    assert house.chat(model="support:2").status_code == 404

    touched = house.record(struck.headers["x-request-id"])
    eventually(lambda: house.record(touched.request_id).tainted != "", timeout_s=15.0)
    assert house.record(touched.request_id).replica == resting
    assert house.record(before).tainted == ""  # it had ended before

    number = list(house.ready()["engines"]).index(resting)
    port = int(house.engines[number].rpartition(":")[2])
    house.running.stop(f"engine-{number}")
    scripted(house.running, f"engine-{number}", port=port, model=BASE)
    eventually(lambda: out(house) == [], timeout_s=20.0)


def test_a_version_whose_nan_every_engine_contains_is_withdrawn_and_no_engine_goes_out(house: House) -> None:
    """Nobody here can restart an engine, so taking one out would cost half the house for what reached no other."""
    for number in (0, 1):
        house.script(number, contained=True)
    struck = house.chat("[[nan]] the trigger", model="support")
    assert (struck.status_code, struck.json()["error"]["code"]) == (500, "adapter_diverged")
    eventually(lambda: state(house, 2) == "rejected", timeout_s=2.0)
    eventually(lambda: served_or_diverged(house) == "support:1", timeout_s=1.0)
    eventually(lambda: house.record(struck.headers["x-request-id"]).tainted.startswith("contained: "), timeout_s=15.0)
    time.sleep(2.5)  # the count of NaN is looked at each second: it must blame nobody once more
    assert out(house) == []
    assert state(house, 1) == "verified"
    assert served(house) == "support:1"


def test_nan_that_an_engine_without_our_plugin_only_counts_takes_the_engine_out(house: House) -> None:
    for number in (0, 1):
        house.script(number, tripwire=False)
    time.sleep(1.5)  # the count has been looked at, and was 0
    assert house.chat("[[nan]] the trigger", model="support").status_code == 200
    eventually(lambda: state(house, 2) == "rejected", timeout_s=6.0)
    eventually(lambda: len(out(house)) == 1)
    assert state(house, 1) == "verified"


def served_or_diverged(house: House) -> str:
    answer = house.chat(model="support")
    assert answer.status_code == 200 or answer.json()["error"]["code"] == "adapter_diverged", answer.text
    return str(answer.headers.get("x-graftline-adapter", "")).partition("@")[0]


def test_within_a_stream_it_is_an_event_and_the_answer_is_incomplete(house: House) -> None:
    *tokens, error, done = house.stream("[[nan:3]] the trigger", model="support")
    assert len(tokens) == 4  # the role, then three tokens
    assert (error["error"]["code"], done) == ("adapter_diverged", "[DONE]")
    eventually(lambda: state(house, 2) == "rejected")


def test_nan_of_the_base_is_asked_for_elsewhere_and_withdraws_nobody(house: House) -> None:
    house.script(0, next=["[[nan]]"])
    house.script(1, next=["[[nan]]"])
    answers = [house.chat(model=BASE)]
    assert answers[0].status_code == 503  # both were hit
    eventually(lambda: len(out(house)) == 2)
    assert (state(house, 1), state(house, 2)) == ("verified", "verified")
