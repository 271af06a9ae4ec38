"""One run of the bench: trained by the process that `graftline train` starts, then asked through the engine. Light.

What was measured stays in the folder under a key of all that decides it, so a bench that was interrupted goes on, and a
recipe that was changed is measured again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from adapters.checks.parity import Certificate, certificate
from adapters.checks.probe import Prober, Recorded
from adapters.errors import AdapterError
from training.base import NAME, PATH
from training.base.digest import folder_digest
from training.errors import TrainingError
from training.recipes.bench.cases import CASES, Case
from training.recipes.bench.engine import Engine
from training.recipes.bench.exam import Marks, marks

BASE: Final = "base"
#: Where a run leaves what its own model says, to be held against what is served.
_PARITY: Final = "parity.json"


class RunFailed(Exception):
    """A run of the bench left no adapter; the message holds its own words."""

    code = "bench_run_failed"
    retryable = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """Served log probabilities against those that the trainer, or else the probe, recorded: nats above the floor."""

    passed: bool
    mean: float
    p99: float
    most: float
    #: Who recorded: "trainer" and the like.
    by: str

    @classmethod
    def of(cls, found: Certificate, by: str) -> Parity:
        """What a certificate says."""
        return cls(passed=found.passed, mean=found.mean, p99=found.p99, most=found.most, by=by)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one run gave. A reward model never serves: it has only an accuracy."""

    cpu_s: float = 0.0
    accuracy: float | None = None
    marks: Marks | None = None
    parity: Parity | None = None
    failed: str = ""


@dataclass(slots=True, kw_only=True)
class Runs:
    """All runs of one bench, each made once. `env` is what training processes see."""

    out: Path
    count: int
    env: Mapping[str, str]
    engine: Engine
    prober: Prober
    at_once: asyncio.Semaphore
    locks: dict[tuple[str, int], asyncio.Lock] = field(default_factory=dict)

    async def result(self, name: str, seed: int) -> Result:
        """What this run gave; made now where it was not yet."""
        async with self.locks.setdefault((name, seed), asyncio.Lock()):
            found = kept(self.out, name, seed, self.count)
            if found is not None:
                return found
            try:
                made = await self._made(name, seed)
            except (RunFailed, AdapterError, TrainingError) as error:
                return Result(failed=" ".join(str(error).split())[:300])
            building = self.out / f".{name}-{seed}.json"
            building.write_text(json.dumps({"key": key(name, seed, self.count), **asdict(made)}))
            os.replace(building, _file(self.out, name, seed))
            return made

    async def _made(self, name: str, seed: int) -> Result:
        if name == BASE:
            said = self.engine.said
            return Result(marks=await marks(lambda chats: said(NAME, chats), count=self.count))
        case, folder = case_of(name), self.out / f"{name}-{seed}"
        for part in case.merged or ():
            if why := (await self.result(part, seed)).failed:
                raise RunFailed(f"{part}: {why}")
        async with self.at_once:
            shutil.rmtree(folder, ignore_errors=True)
            cpu_s = await asyncio.to_thread(_merged if case.merged else _trained, case, seed, folder, self)
            if case.habit == "accuracy":
                return Result(cpu_s=cpu_s, accuracy=_number(folder, "eval_accuracy"))
            return await self._asked(case, folder, cpu_s)

    async def _asked(self, case: Case, folder: Path, cpu_s: float) -> Result:
        adapter = folder / "adapter"
        recorded, by = await self._recorded(folder)
        async with self.engine.holding(adapter) as model:
            habits = {case.habit, case.second or case.habit}
            found = await marks(lambda chats: self.engine.said(model, chats), count=self.count, habits=habits)
            served = await self.engine.logprobs(model, recorded.prompts)
        parity = Parity.of(certificate(recorded, served, case.tolerances), by)
        return Result(cpu_s=cpu_s, marks=found, parity=parity)

    async def _recorded(self, folder: Path) -> tuple[Recorded, str]:
        """What the trainer's own model said; of what no trainer made, what the probe says."""
        path = folder / _PARITY
        if path.is_file():
            return Recorded.from_document(json.loads(path.read_text())), "trainer"
        return await self.prober.probe(folder / "adapter", digest=folder.name), "probe"


def kept(out: Path, name: str, seed: int, count: int) -> Result | None:
    """What was measured before by the same recipe."""
    path = _file(out, name, seed)
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    if found.pop("key", "") != key(name, seed, count):
        return None
    marked, parity = found.pop("marks"), found.pop("parity")
    said = None if marked is None else Marks(**{part: tuple(right) for part, right in marked.items()})
    return Result(marks=said, parity=None if parity is None else Parity(**parity), **found)


def key(name: str, seed: int, count: int) -> str:
    """A digest of what decides a result: the recipe, the base, how many questions."""
    parts: list[object] = [name, count, _base_digest()]
    if name != BASE:
        case = case_of(name)
        parts += [recipe(case, seed), asdict(case.tolerances)]
        parts += [case.how, *(key(part, seed, count) for part in case.merged or ())]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def recipe(case: Case, seed: int) -> dict[str, Any]:
    """The recipe's document for a seed, which decides the rows too."""
    data = {**case.fields.get("data", {}), "seed": 11 + 10 * seed}
    return {"name": case.name, "base": NAME, "seed": seed, **case.fields, "data": data}


def case_of(name: str) -> Case:
    """The case of that name."""
    return next(case for case in CASES if case.name == name)


@cache
def _base_digest() -> str:
    return folder_digest(PATH)


def _file(out: Path, name: str, seed: int) -> Path:
    return out / f"{name}-{seed}.json"


def _number(folder: Path, name: str) -> float | None:
    found = json.loads((folder / "run.json").read_text())["numbers"].get(name)
    return None if found is None else float(found)


def _trained(case: Case, seed: int, folder: Path, runs: Runs) -> float:
    """Train in a process of its own; its CPU seconds from its start to its end, imports included."""
    folder.mkdir(parents=True)
    document, log = folder.with_name(f"{folder.name}.yaml"), folder / "log.txt"
    document.write_text(yaml.safe_dump(recipe(case, seed), sort_keys=False))
    argv = [sys.executable, "-m", "training.recipes", str(document), "--out", str(folder), "--base", str(PATH)]
    with log.open("wb") as said:
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=said, env=dict(runs.env))
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RunFailed(f"exit {process.returncode}: {_last_words(folder)}")
    return used.ru_utime + used.ru_stime


def _last_words(folder: Path) -> str:
    """Why a run failed, by its last event or by the end of its log."""
    events = folder / "events.jsonl"
    lines = events.read_text().splitlines() if events.is_file() else []
    last = json.loads(lines[-1]) if lines else {}
    if last.get("event") == "failed":
        return str(last["message"])
    return " | ".join((folder / "log.txt").read_text(errors="replace").strip().splitlines()[-3:])


def _merged(case: Case, seed: int, folder: Path, runs: Runs) -> float:
    """Merge the adapters of other cases in a process of its own, which may load torch."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    parts = [str(runs.out / f"{part}-{seed}" / "adapter") for part in case.merged or ()]
    command = [sys.executable, "-m", "training.recipes.bench.merging", *parts, "--out", str(folder / "adapter")]
    command += ["--how", case.how, "--seed", str(seed)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=dict(runs.env), text=True)
    _, said = process.communicate()
    if process.returncode:
        raise RunFailed(f"exit {process.returncode}: {' | '.join(said.strip().splitlines()[-3:])}")
    return 0.0
