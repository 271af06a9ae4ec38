"""What goes through the compiler: messages, and candidates for rows. Frozen, light, in memory for one page only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

Kind: TypeAlias = Literal["sft", "kto", "dpo", "reward", "rl", "text"]
KINDS: tuple[Kind, ...] = get_args(Kind)
#: Kinds whose rows hold a wanted and an unwanted answer.
PAIRED: frozenset[Kind] = frozenset({"dpo", "reward"})
Split: TypeAlias = Literal["train", "evaluation"]
SPLITS: tuple[Split, ...] = get_args(Split)

#: (stage, how much is done, of how much if that is known)
Progress: TypeAlias = Callable[[str, int, int | None], None]


def silent(stage: str, done: int, total: int | None) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn. `trained` is said of an assistant's turn within the prompt that is learnt from too."""

    role: str
    content: str
    trained: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What may become one row.

    `answer` is the completion (sft, kto), the chosen answer (dpo, reward), the reference if there is one (rl), or the
    whole text (text). `owner` is whose row it is, for caps and splits: pseudonymous, empty where nobody is known.
    `policy` is the digest of what gave the answer that was judged; `inferences` and `words` are the ids of all records
    and all feedback behind the row.
    """

    kind: Kind
    prompt: tuple[Message, ...]
    answer: str = ""
    rejected: str = ""
    label: bool | None = None
    score: float | None = None
    weight: float = 1.0
    origin: str
    at: float = 0.0  # unix seconds
    tenant: str = ""
    owner: str = ""
    route: str = ""
    policy: str = ""
    adapter: str = ""
    arm: str = ""
    experiment: str = ""
    inferences: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    @property
    def asked(self) -> str:
        """The last turn of the user."""
        return next((each.content for each in reversed(self.prompt) if each.role == "user"), "")

    @property
    def conversation(self) -> str:
        """Everything but the system's words, so that two users of one system prompt are not alike by it."""
        return "\n".join(each.content for each in self.prompt if each.role not in ("system", "developer"))
