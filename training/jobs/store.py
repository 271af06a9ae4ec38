"""Rows of jobs: the Protocol, and the twin in memory. turns.py says what may change."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Protocol, Unpack

from training.jobs import turns
from training.jobs.errors import JobNotFound
from training.jobs.turns import Fields, Holder, Wanted
from training.jobs.values import Checkpoint, Job, JobEvent, JobState


class Jobs(Protocol):
    """What routes, the worker and the CLI need. Synchronous; all may raise JobsUnavailable."""

    def create(self, job: Job) -> Job:
        """Insert it. Where the tenant has a job of the same `idem` already, that one is returned as it stands."""
        ...

    def get(self, id_: str) -> Job:
        """JobNotFound."""
        ...

    def list(
        self, tenant: str | None = None, *, after: str = "", limit: int = 20, state: JobState | None = None
    ) -> tuple[Job, ...]:
        """The newest first, from the one that follows `after`; of one tenant or of all. JobNotFound for `after`."""
        ...

    def claim(self, worker: str, *, now: float, stale_s: float) -> Job | None:
        """Take a job that nobody works on: queued, or running or pausing with a heartbeat that is too old. Those go
        first, then whoever's turn it is: the tenant that was served least recently, and its oldest. A queued one is
        running then; the attempt is one more. None where there is none."""
        ...

    def beat(self, id_: str, worker: str, attempt: int, now: float) -> bool:
        """Say that the worker lives. False: it does not have the job any more, and must let go of its process."""
        ...

    def move(
        self,
        id_: str,
        state: JobState,
        *,
        expected: Wanted,
        now: float,
        holder: Holder | None = None,
        **fields: Unpack[Fields],
    ) -> Job:
        """Compare-and-set: from one of `expected` to `state`, with whatever else changes; `holder`, where given, must
        be who has it. The same state again changes the fields only. JobNotFound, JobConflict."""
        ...

    def say(self, events: Iterable[JobEvent]) -> None:
        """Keep events, in their order; known ids are passed over."""
        ...

    def events(self, id_: str, after: str = "", limit: int = 20, *, oldest_first: bool = False) -> tuple[JobEvent, ...]:
        """The newest first (as OpenAI lists them), from the one that follows the event `after`. JobNotFound."""
        ...

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint; a known id is replaced."""
        ...

    def checkpoints(self, id_: str, after: str = "", limit: int = 10) -> tuple[Checkpoint, ...]:
        """The newest first. JobNotFound."""
        ...


class MemoryJobs:
    """The twin for tests; one process, any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._jobs: dict[str, Job] = {}
        self._events: dict[str, dict[str, JobEvent]] = {}
        self._checkpoints: dict[str, dict[str, Checkpoint]] = {}

    def create(self, job: Job) -> Job:
        with self._lock:
            for known in self._jobs.values():
                if known.id == job.id or (job.idem and (known.tenant, known.idem) == (job.tenant, job.idem)):
                    return known
            self._jobs[job.id] = job
            return job

    def get(self, id_: str) -> Job:
        if (found := self._jobs.get(id_)) is None:
            raise JobNotFound(id_)
        return found

    def list(
        self, tenant: str | None = None, *, after: str = "", limit: int = 20, state: JobState | None = None
    ) -> tuple[Job, ...]:
        with self._lock:
            found = [job for job in self._jobs.values() if tenant in (None, job.tenant) and state in (None, job.state)]
            edge = self.get(after) if after else None
        found.sort(key=lambda job: (job.created_at, job.id), reverse=True)
        if edge is not None:
            found = [job for job in found if (job.created_at, job.id) < (edge.created_at, edge.id)]
        return tuple(found[:limit])

    def claim(self, worker: str, *, now: float, stale_s: float) -> Job | None:
        with self._lock:
            served: dict[str, float] = {}
            for job in self._jobs.values():
                served[job.tenant] = max(job.heartbeat_at, served.get(job.tenant, 0.0))
            for job in sorted(self._jobs.values(), key=lambda job: turns.turn(job, served[job.tenant])):
                if turns.free(job, now=now, stale_s=stale_s):
                    taken = turns.claimed(job, worker, now=now)
                    self._jobs[job.id] = taken
                    return taken
            return None

    def beat(self, id_: str, worker: str, attempt: int, now: float) -> bool:
        with self._lock:
            if not turns.has(job := self.get(id_), Holder(worker=worker, attempt=attempt)):
                return False
            self._jobs[id_] = turns.beaten(job, now)
            return True

    def move(
        self,
        id_: str,
        state: JobState,
        *,
        expected: Wanted,
        now: float,
        holder: Holder | None = None,
        **fields: Unpack[Fields],
    ) -> Job:
        with self._lock:
            moved = turns.moved(self.get(id_), state, expected=expected, now=now, holder=holder, fields=fields)
            self._jobs[id_] = moved
            return moved

    def say(self, events: Iterable[JobEvent]) -> None:
        with self._lock:
            for event in events:
                self._events.setdefault(event.job, {}).setdefault(event.id, event)

    def events(self, id_: str, after: str = "", limit: int = 20, *, oldest_first: bool = False) -> tuple[JobEvent, ...]:
        with self._lock:
            self.get(id_)
            found = list(self._events.get(id_, {}).values())
        return _from(found if oldest_first else found[::-1], [event.id for event in found], after, limit, oldest_first)

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        with self._lock:
            self._checkpoints.setdefault(checkpoint.job, {})[checkpoint.id] = checkpoint

    def checkpoints(self, id_: str, after: str = "", limit: int = 10) -> tuple[Checkpoint, ...]:
        with self._lock:
            self.get(id_)
            found = sorted(self._checkpoints.get(id_, {}).values(), key=lambda one: one.step, reverse=True)
        edge = next((one.step for one in found if one.id == after), None)
        return tuple([one for one in found if edge is None or one.step < edge][:limit])


def _from(
    found: Sequence[JobEvent], order: Sequence[str], after: str, limit: int, oldest_first: bool
) -> tuple[JobEvent, ...]:
    """The events that follow `after`; all of them where it is unknown, since events are dropped in time."""
    if after in order:
        at = order.index(after)
        found = found[at + 1 :] if oldest_first else found[len(order) - at :]
    return tuple(found[:limit])
