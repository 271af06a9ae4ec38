"""A recipe from its file to its adapter: rows, choices, training, and how it leaves. Heavy.

out/adapter       what may be served: adapter_config.json, adapter_model.safetensors
out/base          where whole weights were trained and `new_base` asks for it: a quantized base of its own
out/parity.json   what the adapter says to the prompts that replicas are asked, to hold them against
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
from training.gate.canaries import canaries, planted
from training.launchers.world import trained_weights, world
from training.recipes import parity
from training.recipes import rows as sources
from training.recipes.auto import Choices, Reason, choose, method_for
from training.recipes.dpo import dpo
from training.recipes.errors import BadRecipe, TooStale
from training.recipes.kto import kto
from training.recipes.lesson import Lesson, Trained
from training.recipes.measure import measured, remember, remembered
from training.recipes.online import grpo, rloo
from training.recipes.orpo import orpo
from training.recipes.ppo import ppo
from training.recipes.progress import Began, Chose, Finished, Noted, Progress
from training.recipes.recipe import ONLINE, Method, Recipe, conflicts
from training.recipes.reward import reward
from training.recipes.sft import pretrain, sft
from training.recipes.tokens import fitted
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
    rows = planted(rows, method, canaries(recipe.gate.canaries, recipe.seed))
    rows = _counted(rows, method, recipe, base, progress)
    held = sources.unweighed(fitted(held, method, base)[0])
    look = remembered(measured(recipe, method, rows, base), out)
    chosen = choose(recipe, look.facts(sources.kinds(rows)), before=picked)
    kept = [row for row, tokens in zip(rows, look.tokens, strict=True) if tokens <= chosen.tokens_max]
    lengths: Sequence[int] = [tokens for tokens in look.tokens if tokens <= chosen.tokens_max]
    if recipe.sft.packing and recipe.sft.packing_strategy != "bfd" and method == "pretrain":
        kept, lengths = rows, look.tokens  # a text that is too long is cut into pieces, and nothing of it is lost
    if left := len(rows) - len(kept):
        text = f"{left} of {len(rows)} rows are longer than {chosen.tokens_max} tokens and were left out"
        progress.said(Noted(what="rows_too_long", text=text))
    sources.check(f"{data.train} (rows within {chosen.tokens_max} tokens)", kept, method)
    unused = _MASKS & kept[0].keys() - sources.shared(kept, method) if method not in ("reward", *ONLINE) else ()
    if unused and any(0 in row.get(name, ()) for row in kept for name in unused):
        text = "not every row can have tokens, so none has its masks: placeholders count to the loss"
        progress.said(Noted(what="masks_lost", text=text))
    for reason in chosen.reasons:
        progress.said(Chose(key=reason.key, value=reason.value, why=reason.why))
    return Lesson(
        recipe=recipe, chosen=chosen, rows=sources.columns(kept, method),
        held=sources.columns(held, method) if held else [], base=base, start=start, folder=out, progress=progress,
        lengths=lengths, memory_bytes=look.memory_bytes,
    )  # fmt: skip


def _counted(
    rows: Sequence[sources.Row], method: Method, recipe: Recipe, base: Path, progress: Progress
) -> list[sources.Row]:
    """The rows with tokens of this base and with weights around 1, as far as they have either. Raises BadRecipe."""
    told, made = fitted(rows, method, base)
    counted, differ = sources.weighed(told, method) if recipe.data.weights else (sources.unweighed(told), "")
    if differ and method == "dpo" and (torn := {"aot", "aot_unpaired"} & {*recipe.dpo.loss}):
        text = f"dpo.loss: {min(torn)} tears pairs apart, so that none has a weight, but {differ}"
        raise BadRecipe([f"{text}. Choose another loss, or set data.weights: false"])
    for what, text in (("tokens", made), ("weights", differ)):
        if text:
            progress.said(Noted(what=what, text=text))
    return counted


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
    processes = world()
    if processes.first:
        out.mkdir(parents=True, exist_ok=True)
        _same(lesson, out / "started")
        remember(lesson.memory_bytes, out)
    processes.wait()
    progress.said(Began(method=chosen.method, rows=len(lesson.rows), steps=chosen.steps))
    set_seed(recipe.seed)
    trained = RECIPES[chosen.method](lesson)
    weights = trained_weights(trained.model) if processes.size > 1 and not trained.before else None
    processes.part()
    numbers = dict(trained.numbers)
    if processes.first:
        lost = _left(trained, lesson, out / "adapter", weights)
        numbers |= lost | parity.record(
            lesson, trained, out / "adapter", converted=bool(lost), whole=processes.size == 1
        )
    seconds, cpu = time.monotonic() - began, _cpu_seconds() - cpu
    record = _record(lesson, numbers, generation) | {"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2)}
    if processes.first:
        building = out / ".run.json"
        building.write_text(json.dumps(record, indent=1, sort_keys=True, default=str) + "\n")
        os.replace(building, out / "run.json")
    done = Outcome(adapter=out / "adapter", chosen=chosen, numbers=numbers, seconds=seconds, cpu_seconds=cpu)
    progress.said(Finished(folder=str(out / "adapter"), seconds=seconds, cpu_seconds=cpu, numbers=numbers))
    return done


def _left(trained: Trained, lesson: Lesson, adapter: Path, weights: Mapping[str, Any] | None) -> dict[str, float]:
    """Write what was trained as an adapter; what of it was lost on the way."""
    from training.model import leave, quiet
    from training.model_extract import extract

    recipe = lesson.recipe
    with quiet():
        if trained.before:
            rank = recipe.adapter.rank_max
            numbers = _new_base(trained, lesson) if recipe.new_base else {}
            done = extract(trained.model, trained.before, adapter, base_name=lesson.base.name, rank=rank)
            worst = max(done.loss, key=lambda name: done.loss[name])
            text = f"rank {rank} keeps all but {done.loss_total:.3f} of the change; {worst} loses most"
            lesson.progress.said(Noted(what="extracted", text=text))
            return {"rank": float(done.rank), "svd_loss": done.loss_total, **numbers}
        lost = leave(trained.model, adapter, base=lesson.base, recipe=recipe, start=trained.start, weights=weights)
    if lost:
        text = f"DoRA became LoRA of rank {lost['rank']:.0f}: {lost['svd_loss']:.3f} of the change is lost"
        lesson.progress.said(Noted(what="converted", text=text))
    return lost


def _new_base(trained: Trained, lesson: Lesson) -> dict[str, float]:
    """Write whole weights as a quantized base beside the adapter; what its packing cost."""
    from training.exporting.export import new_base
    from training.exporting.packing import scheme_of

    out = lesson.folder / "base"
    if out.exists():
        return {}  # a run that was killed after it wrote this
    scheme, group = scheme_of(lesson.base)
    made = {"recipe": lesson.recipe.name, "base": lesson.base.name, "rows": _rows_digest(lesson)}
    rows = {"held-out rows" if lesson.held else "rows": lesson.held or lesson.rows}
    done = new_base(trained.model, out, like=lesson.base, about=made, sources=rows, scheme=scheme, group=group)
    before, trained_loss, after = (score.loss for score in done.scores)
    text = f"{out} is a base of its own, {done.digest}: loss {before:.4f} before, {trained_loss:.4f} trained, "
    lesson.progress.said(Noted(what="new_base", text=text + f"{after:.4f} packed"))
    return {"base_loss_before": before, "base_loss_trained": trained_loss, "base_loss_packed": after}


def _same(lesson: Lesson, mark: Path) -> None:
    """Whether what stands in the folder is of this very run: going on from another one's checkpoint would go unseen."""
    from training.base.digest import folder_digest

    # What the gate asks of the result changes nothing of the run, nor who else is told.
    parts = (
        lesson.recipe.model_dump_json(exclude={"gate", "evaluation", "report", "wandb"}),
        _rows_digest(lesson),
        folder_digest(lesson.base),
        str(lesson.start),
    )
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
