"""What the shape of a training says, why, and what to change."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.unit.training.publishing.runs import evaluated, falling, steps, tell
from training.publishing.curves import POINTS_MAX, Curves, CurveVerdict, document, read, verdict


def judged(folder: Path, *lines: Sequence[Mapping[str, object]]) -> CurveVerdict:
    return verdict(read(tell(folder, *lines)), learning_rate=1e-3)


def noisy(values: list[float], spread: float) -> list[float]:
    rng = random.Random(1)
    return [value + rng.gauss(0, spread) for value in values]


def test_a_loss_that_settled_has_converged(tmp_path: Path) -> None:
    found = judged(tmp_path, steps(noisy(falling(120), 0.05)))
    assert found.word == "converged"
    assert "no longer falls" in found.evidence
    assert found.change == ""


def test_a_loss_that_still_falls_is_under_fitted_and_wants_more_steps(tmp_path: Path) -> None:
    found = judged(tmp_path, steps([3.0 - 0.02 * at for at in range(100)]))
    assert found.word == "under_fitted"
    assert "optim.steps (now 100)" in found.change


def test_a_loss_that_never_moved_is_under_fitted_and_wants_a_higher_rate(tmp_path: Path) -> None:
    found = judged(tmp_path, steps(noisy([2.0] * 60, 0.1)))
    assert found.word == "under_fitted"
    assert "learning_rate" in found.change


@pytest.mark.parametrize(
    "losses",
    [
        [3.0 - 0.05 * at for at in range(40)] + [1.0 + 0.3 * at for at in range(20)],
        [*falling(30), math.nan],
        [2.0 + 0.2 * at for at in range(30)],
    ],
)
def test_a_loss_that_rose_again_diverged_and_wants_a_lower_rate(tmp_path: Path, losses: list[float]) -> None:
    found = judged(tmp_path, steps(losses))
    assert found.word == "diverged"
    assert "Lower optim.learning_rate (now 0.001) to a third" in found.change


def test_a_run_that_ended_with_no_number_diverged_and_one_that_went_on_did_not(tmp_path: Path) -> None:
    failed = {"event": "failed", "code": "not_finite", "message": ""}
    finished = {"event": "finished", "folder": "", "seconds": 1.0, "cpu_seconds": 1.0, "numbers": {}}
    assert judged(tmp_path, steps(falling(30)), [failed]).word == "diverged"
    assert judged(tmp_path, [finished]).word == "converged"


def test_held_out_rows_that_got_worse_while_training_went_on_are_over_fitting(tmp_path: Path) -> None:
    found = judged(tmp_path, steps(falling(100)), evaluated({20: 1.0, 40: 0.8, 60: 0.9, 80: 1.1, 100: 1.3}))
    assert found.word == "over_fitted"
    assert found.evidence == "The held-out loss was 0.8 after step 40 and 1.3 after step 100."
    assert "optim.steps to 40" in found.change
    assert found.numbers["held_best_step"] == 40


@pytest.mark.parametrize(
    "held",
    [{20: 1.0, 40: 0.9, 60: 0.8}, {20: 1.0, 40: 0.800, 60: 0.805}, {20: 0.8, 40: 1.2, 60: 0.83}, {20: 0.5, 40: 0.9}],
)
def test_noise_on_held_out_rows_is_no_over_fitting(tmp_path: Path, held: dict[int, float]) -> None:
    assert judged(tmp_path, steps(falling(60)), evaluated(held)).word == "converged"


def test_rewards_are_looked_at_where_they_are_told(tmp_path: Path) -> None:
    rising = [1.0 - value / 3 for value in noisy(falling(80), 0.05)]
    found = judged(
        tmp_path, [{**line, "numbers": {**line["numbers"], "loss": 0.0}} for line in steps(rising, "reward")]
    )
    assert found.word == "converged"
    assert found.evidence.startswith("The reward went from ")
    assert found.numbers["last"] > found.numbers["first"]


def test_a_few_steps_have_no_shape(tmp_path: Path) -> None:
    assert judged(tmp_path, steps([2.0, 1.0])).word == "too_short"
    assert verdict(Curves()).word == "too_short"


def test_a_run_that_was_killed_tells_each_step_once_and_a_cut_line_is_none(tmp_path: Path) -> None:
    tell(tmp_path, steps([3.0, 2.0, 1.0]), steps([3.0, 2.5])[1:])
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"event": "stepped", "st')
    assert read(tmp_path).series("loss") == [(1, 3.0), (2, 2.5), (3, 1.0)]
    assert read(tmp_path / "nowhere") == Curves()


def test_a_long_run_keeps_its_ends_and_what_is_between_thinned(tmp_path: Path) -> None:
    kept = document(read(tell(tmp_path, steps([float(at) for at in range(1, 2001)]))))["steps"]
    assert len(kept) == POINTS_MAX
    assert (kept[0]["loss"], kept[-1]["loss"]) == (1.0, 2000.0)
