"""DPO: of two answers to one prompt, one is better. Several of its losses can be added up. Heavy."""

from __future__ import annotations

from training.model import going_on, load, optimizer_of, quiet, shape
from training.recipes.lesson import Lesson, Trained, arguments, listeners, table, train
from training.recipes.trainers import counting


def dpo(lesson: Lesson) -> Trained:
    """Widen the distance between chosen and rejected answers, as seen from the reference.

    The reference is the base without the adapter; going on from an adapter, it is that adapter as it was.
    """
    import trl

    recipe, chosen = lesson.recipe, lesson.chosen
    settings = arguments(
        lesson,
        trl.DPOConfig,
        max_length=chosen.tokens_max,
        beta=recipe.dpo.beta,
        loss_type=list(recipe.dpo.loss),
        loss_weights=list(recipe.dpo.weights) if recipe.dpo.weights is not None else None,
        label_smoothing=recipe.dpo.label_smoothing,
    )
    with quiet():
        model, tokenizer = load(lesson.base, precision=chosen.precision, quantization=recipe.quantization)
        if lesson.start is not None:
            model = going_on(model, lesson.start)
        trainer = counting(trl.DPOTrainer)(
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
