"""Which replica takes a request: filter, then the one where its adapter waits least and is warm. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from gateway.errors import AdapterUnavailable, EngineFailed, NoCapacity

#: A warm slot is worth so many requests of load: an adapter with more traffic than that spreads over its replicas.
WARM_INFLIGHT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One replica as placement sees it. `names` are the adapter versions that it serves, by engine-side name.

    Of the adapter asked for: `ahead` says how many others would have their turn before it, 0 when it could go at once;
    `warm` whether it sits in a slot of the engine, by our estimate; `free_slot` whether one is empty.
    """

    name: str
    healthy: bool
    inflight: int
    inflight_max: int
    names: frozenset[str]
    out: bool = False
    ahead: int = 0
    warm: bool = False
    free_slot: bool = True


def choose(replicas: Sequence[Candidate], adapter: str, tried: Collection[str] = ()) -> str:
    """The name of the replica that should take a request for `adapter` ("" = the base).

    Raises, all before anything was sent and all with a time to retry after:
    `EngineFailed` when none is up or each that could answer was tried, `AdapterUnavailable` when none that is up
    serves the version, `NoCapacity` when every one that could is full.
    """
    up = [r for r in replicas if r.healthy and not r.out]
    if not up:
        raise EngineFailed(f"No engine can take this request now: 0 of {len(replicas)} are up.", retry_after_s=5)
    holding = [r for r in up if not adapter or adapter in r.names]
    if not holding:
        raise AdapterUnavailable("The adapter version is not loaded on any engine that is up.", retry_after_s=2)
    untried = [r for r in holding if r.name not in tried]
    if not untried:
        raise EngineFailed(f"Tried {len(tried)} of {len(replicas)} engines; none could answer this.", retry_after_s=5)
    free = [r for r in untried if r.inflight < r.inflight_max]
    if not free:
        raise NoCapacity(f"All {len(untried)} engines that could answer are full.")
    if len(free) == 1:
        return free[0].name
    idlest = min(r.inflight for r in free)
    return min(
        free, key=lambda r: (r.ahead, r.inflight > idlest + WARM_INFLIGHT, swap_cost(r), r.inflight, r.name)
    ).name


def swap_cost(replica: Candidate) -> int:
    """0: the adapter is in a slot. 1: a slot is free. 2: another adapter must leave one."""
    if replica.warm:
        return 0
    return 1 if replica.free_slot else 2
