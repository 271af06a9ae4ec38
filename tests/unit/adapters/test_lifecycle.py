"""The table of states, walked pair by pair."""

from __future__ import annotations

import itertools

import pytest

from adapters.errors import IllegalMove
from adapters.lifecycle import CURRENT, MOVES, State, move


@pytest.mark.parametrize(("state", "to"), list(itertools.product(State, State)))
def test_exactly_the_moves_in_the_table_are_legal(state: State, to: State) -> None:
    if to in MOVES[state]:
        assert move(state, to) is to
    else:
        with pytest.raises(IllegalMove, match=f"from {state} to {to}"):
            move(state, to)


def test_every_state_can_be_reached_and_every_life_ends() -> None:
    reached, edge = {State.UPLOADED}, {State.UPLOADED}
    while edge:
        edge = {to for state in edge for to in MOVES[state]} - reached
        reached |= edge
    assert reached == set(State)
    assert [state for state in State if not MOVES[state]] == [State.DELETED]


def test_only_a_verified_version_was_checked_and_probed_on_its_way() -> None:
    assert [state for state in State if State.VERIFIED in MOVES[state]] == [State.PROBED]
    assert [state for state in State if State.PROBED in MOVES[state]] == [State.CHECKED]
    assert [state for state in State if State.CHECKED in MOVES[state]] == [State.UPLOADED]


def test_rejection_is_possible_until_retirement() -> None:
    assert {state for state in State if State.REJECTED in MOVES[state]} == CURRENT
