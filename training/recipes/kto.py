"""KTO: single answers that somebody liked or disliked. Heavy."""

from __future__ import annotations

from training.model import going_on, load, optimizer_of, quiet, shape
from training.recipes.lesson import Lesson, Trained, arguments, listeners, table, train
from training.recipes.trainers import counting


def kto(lesson: Lesson) -> Trained:
    """Make liked answers likelier than the reference has them, and disliked ones less likely.

    Rows stay in their order, which the run has shuffled: each is held against its neighbours' answers.
    """
    import trl

    recipe, chosen = lesson.recipe, lesson.chosen
    settings = arguments(
        lesson,
        trl.KTOConfig,
        max_length=chosen.tokens_max,
        beta=recipe.kto.beta,
        loss_type=recipe.kto.loss,
        desirable_weight=chosen.liked_weight,
        undesirable_weight=chosen.disliked_weight,
    )
    with quiet():
        model, tokenizer = load(lesson.base, precision=chosen.precision, quantization=recipe.quantization)
        if lesson.start is not None:
            model = going_on(model, lesson.start)
        trainer = counting(trl.KTOTrainer)(
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
