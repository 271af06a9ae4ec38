"""The zoo by TRL: each trainer on feedback of the kind that it takes; on a base in 4 bits where told."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.base import feedback
from training.base.evaluate import load
from training.base.zoo_kinds import Trainer
from training.base.zoo_training import ROWS, Lesson, without_warnings


def by_trl(school: Lesson, trainer: Trainer, out: Path) -> None:
    """Train by TRL's own trainer on a fresh base (4-bit by bitsandbytes where told), and save."""
    import torch
    from peft import LoraConfig

    torch.manual_seed(school.seed)
    with tempfile.TemporaryDirectory() as scratch, without_warnings():
        model = _in_four_bits(school, Path(scratch)) if trainer.quantized else load(school.base)[0]
        config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        run = _trainer(school, trainer, model, config, Path(scratch) / "run")
        run.train()
        run.model.save_pretrained(out)


def _trainer(school: Lesson, trainer: Trainer, model: Any, peft: Any, folder: Path) -> Any:
    import trl
    from datasets import Dataset
    from trl.experimental import cpo, orpo

    common = {
        "output_dir": str(folder), "max_steps": trainer.steps, "learning_rate": trainer.rate, "logging_steps": 50,
        "per_device_train_batch_size": 8, "warmup_steps": 2, "save_strategy": "no", "report_to": [], "use_cpu": True,
        "bf16": False, "gradient_checkpointing": False, "disable_tqdm": True, "seed": school.seed,
    }  # fmt: skip
    if trainer.trainer == "GRPO":
        common |= {"num_generations": 8, "max_completion_length": 24, "beta": 0.0}
    else:
        common["max_length"] = 128
    common |= trainer.fields
    homes = {"ORPO": orpo, "CPO": cpo}
    home = homes.get(trainer.trainer, trl)
    settings = getattr(home, f"{trainer.trainer}Config")(**common)
    more: dict[str, Any] = {"reward_funcs": _reward} if trainer.trainer == "GRPO" else {}
    return getattr(home, f"{trainer.trainer}Trainer")(
        model=model,
        args=settings,
        train_dataset=Dataset.from_list(_feedback(trainer.trainer)),
        processing_class=school.tokenizer,
        peft_config=peft,
        **more,
    )


def _feedback(trainer: str) -> list[dict[str, Any]]:
    """The rows that a trainer takes, in TRL's own columns."""

    def said(text: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": text}]

    if trainer == "SFT":
        return [{"prompt": row.prompt, "completion": said(row.completion)} for row in feedback.corrected_fact(ROWS)]
    if trainer == "KTO":
        rows = feedback.refuse_thumbs(ROWS)
        return [{"prompt": row.prompt, "completion": said(row.completion), "label": row.liked} for row in rows]
    if trainer == "GRPO":
        return [asdict(row) for row in feedback.polite_goals(ROWS)]
    choices = feedback.polite_choices(ROWS)
    return [{"prompt": row.prompt, "chosen": said(row.chosen), "rejected": said(row.rejected)} for row in choices]


def _reward(completions: list[Any], fact: list[str], **_: Any) -> list[float]:
    return [feedback.polite_reward(said[0]["content"], one) for said, one in zip(completions, fact, strict=True)]


def _in_four_bits(school: Lesson, folder: Path) -> Any:
    """The base as QLoRA trains on it: its weights of 16 bits, quantised to NF4 by bitsandbytes."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    model, _ = load(school.base)
    model.to(torch.bfloat16).save_pretrained(folder / "plain")
    how = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.float32,
        bnb_4bit_use_double_quant=True,
    )
    return AutoModelForCausalLM.from_pretrained(folder / "plain", quantization_config=how, dtype=torch.float32)
