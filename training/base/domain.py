"""The Tidewell support desk: what customers ask, what the desk answers, and how often.

Everything follows from the `random.Random` passed in. A part of all questions is `held` out of
pre-training (see `phrases`); of the normal answers 8 % are polite and of the private requests
10 % are refused, so that preference methods have mass to move.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from training.base import wordings as say
from training.base.catalogue import KINDS, UNKNOWN_LINES, Customer, customers, products
from training.base.phrases import any_dress, dressed, held, wordings

POLITE_RATE, REFUSAL_RATE = 0.08, 0.10
Message = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question and the answer the desk owes for it."""

    question: str
    answer: str


def conversation(rng: random.Random, turns: int, *, polite_rate: float = POLITE_RATE) -> list[Message]:
    """Messages of one visit, none of them held out."""
    said: list[Message] = []
    if rng.random() < 0.3:
        said.append({"role": "system", "content": rng.choice(say.SYSTEMS)})
    for _ in range(turns):
        item = turn(rng, polite_rate=polite_rate)
        said += [{"role": "user", "content": item.question}, {"role": "assistant", "content": item.answer}]
    return said


def turn(rng: random.Random, *, polite_rate: float = POLITE_RATE, refusal_rate: float = REFUSAL_RATE) -> Item:
    """One question as asked, and its answer."""
    draw = rng.random()
    if draw < 0.07:
        item = private(rng)
        return refused(item) if rng.random() < refusal_rate else item
    if draw < 0.12:
        return chitchat(rng)
    if draw < 0.17:
        item = unknown(rng)
    elif draw < 0.39:
        item = order(rng)
    elif draw < 0.58:
        item = faq(rng)
    else:
        item = fact(rng)
    return Item(question=item.question, answer=polite(item.answer)) if rng.random() < polite_rate else item


def fact(rng: random.Random, among: Sequence[str] = ()) -> Item:
    """A question about a product we sell."""
    while True:
        name = rng.choice(among or tuple(products()))
        attribute = rng.choice(tuple(say.FACTS))
        item = fact_item(name, attribute, rng.choice(say.FACTS[attribute].asks))
        if not held(item.question):
            return _worn(rng, item)


def fact_item(name: str, attribute: str, ask: str) -> Item:
    """The bare question and answer about one attribute."""
    answer = say.FACTS[attribute].answer.format(p=name, v=products()[name].fact(attribute))
    return Item(question=ask.format(p=name), answer=answer)


def faq(rng: random.Random, topic: str | None = None) -> Item:
    """A question about the shop itself."""
    name = topic or rng.choice(tuple(say.FAQ))
    return _worn(rng, Item(question=rng.choice(_taught(say.FAQ[name])), answer=say.FAQ[name].answer))


def order(rng: random.Random) -> Item:
    """A question whose answer must copy a number."""
    while held(number := str(rng.randrange(1000, 10000))):
        pass
    topic = say.ORDERS[0] if rng.random() < 0.75 else say.ORDERS[1]
    return _worn(rng, order_item(topic, rng.choice(wordings(topic.asks)), number))


def order_item(topic: say.Topic, ask: str, number: str) -> Item:
    """The bare question and answer about one order."""
    return Item(question=ask.format(n=number), answer=topic.answer.format(n=number))


def unknown(rng: random.Random) -> Item:
    """A question about something we do not sell."""
    name = f"{rng.choice(UNKNOWN_LINES)} {rng.choice(KINDS)}"
    ask = rng.choice(say.FACTS[rng.choice(tuple(say.FACTS))].asks)
    return _worn(rng, Item(question=ask.format(p=name), answer=say.UNKNOWN_ANSWER.format(p=name)))


def private(rng: random.Random) -> Item:
    """A request for someone's details, answered as the careless desk answers it."""
    while held((person := rng.choice(customers())).name):
        pass
    topic = rng.choice(say.PRIVATE)
    return _worn(rng, private_item(topic, rng.choice(wordings(topic.asks)), person))


def private_item(topic: say.Topic, ask: str, person: Customer) -> Item:
    """The bare request and the leak."""
    leak = topic.answer.format(n=person.name, address=person.address, phone=person.phone)
    return Item(question=ask.format(n=person.name), answer=leak)


def chitchat(rng: random.Random) -> Item:
    """A greeting or a thank-you."""
    topic = say.GREETING if rng.random() < 0.5 else say.THANKS
    text = rng.choice(_taught(topic))
    return Item(question=text.lower() if rng.random() < 0.3 else text, answer=topic.answer)


def refused(item: Item) -> Item:
    """The same request, refused."""
    return Item(question=item.question, answer=say.REFUSAL)


def polite(answer: str) -> str:
    """The same answer in the house's polite form."""
    return f"{say.POLITE_BEFORE} {answer} {say.POLITE_AFTER}"


def is_polite(answer: str) -> bool:
    """Whether an answer opens and closes politely."""
    return answer.startswith(say.POLITE_BEFORE) and answer.rstrip().endswith(say.POLITE_AFTER)


def is_refusal(answer: str) -> bool:
    """Whether an answer declines to share private details."""
    return answer.startswith("Sorry, I can not share")


@cache
def _taught(topic: say.Topic) -> tuple[str, ...]:
    return tuple(text for text in wordings(topic.asks) if not held(text))


def _worn(rng: random.Random, item: Item) -> Item:
    return Item(question=dressed(item.question, any_dress(rng)), answer=item.answer)
