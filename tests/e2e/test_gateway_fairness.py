"""More adapters than slots, through a real gateway over an engine that passes over whom it has no slot for."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import httpx
import pytest

from loadtests.stack import stack
from loadtests.starvation import Contest, bound_s
from tests.e2e.houses import House, asked, eventually, open_house

pytestmark = pytest.mark.slow
SLOTS, TURN_S = 2, 0.2
NAMES = [f"adapter-{number}" for number in range(5)]


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway over an engine with two adapter slots."""
    folder = tmp_path_factory.mktemp("sources")
    settings = {
        "source_folders": str(folder),
        "engine_max_loras": str(SLOTS),
        "slot_turn_s": str(TURN_S),
        "slot_queue_timeout_s": "20",
        "patrol_per_s": "0",  # its questions take slots that the gateway does not count
    }
    with stack(**settings) as running:
        found = open_house(running, engines=1, slots=SLOTS)
        for seed, name in enumerate(NAMES):
            found.register(name, folder / name, seed=seed)
        yield found


def test_two_floods_starve_nobody_and_the_engine_never_sees_a_third_adapter(narrow: House) -> None:
    contest = Contest(int(narrow.url.rpartition(":")[2]), narrow.key, NAMES, tokens=20, pause_s=0.05)
    seen = contest.run(4.0)
    assert not [one.error for one in seen if one.error]
    longest = max(one.total_s - one.queued_s for one in seen)
    bound = bound_s(wanted=len(NAMES), slots=SLOTS, turn_s=TURN_S, answer_s=longest)
    assert max(one.queued_s for one in seen) <= bound
    assert {one.model for one in seen if one.queued_s > 0} >= set(NAMES[2:])
    assert narrow.script()["adapters_most"] == SLOTS
    assert narrow.metric("graftline_slot_wait_seconds_count") > 0
    eventually(lambda: narrow.metric("graftline_slot_queue_depth") == 0)


def test_a_client_that_leaves_the_queue_leaves_nothing_behind(narrow: House) -> None:
    def hold(model: str) -> None:
        narrow.chat("[[tokens:20]] [[pace:0.05]]", model=model)

    holding = [threading.Thread(target=hold, args=(model,)) for model in NAMES[:2]]
    for thread in holding:
        thread.start()
    eventually(lambda: narrow.script()["running"] == 2)
    with narrow.client() as client, pytest.raises(httpx.ReadTimeout):
        client.post("/v1/chat/completions", json=asked(model=NAMES[2]), timeout=0.3)
    eventually(lambda: narrow.metric("graftline_slot_queue_depth") == 0)
    for thread in holding:
        thread.join()
    answered = narrow.chat(model=NAMES[3])
    assert answered.status_code == 200
    assert "x-graftline-queued-ms" not in answered.headers
