"""What the numbers say: finite, of a sane size, and not all nothing. One bad value can corrupt its neighbours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.errors import Findings
from adapters.limits import Limits
from adapters.weights import Header, Stats, Tensor, product_norm, scan


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The A and the B of one module, and the factor that the config puts on B·A. Stacked experts share both."""

    module: str
    a: Tensor
    b: Tensor
    rank: int
    scaling: float
    outputs: int
    experts: int = 1


def check_numbers(
    path: Path, header: Header, pairs: Sequence[Pair], limits: Limits, findings: Findings, *, force_noop: bool
) -> float:
    """Scan every value, then bound every update; returns the largest gain. See `Limits` for what a gain is."""
    stats = scan(path, header)
    for name, seen in stats.items():
        if seen.nonfinite:
            advice = "Training diverged. Such an adapter corrupts the answers of others; train again."
            findings.add("not_finite", name, f"{seen.nonfinite} NaN or infinite values", "finite numbers", advice)
    _bound_values(pairs, stats, limits, findings)
    sound = [pair for pair in pairs if not stats[pair.a.name].nonfinite and not stats[pair.b.name].nonfinite]
    norms = {pair.module: pair.scaling * product_norm(path, pair.a, pair.b, experts=pair.experts) for pair in sound}
    gains = {pair.module: norms[pair.module] / math.sqrt(pair.outputs) for pair in sound}
    for module, gain in gains.items():
        if gain > limits.gain_max:
            allowed = f"up to {limits.gain_max:g} times (the base's own weights are near 1)"
            advice = "The update drowns the base and may overflow. Train with a lower learning rate or alpha."
            findings.add("update_too_large", module, f"an update that amplifies {gain:.3g} times", allowed, advice)
    if pairs and len(sound) == len(pairs) and not any(norms.values()) and not force_noop:
        advice = "The adapter changes nothing: was it saved before training? Pass force_noop to register it anyway."
        findings.add("no_effect", "lora_B", "scaling * B * A = 0 in every module", "an update that is not 0", advice)
    return max(gains.values(), default=0.0)


def _bound_values(pairs: Sequence[Pair], stats: Mapping[str, Stats], limits: Limits, findings: Findings) -> None:
    """The engine multiplies B by the scaling and may hold both in float16, where 65504 is the end."""
    for pair in pairs:
        for tensor, factor in ((pair.a, 1.0), (pair.b, max(1.0, pair.scaling))):
            if (largest := stats[tensor.name].largest * factor) > limits.value_max:
                allowed = f"up to {limits.value_max:g}"
                advice = "A 16-bit engine may read infinity. Train again."
                findings.add("value_too_large", tensor.name, f"{largest:.3g}", allowed, advice)
