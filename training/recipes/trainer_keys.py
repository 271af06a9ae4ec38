"""Keys that must not stand under `trainer:`: the recipe decides them, or TRL calls them otherwise now."""

from typing import Final

_OURS = {
    "learning_rate": "optim.learning_rate",
    "max_steps": "optim.steps",
    "num_train_epochs": "optim.epochs",
    "per_device_train_batch_size": "optim.batch",
    "gradient_accumulation_steps": "optim.accumulate",
    "lr_scheduler_type": "optim.scheduler",
    "warmup_steps": "optim.warmup_steps",
    "optim": "optim.optimizer",
    "weight_decay": "optim.weight_decay",
    "max_grad_norm": "optim.clip",
    "bf16": "optim.precision",
    "fp16": "optim.precision",
    "neftune_noise_alpha": "optim.neftune",
    "gradient_checkpointing": "optim.checkpointing",
    "eval_steps": "optim.evaluate_every",
    "save_steps": "optim.save_every",
    "seed": "seed",
    "max_length": "data.tokens_max",
    "assistant_only_loss": "sft.assistant_only",
    "packing": "sft.packing",
    "packing_strategy": "sft.packing_strategy",
    "loss_weights": "dpo.weights",
    "label_smoothing": "dpo.label_smoothing",
    "desirable_weight": "kto.liked_weight",
    "undesirable_weight": "kto.disliked_weight",
    "num_generations": "rl.generations",
    "max_completion_length": "rl.answer_tokens_max",
    "temperature": "rl.temperature",
    "report_to": "report",
}
_FIXED = {
    "output_dir": "the run's folder is given to the command",
    "eval_strategy": "follows from data.held",
    "save_strategy": "follows from optim.save_every",
    "use_cpu": "follows from the machine",
    "push_to_hub": "nothing leaves this machine; publishing is a step of its own",
    "logging_nan_inf_filter": "would hide a loss that is no number",
    "logging_steps": "every step is logged",
}
_FORMER = {
    "max_seq_length": "data.tokens_max",
    "warmup_ratio": "optim.warmup_steps",
    "evaluation_strategy": "data.held",
    "max_prompt_length": "data.tokens_max",
}
OURS: Final = (
    {name: f"set {ours} instead" for name, ours in _OURS.items()}
    | {name: f"cannot be set: {why}" for name, why in _FIXED.items()}
    | {name: f"is a former name; set {ours} instead" for name, ours in _FORMER.items()}
)
