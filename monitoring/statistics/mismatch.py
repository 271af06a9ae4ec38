"""Sample-ratio mismatch: do the arms have the share of units that the assignment gives them?

If not, something removes units of one arm (retries, aborts, a broken path), and no comparison can be trusted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import chdtrc

from monitoring.statistics.errors import BadSample

#: Pseudo-counts of the Dirichlet prior: about the 3-point mismatch that matters at a few thousand units.
CONCENTRATION = 500.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """`log_evidence` is the natural logarithm of the e-value of this look; keep the largest over all looks."""

    log_evidence: float
    p_value: float

    def alarms(self, alpha: float) -> bool:
        """The sequential verdict of this look: at most `alpha` of honest experiments ever alarm, at any look."""
        return self.log_evidence >= -math.log(alpha)

    def final(self, alpha: float) -> bool:
        """The chi-square verdict, to be asked once, at the end: stronger there, and wrong if it is asked twice."""
        return self.p_value < alpha


def mismatch(counts: Sequence[int], shares: Sequence[float], *, concentration: float = CONCENTRATION) -> Mismatch:
    """Compare the units counted in each arm with the shares assigned to them.

    Assumes units are assigned independently with probabilities proportional to `shares`. Guarantee: under that, the
    e-value's expectation is ≤ 1 at any stopping time. Sources: Lindon and Malek, "Anytime-valid inference for
    multinomial count data" (NeurIPS 2022), with the prior centred on the shares; Pearson's chi-square for `final`.
    Raises BadSample.
    """
    if len(counts) != len(shares) or len(counts) < 2:
        raise BadSample(f"One count and one share for each of two arms or more; found {len(counts)}, {len(shares)}.")
    if min(counts) < 0 or min(shares) <= 0:
        raise BadSample("Counts must not be negative and shares must be above zero.")
    total = sum(counts)
    if total == 0:
        return Mismatch(log_evidence=0.0, p_value=1.0)
    parts = [share / sum(shares) for share in shares]
    evidence = math.lgamma(concentration) - math.lgamma(concentration + total)
    statistic = 0.0
    for count, part in zip(counts, parts, strict=True):
        prior = concentration * part
        evidence += math.lgamma(prior + count) - math.lgamma(prior) - count * math.log(part)
        statistic += (count - total * part) ** 2 / (total * part)
    return Mismatch(log_evidence=evidence, p_value=float(chdtrc(len(counts) - 1, statistic)))
