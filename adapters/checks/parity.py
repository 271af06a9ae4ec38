"""Does an engine serve what was probed? Compares recorded logprobs with served ones; pure, values in, verdict out.

A 16-bit engine rounds a logit of 20 by a sixteenth, so the logprobs of tokens that nobody would ever see are mostly
noise. Differences are therefore taken between log(p + FLOOR): nats for likely tokens, nothing for impossible ones.
Measured against vLLM (W4A16, 16-bit) over talk, random and repeated tokens: adapters as training makes them stay below
a mean of 0.006, a p99 of 0.05 and a most of 0.12, one with its weights doubled below 0.011, 0.08 and 0.30; the same
adapter at 0.99 of its strength reaches 0.03, 0.15 and 0.26, another adapter 0.5, 4 and 4.6.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.checks.probe import Recorded
from adapters.errors import Reason

#: The probability under which a token's own does not matter any more.
FLOOR = 0.01
#: Where adapter and base are further apart than this (root mean square), what is served must be nearer to the adapter.
#: An engine's rounding alone makes 0.007 with a weak adapter.
APART = 0.02

Rows = Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerances:
    """How far a quantised engine may be from the recorded logprobs, in nats above the floor."""

    #: Of one sequence's signed differences, as a mean.
    mean: float = 0.02
    #: Of all tokens' absolute differences.
    p99: float = 0.10
    most: float = 0.50


FIRST = Tolerances()
#: What an engine like the one that is asked certified before is held to twice that: rounding depends on what else is in
#: a batch, and what is taken for a difference costs everybody a restart. Another adapter is ten times as far away.
AGAIN = Tolerances(mean=0.04, p99=0.20, most=1.0)
#: Of one prompt alone, a hundredth is less than a token.
AGAIN_ONE = Tolerances(mean=0.04, p99=1.0, most=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The verdict, and the three numbers it rests on (0 when nothing could be compared). `contained`: numbers were not
    finite, and the engine says that nothing else was touched."""

    passed: bool
    mean: float
    p99: float
    most: float
    reasons: tuple[Reason, ...] = ()
    contained: bool = False

    def document(self) -> dict[str, Any]:
        """As JSON for a row of evidence."""
        return {
            "passed": self.passed,
            "mean": self.mean,
            "p99": self.p99,
            "most": self.most,
            "reasons": [reason.document() for reason in self.reasons],
        }


def certificate(recorded: Recorded, served: Rows, tolerances: Tolerances = Tolerances()) -> Certificate:
    """Compare what a replica served for `recorded.prompts`, in their order, with what the probe recorded.

    Reasons: `not_comparable` (other lengths), `not_finite`, `parity_mismatch`, `serves_base`.
    """
    if [len(row) for row in served] != [len(row) for row in recorded.logprobs]:
        found = f"{len(served)} rows of {sum(map(len, served))} logprobs"
        wanted = f"{len(recorded.logprobs)} rows of {sum(map(len, recorded.logprobs))}, as recorded"
        return _nothing(
            "not_comparable", found, wanted, "The replica cut the prompts short: look at its max_model_len."
        )
    if not all(math.isfinite(value) for row in served for value in row):
        return _nothing("not_finite", "a logprob that is not a finite number", "finite logprobs", _RECYCLE)
    rows = [list(row) for row in _differences(served, recorded.logprobs)]
    sizes = sorted(abs(difference) for row in rows for difference in row)
    mean = max((abs(math.fsum(row)) / len(row) for row in rows if row), default=0.0)
    p99 = sizes[math.ceil(0.99 * len(sizes)) - 1] if sizes else 0.0
    most = sizes[-1] if sizes else 0.0
    numbers = {"mean": (mean, tolerances.mean), "p99": (p99, tolerances.p99), "most": (most, tolerances.most)}
    reasons = [
        _reason("parity_mismatch", f"parity.{name}", f"{value:.3g}", f"up to {allowed:g} nats", _RECYCLE)
        for name, (value, allowed) in numbers.items()
        if value > allowed
    ]
    apart, off = _distance(recorded.logprobs, recorded.base_logprobs), _distance(served, recorded.logprobs)
    if apart >= APART and off >= (from_base := _distance(served, recorded.base_logprobs)):
        found = f"{from_base:.3g} nats from the base and {off:.3g} from the adapter"
        reasons.append(_reason("serves_base", "parity", found, "nearer to the adapter than to its base", _RECYCLE))
    return Certificate(passed=not reasons, mean=mean, p99=p99, most=most, reasons=tuple(reasons))


def labels(recorded: Recorded) -> tuple[str, ...]:
    """`weak_effect` for an adapter so near to its base that a replica which serves the base would be certified."""
    return ("weak_effect",) if certificate(recorded, recorded.base_logprobs).passed else ()


_RECYCLE = (
    "If other replicas are certified, restart this one. If none is, the adapter makes more of rounding than of "
    "meaning: train it again with a lower learning rate."
)


def _differences(ours: Rows, theirs: Rows) -> Iterator[Iterator[float]]:
    for row, other in zip(ours, theirs, strict=True):
        yield (_above_floor(a) - _above_floor(b) for a, b in zip(row, other, strict=True))


def _distance(ours: Rows, theirs: Rows) -> float:
    squares = [difference**2 for row in _differences(ours, theirs) for difference in row]
    return math.sqrt(math.fsum(squares) / max(1, len(squares)))


def _above_floor(logprob: float) -> float:
    return math.log(math.exp(min(logprob, 0.0)) + FLOOR)


def _nothing(code: str, found: str, allowed: str, advice: str) -> Certificate:
    reason = _reason(code, "parity", found, allowed, advice)
    return Certificate(passed=False, mean=0.0, p99=0.0, most=0.0, reasons=(reason,))


def _reason(code: str, field: str, found: str, allowed: str, advice: str) -> Reason:
    return Reason(code=code, field=field, found=found, allowed=allowed, advice=advice)
