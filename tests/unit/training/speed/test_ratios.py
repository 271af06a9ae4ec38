"""Paired speeds: what the machine did besides falls out, and a restless machine is told from a slow recipe."""

from __future__ import annotations

import pytest

from training.speed.__main__ import judged
from training.speed.ratios import Ratio, Run, per_s, ratio


def runs(*seconds: float, tokens: float = 1000.0) -> list[Run]:
    return [Run(tokens=tokens, seconds=each) for each in seconds]


def test_a_machine_that_slows_down_for_both_changes_nothing() -> None:
    found = ratio(runs(1.0, 2.0, 4.0), runs(0.98, 1.96, 3.92))
    assert found.mean == pytest.approx(0.98)
    assert found.high - found.low < 1e-9


def test_the_interval_widens_with_what_pairs_disagree_about() -> None:
    found = ratio(runs(1.0, 1.1, 0.9), runs(1.0, 1.0, 1.0))
    assert found.low < found.mean < found.high
    assert ratio(runs(1.0), runs(1.0)).high == float("inf")


def test_speed_is_of_tokens_that_went_through() -> None:
    assert per_s(runs(2.0, 4.0, 5.0)) == 250.0
    assert ratio(runs(1.0, 1.0, tokens=2000), runs(1.0, 1.0)).mean == pytest.approx(2.0)


def test_what_is_too_slow_and_what_cannot_be_told_is_named() -> None:
    good, slow = Ratio(mean=0.98, low=0.96, high=1.0), Ratio(mean=0.9, low=0.88, high=0.92)
    calm, restless = Ratio(mean=1.001, low=0.99, high=1.01), Ratio(mean=1.1, low=1.05, high=1.15)
    assert not list(judged("sft", good, 0.97, calm))
    assert next(judged("sft", slow, 0.97, calm)) == "sft: 0.900 [0.880, 0.920] times as fast, at least 0.97 wanted"
    assert "too restless" in next(judged("sft", good, 0.97, restless))
