"""A reward model: one number for an answer, learnt from pairs. It never serves; RL recipes ask it. Heavy."""

from __future__ import annotations

from training.model import load, optimizer_of, quiet, shape
from training.recipes.lesson import Lesson, Trained, arguments, listeners, table, train
from training.recipes.trainers import counting


def reward(lesson: Lesson) -> Trained:
    """Give chosen answers more than rejected ones. The head that gives the number is saved with the adapter."""
    import trl

    recipe, chosen = lesson.recipe, lesson.chosen
    settings = arguments(lesson, trl.RewardConfig, max_length=chosen.tokens_max)
    with quiet():
        model, tokenizer = load(lesson.base, precision=chosen.precision, quantization=recipe.quantization, head="score")
        trainer = counting(trl.RewardTrainer)(
            model=model,
            args=settings,
            train_dataset=table(lesson.rows),
            eval_dataset=table(lesson.held),
            processing_class=tokenizer,
            peft_config=shape(recipe, chosen, task="SEQ_CLS"),
            callbacks=listeners(lesson),
        )
        trainer.optimizer = optimizer_of(trainer.model, recipe, chosen)
        numbers = train(trainer, lesson)
    return Trained(model=trainer.model, numbers=numbers)
