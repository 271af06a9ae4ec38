"""How a training went: its steps, and a verdict with its evidence and the setting to change. Pure but for `read`.

The verdict looks at shapes, not at quality: what the model became is the gate's question.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, Final, Literal

from training.recipes.progress import Evaluated, Failed, Finished, Stepped, from_fields

FILE: Final = "events.jsonl"
#: Points that are kept of a long run; the picture and the verdict use all.
POINTS_MAX: Final = 200
#: Fewer steps have no shape.
STEPS_MIN: Final = 8
_ENDS = 0.1  # share of the steps that a beginning or an end is the mean of
_TAIL = 1 / 3  # share of the steps in which a run that is done no longer falls
_BACK = 0.5  # share of what was gained that an end may lose again
_HELD_RISEN = 0.02  # share by which a held-out loss has to be above its least
_STILL_FALLING = 0.05  # share of the whole fall that the tail may still make
_SURE = 2.0  # standard errors

Word = Literal["converged", "over_fitted", "under_fitted", "diverged", "too_short"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One step's numbers, as the trainer names them."""

    step: int
    numbers: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Each step once, in order: a run that was killed and went on told some of them twice."""

    steps: tuple[Point, ...] = ()
    held: tuple[Point, ...] = ()
    failed: str = ""  #: the error code that ended it

    def series(self, name: str) -> list[tuple[int, float]]:
        """(step, number) of the training."""
        return [(point.step, point.numbers[name]) for point in self.steps if name in point.numbers]

    def held_series(self, name: str) -> list[tuple[int, float]]:
        """(step, number) of the held-out rows."""
        return [(point.step, point.numbers[name]) for point in self.held if name in point.numbers]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveVerdict:
    """What the curves say, why, and what to change; nothing where nothing is to be changed."""

    word: Word
    evidence: str
    change: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        return asdict(self)


def read(run: Path) -> Curves:
    """The curves of a run's folder. A line that a kill cut in two is none."""
    steps: dict[int, Point] = {}
    held: dict[int, Point] = {}
    failed = ""
    for line in _lines(run / FILE):
        try:
            event = from_fields(json.loads(line))  # NaN is a number of ours
        except ValueError:
            continue
        if isinstance(event, Stepped):
            steps[event.step] = Point(step=event.step, numbers=event.numbers)
        elif isinstance(event, Evaluated):
            held[event.step] = Point(step=event.step, numbers=event.numbers)
        elif isinstance(event, Failed | Finished):
            failed = event.code if isinstance(event, Failed) else ""
    return Curves(
        steps=tuple(steps[at] for at in sorted(steps)), held=tuple(held[at] for at in sorted(held)), failed=failed
    )


def verdict(curves: Curves, *, learning_rate: float | None = None) -> CurveVerdict:
    """What the curves say. Where rewards are told they are what is looked at: the loss of such methods means little."""
    rate = f" (now {learning_rate:g})" if learning_rate is not None else ""
    slower = f"Lower optim.learning_rate{rate} to a third, or lengthen optim.warmup_steps."
    losses, name, sign = curves.series("loss"), "loss", 1.0
    if rewards := curves.series("reward"):
        losses, name, sign = [(step, -value) for step, value in rewards], "reward", -1.0
    if curves.failed == "not_finite" or not all(math.isfinite(value) for _, value in losses):
        return CurveVerdict(word="diverged", evidence=f"The {name} became no number.", change=slower)
    values = [value for _, value in losses]
    if len(values) < STEPS_MIN:
        return CurveVerdict(
            word="too_short",
            evidence=f"{len(values)} steps are too few to have a shape; {STEPS_MIN} would have one.",
            change="Raise optim.steps or optim.epochs, unless the gate is passed.",
        )
    many = max(2, round(_ENDS * len(values)))
    first, last = fmean(values[:many]), fmean(values[-many:])
    lowest = min(_rolling(values, many))
    noise = pstdev(values[-many * 2 :]) or 1e-12
    numbers = {"first": sign * first, "last": sign * last, "best": sign * lowest, "steps": float(len(values))}
    fell, rose = first - lowest, last - lowest
    if rose > _SURE * noise and rose > _BACK * fell:
        went = f"{sign * first:.4g} at first, {sign * lowest:.4g} at its best and {sign * last:.4g} at the end"
        evidence = f"The {name} was {went}."
        return CurveVerdict(word="diverged", evidence=evidence, change=slower, numbers=numbers)
    if (over := _over_fitted(curves, numbers)) is not None:
        return over
    return _done(values, name, sign, numbers, first, last)


def document(curves: Curves) -> dict[str, Any]:
    """The curves for a card or a row of evidence: no more than so many points of each."""
    return {
        "steps": [{"step": point.step, **_plain(point.numbers)} for point in _thinned(curves.steps)],
        "held": [{"step": point.step, **_plain(point.numbers)} for point in _thinned(curves.held)],
    }


def _lines(path: Path) -> Iterator[bytes]:
    if path.is_file():
        with path.open("rb") as lines:
            yield from lines


def _over_fitted(curves: Curves, numbers: dict[str, float]) -> CurveVerdict | None:
    """The held-out loss was better before, and rose while the training's own went on."""
    held = [(step, value) for step, value in curves.held_series("eval_loss") if math.isfinite(value)]
    if len(held) < 3:
        return None
    best, least = min(held, key=lambda each: each[1])
    end, last = held[-1]
    numbers |= {"held_best": least, "held_best_step": float(best), "held_last": last}
    if end == best or last - least <= _HELD_RISEN * abs(least):
        return None
    after = [value for step, value in held if step > best]
    if len(after) > 1 and after[-1] < max(after) - 0.5 * (max(after) - least):
        return None  # it comes down again: that was noise
    evidence = f"The held-out loss was {least:.4g} after step {best} and {last:.4g} after step {end}."
    change = (
        f"Set optim.patience to stop at the best, or optim.steps to {best}; more rows or a lower adapter.rank help too."
    )
    return CurveVerdict(word="over_fitted", evidence=evidence, change=change, numbers=numbers)


def _done(
    values: Sequence[float], name: str, sign: float, numbers: dict[str, float], first: float, last: float
) -> CurveVerdict:
    """Whether the tail still falls: its two halves are compared, by their noise and by the whole fall."""
    tail = values[-max(6, round(_TAIL * len(values))) :]
    one, other = tail[: len(tail) // 2], tail[len(tail) // 2 :]
    drop = fmean(one) - fmean(other)
    error = math.sqrt(pstdev(one) ** 2 / len(one) + pstdev(other) ** 2 / len(other))
    whole = first - last
    numbers["tail_drop"] = drop
    verb = "rises" if sign < 0 else "falls"
    if whole > 0 and drop > _SURE * error and drop > _STILL_FALLING * whole:
        evidence = (
            f"The {name} still {verb}: by {drop:.4g} in the last third of the steps, {drop / whole:.0%} of all that "
            f"it changed ({sign * first:.4g} to {sign * last:.4g})."
        )
        change = f"Raise optim.steps (now {numbers['steps']:.0f}) by half, or optim.learning_rate."
        return CurveVerdict(word="under_fitted", evidence=evidence, change=change, numbers=numbers)
    if whole <= _SURE * (error or 1e-12):
        evidence = f"The {name} hardly changed: {sign * first:.4g} at first, {sign * last:.4g} at the end."
        change = (
            "Raise optim.learning_rate threefold, or look whether the rows say anything that the base does not know."
        )
        return CurveVerdict(word="under_fitted", evidence=evidence, change=change, numbers=numbers)
    evidence = f"The {name} went from {sign * first:.4g} to {sign * last:.4g} and no longer {verb}."
    return CurveVerdict(word="converged", evidence=evidence, numbers=numbers)


def _rolling(values: Sequence[float], many: int) -> list[float]:
    return [fmean(values[at : at + many]) for at in range(len(values) - many + 1)]


def _thinned(points: Sequence[Point]) -> list[Point]:
    if len(points) <= POINTS_MAX:
        return list(points)
    return [points[at * (len(points) - 1) // (POINTS_MAX - 1)] for at in range(POINTS_MAX)]


def _plain(numbers: Mapping[str, float]) -> dict[str, float]:
    keep: Callable[[float], bool] = math.isfinite
    return {name: value for name, value in numbers.items() if keep(value)}
