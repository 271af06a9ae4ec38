"""The columns that decisions are made on: 125 bytes for each candidate, in arrays that grow in place."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitoring.records.codes import code
from training.data.choice.similar import HASHES, normal, sketched_normal
from training.data.values import Candidate

LAYOUT = np.dtype(
    [
        ("offset", "<u8"),  # in the file of candidates
        ("owner", "<i8"),  # nobody known: the row's own number, negative
        ("question", "<i8"),  # the whole conversation
        ("pair", "<i8"),  # question and answer
        ("cluster", "<i8"),  # the kind of question: its last turn, numbers aside
        ("at", "<f8"),
        ("weight", "<f4"),
        ("tokens", "<u4"),
        ("route", "<u2"),
        ("policy", "<u2"),
        ("label", "u1"),
    ]
)
DOWN, UP, NEITHER = 0, 1, 2
LABELS = ("down", "up", "")
_LEAST = 4096
#: Routes and policies beyond so many share the last number.
_NAMES_MAX = 65_535
_NUMBERS = re.compile(r"\d+|\[[a-z]+\]")


class Index:
    """Append, then look at the columns: they are views, and good until the next row comes."""

    def __init__(self) -> None:
        self.size = 0
        self.routes: dict[str, int] = {}
        self.policies: dict[str, int] = {}
        self._rows = np.zeros(_LEAST, LAYOUT)
        self._sketches = np.zeros((_LEAST, HASHES), np.uint8)

    def add(self, candidate: Candidate, *, offset: int, tokens: int) -> None:
        """One more candidate; its text stays behind."""
        if self.size == self._rows.size:
            self._grow()
        question, asked = normal(candidate.conversation), normal(candidate.asked)
        label = NEITHER if candidate.label is None else UP if candidate.label else DOWN
        said = normal(f"{candidate.answer}\n{candidate.rejected}" if candidate.rejected else candidate.answer)
        sketch = sketched_normal(f"{asked} {said}".strip())
        tenant, place = candidate.tenant, self.size
        self._rows[place] = (
            offset,
            code(tenant, candidate.owner) if candidate.owner else -1 - place,
            code(question or said),
            code(tenant, question, said),
            code(tenant, _NUMBERS.sub("0", asked)),
            candidate.at,
            candidate.weight,
            tokens,
            _numbered(self.routes, candidate.route),
            _numbered(self.policies, candidate.policy),
            label,
        )
        self._sketches[place] = sketch
        self.size += 1

    def column(self, name: str) -> NDArray[Any]:
        """One column of `LAYOUT`, or all `sketches`."""
        if name == "sketches":
            return self._sketches[: self.size]
        held: NDArray[Any] = self._rows[name][: self.size]
        return held

    @property
    def bytes(self) -> int:
        return self._rows.nbytes + self._sketches.nbytes

    def _grow(self) -> None:
        """By an eighth, in place: for large arrays the system moves pages and copies nothing."""
        size = self.size + max(_LEAST, self.size >> 3)
        self._rows.resize(size, refcheck=False)
        self._sketches.resize((size, HASHES), refcheck=False)


def _numbered(names: dict[str, int], name: str) -> int:
    return names.setdefault(name, min(len(names), _NAMES_MAX))
