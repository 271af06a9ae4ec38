"""What people may ask of a job: to stop, to wait, to go on. The worker that has it obeys within a round."""

from __future__ import annotations

from typing import Final

from training.jobs.errors import JobConflict
from training.jobs.held import spoken
from training.jobs.store import Jobs
from training.jobs.values import FINAL, Job, JobState

_UNDER_WAY: Final = frozenset(JobState) - FINAL


def cancel(jobs: Jobs, id_: str, *, now: float) -> Job:
    """End it for good; its process ends soon after. JobNotFound; JobConflict where it is over."""
    job = jobs.move(id_, JobState.CANCELLED, expected=_UNDER_WAY, now=now)
    jobs.say([spoken(job, "info", "The job was cancelled.", what="cancelled", now=now)])
    return job


def pause(jobs: Jobs, id_: str, *, now: float) -> Job:
    """Let it wait: one that runs stops at its next look, and goes on from its last checkpoint when it is resumed.
    Pausing again changes nothing. JobNotFound, JobConflict."""
    job = jobs.get(id_)
    if job.state in (JobState.PAUSING, JobState.PAUSED):
        return job
    try:
        return jobs.move(id_, JobState.PAUSING, expected=JobState.RUNNING, now=now)
    except JobConflict:  # it waits for a worker, so nobody has to stop anything
        return jobs.move(id_, JobState.PAUSED, expected=JobState.QUEUED, now=now)


def resume(jobs: Jobs, id_: str, *, now: float) -> Job:
    """Let it go on. JobNotFound; JobConflict where it is not paused."""
    job = jobs.move(id_, JobState.QUEUED, expected=JobState.PAUSED, now=now)
    jobs.say([spoken(job, "info", "The job goes on.", what=f"resumed/{job.attempt}", now=now)])
    return job
