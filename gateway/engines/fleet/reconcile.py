"""What each replica should hold, and what it loads and unloads next: desired state against what it has. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from adapters.lifecycle import State
from adapters.names import LIVE
from adapters.registry import engine_name
from adapters.store import Alias, Version
from gateway.routing.store import Beat

#: States in which a version is held by the engines: it serves, or is about to be proved.
HELD = frozenset({State.CHECKED, State.PROBED, State.VERIFIED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A version that should be held somewhere. `pointed`: an alias points at it or it is an arm of an experiment, so
    it gets several copies."""

    version: Version
    name: str
    pointed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`load` in this order; `unload` engine-side names once nobody uses them."""

    load: tuple[Version, ...]
    unload: tuple[str, ...]


def ranked(versions: Iterable[Version], aliases: Iterable[Alias], arms: Iterable[tuple[str, int]] = ()) -> list[Wanted]:
    """Every version that engines should hold if they can, most needed first.

    What a pinned alias points at and the `arms` of running experiments, by name and number, then live, then other
    aliases, then what one can be rolled back to, then new arrivals, then the rest; newest first in each.
    """
    need: dict[tuple[str, int], int] = dict.fromkeys(arms, 0)
    for alias in aliases:
        rank = 0 if alias.pinned else 1 if alias.alias == LIVE else 2
        for number, its in ((alias.number, rank), (alias.previous, 3)):
            if number is not None:
                need[alias.name, number] = min(its, need.get((alias.name, number), its))

    def order(version: Version) -> tuple[int, float]:
        otherwise = 5 if version.state is State.VERIFIED else 4
        return need.get((version.name, version.number), otherwise), -version.created_at

    return [
        Wanted(version=v, name=engine_name(v), pointed=need.get((v.name, v.number), 9) < 3)
        for v in sorted((v for v in versions if v.state in HELD), key=order)
    ]


def shares(
    wanted: Sequence[Wanted],
    capacities: Mapping[str, int],
    copies_min: int,
    full: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> dict[str, tuple[Version, ...]]:
    """Replica → the versions it should hold, most needed first.

    Everything everywhere while it fits. Beyond that each version has an order of replicas of its own (rendezvous
    hashing over its engine-side name), and goes to the first with room; then what aliases point at goes to more of
    them, until it has `copies_min` copies or there is no room. So a replica that comes takes one share of each other's,
    and one that goes gives only its own away.

    `full` names replicas whose engines can load nothing more before a restart, with what they have: they keep that, and
    what is new goes to others. Where nobody has room it waits at its first choice.
    """
    if not full and len({w.name for w in wanted}) <= min(capacities.values(), default=0):
        return {replica: tuple(w.version for w in wanted) for replica in capacities}
    everywhere = len({w.name for w in wanted}) <= min(capacities.values(), default=0)
    found: dict[str, dict[str, Version]] = {replica: {} for replica in capacities}
    order = {w.name: sorted(capacities, key=partial(_weight, w.name)) for w in wanted}

    def place(each: Wanted, copies: int, *, waits: bool) -> None:
        free = [r for r in order[each.name] if each.name not in found[r] and len(found[r]) < capacities[r]]
        able = [r for r in free if r not in full or each.name in full[r]]
        for replica in (able or (free[:1] if waits else []))[:copies]:
            found[replica][each.name] = each.version

    for each in wanted:
        place(each, len(capacities) if everywhere else 1, waits=True)
    for each in wanted:  # second copies take what room is left, and never the first copy of another
        if each.pointed and not everywhere:
            place(each, copies_min - 1, waits=False)
    return {replica: tuple(versions.values()) for replica, versions in found.items()}


def plan(share: Sequence[Version], held: Collection[str], have: Collection[str], proven: Collection[str]) -> Plan:
    """The difference between a replica's `share` and the engine-side names that it has.

    What is there and not proven in this life of the engine is gone through again, which costs no load: the worker that
    loaded it may have died before its proof. What is `held` anywhere stays where it is though it be in no share: to
    unload it would free nothing, and it may serve.
    """
    names = {engine_name(v): v for v in share}
    return Plan(
        load=tuple(v for name, v in names.items() if name not in have or name not in proven),
        unload=tuple(sorted(name for name in have if name not in held)),
    )


def drained(name: str, beats: Sequence[Beat], revision: int) -> bool:
    """Whether no living gateway can still be using a version: all route by a revision without it, none runs one."""
    return all(beat.revision >= revision and not beat.inflight.get(name) for beat in beats)


def emptied(replica: str, beats: Sequence[Beat], revision: int) -> bool:
    """Whether no living gateway can still be using a replica: all know that it is out, none has a request there."""
    return all(beat.revision >= revision and not beat.by_replica.get(replica) for beat in beats)


def _weight(name: str, replica: str) -> bytes:
    return hashlib.blake2b(f"{name}\0{replica}".encode(), digest_size=8).digest()
