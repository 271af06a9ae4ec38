"""`/v1/experiments`: opened, listed, looked at, stopped. The worker does everything else."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from adapters.experiments.definition import Declared, Definition
from adapters.experiments.values import Adaptive, Arm, Step
from gateway.api.control.caller import Engineer, InPlane, Reader
from gateway.api.control.experiments_documents import RULINGS_NEEDED, document, looked, ruled
from gateway.control import actor
from gateway.experimenting.opening import open_experiment, stop_experiment
from gateway.experimenting.tables import counted

router = APIRouter(prefix="/v1/experiments")
RULINGS_MAX = 10_000
#: Longer lists are not judged at all; what may be opened is far shorter.
LIST_MAX = 100

_PRINTABLE = r"^[\x21-\x7e]{1,64}$"
Id = Annotated[str, Path(pattern=_PRINTABLE)]
Name = Annotated[str | None, Query(pattern=_PRINTABLE)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class AskedArm(_Asked):
    name: str
    number: int


class AskedMetric(_Asked):
    name: str
    role: str
    source: str = ""
    kind: str = ""
    better: str = ""
    window_s: float | None = None
    margin: float | None = None
    threshold: float | None = None
    slices: list[str] = Field(default_factory=list, max_length=LIST_MAX)
    part: str = "all"


class AskedStep(_Asked):
    share: int
    at_least_s: float


class AskedAdaptive(_Asked):
    floor: float = 0.1
    epoch_s: float = 3600.0


class Asked(_Asked):
    """An experiment as somebody asks for it; `name` is the adapter's."""

    name: str
    alias: str = "live"
    arms: list[AskedArm] = Field(max_length=LIST_MAX)
    metrics: list[AskedMetric] = Field(max_length=LIST_MAX)
    unit: str = "user"
    ramp: list[AskedStep] | None = Field(None, max_length=LIST_MAX)
    holdout: int = 0
    alpha: float = 0.05
    guard_alpha: float = 0.01
    horizon: int = 4000
    promote_after_s: float = 0.0
    adaptive: AskedAdaptive | None = None
    shadow: AskedArm | None = None
    selftest: bool = False
    ask_before: list[str] = Field(default_factory=list, max_length=LIST_MAX)
    ask_role: str = "engineer"
    ask_s: float = 86_400.0
    note: str = Field("", max_length=2000)


class Reason(_Asked):
    why: str = Field("", max_length=2000)


@router.post("", status_code=201)
def open_(body: Asked, plane: InPlane, key: Engineer) -> dict[str, Any]:
    """Open an experiment on an alias; the first arm is the control."""
    opened = open_experiment(plane.control, plane.settings, defined(body), who=actor(key), now=time.time())
    return looked(opened)


@router.get("")
def list_experiments(plane: InPlane, key: Reader, name: Name = None, active: bool = False) -> dict[str, Any]:
    """Every experiment, the newest first; of one adapter or only those that run."""
    found = plane.control.experiments.list(name, active=active)
    return {"object": "list", "data": [document(each) for each in found], "has_more": False}


@router.get("/{experiment}")
def show(experiment: Id, plane: InPlane, key: Reader, counts: bool = False) -> dict[str, Any]:
    """Arms, units, estimates with intervals, guardrails, sample ratio, and what it waits for; `counts` reads every
    record of it."""
    store = plane.control.experiments
    found = store.get(experiment)
    told = looked(found, store.rulings(found.id, RULINGS_NEEDED), store.proposals(found.id))
    return {**told, "counts": counted(found, plane.records.trial(found.id))} if counts else told


@router.get("/{experiment}/rulings")
def rulings(
    experiment: Id, plane: InPlane, key: Reader, limit: Annotated[int, Query(ge=1, le=RULINGS_MAX)] = 100
) -> dict[str, Any]:
    """Every decision with its numbers, the newest first."""
    store = plane.control.experiments
    found = store.rulings(store.get(experiment).id, limit + 1)
    return {"object": "list", "data": [ruled(each) for each in found[:limit]], "has_more": len(found) > limit}


@router.post("/{experiment}/stop")
def stop(experiment: Id, body: Reason, plane: InPlane, key: Engineer) -> dict[str, Any]:
    """End it without a decision: everybody is served what the alias points at."""
    stopped = stop_experiment(plane.control, experiment, who=actor(key), why=body.why, now=time.time())
    return looked(stopped, plane.control.experiments.rulings(stopped.id, RULINGS_NEEDED))


def defined(asked: Asked) -> Definition:
    """The wish in the terms of the room that judges it."""
    return Definition(
        name=asked.name,
        alias=asked.alias,
        arms=tuple(Arm(**arm.model_dump()) for arm in asked.arms),
        metrics=tuple(Declared(**{**each.model_dump(), "slices": tuple(each.slices)}) for each in asked.metrics),
        unit=asked.unit,
        ramp=None if asked.ramp is None else tuple(Step(**step.model_dump()) for step in asked.ramp),
        holdout=asked.holdout,
        alpha=asked.alpha,
        guard_alpha=asked.guard_alpha,
        horizon=asked.horizon,
        promote_after_s=asked.promote_after_s,
        adaptive=Adaptive(**asked.adaptive.model_dump()) if asked.adaptive else None,
        shadow=Arm(**asked.shadow.model_dump()) if asked.shadow else None,
        selftest=asked.selftest,
        ask_before=tuple(asked.ask_before),
        ask_role=asked.ask_role,
        ask_s=asked.ask_s,
        note=asked.note,
    )
