"""What every part of the fleet works with, joined once in `gateway/app.py`."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from adapters.registry import Registry
from adapters.store import Store
from gateway.engines.fleet.book import Book
from gateway.engines.fleet.staging import Staging
from gateway.engines.fleet.store import Duties
from gateway.routing.store import FleetStore
from monitoring.telemetry.shared import Metrics


class Restart(Protocol):
    """Whoever can restart an engine."""

    def __call__(self, replica: str, *, started_at: float, why: str) -> bool:
        """Ask for a restart of the engine that started at `started_at`; False where nobody here can give one."""
        ...


#: Says that a replica's answers in a window of unix seconds may have been touched. The same window twice is one.
Taint = Callable[[str, float, float, str], None]


def nobody(replica: str, *, started_at: float, why: str) -> bool:
    """For engines that are restarted by somebody else."""
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The numbers, from the settings. `bound` is the engines' `max_cpu_loras`; `flags` is what else of an engine's
    start its answers depend on."""

    base_name: str
    base_digest: str = ""
    flags: str = ""
    bound: int = 1024
    headroom: int = 16
    copies_min: int = 2
    load_wait_s: float = 0.25
    drain_timeout_s: float = 30.0
    poison_drain_s: float = 10.0
    patrol_per_s: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """`arms` gives what running experiments serve, by name and number: it is held as if an alias pointed at it."""

    registry: Registry
    store: Store
    fleet: FleetStore
    duties: Duties
    book: Book
    staging: Staging
    metrics: Metrics
    revision: Callable[[], int]
    terms: Terms
    taint: Taint
    restart: Restart = nobody
    arms: Callable[[], Collection[tuple[str, int]]] = frozenset
    clock: Callable[[], float] = time.time
