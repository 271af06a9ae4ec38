"""Rows that the fleet loop and the gateways tell each other by: who holds what, who still uses what, who is out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """A gateway process's sign of life: the revision that it routes by, and its requests in flight, per engine-side
    name and per replica."""

    gateway: str
    at: float
    revision: int
    inflight: Mapping[str, int]
    by_replica: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Out:
    """Why no gateway may use a replica, since when (unix seconds), and when the engine that was meant had started.

    It comes back with an engine that started at another time, or when the fleet loop finds it well again.
    """

    why: str
    at: float
    started_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Poison:
    """An answer of NaN that a gateway met. `at` is the engine's clock; `engine_name` whose request it was, or empty
    where the engine no longer knew. `contained`: the engine has zeroed what it left behind, so no other is touched."""

    replica: str
    engine_name: str
    at: float
    gateway: str
    contained: bool = False


class FleetStore(Protocol):
    """No policy: what to load and when to unload is decided in `gateway/engines/reconcile.py`."""

    def residents(self) -> Mapping[str, frozenset[str]]:
        """Replica → engine-side names that it serves."""
        ...

    def hold(self, replica: str, names: frozenset[str]) -> None:
        """Say that `replica` serves exactly these; moves the revision when that is news."""
        ...

    def beat(self, beat: Beat) -> None:
        """Write one gateway's sign of life; never moves the revision."""
        ...

    def beats(self, since: float) -> Sequence[Beat]:
        """Signs of life not older than `since`, unix seconds."""
        ...

    def take_out(self, replica: str, *, why: str, at: float, started_at: float = 0.0) -> None:
        """No gateway uses this replica from now on; moves the revision. Out already: the first reason stays, unless
        another engine is meant."""
        ...

    def bring_back(self, replica: str) -> None:
        """Gateways may use it again; moves the revision when that is news."""
        ...

    def out(self) -> Mapping[str, Out]:
        """The replicas that are out."""
        ...

    def poison(self, poison: Poison) -> None:
        """Report an answer of NaN; never moves the revision. The same report twice is one, and contained only if both
        say so."""
        ...

    def poisons(self, since: float) -> Sequence[Poison]:
        """Reports not older than `since`, oldest first."""
        ...


class MemoryFleetStore:
    """The twin for tests and single-process use."""

    def __init__(self) -> None:
        self.revision = 1
        self._residents: dict[str, frozenset[str]] = {}
        self._beats: dict[str, Beat] = {}
        self._out: dict[str, Out] = {}
        self._poisons: dict[tuple[str, str, float, str], Poison] = {}

    def residents(self) -> Mapping[str, frozenset[str]]:
        return dict(self._residents)

    def hold(self, replica: str, names: frozenset[str]) -> None:
        if self._residents.get(replica, frozenset()) != names:
            self._residents[replica] = names
            self.revision += 1

    def beat(self, beat: Beat) -> None:
        self._beats[beat.gateway] = beat

    def beats(self, since: float) -> Sequence[Beat]:
        return sorted((b for b in self._beats.values() if b.at >= since), key=lambda b: b.gateway)

    def take_out(self, replica: str, *, why: str, at: float, started_at: float = 0.0) -> None:
        held = self._out.get(replica)
        if held is None or (started_at and started_at != held.started_at):
            self._out[replica] = Out(why=why, at=at, started_at=started_at)
            self.revision += 1

    def bring_back(self, replica: str) -> None:
        if self._out.pop(replica, None) is not None:
            self.revision += 1

    def out(self) -> Mapping[str, Out]:
        return dict(self._out)

    def poison(self, poison: Poison) -> None:
        key = (poison.replica, poison.engine_name, poison.at, poison.gateway)
        if poison.contained:
            self._poisons.setdefault(key, poison)
        else:
            self._poisons[key] = poison

    def poisons(self, since: float) -> Sequence[Poison]:
        found = [p for p in self._poisons.values() if p.at >= since]
        return sorted(found, key=lambda p: (p.at, p.replica, p.engine_name))
