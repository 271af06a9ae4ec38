"""A training script as TRL's documentation has it, with the settings of our recipes and nothing else. Heavy.

What decides how much is computed is the same on both sides: rows, order, batch, steps, length, precision, adapter.
For the rest, such as how often it logs, TRL has its defaults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from training.recipes.auto import Choices
from training.recipes.recipe import Recipe


def train(
    method: Literal["sft", "dpo"],
    recipe: Recipe,
    chosen: Choices,
    rows: Sequence[Mapping[str, Any]],
    base: Path,
    folder: Path,
    *,
    callbacks: Sequence[Any] = (),
) -> float:
    """Load, tokenize, train; how many tokens went through, as TRL counts them."""
    import torch
    import trl
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    gpu = torch.cuda.is_available()
    config = AutoConfig.from_pretrained(base)
    how: dict[str, Any] = {"config": config, "dtype": "float32"}
    if getattr(config, "quantization_config", None) is not None:
        config.quantization_config["dequantize"] = True
    if recipe.quantization == "nf4":
        compute = torch.bfloat16 if gpu else torch.float32
        packed = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
        )  # fmt: skip
        how = {"quantization_config": packed, "dtype": compute}
    kinds = {"sft": (trl.SFTTrainer, trl.SFTConfig), "dpo": (trl.DPOTrainer, trl.DPOConfig)}
    trainer_kind, config_kind = kinds[method]
    settings = config_kind(
        output_dir=str(folder), max_steps=chosen.steps, seed=recipe.seed, learning_rate=chosen.learning_rate,
        lr_scheduler_type=recipe.optim.scheduler, warmup_steps=chosen.warmup_steps, use_cpu=not gpu,
        bf16=chosen.precision == "bfloat16", optim=recipe.optim.optimizer, max_length=chosen.tokens_max,
        per_device_train_batch_size=chosen.batch, gradient_accumulation_steps=chosen.accumulate,
        gradient_checkpointing=recipe.optim.checkpointing, save_strategy="no", report_to=[],
        dataloader_pin_memory=gpu, disable_tqdm=True,
    )  # fmt: skip
    trainer = trainer_kind(
        model=AutoModelForCausalLM.from_pretrained(base, **how),
        args=settings,
        train_dataset=Dataset.from_list([dict(row) for row in rows]),
        processing_class=AutoTokenizer.from_pretrained(base),
        peft_config=LoraConfig(
            r=chosen.rank, lora_alpha=chosen.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
        callbacks=[*callbacks],
    )
    trainer.train()
    return float(trainer._total_train_tokens)
