"""NaN that an engine contained: its versions go, and the engine stays where nobody can stand in for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from adapters.lifecycle import State
from adapters.registry import engine_name
from adapters.store import Version
from gateway.engines.fleet.means import nobody
from gateway.routing.store import Beat, Poison
from monitoring.telemetry.render import render
from tests.unit.gateway.engines_pure.yard import Yard


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    made = Yard(tmp_path)
    made.now = 500.0  # between an engine's start and its next one
    return made


def contained(yard: Yard, name: str, replica: str = "a", at: float = 0.0) -> None:
    poison = Poison(replica=replica, engine_name=name, at=at or yard.now, gateway="g", contained=True)
    yard.rows.poison(poison)


def counted(yard: Yard, contained: str) -> float:
    line = f'graftline_tripwire_total{{contained="{contained}",replica="a"}} '
    other = f'graftline_tripwire_total{{replica="a",contained="{contained}"}} '
    rendered = render(yard.folder / "metrics").decode().splitlines()
    return sum(float(each.rpartition(" ")[2]) for each in rendered if each.startswith((line, other)))


async def pair(yard: Yard) -> tuple[Version, Version]:
    found = await yard.verified("good", "fine"), await yard.verified("bad")
    yard.now += 1.0
    return found


async def test_poison_that_the_only_engine_contained_withdraws_its_version_and_nothing_goes_out(yard: Yard) -> None:
    yard.b.alive = False
    await yard.settle()
    good, bad = await pair(yard)
    at = yard.now
    contained(yard, engine_name(bad))
    await yard.settle()
    assert yard.state(bad) is State.REJECTED
    assert yard.codes(bad, "tripwire") == ["nan_at_runtime"]
    (row,) = yard.seen(bad, "tripwire")
    assert row.body["contained"] is True
    assert "no other answer was touched" in yard.store.get("support", 1).reasons[0].found
    assert yard.tainted == [("a", at, at + 1.0, f"contained: {engine_name(bad)}")]
    assert (counted(yard, "yes"), counted(yard, "no")) == (1.0, 0.0)
    assert (yard.rows.out(), yard.asked_to_restart) == ({}, [])
    assert yard.serving() == {"a": {engine_name(good)}}


async def test_where_another_replica_carries_all_of_it_the_one_that_contained_it_is_recycled(yard: Yard) -> None:
    good, bad = await pair(yard)
    contained(yard, engine_name(bad))
    yard.rows.beat(Beat(gateway="g", at=yard.now, revision=1 << 60, inflight={}, by_replica={"a": 1}))
    await yard.settle(2)
    assert yard.state(bad) is State.REJECTED
    assert yard.rows.out()["a"].why.startswith("contained: ")
    assert yard.asked_to_restart == [], "a stream still runs there"
    yard.rows.beat(Beat(gateway="g", at=yard.now, revision=1 << 60, inflight={}, by_replica={}))
    await yard.settle()
    assert yard.asked_to_restart == [("a", 100.0, "contained")]
    yard.a.restart()
    await yard.settle()
    assert yard.rows.out() == {}
    assert yard.serving() == {"a": {engine_name(good)}, "b": {engine_name(good)}}
    assert len(yard.tainted) == 1
    assert len(yard.asked_to_restart) == 1


async def test_two_replicas_that_contained_it_are_recycled_one_after_the_other(yard: Yard) -> None:
    _, bad = await pair(yard)
    contained(yard, engine_name(bad), "a")
    contained(yard, engine_name(bad), "b")
    await yard.settle()
    (first,) = yard.rows.out()
    assert [asked[0] for asked in yard.asked_to_restart] == [first]
    {"a": yard.a, "b": yard.b}[first].restart()
    await yard.settle(6)
    assert sorted(asked[0] for asked in yard.asked_to_restart) == ["a", "b"]


async def test_a_replica_that_came_up_later_relieves_the_one_that_contained_it(yard: Yard) -> None:
    yard.b.alive = False
    _, bad = await pair(yard)
    contained(yard, engine_name(bad))
    await yard.settle()
    assert yard.rows.out() == {}
    yard.b.restart()
    await yard.settle()
    assert yard.rows.out().keys() == {"a"}


async def test_nobody_takes_out_what_contained_it_and_cannot_be_restarted_from_here(yard: Yard) -> None:
    object.__setattr__(yard.means, "restart", nobody)
    _, bad = await pair(yard)
    contained(yard, engine_name(bad))
    await yard.settle()
    assert yard.state(bad) is State.REJECTED
    assert yard.rows.out() == {}


async def test_every_adapter_that_gave_contained_nan_did_it_itself_and_the_base_withdraws_nobody(yard: Yard) -> None:
    yard.b.alive = False
    await yard.settle()
    good, bad = await pair(yard)
    worse = await yard.verified("worse", "other")
    yard.now += 1.0
    for number, name in enumerate((engine_name(bad), "base", "", engine_name(worse))):
        contained(yard, name, at=yard.now + number)
    await yard.settle()
    assert (yard.state(bad), yard.state(worse)) == (State.REJECTED, State.REJECTED)
    assert yard.state(good) is State.VERIFIED
    assert counted(yard, "yes") == 4.0
    assert yard.rows.out() == {}


async def test_bytes_that_were_registered_again_are_withdrawn_for_new_nan_only(yard: Yard) -> None:
    yard.b.alive = False
    await yard.settle()
    _, bad = await pair(yard)
    contained(yard, engine_name(bad))
    await yard.settle()
    yard.now += 1.0
    again = await yard.verified("bad")
    assert (again.number, engine_name(again)) == (2, engine_name(bad))
    yard.begin()
    await yard.settle()
    assert yard.state(again) is State.VERIFIED
    yard.now += 1.0
    contained(yard, engine_name(bad))
    await yard.settle()
    assert yard.state(again) is State.REJECTED


async def test_once_poison_has_spread_the_engine_goes_out_though_it_contained_some_before(yard: Yard) -> None:
    yard.b.alive = False
    await yard.settle()
    good, bad = await pair(yard)
    contained(yard, engine_name(bad))
    await yard.settle()
    assert yard.rows.out() == {}
    spread = Poison(replica="a", engine_name=engine_name(bad), at=yard.now, gateway="g")
    yard.rows.poison(spread)
    yard.rows.poison(replace(spread, engine_name=engine_name(good), at=yard.now + 1))
    await yard.settle()
    assert yard.rows.out()["a"].why.startswith("nan: ")
    assert yard.state(good) is State.VERIFIED
    assert [asked[2] for asked in yard.asked_to_restart] == ["nan"]
    assert counted(yard, "no") == 1.0


@pytest.mark.parametrize("dies_at", ["taint", "attest", "withdraw"])
async def test_a_worker_that_dies_over_contained_poison_is_followed_by_one_that_does_the_rest(
    yard: Yard, dies_at: str
) -> None:
    _, bad = await pair(yard)
    contained(yard, engine_name(bad))

    class Dies(Exception):
        pass

    def dying(*args: object, **kwargs: object) -> None:
        raise Dies

    if dies_at == "taint":
        object.__setattr__(yard.means, "taint", dying)
    elif dies_at == "attest":
        yard.store.attest = dying  # type: ignore[method-assign]
    else:
        yard.registry.withdraw = dying  # type: ignore[method-assign, assignment]
    with pytest.raises(Dies):
        await yard.fleet.step()
    for owner, name in ((yard.store, "attest"), (yard.registry, "withdraw")):
        vars(owner).pop(name, None)
    yard.begin()
    await yard.settle()
    assert yard.state(bad) is State.REJECTED
    assert yard.tainted
    assert [asked[2] for asked in yard.asked_to_restart] == ["contained"]
