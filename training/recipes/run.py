"""A recipe from its file to its adapter: rows, choices, training, and how it leaves. Heavy.

out/adapter       what may be served: adapter_config.json, adapter_model.safetensors
out/run.json      recipe, every choice with its reason, versions, digests, numbers
out/checkpoints   what a killed run goes on from; holds pickles and never leaves
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from training.errors import OutputExists
from training.recipes import rows as sources
from training.recipes.auto import Choices, Reason, choose, method_for
from training.recipes.dpo import dpo
from training.recipes.errors import BadRecipe, TooStale
from training.recipes.kto import kto
from training.recipes.lesson import Lesson, Trained
from training.recipes.measure import measured
from training.recipes.online import grpo, rloo
from training.recipes.orpo import orpo
from training.recipes.ppo import ppo
from training.recipes.progress import Began, Chose, Finished, Noted, Progress
from training.recipes.recipe import Method, Recipe, conflicts
from training.recipes.reward import reward
from training.recipes.sft import pretrain, sft
from training.recipes.unset import is_auto

RECIPES: Final[dict[Method, Callable[[Lesson], Trained]]] = {
    "sft": sft, "pretrain": pretrain, "kto": kto, "dpo": dpo, "orpo": orpo, "reward": reward,
    "grpo": grpo, "rloo": rloo, "ppo": ppo,
}  # fmt: skip
#: Where the dataset compiler says which tokens of an answer are no placeholders.
_MASKS = frozenset({"completion_mask", "chosen_mask", "rejected_mask"})
_VERSIONS = ("torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes", "datasets")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run made."""

    adapter: Path
    chosen: Choices
    numbers: Mapping[str, float]
    seconds: float
    cpu_seconds: float


def prepare(recipe: Recipe, out: Path, *, base: Path, start: Path | None, progress: Progress) -> Lesson:
    """Read and look at the rows, and choose what the recipe leaves open. BadRows, BadRecipe, BadCheckpoint."""
    data = recipe.data
    rows = sources.read(data.train, rows_max=data.rows_max, seed=data.seed)
    kinds = sources.kinds(rows)
    picked: list[Reason] = []
    method = recipe.method
    if is_auto(method):
        picked = [method_for(kinds, rewards=bool(recipe.rl.rewards))]
        found: Method = next(m for m in RECIPES if m == picked[0].value)
        method = found
        recipe = recipe.model_copy(update={"method": method})
        if wrong := conflicts(recipe):
            raise BadRecipe([f"method: auto chose {method} ({picked[0].why}), but {problem}" for problem in wrong])
    sources.check(data.train, rows, method)
    held: Sequence[sources.Row] = []
    if data.held is not None:
        held = sources.read(data.held, seed=data.seed + 1, split="evaluation")
        sources.check(data.held, held, method)
    replayed: Sequence[sources.Row] = []
    share = 0.0
    if data.replay is not None:
        replayed, share = sources.read(data.replay.source, seed=data.seed + 2), data.replay.share
        sources.check(data.replay.source, replayed, method)
    rows = sources.mixed(rows, replayed, share=share, seed=recipe.seed)
    look = measured(recipe, method, rows, base)
    chosen = choose(recipe, look.facts(sources.kinds(rows)), before=picked)
    kept = [row for row, tokens in zip(rows, look.tokens, strict=True) if tokens <= chosen.tokens_max]
    if recipe.sft.packing and recipe.sft.packing_strategy != "bfd" and method == "pretrain":
        kept = rows  # a text that is too long is cut into pieces, and nothing of it is lost
    if left := len(rows) - len(kept):
        text = f"{left} of {len(rows)} rows are longer than {chosen.tokens_max} tokens and were left out"
        progress.said(Noted(what="rows_too_long", text=text))
    sources.check(f"{data.train} (rows within {chosen.tokens_max} tokens)", kept, method)
    unused = _MASKS & kept[0].keys() - sources.shared(kept, method)
    if unused and (method == "sft" or any(0 in row.get(name, ()) for row in kept for name in unused)):
        text = f"{method} tokenizes these rows itself, so their masks are not used: placeholders count to the loss"
        progress.said(Noted(what="masks_lost", text=text))
    for reason in chosen.reasons:
        progress.said(Chose(key=reason.key, value=reason.value, why=reason.why))
    return Lesson(
        recipe=recipe, chosen=chosen, rows=sources.columns(kept, method),
        held=sources.columns(held, method) if held else [], base=base, start=start, folder=out, progress=progress,
    )  # fmt: skip


def run(recipe: Recipe, out: Path, *, base: Path, start: Path | None = None, progress: Progress) -> Outcome:
    """Train the adapter of a recipe into `out`, going on where a killed run of it stopped.

    Raises RecipeFailed's kinds, CannotConvert, OutputExists, BadCheckpoint.
    """
    from transformers import set_seed

    began, cpu = time.monotonic(), _cpu_seconds()
    if (out / "adapter").exists():
        raise OutputExists(
            f"{out / 'adapter'} is already there. Artefacts are never overwritten: choose another folder."
        )
    generation = _generation(recipe, start)
    lesson = prepare(recipe, out, base=base, start=start, progress=progress)
    chosen = lesson.chosen
    out.mkdir(parents=True, exist_ok=True)
    _same(lesson, out / "started")
    progress.said(Began(method=chosen.method, rows=len(lesson.rows), steps=chosen.steps))
    set_seed(recipe.seed)
    trained = RECIPES[chosen.method](lesson)
    numbers = {**trained.numbers, **_left(trained, lesson, out / "adapter")}
    seconds, cpu = time.monotonic() - began, _cpu_seconds() - cpu
    record = _record(lesson, numbers, generation) | {"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2)}
    building = out / ".run.json"
    building.write_text(json.dumps(record, indent=1, sort_keys=True, default=str) + "\n")
    os.replace(building, out / "run.json")
    done = Outcome(adapter=out / "adapter", chosen=chosen, numbers=numbers, seconds=seconds, cpu_seconds=cpu)
    progress.said(Finished(folder=str(out / "adapter"), seconds=seconds, cpu_seconds=cpu, numbers=numbers))
    return done


def _left(trained: Trained, lesson: Lesson, adapter: Path) -> dict[str, float]:
    """Write what was trained as an adapter; what of it was lost on the way."""
    from training.model import leave, quiet
    from training.model_extract import extract

    recipe = lesson.recipe
    with quiet():
        if trained.before:
            rank = recipe.adapter.rank_max
            done = extract(trained.model, trained.before, adapter, base_name=lesson.base.name, rank=rank)
            worst = max(done.loss, key=lambda name: done.loss[name])
            text = f"rank {rank} keeps all but {done.loss_total:.3f} of the change; {worst} loses most"
            lesson.progress.said(Noted(what="extracted", text=text))
            return {"rank": float(done.rank), "svd_loss": done.loss_total}
        lost = leave(trained.model, adapter, base=lesson.base, recipe=recipe, start=trained.start)
    if lost:
        text = f"DoRA became LoRA of rank {lost['rank']:.0f}: {lost['svd_loss']:.3f} of the change is lost"
        lesson.progress.said(Noted(what="converted", text=text))
    return lost


def _same(lesson: Lesson, mark: Path) -> None:
    """Whether what stands in the folder is of this very run: going on from another one's checkpoint would go unseen."""
    from training.base.digest import folder_digest

    parts = (lesson.recipe.model_dump_json(), _rows_digest(lesson), folder_digest(lesson.base), str(lesson.start))
    name = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    if mark.is_file() and mark.read_text().strip() != name:
        raise BadRecipe(
            [f"{mark.parent} holds a run of another recipe, other rows or another base; choose another --out"]
        )
    mark.write_text(name + "\n")


def _rows_digest(lesson: Lesson) -> str:
    return hashlib.sha256(json.dumps(lesson.rows, sort_keys=True, default=str).encode()).hexdigest()


def _generation(recipe: Recipe, start: Path | None) -> int:
    """How many trainings lie between the base and what comes out. Raises TooStale."""
    if start is None:
        return 1
    before = 1
    for path in (start / "run.json", start.parent / "run.json"):
        if path.is_file():
            before = int(json.loads(path.read_text()).get("generation", 1))
            break
    if before + 1 > recipe.generations_max:
        raise TooStale(
            f"{start} is generation {before}, and recipe {recipe.name} allows {recipe.generations_max}: each adapter "
            "trained on an adapter drifts further. Set start_from: base, or raise generations_max."
        )
    return before + 1


def _record(lesson: Lesson, numbers: Mapping[str, float], generation: int) -> dict[str, Any]:
    from importlib.metadata import version

    from training.base.digest import folder_digest

    template = lesson.base / "chat_template.jinja"
    return {
        "recipe": lesson.recipe.model_dump(mode="json"),
        "chosen": {name: value for name, value in asdict(lesson.chosen).items() if name != "reasons"},
        "reasons": [asdict(reason) for reason in lesson.chosen.reasons],
        "numbers": dict(numbers),
        "generation": generation,
        "start": str(lesson.start) if lesson.start else None,
        "base": {"name": lesson.base.name, "digest": folder_digest(lesson.base)},
        "template": hashlib.sha256(template.read_bytes()).hexdigest() if template.is_file() else None,
        "rows": {"count": len(lesson.rows), "sha256": _rows_digest(lesson)},
        "versions": {name: version(name) for name in _VERSIONS},
    }


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
