"""Does a model recite its training rows? Asked the first half of an answer it goes on; word for word is too well. Pure.

Only endings that one row alone has are asked for: what many rows end with is what training teaches. Rows never learnt
from are asked the same way, since a good model finds some endings by itself.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.gate.values import Verbatim

#: A shorter answer is known, not remembered.
WORDS_MIN = 12
ROWS_MAX = 200
_EXAMPLES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Half:
    """An answer cut in two: what is said before it, its beginning, and how it ends. Without `turns` it is a text."""

    row: int  #: number of the row, from 1
    turns: tuple[tuple[str, str], ...]
    begun: str
    rest: str


def halves(rows: Iterable[Mapping[str, Any]], *, most: int = ROWS_MAX, seed: int = 0) -> tuple[list[Half], int]:
    """(answers to ask for, in the rows' order; how many were left because they are short or end alike)."""
    found, left = [], 0
    for at, row in enumerate(rows, start=1):
        half = _half(at, row)
        if half is None:
            left += 1
        else:
            found.append(half)
    ends = Counter(normal(half.rest) for half in found)
    alone = [half for half in found if ends[normal(half.rest)] == 1]
    left += len(found) - len(alone)
    if len(alone) > most:
        alone = sorted(random.Random(seed).sample(alone, most), key=lambda half: half.row)
    return alone, left


def recited(half: Half, said: str) -> bool:
    """Whether what was said goes on as the row does, to its end."""
    wanted = normal(half.rest)
    return normal(said)[: len(wanted)] == wanted


def verbatim(asked: Sequence[tuple[Half, str]], control: Sequence[tuple[Half, str]], *, left: int = 0) -> Verbatim:
    """What the continuations of training rows and of rows never seen come to."""
    ours = [half.row for half, said in asked if recited(half, said)]
    theirs = sum(recited(half, said) for half, said in control)
    return Verbatim(
        asked=len(asked),
        continued=len(ours),
        control_asked=len(control),
        control_continued=theirs,
        left=left,
        examples=tuple(ours[:_EXAMPLES]),
    )


def normal(text: str) -> tuple[str, ...]:
    """Words, case and blanks aside."""
    return tuple(text.casefold().split())


def _half(at: int, row: Mapping[str, Any]) -> Half | None:
    turns, lead, answer = said(row)
    words = answer.split()
    if len(words) < WORDS_MIN:
        return None
    # The answer is cut, not joined anew: a blank more or less is another text to the model.
    place = 0
    for word in words[: len(words) // 2]:
        place = answer.index(word, place) + len(word)
    return Half(row=at, turns=turns, begun=lead + answer[:place], rest=answer[place:])


def said(row: Mapping[str, Any]) -> tuple[tuple[tuple[str, str], ...], str, str]:
    """(turns before an answer that is learnt, text before it, the answer); an empty answer where none is."""
    if "text" in row:
        return (), "", str(row["text"])
    if row.get("label") is False:
        return (), "", ""
    if isinstance(messages := row.get("messages"), list):
        told = _turns(messages)
        last = next((at for at in reversed(range(len(told))) if told[at][0] == "assistant"), 0)
        return told[:last], "", told[last][1] if last else ""
    prompt, answer = row.get("prompt", ""), row.get("completion", row.get("chosen"))
    if isinstance(prompt, str) and isinstance(answer, str):
        return (), prompt, answer
    before = (("user", prompt),) if isinstance(prompt, str) and prompt else _turns(prompt) if prompt else ()
    told = (("assistant", answer),) if isinstance(answer, str) else _turns(answer or ())
    return (*before, *told[:-1]), "", told[-1][1] if told else ""


def _turns(messages: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, str], ...]:
    return tuple((str(each.get("role", "user")), str(each.get("content") or "")) for each in messages)
