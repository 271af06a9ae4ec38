"""What can go wrong with jobs.

JobError is a value (why a job failed); these are raised:

JobsFailed
├── JobNotFound     there is no such job, or it is another tenant's
├── JobConflict     the job stands elsewhere by now: it is over, or somebody else has it
├── JobRefused      the job can never run: what it names is not there, or the recipe says what no recipe can say
└── JobsUnavailable the database did not answer; nothing changed
"""

from __future__ import annotations

from training.errors import TrainingError


class JobsFailed(TrainingError):
    """Anything that this room refuses."""

    code = "jobs_failed"


class JobNotFound(JobsFailed):
    """There is no such job."""

    code = "job_not_found"

    def __init__(self, id_: str) -> None:
        super().__init__(f"There is no job {id_!r}. `graftline jobs list` names those there are.")


class JobConflict(JobsFailed):
    """The job stands elsewhere by now."""

    code = "job_conflict"


class JobRefused(JobsFailed):
    """The job can never run. `param` names what of the request is to blame."""

    code = "job_refused"

    def __init__(self, message: str, *, code: str = "invalid_job", param: str = "") -> None:
        super().__init__(message)
        self.why = code
        self.param = param


class JobsUnavailable(JobsFailed):
    """The database did not answer."""

    code = "jobs_unavailable"
    retryable = True
