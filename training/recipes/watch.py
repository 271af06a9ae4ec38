"""Watches a trainer: tells every step, stops a loss that is no number, and answers that went too far away. Heavy.

The diagnosis is pure: it follows from the steps before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from training.launchers.world import world
from training.recipes.auto import Choices
from training.recipes.errors import NotFinite
from training.recipes.progress import Evaluated, Noted, Progress, Saved, Stepped

#: Lies in a checkpoint folder when everything else was written: a killed run leaves folders without it.
WHOLE: Final = "whole"
_KEPT = 50
#: An answer's distance is one draw's: among a few dozen, a single odd one can lift a step's mean by ten nats.
_NEAR_STEPS = 4


def watch(progress: Progress, chosen: Choices, *, kl_max: float) -> Any:
    """A callback for transformers' Trainer."""
    from transformers import TrainerCallback

    online = chosen.method in ("grpo", "rloo")

    class Watch(TrainerCallback):  # type: ignore[misc]
        """Listens to one run."""

        def __init__(self) -> None:
            self.steps: list[Mapping[str, float]] = []
            self.stopping = False

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            """Numbers of a step or of an evaluation."""
            numbers = {name: float(value) for name, value in (logs or {}).items() if isinstance(value, int | float)}
            if any(name.startswith("eval_") for name in numbers):
                progress.said(Evaluated(step=state.global_step, numbers=numbers))
                return
            if "loss" not in numbers:
                return  # the summary at the end
            for what, name in (("loss", "loss"), ("gradient", "grad_norm")):
                if not math.isfinite(numbers.get(name, 0.0)):
                    raise NotFinite(state.global_step, what, diagnose(self.steps, numbers, chosen))
            self.steps = [*self.steps[-_KEPT:], numbers]
            progress.said(Stepped(step=state.global_step, steps=chosen.steps, numbers=numbers))
            # TRL tells the distance a token; the limit is an answer's. KTO logs another thing as `kl`. What a resumed
            # run did before is in its state.
            told = [line for line in state.log_history if "kl" in line and "loss" in line] if online else []
            far = distance([line["kl"] * line.get("completions/mean_length", 1.0) for line in told])
            if far > kl_max and not self.stopping:
                self.stopping = True
                control.should_training_stop = True
                text = (
                    f"Answers are {far:.2f} nats from the reference, more than rl.kl_max ({kl_max:g}): "
                    "training stops here. Raise rl.beta or lower optim.learning_rate to go on for longer."
                )
                progress.said(Noted(what="kl_limit", text=text))

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """A checkpoint is on the disk."""
            processes = world()
            processes.wait()  # each writes its part
            if not processes.first:
                return
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            (folder / WHOLE).touch()
            progress.said(Saved(step=state.global_step, folder=str(folder)))

    return Watch()


def distance(by_step: Sequence[float]) -> float:
    """How far answers are from the reference of late, in nats: the mean of the last few steps."""
    last = by_step[-_NEAR_STEPS:]
    return sum(last) / max(1, len(last))


def diagnose(before: Sequence[Mapping[str, float]], now: Mapping[str, float], chosen: Choices) -> str:
    """Why a loss stopped being a number, most likely, and what to change."""
    norms = [line["grad_norm"] for line in before if "grad_norm" in line]
    losses = [line["loss"] for line in before if "loss" in line]
    if chosen.precision == "float16":
        return "The run computes in float16, whose largest number is 65504: set optim.precision to bfloat16 or float32."
    if not before:
        return (
            "It was so at the first step, so no learning rate is to blame. Look for rows of which no token counts to "
            "the loss (data.tokens_max cuts answers off), or for a base that is broken itself."
        )
    usual = sorted(norms)[len(norms) // 2] if norms else 0.0
    if losses and (losses[-1] > 2 * min(losses) + 1 or (norms and norms[-1] > 10 * max(usual, 1e-9))):
        return (
            f"Before that the loss rose from {min(losses):.3g} to {losses[-1]:.3g} and the gradient's norm to "
            f"{norms[-1] if norms else math.nan:.3g}: it diverged. Lower optim.learning_rate (now "
            f"{chosen.learning_rate:g}) to a third, or lengthen optim.warmup_steps (now {chosen.warmup_steps})."
        )
    return (
        f"Nothing grew before that (the last loss was {losses[-1] if losses else math.nan:.3g}), so it is likely the "
        "rows of this one step: look for empty answers or for settings under `trainer:` that divide by a count of rows."
    )
