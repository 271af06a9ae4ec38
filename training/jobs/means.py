"""What a runner is given: limits, and the house that its jobs live in. The gateway's `tuning` room is that house."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from training.jobs.values import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a runner may take, and for how long it waits."""

    #: Jobs that this worker runs at once.
    at_once: int = 1
    #: Memory for the trainings of all of them together; each gets an equal share. None: no limit of ours.
    memory_gib: float | None = None
    #: After so long without a sign of life a job is anybody's.
    stale_s: float = 30.0
    #: Time that a process gets between being asked to end and being ended.
    grace_s: float = 20.0
    #: How often in a row a process may die without having come further.
    restarts_max: int = 3
    #: How often workers may take a job before it counts as what ends them.
    attempts_max: int = 50
    #: Whether processes outlive this worker, and are found again by their handle.
    outlives: bool = False

    @property
    def share_gib(self) -> float | None:
        """Memory of one training."""
        return None if self.memory_gib is None else self.memory_gib / self.at_once


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a training is started with. Fixed when the job starts: `live` may point elsewhere by its second attempt."""

    base: Path
    #: The adapter to go on from.
    start: Path | None = None


class Place(StrEnum):
    """Where a published version stands."""

    WAITING = "waiting"  # for its first forward, or for an engine that holds it
    HELD = "held"  # an engine holds it, nobody else sees it: it can be asked
    SERVING = "serving"  # whoever names it is answered
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a version stands, and why."""

    place: Place
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What the gate says of a job's version."""

    passed: bool
    reasons: tuple[str, ...] = ()


class House(Protocol):
    """What jobs need of the installation. Every method may block, and may be called again by whoever takes a job over:
    then it finds what was done. Errors of ours that are retryable are tried again later, others end the job."""

    def ready(self, job: Job) -> bool:
        """Whether the job's files are there and good; False while they are looked at. Raises JobRefused, BadRecipe."""
        ...

    def prepare(self, job: Job, run: Path) -> Prepared:
        """Write `recipe.yaml` into the run's folder, with the paths of what the recipe names. Raises JobRefused."""
        ...

    def publish(self, job: Job, run: Path) -> int:
        """Register what was trained; the number of its version."""
        ...

    def standing(self, job: Job) -> Standing:
        """Where the job's version stands."""
        ...

    def plan(self, job: Job, run: Path) -> Path:
        """Write what `python -m training.evaluation` is to ask."""
        ...

    def decide(self, job: Job, run: Path) -> Ruling:
        """Ask the gate, and keep its verdict as evidence: the fleet admits or rejects by it."""
        ...

    def attach(self, job: Job, run: Path) -> tuple[str, ...]:
        """Make files of the run's results; their ids."""
        ...

    def abandon(self, job: Job, why: str) -> None:
        """The job ended without a version that may serve: one that it had published is rejected."""
        ...
