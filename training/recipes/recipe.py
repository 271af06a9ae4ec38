"""A recipe: everything that decides what comes out of a training run, read strictly. Light.

What is left out is `auto`, and `training.recipes.auto` chooses it from the data, saying why.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from typing import Any, Final, Literal, get_origin

from pydantic import BaseModel, Field, ValidationError

from training.evaluation.suites.standard import Evaluating
from training.gate.targets import Targets
from training.launchers.section import Launch, Report, Wandb
from training.launchers.section import problems as misfits
from training.recipes import strict_yaml
from training.recipes.errors import BadRecipe
from training.recipes.sections import Adapter, Count, Data, Dpo, Kto, Optim, Orpo, Ppo, Rl, Sft, Strict
from training.recipes.trainer_keys import OURS
from training.recipes.unset import Auto, is_auto

Method = Literal["sft", "pretrain", "kto", "dpo", "orpo", "reward", "grpo", "rloo", "ppo"]
METHODS: Final[tuple[Method, ...]] = ("sft", "pretrain", "kto", "dpo", "orpo", "reward", "grpo", "rloo", "ppo")
#: Methods that hold their policy against the base as it was: what changes the base's weights breaks them.
WITH_REFERENCE: Final = frozenset({"kto", "dpo", "grpo", "rloo", "ppo"})
ONLINE: Final = frozenset({"grpo", "rloo", "ppo"})
#: The ranks that vLLM can be started for.
SERVED_RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)


class Recipe(Strict):
    """One training run."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", description="What the adapter is called.")
    method: Method | Auto = Field("auto", description="How it learns; auto: by the feedback there is.")
    base: str = Field("served", description="`served`, `tidewell`, or a folder. Packed weights are dequantized.")
    start_from: str = Field("base", description="`base`, `live`, `NAME:VERSION`, or an adapter's folder.")
    generations_max: Count = Field(5, description="How often adapters may be trained on from adapters.")
    tuning: Literal["adapter", "full", "half"] = Field("adapter", description="full and half leave as LoRA, by SVD.")
    new_base: bool = Field(False, description="full and half leave as a new quantized base besides, in `base`.")
    quantization: Literal["none", "nf4", "int8"] = Field("none", description="Of the base while training (QLoRA).")
    seed: int = Field(0, ge=0)
    data: Data
    adapter: Adapter = Adapter()
    optim: Optim = Optim()
    sft: Sft = Sft()
    kto: Kto = Kto()
    dpo: Dpo = Dpo()
    orpo: Orpo = Orpo()
    rl: Rl = Rl()
    ppo: Ppo = Ppo()
    evaluation: Evaluating = Evaluating()
    gate: Targets = Targets()
    launch: Launch = Launch()
    report: tuple[Report, ...] = Field((), description="Where the numbers of each step go besides; must be installed.")
    wandb: Wandb = Wandb()
    trainer: dict[str, Any] = Field(default_factory=dict, description="Anything else that the method's TRL config has.")


def read(text: str) -> Recipe:
    """The recipe in a YAML text. Raises BadRecipe with every problem."""
    return build(strict_yaml.read(text))


def build(fields: dict[str, Any]) -> Recipe:
    """A recipe from plain values. Raises BadRecipe with every problem."""
    try:
        # By way of JSON, strict types are those of the file: no "8" for 8, and a list for a tuple.
        recipe = Recipe.model_validate_json(json.dumps(fields), strict=True)
    except ValidationError as error:
        raise BadRecipe([*_problems(error), *_misplaced(fields.get("trainer"))]) from error
    if found := [*conflicts(recipe), *_misplaced(recipe.trainer)]:
        raise BadRecipe(found)
    return recipe


def conflicts(recipe: Recipe) -> list[str]:
    """What cannot go together."""
    found = []
    adapter, optim, method = recipe.adapter, recipe.optim, recipe.method
    if optim.epochs is not None and not is_auto(optim.steps):
        found.append("optim.steps and optim.epochs exclude each other; leave one out")
    if recipe.tuning != "adapter" and method not in ("sft", "pretrain"):
        found.append(f"tuning: {recipe.tuning} goes with method sft or pretrain only; found {method}")
    if method == "reward" and recipe.quantization != "none":
        found.append("method: reward needs quantization: none; its new head would be packed too")
    if recipe.tuning != "adapter" and recipe.quantization != "none":
        found.append(f"tuning: {recipe.tuning} needs quantization: none; packed weights cannot be moved")
    if recipe.new_base and recipe.tuning == "adapter":
        found.append("new_base goes with tuning: full or half; of an adapter, `graftline export-model` makes a base")
    if recipe.new_base and recipe.launch.processes > 1:
        found.append("new_base goes with launch.processes: 1; of several processes none has all of the weights")
    if recipe.tuning != "adapter" and (optim.lora_plus or recipe.start_from != "base"):
        found.append(f"tuning: {recipe.tuning} goes without optim.lora_plus and starts from base")
    if adapter.kind == "pissa" and (method in WITH_REFERENCE or recipe.quantization != "none"):
        found.append(
            "adapter.kind: pissa changes the base's weights, so it goes with sft, pretrain, orpo and reward on an "
            "unquantized base only: the reference of the other methods is the base without the adapter"
        )
    if recipe.start_from != "base" and adapter.kind != "lora":
        found.append(f"adapter.kind: {adapter.kind} cannot be chosen with start_from: the adapter's own shape goes on")
    if recipe.start_from != "base" and not (is_auto(adapter.rank) and is_auto(adapter.alpha)):
        found.append("adapter.rank and adapter.alpha cannot be chosen with start_from: the adapter's own go on")
    if adapter.rank_max not in SERVED_RANKS:
        listed = ", ".join(map(str, SERVED_RANKS))
        found.append(f"adapter.rank_max: found {adapter.rank_max}; a server can be started for {listed}")
    if not is_auto(adapter.rank) and adapter.rank > adapter.rank_max and adapter.kind in ("lora", "rslora"):
        found.append(
            f"adapter.rank: {adapter.rank} is above adapter.rank_max, {adapter.rank_max}: nobody could serve it"
        )
    if adapter.kind == "pissa" and not is_auto(adapter.rank) and 2 * adapter.rank > adapter.rank_max:
        found.append(
            f"adapter.rank: pissa leaves with twice its rank, {2 * adapter.rank}; rank_max: {adapter.rank_max}"
        )
    if recipe.dpo.weights is not None and len(recipe.dpo.weights) != len(recipe.dpo.loss):
        found.append(f"dpo.weights: {len(recipe.dpo.weights)} weights for {len(recipe.dpo.loss)} losses")
    if "exo_pair" in recipe.dpo.loss and recipe.dpo.label_smoothing == 0:
        found.append("dpo.loss: exo_pair needs dpo.label_smoothing above 0")
    if method in ONLINE and not recipe.rl.rewards:
        found.append(f"rl.rewards: {method} needs at least one reward")
    if method == "ppo" and (recipe.trainer or optim.save_every or recipe.data.held or optim.patience):
        found.append("ppo is a loop of our own: it takes no trainer:, data.held, optim.patience or optim.save_every")
    if optim.patience is not None and recipe.data.held is None:
        found.append("optim.patience needs data.held: a loss that was learnt from does not say when to stop")
    if recipe.sft.packing and recipe.tuning == "adapter" and method not in ("sft", "pretrain", "auto"):
        found.append(f"sft.packing goes with sft and pretrain; found method: {method}")
    asked = {"method": method, "tuning": recipe.tuning, "quantization": recipe.quantization, "kind": adapter.kind}
    return [*found, *misfits(recipe.launch, recipe.report, recipe.wandb, **asked)]


def _misplaced(trainer: object) -> list[str]:
    """Keys under `trainer:` that the recipe itself decides, and former names."""
    names = trainer if isinstance(trainer, dict) else {}
    return [f"trainer.{name}: {OURS[name]}" for name in names if name in OURS]


def _problems(error: ValidationError) -> list[str]:
    """One line a place, however many forms a value could have had."""
    places: dict[str, list[str]] = {}
    for one in error.errors(include_url=False):
        place, model = _place(one["loc"])
        if one["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(one["loc"][-1]), model.model_fields, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; allowed: {', '.join(model.model_fields)}"
            places.setdefault(place, []).append(f"unknown key{hint}")
        elif one["type"] == "missing":
            places.setdefault(place, []).append("is missing")
        else:
            said = one["msg"].removeprefix("Input ").rstrip(".")
            lines = places.setdefault(place, [f"found {json.dumps(one['input'], ensure_ascii=False)[:80]}; it"])
            lines.append(said if len(lines) == 1 else f"or {said}")
    return [f"{place}: {' '.join(said)}" for place, said in places.items()]


def _place(loc: Sequence[int | str]) -> tuple[str, type[BaseModel]]:
    """Where in the recipe: pydantic's locations also name the branch of a union, which is nobody's key."""
    model: type[BaseModel] = Recipe
    place = ""
    keyed = False  # the next part is a name that the recipe's author gave
    for at, part in enumerate(loc):
        if isinstance(part, int):
            place += f"[{part}]"
            continue
        if keyed:
            place, keyed = f"{place}.{part}", False
            continue
        field = model.model_fields.get(part)
        last = at == len(loc) - 1
        if field is None and not (last and _is_model_at(loc[:at])):
            break
        place = f"{place}.{part}" if place else part
        inner = _model_of(field.annotation) if field is not None else None
        if inner is not None:
            model, keyed = inner, field is not None and get_origin(field.annotation) is dict
        elif field is not None:
            # A plain value: what follows are branches of its union, and places inside it.
            return place + "".join(f"[{rest}]" for rest in loc[at + 1 :] if isinstance(rest, int)), model
    return place, model


def _is_model_at(loc: Sequence[int | str]) -> bool:
    model: type[BaseModel] | None = Recipe
    keyed = False
    for part in loc:
        if keyed:
            keyed = False
            continue
        field = model.model_fields.get(str(part)) if model is not None else None
        model = _model_of(field.annotation) if field is not None else None
        keyed = field is not None and get_origin(field.annotation) is dict
    return model is not None


def _model_of(annotation: Any) -> type[BaseModel] | None:
    for one in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None
