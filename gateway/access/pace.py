"""How much each name may do in a minute. Pure: the time is passed in."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping

#: Time is counted in whole seconds: with one more of them no sixty seconds hold more than is allowed.
_KEPT_S = 61
_FORGET_FROM = 4096


class Pace:
    """Counts what each name did in the last minute. Not for several threads."""

    def __init__(self, per_min: int) -> None:
        self.per_min = per_min
        self._done: dict[Hashable, deque[tuple[int, int]]] = {}
        self._look_at = _FORGET_FROM

    def take(self, counts: Mapping[Hashable, int], now: float) -> float | None:
        """Take room for all of these, or for none of them. Returns 0, or after how many seconds the same may fit;
        None when it never does: more at once than a minute allows."""
        if any(count > self.per_min for count in counts.values()):
            return None
        second = int(now)
        wait_s = max((self._wait_s(name, count, second) for name, count in counts.items()), default=0)
        if wait_s:
            return wait_s - (now - second)
        for name, count in counts.items():
            done = self._done.setdefault(name, deque())
            if done and done[-1][0] == second:
                count += done.pop()[1]
            done.append((second, count))
        self._forget(second)
        return 0.0

    def _wait_s(self, name: Hashable, count: int, second: int) -> int:
        """From the beginning of this second until `count` more fit."""
        done = self._done.get(name, deque())
        while done and done[0][0] <= second - _KEPT_S:
            done.popleft()
        over = sum(each for _, each in done) + count - self.per_min
        wait_s = 0
        for at, each in done:
            if over <= 0:
                break
            over, wait_s = over - each, at + _KEPT_S - second
        return wait_s

    def _forget(self, second: int) -> None:
        """Drop names that did nothing lately, whenever there are twice as many as were left the last time."""
        if len(self._done) >= self._look_at:
            self._done = {name: done for name, done in self._done.items() if done and done[-1][0] > second - _KEPT_S}
            self._look_at = max(_FORGET_FROM, 2 * len(self._done))
