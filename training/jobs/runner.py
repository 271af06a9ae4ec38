"""Moves jobs on: takes them, runs their processes, obeys pauses and cancellations, and follows each to its end.

One round is `step`, signs of life are `beat`; both block, and are called from threads of one worker. What happens in a
phase stands in phases.py. Whatever ends this worker, the next one takes its jobs over where the rows and the runs'
folders say they stand.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Final, Unpack

from adapters.errors import AdapterError
from training.errors import TrainingError
from training.jobs.errors import JobConflict, JobNotFound, JobRefused, JobsUnavailable
from training.jobs.held import Ended, Held, Tools, spoken, stop
from training.jobs.means import House, Terms
from training.jobs.phases import PHASES
from training.jobs.store import Jobs
from training.jobs.turns import Fields, Holder
from training.jobs.values import HELD, Job, JobError, JobState, Level, Phase
from training.launchers.values import Launcher

_LOOKED_AT: Final = 100
_SWEEP_EVERY_S: Final = 60.0
_AGAIN_S: Final = 5.0


class Runner:
    """One worker's part of the jobs."""

    def __init__(
        self,
        jobs: Jobs,
        house: House,
        runs: Path,
        worker: str,
        *,
        launcher: Launcher,
        near: Launcher,
        terms: Terms = Terms(),  # noqa: B008 - frozen
        clock: Callable[[], float] = time.time,
        patience_s: float | None = 0.2,
        ended: Callable[[Job], object] = lambda job: None,
    ) -> None:
        """`launcher` starts trainings, `near` what must reach the engines from this machine. A step waits `patience_s`
        for phases, or for all of them to return; `ended` is told of each job that is over."""
        self._jobs, self._house, self._worker, self._terms, self._clock = jobs, house, worker, terms, clock
        self._tools = Tools(jobs=jobs, house=house, runs=runs, launcher=launcher, near=near, terms=terms, clock=clock)
        self._patience_s, self._ended = patience_s, ended
        self._pool = ThreadPoolExecutor(max_workers=terms.at_once, thread_name_prefix="job")
        self._busy: dict[str, Future[None]] = {}
        self._held: dict[str, Held] = {}
        self._leaving: list[Held] = []
        self._lost: set[str] = set()
        self._lock = threading.Lock()
        self._swept_at = 0.0

    @property
    def running(self) -> int:
        """Jobs that this worker has."""
        return len(self._held)

    def step(self) -> None:
        """One round over everything. A phase that takes long goes on beside the rounds, so that no job waits for
        another's. Raises JobsUnavailable, and whatever nobody foresaw; then it is called again."""
        self._look_at_new()
        with self._lock:
            free = [held for id_, held in self._held.items() if id_ not in self._busy]
        for held in free:
            self._busy[held.job.id] = self._pool.submit(self._advance, held)
        wait(self._busy.values(), timeout=self._patience_s)
        ended = {id_: self._busy.pop(id_) for id_, future in list(self._busy.items()) if future.done()}
        self._leaving = [held for held in self._leaving if not stop(held, self._tools)]
        while len(self._held) < self._terms.at_once and self._take():
            pass
        if self._clock() - self._swept_at >= _SWEEP_EVERY_S:
            self._sweep()
            self._swept_at = self._clock()
        for future in ended.values():
            future.result()

    def beat(self) -> None:
        """Say of every job that this worker lives; what it has lost is let go at the next step."""
        with self._lock:
            held = [each.job for each in self._held.values()]
        for job in held:
            if not self._beats(job):
                with self._lock:
                    self._lost.add(job.id)

    def close(self) -> None:
        """Give everything back: processes end, where they do not outlive this worker, and the next one goes on."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        wait(self._busy.values(), timeout=self._terms.grace_s)
        ending = [] if self._terms.outlives else [*self._held.values(), *self._leaving]
        until = time.monotonic() + self._terms.grace_s
        while [held for held in ending if not stop(held, self._tools)] and time.monotonic() < until:
            time.sleep(0.05)
        stuck = {id_ for id_, future in self._busy.items() if not future.done()}
        for held in [each for id_, each in self._held.items() if id_ not in stuck]:
            if stop(held, self._tools, at_once=True) if not self._terms.outlives else True:
                # What is paused, cancelled or somebody else's by now is left to whoever has it.
                with suppress(JobConflict, JobNotFound):
                    left = held.job.handle if self._terms.outlives else ""
                    self._move(held, JobState.QUEUED, expected=JobState.RUNNING, handle=left)
            self._drop(held)

    # Each job

    def _advance(self, held: Held) -> None:
        held.job = self._jobs.get(held.job.id)
        with self._lock:
            lost = held.job.id in self._lost
        if lost or not self._ours(held):
            self._lose(held)
            return
        try:
            if held.job.state is JobState.PAUSING:
                self._pause(held)
            elif self._clock() >= held.again_at:
                PHASES[held.job.phase](held, self._tools)
        except Ended as end:
            self._end(held, end)
        except JobConflict:
            self._lose(held)  # cancelled, paused or taken over while we were at it: the next look says which
        except JobsUnavailable:
            raise
        except (TrainingError, AdapterError, OSError) as error:
            self._stumble(held, error)

    def _stumble(self, held: Held, error: TrainingError | AdapterError | OSError) -> None:
        """A failure that we know: waited out where it may pass, the end of the job where not."""
        if isinstance(error, OSError) or error.retryable:
            held.again_at = self._clock() + _AGAIN_S
            code = "io_error" if isinstance(error, OSError) else error.code
            text = f"{held.job.phase} waits: {error}"
            self._say(held.job, "warn", text, what=f"{held.job.attempt}/{held.job.phase}/{code}")
            return
        code = error.why if isinstance(error, JobRefused) else error.code
        self._end(held, Ended(JobState.FAILED, JobError(code=code, message=str(error), param=_param(error))))

    def _end(self, held: Held, end: Ended) -> None:
        """What a phase ended the job with."""
        fields: Fields = {}
        if end.error is not None:
            fields["error"] = end.error
        if end.files:
            fields["result_files"] = end.files
        now = self._clock()
        try:
            if end.state is JobState.PAUSED:
                self._move(held, JobState.PAUSING, expected=JobState.RUNNING)
            held.job = self._jobs.move(held.job.id, end.state, expected=HELD, now=now, holder=held.holder, **fields)
        except JobConflict:
            self._lose(held)
            return
        level: Level = "error" if end.state is JobState.FAILED else "warn" if end.error else "info"
        self._say(held.job, level, end.message, what=f"{held.job.attempt}/{end.state}")
        if held.job.over:
            self._ended(held.job)
        if end.state is JobState.FAILED and held.job.version is not None:
            self._house.abandon(held.job, end.message)
        if end.state is JobState.SUCCEEDED:
            shutil.rmtree(held.folder / "checkpoints", ignore_errors=True)  # large, and nobody goes on from them
        self._leave(held)

    def _pause(self, held: Held) -> None:
        """Its process ends first, so that nothing writes into a run that is paused."""
        if stop(held, self._tools):
            held.job = self._move(held, JobState.PAUSED, expected=JobState.PAUSING, handle="")
            step = f" after step {held.tail.step}" if held.tail.step else ""
            self._say(held.job, "info", f"The job is paused{step}.", what=f"{held.job.attempt}/paused")
            self._drop(held)

    def _lose(self, held: Held) -> None:
        """The job is not ours any more. Its process ends, unless it is the one that its new worker found again."""
        job = self._jobs.get(held.job.id)
        if self._ours(held, job) and not self._is_lost(job.id):
            return  # it is to pause, and the next look says so
        if self._terms.outlives and not job.over:
            self._drop(held)
        else:
            self._leave(held, at_once=job.state in HELD)
        if job.state is JobState.CANCELLED:
            self._say(job, "info", "The job was cancelled.", what="cancelled")
            if job.version is not None:
                self._house.abandon(job, f"its job was {job.state}")

    def _leave(self, held: Held, *, at_once: bool = False) -> None:
        if not stop(held, self._tools, at_once=at_once):
            self._leaving.append(held)
        self._drop(held)

    # Taking jobs

    def _look_at_new(self) -> None:
        """What waits for its files."""
        for job in self._jobs.list(state=JobState.VALIDATING, limit=_LOOKED_AT):
            try:
                if self._house.ready(job):
                    self._jobs.move(
                        job.id, JobState.QUEUED, expected=JobState.VALIDATING, now=self._clock(), phase=Phase.DATA
                    )
                    self._say(job, "info", "Files validated, moving job to queued state", what="queued")
            except (JobConflict, OSError):
                continue  # somebody was quicker, or the disk is away: looked at again the next time
            except JobsUnavailable:
                raise
            except (TrainingError, AdapterError) as error:
                if not error.retryable:
                    self._refuse(job, error)

    def _refuse(self, job: Job, error: TrainingError | AdapterError) -> None:
        code = error.why if isinstance(error, JobRefused) else error.code
        why = JobError(code=code, message=str(error), param=_param(error))
        try:
            self._jobs.move(job.id, JobState.FAILED, expected=JobState.VALIDATING, now=self._clock(), error=why)
        except JobConflict:
            return
        self._say(job, "error", str(error), what="refused")

    def _take(self) -> bool:
        job = self._jobs.claim(self._worker, now=self._clock(), stale_s=self._terms.stale_s)
        if job is None:
            return False
        held = Held(job=job, folder=self._tools.runs / job.id)
        with self._lock:
            self._lost.discard(job.id)
            self._held[job.id] = held
        text = "Fine-tuning job started" if job.attempt == 1 else f"Worker {self._worker} goes on with {job.phase}"
        self._say(job, "info", text, what=f"{job.attempt}/taken")
        if job.attempt > self._terms.attempts_max:
            text = f"{job.attempt} workers took this job and none came to its end: it is given up."
            self._end(held, Ended(JobState.FAILED, JobError(code="too_many_attempts", message=text)))
        return True

    def _sweep(self) -> None:
        """Versions of jobs that ended while no worker had them, or when their worker was killed."""
        ended = (JobState.CANCELLED, JobState.FAILED)
        for job in [each for state in ended for each in self._jobs.list(state=state, limit=_LOOKED_AT)]:
            if job.version is not None:
                self._house.abandon(job, f"its job was {job.state}")

    # Small things

    def _ours(self, held: Held, job: Job | None = None) -> bool:
        job = job or held.job
        return job.state in HELD and held.holder == Holder(worker=job.worker, attempt=job.attempt)

    def _is_lost(self, id_: str) -> bool:
        with self._lock:
            return id_ in self._lost

    def _beats(self, job: Job) -> bool:
        try:
            return self._jobs.beat(job.id, self._worker, job.attempt, self._clock())
        except JobNotFound:
            return False

    def _drop(self, held: Held) -> None:
        with self._lock:
            self._held.pop(held.job.id, None)
            self._lost.discard(held.job.id)

    def _move(self, held: Held, state: JobState, *, expected: JobState, **fields: Unpack[Fields]) -> Job:
        return self._jobs.move(held.job.id, state, expected=expected, now=self._clock(), holder=held.holder, **fields)

    def _say(self, job: Job, level: Level, message: str, *, what: str) -> None:
        self._jobs.say([spoken(job, level, message, what=what, now=self._clock())])


def _param(error: Exception) -> str:
    """What of the request an error blames."""
    return str(getattr(error, "param", None) or "")
