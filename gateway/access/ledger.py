"""Quotas in memory that all workers of a machine share: a file, mapped, with a row a key and a slot in it a worker.

A worker writes its own slots alone and reads everyone's, so nothing is locked. It looks, writes, and looks again: two
workers that reach for the last place may both be refused, but are never both let in. The file outlives the workers,
so budgets and windows do too; what a dead worker had in flight is cleared when its successor opens the file. Counts
are of this machine alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

from gateway.access import layout, quota
from gateway.access.keys import Key
from gateway.access.layout import SLOT
from gateway.access.quota import Remaining, Slot
from gateway.values import Hold

#: More than any request can mean; keeps a key without a token limit from overflowing its counters.
TOKENS_MAX: Final = 10**12


class Free:
    """The hold of a key without limits: there is nothing to count."""

    __slots__ = ()

    def settle(self, tokens_used: int) -> None:
        pass

    def release(self) -> None:
        pass


class Counted:
    """A hold that stands in the ledger until it is settled or released; whichever comes first, once."""

    __slots__ = ("_began", "_index", "_ledger", "_open", "_tokens")

    def __init__(self, ledger: Ledger, index: int, began: int, tokens: int) -> None:
        self._ledger = ledger
        self._index = index
        self._began = began
        self._tokens = tokens
        self._open = True

    def settle(self, tokens_used: int) -> None:
        """The request is over and used this many tokens."""
        if self._open:
            self._open = False
            self._ledger.give_back(self._index, self._began, self._tokens, tokens_used, 1)

    def release(self) -> None:
        """The request never was: neither it nor its tokens are counted."""
        if self._open:
            self._open = False
            self._ledger.give_back(self._index, self._began, self._tokens, 0, 0)


_FREE: Final = Free()


class Ledger:
    """One worker's view of the quota file. Not for threads: reserve and settle from the serving loop.

    `clock` is the machine's monotonic clock, which all workers share and nobody can set; seconds.
    """

    def __init__(self, path: Path, worker: int, workers: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Take place `worker` of `workers`; what a predecessor there had in flight is cleared.

        Raises LedgerInUse when the place is taken or a gateway of another size runs, LedgerCorrupt, and
        LedgerUnavailable when there is no space.
        """
        if not 0 <= worker < workers <= layout.WORKERS_MAX:
            raise ValueError(f"worker {worker} of {workers}; at most {layout.WORKERS_MAX}")
        self._path = path
        self._clock = clock
        self._workers = workers
        self._row = layout.row_of(workers)
        self._place = worker * SLOT.size
        self._from = worker * quota.SLOT_FIELDS
        self._to = self._from + quota.SLOT_FIELDS
        self._locks, self._map = layout.take_place(path, worker, workers, int(clock() // quota.WINDOW_S))
        self._rows = len(self._map) // self._row.size
        self._forget_flights()

    def reserve(self, key: Key, tokens: int) -> Hold:
        """Count a request that may use up to `tokens`. Raises OverQuota, and LedgerUnavailable: no space for a key."""
        limits = key.limits
        if limits.unlimited:
            return _FREE
        if not 0 <= tokens <= TOKENS_MAX:
            tokens = max(0, min(tokens, TOKENS_MAX))
        index = key.index
        if not 0 < index < self._rows:
            self._grow(index)
        now = self._clock()
        window = int(now // quota.WINDOW_S)
        elapsed_s = now - window * quota.WINDOW_S
        start = index * self._row.size
        row = self._row.unpack_from(self._map, start)
        low, high = row[: self._from], row[self._to :]
        before = cast(Slot, row[self._from : self._to])
        after = quota.reserved(before, window, tokens)
        refusal = quota.exceeded(limits, quota.total(low + after + high, window), tokens, elapsed_s)
        if refusal is not None:
            raise refusal
        SLOT.pack_into(self._map, start + self._place, *after)
        if self._workers > 1:
            row = self._row.unpack_from(self._map, start)
            if row[: self._from] != low or row[self._to :] != high:  # one who wrote meanwhile may not have seen us
                refusal = quota.exceeded(limits, quota.total(row, window), tokens, elapsed_s)
                if refusal is not None:
                    SLOT.pack_into(self._map, start + self._place, *before)
                    raise refusal
        return Counted(self, index, window, tokens)

    def remaining(self, key: Key) -> Remaining:
        """What the key has left now, all workers of this machine together."""
        now = self._clock()
        window = int(now // quota.WINDOW_S)
        row: tuple[int, ...] = ()
        if not key.limits.unlimited:
            if not 0 < key.index < self._rows:
                self._grow(key.index)
            row = self._row.unpack_from(self._map, key.index * self._row.size)
        return quota.remaining(key.limits, quota.total(row, window), now - window * quota.WINDOW_S)

    def flush(self) -> None:
        """Send the counts to the disk, for a machine that dies. A process that dies loses nothing without this."""
        self._map.flush()

    def close(self) -> None:
        """Leave the place. Holds still open are given up: their request counts, their tokens do not."""
        if self._map.closed:
            return
        self._forget_flights()
        self.flush()
        self._map.close()
        os.close(self._locks)  # and the place is free

    def give_back(self, index: int, began: int, held: int, used: int, kept: int) -> None:
        """End a hold; only holds call this."""
        if self._map.closed:
            return
        at = index * self._row.size + self._place
        window = int(self._clock() // quota.WINDOW_S)
        slot = cast(Slot, SLOT.unpack_from(self._map, at))
        used = max(0, min(used, TOKENS_MAX))
        SLOT.pack_into(self._map, at, *quota.settled(slot, window, began, held, used, kept))

    def _grow(self, index: int) -> None:
        grown = layout.longer(self._path, self._locks, self._workers, index)
        self._map.close()
        self._map = grown
        self._rows = len(grown) // self._row.size

    def _forget_flights(self) -> None:
        for index in range(1, self._rows):
            at = index * self._row.size + self._place
            *counts, running, held, spent = SLOT.unpack_from(self._map, at)
            if running or held:
                SLOT.pack_into(self._map, at, *counts, 0, 0, spent)
