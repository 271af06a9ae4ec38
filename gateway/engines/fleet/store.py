"""What the worker must remember across its own death: who is on duty, and how many loads each engine has taken.

The Protocol and the twin in memory. Nothing here moves the revision: gateways need none of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Loads:
    """How many loads a replica's engine has taken since it started, at `started_at` (unix seconds)."""

    started_at: float
    count: int


class Duties(Protocol):
    """Two kinds of rows of the worker's own."""

    def on_duty(self, owner: str, *, now: float, ttl_s: float) -> bool:
        """Take or renew the lease: True for one owner at a time. One that was not renewed for `ttl_s` is taken over."""
        ...

    def off_duty(self, owner: str) -> None:
        """Give the lease back, if it is this owner's."""
        ...

    def loads(self, replica: str) -> Loads | None: ...

    def note_loads(self, replica: str, loads: Loads) -> None:
        """Say what a replica's count is now."""
        ...


class MemoryDuties:
    """The twin for tests."""

    def __init__(self) -> None:
        self._lease: tuple[str, float] | None = None
        self._loads: dict[str, Loads] = {}

    def on_duty(self, owner: str, *, now: float, ttl_s: float) -> bool:
        if self._lease is not None and self._lease[0] != owner and now - self._lease[1] < ttl_s:
            return False
        self._lease = (owner, now)
        return True

    def off_duty(self, owner: str) -> None:
        if self._lease is not None and self._lease[0] == owner:
            self._lease = None

    def loads(self, replica: str) -> Loads | None:
        return self._loads.get(replica)

    def note_loads(self, replica: str, loads: Loads) -> None:
        self._loads[replica] = loads
