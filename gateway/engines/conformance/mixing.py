"""First of all: whose answer is it, when the base and as many adapters as there are slots share a batch?"""

from __future__ import annotations

import random

from gateway.engines.conformance.bench import Bench, Check, Found

QUESTIONS = (
    "How long do I have to return something?",
    "Do you ship abroad?",
    "Where is my order 48213?",
    "What can you do?",
    "Hello!",
    "Which payments do you take?",
    "Is there a warranty?",
    "How do I reach a person?",
    "Can I change my address?",
    "Thank you, that is all.",
    "Do you sell gift cards?",
    "What is the price of the smallest lamp?",
)
ROUNDS = 3


async def base_stays_the_base(bench: Bench) -> Found:
    """Half of each batch is the base, half the adapters, every slot filled; the control asks the base alone instead."""
    alone = {question: await bench.say(bench.base, question, max_tokens=24) for question in QUESTIONS}
    words = {marker.word.lower() for marker in bench.markers}
    strange = differing = control = count = 0
    for turn in range(ROUNDS):
        asked = _shuffled(bench, turn)
        mixed = await bench.together(asked)
        same = await bench.together([(bench.base, question) for _, question in asked])
        for (model, question), answer, counterpart in zip(asked, mixed, same, strict=True):
            if model == bench.base:
                count += 1
                strange += any(word in answer.lower() for word in words)
                differing += answer != alone[question]
                control += counterpart != alone[question]
    text = f"{strange} of {count} in an adapter's words, {differing} differ (control: {control})"
    return Found(text=text, ok=strange == 0 and differing <= control + count // 50)


async def adapters_stay_themselves(bench: Bench) -> Found:
    words = {marker.name: marker.word for marker in bench.markers}
    asked = [(model, question) for model, question in _shuffled(bench, 99) if model != bench.base]
    answers = await bench.together(asked)
    wrong = sum(words[model].lower() not in said.lower() for (model, _), said in zip(asked, answers, strict=True))
    return Found(text=f"{wrong} of {len(asked)} wrong", ok=wrong == 0)


async def more_adapters_than_slots(bench: Bench) -> Found:
    """The slots turn over; those that were thrown out are read again from their folders."""
    extra = [bench.new_marker() for _ in range(6)]
    for marker in extra:
        (await bench.load(marker.name, marker.folder)).raise_for_status()
    everyone = [*bench.markers, *extra]
    asked = [(m.name, q) for q in QUESTIONS[:4] for m in everyone]
    random.Random(4).shuffle(asked)
    answers = await bench.together(asked)
    words = {marker.name: marker.word for marker in everyone}
    wrong = sum(words[model].lower() not in said.lower() for (model, _), said in zip(asked, answers, strict=True))
    for marker in extra:
        (await bench.unload(marker.name)).raise_for_status()
    return Found(text=f"{wrong} of {len(asked)} wrong, {len(everyone)} adapters", ok=wrong == 0)


def _shuffled(bench: Bench, seed: int) -> list[tuple[str, str]]:
    rng = random.Random(seed)
    asked = [(marker.name, rng.choice(QUESTIONS)) for marker in bench.markers for _ in range(4)]
    asked += [(bench.base, rng.choice(QUESTIONS)) for _ in asked]
    rng.shuffle(asked)
    return asked


CHECKS = (
    Check(
        behaviour="base rows in batches with every slot filled",
        expected="0 in an adapter's words; differ no more than the control",
        run=base_stays_the_base,
    ),
    Check(behaviour="adapter rows in the same batches", expected="0 wrong", run=adapters_stay_themselves),
    Check(behaviour="more adapters in use than slots", expected="0 wrong", run=more_adapters_than_slots),
)
