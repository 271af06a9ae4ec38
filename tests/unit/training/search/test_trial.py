"""One trial: what its process says counts as it comes, and nothing of it goes on once it is given up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.training.search import runs
from training.launchers.section import Launch
from training.launchers.values import LaunchSpec, training
from training.recipes.errors import BadRecipe
from training.search.trial import Ended, run

FIELDS = "optim: {learning_rate: 0.01}\nadapter: {rank: 8}\n"


def spec(folder: Path) -> LaunchSpec:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(FIELDS)
    return training(name="trial", recipe=folder / "recipe.yaml", folder=folder, launch=Launch())


def never(evaluation: int, value: float) -> bool:
    return False


def tried(
    launcher: Any, folder: Path, *, best: bool = False, measure: str = "eval_loss",
    lags: Callable[[int, float], bool] = never,
) -> Ended:  # fmt: skip
    return run(launcher, spec(folder), measure=measure, best=best, lags=lags, rest=lambda: None)


def test_it_ends_with_its_last_evaluation(tmp_path: Path) -> None:
    heard: list[tuple[int, float]] = []

    def lags(evaluation: int, value: float) -> bool:
        heard.append((evaluation, value))
        return False

    ended = tried(runs.ScriptedLauncher(), tmp_path, lags=lags)
    assert (ended.state, ended.step) == ("done", 50)
    assert ended.value == pytest.approx(1.2)
    assert [evaluation for evaluation, _ in heard] == [1, 2, 3, 4, 5]


def test_with_early_stopping_it_is_worth_its_best(tmp_path: Path) -> None:
    launcher = runs.ScriptedLauncher(loss=lambda _, at: abs(at - 2))
    assert tried(launcher, tmp_path, best=True) == Ended(state="done", value=0.0, step=20)


def test_it_is_stopped_where_it_lags(tmp_path: Path) -> None:
    launcher = runs.ScriptedLauncher()
    ended = tried(launcher, tmp_path, lags=lambda evaluation, _: evaluation == 3)
    assert (ended.state, ended.step) == ("pruned", 30)
    assert launcher.runs[0].stopped
    assert not (tmp_path / "run.json").exists()


def test_a_loss_that_is_no_number_is_a_failure_and_ends_it(tmp_path: Path) -> None:
    launcher = runs.ScriptedLauncher(loss=lambda _, at: float("nan") if at > 1 else 1.0)
    ended = tried(launcher, tmp_path)
    assert (ended.state, ended.code) == ("failed", "not_finite")
    assert launcher.runs[0].stopped


def test_its_own_words_are_why_it_failed_and_its_log_where_it_had_none(tmp_path: Path) -> None:
    said = tried(runs.ScriptedLauncher(failing=lambda _: ("out_of_memory", "Memory ran out")), tmp_path / "a")
    assert said == Ended(state="failed", code="out_of_memory", why="Memory ran out")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "log.txt").write_text("Illegal instruction\n")
    killed = tried(runs.ScriptedLauncher(code=-9), tmp_path / "b")
    assert (killed.state, killed.code) == ("failed", "run_ended")
    assert "by signal 9" in killed.why
    assert "Illegal instruction" in killed.why


def test_a_measure_that_there_is_not_is_said_with_those_there_are(tmp_path: Path) -> None:
    launcher = runs.ScriptedLauncher()
    with pytest.raises(BadRecipe, match="no eval_reward; it has eval_loss"):
        tried(launcher, tmp_path, measure="eval_reward")
    assert launcher.runs[0].stopped


def test_it_goes_on_in_its_folder_and_says_nothing_twice(tmp_path: Path) -> None:
    heard: list[int] = []

    def lags(evaluation: int, value: float) -> bool:
        heard.append(evaluation)
        return False

    with pytest.raises(runs.Killed):
        tried(runs.ScriptedLauncher(dies_at=1), tmp_path, lags=lags)
    (tmp_path / "adapter").mkdir()  # as a kill between the adapter and run.json leaves it
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write(json.dumps({"event": "failed", "code": "io_error", "message": "of the one before"}) + "\n")
    again = runs.ScriptedLauncher()
    assert tried(again, tmp_path, lags=lags).state == "done"
    assert heard == [1, 2, 3, 4, 5]
    assert not (tmp_path / "adapter").exists()
    done = runs.ScriptedLauncher()
    assert tried(done, tmp_path).state == "done"
    assert done.started == []  # it had ended: only the search had not heard of it
