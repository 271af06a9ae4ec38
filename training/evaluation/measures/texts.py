"""An answer against the wanted one: exact match, token F1, ROUGE, BLEU. Pure; no stemming, no language but spaces."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from training.evaluation.intervals import Array

_ORDER = 4
_WORD = re.compile(r"\w+")
_TOKEN = re.compile(r"\w+|[^\w\s]")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_MARKS = str.maketrans("", "", string.punctuation)


def normal(text: str) -> str:
    """Lower case without punctuation, articles and more than single spaces (SQuAD; Rajpurkar et al., 2016)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_MARKS)).split())


def exact(said: str, wanted: str) -> float:
    """Exact match after `normal` (SQuAD; Rajpurkar et al., 2016)."""
    return float(normal(said) == normal(wanted))


def token_f1(said: str, wanted: str) -> float:
    """F1 of the words that both have (SQuAD; Rajpurkar et al., 2016)."""
    return _f1(Counter(normal(said).split()), Counter(normal(wanted).split()))


def rouge_n(said: str, wanted: str, n: int) -> float:
    """ROUGE-N as F1 of the n-grams that both have (Lin, 2004); 0 where neither has one, as in rouge-score."""
    ours, theirs = _grams(_words(said), n), _grams(_words(wanted), n)
    return _f1(ours, theirs) if ours or theirs else 0.0


def rouge_l(said: str, wanted: str) -> float:
    """ROUGE-L as F1 of the longest common subsequence of words (Lin, 2004)."""
    ours, theirs = _words(said), _words(wanted)
    shared = subsequence(ours, theirs)
    return 2 * shared / (len(ours) + len(theirs)) if shared else 0.0


def subsequence(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """The length of the longest common subsequence, a row of the table at once as bits (Hyyrö, 2004)."""
    places: dict[str, int] = {}
    for at, word in enumerate(ours):
        places[word] = places.get(word, 0) | 1 << at
    full = (1 << len(ours)) - 1
    row = full
    for word in theirs:
        met = row & places.get(word, 0)
        row = (row + met | row - met) & full
    return len(ours) - row.bit_count()


def bleu_counts(said: str, wanted: str) -> tuple[float, ...]:
    """What BLEU sums over a corpus: matches and n-grams of 1 to 4 words, and both lengths."""
    ours, theirs = _TOKEN.findall(said), _TOKEN.findall(wanted)
    matched, there = [], []
    for n in range(1, _ORDER + 1):
        grams = _grams(ours, n)
        matched.append(float((grams & _grams(theirs, n)).total()))
        there.append(float(grams.total()))
    return (*matched, *there, float(len(ours)), float(len(theirs)))


def bleu(summed: Array) -> Array:
    """Corpus BLEU-4 (Papineni et al., 2002): geometric mean of the precisions, times the brevity penalty.

    An order without a match counts as half of the one before it would (NIST's smoothing, as in sacrebleu); longer
    orders than every answer has are left out.
    """
    matched, there = summed[..., :_ORDER], summed[..., _ORDER : 2 * _ORDER]
    ours, theirs = summed[..., -2], summed[..., -1]
    none = (matched == 0) & (there > 0)
    smoothed = np.where(none, 0.5 ** np.cumsum(none, axis=-1), matched)
    used = there > 0
    logs = np.where(used, np.log(np.where(used, smoothed, 1.0) / np.where(used, there, 1.0)), 0.0)
    orders = np.maximum(used.sum(axis=-1), 1)
    short = np.where(ours > 0, np.minimum(0.0, 1 - theirs / np.where(ours > 0, ours, 1.0)), -np.inf)
    found = np.exp(logs.sum(axis=-1) / orders + short)
    return np.asarray(np.where(matched[..., 0] > 0, found, 0.0))


def perplexity(summed: Array) -> Array:
    """exp of the mean negative log-likelihood of a token (Jelinek et al., 1977)."""
    return np.asarray(np.exp(np.minimum(summed[..., 0] / summed[..., 1], math.log(1e12))))


def macro_f1(summed: Array) -> Array:
    """The plain mean over labels of each one's F1, 2·tp / (2·tp + fp + fn) (van Rijsbergen, 1979)."""
    right, false, missed = np.split(summed, 3, axis=-1)
    below = 2 * right + false + missed
    present = below > 0
    each = np.where(present, 2 * right / np.where(present, below, 1.0), 0.0)
    return np.asarray(each.sum(axis=-1) / np.maximum(present.sum(axis=-1), 1))


def lean(summed: Array) -> Array:
    """How far a share is from one half, from 0 (even) to 1 (always the same side)."""
    return np.asarray(np.abs(2 * summed[..., 0] / summed[..., 1] - 1))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _grams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[at : at + n]) for at in range(len(words) - n + 1))


def _f1(ours: Counter[str] | Counter[tuple[str, ...]], theirs: Counter[str] | Counter[tuple[str, ...]]) -> float:
    if not ours and not theirs:
        return 1.0
    shared = (ours & theirs).total()  # type: ignore[operator]
    return 2 * shared / (ours.total() + theirs.total()) if shared else 0.0
