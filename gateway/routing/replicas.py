"""What this process knows of each replica at this moment: up or down, how busy, whose turn, what it lacks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from gateway.engines.errors import EngineError, EnginePoisoned
from gateway.engines.vllm import Vllm
from gateway.errors import NoCapacity
from gateway.routing.fairness import Rules, State, Ticket, Turns
from gateway.routing.placement import Candidate, choose
from gateway.routing.residency import Slots
from gateway.routing.snapshot import Snapshot
from gateway.values import Target

log = logging.getLogger("graftline.routing")

#: (replica, whose answer it was by engine-side name, when by the engine's clock in unix seconds, whether contained)
OnPoison = Callable[[str, str, float, bool], None]
#: (replica, seconds)
OnWait = Callable[[str, float], None]
#: Where poison is contained the engine lives on, and may be given the same bytes again: then that is news again.
_AGAIN_S = 30.0


@dataclass(slots=True)
class Replica:
    """Live state of one engine. Changed only by the serving loop's own thread."""

    engine: Vllm
    turns: Turns
    slots: Slots
    healthy: bool = False
    inflight: int = 0
    lacking: dict[str, int] = field(default_factory=dict)  # engine-side name → revision at which the engine denied it
    waiters: dict[Ticket, asyncio.Future[None]] = field(default_factory=dict)
    poison: Literal["", "met", "out"] = ""  # met here, and then seen to be out for everyone
    poisoned_at: float = 0.0
    reported: dict[tuple[str, float, bool], float] = field(default_factory=dict)


class Replicas:
    """The replicas of this gateway, and the only place that changes what it believes of them."""

    def __init__(
        self,
        engines: Mapping[str, Vllm],
        inflight_max: int,
        *,
        rules: Rules | None = None,
        on_poison: OnPoison | None = None,
        on_wait: OnWait | None = None,
    ) -> None:
        self._rules = rules = rules or Rules()
        self._replicas = {name: Replica(engine, Turns(rules), Slots(rules.slots)) for name, engine in engines.items()}
        self._inflight_max = inflight_max
        self._on_poison, self._on_wait = on_poison, on_wait
        self._seen: Snapshot | None = None
        self._pins: dict[str, None] = {}  # aliases, in the order in which this process met them
        self.pins_ignored: tuple[str, ...] = ()
        self.by_name: Counter[str] = Counter()

    async def seat(self, snapshot: Snapshot, target: Target, tried: Collection[str], tokens: int = 0) -> Seated:
        """Take a place on the best replica, where all its adapter slots are in use after waiting for a turn.

        `tokens` is what the request may use. Raises what `placement.choose` raises, and `NoCapacity` when too many
        wait or the turn did not come in time.
        """
        self.follow(snapshot)
        adapter, began = target.resident, time.monotonic()
        self.by_name[target.engine_name] += 1  # from here on, so that a version that is waited for stays loaded
        try:
            while True:
                name = choose(self._candidates(adapter, tokens), adapter, tried)
                replica = self._replicas[name]
                if not adapter:
                    return Seated(self, name, replica, target.engine_name)
                ticket = replica.turns.arrive(adapter, tokens, time.monotonic())
                if ticket.state is State.RUNNING:
                    return Seated(self, name, replica, target.engine_name, ticket)
                if await self._turn(name, replica, ticket, began):
                    return Seated(self, name, replica, target.engine_name, ticket, time.monotonic() - began)
        except BaseException:
            self._forget(target.engine_name)
            raise

    def serves(self, snapshot: Snapshot, target: Target) -> bool:
        """Whether some replica that is up serves this target."""
        self.follow(snapshot)
        wanted = target.resident
        return any(r.healthy and not r.out and (not wanted or wanted in r.names) for r in self._candidates(wanted, 0))

    def follow(self, snapshot: Snapshot) -> None:
        """Take in a newer snapshot: which replicas are out and which adapters are pinned. Instant when it is not."""
        if snapshot is self._seen:
            return
        self._seen = snapshot
        known = [alias for alias in self._pins if alias in snapshot.pinned]
        self._pins = dict.fromkeys([*known, *snapshot.pinned])
        beyond: dict[str, None] = {}
        for name, replica in self._replicas.items():
            held = snapshot.residents.get(name, frozenset())
            replica.slots.keep(held)
            pins = dict.fromkeys(snapshot.pinned[a] for a in self._pins if snapshot.pinned[a] in held)
            _wake(replica, replica.turns.pin(tuple(pins), time.monotonic()))
            beyond.update(dict.fromkeys(adapter for adapter in pins if adapter not in replica.turns.pinned))
            if name in snapshot.out:
                replica.poison = replica.poison and "out"
                _dismiss(replica)
            elif replica.poison == "out":
                _cleanse(replica)
        if beyond and tuple(beyond) != self.pins_ignored:
            log.error("more adapters are pinned than slots can be spared for; not pinned here: %s", ", ".join(beyond))
        self.pins_ignored = tuple(beyond)

    def failed(self, name: str) -> None:
        """A request could not reach this replica: it is down until the next good health check says otherwise."""
        replica = self._replicas[name]
        replica.healthy = False
        _dismiss(replica)

    def lacks(self, name: str, target: Target, revision: int) -> None:
        """The engine denied a version that the snapshot says it holds: not there before the next revision."""
        self._replicas[name].lacking[target.engine_name] = revision

    def poisoned(self, name: str, target: Target, error: EnginePoisoned | None = None) -> None:
        """An answer was not of numbers: choose this replica no more until it has been out and is back, or restarted.

        Reports each name once: whom the engine named as the first, and whose answer this was. A replica whose engine
        says that it is contained is only reported, and an adapter there again after a while.
        """
        replica = self._replicas[name]
        at = error.at if error and error.at else time.time()
        contained = error is not None and error.contained
        if not contained and not replica.poison:
            log.error("replica %s answered %s with NaN; this process uses it no more", name, target.engine_name)
            replica.poison = "out" if self._seen and name in self._seen.out else "met"
            replica.poisoned_at = at
            _dismiss(replica)
        reports = [(each, error.first_at) for each in error.first] if error and error.first_at else []
        for who, when in (*reports, (target.engine_name, 0.0)):
            key = (who, when, contained)
            again = contained and not when and target.resident and at - replica.reported.get(key, at) >= _AGAIN_S
            if again or key not in replica.reported:
                replica.reported[key] = at
                if self._on_poison is not None:
                    self._on_poison(name, who, when or at, contained)

    def up(self) -> Mapping[str, bool]:
        return {name: replica.healthy for name, replica in self._replicas.items()}

    @property
    def inflight(self) -> int:
        return sum(replica.inflight for replica in self._replicas.values())

    @property
    def by_replica(self) -> Mapping[str, int]:
        """Requests that each replica is working on."""
        return {name: replica.inflight for name, replica in self._replicas.items()}

    @property
    def waiting(self) -> Mapping[str, int]:
        """Requests that wait for an adapter slot of each replica."""
        return {name: replica.turns.waiting for name, replica in self._replicas.items()}

    async def check(self) -> None:
        """Ask every replica whether it is well."""
        await asyncio.gather(*(self._check(replica) for replica in self._replicas.values()))

    async def close(self) -> None:
        for replica in self._replicas.values():
            await replica.engine.close()

    async def _check(self, replica: Replica) -> None:
        try:
            replica.healthy = await replica.engine.healthy()
            if replica.poison and (await replica.engine.gauges()).started_at > replica.poisoned_at:
                _cleanse(replica)
        except EngineError:
            replica.healthy = False
        if not replica.healthy:
            _dismiss(replica)

    async def _turn(self, name: str, replica: Replica, ticket: Ticket, began: float) -> bool:
        """Wait for it; False when this replica is no longer one to wait for. Whoever stops waiting leaves the ring."""
        limit_s = self._rules.queue_timeout_s
        future = replica.waiters[ticket] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(max(0.0, began + limit_s - time.monotonic())):
                await future
        except BaseException as error:
            _wake(replica, replica.turns.leave(ticket, time.monotonic()))
            if isinstance(error, TimeoutError):
                raise NoCapacity(
                    f"The adapter waited {limit_s:g} s for one of the engine's {self._rules.slots} slots, "
                    f"while {replica.turns.waiting} other requests wait too.",
                    retry_after_s=max(1.0, limit_s / 4),
                ) from None
            raise
        finally:
            del replica.waiters[ticket]
            if self._on_wait is not None:
                self._on_wait(name, time.monotonic() - ticket.arrived)
        return ticket.state is State.RUNNING

    def _candidates(self, adapter: str, tokens: int) -> list[Candidate]:
        snapshot, now = self._seen, time.monotonic()
        assert snapshot is not None
        compared = bool(adapter) and len(self._replicas) > 1
        return [
            Candidate(
                name=name,
                healthy=replica.healthy,
                inflight=replica.inflight,
                inflight_max=self._inflight_max,
                names=_held(snapshot, name, replica),
                out=bool(replica.poison) or name in snapshot.out,
                ahead=replica.turns.ahead(adapter, tokens, now) if compared else 0,
                warm=compared and adapter in replica.slots,
                free_slot=not compared or replica.slots.free,
            )
            for name, replica in self._replicas.items()
        ]

    def _forget(self, engine_name: str) -> None:
        self.by_name[engine_name] -= 1
        if not self.by_name[engine_name]:
            del self.by_name[engine_name]


class Seated:
    """One request's place on one replica."""

    __slots__ = ("_adapter", "_left", "_owner", "_replica", "_ticket", "queued_s", "replica")

    def __init__(
        self,
        owner: Replicas,
        name: str,
        replica: Replica,
        adapter: str,
        ticket: Ticket | None = None,
        queued_s: float = 0.0,
    ) -> None:
        self.replica = name
        self.queued_s = queued_s  # 0 when it went at once
        self._owner, self._replica, self._adapter, self._ticket, self._left = owner, replica, adapter, ticket, False
        replica.inflight += 1
        if ticket is not None:
            replica.slots.use(adapter)

    @property
    def engine(self) -> Vllm:
        return self._replica.engine

    def leave(self) -> None:
        """Give the place back; a second call changes nothing."""
        if self._left:
            return
        self._left = True
        self._replica.inflight -= 1
        self._owner._forget(self._adapter)
        if self._ticket is not None:
            _wake(self._replica, self._replica.turns.leave(self._ticket, time.monotonic()))


def _wake(replica: Replica, tickets: Iterable[Ticket]) -> None:
    for ticket in tickets:
        future = replica.waiters[ticket]
        if not future.done():  # else its client left in this very moment, and gives the turn back
            future.set_result(None)


def _dismiss(replica: Replica) -> None:
    """Let those who wait here choose again."""
    _wake(replica, replica.turns.dismiss())


def _cleanse(replica: Replica) -> None:
    replica.poison = ""
    replica.reported.clear()


def _held(snapshot: Snapshot, name: str, replica: Replica) -> frozenset[str]:
    held = snapshot.residents.get(name, frozenset())
    if not replica.lacking:
        return held
    replica.lacking = {adapter: at for adapter, at in replica.lacking.items() if at >= snapshot.revision}
    return held - replica.lacking.keys()
