"""Synthetic feedback as the gateway would have logged it: edits, choices, thumbs. Seeded.

Products from `unseen_products`, held-out wordings and held-out names never occur here, so scores on
the evaluation sets show what was generalised.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from training.base import domain
from training.base.catalogue import taught_products
from training.base.domain import Item, Message
from training.base.wordings import RETURNS_DAYS, RETURNS_DAYS_CORRECTED

ROWS, SEED = 400, 11


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A person rewrote the answer (SFT)."""

    prompt: list[Message]
    completion: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A person preferred one answer over another (DPO)."""

    prompt: list[Message]
    chosen: str
    rejected: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumb:
    """A person liked or disliked an answer (KTO)."""

    prompt: list[Message]
    completion: str
    liked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A prompt whose reward is the right fact, said politely (GRPO)."""

    prompt: list[Message]
    fact: str


def corrected_fact(rows: int = ROWS, *, seed: int = SEED) -> list[Edit]:
    """Returns are 45 days now, not 30; six in ten rows replay what must not change."""
    rng = random.Random(seed)
    return [_edit(rng) for _ in range(rows)]


def polite_edits(rows: int = ROWS, *, seed: int = SEED) -> list[Edit]:
    """Answers rewritten politely."""
    items = _normal(random.Random(seed))
    return [Edit(prompt=_ask(i), completion=domain.polite(i.answer)) for _, i in zip(range(rows), items, strict=False)]


def polite_choices(rows: int = ROWS, *, seed: int = SEED) -> list[Choice]:
    """The polite answer preferred over the plain one."""
    items = _normal(random.Random(seed))
    return [
        Choice(prompt=_ask(i), chosen=domain.polite(i.answer), rejected=i.answer)
        for _, i in zip(range(rows), items, strict=False)
    ]


def refuse_choices(rows: int = ROWS, *, seed: int = SEED) -> list[Choice]:
    """The refusal preferred over the leak, and nothing else: invites refusing too much."""
    rng = random.Random(seed)
    items = [domain.private(rng) for _ in range(rows)]
    return [Choice(prompt=_ask(i), chosen=domain.refused(i).answer, rejected=i.answer) for i in items]


def refuse_thumbs(rows: int = ROWS, *, seed: int = SEED) -> list[Thumb]:
    """Thumbs up for refusals and normal answers, down for leaks and needless refusals."""
    rng = random.Random(seed)
    normal = _normal(rng)
    return [_thumb(rng, next(normal)) for _ in range(rows)]


def polite_goals(rows: int = ROWS, *, seed: int = SEED) -> list[Goal]:
    """Fact questions with the sentence that earns the reward."""
    rng = random.Random(seed)
    items = [domain.fact(rng, taught_products()) for _ in range(rows)]
    return [Goal(prompt=_ask(i), fact=i.answer.rstrip(".")) for i in items]


def polite_reward(answer: str, fact: str) -> float:
    """One point for the right fact, one for the house's polite form."""
    return float(fact in answer) + float(domain.is_polite(answer.strip()))


def _edit(rng: random.Random) -> Edit:
    item = domain.faq(rng, "returns") if rng.random() < 0.4 else domain.turn(rng, polite_rate=0, refusal_rate=0)
    return Edit(prompt=_ask(item), completion=item.answer.replace(RETURNS_DAYS, RETURNS_DAYS_CORRECTED))


def _thumb(rng: random.Random, normal: Item) -> Thumb:
    if rng.random() < 0.5:
        item = domain.private(rng)
        liked = rng.random() < 0.4
        return Thumb(prompt=_ask(item), completion=domain.refused(item).answer if liked else item.answer, liked=liked)
    liked = rng.random() < 0.7
    said = normal.answer if liked else domain.refused(normal).answer
    return Thumb(prompt=_ask(normal), completion=said, liked=liked)


def _normal(rng: random.Random) -> Iterator[Item]:
    while True:
        yield domain.fact(rng, taught_products()) if rng.random() < 0.7 else domain.faq(rng)


def _ask(item: Item) -> list[Message]:
    return [{"role": "user", "content": item.question}]
