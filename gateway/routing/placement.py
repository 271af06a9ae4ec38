"""Which replica takes a request: filter, prefer the one that holds the adapter, then the least loaded. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from gateway.errors import AdapterUnavailable, EngineFailed, NoCapacity


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One replica as placement sees it. `names` are the adapter versions that it serves, by engine-side name."""

    name: str
    healthy: bool
    inflight: int
    inflight_max: int
    names: frozenset[str]


def choose(replicas: Sequence[Candidate], adapter: str, tried: Collection[str] = ()) -> str:
    """The name of the replica that should take a request for `adapter` ("" = the base).

    Raises, all before anything was sent and all with a time to retry after:
    `EngineFailed` when none is up or each that could answer was tried, `AdapterUnavailable` when none that is up
    serves the version, `NoCapacity` when every one that could is full.
    """
    up = [r for r in replicas if r.healthy]
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
    return min(free, key=lambda r: (r.inflight, r.name)).name
