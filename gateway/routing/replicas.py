"""What this process knows of each replica at this moment: up or down, how busy, what it turned out to lack."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from gateway.engines.errors import EngineError
from gateway.engines.vllm import Vllm
from gateway.routing.placement import Candidate, choose
from gateway.routing.snapshot import Snapshot
from gateway.values import Target


@dataclass(slots=True)
class Replica:
    """Live state of one engine. Changed only by the serving loop's own thread."""

    engine: Vllm
    healthy: bool = False
    inflight: int = 0
    lacking: dict[str, int] = field(default_factory=dict)  # engine-side name → revision at which the engine denied it


class Replicas:
    """The replicas of this gateway, and the only place that changes what it believes of them."""

    def __init__(self, engines: Mapping[str, Vllm], inflight_max: int) -> None:
        self._replicas = {name: Replica(engine) for name, engine in engines.items()}
        self._inflight_max = inflight_max
        self.by_name: Counter[str] = Counter()

    def seat(self, snapshot: Snapshot, target: Target, tried: Collection[str]) -> Seated:
        """Take a place on the best replica; raises what `placement.choose` raises."""
        name = choose(self._candidates(snapshot), target.resident, tried)
        replica = self._replicas[name]
        replica.inflight += 1
        self.by_name[target.engine_name] += 1
        return Seated(self, name, replica, target.engine_name)

    def serves(self, snapshot: Snapshot, target: Target) -> bool:
        """Whether some replica that is up serves this target."""
        wanted = target.resident
        return any(r.healthy and (not wanted or wanted in r.names) for r in self._candidates(snapshot))

    def failed(self, name: str) -> None:
        """A request could not reach this replica: it is down until the next good health check says otherwise."""
        self._replicas[name].healthy = False

    def lacks(self, name: str, target: Target, revision: int) -> None:
        """The engine denied a version that the snapshot says it holds: not there before the next revision."""
        self._replicas[name].lacking[target.engine_name] = revision

    def up(self) -> Mapping[str, bool]:
        return {name: replica.healthy for name, replica in self._replicas.items()}

    @property
    def inflight(self) -> int:
        return sum(replica.inflight for replica in self._replicas.values())

    async def check(self) -> None:
        """Ask every replica whether it is well."""
        await asyncio.gather(*(self._check(replica) for replica in self._replicas.values()))

    async def close(self) -> None:
        for replica in self._replicas.values():
            await replica.engine.close()

    async def _check(self, replica: Replica) -> None:
        try:
            replica.healthy = await replica.engine.healthy()
        except EngineError:
            replica.healthy = False

    def _candidates(self, snapshot: Snapshot) -> list[Candidate]:
        return [
            Candidate(
                name=name,
                healthy=replica.healthy,
                inflight=replica.inflight,
                inflight_max=self._inflight_max,
                names=_held(snapshot, name, replica),
            )
            for name, replica in self._replicas.items()
        ]


class Seated:
    """One request's place on one replica."""

    __slots__ = ("_adapter", "_left", "_owner", "_replica", "replica")

    def __init__(self, owner: Replicas, name: str, replica: Replica, adapter: str) -> None:
        self.replica = name
        self._owner, self._replica, self._adapter, self._left = owner, replica, adapter, False

    @property
    def engine(self) -> Vllm:
        return self._replica.engine

    def leave(self) -> None:
        """Give the place back; a second call changes nothing."""
        if self._left:
            return
        self._left = True
        self._replica.inflight -= 1
        counts = self._owner.by_name
        counts[self._adapter] -= 1
        if not counts[self._adapter]:
            del counts[self._adapter]


def _held(snapshot: Snapshot, name: str, replica: Replica) -> frozenset[str]:
    held = snapshot.residents.get(name, frozenset())
    if not replica.lacking:
        return held
    replica.lacking = {adapter: at for adapter, at in replica.lacking.items() if at >= snapshot.revision}
    return held - replica.lacking.keys()
