"""The life of a version, as a table.

Invariants, which hold after every step, whatever ends the process that takes it:

- Only `verified` versions are pointed at by an alias. One that is pointed at leaves `verified` only in a transaction
  that moves or removes its aliases too.
- A version that is not `deleted` has its bytes, whole: they are committed before its row, and deleted after it.
- A step and its audit row, and the evidence that the step rests on, are one transaction.
"""

from __future__ import annotations

from enum import StrEnum

from adapters.errors import IllegalMove


class State(StrEnum):
    """Where a version stands."""

    UPLOADED = "uploaded"  # the bytes are stored under their digest
    CHECKED = "checked"  # the static and numeric checks passed
    PROBED = "probed"  # the first forward, off the shared engine, was finite and had an effect
    VERIFIED = "verified"  # may serve
    RETIRED = "retired"  # serves no more; the bytes are kept until nothing needs them
    DELETED = "deleted"  # the bytes are gone; the row remains, because records name it
    REJECTED = "rejected"  # failed a step; the row says why


MOVES: dict[State, frozenset[State]] = {
    State.UPLOADED: frozenset({State.CHECKED, State.REJECTED, State.RETIRED}),
    State.CHECKED: frozenset({State.PROBED, State.REJECTED, State.RETIRED}),
    State.PROBED: frozenset({State.VERIFIED, State.REJECTED, State.RETIRED}),
    State.VERIFIED: frozenset({State.RETIRED, State.REJECTED}),
    State.RETIRED: frozenset({State.DELETED}),
    State.REJECTED: frozenset({State.DELETED}),
    State.DELETED: frozenset(),
}

#: A version in one of these is on its way or there: registering the same bytes again finds it.
CURRENT = frozenset({State.UPLOADED, State.CHECKED, State.PROBED, State.VERIFIED})


def move(state: State, to: State) -> State:
    """Return `to` if the table allows the step. Raises IllegalMove, naming the steps that are allowed."""
    if to not in MOVES[state]:
        allowed = ", ".join(sorted(MOVES[state])) or "nothing: this is the end"
        raise IllegalMove(f"A version cannot go from {state} to {to}. From {state} it can go to: {allowed}.")
    return to
