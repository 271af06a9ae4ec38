"""What is asked: one row of a suite, as every subject meets it. Frozen; nothing here knows where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from training.data.values import Message
from training.evaluation.values import Better


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Token ids as the server's template writes them; `mask` is 1 where the likelihood counts."""

    ids: tuple[int, ...]
    mask: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What an answer is looked at for. Of `contains` every part must be there."""

    name: str
    contains: tuple[str, ...] = ()
    regex: str = ""
    schema: str = ""  #: a JSON schema, as text
    better: Better = "higher"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One question, or one text whose likelihood is asked for.

    With a `prompt` an answer is asked for; `twin` is the same prompt with one group of people in the place of another,
    `swap` their two names. `answer` is what is wanted, `rejected` what is not: their likelihood is asked for. `text`
    and `other` are texts without a prompt. `unit` is whose row it is: rows of one unit are not independent.
    """

    id: str
    prompt: tuple[Message, ...] = ()
    answer: str = ""
    rejected: str = ""
    text: str = ""
    other: str = ""
    twin: tuple[Message, ...] = ()
    swap: tuple[str, str] = ("", "")
    context: str = ""
    looks: tuple[Look, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)  #: what it can be cut by
    unit: str = ""
    scored: Tokens | None = None
    scored_other: Tokens | None = None

    def document(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def asked(self) -> str:
        """The last turn of the user."""
        return next((each.content for each in reversed(self.prompt) if each.role == "user"), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood:
    """The summed natural-log probability of the tokens that count."""

    total: float
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What one subject made of one row; a part is None where the row does not ask for it, or nothing came.

    `failed` says why something did not come. `ratings` are the judge's, from 0 to 1; `wins` is the score against
    another subject: 1 won, ½ neither, 0 lost.
    """

    text: str | None = None
    tokens: int = 0
    cut: bool = False  #: the answer met the limit of tokens
    wanted: Likelihood | None = None
    unwanted: Likelihood | None = None
    twin: str | None = None
    ratings: Mapping[str, float] = field(default_factory=dict)
    wins: Mapping[str, float] = field(default_factory=dict)
    failed: str = ""
