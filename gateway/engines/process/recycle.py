"""How the worker asks `graftline up` to restart the engine: by one small file, written whole, taken once."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import orjson

FILE = "recycle-engine.json"
LOOK_EVERY_S = 0.5
#: How much later than its supervisor says a process may seem to have started, by the clock of the kernel.
_SLACK_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`started_at` says which engine is meant (unix seconds): one that started since has nothing to answer for."""

    started_at: float
    why: str


def ask(folder: Path, request: Request) -> None:
    """Leave a request; one that is there already is replaced."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    building = folder / f".{FILE}.{os.getpid()}"
    building.write_bytes(orjson.dumps({"started_at": request.started_at, "why": request.why}))
    building.replace(folder / FILE)


def take(folder: Path) -> Request | None:
    """The request, if there is one; it is gone afterwards. What cannot be read is thrown away."""
    path = folder / FILE
    try:
        told = orjson.loads(path.read_bytes())
        path.unlink()
        return Request(started_at=float(told["started_at"]), why=str(told["why"]))
    except FileNotFoundError:
        return None
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        path.unlink(missing_ok=True)
        return None


async def follow(
    folder: Path, *, spawned_at: Callable[[], float | None], restart: Callable[[], Awaitable[None]]
) -> bool:
    """One look: restart the engine if that is asked for and the one that runs is the one that is meant. `spawned_at`
    is when its process was started, None while there is none."""
    request, spawned = take(folder), spawned_at()
    if request is None or spawned is None:
        return False
    if request.started_at < spawned - _SLACK_S:
        return False  # it was restarted since
    await restart()
    return True
