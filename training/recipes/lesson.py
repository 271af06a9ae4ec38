"""What every recipe is handed, and what all share: arguments for TRL's trainers, training with typed failures. Heavy.

`trainer:` of the recipe passes through to the method's TRL config; a key that it does not have is refused.
"""

from __future__ import annotations

import dataclasses
import difflib
import errno
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.launchers.reports import reporters
from training.launchers.section import shared
from training.launchers.world import shard, shares, world
from training.recipes.auto import Choices
from training.recipes.errors import BadRecipe, DiskFull, OutOfMemory, RecipeFailed
from training.recipes.progress import Noted, Progress
from training.recipes.recipe import Recipe
from training.recipes.watch import WHOLE, watch


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One run: what is learnt, by which settings, from which rows, onto what."""

    recipe: Recipe
    chosen: Choices
    rows: list[dict[str, Any]]
    held: list[dict[str, Any]]
    base: Path
    #: The adapter to go on from.
    start: Path | None
    #: Checkpoints and scratch files of this run; they hold pickles and never leave.
    folder: Path
    progress: Progress
    #: Tokens of each row, of its longer side where it has two.
    lengths: Sequence[int] = ()
    #: What there was when the run first started.
    memory_bytes: int = 0
    #: Further callbacks of the trainer.
    listening: Sequence[Any] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A model after its training, not yet written."""

    model: Any
    numbers: Mapping[str, float]
    #: Whole matrices as they were, where those were trained.
    before: Mapping[str, Any] = field(default_factory=dict)
    #: What `keep_start` wrote, where the start of the adapter changed the base.
    start: Path | None = None


def arguments(lesson: Lesson, kind: Any, **ours: Any) -> Any:
    """The TRL config `kind` of this lesson. Raises BadRecipe for keys under `trainer:` that it does not take."""
    import torch

    recipe, chosen = lesson.recipe, lesson.chosen
    optim, gpu = recipe.optim, torch.cuda.is_available()
    batch, accumulate = _share(chosen)
    fixed = {
        "output_dir": str(lesson.folder / "checkpoints"), "max_steps": chosen.steps, "seed": recipe.seed,
        "learning_rate": chosen.learning_rate, "lr_scheduler_type": optim.scheduler,
        "warmup_steps": chosen.warmup_steps,
        "per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulate,
        "optim": optim.optimizer, "weight_decay": optim.weight_decay, "max_grad_norm": optim.clip,
        "bf16": chosen.precision == "bfloat16", "fp16": chosen.precision == "float16", "use_cpu": not gpu,
        "gradient_checkpointing": optim.checkpointing, "neftune_noise_alpha": optim.neftune,
        "logging_steps": 1, "logging_nan_inf_filter": False, "disable_tqdm": True, "report_to": [],
        "save_strategy": "no" if optim.save_every is None else "steps",
        "eval_strategy": "steps" if lesson.held else "no",
    } | ours  # fmt: skip
    if optim.save_every is not None:
        fixed["save_steps"] = optim.save_every
    if lesson.held:
        fixed["eval_steps"] = chosen.evaluate_every
    if optim.patience is not None:
        # The best is loaded at the end, so whatever is evaluated is saved.
        fixed |= {"save_strategy": "steps", "save_steps": chosen.evaluate_every, "load_best_model_at_end": True}
        fixed |= {"metric_for_best_model": "eval_loss", "greater_is_better": False}
    defaults = {
        "save_total_limit": 2, "dataloader_pin_memory": gpu, "run_name": recipe.name,
        "per_device_eval_batch_size": batch,
    }  # fmt: skip
    known = {one.name for one in dataclasses.fields(kind) if one.init}
    problems = []
    for name in recipe.trainer:
        if name in fixed:
            problems.append(f"trainer.{name}: the recipe decides it already ({fixed[name]!r})")
        elif name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            problems.append(f"trainer.{name}: {kind.__name__} has no such setting{hint}")
    if problems:
        raise BadRecipe(problems)
    given = {**defaults, **fixed, **recipe.trainer}
    if lost := [name for name, value in given.items() if name not in known and value]:
        raise BadRecipe(
            [f"{kind.__name__} of the installed TRL has no {name}, which this recipe needs" for name in lost]
        )
    try:
        settings = kind(**{name: value for name, value in given.items() if name in known})
    except (ValueError, TypeError, NotImplementedError, ImportError) as error:
        raise BadRecipe([f"{kind.__name__} refuses these settings: {error}"]) from error
    shard(recipe.launch, precision=chosen.precision)
    return settings


def listeners(lesson: Lesson) -> list[Any]:
    """Callbacks of a trainer: our watch, where its numbers go besides, and early stopping if the recipe asks for it."""
    from transformers import EarlyStoppingCallback

    heard: list[Any] = [watch(lesson.progress, lesson.chosen, kl_max=lesson.recipe.rl.kl_max)]
    if lesson.recipe.optim.patience is not None:
        heard.append(EarlyStoppingCallback(early_stopping_patience=lesson.recipe.optim.patience))
    if lesson.recipe.launch.sharding == "fsdp":
        heard.append(shares(lesson.progress))
    return [*heard, *reporters(lesson.recipe.report, lesson.folder, wandb=lesson.recipe.wandb), *lesson.listening]


def table(rows: list[dict[str, Any]]) -> Any:
    """Rows as trainers take them; None for none."""
    from datasets import Dataset

    return Dataset.from_list(rows) if rows else None


def train(trainer: Any, lesson: Lesson) -> dict[str, float]:
    """Run a trainer to its end, from the last whole checkpoint if there is one; its last numbers.

    Raises NotFinite, OutOfMemory, DiskFull.
    """
    import torch

    last = last_whole(lesson.folder / "checkpoints")
    if last is not None:
        lesson.progress.said(Noted(what="resumed", text=f"from {last.name}"))
    try:
        done = trainer.train(resume_from_checkpoint=str(last) if last else None)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(_lower(lesson, error)) from error
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" in str(error):
            raise OutOfMemory(_lower(lesson, error)) from error
        if _no_room(error):
            _drop_unfinished(lesson.folder / "checkpoints")
            kept = last_whole(lesson.folder / "checkpoints")
            where = (
                f"{kept.name} is whole: free some room, then run the recipe again" if kept else "none was written yet"
            )
            raise DiskFull(f"{lesson.folder} is full: a checkpoint could not be written; {where}.") from error
        raise RecipeFailed(f"{type(error).__name__}: {error}") from error
    numbers = {"train_loss": float(done.training_loss), "steps": float(done.global_step)}
    seen = [line for line in trainer.state.log_history if "loss" in line]
    if seen:
        numbers |= {"loss_first": float(seen[0]["loss"]), "loss_last": float(seen[-1]["loss"])}
    for line in trainer.state.log_history:
        numbers |= {k: float(v) for k, v in line.items() if k.startswith("eval_") and isinstance(v, int | float)}
    return numbers


def last_whole(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end."""
    found = [path for path in folder.glob("checkpoint-*") if (path / WHOLE).is_file()]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _drop_unfinished(folder: Path) -> None:
    for path in folder.glob("checkpoint-*"):
        if not (path / WHOLE).is_file():
            shutil.rmtree(path, ignore_errors=True)


def _no_room(error: BaseException) -> bool:
    """The libraries that write checkpoints tell of a full disk in three ways."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or "No space left" in str(error) or "PytorchStreamWriter" in str(error)


def _lower(lesson: Lesson, error: BaseException) -> str:
    chosen, recipe = lesson.chosen, lesson.recipe
    most = max(chosen.memory, key=lambda part: chosen.memory[part])
    advice = [f"optim.batch (now {chosen.batch}; raise optim.accumulate by as much)"]
    advice.append(f"data.tokens_max (now {chosen.tokens_max})")
    if not recipe.optim.checkpointing:
        advice.append("or set optim.checkpointing: true")
    if recipe.quantization == "none" and recipe.tuning == "adapter":
        advice.append("or quantization: nf4")
    return f"Memory ran out; the largest part is probably {most}. Lower {', '.join(advice)}. ({str(error)[:120]})"


def _share(chosen: Choices) -> tuple[int, int]:
    """Rows at once and batches a step of this process, so that all together make the step that was chosen."""
    processes = world().size
    found = shared(chosen.batch, chosen.accumulate, processes)
    if found is None:
        text = (
            f"optim.batch × optim.accumulate is {chosen.batch} × {chosen.accumulate}, which {processes} processes "
            "cannot share evenly: make it a multiple of launch.processes"
        )
        raise BadRecipe([text])
    return found
