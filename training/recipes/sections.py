"""The sections of a recipe. Light; `training.recipes.recipe` puts them together."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from training.recipes.unset import Auto

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


class Strict(BaseModel):
    """Unknown keys are refused, and so are numbers that are none."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class Replay(Strict):
    """Rows of another source mixed in, so that nothing else is forgotten."""

    source: str = Field(description="A file, a dataset folder, or `tidewell:NAME`.")
    share: Annotated[float, Field(gt=0, lt=1)] = Field(0.3, description="Share of all rows that are replayed.")


class Data(Strict):
    """What is learnt from."""

    train: str = Field(description="A .jsonl or .parquet file, a dataset folder, or `tidewell:NAME`.")
    held: str | None = Field(None, description="Rows of the same form, held out: evaluated, never learnt from.")
    rows_max: Count | None = Field(None, description="Take only the first rows.")
    seed: int = Field(11, ge=0, description="Decides the rows of a `tidewell:` source.")
    replay: Replay | None = Field(None, description="Rows mixed in against forgetting.")
    tokens_max: Annotated[int, Field(ge=8)] | Auto = Field("auto", description="A longer row is left out and counted.")
    weights: bool = Field(True, description="A row counts as its column `weight` says; false: all count alike.")


class Adapter(Strict):
    """The shape of the adapter."""

    kind: Literal["lora", "rslora", "dora", "pissa"] = Field("lora", description="dora leaves as lora, by SVD.")
    rank: Count | Auto = Field("auto", description="Rank while training.")
    alpha: Positive | Auto = Field("auto", description="Scaling: alpha / rank, or alpha / √rank with rslora.")
    dropout: Share = Field(0.0, description="Dropout before A.")
    targets: tuple[str, ...] | Literal["all-linear"] = Field("all-linear", description="Modules that get an adapter.")
    rank_max: Count = Field(16, description="The server's largest rank; what leaves is no larger.")


class Optim(Strict):
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


class Sft(Strict):
    """Settings of sft and pretrain."""

    assistant_only: bool = Field(False, description="Of `messages`, learn only what the assistant says.")
    packing: bool = Field(False, description="Put several short rows into one.")
    packing_strategy: Literal["bfd", "bfd_split", "wrapped"] = "bfd"


class Kto(Strict):
    """Settings of kto."""

    beta: Positive = 0.1
    liked_weight: Positive | Auto = Field("auto", description="Weight of liked rows; auto balances the classes.")
    disliked_weight: Positive | Auto = Field("auto", description="Weight of disliked rows.")
    loss: Literal["kto", "apo_zero_unpaired"] = "kto"


class Dpo(Strict):
    """Settings of dpo. Several losses are added up with their weights."""

    beta: Positive = 0.1
    loss: tuple[str, ...] = Field(("sigmoid",), min_length=1, description="As TRL names them, such as sigmoid, sft.")
    weights: tuple[Positive, ...] | None = Field(None, description="One weight a loss.")
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0


class Orpo(Strict):
    """Settings of orpo."""

    beta: Positive = 0.1


class Rl(Strict):
    """Settings of grpo, rloo and ppo."""

    rewards: tuple[str, ...] = Field((), description="`contains:COLUMN`, `matches:REGEX`, `tidewell:polite`, …")
    generations: Annotated[int, Field(ge=2)] = Field(8, description="Answers to each prompt.")
    answer_tokens_max: Count = Field(48, description="Longest answer.")
    temperature: Positive = 1.0
    beta: Annotated[float, Field(gt=0)] = Field(0.02, description="Price of a nat away from the reference.")
    kl_max: Positive = Field(
        10.0, description="Training stops when an answer is more nats than this from the reference."
    )


class Ppo(Strict):
    """Settings of ppo, whose loop is our own."""

    clip_range: Annotated[float, Field(gt=0, lt=1)] = Field(0.2, description="How far one update moves a likelihood.")
    gae_lambda: Annotated[float, Field(gt=0, le=1)] = Field(0.95, description="How far back an advantage reaches.")
    passes: Count = Field(2, description="Passes over the answers of a step.")
    value_rate: Positive = Field(5e-3, description="Learning rate of the head that foresees the reward.")
