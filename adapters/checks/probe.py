"""The first forward of an adapter, off every shared engine: what it recorded, and who may record it.

A prober answers with numbers or refuses with reasons; it never guesses. `gateway.engines.prober` makes one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from adapters.errors import ProbeAway, Reason, Rejected

__all__ = ["EFFECT_MIN", "ProbeAway", "Prober", "Recorded", "Rows", "failed", "recorded"]

Rows = tuple[tuple[float, ...], ...]

#: Below this largest change of a logprob an adapter does nothing. Both sides are computed by the same code in the same
#: numerics, so their noise is zero; what float32 can round away is the only allowance.
EFFECT_MIN = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What the first forward gave. Logprobs are natural logs of each prompt token from the second on."""

    #: Token ids, so that every engine is asked for exactly the same.
    prompts: tuple[tuple[int, ...], ...]
    logprobs: Rows
    base_logprobs: Rows
    #: The largest difference of one token's logprob from the base's.
    effect: float
    seconds: float
    #: Which prober it was: "peft", or "quarantine " and the engine's URL.
    by: str

    def document(self) -> dict[str, Any]:
        """As JSON for a row of evidence."""
        return {
            "prompts": [list(prompt) for prompt in self.prompts],
            "logprobs": [list(row) for row in self.logprobs],
            "base_logprobs": [list(row) for row in self.base_logprobs],
            "effect": self.effect,
            "seconds": self.seconds,
            "by": self.by,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Recorded:
        """The inverse of `document`. Raises KeyError, TypeError or ValueError for anything else."""
        return cls(
            prompts=tuple(tuple(int(token) for token in prompt) for prompt in document["prompts"]),
            logprobs=_rows(document["logprobs"]),
            base_logprobs=_rows(document["base_logprobs"]),
            effect=float(document["effect"]),
            seconds=float(document["seconds"]),
            by=str(document["by"]),
        )


class Prober(Protocol):
    """Whoever can run an adapter's first forward where it can hurt nobody."""

    async def probe(self, folder: Path, *, digest: str, may_do_nothing: bool = False, gently: bool = False) -> Recorded:
        """Run the adapter in `folder`, `gently` where others are served from the same processors.

        Raises Rejected (`not_finite`, `no_effect` unless it `may_do_nothing`, `probe_failed`, …) when the adapter is at
        fault, and ProbeAway when nothing was learnt about it and the same call may succeed later.
        """
        ...

    async def close(self) -> None:
        """Give back memory and connections; nothing is asked afterwards."""
        ...


def recorded(
    prompts: Sequence[Sequence[int]],
    logprobs: Sequence[Sequence[float]],
    base_logprobs: Sequence[Sequence[float]],
    *,
    seconds: float,
    by: str,
    effect_min: float = EFFECT_MIN,
) -> Recorded:
    """Judge what came out of a first forward: finite, as long as asked for, and different from the base.

    Raises Rejected (`not_finite`, `probe_failed`, `no_effect`).
    """
    wanted = [len(prompt) - 1 for prompt in prompts]
    if [len(row) for row in logprobs] != wanted or [len(row) for row in base_logprobs] != wanted:
        raise failed("an answer of the wrong length")
    if not all(math.isfinite(value) for row in logprobs for value in row):
        advice = "It overflows or has diverged, and would corrupt its neighbours' answers. Train it again."
        raise _refusal("not_finite", "a logprob that is not a finite number", "finite logprobs everywhere", advice)
    pairs = zip(logprobs, base_logprobs, strict=True)
    effect = max((abs(a - b) for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True)), default=0.0)
    if effect < effect_min:
        allowed = f"at least {effect_min:g} on some token of the probe prompts"
        advice = "It answers as the base does: was it saved before training, or for another base?"
        raise _refusal("no_effect", f"a largest logprob change of {effect:.2g}", allowed, advice)
    return Recorded(
        prompts=tuple(tuple(prompt) for prompt in prompts),
        logprobs=_rows(logprobs),
        base_logprobs=_rows(base_logprobs),
        effect=effect,
        seconds=seconds,
        by=by,
    )


def failed(found: str) -> Rejected:
    """The refusal of an adapter whose first forward did not end as one does."""
    advice = "Nothing else was harmed. Load it with PEFT on the base to see why; then save it again."
    return _refusal("probe_failed", found, "a first forward that ends with numbers", advice)


def _refusal(code: str, found: str, allowed: str, advice: str) -> Rejected:
    return Rejected([Reason(code=code, field="probe", found=found, allowed=allowed, advice=advice)])


def _rows(rows: Sequence[Sequence[float]]) -> Rows:
    return tuple(tuple(float(value) for value in row) for row in rows)
