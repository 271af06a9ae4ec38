"""Guardrails: one-sided non-inferiority with a margin, in three states."""

from __future__ import annotations

from enum import StrEnum

from monitoring.statistics.values import Interval


class Guard(StrEnum):
    """What is known of a guardrail."""

    CLEAR = "clear"  # shown to be no worse than the margin allows
    OPEN = "open"  # neither is shown yet
    BREACHED = "breached"  # shown to be worse than the margin allows


def judge(interval: Interval, *, margin: float) -> Guard:
    """Judge an interval of treatment minus control, in the direction in which more is better.

    `margin` ≥ 0 is how much worse is accepted. "No significant harm" is not asked: it is granted to whoever looks at
    too little. Guarantee: with bounds that hold for ever at level alpha, a guardrail that keeps its margin is breached
    with probability ≤ alpha, and one that does not is cleared with probability ≤ alpha.
    """
    if interval.upper < -margin:
        return Guard.BREACHED
    if interval.lower > -margin:
        return Guard.CLEAR
    return Guard.OPEN


def split(alpha: float, guardrails: int) -> float:
    """The level of each of several guardrails, so that all of them together keep `alpha` (Bonferroni)."""
    return alpha / max(guardrails, 1)
