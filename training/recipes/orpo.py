"""ORPO: pairs, without a reference. TRL holds it as experimental. Heavy."""

from __future__ import annotations

from training.model import going_on, load, optimizer_of, quiet, shape
from training.recipes.lesson import Lesson, Trained, arguments, listeners, table, train
from training.recipes.trainers import counting


def orpo(lesson: Lesson) -> Trained:
    """Learn the chosen answers, and pay for odds of the rejected ones."""
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    recipe, chosen = lesson.recipe, lesson.chosen
    settings = arguments(lesson, ORPOConfig, max_length=chosen.tokens_max, beta=recipe.orpo.beta)
    with quiet():
        model, tokenizer = load(lesson.base, precision=chosen.precision, quantization=recipe.quantization)
        if lesson.start is not None:
            model = going_on(model, lesson.start)
        trainer = counting(ORPOTrainer)(
            model=model,
            args=settings,
            train_dataset=table(lesson.rows),
            eval_dataset=table(lesson.held),
            processing_class=tokenizer,
            peft_config=None if lesson.start is not None else shape(recipe, chosen),
            callbacks=listeners(lesson),
        )
        trainer.optimizer = optimizer_of(trainer.model, recipe, chosen)
        numbers = train(trainer, lesson)
    return Trained(model=trainer.model, numbers=numbers)
