"""How sure numbers are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from training.evaluation import intervals
from training.evaluation.intervals import Array
from training.evaluation.measures.texts import perplexity

Bounds = tuple[float, float]


def alone(n: int) -> NDArray[np.int64]:
    return np.arange(n, dtype=np.int64)


def test_a_share_has_wilsons_interval() -> None:
    hits = np.array([1.0] * 81 + [0.0] * 182)
    low, high = intervals.share(hits, alone(263), 0.95)
    # Newcombe (1998), table I, method 3: 81 of 263.
    assert [low, high] == pytest.approx([0.2553, 0.3662], abs=5e-5)
    assert intervals.share(np.zeros(20), alone(20), 0.95)[0] == 0.0
    assert intervals.share(np.ones(20), alone(20), 0.95)[1] == 1.0


def test_no_difference_at_all_is_not_certainty() -> None:
    same = np.ones(400)
    low, high = intervals.share_difference(same, same, alone(400), 0.95)
    assert low < 0 < high
    assert high < 0.01


def test_a_difference_of_everything_stays_within_what_is_possible() -> None:
    low, high = intervals.share_difference(np.ones(50), np.zeros(50), alone(50), 0.95)
    assert 0.85 < low <= 1.0
    assert high == 1.0


def test_rows_of_one_unit_count_as_far_as_they_differ() -> None:
    rng = np.random.default_rng(3)
    units = np.repeat(np.arange(50), 8)
    copied = np.repeat(rng.integers(0, 2, 50), 8).astype(float)
    mixed = rng.integers(0, 2, 400).astype(float)
    assert intervals.effective(copied, units) == pytest.approx(50, rel=0.05)
    assert intervals.effective(mixed, units) > 200
    assert intervals.effective(np.ones(400), units) == 50
    low, high = intervals.share(copied, units, 0.95)
    narrow = intervals.share(copied, alone(400), 0.95)
    assert high - low > 2 * (narrow[1] - narrow[0])


def test_a_mean_is_a_ratio_with_weights_of_one() -> None:
    values = np.array([1.0, 2.0, 4.0, 7.0])
    low, high = intervals.ratio(values, np.ones(4), alone(4), 0.95)
    half = 3.182446 * values.std(ddof=1) / 2
    assert [low, high] == pytest.approx([3.5 - half, 3.5 + half], rel=1e-6)


def test_a_bootstrap_is_the_same_with_the_same_seed() -> None:
    sums = np.stack([np.linspace(1, 9, 40), np.full(40, 4.0)], axis=1)
    first, again = (intervals.bootstrap(sums, alone(40), perplexity, 0.95, resamples=500, seed=4) for _ in range(2))
    assert first == again
    assert first[0] < float(perplexity(sums.sum(axis=0))) < first[1]


@pytest.mark.slow
@pytest.mark.parametrize("units", [400, 40])
def test_intervals_hold_as_often_as_they_say(units: int) -> None:
    """Rows of units, each with a level of its own; ours better by a known bit."""
    rng = np.random.default_rng(11)
    rows = 400 // units
    who = np.repeat(np.arange(units), rows)
    trials, met = 400, {"share": 0, "share_difference": 0, "ratio": 0, "ratio_difference": 0, "bootstrap_difference": 0}
    for _ in range(trials):
        level = np.repeat(rng.beta(4, 4, units), rows)
        ours, theirs = (rng.random(400) < level).astype(float), (rng.random(400) < level * 0.9).astype(float)
        tokens = rng.integers(5, 40, 400).astype(float)
        a, b = (tokens * (level * scale + rng.normal(0, 0.2, 400)) for scale in (1.0, 0.9))
        found: dict[str, tuple[Bounds, float]] = {
            "share": (intervals.share(ours, who, 0.95), 0.5),
            "share_difference": (intervals.share_difference(ours, theirs, who, 0.95), 0.05),
            "ratio": (intervals.ratio(a, tokens, who, 0.95), 0.5),
            "ratio_difference": (intervals.ratio_difference((a, tokens), (b, tokens), who, 0.95), 0.05),
            "bootstrap_difference": (
                intervals.bootstrap_difference(
                    np.stack([a, tokens], axis=1), np.stack([b, tokens], axis=1), who, divided, 0.95,
                    resamples=200, seed=1,
                ),
                0.05,
            ),
        }  # fmt: skip
        for name, ((low, high), truth) in found.items():
            met[name] += low <= truth <= high
    for name, count in met.items():
        assert count / trials >= 0.915, (name, count / trials)


def divided(summed: Array) -> Array:
    return np.asarray(summed[..., 0] / summed[..., 1])


@pytest.mark.parametrize(
    "function", [intervals.share, lambda h, u, level: intervals.ratio(h, np.ones(h.size), u, level)]
)
def test_more_rows_are_surer(function: Callable[[Array, NDArray[np.int64], float], Bounds]) -> None:
    def width(n: int) -> float:
        low, high = function(np.resize([0.0, 1.0, 1.0], n).astype(float), alone(n), 0.95)
        return high - low

    assert width(900) < width(90) < width(30)
