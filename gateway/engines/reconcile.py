"""What a replica should load and unload next: desired state against what it says it has. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from adapters.lifecycle import State
from adapters.registry import engine_name
from adapters.store import Alias, Version
from gateway.routing.store import Beat

#: States in which a version is held by the engines: it serves, or is about to be probed.
HELD = frozenset({State.CHECKED, State.PROBED, State.VERIFIED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`load` in this order; `unload` engine-side names once nobody uses them; `serving` is there and verified."""

    load: tuple[Version, ...]
    unload: tuple[str, ...]
    serving: frozenset[str]


def desired(versions: Iterable[Version], aliases: Iterable[Alias], capacity: int) -> list[Version]:
    """Which versions the engines should hold, most needed first, never more than `capacity`.

    What an alias points at comes first, then what one can be rolled back to, then new arrivals, then the rest, newest
    first.
    """
    pointed = {(a.name, a.number) for a in aliases}
    earlier = {(a.name, a.previous) for a in aliases if a.previous is not None}

    def need(version: Version) -> tuple[int, float]:
        key = (version.name, version.number)
        if key in pointed:
            return 0, -version.created_at
        if key in earlier:
            return 1, -version.created_at
        return (2 if version.state is not State.VERIFIED else 3), -version.created_at

    return sorted((v for v in versions if v.state in HELD), key=need)[:capacity]


def plan(wanted: Sequence[Version], have: Collection[str], failing: Collection[str] = ()) -> Plan:
    """The difference between `wanted` and the engine-side names that a replica has.

    What is there and not verified is loaded again, which costs nothing, and thereby proved: the process that loaded it
    may have died before. `failing` holds names that this replica refused lately; they are left alone until their time
    comes again.
    """
    names = {engine_name(v): v for v in wanted}
    return Plan(
        load=tuple(
            v
            for name, v in names.items()
            if name not in failing and (name not in have or v.state is not State.VERIFIED)
        ),
        unload=tuple(sorted(name for name in have if name not in names)),
        serving=frozenset(name for name, v in names.items() if name in have and v.state is State.VERIFIED),
    )


def drained(name: str, beats: Sequence[Beat], revision: int) -> bool:
    """Whether no living gateway can still be using a version: all route by a revision without it, none runs one."""
    return all(beat.revision >= revision and not beat.inflight.get(name) for beat in beats)
