"""`make resume`: `kill -9` at ten random points of a job; what comes out is what an undisturbed run makes, bit by bit.

No engine: the job's training is what is killed. In turn the worker is killed, which takes its training along and whose
job the next worker takes over; or the training alone, which its worker starts again; once while a checkpoint is being
written. The points are drawn anew each time; the table names the seed, and RESUME_SEED repeats it.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import yaml
from rich.console import Console
from rich.table import Table

from monitoring.database import connect
from training.base import PATH
from training.jobs.means import Prepared, Ruling, Standing, Terms
from training.jobs.phases import RECIPE
from training.jobs.runner import Runner
from training.jobs.sql import SqlJobs
from training.jobs.values import FINAL, Job, JobState, Phase, new_id
from training.launchers.local import LocalLauncher

KILLS: Final = int(os.environ.get("RESUME_KILLS", "10"))
STEPS: Final = 60
TIMEOUT_S: Final = 900.0
RECIPES: Final[Mapping[str, Mapping[str, Any]]] = {
    "sft": {
        "name": "resume-sft", "method": "sft", "seed": 7,
        "data": {"train": "tidewell:corrected_fact", "held": "tidewell:corrected_fact"},
        "adapter": {"dropout": 0.1}, "optim": {"steps": STEPS, "save_every": 5, "evaluate_every": 20},
    },
    "dpo": {
        "name": "resume-dpo", "method": "dpo", "seed": 7, "data": {"train": "tidewell:polite_choices"},
        "optim": {"steps": STEPS, "save_every": 5},
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """When to kill, and whom: after `step`, and `wait_s` more; or while a checkpoint is half written."""

    step: int
    wait_s: float
    worker: bool
    writing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a job left."""

    digest: str
    attempts: int
    began: int
    seconds: float
    killed: tuple[str, ...]


def main() -> int:
    if len(sys.argv) == 3 and sys.argv[1] == "--worker":
        _work(Path(sys.argv[2]))
    seed = int(os.environ.get("RESUME_SEED", str(random.SystemRandom().randrange(1_000_000))))
    table = Table("", "method", "kills", "where", "starts", "seconds", "sha256 of the adapter", title_justify="left")
    table.title = f"Killed and resumed (RESUME_SEED={seed})"
    same = True
    for method, recipe in RECIPES.items():
        rng = random.Random(f"{seed} {method}")
        whole, killed = _run(recipe, ()), _run(recipe, tuple(_points(rng)))
        alike = whole.digest == killed.digest and len(killed.killed) == KILLS
        same = same and alike
        for made in (whole, killed):
            where = ", ".join(made.killed) or "undisturbed"
            mark = "ok" if alike else "DIFFERS" if whole.digest != killed.digest else "TOO FEW"
            row = (mark, method, str(len(made.killed)), where, str(made.began), f"{made.seconds:.0f}", made.digest[:32])
            table.add_row(*row)
    Console(width=160).print(table)
    return 0 if same else 1


def _points(rng: random.Random) -> Iterator[Point]:
    """In the order of the run; the first while it starts, one while it writes.

    Each is met by a start of its own: the run comes to it again, from its last checkpoint.
    """
    steps = sorted([0, *(rng.randrange(1, STEPS - 5) for _ in range(KILLS - 1))])
    writing = rng.randrange(2, max(3, KILLS - 1))
    for at, step in enumerate(steps):
        wait_s = rng.uniform(0.5, 8.0) if step == 0 else rng.uniform(0.0, 0.3)
        yield Point(step=step, wait_s=wait_s, worker=rng.random() < 0.5, writing=at == writing)


def _run(recipe: Mapping[str, Any], points: tuple[Point, ...]) -> Made:
    """One job from its row to its adapter."""
    began = time.monotonic()
    killed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="graftline-resume-") as made:
        home = Path(made)
        jobs = SqlJobs(connect(f"sqlite:///{home}/control.db"))
        job = Job(id=new_id(), tenant="default", name=recipe["name"], recipe=recipe, created_at=time.time())
        jobs.create(job)
        run, todo, worker, starts = home / "runs" / job.id, list(points), _worker(home), -1
        try:
            while (job := jobs.get(job.id)).phase is not Phase.PUBLISH:
                if job.state in FINAL:
                    raise SystemExit(f"{job.id} is {job.state}: {job.error}")
                if time.monotonic() - began > TIMEOUT_S:
                    raise SystemExit(f"{job.id} takes longer than {TIMEOUT_S:g} s; its log:\n{_log(run)}")
                if todo and _starts(run) > starts and _there(run, todo[0]):
                    point = todo.pop(0)
                    time.sleep(point.wait_s)
                    if (whom := _kill(worker, point)) is None:
                        todo.insert(0, point)  # it has just ended by itself, or not begun
                    else:
                        starts = _starts(run)
                        killed.append(f"{whom} at {_step(run)}{' writing' if point.writing else ''}")
                        if whom == "worker":
                            worker = _worker(home)
                if worker.poll() is not None:
                    worker = _worker(home)
                time.sleep(0.01)
        finally:
            worker.kill()
            worker.wait()
        return Made(
            digest=_digest(run / "adapter"), attempts=job.attempt, began=_starts(run),
            seconds=time.monotonic() - began, killed=tuple(killed),
        )  # fmt: skip


def _there(run: Path, point: Point) -> bool:
    if point.writing:
        saving = (path for path in (run / "checkpoints").glob("checkpoint-*") if not (path / "whole").exists())
        return any(saving)
    return run.is_dir() and _step(run) >= point.step


def _kill(worker: subprocess.Popen[bytes], point: Point) -> str | None:
    """End the worker or its training, without a word."""
    trainings = list(_trainings(worker.pid))
    if not trainings:
        return None
    if point.worker:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        return "worker"
    os.kill(trainings[0], signal.SIGKILL)
    return "training"


def _trainings(pid: int) -> Iterator[int]:
    """What descends from the worker and trains; what ends while it is looked at is none."""
    try:
        tasks = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return
    for child in " ".join(tasks).split():
        with suppress(OSError):
            command = Path(f"/proc/{child}/cmdline").read_bytes()
            if b"keeper.py" not in command and b"training.recipes" in command:
                yield int(child)
        yield from _trainings(int(child))


def _events(run: Path) -> Iterator[dict[str, Any]]:
    path = run / "events.jsonl"
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def _step(run: Path) -> int:
    """The furthest step of the last start."""
    step = 0
    for event in _events(run):
        if event.get("event") == "began":
            step = 0
        elif event.get("event") == "stepped":
            step = event["step"]
    return step


def _starts(run: Path) -> int:
    return sum(event.get("event") == "began" for event in _events(run))


def _log(run: Path) -> str:
    path = run / "log.txt"
    return path.read_text(errors="replace")[-2000:] if path.is_file() else "(none)"


def _digest(adapter: Path) -> str:
    """Over every file of the adapter."""
    found = hashlib.sha256()
    for path in sorted(adapter.rglob("*")):
        if path.is_file():
            found.update(f"{path.relative_to(adapter)}\n{path.stat().st_size}\n".encode())
            found.update(path.read_bytes())
    return found.hexdigest()


def _worker(home: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "loadtests.resume", "--worker", str(home)], env=environment)


# In the worker's process


class _House:
    """An installation that only trains."""

    def ready(self, job: Job) -> bool:
        return True

    def prepare(self, job: Job, run: Path) -> Prepared:
        (run / RECIPE).write_text(yaml.safe_dump(json.loads(json.dumps(job.recipe))))
        return Prepared(base=PATH)

    def publish(self, job: Job, run: Path) -> int:
        sys.exit(0)

    def standing(self, job: Job) -> Standing:
        raise NotImplementedError

    def plan(self, job: Job, run: Path) -> Path:
        raise NotImplementedError

    def decide(self, job: Job, run: Path) -> Ruling:
        raise NotImplementedError

    def attach(self, job: Job, run: Path) -> tuple[str, ...]:
        raise NotImplementedError

    def abandon(self, job: Job, why: str) -> None:
        raise NotImplementedError


def _work(home: Path) -> NoReturn:
    """Move jobs on until there is nothing left to train."""
    jobs, near = SqlJobs(connect(f"sqlite:///{home}/control.db")), LocalLauncher(nice=0)
    terms = Terms(stale_s=1.0, restarts_max=KILLS + 1)
    runner = Runner(jobs, _House(), home / "runs", f"{os.getpid()}", launcher=near, near=near, terms=terms)
    while all(job.phase is not Phase.PUBLISH for job in jobs.list(state=JobState.RUNNING)):
        runner.step()
        runner.beat()
        time.sleep(0.05)
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
