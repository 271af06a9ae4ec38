"""What a supervised process is: how to start it, how to tell that it serves, how it stands. Nothing is started here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO

LOG_BYTES_MAX = 16 << 20


class State(StrEnum):
    STARTING = "starting"
    READY = "ready"
    BACKOFF = "backoff"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


class ChildFailed(Exception):
    """A process never became ready, however often it was started; the message holds the end of its log."""

    code = "child_failed"
    retryable = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Pauses between starts. After `healthy_s` of being ready, the next failure counts as the first again."""

    first_s: float = 0.5
    factor: float = 2.0
    most_s: float = 30.0
    healthy_s: float = 60.0

    def pause_s(self, failures: int) -> float:
        """The pause after the given number of failures in a row, which is at least 1."""
        if failures > 64:
            return self.most_s
        return min(self.most_s, self.first_s * self.factor ** (failures - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """One process. `ready` says whether it serves; raising `OSError`, `TimeoutError` or `EngineError` means no.

    Not ready within `ready_timeout_s`, or once ready not any more for `silent_s_max`: killed and started again.
    After `attempts_max` starts without ever being ready the supervisor gives up. `prepare` runs before each start.
    `yields` is how far it stands back for the other children where processors are scarce, as a nice value.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    log: Path
    ready: Callable[[], Awaitable[bool]]
    prepare: Callable[[], object] | None = None
    ready_timeout_s: float = 300.0
    stop_timeout_s: float = 30.0
    check_every_s: float = 0.25
    silent_s_max: float | None = None
    attempts_max: int | None = 3
    yields: int = 0
    backoff: Backoff = field(default_factory=Backoff)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """`since` is when the state began, in unix seconds; `exit_code` is the last one, 128 + n for a signal. A restart
    that was asked for counts under `recycles`, not `restarts`."""

    name: str
    state: State
    since: float
    pid: int | None = None
    restarts: int = 0
    recycles: int = 0
    exit_code: int | None = None


def log_tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log, for a person to read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - (32 << 10)))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "(there is no log)"


def open_log(path: Path) -> IO[bytes]:
    """Append to the log; one that has grown large is put aside first, over the one put aside before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        if path.stat().st_size > LOG_BYTES_MAX:
            path.replace(path.with_suffix(path.suffix + ".1"))
    return path.open("ab")
