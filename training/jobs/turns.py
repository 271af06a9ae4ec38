"""What may become of a job: pure, so that the twin in memory and the one in SQL cannot differ."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TypeAlias, TypedDict

from training.jobs.errors import JobConflict
from training.jobs.values import FINAL, HELD, MOVES, Job, JobError, JobState, Phase

#: The state or states that a job must be in for a move.
Wanted: TypeAlias = JobState | Collection[JobState]


class Fields(TypedDict, total=False):
    """What else may change with a move."""

    phase: Phase
    version: int
    trained_tokens: int
    error: JobError
    result_files: tuple[str, ...]
    generation: int
    handle: str
    finish_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A worker at one of its attempts: who took a job over in between has another."""

    worker: str
    attempt: int


def free(job: Job, *, now: float, stale_s: float) -> bool:
    """Whether a worker may take it."""
    return job.state is JobState.QUEUED or (job.state in HELD and job.heartbeat_at < now - stale_s)


def turn(job: Job, served: float) -> tuple[bool, float, float, str]:
    """In which order jobs are taken: what has begun, then the tenants in turn. `served`: when a worker last had one of
    the tenant's jobs."""
    return job.state is JobState.QUEUED, served, job.created_at, job.id


def claimed(job: Job, worker: str, *, now: float) -> Job:
    """The job as its new worker has it. One that was asked to pause stays so: the worker obeys."""
    state = JobState.RUNNING if job.state is JobState.QUEUED else job.state
    started = job.started_at if job.started_at is not None else now
    return replace(job, state=state, worker=worker, attempt=job.attempt + 1, heartbeat_at=now, started_at=started)


def has(job: Job, holder: Holder) -> bool:
    """Whether the worker still has the job."""
    return job.state in HELD and (job.worker, job.attempt) == (holder.worker, holder.attempt)


def beaten(job: Job, now: float) -> Job:
    """The job with its worker's last sign of life."""
    return replace(job, heartbeat_at=now)


def moved(job: Job, state: JobState, *, expected: Wanted, now: float, holder: Holder | None, fields: Fields) -> Job:
    """The job after the move. Raises JobConflict."""
    wanted = (expected,) if isinstance(expected, JobState) else tuple(expected)
    if job.state not in wanted:
        listed = " or ".join(sorted(wanted))
        over = " It is over: create a new one." if job.state in FINAL else ""
        raise JobConflict(f"{job.id} is {job.state}, and only one that is {listed} can become {state}.{over}")
    if state is not job.state and state not in MOVES[job.state]:
        raise JobConflict(f"{job.id} is {job.state}, after which it cannot become {state}.")
    if holder is not None and not has(job, holder):
        who = job.worker or "nobody"
        raise JobConflict(f"{job.id} is not {holder.worker}'s any more: {who} has it, attempt {job.attempt}.")
    if state in (JobState.QUEUED, JobState.SUCCEEDED):
        job = replace(job, error=None)  # what made it pause is over
    after = replace(job, state=state, **fields)
    if state not in HELD:
        after = replace(after, worker="")
    if state in FINAL:
        after = replace(after, finished_at=now, finish_at=None, handle="")
    return after
