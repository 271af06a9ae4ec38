"""A job that a worker has: its process, what was heard of it, and the small steps that every phase takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Unpack

from training.jobs.means import House, Place, Ruling, Standing, Terms
from training.jobs.store import Jobs
from training.jobs.telling import Tail, checkpoint, told
from training.jobs.turns import Fields, Holder
from training.jobs.values import Job, JobError, JobEvent, JobState, Level, Phase, event_id
from training.launchers.errors import LauncherAway
from training.launchers.values import Launcher, Running
from training.recipes.progress import Saved

_WAITED_S: Final = 60.0


class Ended(Exception):
    """How a phase says that the job is over, or is paused because somebody must do something first."""

    def __init__(self, state: JobState, error: JobError | None = None, *, files: tuple[str, ...] = ()) -> None:
        self.state, self.error, self.files = state, error, files
        self.message = error.message if error else "The job has successfully completed"
        super().__init__(self.message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What phases work with."""

    jobs: Jobs
    house: House
    runs: Path
    launcher: Launcher
    near: Launcher
    terms: Terms
    clock: Callable[[], float]


@dataclass(slots=True)
class Held:
    """A job that this worker has, with what it knows of it besides."""

    job: Job
    folder: Path
    holder: Holder = field(init=False)
    tail: Tail = field(init=False)
    running: Running | None = None
    ending_since: float | None = None
    killed: bool = False
    #: Starts in a row that came no further, and the step that was saved before the last one.
    restarts: int = 0
    saved: int = 0
    again_at: float = 0.0
    waiting_since: float = 0.0
    ruling: Ruling | None = None
    #: When this worker first saw a step of the run, and which.
    began: tuple[float, int] | None = None
    foreseen_at: float = 0.0

    def __post_init__(self) -> None:
        self.holder = Holder(worker=self.job.worker, attempt=self.job.attempt)
        self.tail = Tail(self.folder)


def say(held: Held, tools: Tools, level: Level, message: str, *, what: str) -> None:
    """Tell one thing of a job; `what` names it, so that it is told once."""
    tools.jobs.say([spoken(held.job, level, message, what=what, now=tools.clock())])


def spoken(job: Job, level: Level, message: str, *, what: str, now: float) -> JobEvent:
    """Something that the runner says of a job."""
    return JobEvent(id=event_id(job.id, "runner", what), job=job.id, at=now, level=level, message=message)


def move_on(held: Held, tools: Tools, phase: Phase, /, **fields: Unpack[Fields]) -> None:
    """Write down where the job stands. JobConflict where it is not ours any more, or is to pause."""
    if phase is not held.job.phase:
        held.restarts, held.again_at, held.waiting_since = 0, 0.0, 0.0
        fields["handle"] = ""
    fields["phase"] = phase
    held.job = tools.jobs.move(
        held.job.id, JobState.RUNNING, expected=JobState.RUNNING, now=tools.clock(), holder=held.holder, **fields
    )


def pass_on(held: Held, tools: Tools) -> None:
    """Tell what the run said since the last time."""
    while True:
        before, events = held.tail.offset, []
        for at, event in held.tail.read():
            if (line := told(held.job, at, event, now=tools.clock())) is not None:
                events.append(line)
            if isinstance(event, Saved):
                tools.jobs.checkpoint(checkpoint(held.job, event, held.tail, now=tools.clock()))
        tools.jobs.say(events)
        if held.tail.offset == before:
            return


def stop(held: Held, tools: Tools, *, at_once: bool = False) -> bool:
    """Ask the job's process to end, and whether it has; one that takes too long is ended. Called until it says so."""
    if held.running is None:
        return True
    now = tools.clock()
    try:
        if held.ending_since is None or (at_once and not held.killed):
            held.running.stop(kill=at_once)
            held.ending_since, held.killed = now, at_once
        elif now - held.ending_since > tools.terms.grace_s and not held.killed:
            held.running.stop(kill=True)
            held.killed = True
        if held.running.poll() is None:
            return False
    except LauncherAway:
        return False  # it may well run on: asked again the next time
    if held.job.phase is Phase.TRAIN:
        pass_on(held, tools)
    held.running, held.ending_since, held.killed = None, None, False
    return True


def died(held: Held, tools: Tools, what: str, code: int) -> None:
    """A process ended without a word of why: it is started again, unless it comes no further. Raises Ended."""
    training = held.job.phase is Phase.TRAIN
    held.restarts = 1 if training and held.tail.saved > held.saved else held.restarts + 1
    how = f"by signal {-code}" if code < 0 else f"with code {code}"
    if held.restarts > tools.terms.restarts_max:
        text = (
            f"The {what} ended {how}, {held.restarts} times in a row without coming further. Signal 9 is mostly "
            "memory that ran out: lower optim.batch or data.tokens_max. Its log says more."
        )
        raise Ended(JobState.FAILED, JobError(code=f"{what}_ended", message=text))
    since = f" from step {held.tail.saved}" if held.tail.saved and training else ""
    text = f"The {what} ended {how}; it is started again{since}"
    say(held, tools, "warn", text, what=f"{held.job.attempt}/{what}/died/{held.tail.offset}/{held.restarts}")
    held.again_at = tools.clock() + 2.0 ** (held.restarts - 1)


def standing(held: Held, tools: Tools) -> Standing:
    """Where the job's version stands. Raises Ended where it was rejected."""
    found, now = tools.house.standing(held.job), tools.clock()
    if found.place is Place.REJECTED:
        raise Ended(JobState.FAILED, JobError(code="rejected", message=found.why))
    held.waiting_since = held.waiting_since or now
    if now - held.waiting_since > _WAITED_S and found.why:
        what = f"{held.job.attempt}/{held.job.phase}/waits"
        say(held, tools, "warn", f"{held.job.name}:{held.job.version} waits: {found.why}", what=what)
    return found
