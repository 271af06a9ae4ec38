"""What each replica should hold, and what it loads and unloads next."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.lifecycle import State
from adapters.registry import engine_name
from gateway.engines.fleet.capacity import IDLE_S, capacity, room, when_full
from gateway.engines.fleet.reconcile import HELD, drained, emptied, plan, ranked, shares
from gateway.routing.store import Beat
from tests.unit.gateway.rows import alias, beat, version


def order(*args: object) -> list[int]:
    return [w.version.number for w in ranked(*args)]  # type: ignore[arg-type]


def test_pinned_comes_first_then_live_then_aliases_then_ways_back_then_arrivals_then_the_newest() -> None:
    versions = [version(n) for n in range(1, 8)] + [version(8, State.CHECKED)]
    pointing = [
        alias(2, previous=1),
        alias(3, to="candidate"),
        replace(alias(4, to="guard"), pinned=True),
    ]
    assert order(versions, pointing) == [4, 2, 3, 1, 8, 7, 6, 5]
    assert [w.version.number for w in ranked(versions, pointing) if w.pointed] == [4, 2, 3]


def test_arms_of_experiments_are_held_as_what_a_pinned_alias_points_at() -> None:
    versions = [version(n) for n in range(1, 5)]
    arms = {("support", 2), ("support", 9), ("sales", 1)}
    assert order(versions, [alias(4, previous=1)], arms) == [2, 4, 1, 3]
    assert [w.version.number for w in ranked(versions, [alias(4)], arms) if w.pointed] == [2, 4]


@pytest.mark.parametrize("state", list(State))
def test_only_versions_on_their_way_or_there_are_held(state: State) -> None:
    assert bool(ranked([version(1, state)], [])) == (state in HELD)


def test_everything_is_everywhere_while_it_fits() -> None:
    wanted = ranked([version(1), version(2)], [])
    assert shares(wanted, {"a": 2, "b": 5}, 2) == {"a": (version(2), version(1)), "b": (version(2), version(1))}
    assert shares(wanted, {}, 2) == {}


def test_beyond_that_what_is_pointed_at_has_copies_and_the_rest_has_one() -> None:
    versions = [version(n) for n in range(1, 31)]
    pointing = [alias(n, name="support", to=f"a{n}") for n in range(1, 6)]
    found = shares(ranked(versions, pointing), {"a": 20, "b": 20, "c": 20}, 2)
    copies = [sum(v in share for share in found.values()) for v in versions]
    assert copies == [2] * 5 + [1] * 25
    assert all(len(share) <= 20 for share in found.values())


def test_second_copies_never_take_the_place_of_a_first() -> None:
    versions = [version(n) for n in range(1, 11)]
    pointing = [alias(n, to=f"a{n}") for n in range(1, 11)]
    found = shares(ranked(versions, pointing), {"a": 6, "b": 6}, 2)
    held = [v.number for share in found.values() for v in share]
    assert len(held) == 12
    assert set(held) == set(range(1, 11))


def test_what_is_least_needed_is_left_out_when_nothing_has_room() -> None:
    found = shares(ranked([version(1), version(2), version(3)], [alias(1)]), {"a": 2}, 2)
    assert [v.number for v in found["a"]] == [1, 3]


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 6), st.integers(100, 300))
def test_a_replica_that_comes_takes_about_its_share_and_nothing_else_moves(replicas: int, count: int) -> None:
    wanted = ranked([version(n) for n in range(1, count + 1)], [])
    few = shares(wanted, {f"r{n}": count - 1 for n in range(replicas)}, 2)
    more = shares(wanted, {f"r{n}": count - 1 for n in range(replicas + 1)}, 2)
    new = f"r{replicas}"
    for name, share in few.items():
        assert set(more[name]) <= set(share), "what stays does not move between those that were there"
    moved = len(more[new])
    assert moved <= count / (replicas + 1) + 4 * (count / (replicas + 1)) ** 0.5


def test_the_difference_is_loaded_and_only_what_nobody_wants_is_unloaded() -> None:
    here, new, gone, elsewhere = version(1), version(2), version(3), version(4)
    held = {engine_name(v) for v in (here, new, elsewhere)}
    have = {engine_name(v) for v in (here, gone, elsewhere)}
    todo = plan([here, new], held, have, {engine_name(here)})
    assert todo.load == (new,)
    assert todo.unload == (engine_name(gone),)


def test_what_is_there_and_not_proven_is_gone_through_again() -> None:
    """The worker that loaded it may have died before its proof."""
    half = version(1, State.PROBED)
    assert plan([half], {engine_name(half)}, {engine_name(half)}, set()).load == (half,)


def test_a_version_leaves_when_no_gateway_can_be_using_it() -> None:
    assert drained("a", [], 5)
    assert drained("a", [beat(5), beat(6, b=1)], 5)
    assert not drained("a", [beat(5), beat(4)], 5)
    assert not drained("a", [beat(5, a=1)], 5)
    assert drained("a", [beat(5, a=0)], 5)


def test_a_replica_is_empty_when_no_gateway_can_be_using_it() -> None:
    def told(revision: int, here: int) -> Beat:
        return Beat(gateway="g", at=0.0, revision=revision, inflight={}, by_replica={"r": here})

    assert emptied("r", [], 5)
    assert emptied("r", [told(5, 0), told(6, 0)], 5)
    assert not emptied("r", [told(4, 0)], 5)
    assert not emptied("r", [told(5, 1)], 5)
    assert emptied("other", [told(5, 1)], 5)


def test_room_is_what_the_bound_leaves() -> None:
    assert capacity(1024, 16) == 1008
    assert capacity(8, 16) == 6
    assert capacity(1, 16) == 1
    assert room(10, 4) == 6
    assert room(10, 12) == 0


def test_a_full_replica_is_recycled_when_it_can_be_spared() -> None:
    assert when_full(reclaimable=0, needed=True, others_carry=True, idle_s=1e9) == "wait"
    assert when_full(reclaimable=3, needed=False, others_carry=True, idle_s=0) == "recycle"
    assert when_full(reclaimable=3, needed=True, others_carry=False, idle_s=IDLE_S) == "recycle"
    assert when_full(reclaimable=3, needed=False, others_carry=False, idle_s=IDLE_S) == "wait"
    assert when_full(reclaimable=3, needed=True, others_carry=False, idle_s=IDLE_S - 1) == "wait"


def test_a_full_replica_keeps_what_it_has_and_what_is_new_goes_to_others() -> None:
    old, new = version(1), version(2)
    wanted = ranked([old, new], [])
    held = {"a": {engine_name(old)}}
    assert shares(wanted, {"a": 5, "b": 5}, 2, held) == {"a": (old,), "b": (new, old)}
    both = held | {"b": {engine_name(old)}}
    waits = shares(wanted, {"a": 5, "b": 5}, 2, both)
    assert sorted(len(share) for share in waits.values()) == [1, 2], "it waits at its first choice"
    tight = shares(ranked([old, new, version(3)], [alias(1)]), {"a": 2, "b": 2}, 2, {"b": set()})
    assert old in tight["a"]
    assert old not in tight["b"], "a second copy waits for nothing"
