"""GRPO and RLOO: the model answers, rewards judge, and what was better than its neighbours becomes likelier. Heavy."""

from __future__ import annotations

import json
from typing import Any

from training.model import going_on, load, optimizer_of, quiet, shape
from training.recipes.lesson import Lesson, Trained, arguments, last_whole, listeners, table, train
from training.recipes.rewards import rewards


def grpo(lesson: Lesson) -> Trained:
    """Answers to one prompt are held against each other, in units of how much they differ."""
    import trl

    settings = arguments(lesson, trl.GRPOConfig, **_own(lesson))
    return _run(lesson, trl.GRPOTrainer, settings)


def rloo(lesson: Lesson) -> Trained:
    """Each answer is held against the mean of the others to the same prompt."""
    import trl

    settings = arguments(lesson, trl.RLOOConfig, **_own(lesson))
    return _run(lesson, trl.RLOOTrainer, settings)


def _own(lesson: Lesson) -> dict[str, Any]:
    rl = lesson.recipe.rl
    return {
        "num_generations": rl.generations,
        "max_completion_length": rl.answer_tokens_max,
        "temperature": rl.temperature,
        # Never 0: without it TRL computes no distance from the reference, and nobody sees the policy drift off.
        "beta": rl.beta,
    }


def _run(lesson: Lesson, kind: Any, settings: Any) -> Trained:
    recipe, chosen = lesson.recipe, lesson.chosen
    with quiet():
        model, tokenizer = load(lesson.base, precision=chosen.precision, quantization=recipe.quantization)
        model.config.use_cache = True
        if lesson.start is not None:
            model = going_on(model, lesson.start)
        functions, classes = rewards(recipe.rl.rewards, base=lesson.base, rows=lesson.rows)
        trainer = kind(
            model=model,
            reward_funcs=functions,
            reward_processing_classes=classes,
            args=settings,
            train_dataset=table(lesson.rows),
            eval_dataset=table(lesson.held),
            processing_class=tokenizer,
            peft_config=None if lesson.start is not None else shape(recipe, chosen),
            callbacks=listeners(lesson),
        )
        _same_order(trainer, lesson)
        trainer.optimizer = optimizer_of(trainer.model, recipe, chosen)
        numbers = train(trainer, lesson)
    for name in ("reward", "kl"):
        seen = [float(line[name]) for line in trainer.state.log_history if name in line]
        if seen:
            numbers |= {f"{name}_first": seen[0], f"{name}_last": seen[-1], f"{name}_most": max(seen)}
    return Trained(model=trainer.model, numbers=numbers)


def _same_order(trainer: Any, lesson: Lesson) -> None:
    """TRL's sampler shuffles anew each epoch from one generator, and a resumed run would begin with the first order."""
    import torch

    last = last_whole(lesson.folder / "checkpoints")
    if last is None:
        return
    passed = int(json.loads((last / "trainer_state.json").read_text())["epoch"] + 1e-6)
    made = trainer._get_train_sampler

    def advanced(*given: Any, **named: Any) -> Any:
        sampler = made(*given, **named)
        for _ in range(passed):
            torch.randperm(sampler.num_samples, generator=sampler.generator)
        return sampler

    trainer._get_train_sampler = advanced
