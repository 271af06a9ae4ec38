"""NaN that an engine without our plugin only counted: whoever ran there alone did it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

from adapters.lifecycle import State
from adapters.registry import engine_name
from adapters.store import Version
from gateway.engines.fleet.counting import Counting, ran_by_records
from gateway.routing.store import Beat, Poison
from monitoring.records.errors import StoreAway
from monitoring.records.events import Inference
from monitoring.records.store import MemoryRecords
from tests.unit.gateway.engines_pure.yard import Yard


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    made = Yard(tmp_path)
    made.now = 500.0  # between an engine's start and its next one
    return made


def contained(yard: Yard, name: str, replica: str = "a", at: float = 0.0) -> None:
    poison = Poison(replica=replica, engine_name=name, at=at or yard.now, gateway="g", contained=True)
    yard.rows.poison(poison)


async def pair(yard: Yard) -> tuple[Version, Version]:
    found = await yard.verified("good", "fine"), await yard.verified("bad")
    yard.now += 1.0
    return found


class Ran:
    def __init__(self, *names: str) -> None:
        self.names: Collection[str] | None = names
        self.asked: list[tuple[str, float, float]] = []

    def __call__(self, replica: str, since: float, until: float) -> Collection[str] | None:
        self.asked.append((replica, since, until))
        return self.names


async def looks(yard: Yard, counting: Counting, *corrupted: int) -> list[int]:
    """Look once a second while the count of `a` is these."""
    found = []
    for count in corrupted:
        yard.a.corrupted = count
        found.append(await counting.step())
        yard.now += 1.0
    return found


def told(yard: Yard) -> list[tuple[str, str, float]]:
    return [(p.replica, p.engine_name, p.at) for p in yard.rows.poisons(0) if p.gateway == "worker"]


async def test_the_one_adapter_that_ran_while_the_count_moved_is_withdrawn_and_the_engine_recycled(yard: Yard) -> None:
    good, bad = await pair(yard)
    ran, began = Ran(engine_name(bad), "base"), yard.now
    counting = Counting(yard.fleet.replicas, yard.means, ran)
    assert await looks(yard, counting, 0, 2, 3) == [0, 0, 1]
    assert told(yard) == [("a", engine_name(bad), began)]
    assert ran.asked == [("a", began, began + 2)]
    await yard.settle()
    assert (yard.state(bad), yard.state(good)) == (State.REJECTED, State.VERIFIED)
    assert [asked[::2] for asked in yard.asked_to_restart] == [("a", "nan")]
    assert await looks(yard, counting, 4, 5, 6) == [0, 0, 0], "it is out"
    yard.a.restart()
    await yard.settle()
    assert await looks(yard, counting, 0, 0, 0) == [0, 0, 0]


async def test_of_several_that_ran_nobody_is_withdrawn_and_all_are_proved_again(yard: Yard) -> None:
    good, bad = await pair(yard)
    yard.rows.beat(Beat(gateway="g", at=yard.now, revision=1, inflight={engine_name(good): 1}))
    counting = Counting(yard.fleet.replicas, yard.means, Ran(engine_name(bad)))
    assert await looks(yard, counting, 0, 1, 1) == [0, 0, 1]
    assert {name for _, name, _ in told(yard)} == {"", engine_name(good), engine_name(bad)}
    await yard.settle()
    assert (yard.state(bad), yard.state(good)) == (State.VERIFIED, State.VERIFIED)
    assert yard.rows.out().keys() == {"a"}
    before = len(yard.seen(good, "parity"))
    yard.a.restart()
    await yard.settle()
    assert len(yard.seen(good, "parity")) == before + 1


@pytest.mark.parametrize("names", [(), None])
async def test_where_nothing_is_known_to_have_run_the_engine_is_recycled(
    yard: Yard, names: tuple[str, ...] | None
) -> None:
    ran = Ran()
    ran.names = names
    await pair(yard)
    assert await looks(yard, Counting(yard.fleet.replicas, yard.means, ran), 0, 1, 1) == [0, 0, 1]
    assert [name for _, name, _ in told(yard)] == [""]
    await yard.settle()
    assert yard.rows.out().keys() == {"a"}


async def test_a_count_from_before_the_first_look_blames_nobody(yard: Yard) -> None:
    _, bad = await pair(yard)
    ran = Ran(engine_name(bad))
    assert await looks(yard, Counting(yard.fleet.replicas, yard.means, ran), 3, 3, 3) == [0, 1, 0]
    assert (told(yard), ran.asked) == ([("a", "", 100.0)], [])


async def test_what_a_gateway_told_of_is_not_told_again(yard: Yard) -> None:
    _, bad = await pair(yard)
    counting = Counting(yard.fleet.replicas, yard.means, Ran(engine_name(bad)))
    await looks(yard, counting, 0, 1)
    contained(yard, engine_name(bad))
    assert await looks(yard, counting, 2, 2, 3, 3) == [0, 0, 0, 0]
    assert told(yard) == []


async def test_nan_that_the_fleet_asked_for_itself_is_not_held_against_those_who_ran(yard: Yard) -> None:
    _, bad = await pair(yard)
    counting = Counting(yard.fleet.replicas, yard.means, Ran(engine_name(bad)))
    await looks(yard, counting, 0)
    yard.fleet.replicas["a"].nan_at = yard.now
    assert await looks(yard, counting, 1, 1) == [0, 0]


async def test_an_engine_that_restarted_between_two_looks_is_looked_at_from_anew(yard: Yard) -> None:
    await pair(yard)
    counting = Counting(yard.fleet.replicas, yard.means, Ran())
    await looks(yard, counting, 0, 1)
    yard.a.restart()
    assert await looks(yard, counting, 0, 0) == [0, 0]
    assert told(yard) == []


async def test_an_engine_that_does_not_answer_is_nobodys_fault(yard: Yard) -> None:
    await pair(yard)
    counting = Counting(yard.fleet.replicas, yard.means, Ran())
    yard.a.alive = False
    assert await looks(yard, counting, 1, 1, 1) == [0, 0, 0]


def answer(number: int, *, started_at: float, ms: float, replica: str = "a", name: str = "support") -> Inference:
    millis = int(started_at * 1000)
    return Inference(
        id=f"{millis >> 16:08x}-{millis & 0xFFFF:04x}-7000-8000-{number:012x}",
        endpoint="chat",
        model=name,
        adapter=f"{name}:1" if name else "",
        digest=f"sha256:{number:064x}" if name else "",
        replica=replica,
        started_at=started_at,
        total_ms=ms,
        status=200,
    )


def test_records_say_what_ran_on_a_replica_while_its_count_moved() -> None:
    records = MemoryRecords()
    there = [
        answer(0x1, started_at=1_700_000_000.0, ms=500.0),  # over before
        answer(0x2, started_at=1_700_000_000.5, ms=9_000.0, name="sales"),
        answer(0x3, started_at=1_700_000_005.5, ms=100.0, replica="b"),
        answer(0x4, started_at=1_700_000_005.6, ms=100.0, name=""),
        answer(0x5, started_at=1_700_000_008.0, ms=100.0),  # after
    ]
    records.ingest("f", 1, there)
    ran = ran_by_records(records, 600.0)
    assert ran("a", 1_700_000_005.0, 1_700_000_007.0) == {"sales@" + "0" * 16}


def test_records_that_are_away_say_nothing() -> None:
    class Away(MemoryRecords):
        def query(self, **_: object) -> list[Inference]:
            raise StoreAway("away")

    assert ran_by_records(Away(), 600.0)("a", 5.0, 6.0) is None
