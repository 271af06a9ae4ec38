"""Chooses what a recipe left `auto`, from the data, the model and the machine; every choice has a reason. Pure.

The rules are starting points that worked on small data and models, not optima: a search may beat them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from training.recipes.errors import BadRecipe
from training.recipes.recipe import ONLINE, WITH_REFERENCE, Method, Recipe
from training.recipes.unset import is_auto

Precision = Literal["float32", "bfloat16", "float16"]
Say = Callable[[str, object, str], None]
#: A learning rate for LoRA on a base of a billion parameters.
_RATES: Final[dict[Method, float]] = {
    "sft": 2e-4, "pretrain": 2e-4, "kto": 1e-4, "dpo": 5e-5, "orpo": 1e-4, "reward": 1e-4,
    "grpo": 1e-4, "rloo": 1e-4, "ppo": 1e-4,
}  # fmt: skip
_EPOCHS: Final[dict[Method, float]] = {
    "sft": 3, "pretrain": 1, "kto": 6, "dpo": 2.5, "orpo": 3, "reward": 3, "grpo": 1.5, "rloo": 1.5, "ppo": 1.5,
}  # fmt: skip
_RATE_BASE, _RATE_POWER, _RATE_FULL = 1e9, 0.35, 0.1
_STEPS_MIN, _STEPS_MAX, _STEP_ROWS, _PACKED_ROWS = 20, 2000, 16, 8
_ROWS_FOR_PAIRS, _ROWS_FOR_THUMBS = 50, 20
#: Bytes of activations per token, layer and hidden unit of a forward pass that is kept for the backward one.
_ACTIVATION_BYTES, _ACTIVATION_BYTES_AGAIN = 34, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Kinds:
    """How many rows there are of each kind of feedback."""

    answers: int = 0  #: a prompt and the answer it should have had, or whole conversations
    pairs: int = 0  #: chosen and rejected
    liked: int = 0
    disliked: int = 0
    texts: int = 0
    prompts: int = 0  #: a prompt alone, for rewards


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the choice follows from."""

    kinds: Kinds
    rows: int
    tokens_mean: float
    tokens_p99: int
    tokens_most: int
    parameters: int
    layers: int
    hidden: int
    vocabulary: int
    positions: int
    memory_bytes: int
    accelerator: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One thing that was chosen, and why."""

    key: str
    value: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """A recipe without any `auto` left."""

    method: Method
    rank: int
    alpha: float
    learning_rate: float
    steps: int
    batch: int
    accumulate: int
    warmup_steps: int
    tokens_max: int
    precision: Precision
    evaluate_every: int
    liked_weight: float
    disliked_weight: float
    #: Bytes at the peak, by what they are for. An estimate.
    memory: Mapping[str, int]
    reasons: tuple[Reason, ...]


def method_for(kinds: Kinds, *, rewards: bool = False) -> Reason:
    """The method that the feedback calls for. Raises BadRecipe where there is too little of any."""
    if kinds.pairs >= _ROWS_FOR_PAIRS:
        return Reason(key="method", value="dpo", why=f"{kinds.pairs} pairs say which of two answers is better")
    if min(kinds.liked, kinds.disliked) >= _ROWS_FOR_THUMBS:
        why = (
            f"{kinds.liked} thumbs up and {kinds.disliked} down on single answers, and {kinds.pairs} pairs are too few"
        )
        return Reason(key="method", value="kto", why=why)
    if kinds.answers:
        return Reason(key="method", value="sft", why=f"{kinds.answers} rows hold the answer as it should have been")
    if kinds.texts:
        return Reason(key="method", value="pretrain", why=f"{kinds.texts} rows are plain text")
    if kinds.prompts and rewards:
        return Reason(key="method", value="grpo", why=f"{kinds.prompts} prompts, and rewards to judge answers by")
    raise BadRecipe(
        [
            f"method: auto found no method: {kinds.pairs} pairs (dpo needs {_ROWS_FOR_PAIRS}), {kinds.liked} liked and "
            f"{kinds.disliked} disliked (kto needs {_ROWS_FOR_THUMBS} of each), no answers, no texts"
            + ("; the prompts need rl.rewards" if kinds.prompts else "")
        ]
    )


def rate_for(method: Method, parameters: int, *, whole: bool = False) -> float:
    """The learning rate of a method on a base of so many parameters; `whole` where all of its weights move."""
    small = max(1.0, (_RATE_BASE / parameters) ** _RATE_POWER)
    return float(f"{_RATES[method] * small * (_RATE_FULL if whole else 1):.2g}")


def choose(recipe: Recipe, facts: Facts, *, before: Sequence[Reason] = ()) -> Choices:
    """Every value of the run. `before` are reasons of what was chosen already."""
    told = [*before]

    def say(key: str, value: object, why: str) -> None:
        told.append(Reason(key=key, value=f"{value:g}" if isinstance(value, float) else str(value), why=why))

    method = recipe.method
    if is_auto(method):
        told.append(method_for(facts.kinds, rewards=bool(recipe.rl.rewards)))
        picked: Method = next(m for m in _RATES if m == told[-1].value)
        method = picked
    optim, adapter = recipe.optim, recipe.adapter

    tokens_max = recipe.data.tokens_max
    if is_auto(tokens_max):
        packed = math.ceil(_PACKED_ROWS * facts.tokens_mean) if recipe.sft.packing else 0
        tokens_max = int(max(8, min(facts.positions, _up(max(facts.tokens_most, packed), 8))))
        why = f"the longest row has {facts.tokens_most} tokens, the base {facts.positions}"
        say("data.tokens_max", tokens_max, why + (f"; packed, some {_PACKED_ROWS} rows go in" if packed else ""))
    if recipe.sft.packing:
        facts = replace(facts, rows=max(1, math.ceil(facts.rows * facts.tokens_mean / tokens_max)))

    rank = adapter.rank
    if is_auto(rank):
        room = adapter.rank_max // 2 if adapter.kind == "pissa" else adapter.rank_max
        rank = int(min(room, 8 if facts.rows < 2000 else 16 if facts.rows < 20_000 else 32))
        say("adapter.rank", rank, f"{facts.rows} rows, and the server takes {adapter.rank_max}")
    alpha = adapter.alpha
    if is_auto(alpha):
        alpha = float(2 * rank) if adapter.kind != "rslora" else 2 * math.sqrt(rank)
        say("adapter.alpha", alpha, "a scaling of 2, whatever the rank")

    precision: Precision | Literal["auto"] = optim.precision
    if is_auto(precision):
        precision = "bfloat16" if facts.accelerator else "float32"
        why = "an accelerator is there" if facts.accelerator else "no accelerator, and small models lose by rounding"
        say("optim.precision", precision, why)

    batch, accumulate = _batches(recipe, method, facts, tokens_max, precision, rank, say)
    each = batch * accumulate
    steps = 0 if is_auto(optim.steps) else optim.steps
    if not steps or optim.epochs is not None:
        epochs = optim.epochs if optim.epochs is not None else _EPOCHS[method]
        share = each / recipe.rl.generations if method in ("grpo", "rloo") else each
        steps = math.ceil(epochs * facts.rows / share)
        if optim.epochs is None:
            steps = int(min(_STEPS_MAX, max(_STEPS_MIN, steps)))
            why = f"{epochs:g} passes over {facts.rows} rows, within {_STEPS_MIN} and {_STEPS_MAX}"
            say("optim.steps", steps, why)
    warmup = optim.warmup_steps
    if is_auto(warmup):
        warmup = int(min(100, max(1, steps // 12)))
        say("optim.warmup_steps", warmup, f"a twelfth of {steps} steps, at most 100")

    rate = optim.learning_rate
    if is_auto(rate):
        small = max(1.0, (_RATE_BASE / facts.parameters) ** _RATE_POWER)
        rate = rate_for(method, facts.parameters, whole=recipe.tuning != "adapter")
        why = f"{_RATES[method]:g} for {method} at 1 B parameters, times {small:.1f} at {facts.parameters / 1e6:.1f} M"
        say("optim.learning_rate", rate, why + (", a tenth for whole weights" if recipe.tuning != "adapter" else ""))

    liked, disliked = recipe.kto.liked_weight, recipe.kto.disliked_weight
    if method == "kto":
        liked, disliked = _class_weights(recipe, facts.kinds, say)
    every = optim.evaluate_every
    if is_auto(every):
        every = int(max(1, steps // 10))
        if recipe.data.held is not None:
            say("optim.evaluate_every", every, "ten times in all")
    return Choices(
        method=method, rank=rank, alpha=alpha, learning_rate=rate, steps=steps, batch=batch, accumulate=accumulate,
        warmup_steps=warmup, tokens_max=tokens_max, precision=precision, evaluate_every=every,
        liked_weight=1.0 if is_auto(liked) else liked, disliked_weight=1.0 if is_auto(disliked) else disliked,
        memory=memory(recipe, method, facts, tokens_max=tokens_max, precision=precision, rank=rank, batch=batch),
        reasons=tuple(told),
    )  # fmt: skip


def memory(
    recipe: Recipe, method: Method, facts: Facts, *, tokens_max: int, precision: Precision, rank: int, batch: int
) -> dict[str, int]:
    """Bytes at the peak, by part: an estimate to choose by and to compare, not a promise."""
    weight = {"none": 4.0 if precision == "float32" else 2.0, "int8": 1.1, "nf4": 0.6}[recipe.quantization]
    # Seven matrices a layer, their inputs and outputs together some 20 times as wide as the model.
    trained = facts.parameters if recipe.tuning != "adapter" else 20 * rank * facts.hidden * facts.layers
    state = 2 if "8bit" in recipe.optim.optimizer else 8
    answers = batch * (2 if method in ("dpo", "orpo", "reward") else 1)
    per_unit = _ACTIVATION_BYTES_AGAIN if recipe.optim.checkpointing else _ACTIVATION_BYTES
    scale = 1.0 if precision == "float32" else 0.5
    passes = answers * tokens_max
    return {
        "base weights": int(facts.parameters * weight),
        "trained weights": int(trained * 4) if recipe.tuning == "adapter" else 0,
        "gradients": int(trained * 4),
        "optimizer": int(trained * state),
        "activations": int(passes * facts.layers * facts.hidden * per_unit * scale),
        "logits": int(passes * facts.vocabulary * 4 * (2 if method in WITH_REFERENCE else 1)),
    }


def _batches(
    recipe: Recipe, method: Method, facts: Facts, tokens_max: int, precision: Precision, rank: int, say: Say
) -> tuple[int, int]:
    """Rows at once, and batches a step: as many rows a step as learn well, as many at once as fit."""
    optim = recipe.optim
    # A packed row holds many, and a step shall see as many as without packing.
    rows = max(1, round(_STEP_ROWS * facts.tokens_mean / tokens_max)) if recipe.sft.packing else _STEP_ROWS
    wanted = 4 * recipe.rl.generations if method in ONLINE else min(rows, max(1, facts.rows))
    batch, accumulate = optim.batch, optim.accumulate
    least = recipe.rl.generations if method in ONLINE else 4 if method == "kto" else 1
    if is_auto(batch):
        batch = wanted if is_auto(accumulate) else int(max(wanted // accumulate, least))
        most = batch
        while (
            batch > least
            and _peak(recipe, method, facts, tokens_max, precision, rank, batch) > 0.7 * facts.memory_bytes
        ):
            batch = int(max(least, batch // 2))
        why = f"{_peak(recipe, method, facts, tokens_max, precision, rank, batch) / 1e9:.1f} GB at the peak"
        say("optim.batch", batch, why if batch == most else f"{most} would not fit; {why}")
    if is_auto(accumulate):
        accumulate = int(max(1, wanted // batch))
        if accumulate > 1:
            say("optim.accumulate", accumulate, f"{batch * accumulate} rows a step")
    return batch, accumulate


def _peak(
    recipe: Recipe, method: Method, facts: Facts, tokens_max: int, precision: Precision, rank: int, batch: int
) -> int:
    parts = memory(recipe, method, facts, tokens_max=tokens_max, precision=precision, rank=rank, batch=batch)
    return sum(parts.values())


def _class_weights(recipe: Recipe, kinds: Kinds, say: Say) -> tuple[float, float]:
    """Weighted, both classes count alike: the KTO paper's range is 1:1 to 4:3."""
    liked, disliked = recipe.kto.liked_weight, recipe.kto.disliked_weight
    up, down = max(1, kinds.liked), max(1, kinds.disliked)
    if is_auto(liked):
        liked = float(f"{max(1.0, down / up) if is_auto(disliked) else disliked * down / up:.3f}")
        say("kto.liked_weight", liked, f"{kinds.liked} liked, {kinds.disliked} disliked")
    if is_auto(disliked):
        disliked = float(f"{liked * up / down:.3f}")
        say("kto.disliked_weight", disliked, "both classes count alike")
    return liked, disliked


def _up(number: int, step: int) -> int:
    return -(-number // step) * step
