"""A definition becomes an experiment, or is refused with every reason that was found, in one pass. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import TypeVar

from adapters.errors import shown
from adapters.experiments.assignment import epoch, room
from adapters.experiments.errors import BadExperiment
from adapters.experiments.metrics import FEEDBACK, SOURCES
from adapters.experiments.values import (
    BUCKETS,
    RAMP,
    Adaptive,
    Arm,
    Better,
    Experiment,
    Kind,
    Metric,
    Part,
    Role,
    Step,
    Unit,
    Verdict,
)

ARMS_MAX = 8
METRICS_MAX = 40
TAGS_MAX = 4
STEPS_MAX = 50
WINDOW_MAX_S = 90 * 86_400.0
MEASURED_S = 600.0
SAID_S = 86_400.0

_T = TypeVar("_T")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A metric as somebody asks for it. What a built-in metric knows of itself may be left out."""

    name: str
    role: str
    source: str = ""  # the name itself, if empty
    kind: str = ""
    better: str = ""
    window_s: float | None = None  # ten minutes for what is measured, a day for what people say
    margin: float | None = None
    threshold: float | None = None
    slices: tuple[str, ...] = ()
    part: str = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """An experiment as somebody asks for it. Without a ramp: 1, 5, 10, 25, 50 %, as far as there is room."""

    name: str
    alias: str
    arms: tuple[Arm, ...]
    metrics: tuple[Declared, ...]
    unit: str = "user"
    ramp: tuple[Step, ...] | None = None
    holdout: int = 0
    alpha: float = 0.05
    guard_alpha: float = 0.01
    horizon: int = 4000
    promote_after_s: float = 0.0
    adaptive: Adaptive | None = None
    shadow: Arm | None = None
    selftest: bool = False
    ask_before: tuple[str, ...] = ()
    ask_role: str = "engineer"
    ask_s: float = 86_400.0
    note: str = ""


def made(
    wish: Definition, *, id_: str, salt: str, who: str, now: float, verified: Callable[[int], bool], points_at: int
) -> Experiment:
    """The experiment, ready to be opened. `verified` says whether a version of the adapter may serve; `points_at` is
    where the alias points: the control. Raises BadExperiment."""
    reasons = [*_arms(wish, verified, points_at), *_ramp(wish), *_numbers(wish), *_metrics(wish), *_adaptive(wish)]
    if reasons:
        raise BadExperiment(reasons)
    experiment = Experiment(
        id=id_,
        name=wish.name,
        alias=wish.alias,
        salt=salt,
        unit=Unit(wish.unit),
        arms=wish.arms,
        metrics=tuple(map(_metric, wish.metrics)),
        ramp=_steps(wish),
        holdout=wish.holdout,
        alpha=wish.alpha,
        guard_alpha=wish.guard_alpha,
        horizon=wish.horizon,
        promote_after_s=wish.promote_after_s,
        adaptive=wish.adaptive,
        shadow=wish.shadow,
        selftest=wish.selftest,
        ask_before=tuple(map(Verdict, wish.ask_before)),
        ask_role=wish.ask_role,
        ask_s=wish.ask_s,
        opened_at=now,
        opened_by=who,
        note=wish.note,
        step_since=now,
    )
    if wish.adaptive:
        equal = (1 / len(wish.arms),) * len(wish.arms)
        return replace(experiment, epochs=(epoch(experiment, since=now, targets=equal),))
    return experiment


def _arms(wish: Definition, verified: Callable[[int], bool], points_at: int) -> Iterator[str]:
    arms, names = wish.arms, [arm.name for arm in wish.arms]
    if not 2 <= len(arms) <= ARMS_MAX:
        yield f"arms: {len(arms)} were given; 2 to {ARMS_MAX} can be compared."
    yield from (f"arms: {shown(name)} is no name: a-z, 0-9, '.', '_', '-'." for name in names if not _fits(name))
    yield from (f"arms: {name!r} stands there twice." for name in _twice(names))
    for number in _twice([arm.number for arm in arms]):
        if not wish.selftest:
            yield f"arms: version {number} is in two arms; only a self-test (A/A) compares a version with itself."
    if wish.selftest and (len(arms) != 2 or len({arm.number for arm in arms}) != 1):
        yield "arms: a self-test (A/A) has two arms of one version."
    if arms and arms[0].number != points_at:
        yield f"arms: the first is the control and must be version {points_at}, where {wish.alias!r} points."
    for arm in (*arms, *((wish.shadow,) if wish.shadow else ())):
        if not verified(arm.number):
            yield f"arms: {shown(arm.name)}: version {arm.number} is not verified, so it may not serve."
    if wish.shadow and wish.shadow.number in {arm.number for arm in arms}:
        yield f"shadow: version {wish.shadow.number} is an arm already."


def _ramp(wish: Definition) -> Iterator[str]:
    if not 0 <= wish.holdout <= BUCKETS // 2:
        yield f"holdout: {wish.holdout} basis points; 0 to {BUCKETS // 2} can be held out."
        return
    most = room(max(len(wish.arms), 2), wish.holdout)
    if wish.ramp is None:
        return
    if not 1 <= len(wish.ramp) <= STEPS_MAX:
        yield f"ramp: {len(wish.ramp)} steps were given; 1 to {STEPS_MAX} can be taken."
    shares = [step.share for step in wish.ramp]
    if any(after <= before for before, after in pairwise(shares)):
        yield f"ramp: {shares} basis points; each step must be above the one before: ranges only grow."
    for share in shares:
        if not 1 <= share <= most:
            yield f"ramp: {share} basis points an arm; {len(wish.arms)} arms have room for 1 to {most} each."
    if not all(math.isfinite(step.at_least_s) and step.at_least_s >= 0 for step in wish.ramp):
        yield "ramp: a step lasts 0 s or longer."


def _numbers(wish: Definition) -> Iterator[str]:
    if wish.unit not in set(Unit):
        yield f"unit: {shown(wish.unit)}; allowed: {_listed(Unit)}."
    for name, value in (("alpha", wish.alpha), ("guard_alpha", wish.guard_alpha)):
        if not 0 < value < 1:
            yield f"{name}: {value}; it lies between 0 and 1."
    if not 200 <= wish.horizon <= 1_000_000_000:
        yield f"horizon: {wish.horizon} units; 200 to 1000000000."
    if not 0 <= wish.promote_after_s <= 366 * 86_400:
        yield f"promote_after_s: {wish.promote_after_s}; 0 s to a year."
    if not 60 <= wish.ask_s <= 366 * 86_400:
        yield f"ask_s: {wish.ask_s}; a proposal stands for 60 s to a year."
    for verdict in wish.ask_before:
        if verdict not in (Verdict.PROMOTE, Verdict.RAMP):
            yield f"ask_before: {shown(verdict)}; allowed: promote, ramp. Rolling back never waits."


def _metrics(wish: Definition) -> Iterator[str]:
    primaries = sum(metric.role == Role.PRIMARY for metric in wish.metrics)
    if primaries != 1:
        yield f"metrics: {primaries} are primary; exactly one decides."
    if len(wish.metrics) > METRICS_MAX:
        yield f"metrics: {len(wish.metrics)} were given; {METRICS_MAX} at most."
    yield from (f"metrics: {shown(name)} stands there twice." for name in _twice([m.name for m in wish.metrics]))
    for metric in wish.metrics:
        where = f"metric {shown(metric.name)}"
        yield from (f"{where}: {problem}" for problem in (*_named(metric), *_judged(metric)))


def _named(metric: Declared) -> Iterator[str]:
    """What is wrong with where its numbers come from."""
    if not _fits(metric.name):
        yield "no name: a-z, 0-9, '.', '_', '-'."
    if metric.role not in set(Role):
        yield f"role {shown(metric.role)}; allowed: {_listed(Role)}."
    if metric.part not in set(Part):
        yield f"part {shown(metric.part)}; allowed: {_listed(Part)}."
    source = metric.source or metric.name
    if source.startswith(FEEDBACK):
        if not _fits(source.removeprefix(FEEDBACK)):
            yield f"{shown(source)} names no scalar feedback."
        if metric.kind not in set(Kind):
            yield f"kind {shown(metric.kind)}; of feedback it must be said: {_listed(Kind)}."
        if metric.better not in set(Better):
            yield f"better {shown(metric.better)}; of feedback it must be said: {_listed(Better)}."
    elif (known := SOURCES.get(source)) is None:
        yield f"{shown(source)} is not built in; there are {', '.join(SOURCES)}, and {FEEDBACK}NAME for a scalar."
    else:
        if metric.kind not in ("", known.kind):
            yield f"kind {shown(metric.kind)}; {source} is a {known.kind}."
        if metric.better not in ("", *(Better if known.free else (known.better,))):
            yield f"better {shown(metric.better)}; {source} is better {known.better}."


def _judged(metric: Declared) -> Iterator[str]:
    """What is wrong with how it is judged."""
    if metric.window_s is not None and not 0 < metric.window_s <= WINDOW_MAX_S:
        yield f"window_s {metric.window_s}; above 0, to {WINDOW_MAX_S:g}: what came in so far is no fair comparison."
    if metric.margin is None:
        if metric.role == Role.GUARDRAIL:
            yield "a guardrail needs a margin: how much worse is accepted, in the metric's own unit."
    elif not (math.isfinite(metric.margin) and metric.margin >= 0):
        yield f"margin {metric.margin}; a finite number, 0 or above."
    elif metric.role != Role.GUARDRAIL:
        yield "only a guardrail has a margin."
    if _kind(metric) == Kind.SHARE_ABOVE:
        if metric.threshold is None or not math.isfinite(metric.threshold):
            yield "a share above a threshold needs the threshold, a finite number."
    elif metric.threshold is not None:
        yield "only a share above has a threshold."
    if len(metric.slices) > TAGS_MAX or _twice(metric.slices) or not all(metric.slices):
        yield f"slices {metric.slices}; up to {TAGS_MAX} different metadata keys."
    if metric.part != Part.ALL and not (metric.slices and metric.role == Role.GUARDRAIL):
        yield f"part {shown(metric.part)}; only a guardrail with slices has it."


def _adaptive(wish: Definition) -> Iterator[str]:
    if wish.adaptive is None:
        return
    if len(wish.arms) < 3:
        yield "adaptive: takes three arms or more; with two, half and half is better."
    elif not 0 < wish.adaptive.floor * len(wish.arms) < 1:
        yield f"adaptive: floor {wish.adaptive.floor}; above 0 and below 1/{len(wish.arms)}."
    if wish.unit not in (Unit.REQUEST, Unit.CONVERSATION):
        yield f"adaptive: unit {shown(wish.unit)}; request or conversation, for shares move and longer units with them."
    if not 60 <= wish.adaptive.epoch_s <= 30 * 86_400:
        yield f"adaptive: epoch_s {wish.adaptive.epoch_s}; 60 s to 30 days."
    for metric in wish.metrics:
        kind = _kind(metric)
        if metric.role == Role.PRIMARY and kind in (Kind.RATIO, Kind.MEAN):
            yield f"adaptive: {shown(metric.name)} cannot be primary; shares follow a proportion or a share above."
        elif kind == Kind.RATIO:
            yield f"adaptive: {shown(metric.name)} is a ratio of sums, which cannot be weighted by unit."


def _kind(metric: Declared) -> str:
    known = SOURCES.get(metric.source or metric.name)
    return known.kind if known else metric.kind


def _metric(metric: Declared) -> Metric:
    source = metric.source or metric.name
    known = SOURCES.get(source)
    return Metric(
        name=metric.name,
        source=source,
        kind=known.kind if known else Kind(metric.kind),
        better=Better(metric.better or (known.better if known else "")),
        role=Role(metric.role),
        window_s=float(metric.window_s or (MEASURED_S if known and not known.said else SAID_S)),
        margin=float(metric.margin or 0.0),
        threshold=float(metric.threshold or 0.0),
        slices=metric.slices,
        part=Part(metric.part),
        rare=known.rare if known else metric.kind in (Kind.PROPORTION, Kind.SHARE_ABOVE),
    )


def _steps(wish: Definition) -> tuple[Step, ...]:
    if wish.ramp is not None:
        return wish.ramp
    most = room(len(wish.arms), wish.holdout)
    below = tuple(step for step in RAMP if step.share < most)
    return (*below, Step(share=most, at_least_s=RAMP[-1].at_least_s))


def _fits(name: str) -> bool:
    return bool(_NAME.fullmatch(name))


def _twice(values: Sequence[_T]) -> list[_T]:
    return [value for value in dict.fromkeys(values) if values.count(value) > 1]


def _listed(allowed: type[StrEnum]) -> str:
    return ", ".join(allowed)
