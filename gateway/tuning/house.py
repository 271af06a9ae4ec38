"""`House` of this installation: files and datasets, the registry, the engines, the gate. Every method may be called
again by whoever takes a job over, and then finds what was done."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from adapters.errors import AdapterError, BadName, NotFound, Reason
from adapters.lifecycle import State
from adapters.names import LIVE
from adapters.registry import engine_name
from adapters.store import Version
from gateway.control import Control
from gateway.settings import Settings
from gateway.tuning.signing import make_sign, refuse_unsigned, try_signing
from gateway.tuning.suites import judge_of, suites_for
from training.base import PATH
from training.evaluation.values import Endpoint, Models, Plan
from training.evaluation.values import read as read_plan
from training.files import of_jobs
from training.gate.ruling import rule
from training.jobs.errors import JobRefused
from training.jobs.means import Place, Prepared, Ruling, Standing
from training.jobs.phases import RECIPE
from training.jobs.values import Job
from training.publishing.publish import publish
from training.recipes.recipe import Recipe, build
from training.recipes.recipe import read as read_recipe

PLAN: Final = "plan.json"
_AT_ONCE: Final = 4
_TOKENS_MAX: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What jobs need, from what this installation has."""

    control: Control
    settings: Settings
    clock: Callable[[], float] = time.time

    def ready(self, job: Job) -> bool:
        """Files are read when they arrive, so a job's are good or it is refused; the recipe is looked at again."""
        refuse_unsigned(self.settings, build(dict(job.recipe)))
        of_jobs.ready(self.control.shelves, job, now=self.clock())
        return True

    def prepare(self, job: Job, run: Path) -> Prepared:
        """Compile what is no dataset yet, and write the recipe with the folders' paths."""
        base = self.control.base
        document = of_jobs.document(
            self.control.shelves, job, base=base.folder, base_digest=base.digest, now=self.clock()
        )
        recipe = build(document)
        refuse_unsigned(self.settings, recipe)
        try_signing(self.settings)
        started = self._start(recipe, job, run)
        _write(run / RECIPE, yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode())
        return Prepared(base=base.folder, start=started)

    def publish(self, job: Job, run: Path) -> int:
        sign = make_sign(self.settings)
        return publish(self.control.registry, run, name=job.name, who=_who(job), job=job.id, sign=sign).number

    def standing(self, job: Job) -> Standing:
        version = self._version(job)
        if version.state in (State.REJECTED, State.RETIRED, State.DELETED):
            why = "; ".join(str(reason) for reason in version.reasons) or f"it is {version.state}"
            return Standing(place=Place.REJECTED, why=why)
        if self._replica(version) is None:
            return Standing(place=Place.WAITING, why=f"it is {version.state}, and no engine holds it yet")
        if version.state is State.VERIFIED:
            return Standing(place=Place.SERVING)
        return Standing(place=Place.HELD, why="the gate has not let it in yet")

    def plan(self, job: Job, run: Path) -> Path:
        """Where the version stands now; the file has no key in it that anybody else may read."""
        version, recipe = self._version(job), read_recipe((run / RECIPE).read_text(encoding="utf-8"))
        replica = self._replica(version)
        plan = Plan(
            engine=Endpoint(
                url=self.settings.replicas[replica or next(iter(self.settings.replicas))], at_once=_AT_ONCE
            ),
            models=Models(candidate=engine_name(version), base=self.control.base.name, live=self._live(version) or ""),
            suites=suites_for(recipe, shop=self.control.base.folder == PATH),
            judge=judge_of(self.settings),
            tokens_max=_TOKENS_MAX,
            seed=job.seed,
        )
        _write(run / PLAN, plan.dump())
        return run / PLAN

    def decide(self, job: Job, run: Path) -> Ruling:
        plan = read_plan(self.plan(job, run).read_bytes())
        verdict = rule(self.control.registry, self._version(job), run, plan, who=_who(job))
        return Ruling(passed=verdict.passed, reasons=verdict.reasons)

    def attach(self, job: Job, run: Path) -> tuple[str, ...]:
        shelves = self.control.shelves
        return of_jobs.attached(shelves.files, shelves.shelf, job, run, now=self.clock())

    def abandon(self, job: Job, why: str) -> None:
        """What has not been admitted never will be; what has been is no business of the job's any more."""
        version = self._version(job)
        if version.origin == "training" and version.state in (State.UPLOADED, State.CHECKED, State.PROBED):
            reason = Reason(
                code="job_ended",
                field="",
                found=why[:500],
                allowed="a job that succeeds",
                advice=f"`graftline jobs show {job.id}` says what became of it.",
            )
            self.control.registry.rejected(version, [reason], who=_who(job))

    # Private

    def _version(self, job: Job) -> Version:
        if job.version is None:
            raise JobRefused(f"{job.id} has published nothing yet.", code="not_published")
        return self.control.adapters.get(job.name, job.version)

    def _replica(self, version: Version) -> str | None:
        """An engine that holds the version and serves."""
        name, out = engine_name(version), self.control.fleet.out()
        holding = (replica for replica, names in self.control.fleet.residents().items() if name in names)
        return next((replica for replica in holding if replica in self.settings.replicas and replica not in out), None)

    def _live(self, version: Version) -> str | None:
        """The version of the same name that serves now, where that is another one."""
        for alias in self.control.adapters.aliases(version.name):
            if alias.alias == LIVE and alias.number != version.number:
                live = self.control.adapters.get(version.name, alias.number)
                return engine_name(live) if self._replica(live) is not None else None
        return None

    def _start(self, recipe: Recipe, job: Job, run: Path) -> Path | None:
        """The adapter to go on from: its bytes are checked now, and what they were made from is known to the run."""
        if recipe.start_from == "base":
            return None
        if Path(recipe.start_from).is_absolute():
            return Path(recipe.start_from)
        try:
            asked = job.name if recipe.start_from == "live" else recipe.start_from
            version = self.control.registry.resolve_name(asked)
            folder = self.control.registry.verify(version.name, version.number)
        except (NotFound, BadName) as error:
            raise JobRefused(f"start_from: {error}", code=error.code, param="model") from error
        except AdapterError as error:
            if error.retryable:
                raise
            raise JobRefused(f"start_from: {error}", code=error.code, param="model") from error
        return _beside(folder, run / "start", self._generation(version))

    def _generation(self, version: Version) -> int:
        """How many trainings lie between the base and the version; what others made counts as one."""
        known = self.control.registry.evidence(version.name, version.number, "training")
        told = known[-1].body.get("generation") if known else None
        return int(told) if isinstance(told, int | float) else 1


def _beside(folder: Path, place: Path, generation: int) -> Path:
    """The adapter under a link, with `run.json` beside it as a run leaves it: what goes on from it counts on."""
    place.mkdir(parents=True, exist_ok=True)
    _write(place / "run.json", f'{{"generation": {generation}}}\n'.encode())
    link = place / "adapter"
    link.unlink(missing_ok=True)
    link.symlink_to(folder, target_is_directory=True)
    return link


def _who(job: Job) -> str:
    """As actors are named in audit rows; a version's `ft:` name is read from it (`gateway/routing/tuned.py`)."""
    return f"{job.tenant}/{job.id}"


def _write(path: Path, body: bytes) -> None:
    """Mode 0600, whole or not at all."""
    building = path.with_name(f".{path.name}")
    descriptor = os.open(building, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(body)
    building.replace(path)
