"""A house, a launcher and a clock for runners, which do what a test says."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from training.jobs.means import Place, Prepared, Ruling, Standing, Terms
from training.jobs.phases import RECIPE
from training.jobs.runner import Runner
from training.jobs.store import MemoryJobs
from training.jobs.values import Job, JobState
from training.launchers.values import LaunchSpec

RECIPE_DOCUMENT: Mapping[str, Any] = {
    "name": "support",
    "method": "sft",
    "data": {"train": "tidewell:corrected_fact"},
    "optim": {"save_every": 5},
}


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeRun:
    """Runs until `code` is set; asked to end, it ends, unless it is deaf."""

    spec: LaunchSpec
    handle: str
    code: int | None = None
    deaf: bool = False
    asked: list[bool] = field(default_factory=list)

    def poll(self) -> int | None:
        return self.code

    def stop(self, kill: bool = False) -> None:
        self.asked.append(kill)
        if self.code is None and (kill or not self.deaf):
            self.code = -9 if kill else -15

    def logs(self) -> Path:
        return self.spec.log


@dataclass
class FakeLauncher:
    """Starts what a test scripted: `script` sees each run that begins."""

    script: Callable[[FakeRun], None] = lambda run: None
    runs: list[FakeRun] = field(default_factory=list)

    def start(self, spec: LaunchSpec) -> FakeRun:
        run = FakeRun(spec, f"fake:{len(self.runs)}")
        self.runs.append(run)
        spec.folder.mkdir(parents=True, exist_ok=True)
        self.script(run)
        return run

    def reattach(self, handle: str) -> FakeRun | None:
        """Also one that has ended, as the real ones do."""
        return next((run for run in self.runs if run.handle == handle), None)


@dataclass
class FakeHouse:
    """An installation that says yes, unless a test sets it otherwise."""

    place: Place = Place.SERVING
    ruling: Ruling = field(default_factory=lambda: Ruling(passed=True))
    raising: dict[str, Exception] = field(default_factory=dict)
    is_ready: bool = True
    asked: list[str] = field(default_factory=list)
    abandoned: dict[str, str] = field(default_factory=dict)

    def ready(self, job: Job) -> bool:
        self._ask("ready")
        return self.is_ready

    def prepare(self, job: Job, run: Path) -> Prepared:
        self._ask("prepare")
        (run / RECIPE).write_text(yaml.safe_dump(dict(job.recipe)))
        return Prepared(base=run)

    def publish(self, job: Job, run: Path) -> int:
        self._ask("publish")
        return 3

    def standing(self, job: Job) -> Standing:
        self._ask("standing")
        return Standing(place=self.place, why="because")

    def plan(self, job: Job, run: Path) -> Path:
        self._ask("plan")
        return run / "plan.json"

    def decide(self, job: Job, run: Path) -> Ruling:
        self._ask("decide")
        return self.ruling

    def attach(self, job: Job, run: Path) -> tuple[str, ...]:
        self._ask("attach")
        return ("file-1",)

    def abandon(self, job: Job, why: str) -> None:
        self.abandoned[job.id] = why

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if what in self.raising:
            raise self.raising[what]


def tell(folder: Path, *events: Mapping[str, Any]) -> None:
    """What a training says."""
    with (folder / "events.jsonl").open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


def stepped(step: int, **numbers: float) -> Mapping[str, Any]:
    return {"event": "stepped", "step": step, "steps": 20, "numbers": {"loss": 1.0 / step, **numbers}}


def saved(step: int) -> Mapping[str, Any]:
    return {"event": "saved", "step": step, "folder": f"/checkpoints/{step}"}


def trained(folder: Path, *, method: str = "sft", said: bool = True) -> None:
    """A training that came to its end; `said`: it lived to say so."""
    (folder / "adapter").mkdir(exist_ok=True)
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "run.json").write_text(json.dumps({"generation": 2, "chosen": {"method": method}}))
    if said:
        tell(folder, {"event": "finished", "folder": "x", "seconds": 1.0, "cpu_seconds": 1.0, "numbers": {}})


def works(run: FakeRun) -> None:
    """Every process does what it should, at once."""
    if run.spec.module == "training.recipes":
        tell(run.spec.folder, stepped(10, num_tokens=640.0), saved(10), stepped(20, num_tokens=1280.0), saved(20))
        trained(run.spec.folder)
    else:
        (run.spec.folder / "evaluation.json").write_text("{}")
    run.code = 0


@dataclass
class Works:
    """One worker with its surroundings; `again()` is the worker after it."""

    runs: Path
    jobs: MemoryJobs = field(default_factory=MemoryJobs)
    house: FakeHouse = field(default_factory=FakeHouse)
    launcher: FakeLauncher = field(default_factory=FakeLauncher)
    near: FakeLauncher = field(default_factory=lambda: FakeLauncher(works))
    clock: Clock = field(default_factory=Clock)
    terms: Terms = field(default_factory=Terms)
    ended: list[Job] = field(default_factory=list)
    made: int = 0

    def __post_init__(self) -> None:
        self.runner = self.again()

    def again(self) -> Runner:
        """Another worker; the one before it does nothing any more."""
        self.made += 1
        self.runner = Runner(
            self.jobs, self.house, self.runs, f"worker-{self.made}", launcher=self.launcher, near=self.near,
            terms=self.terms, clock=self.clock, patience_s=None, ended=self.ended.append,
        )  # fmt: skip
        return self.runner

    def ask(self, id_: str = "ftjob-1", **changes: Any) -> Job:
        fields: dict[str, Any] = {"recipe": RECIPE_DOCUMENT, "created_at": self.clock(), **changes}
        return self.jobs.create(Job(id=id_, tenant="acme", name="support", **fields))

    def go(self, rounds: int = 12) -> Job:
        """So many rounds, a second each."""
        for _ in range(rounds):
            self.clock.now += 1
            self.runner.beat()
            self.runner.step()
        return self.job()

    def job(self, id_: str = "ftjob-1") -> Job:
        return self.jobs.get(id_)

    def said(self, id_: str = "ftjob-1") -> list[str]:
        return [event.message for event in self.jobs.events(id_, "", 500, oldest_first=True)]

    def folder(self, id_: str = "ftjob-1") -> Path:
        return self.runs / id_

    def until(self, state: JobState) -> Job:
        for _ in range(40):
            if self.go(1).state is state:
                return self.job()
        raise AssertionError(f"{self.job()} never became {state}: {self.said()}")
