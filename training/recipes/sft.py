"""Supervised fine-tuning: answers as they should have been. Also of whole weights, and on plain text. Heavy."""

from __future__ import annotations

from training.model import going_on, keep_start, load, open_weights, optimizer_of, quiet, shape
from training.model_extract import weights_of
from training.recipes.errors import BadTemplate
from training.recipes.lesson import Lesson, Trained, arguments, listeners, table, train
from training.recipes.trainers import counting


def sft(lesson: Lesson) -> Trained:
    """Learn the completions of prompts, the assistant's turns of conversations, or (pretrain) texts as they are."""
    import trl

    recipe, chosen = lesson.recipe, lesson.chosen
    whole = recipe.tuning != "adapter"
    settings = arguments(
        lesson,
        trl.SFTConfig,
        max_length=chosen.tokens_max,
        packing=recipe.sft.packing,
        packing_strategy=recipe.sft.packing_strategy,
        assistant_only_loss=recipe.sft.assistant_only,
        completion_only_loss=bool({"completion", "completion_mask"} & lesson.rows[0].keys()),
    )
    with quiet():
        precision = "float32" if whole else chosen.precision
        model, tokenizer = load(lesson.base, precision=precision, quantization=recipe.quantization)
        if recipe.sft.assistant_only and "{% generation" not in (tokenizer.chat_template or "").replace("{%-", "{%"):
            raise BadTemplate(
                "sft.assistant_only needs a chat template that marks the assistant's words with {% generation %}, and "
                f"the one of {lesson.base.name} does not. Use prompt and completion columns, or mark them."
            )
        before = {}
        if recipe.tuning != "adapter":
            before = weights_of(model, open_weights(model, recipe.tuning))
        if lesson.start is not None:
            model = going_on(model, lesson.start)
        trainer = counting(trl.SFTTrainer)(
            model=model,
            args=settings,
            train_dataset=table(lesson.rows),
            eval_dataset=table(lesson.held),
            processing_class=tokenizer,
            peft_config=None if whole or lesson.start is not None else shape(recipe, chosen),
            callbacks=listeners(lesson),
        )
        start = None
        if recipe.adapter.kind == "pissa" and not whole:
            start = lesson.folder / "start"
            keep_start(trainer.model, start)
        trainer.optimizer = optimizer_of(trainer.model, recipe, chosen)
        numbers = train(trainer, lesson)
    return Trained(model=trainer.model, numbers=numbers, before=before, start=start)


def pretrain(lesson: Lesson) -> Trained:
    """Continued pre-training: every token of every text counts. The same loop, since the rows say what counts."""
    return sft(lesson)
