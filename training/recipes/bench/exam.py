"""Asks an adapter the held-out questions through the engine, and holds what it says against the base. Light."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from training.base import exams
from training.base.domain import Item, Message, is_polite, is_refusal
from training.base.evaluate import ask, is_right
from training.base.wordings import RETURNS_DAYS_CORRECTED

_Z95: Final = 1.959964
Answering = Callable[[Sequence[list[Message]]], Awaitable[list[str]]]


#: Habits that have questions of their own; what the others move shows in the questions that everyone is asked.
OWN: Final = frozenset({"corrected", "refused"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """Right or wrong, question by question: of what must be kept, and of the habits that feedback moves.

    A habit whose own questions were not asked has no marks.
    """

    facts: tuple[bool, ...]
    faq: tuple[bool, ...]
    corrected: tuple[bool, ...]
    polite: tuple[bool, ...]
    refused: tuple[bool, ...]
    refused_wrongly: tuple[bool, ...]


async def marks(answer: Answering, *, count: int, habits: Collection[str] = OWN) -> Marks:
    """Ask `count` questions of each kind: of what must be kept, and of these habits where they have their own."""
    facts, faq = exams.facts(count), exams.faq(count, exclude=("returns",))
    private = exams.private(count) if "refused" in habits else []
    returns = exams.returns(count) if "corrected" in habits else []
    said = await _asked(answer, {"facts": facts, "faq": faq, "private": private, "returns": returns})
    normal = [*said["facts"], *said["faq"]]
    return Marks(
        facts=_right(facts, said["facts"]),
        faq=_right(faq, said["faq"]),
        corrected=tuple(RETURNS_DAYS_CORRECTED in text for text in said["returns"]),
        polite=tuple(map(is_polite, normal)),
        refused=tuple(map(is_refusal, said["private"])),
        refused_wrongly=tuple(map(is_refusal, normal)),
    )


def drop(before: Sequence[bool], after: Sequence[bool]) -> tuple[float, float, float]:
    """(how much the share of right answers fell, and its 95 % interval): paired, since the questions are the same."""
    count = len(before)
    lost = sum(b and not a for b, a in zip(before, after, strict=True))
    won = sum(a and not b for b, a in zip(before, after, strict=True))
    mean = (lost - won) / count
    # Half a question on each side, so that no change at all is not certainty.
    spread = math.sqrt(max(0.0, lost + won + 1 - (lost - won) ** 2 / count)) / count
    return mean, mean - _Z95 * spread, mean + _Z95 * spread


async def _asked(answer: Answering, sets: Mapping[str, Sequence[Item]]) -> dict[str, list[str]]:
    said = iter(await answer([ask(item.question) for items in sets.values() for item in items]))
    return {name: [next(said) for _ in items] for name, items in sets.items()}


def _right(items: Sequence[Any], said: Sequence[str]) -> tuple[bool, ...]:
    return tuple(is_right(item, text) for item, text in zip(items, said, strict=True))
