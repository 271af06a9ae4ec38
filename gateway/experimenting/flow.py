"""Whether records reach their database: what the worker asks before it believes their numbers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection
from pathlib import Path

from monitoring.records.spool import SUFFIX

#: A spool that was not emptied for so long holds answers that no analysis knows of.
LATE_S = 30.0


class Flow:
    """`dropped` gives how many records were ever lost here. How many that were when an experiment was first looked at
    is kept in `memory`, so that a restarted worker knows it too.

    What is seen is this machine's: its spool, and the counts of its processes.
    """

    def __init__(
        self,
        spool: Path,
        memory: Path,
        dropped: Callable[[], float],
        *,
        late_s: float = LATE_S,
        mono: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spool, self._memory, self._dropped = spool, memory, dropped
        self._late_s, self._mono = late_s, mono
        self._emptied_at = mono()
        self._before = _read(memory)

    def emptied(self) -> None:
        """The ingester has just moved everything that there was."""
        self._emptied_at = self._mono()

    def broken(self, experiments: Collection[str]) -> dict[str, tuple[str, ...]]:
        """For each experiment, in words, why its numbers cannot be trusted. Blocking."""
        late = self._late()
        total = self._dropped()
        before = {id_: min(self._before.get(id_, total), total) for id_ in experiments}  # a count may begin anew
        if before != self._before:
            self._before = before
            _write(self._memory, before)
        return {id_: (*late, *_lost(total - before[id_])) for id_ in experiments}

    def _late(self) -> tuple[str, ...]:
        waited = self._mono() - self._emptied_at
        if waited <= self._late_s or not _waiting(self._spool):
            return ()
        return (f"the spool was last emptied {waited:.0f} s ago: what was said since is not counted yet",)


def _lost(count: float) -> tuple[str, ...]:
    return (f"{count:.0f} records were lost since the experiment opened",) if count > 0 else ()


def _waiting(spool: Path) -> bool:
    for path in spool.glob(f"*{SUFFIX}"):
        try:
            if path.stat().st_size:
                return True
        except FileNotFoundError:
            continue  # ingested and removed meanwhile
    return False


def _read(memory: Path) -> dict[str, float]:
    try:
        found = json.loads(memory.read_bytes())
        return {str(id_): float(count) for id_, count in found.items()}
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return {}


def _write(memory: Path, before: dict[str, float]) -> None:
    part = memory.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(before))
    part.replace(memory)
