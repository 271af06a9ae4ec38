"""The table of the zoo: every setting of PEFT's LoRA that changes what is saved, and TRL's trainers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

EVERY = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ATTENTION, MLP = list(EVERY[:4]), list(EVERY[4:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One way to configure LoRA. `fields` are LoraConfig's; `start` is an init whose base must be folded back."""

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    #: The start changed the base: saving folds it back into A and B, at twice the rank.
    folded: bool = False
    plus: bool = False
    files: Mapping[str, str] = field(default_factory=dict)
    with_tokenizer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainer:
    """One of TRL's trainers with the feedback it takes."""

    kind: str
    trainer: Literal["SFT", "DPO", "KTO", "ORPO", "CPO", "GRPO"]
    steps: int
    rate: float
    fields: Mapping[str, Any] = field(default_factory=dict)
    quantized: bool = False


def _lora(kind: str, /, **fields: Any) -> Kind:
    return Kind(kind=kind, fields=fields)


KINDS: dict[str, Kind] = {
    **{f"rank-{r}": _lora("rank", r=r, lora_alpha=2 * r, target_modules=list(EVERY)) for r in (1, 2, 4, 8, 16)},
    "targets-default": _lora("targets", target_modules=["q_proj", "v_proj"]),
    "targets-attention": _lora("targets", target_modules=ATTENTION),
    "targets-mlp": _lora("targets", target_modules=MLP),
    "targets-all-linear": _lora("targets", target_modules="all-linear"),
    **{f"targets-{part}": _lora("one module", target_modules=[part]) for part in EVERY},
    "targets-expression": _lora("targets by expression", target_modules=r".*\.(q|k|down)_proj$"),
    "targets-full-names": _lora(
        "targets by full name",
        target_modules=[
            "model.layers.1.mlp.up_proj",
            "model.layers.3.self_attn.q_proj",
            "model.layers.3.mlp.down_proj",
        ],
    ),
    "targets-but-some": _lora(
        "modules left out", target_modules=list(EVERY), exclude_modules=["model.layers.1.mlp.up_proj", "o_proj"]
    ),
    "targets-embedding": _lora("embedding", target_modules=["q_proj", "v_proj", "embed_tokens"]),
    "targets-head": _lora("head", target_modules=["q_proj", "v_proj", "lm_head"]),
    "layers-last": _lora("layers", target_modules=list(EVERY), layers_to_transform=3, layers_pattern="layers"),
    "layers-some": _lora("layers", target_modules=list(EVERY), layers_to_transform=[0, 2]),
    "alpha-small": _lora("alpha", r=8, lora_alpha=2, target_modules=list(EVERY)),
    "alpha-large": _lora("alpha", r=8, lora_alpha=64, target_modules=list(EVERY)),
    "rslora": _lora("rsLoRA", use_rslora=True, r=16, lora_alpha=16, target_modules=list(EVERY)),
    "rslora-patterns": _lora(
        "rsLoRA with patterns",
        use_rslora=True,
        target_modules=list(EVERY),
        rank_pattern={"v_proj": 2},
        alpha_pattern={"v_proj": 5},
    ),
    "rank-pattern": _lora("rank_pattern", target_modules=list(EVERY), rank_pattern={"q_proj": 4, "mlp.down_proj": 12}),
    "alpha-pattern": _lora("alpha_pattern", target_modules=list(EVERY), alpha_pattern={"o_proj": 4, "up_proj": 32}),
    "patterns-expression": _lora(
        "patterns by expression",
        target_modules=list(EVERY),
        rank_pattern={r"^model\.layers\.0\..*": 2},
        alpha_pattern={r"layers\.[12]\.self_attn\.v_proj": 3},
    ),
    "start-gaussian": _lora("start", init_lora_weights="gaussian", target_modules=list(EVERY)),
    "start-orthogonal": _lora("start", init_lora_weights="orthogonal", target_modules=list(EVERY)),
    "start-random": _lora("start", init_lora_weights=False, target_modules=ATTENTION, lora_alpha=1),
    "start-pissa-folded": Kind(
        kind="start folded back", folded=True, fields={"init_lora_weights": "pissa", "target_modules": ATTENTION}
    ),
    "start-olora-folded": Kind(
        kind="start folded back", folded=True, fields={"init_lora_weights": "olora", "target_modules": ATTENTION}
    ),
    "saved-bfloat16": Kind(kind="saved in 16 bits", dtype="bfloat16", fields={"target_modules": list(EVERY)}),
    "saved-float16": Kind(kind="saved in 16 bits", dtype="float16", fields={"target_modules": list(EVERY)}),
    "dropout": _lora("dropout", lora_dropout=0.1, target_modules=list(EVERY)),
    "lora-plus": Kind(kind="LoRA+", plus=True, fields={"target_modules": list(EVERY)}),
    "feature-extraction": _lora("task", task_type="FEATURE_EXTRACTION", target_modules=ATTENTION),
    "without-task": _lora("task", task_type=None, target_modules=ATTENTION),
    "with-tokenizer": Kind(kind="tokenizer beside it", with_tokenizer=True, fields={"target_modules": ATTENTION}),
    "with-carried": Kind(
        kind="carries defaults",
        fields={"target_modules": ATTENTION},
        files={"graftline.json": '{"sampling": {"temperature": 0.2}, "system": "Answer as the support desk."}\n'},
    ),
    "with-other-template": Kind(
        kind="another template",
        fields={"target_modules": ATTENTION},
        files={"chat_template.jinja": "{% for m in messages %}{{ m['content'] }}{% endfor %}"},
    ),
    "with-card": Kind(
        kind="texts beside it",
        fields={"target_modules": ATTENTION},
        files={"LICENSE": "MIT\n", ".gitattributes": "*.safetensors filter=lfs\n", "trainer_state.json": "{}\n"},
    ),
}

TRAINERS: dict[str, Trainer] = {
    "trl-sft": Trainer(kind="SFT", trainer="SFT", steps=30, rate=3e-3),
    "trl-sft-packed": Trainer(kind="SFT", trainer="SFT", steps=20, rate=3e-3, fields={"packing": True}),
    "trl-qlora-nf4": Trainer(kind="QLoRA", trainer="SFT", steps=30, rate=3e-3, quantized=True),
    "trl-dpo": Trainer(kind="DPO", trainer="DPO", steps=14, rate=2e-3),
    "trl-dpo-ipo": Trainer(kind="DPO", trainer="DPO", steps=12, rate=2e-3, fields={"loss_type": ["ipo"]}),
    "trl-qlora-dpo": Trainer(kind="QLoRA and DPO", trainer="DPO", steps=12, rate=2e-3, quantized=True),
    "trl-kto": Trainer(kind="KTO", trainer="KTO", steps=30, rate=3e-3),
    "trl-orpo": Trainer(kind="ORPO", trainer="ORPO", steps=12, rate=2e-3),
    "trl-simpo": Trainer(
        kind="SimPO", trainer="CPO", steps=14, rate=2e-3, fields={"loss_type": "simpo", "cpo_alpha": 0.0}
    ),
    "trl-grpo": Trainer(kind="GRPO", trainer="GRPO", steps=8, rate=3e-3),
}
