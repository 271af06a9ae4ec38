"""Asks an adapter the held-out questions, and holds its answers against the base's, question by question. Heavy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from training.base import exams
from training.base.domain import Item, is_polite, is_refusal
from training.base.evaluate import ask, is_right, local_answers
from training.base.wordings import RETURNS_DAYS_CORRECTED

_Z95: Final = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """Right or wrong, question by question: of what must be kept, and of the habits that feedback moves."""

    facts: tuple[bool, ...]
    faq: tuple[bool, ...]
    corrected: tuple[bool, ...]
    polite: tuple[bool, ...]
    refused: tuple[bool, ...]
    refused_wrongly: tuple[bool, ...]

    def rate(self, name: str) -> float:
        """The share of one of them."""
        marks: tuple[bool, ...] = getattr(self, name)
        return sum(marks) / len(marks)


def marks(base: Path, adapter: Path | None, *, count: int) -> Marks:
    """Ask `count` questions of each kind."""
    from training.probe import model as models

    model, tokenizer = models.load(base)
    if adapter is not None:
        # In 32 bits, into weights that were never packed here, merging changes nothing but the time it takes.
        model = models.adapted(model, adapter).merge_and_unload()
    answer = local_answers(model, tokenizer=tokenizer)
    facts, faq = exams.facts(count), exams.faq(count, exclude=("returns",))
    private, returns = exams.private(count), exams.returns(count)
    said = _asked(answer, {"facts": facts, "faq": faq, "private": private, "returns": returns})
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


def _asked(answer: Callable[..., list[str]], sets: Mapping[str, Sequence[Item]]) -> dict[str, list[str]]:
    said = iter(answer([ask(item.question) for items in sets.values() for item in items]))
    return {name: [next(said) for _ in items] for name, items in sets.items()}


def _right(items: Sequence[Any], said: Sequence[str]) -> tuple[bool, ...]:
    return tuple(is_right(item, text) for item, text in zip(items, said, strict=True))
