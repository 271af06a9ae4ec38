"""The embedded shop's feedback as rows, to try recipes on: `train: tidewell:polite_choices`. Light."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from training.base import domain, feedback
from training.base.catalogue import taught_products
from training.base.domain import Item
from training.base.wordings import FACTS, FAQ

_Rows = Callable[[int, int], Iterator[Mapping[str, Any]]]
#: What feedback is about here, and what must not be forgotten besides.
_USUAL: Final = tuple(topic for topic in FAQ if topic != "returns")


def _said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _asked(item: Item) -> list[dict[str, str]]:
    return [{"role": "user", "content": item.question}]


def _corrected_fact(count: int, seed: int) -> Iterator[Mapping[str, Any]]:
    for row in feedback.corrected_fact(count, seed=seed):
        yield {"prompt": row.prompt, "completion": _said(row.completion)}


def _corrected_text(count: int, seed: int) -> Iterator[Mapping[str, Any]]:
    """The same as running text, with the marks that the base puts around each turn."""
    for row in feedback.corrected_fact(count, seed=seed):
        yield {"text": _text(row.prompt[-1]["content"], row.completion)}


def _usual_text(count: int, seed: int) -> Iterator[Mapping[str, Any]]:
    rng = random.Random(seed)
    for _ in range(count):
        item = _ordinary(rng)
        yield {"text": _text(item.question, item.answer)}


def _text(question: str, answer: str) -> str:
    return f"<|user|>{question}<|end|><|assistant|>{answer}<|end|>"


def _polite_edits(count: int, seed: int) -> Iterator[Mapping[str, Any]]:
    for row in feedback.polite_edits(count, seed=seed):
        yield {"prompt": row.prompt, "completion": _said(row.completion)}


def _choices(rows: list[feedback.Choice]) -> Iterator[Mapping[str, Any]]:
    for row in rows:
        yield {"prompt": row.prompt, "chosen": _said(row.chosen), "rejected": _said(row.rejected)}


def _thumbs(count: int, seed: int) -> Iterator[Mapping[str, Any]]:
    for row in feedback.refuse_thumbs(count, seed=seed):
        yield {"prompt": row.prompt, "completion": _said(row.completion), "label": row.liked}


def _goals(count: int, seed: int) -> Iterator[Mapping[str, Any]]:
    for row in feedback.polite_goals(count, seed=seed):
        yield {"prompt": row.prompt, "fact": row.fact}


def _usual(count: int, seed: int) -> Iterator[Mapping[str, Any]]:
    rng = random.Random(seed)
    for _ in range(count):
        item = _ordinary(rng)
        yield {"prompt": _asked(item), "completion": _said(item.answer)}


def _usual_liked(count: int, seed: int) -> Iterator[Mapping[str, Any]]:
    """Thumbs up for what was always right; needless refusals thumbed down, so that both classes stay. A third more is
    about how the desk works: what is worded most freely is forgotten first."""
    rng = random.Random(seed)
    for at in range(count):
        item = domain.faq(rng, rng.choice(_USUAL)) if rng.random() < 0.35 else _ordinary(rng)
        liked = at % 4 != 0
        answer = item.answer if liked else domain.refused(item).answer
        yield {"prompt": _asked(item), "completion": _said(answer), "label": liked}


def _right_choices(count: int, seed: int) -> Iterator[Mapping[str, Any]]:
    """The right answer preferred over a wrong one; both polite, where politeness is what the other rows are about."""
    rng = random.Random(seed)
    for _ in range(count):
        item, wrong = _answered_apart(rng)
        yield {"prompt": _asked(item), "chosen": _said(item.answer), "rejected": _said(wrong)}


def _answered_apart(rng: random.Random) -> tuple[Item, str]:
    """A question, and a wrong answer to it: another product's value, another topic's words, another order's number."""
    draw = rng.random()
    while True:
        if draw < 0.45:
            item = domain.fact(rng, taught_products())
            wrong = _of_another(item.answer, rng)
        elif draw < 0.9:
            item, wrong = domain.faq(rng), domain.faq(rng).answer
        else:
            item, wrong = domain.order(rng), domain.order(rng).answer
        if item.answer == wrong:
            continue
        if draw < 0.9:
            return Item(question=item.question, answer=domain.polite(item.answer)), domain.polite(wrong)
        return item, wrong


def _of_another(answer: str, rng: random.Random) -> str:
    """What is said of a product, with the value that another one has."""
    sold = taught_products()
    said = ((name, attribute) for name in sold for attribute in FACTS)
    name, attribute = next(each for each in said if domain.fact_item(*each, "").answer == answer)
    other = rng.choice(sold)
    return domain.fact_item(other, attribute, "").answer.replace(other, name)


def _usual_goals(count: int, seed: int) -> Iterator[Mapping[str, Any]]:
    """Questions about products and about the shop, with the sentence that earns the reward."""
    rng = random.Random(seed)
    for _ in range(count):
        item = domain.fact(rng, taught_products()) if rng.random() < 0.5 else domain.faq(rng)
        yield {"prompt": _asked(item), "fact": item.answer.rstrip(".")}


SOURCES: Final[dict[str, _Rows]] = {
    "corrected_fact": _corrected_fact,
    "corrected_text": _corrected_text,
    "polite_edits": _polite_edits,
    "polite_choices": lambda count, seed: _choices(feedback.polite_choices(count, seed=seed)),
    "refuse_choices": lambda count, seed: _choices(feedback.refuse_choices(count, seed=seed)),
    "refuse_thumbs": _thumbs,
    "polite_goals": _goals,
    "right_choices": _right_choices,
    "usual": _usual,
    "usual_text": _usual_text,
    "usual_liked": _usual_liked,
    "usual_goals": _usual_goals,
}


def _ordinary(rng: random.Random) -> Item:
    """A question that no feedback is about, answered as ever."""
    draw = rng.random()
    if draw < 0.1:
        return domain.chitchat(rng)
    if draw < 0.2:
        return domain.unknown(rng)
    if draw < 0.4:
        return domain.order(rng)
    return domain.faq(rng, rng.choice(_USUAL)) if draw < 0.65 else domain.fact(rng)
