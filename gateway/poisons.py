"""What this process tells the fleet about engines that gave NaN: whose request it was, and who was the first.

The request path only appends; a loop of the serving group writes the rows, in a thread.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from gateway.engines.blame import is_adapter
from gateway.engines.errors import EnginePoisoned
from gateway.routing.store import Poison
from gateway.values import Target
from monitoring.telemetry.shared import Metrics

#: What one poisoned engine can cause before the fleet takes it out; older reports say nothing that these do not.
_WAITING_MAX = 1024
#: How long this process keeps a version from further engines by itself: the fleet has decided long before.
BLOCKED_S = 10.0


class Poisons:
    """Reports on their way to the fleet's rows (`tell` writes one, and may block), and what is kept from engines."""

    def __init__(
        self,
        tell: Callable[[Poison], None],
        gateway: str,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell, self._gateway, self._metrics, self._clock = tell, gateway, metrics, clock
        self._waiting: deque[Poison] = deque(maxlen=_WAITING_MAX)
        self._blocked: dict[str, float] = {}

    def report(self, replica: str, engine_name: str, at: float, contained: bool) -> None:
        """Somebody's request gave NaN on `replica` at `at`, by the engine's clock, which did or did not contain it."""
        self._metrics.counter("graftline_poison_reports_total", replica=replica).add(1)
        self._waiting.append(
            Poison(replica=replica, engine_name=engine_name, at=at, gateway=self._gateway, contained=contained)
        )

    def block(self, target: Target) -> None:
        """Risk no other engine with this version before the fleet has decided."""
        self._blocked[target.engine_name] = self._clock() + BLOCKED_S

    def blocked(self, target: Target) -> bool:
        """Whether this version has just given NaN to this process."""
        return bool(self._blocked) and self._blocked.get(target.engine_name, 0.0) > self._clock()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def flush(self) -> None:
        """Write what waits, in order; what cannot be written waits for the next turn."""
        while self._waiting:
            self._tell(self._waiting[0])
            self._waiting.popleft()


def may_try_elsewhere(error: EnginePoisoned, target: Target) -> bool:
    """Whether another replica may be asked: the base, and an adapter that was not the first here, are victims. What was
    the first, or may have been, would poison the next engine as well; and so would every adapter where all was
    contained, for then there are no victims."""
    if not is_adapter(target.engine_name):
        return True
    if error.contained:
        return False
    return bool(error.first) and "" not in error.first and target.engine_name not in error.first
