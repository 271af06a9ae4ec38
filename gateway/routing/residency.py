"""Which adapters sit in an engine's slots, estimated from what was sent to it. Pure.

The engine keeps the adapters that it used last, as many as it has slots. It says which in a metric, but lists there
what is in flight and nothing else, so it is not asked.
"""

from __future__ import annotations

from collections import OrderedDict


class Slots:
    """One replica's slots: the adapters used last, as far as this process sent them."""

    __slots__ = ("_count", "_used")

    def __init__(self, count: int) -> None:
        self._count = count
        self._used: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, adapter: str) -> bool:
        return adapter in self._used

    @property
    def free(self) -> bool:
        """Whether another adapter would fit in without one leaving."""
        return len(self._used) < self._count

    def use(self, adapter: str) -> None:
        """A request for it begins now."""
        self._used[adapter] = None
        self._used.move_to_end(adapter)
        if len(self._used) > self._count:
            self._used.popitem(last=False)

    def keep(self, adapters: frozenset[str]) -> None:
        """Forget what the engine no longer holds at all."""
        for adapter in [each for each in self._used if each not in adapters]:
            del self._used[adapter]
