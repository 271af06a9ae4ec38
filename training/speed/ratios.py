"""Paired speeds and what they say: pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run: tokens that went through the model, and seconds: of the CPU, or of the wall where a GPU computes."""

    tokens: float
    seconds: float

    @property
    def per_s(self) -> float:
        return self.tokens / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """How many times as fast, the geometric mean over pairs, with its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def ratio(ours: Sequence[Run], theirs: Sequence[Run]) -> Ratio:
    """Runs of one place in both rows were made one after the other, so what the machine did besides falls out."""
    logs = np.array([math.log(one.per_s / other.per_s) for one, other in zip(ours, theirs, strict=True)])
    mean = float(logs.mean())
    if logs.size < 2:
        return Ratio(mean=math.exp(mean), low=0.0, high=math.inf)
    far = float(stats.t.ppf((1 + _CONFIDENCE) / 2, logs.size - 1) * logs.std(ddof=1) / math.sqrt(logs.size))
    return Ratio(mean=math.exp(mean), low=math.exp(mean - far), high=math.exp(mean + far))


def per_s(runs: Sequence[Run]) -> float:
    """Tokens a second, the median run's."""
    return float(np.median([each.per_s for each in runs]))
