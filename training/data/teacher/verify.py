"""Whether what a teacher said may become a row. Pure; the questions that the teacher is asked stand here too.

Cheap checks come first. A wording must have the very numbers and placeholders of its original, and be neither it nor
anything that evaluation asks. Then the teacher is asked again, without being told that the words are its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from training.data.choice.similar import Bytes, normal, similarity, sketched
from training.data.masks import spans
from training.data.reasons import Reason
from training.data.values import Message

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_YES = re.compile(r"\W*yes\b", re.IGNORECASE)
#: A wording may be so many times as long or as short as its original, and this many letters besides.
_LONGER, _ROOM = 3.0, 40
Chat = list[dict[str, str]]


@dataclass(slots=True)
class Heldout:
    """What evaluation asks, to keep a teacher's rows away from it: 64 bytes a question."""

    similar: float
    questions: set[str] = field(default_factory=set)
    _sketches: list[Bytes] = field(default_factory=list)

    def add(self, asked: str) -> None:
        self.questions.add(normal(asked))
        self._sketches.append(sketched(asked))

    def near(self, asked: str) -> bool:
        """Whether evaluation asks this, or nearly this."""
        if normal(asked) in self.questions:
            return True
        if not self._sketches:
            return False
        sketch = sketched(asked)
        return max(similarity(each, sketch) for each in self._sketches) >= self.similar


def wording(text: str, original: str) -> Reason | None:
    """Why this is no other wording of the original."""
    if not text.strip():
        return Reason.EMPTY
    if normal(text) == normal(original):
        return Reason.NO_CHANGE
    if facts(text) != facts(original):
        return Reason.OTHER_FACTS
    longer, shorter = max(len(text), len(original)), min(len(text), len(original))
    return Reason.OTHER_FACTS if longer > _LONGER * shorter + _ROOM else None


def facts(text: str) -> Counter[str]:
    """What two wordings of one thing must share: numbers, and places that redaction left."""
    found = Counter(_NUMBER.findall(text))
    found.update(text[start:end] for start, end in spans(text))
    return found


def agreed(said: str) -> bool:
    return bool(_YES.match(said))


def reword(original: str, *, what: str) -> Chat:
    """Ask for another wording of a message or an answer."""
    told = (
        f"Write the {what} between the lines in other words. Keep its meaning, its language, every number, every name "
        f"and everything in square brackets. Write nothing but the new {what}.\n---\n{original}\n---"
    )
    return [{"role": "user", "content": told}]


def same(one: str, other: str) -> Chat:
    """Ask whether two texts say the same."""
    told = (
        "Do these two texts say the same, so that nobody who reads one would act otherwise than who reads the other? "
        f"Answer yes or no.\n---\n{one}\n---\n{other}\n---"
    )
    return [{"role": "user", "content": told}]


def right(prompt: Sequence[Message], answer: str) -> Chat:
    """Ask whether an answer is a good one."""
    said = "\n".join(f"{each.role}: {each.content}" for each in prompt)
    told = (
        "Is the last answer below true to what was said before, complete, safe and polite, and does it invent nothing? "
        f"Answer yes or no.\n---\n{said}\nassistant: {answer}\n---"
    )
    return [{"role": "user", "content": told}]
