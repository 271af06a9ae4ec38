"""What processes cost: processor seconds and memory of a process and all that descend from it, from /proc."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Processor time since start, and memory: shared pages are counted by share."""

    cpu_s: float
    memory_bytes: int


def usage(pid: int) -> Usage:
    """Of `pid` and its descendants that live now, with the time of those that ended below them."""
    cpu_s, memory = 0.0, 0
    for one in family(pid):
        with suppress(OSError, IndexError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            cpu_s += sum(map(int, fields[11:15])) / _TICKS_PER_S
            memory += _memory(one)
    return Usage(cpu_s=cpu_s, memory_bytes=memory)


def family(pid: int) -> list[int]:
    """`pid` and every process below it."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with suppress(OSError, IndexError, ValueError):
                parent = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(entry))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found


def _memory(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    return 0
