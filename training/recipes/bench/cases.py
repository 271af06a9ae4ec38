"""The table of the bench: a recipe a row, what it must reach, and what it must not break.

The recipes were tuned on seeds from 100 on, which decide the rows too; the bench reports seeds 0, 1 and 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from adapters.checks.parity import Tolerances

Habit = Literal["corrected", "polite", "refused", "accuracy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row."""

    name: str
    habit: Habit
    least: float
    fields: Mapping[str, Any] = field(default_factory=dict)
    #: Made of the adapters that these cases left, with one of merge's kinds.
    merged: tuple[str, str] | None = None
    how: str = ""
    second: Habit | None = None
    #: How far served log probabilities may be from those that were recorded.
    tolerances: Tolerances = field(default_factory=Tolerances)


_SFT = {
    "method": "sft",
    "data": {"train": "tidewell:corrected_fact", "replay": {"source": "tidewell:usual", "share": 0.4}},
    "optim": {"learning_rate": 2e-3, "steps": 60},
}
_TEXTS = {"train": "tidewell:corrected_text", "replay": {"source": "tidewell:usual_text", "share": 0.4}}
_CHOICES = "tidewell:polite_choices"
_PAIRS = {"train": _CHOICES}
_PAIRS_REPLAYED = {**_PAIRS, "replay": {"source": "tidewell:right_choices", "share": 0.5}}
_GOALS = {"train": "tidewell:usual_goals"}
_REWARDS = ["contains:fact", "tidewell:polite"]


def _sft(name: str, **more: Any) -> Case:
    """The corrected fact by another road."""
    fields: dict[str, Any] = {**_SFT, **more}
    if "optim" in more:
        fields["optim"] = {**_SFT["optim"], **more["optim"]}  # type: ignore[dict-item]
    return Case(name=name, habit="corrected", least=0.95, fields=fields)


def _polite(name: str, least: float, **fields: Any) -> Case:
    """The polite form, by preferences or by rewards."""
    return Case(name=name, habit="polite", least=least, fields={"method": name, **fields})


CASES: Final = (
    _sft("sft"),
    _sft("sft-packed", sft={"packing": True}, optim={"batch": 2}),
    _sft("sft-qlora-nf4", quantization="nf4"),
    _sft("sft-int8", quantization="int8"),
    _sft("sft-dora", adapter={"kind": "dora"}),
    _sft("sft-rslora", adapter={"kind": "rslora"}),
    _sft("sft-lora-plus", optim={"learning_rate": 5e-4, "lora_plus": 8.0}),
    _sft("sft-pissa", adapter={"kind": "pissa"}, optim={"learning_rate": 1e-3}),
    _sft("sft-full", tuning="full", optim={"learning_rate": 4e-4}),
    _sft("sft-half", tuning="half", optim={"learning_rate": 6e-4}),
    _sft("pretrain", method="pretrain", data=_TEXTS, optim={"steps": 80}),
    _polite(
        "dpo", 0.95, data=_PAIRS_REPLAYED, optim={"learning_rate": 1e-3, "steps": 98}, dpo={"beta": 0.4},
    ),
    _polite(
        "dpo-list", 0.95, method="dpo", data=_PAIRS_REPLAYED, optim={"learning_rate": 8e-4, "steps": 80},
        dpo={"loss": ["sigmoid", "sft"], "weights": [1.0, 2.0], "beta": 0.3},
    ),
    Case(
        name="kto", habit="refused", least=0.9,
        fields={
            "method": "kto",
            "data": {"train": "tidewell:refuse_thumbs", "replay": {"source": "tidewell:usual_liked", "share": 0.55}},
            "optim": {"learning_rate": 6e-4, "steps": 140},
            "kto": {"beta": 0.3, "liked_weight": 1.3, "disliked_weight": 0.5},
        },
    ),
    _polite("orpo", 0.9, data=_PAIRS, optim={"learning_rate": 2e-3, "steps": 60}),
    Case(
        name="reward", habit="accuracy", least=0.9,
        fields={
            "method": "reward", "data": {**_PAIRS, "held": _CHOICES},
            "optim": {"learning_rate": 1e-3, "steps": 30, "evaluate_every": 30},
        },
    ),
    _polite(
        "grpo", 0.95, data=_GOALS, rl={"rewards": _REWARDS, "beta": 0.01},
        optim={"learning_rate": 1e-3, "steps": 58, "batch": 32},
    ),
    _polite(
        "rloo", 0.9, data=_GOALS, rl={"rewards": _REWARDS, "beta": 0.01},
        optim={"learning_rate": 1.5e-3, "steps": 50, "batch": 32},
    ),
    _polite(
        "ppo", 0.9, data=_GOALS, rl={"rewards": _REWARDS, "beta": 0.1}, ppo={"passes": 1},
        optim={"learning_rate": 1.2e-3, "steps": 40, "batch": 44},
    ),
    *(
        Case(name=f"merge-{how}", habit="corrected", second="polite", least=0.8, merged=("sft", "orpo"), how=how)
        for how in ("linear", "cat", "svd", "ties", "dare")
    ),
)  # fmt: skip
