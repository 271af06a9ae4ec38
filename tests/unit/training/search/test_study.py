"""A search finds what is there to find, gives up what lags, and goes on as if nobody had killed it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.training.search import runs
from training.errors import CannotSearch
from training.recipes.errors import BadRecipe
from training.recipes.recipe import build
from training.search.space import Between, OneOf, Prune, Search
from training.search.study import Found, Trial, search

pytest.importorskip("optuna")
pytestmark = pytest.mark.slow


RECIPE: dict[str, Any] = {
    "name": "desk",
    "method": "sft",
    "data": {"train": "tidewell:corrected_fact", "held": "tidewell:corrected_fact"},
    "optim": {"steps": 50},
}
WANTED = Search(
    trials=10,
    random=5,
    space={
        "optim.learning_rate": Between(low=1e-5, high=1e-1, log=True),
        "adapter.rank": OneOf(one_of=(4, 8, 16)),
    },
)


def tried(out: Path, launcher: Any = None, wanted: Search = WANTED, told: list[Trial] | None = None) -> Found:
    heard = [] if told is None else told
    return search(
        RECIPE, wanted, out, launcher=launcher or runs.ScriptedLauncher(), told=heard.append, rest=lambda: None
    )


def lines(found: Found) -> list[tuple[object, ...]]:
    return [(one.number, one.state, one.value, one.step, dict(one.picked)) for one in found.trials]


def test_it_finds_a_better_recipe_than_chance_and_writes_it_down(tmp_path: Path) -> None:
    told: list[Trial] = []
    found = tried(tmp_path / "out", told=told)
    assert len(found.trials) == 10
    assert [one.number for one in told] == list(range(10))
    assert found.best is not None
    first = min(one.value for one in found.trials[:5] if one.value is not None)
    assert found.best.value is not None
    assert found.best.value <= first
    assert 1e-4 < found.best.picked["optim.learning_rate"] < 1e-2
    text = found.recipe.read_text()
    assert text.startswith(f"# The best of 10 trials: number {found.best.number}, eval_loss")
    made = build(yaml.safe_load(text))
    assert made.optim.learning_rate == found.best.picked["optim.learning_rate"]
    assert made.adapter.rank == found.best.picked["adapter.rank"]


def test_what_lags_is_given_up_and_counted(tmp_path: Path) -> None:
    launcher = runs.ScriptedLauncher()
    found = tried(tmp_path / "out", launcher)
    states = {one.state for one in found.trials}
    assert states == {"done", "pruned"}
    pruned = [one for one in found.trials if one.state == "pruned"]
    assert all(one.step < 50 for one in pruned)
    assert all(run.stopped for run, one in zip(launcher.runs, found.trials, strict=True) if one.state == "pruned")
    off = tried(tmp_path / "off", wanted=WANTED.model_copy(update={"prune": Prune(off=True)}))
    assert {one.state for one in off.trials} == {"done"}


@pytest.mark.parametrize("at", [1, 7])
def test_a_search_that_was_killed_tries_what_it_would_have_tried(tmp_path: Path, at: int) -> None:
    whole = tried(tmp_path / "whole")
    with pytest.raises(runs.Killed):
        tried(tmp_path / "cut", runs.ScriptedLauncher(dies_at=at))
    again = runs.ScriptedLauncher()
    found = tried(tmp_path / "cut", again)
    assert lines(found) == lines(whole)
    assert found.recipe.read_text() == whole.recipe.read_text()
    assert len(again.started) in (10 - at, 10 - at + 1)  # what it had said already may be enough to give it up
    assert sorted(path.name for path in (tmp_path / "cut").glob("trial-*")) == [f"trial-{n:03d}" for n in range(10)]


def test_more_trials_go_on_from_those_there_are(tmp_path: Path) -> None:
    few = tried(tmp_path / "out", wanted=WANTED.model_copy(update={"trials": 4}))
    launcher = runs.ScriptedLauncher()
    more = tried(tmp_path / "out", launcher, wanted=WANTED.model_copy(update={"trials": 6}))
    assert lines(more)[:4] == lines(few)
    assert len(launcher.started) == 2


def test_failures_are_lines_of_the_table_and_no_end(tmp_path: Path) -> None:
    def failing(fields: dict[str, Any]) -> tuple[str, str] | None:
        return ("out_of_memory", "Lower optim.batch") if fields["adapter"]["rank"] == 16 else None

    found = tried(tmp_path / "out", runs.ScriptedLauncher(failing=failing))
    assert len(found.trials) == 10
    failed = [one for one in found.trials if one.state == "failed"]
    assert failed
    assert all(one.why == "out_of_memory: Lower optim.batch" for one in failed)
    assert found.best is not None


def test_it_ends_where_every_trial_would_fail(tmp_path: Path) -> None:
    rows = runs.ScriptedLauncher(failing=lambda _: ("bad_rows", "it is empty"))
    with pytest.raises(CannotSearch, match=r"trial 0 failed, as every other one would \(bad_rows\): it is empty"):
        tried(tmp_path / "rows", rows)
    assert len(rows.started) == 1
    memory = runs.ScriptedLauncher(failing=lambda _: ("out_of_memory", "no room"))
    with pytest.raises(CannotSearch, match="first 5 trials all failed"):
        tried(tmp_path / "memory", memory)


def test_a_folder_holds_one_search_and_one_at_a_time(tmp_path: Path) -> None:
    few = WANTED.model_copy(update={"trials": 1})
    tried(tmp_path / "out", wanted=few)
    other = few.model_copy(update={"space": {"adapter.rank": OneOf(one_of=(4, 8))}})
    with pytest.raises(CannotSearch, match="another recipe or another space"):
        tried(tmp_path / "out", wanted=other)
    heard: list[str] = []

    class Second(runs.ScriptedLauncher):
        def start(self, spec: Any) -> Any:
            with pytest.raises(CannotSearch, match="Another search is going on"):
                tried(tmp_path / "busy", wanted=few)
            heard.append(spec.name)
            return super().start(spec)

    tried(tmp_path / "busy", Second(), wanted=few)
    assert heard == ["desk-trial-000"]


def test_nothing_is_tried_where_the_space_does_not_fit(tmp_path: Path) -> None:
    launcher = runs.ScriptedLauncher()
    with pytest.raises(BadRecipe, match=r"adapter\.rank = 64"):
        tried(tmp_path / "out", launcher, Search(space={"adapter.rank": OneOf(one_of=(8, 64))}))
    assert launcher.started == []
    assert not (tmp_path / "out").exists()
