"""What a replica loads and unloads next."""

from __future__ import annotations

import pytest

from adapters.lifecycle import State
from adapters.registry import engine_name
from gateway.engines.reconcile import HELD, desired, drained, plan
from tests.unit.gateway.rows import alias, beat, version


def test_what_aliases_point_at_comes_first_then_ways_back_then_arrivals_then_the_newest() -> None:
    versions = [version(1), version(2), version(3), version(4), version(5, State.CHECKED)]
    wanted = desired(versions, [alias(2, previous=1)], capacity=10)
    assert [v.number for v in wanted] == [2, 1, 5, 4, 3]
    assert [v.number for v in desired(versions, [alias(2, previous=1)], capacity=2)] == [2, 1]


@pytest.mark.parametrize("state", list(State))
def test_only_versions_on_their_way_or_there_are_held(state: State) -> None:
    assert bool(desired([version(1, state)], [], capacity=10)) == (state in HELD)


def test_the_difference_is_loaded_and_unloaded() -> None:
    here, new, gone = version(1), version(2), version(3)
    todo = plan([here, new], {engine_name(here), engine_name(gone)})
    assert todo.load == (new,)
    assert todo.unload == (engine_name(gone),)
    assert todo.serving == {engine_name(here)}


def test_what_was_loaded_and_never_proved_is_proved() -> None:
    """The worker that loaded it may have died before its first forward, or its bytes served under an earlier number."""
    half = version(1, State.CHECKED)
    assert plan([half], {engine_name(half)}).load == (half,)
    assert plan([half], {engine_name(half)}).serving == frozenset()


def test_what_was_refused_lately_is_left_alone() -> None:
    new, half = version(1), version(2, State.CHECKED)
    assert plan([new, half], {engine_name(half)}, failing={engine_name(new), engine_name(half)}).load == ()


def test_a_version_leaves_when_no_gateway_can_be_using_it() -> None:
    assert drained("a", [], 5)
    assert drained("a", [beat(5), beat(6, b=1)], 5)
    assert not drained("a", [beat(5), beat(4)], 5)
    assert not drained("a", [beat(5, a=1)], 5)
    assert drained("a", [beat(5, a=0)], 5)
