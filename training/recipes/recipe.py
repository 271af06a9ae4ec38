"""A recipe: everything that decides what comes out of a training run, read strictly. Light.

What is left out is `auto`, and `training.recipes.auto` chooses it from the data, saying why.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from training.recipes import strict_yaml
from training.recipes.errors import BadRecipe
from training.recipes.trainer_keys import OURS
from training.recipes.unset import Auto, is_auto

Method = Literal["sft", "pretrain", "kto", "dpo", "orpo", "reward", "grpo", "rloo", "ppo"]
METHODS: Final[tuple[Method, ...]] = ("sft", "pretrain", "kto", "dpo", "orpo", "reward", "grpo", "rloo", "ppo")
#: Methods that hold their policy against the base as it was: what changes the base's weights breaks them.
WITH_REFERENCE: Final = frozenset({"kto", "dpo", "grpo", "rloo", "ppo"})
ONLINE: Final = frozenset({"grpo", "rloo", "ppo"})
#: The ranks that vLLM can be started for.
SERVED_RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)
Scheduler = Literal[
    "cosine",
    "cosine_with_restarts",
    "cosine_with_min_lr",
    "linear",
    "constant",
    "constant_with_warmup",
    "polynomial",
    "inverse_sqrt",
    "warmup_stable_decay",
]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class Replay(_Strict):
    """Rows of another source mixed in, so that nothing else is forgotten."""

    source: str = Field(description="A file, a dataset folder, or `tidewell:NAME`.")
    share: Annotated[float, Field(gt=0, lt=1)] = Field(0.3, description="Share of all rows that are replayed.")


class Data(_Strict):
    """What is learnt from."""

    train: str = Field(description="A .jsonl or .parquet file, a dataset folder, or `tidewell:NAME`.")
    held: str | None = Field(None, description="Rows of the same form, held out: evaluated, never learnt from.")
    rows_max: Count | None = Field(None, description="Take only the first rows.")
    seed: int = Field(11, ge=0, description="Decides the rows of a `tidewell:` source.")
    replay: Replay | None = Field(None, description="Rows mixed in against forgetting.")
    tokens_max: Annotated[int, Field(ge=8)] | Auto = Field("auto", description="A longer row is left out and counted.")


class Adapter(_Strict):
    """The shape of the adapter."""

    kind: Literal["lora", "rslora", "dora", "pissa"] = Field("lora", description="dora leaves as lora, by SVD.")
    rank: Count | Auto = Field("auto", description="Rank while training.")
    alpha: Positive | Auto = Field("auto", description="Scaling: alpha / rank, or alpha / √rank with rslora.")
    dropout: Share = Field(0.0, description="Dropout before A.")
    targets: tuple[str, ...] | Literal["all-linear"] = Field("all-linear", description="Modules that get an adapter.")
    rank_max: Count = Field(16, description="The server's largest rank; what leaves is no larger.")


class Optim(_Strict):
    """How the weights are moved."""

    learning_rate: Positive | Auto = Field("auto", description="Peak learning rate.")
    steps: Count | Auto = Field("auto", description="Optimizer steps; excludes epochs.")
    epochs: Positive | None = Field(None, description="Passes over the data; excludes steps.")
    batch: Count | Auto = Field("auto", description="Rows that go through the model at once.")
    accumulate: Count | Auto = Field("auto", description="Batches that make one step.")
    scheduler: Scheduler = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] | Auto = Field("auto", description="Steps until the peak rate.")
    optimizer: str = Field("adamw_torch", description="As TRL names it, such as paged_adamw_8bit.")
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip: Positive = Field(1.0, description="Largest norm of a step's gradient.")
    precision: Literal["float32", "bfloat16", "float16"] | Auto = Field("auto", description="Of the computation.")
    lora_plus: Annotated[float, Field(gt=1)] | None = Field(None, description="LoRA+: how much faster B learns than A.")
    neftune: Positive | None = Field(None, description="NEFTune: noise on embeddings.")
    checkpointing: bool = Field(False, description="Compute activations twice to hold fewer.")
    patience: Count | None = Field(None, description="Stop after so many evaluations without a better loss.")
    evaluate_every: Count | Auto = Field("auto", description="Steps between evaluations, where there is data for them.")
    save_every: Count | None = Field(None, description="Steps between checkpoints; left out: none.")


class Sft(_Strict):
    """Settings of sft and pretrain."""

    assistant_only: bool = Field(False, description="Of `messages`, learn only what the assistant says.")
    packing: bool = Field(False, description="Put several short rows into one.")
    packing_strategy: Literal["bfd", "bfd_split", "wrapped"] = "bfd"


class Kto(_Strict):
    """Settings of kto."""

    beta: Positive = 0.1
    liked_weight: Positive | Auto = Field("auto", description="Weight of liked rows; auto balances the classes.")
    disliked_weight: Positive | Auto = Field("auto", description="Weight of disliked rows.")
    loss: Literal["kto", "apo_zero_unpaired"] = "kto"


class Dpo(_Strict):
    """Settings of dpo. Several losses are added up with their weights."""

    beta: Positive = 0.1
    loss: tuple[str, ...] = Field(("sigmoid",), min_length=1, description="As TRL names them, such as sigmoid, sft.")
    weights: tuple[Positive, ...] | None = Field(None, description="One weight a loss.")
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0


class Orpo(_Strict):
    """Settings of orpo."""

    beta: Positive = 0.1


class Rl(_Strict):
    """Settings of grpo, rloo and ppo."""

    rewards: tuple[str, ...] = Field((), description="`contains:COLUMN`, `matches:REGEX`, `tidewell:polite`, …")
    generations: Annotated[int, Field(ge=2)] = Field(8, description="Answers to each prompt.")
    answer_tokens_max: Count = Field(48, description="Longest answer.")
    temperature: Positive = 1.0
    beta: Annotated[float, Field(gt=0)] = Field(0.02, description="Price of a nat away from the reference.")
    kl_max: Positive = Field(
        10.0, description="Training stops when an answer is more nats than this from the reference."
    )


class Ppo(_Strict):
    """Settings of ppo, whose loop is our own."""

    clip_range: Annotated[float, Field(gt=0, lt=1)] = Field(0.2, description="How far one update moves a likelihood.")
    gae_lambda: Annotated[float, Field(gt=0, le=1)] = Field(0.95, description="How far back an advantage reaches.")
    passes: Count = Field(2, description="Passes over the answers of a step.")
    value_rate: Positive = Field(5e-3, description="Learning rate of the head that foresees the reward.")


class Recipe(_Strict):
    """One training run."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", description="What the adapter is called.")
    method: Method | Auto = Field("auto", description="How it learns; auto: by the feedback there is.")
    base: str = Field("served", description="`served`, `tidewell`, or a folder. Packed weights are dequantized.")
    start_from: str = Field("base", description="`base`, `live`, `NAME:VERSION`, or an adapter's folder.")
    generations_max: Count = Field(5, description="How often adapters may be trained on from adapters.")
    tuning: Literal["adapter", "full", "half"] = Field("adapter", description="full and half leave as LoRA, by SVD.")
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
    return found


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
    for at, part in enumerate(loc):
        if isinstance(part, int):
            place += f"[{part}]"
            continue
        field = model.model_fields.get(part)
        last = at == len(loc) - 1
        if field is None and not (last and _is_model_at(loc[:at])):
            break
        place = f"{place}.{part}" if place else part
        inner = _model_of(field.annotation) if field is not None else None
        if inner is not None:
            model = inner
        elif field is not None:
            # A plain value: what follows are branches of its union, and places inside it.
            return place + "".join(f"[{rest}]" for rest in loc[at + 1 :] if isinstance(rest, int)), model
    return place, model


def _is_model_at(loc: Sequence[int | str]) -> bool:
    model: type[BaseModel] | None = Recipe
    for part in loc:
        field = model.model_fields.get(str(part)) if model is not None else None
        model = _model_of(field.annotation) if field is not None else None
    return model is not None


def _model_of(annotation: Any) -> type[BaseModel] | None:
    for one in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None
