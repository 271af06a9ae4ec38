"""Rows that the fleet loop and the gateways tell each other by: who holds what, and who still uses what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """A gateway process's sign of life: the revision that it routes by, and requests in flight per engine-side name."""

    gateway: str
    at: float
    revision: int
    inflight: Mapping[str, int]


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


class MemoryFleetStore:
    """The twin for tests and single-process use."""

    def __init__(self) -> None:
        self.revision = 1
        self._residents: dict[str, frozenset[str]] = {}
        self._beats: dict[str, Beat] = {}

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
