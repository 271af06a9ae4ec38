"""How far a text is from those before it: hashed character n-grams, cosine distance. Pure, numpy only.

It sees spelling, not meaning: a new language, format, topic or attack looks new; a paraphrase does too, somewhat. No
model is asked, so it costs a matrix product and never changes with one.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIZE = 2048  #: hashed features; two n-grams in one of them make texts look a little more alike than they are
NGRAM = 4
CHARS_MAX = 4000  #: of one text; what is new about a longer one shows in its beginning
_ROWS = 512  #: of one matrix product

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Novel:
    """The distance of a text to the nearest of `before` earlier ones: 0 the same, 1 nothing in common."""

    distance: float
    before: int


def vectors(texts: Sequence[str]) -> Vectors:
    """One row a text, of length 1: square roots of n-gram counts, so that no single repeated phrase decides."""
    rows = np.zeros((len(texts), SIZE), np.float32)
    for row, text in zip(rows, texts, strict=True):
        places = _places(text)
        if places.size:
            row += np.sqrt(np.bincount(places, minlength=SIZE)).astype(np.float32)
            row /= np.linalg.norm(row)
    return rows


def novelty(texts: Sequence[str]) -> list[Novel]:
    """For each text, how far it is from those before it. The first has none before it and is no news: 0."""
    rows = vectors(texts)
    found: list[Novel] = []
    for start in range(0, len(texts), _ROWS):
        block = rows[start : start + _ROWS]
        alike = block @ rows[: start + len(block)].T
        for offset, row in enumerate(alike):
            before = start + offset
            nearest = float(row[:before].max()) if before else 1.0
            found.append(Novel(distance=min(max(1.0 - nearest, 0.0), 1.0), before=before))
    return found


def _places(text: str) -> NDArray[np.int64]:
    plain = " ".join(text[:CHARS_MAX].casefold().split())
    padded = f" {plain} " if plain else ""
    grams = (padded[i : i + NGRAM] for i in range(max(len(padded) - NGRAM + 1, 0)))
    return np.fromiter((zlib.crc32(gram.encode("utf-8", "replace")) % SIZE for gram in grams), np.int64)
