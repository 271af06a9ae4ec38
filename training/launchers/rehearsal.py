"""A few steps of a recipe, on its own model and rows, to say what the whole of it will take. Heavy.

Twice: on the longest rows, which decide the peak of memory, and on rows drawn as the run draws them, which decide time.
"""

from __future__ import annotations

import dataclasses
import gc
import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from training.recipes.lesson import Lesson, Trained
from training.recipes.progress import Event, Planned, Stepped
from training.recipes.recipe import Method

Recipes = Mapping[Method, Callable[[Lesson], Trained]]
_STEPS_PEAK: Final = 2
_STEPS_TIMED: Final = 4
#: A forward pass alone, as a share of a step.
_FORWARD: Final = 1 / 3


@dataclass(slots=True)
class _Clock:
    """Progress that notes when each step ended."""

    ended: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)

    def said(self, event: Event) -> None:
        if isinstance(event, Stepped):
            self.ended.append(time.perf_counter())
            self.tokens.append(event.numbers.get("num_tokens", 0.0))


def rehearse(lesson: Lesson, recipes: Recipes) -> Planned:
    """Run a few steps and throw the result away. Raises what the run itself would."""
    chosen = lesson.chosen
    rows = chosen.batch * chosen.accumulate
    memory = _peak(lesson, recipes, _longest(lesson, rows * _STEPS_PEAK))
    clock = _Clock()
    usual = random.Random(lesson.recipe.seed).sample(
        range(len(lesson.rows)), min(len(lesson.rows), rows * _STEPS_TIMED)
    )
    began = time.perf_counter()
    _steps(lesson, recipes, usual, _STEPS_TIMED, clock, ())
    times = [after - before for before, after in zip(clock.ended, clock.ended[1:], strict=False)]
    step = statistics.median(times) if times else time.perf_counter() - began
    start = max(0.0, clock.ended[0] - began - step) if clock.ended else 0.0
    tokens = _tokens_a_step(lesson, clock, rows)
    held = len(lesson.held) / rows * step * _FORWARD
    evaluations = chosen.steps // max(1, chosen.evaluate_every) if lesson.held else 0
    return Planned(
        memory=memory, estimated=dict(chosen.memory), rows=len(lesson.rows), steps=chosen.steps,
        tokens=round(tokens * chosen.steps), tokens_per_s=tokens / step, step_s=step,
        seconds=start + chosen.steps * step + evaluations * held, probed_steps=_STEPS_PEAK + len(clock.ended),
    )  # fmt: skip


def _steps(
    lesson: Lesson, recipes: Recipes, picked: Sequence[int], steps: int, clock: _Clock, listening: Sequence[Any]
) -> None:
    """Train so many steps on the picked rows, in a folder that goes away."""
    optim = lesson.recipe.optim.model_copy(
        update={"save_every": None, "patience": None, "steps": steps, "epochs": None}
    )
    recipe = lesson.recipe.model_copy(update={"optim": optim, "report": ()})
    with tempfile.TemporaryDirectory(prefix="graftline-plan-") as folder:
        less = dataclasses.replace(
            lesson,
            recipe=recipe,
            chosen=dataclasses.replace(lesson.chosen, steps=steps, warmup_steps=0),
            rows=[lesson.rows[at] for at in picked],
            held=[],
            folder=Path(folder),
            progress=clock,
            listening=listening,
        )
        recipes[lesson.chosen.method](less)
    gc.collect()


def _longest(lesson: Lesson, count: int) -> list[int]:
    """The longest rows; of thumbs, as many liked as disliked, since one kind alone is not learnt from."""
    order = sorted(range(len(lesson.rows)), key=lambda at: -lesson.lengths[at])
    if lesson.chosen.method != "kto":
        return order[:count]
    sides = [[at for at in order if lesson.rows[at]["label"] is liked] for liked in (True, False)]
    return [at for both in zip(*sides, strict=False) for at in both][:count]


def _tokens_a_step(lesson: Lesson, clock: _Clock, rows: int) -> float:
    """As the trainer counted them; where it does not count, the mean row, of its longer side where it has two."""
    counted = [after - before for before, after in zip(clock.tokens, clock.tokens[1:], strict=False)]
    if counted and min(counted) > 0:
        return statistics.mean(counted)
    return rows * statistics.mean(lesson.lengths)


def _peak(lesson: Lesson, recipes: Recipes, picked: Sequence[int]) -> dict[str, int]:
    """Bytes at the peak of the longest rows, by what they are for."""
    import torch

    gpu = torch.cuda.is_available()
    before = _resident("VmRSS")
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the highest mark begins anew
    seen: dict[str, int] = {}
    _steps(lesson, recipes, picked, _STEPS_PEAK, _Clock(), (_parts(seen),))
    parts = {} if gpu else {"python and libraries": before}
    highest = int(torch.cuda.max_memory_allocated()) if gpu else _resident("VmHWM")
    parts |= seen
    return parts | {"activations and the rest": max(0, highest - sum(parts.values()))}


def _parts(seen: dict[str, int]) -> Any:
    """A callback for transformers' Trainer that measures what weights, gradients and optimizer take."""
    from transformers import TrainerCallback

    class Parts(TrainerCallback):  # type: ignore[misc]
        """Looks at one step."""

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            """Gradients are there now, and gone after the step."""
            weights = list(model.parameters())
            seen["base weights"] = _bytes(part for part in weights if not part.requires_grad)
            seen["trained weights"] = _bytes(part for part in weights if part.requires_grad)
            seen["gradients"] = _bytes(part.grad for part in weights if part.grad is not None)

        def on_step_end(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
            """The optimizer has its memory of past gradients from the first step on."""
            import torch

            states = (value for one in optimizer.state.values() for value in one.values())
            seen["optimizer"] = _bytes(value for value in states if isinstance(value, torch.Tensor))

    return Parts()


def _bytes(parts: Iterable[Any]) -> int:
    return sum(part.numel() * part.element_size() for part in parts)


def _resident(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) << 10 if found else 0
