"""One trial: a recipe's process is started, its evaluations are read as they come, and it is stopped where it lags.

The process writes into a folder of its own, so a trial whose search was killed goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from training.launchers.values import Launcher, LaunchSpec, Running
from training.recipes.errors import BadRecipe
from training.recipes.progress import Evaluated, Event, Failed, from_fields
from training.search.space import value_of

EVENTS: Final = "events.jsonl"
State = Literal["done", "pruned", "failed"]
_SAID_MAX = 400
_LOSS: Final = "eval_loss"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a trial ended. `step` is where `value` was measured; a failed one has the `code` and the reason."""

    state: State
    value: float | None = None
    step: int = 0
    code: str = ""
    why: str = ""


@dataclass(slots=True)
class _Seen:
    """What the run said so far: the number that counts, and the loss that early stopping goes by."""

    readings: dict[int, float] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)
    failed: Failed | None = None


def run(
    launcher: Launcher,
    spec: LaunchSpec,
    *,
    measure: str,
    best: bool,
    lags: Callable[[int, float], bool],
    rest: Callable[[], None],
) -> Ended:
    """Run a trial to its end. `lags` is told each evaluation, its place and its number, and says whether to give up;
    `rest` waits a moment.

    Raises BadRecipe where the evaluation has no such number, and what the launcher raises.
    """
    path, seen = spec.folder / EVENTS, _Seen()
    before, at = _read(path, 0)
    if _gives_up([event for event in before if isinstance(event, Evaluated)], seen, measure, lags):
        return _given_up(seen)
    if (spec.folder / "run.json").is_file():
        return _done(seen, best)  # it ended before its search was killed
    shutil.rmtree(spec.folder / "adapter", ignore_errors=True)  # left by a run that was killed before it ended
    running = launcher.start(spec)
    try:
        while True:
            code = running.poll()
            events, at = _read(path, at)
            if _gives_up(events, seen, measure, lags):
                return _given_up(seen)
            if code is not None:
                break
            rest()
    finally:
        _ended(running, rest)
    if code == 0 and seen.failed is None:
        return _done(seen, best)
    if seen.failed is not None:
        return Ended(state="failed", code=seen.failed.code, why=seen.failed.message)
    how = f"by signal {-code}" if code < 0 else f"with code {code}"
    return Ended(state="failed", code="run_ended", why=f"the run ended {how}; {_last_words(running.logs())}")


def _gives_up(
    events: list[Evaluated] | list[Event], seen: _Seen, measure: str, lags: Callable[[int, float], bool]
) -> bool:
    """Take in what was said; whether the trial lags behind the others."""
    for event in events:
        if isinstance(event, Failed):
            seen.failed = event
        if not isinstance(event, Evaluated) or event.step in seen.readings:
            continue  # a run that goes on from a checkpoint looks again where it looked before
        if measure not in event.numbers:
            there = ", ".join(sorted(name for name in event.numbers if name.startswith("eval_")))
            raise BadRecipe([f"search.measure: this method's evaluation has no {measure}; it has {there}"])
        seen.readings[event.step] = event.numbers[measure]
        if _LOSS in event.numbers:
            seen.losses[event.step] = event.numbers[_LOSS]
        if not math.isfinite(event.numbers[measure]):
            seen.failed = Failed(code="not_finite", message=f"at step {event.step} {measure} is no finite number")
            return True
        if lags(len(seen.readings), event.numbers[measure]):
            return True
    return False


def _done(seen: _Seen, best: bool) -> Ended:
    if not seen.readings:
        return Ended(state="failed", code="not_evaluated", why="it ended before its first evaluation")
    step, value = value_of(seen.readings, seen.losses, best=best)
    return Ended(state="done", value=value, step=step)


def _given_up(seen: _Seen) -> Ended:
    if seen.failed is not None:
        return Ended(state="failed", code=seen.failed.code, why=seen.failed.message)
    step = max(seen.readings)
    return Ended(state="pruned", value=seen.readings[step], step=step)


def _ended(running: Running, rest: Callable[[], None]) -> None:
    """Nothing of it may go on: the next trial wants the memory."""
    if running.poll() is None:
        running.stop(kill=True)
    while running.poll() is None:
        rest()


def _read(path: Path, at: int) -> tuple[list[Event], int]:
    """The whole lines after byte `at`, and where the next one begins."""
    if not path.is_file():
        return [], at
    with path.open("rb") as file:
        file.seek(at)
        found = file.read()
    whole = found[: found.rfind(b"\n") + 1]
    return [from_fields(json.loads(line)) for line in whole.splitlines() if line.strip()], at + len(whole)


def _last_words(log: Path) -> str:
    try:
        said = log.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "it left no log"
    return f"its last words: {said[-_SAID_MAX:]}" if said else "it said nothing"
