"""Jobs as frozen values, and which state follows which. Times are unix seconds."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal


class JobState(StrEnum):
    """Where a job stands, in OpenAI's words."""

    VALIDATING = "validating_files"  # until its files are known to be good
    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"  # its process is being asked to stop
    PAUSED = "paused"
    SUCCEEDED = "succeeded"  # the gate passed, and what was trained is served
    FAILED = "failed"
    CANCELLED = "cancelled"


#: Which state may follow which. A run that is given back when its worker ends is queued again.
MOVES: Final[dict[JobState, frozenset[JobState]]] = {
    JobState.VALIDATING: frozenset({JobState.QUEUED, JobState.FAILED, JobState.CANCELLED}),
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.PAUSED, JobState.FAILED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset(
        {JobState.QUEUED, JobState.PAUSING, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}
    ),
    JobState.PAUSING: frozenset({JobState.PAUSED, JobState.FAILED, JobState.CANCELLED}),
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}

#: Nothing follows.
FINAL: Final = frozenset(state for state, after in MOVES.items() if not after)
#: A worker has it, or had it.
HELD: Final = frozenset({JobState.RUNNING, JobState.PAUSING})


class Phase(StrEnum):
    """What a running job is doing. Each may be done again by a worker that takes the job over."""

    DATA = "data"
    TRAIN = "train"
    PUBLISH = "publish"
    EVALUATE = "evaluate"
    DECIDE = "decide"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobError:
    """Why a job failed: a stable code, words, and what of the request is to blame ("" for nothing in it)."""

    code: str
    message: str
    param: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training, from the request to what is served. Every change is a compare-and-set on its state."""

    id: str
    tenant: str
    #: Who asked for it: a key's name, or a person.
    owner: str = ""
    state: JobState = JobState.VALIDATING
    phase: Phase = Phase.DATA
    #: How often a worker took it.
    attempt: int = 0
    worker: str = ""
    heartbeat_at: float = 0.0
    created_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    #: The adapter's name in the registry.
    name: str
    #: The recipe document, complete. `data.train` and `data.held` may be file ids or dataset digests.
    recipe: Mapping[str, Any]
    #: The request as its client sent it.
    asked: Mapping[str, Any] = field(default_factory=dict)
    #: Ids of files (`file-…`), digests of datasets (`sha256:…`), "" for none.
    training_file: str = ""
    validation_file: str = ""
    #: The model that the client asked to start from.
    model: str = ""
    suffix: str = ""
    seed: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    #: Deduplication: of one tenant's jobs one has it. "" for none.
    idem: str = ""
    #: Number of the version that was published, once it was.
    version: int | None = None
    trained_tokens: int | None = None
    error: JobError | None = None
    #: Ids of files of purpose fine-tune-results.
    result_files: tuple[str, ...] = ()
    #: How many trainings lie between the base and the result; 0 until known.
    generation: int = 0
    #: What the launcher needs to find the process again, "" for none.
    handle: str = ""
    #: When the run should be done, where that is known.
    finish_at: float | None = None

    @property
    def over(self) -> bool:
        return self.state in FINAL


Level = Literal["info", "warn", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """What happened to a job. The id follows from what is told, so telling it again adds nothing."""

    id: str
    job: str
    at: float
    level: Level = "info"
    message: str
    kind: Literal["message", "metrics"] = "message"
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A place that a run can go on from. It holds pickles: it is kept, and never handed out."""

    id: str
    job: str
    at: float
    step: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    folder: str = ""


def new_id() -> str:
    """A new job's id, 96 random bits."""
    return f"ftjob-{secrets.token_hex(12)}"


def event_id(job: str, source: str, at: int | str) -> str:
    """An event's id, by where it was read: the same line has the same id, whoever reads it."""
    return f"ftevent-{hashlib.sha256(f'{job}|{source}|{at}'.encode()).hexdigest()[:24]}"


def checkpoint_id(job: str, step: int) -> str:
    """A checkpoint's id: a run that is gone through again makes the same ones."""
    return f"ftckpt-{hashlib.sha256(f'{job}|{step}'.encode()).hexdigest()[:24]}"
