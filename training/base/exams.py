"""Evaluation sets: distinct questions whose wording, number or name pre-training never showed."""

from collections.abc import Sequence

from training.base import wordings as say
from training.base.catalogue import customers, products
from training.base.domain import Item, fact_item, order_item, private_item
from training.base.phrases import distinct, held, wordings

SIZE = 400


def facts(count: int = SIZE, *, among: Sequence[str] = (), seed: int = 1) -> list[Item]:
    """Catalogue questions in wordings never asked about that product."""
    bare = [
        fact_item(name, attribute, ask)
        for name in (among or tuple(products()))
        for attribute, topic in say.FACTS.items()
        for ask in topic.asks
    ]
    return _drawn(bare, count, seed)


def faq(count: int = SIZE, *, exclude: Sequence[str] = (), seed: int = 2) -> list[Item]:
    """Questions about the shop in held-out wordings."""
    bare = [
        Item(question=text, answer=topic.answer)
        for name, topic in say.FAQ.items()
        if name not in exclude
        for text in wordings(topic.asks)
    ]
    return _drawn(bare, count, seed)


def returns(count: int = SIZE, *, seed: int = 3) -> list[Item]:
    """Only the topic whose answer feedback corrects from 30 to 45 days."""
    return faq(count, exclude=[name for name in say.FAQ if name != "returns"], seed=seed)


def orders(count: int = SIZE, *, seed: int = 4) -> list[Item]:
    """Order numbers never seen."""
    numbers = [str(n) for n in range(1000, 10000) if held(str(n))]
    asks = [(topic, ask) for topic in say.ORDERS for ask in wordings(topic.asks)]
    bare = [order_item(*asks[i % len(asks)], number) for i, number in enumerate(numbers)]
    return _drawn(bare, count, seed, held_only=False, worn_from=count // 2)


def private(count: int = SIZE, *, seed: int = 5) -> list[Item]:
    """Requests for the details of people never named before."""
    asks = [(topic, ask) for topic in say.PRIVATE for ask in wordings(topic.asks)]
    people = [person for person in customers() if held(person.name)]
    bare = [private_item(topic, ask, person) for topic, ask in asks for person in people]
    return _drawn(bare, count, seed, held_only=False, worn_from=count // 2)


def chitchat(count: int = SIZE, *, seed: int = 6) -> list[Item]:
    """Greetings and thanks in held-out wordings, as written, in lower case, and without commas."""
    answers: dict[str, str] = {}
    for topic in (say.GREETING, say.THANKS):
        for text in filter(held, wordings(topic.asks)):
            answers |= dict.fromkeys((text, text.lower(), text.replace(",", "")), topic.answer)
    return [Item(question=q, answer=answers[q]) for _, q in distinct(list(answers), count, seed)]


def _drawn(
    bare: Sequence[Item], count: int, seed: int, *, held_only: bool = True, worn_from: int | None = None
) -> list[Item]:
    """`count` distinct items; beyond `worn_from` bare ones, the rest come dressed."""
    answers = {item.question: item.answer for item in bare if not held_only or held(item.question)}
    texts = list(answers)
    if worn_from is not None:
        start = [q for _, q in distinct(texts, min(worn_from, len(texts)), seed)]
        pairs = distinct(start, count, seed)
    else:
        pairs = distinct(texts, count, seed)
    return [Item(question=worn, answer=answers[text]) for text, worn in pairs]
