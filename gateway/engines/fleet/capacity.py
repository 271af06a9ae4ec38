"""How many adapters a replica may hold, and when there is no room for another. Pure.

vLLM keeps every adapter that was loaded since its start in a cache of `max_cpu_loras`, whatever was unloaded meanwhile:
an unload forgets a name and frees nothing. One load more than the cache holds makes it evict, and an adapter that was
evicted is read from disk again inside a forward step, where a missing file kills the engine. So loads are counted, and
the count never passes the bound; only a restart empties the cache.
"""

from __future__ import annotations

from typing import Literal

#: A replica that is out of room and could not be spared is asked again whether it is idle only after this long idle.
IDLE_S = 60.0


def capacity(bound: int, headroom: int) -> int:
    """How many versions a replica should hold: the bound, less the room kept for new ones until a restart.

    A small engine keeps at most a quarter of its room free.
    """
    return max(1, bound - min(headroom, bound // 4))


def room(bound: int, loads: int) -> int:
    """How many more loads the engine can take without evicting."""
    return max(0, bound - loads)


def when_full(*, reclaimable: int, needed: bool, others_carry: bool, idle_s: float) -> Literal["recycle", "wait"]:
    """What to do with a replica that has no room left.

    `reclaimable` is how many of its loads a restart would not repeat; `needed` says that something waits for room here;
    `others_carry` that other replicas serve everything that it serves, and then it need not come to waiting; `idle_s`
    is how long it has had no request.
    """
    if reclaimable <= 0:
        return "wait"
    return "recycle" if others_carry or (needed and idle_s >= IDLE_S) else "wait"
