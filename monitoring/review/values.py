"""The values of this room. Text is in none of them: it stays in the records."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, TypeAlias

#: Of a compared pair, which answer was better: as the task has them, never as a screen showed them.
Choice: TypeAlias = Literal["first", "second", "tie"]
#: And as a screen showed them.
Sides: TypeAlias = Literal["left", "right", "tie"]
Thumbs: TypeAlias = Literal[1, -1]
State: TypeAlias = Literal["open", "done", "all"]


class Kind(StrEnum):
    LABEL = "label"  #: one answer: thumbs, scalars, a comment, a correction
    COMPARE = "compare"  #: two answers to one prompt: which is better


class By(StrEnum):
    """Why an answer is looked at again."""

    DISAGREEMENT = "disagreement"
    NOVELTY = "novelty"
    LIKELIHOOD = "likelihood"
    ALARM = "alarm"
    QUERY = "query"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why a record was picked. `score` orders picks of the same kind, the largest first; it means nothing across."""

    by: By
    why: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """A record, by its id, and why."""

    record: str
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Something for people to look at. One record to label, two to compare; at most one task for the same of a kind."""

    id: str  # UUIDv7
    tenant: str
    kind: Kind
    records: tuple[str, ...]  # ids of Inference
    completions: tuple[str, ...]  # what the client knows them by: the targets of feedback
    reason: Reason
    overlap: int = 1  # how many people are asked
    answered: int = 0  # how many have said something
    picked_at: float = 0.0  # unix seconds
    picked_by: str = ""

    @property
    def done(self) -> bool:
        return self.answered >= self.overlap

    @property
    def subject(self) -> str:
        """What it is about, whatever the order of its records: asked once only."""
        about = "\0".join((self.tenant, self.kind, *sorted(self.records)))
        return hashlib.sha256(about.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A task in somebody's hands. `flipped`: the second answer stands on the left."""

    task: Task
    reviewer: str
    until: float  # unix seconds
    flipped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one person said, without the words; those are feedback. Says nothing at all when it was passed over."""

    task: str
    reviewer: str
    at: float  # unix seconds
    thumbs: Thumbs | None = None
    scalars: Mapping[str, float] = field(default_factory=dict)
    choice: Choice | None = None
    skipped: bool = False
    flipped: bool = False  # as it was shown, to look for a preference of sides


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """An answer on its way in, words included, before anything is redacted or checked."""

    thumbs: Thumbs | None = None
    scalars: Mapping[str, float] = field(default_factory=dict)
    comment: str = ""
    correction: str | None = None
    choice: Choice | None = None


def coin(secret: bytes, task: str, reviewer: str) -> bool:
    """Which side the second answer stands on, for this reviewer. Nobody can foresee it without the secret; whoever has
    it can repeat it. It is stored with the claim all the same."""
    return hmac.new(secret, f"{task}\0{reviewer}".encode(), hashlib.sha256).digest()[0] & 1 == 1


def side(choice: Sides, flipped: bool) -> Choice:
    """From what was seen to what it was."""
    if choice == "tie":
        return "tie"
    return "first" if (choice == "left") is not flipped else "second"


def shown(choice: Choice, flipped: bool) -> Sides:
    """From what it was to where it stood."""
    if choice == "tie":
        return "tie"
    return "left" if (choice == "first") is not flipped else "right"
