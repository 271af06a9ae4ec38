"""What may be searched is read strictly, and held against the recipe before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest

from training.recipes.errors import BadRecipe
from training.recipes.recipe import build
from training.search.space import Between, OneOf, Search, applied, checked, read, usual, value_of

RECIPE: dict[str, Any] = {
    "name": "desk",
    "method": "sft",
    "data": {"train": "tidewell:corrected_fact", "held": "tidewell:corrected_fact"},
    "optim": {"steps": 40},
}
TEXT = """
search:
  trials: 12
  space:
    optim.learning_rate: {low: 1e-4, high: 5e-3, log: true}
    adapter.rank: {one_of: [4, 8]}
    optim.steps: {low: 20, high: 60, step: 20}
"""


def problems(search: Search, fields: dict[str, Any]) -> list[str]:
    with pytest.raises(BadRecipe) as caught:
        checked(search, fields)
    return list(caught.value.problems)


def test_a_search_is_read_with_whole_and_broken_numbers_apart() -> None:
    found = read(TEXT)
    assert (found.trials, found.measure, found.smaller_is_better) == (12, "eval_loss", True)
    rate, steps = found.space["optim.learning_rate"], found.space["optim.steps"]
    assert isinstance(rate, Between)
    assert isinstance(steps, Between)
    assert (rate.whole, steps.whole) == (False, True)
    assert checked(found, RECIPE) == build(RECIPE)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("trials: 3", "one mapping called search; found trials"),
        ("search: {trials: 3}", "search.space: Field required"),
        ("search: {space: {}}", "search.space"),
        ("search: {trails: 3, space: {adapter.rank: {one_of: [4, 8]}}}", "search.trails: Extra inputs"),
        ("search: {space: {adapter.rank: {one_of: [4]}}}", "search.space.adapter.rank"),
        ("search: {space: {adapter.rank: {low: 4, hihg: 8}}}", "search.space.adapter.rank"),
    ],
)
def test_what_is_no_search_is_refused_with_its_place(text: str, why: str) -> None:
    with pytest.raises(BadRecipe, match=why):
        read(text)


def test_every_problem_with_the_recipe_is_said_together() -> None:
    space = {
        "seed": OneOf(one_of=(1, 2)),
        "data.held": OneOf(one_of=("a.jsonl", "b.jsonl")),
        "dpo.beta": Between(low=0.1, high=0.5),
        "optim.lernrate": Between(low=0.1, high=0.5),
        "adapter.rank": OneOf(one_of=(8, 64)),
        "optim.steps": Between(low=60, high=20),
        "optim.batch": Between(low=2.5, high=8),
    }
    found = problems(Search(space=space), {**RECIPE, "data": {"train": "tidewell:corrected_fact"}})
    for part in (
        "data.held: the recipe names no held-out rows",
        "space.seed: cannot be searched; a seed that wins has won by luck",
        "space.data.held: cannot be searched",
        "space.dpo.beta: stands in the loss itself",
        "space.optim.lernrate = 0.1: optim.lernrate: unknown key; did you mean",
        "space.adapter.rank = 64: adapter.rank: 64 is above adapter.rank_max",
        "space.optim.steps: low (60) must be below high (20)",
        "space.optim.batch = 2.5: optim.batch",
    ):
        assert any(line.startswith(part) for line in found), part


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (Between(low=0, high=1, log=True), "log needs a low above 0"),
        (Between(low=1, high=9, log=True, step=2), "log and step exclude"),
        (Between(low=1, high=9, step=0), "step must be above 0"),
        (OneOf(one_of=(1, 1)), "holds a value twice"),
    ],
)
def test_values_that_are_none_are_refused(values: Between | OneOf, why: str) -> None:
    assert any(why in line for line in problems(Search(space={"optim.steps": values}), RECIPE))


def test_methods_are_measured_by_what_tells_their_answers_apart() -> None:
    rank = {"adapter.rank": OneOf(one_of=(4, 8))}
    online = {**RECIPE, "method": "grpo", "rl": {"rewards": ["contains:fact"]}}
    assert any("set it to eval_reward" in line for line in problems(Search(space=rank), online))
    checked(Search(space=rank, measure="eval_reward"), online)
    ppo = {**online, "method": "ppo", "data": {"train": "tidewell:polite_goals"}}
    assert any("ppo evaluates nothing" in line for line in problems(Search(space=rank, measure="eval_reward"), ppo))
    assert any("no number of an evaluation" in line for line in problems(Search(space=rank, measure="loss"), RECIPE))
    pairs = {**RECIPE, "method": "dpo"}
    checked(Search(space={"dpo.beta": Between(low=0.1, high=0.5)}, measure="eval_rewards/accuracies"), pairs)


@pytest.mark.parametrize(
    ("measure", "direction", "smaller"),
    [("eval_loss", "auto", True), ("eval_rewards/accuracies", "auto", False), ("eval_reward", "minimize", True)],
)
def test_a_loss_is_minimized_and_all_else_maximized(measure: str, direction: Any, smaller: bool) -> None:
    rank = {"adapter.rank": OneOf(one_of=(4, 8))}
    assert Search(space=rank, measure=measure, direction=direction).smaller_is_better is smaller


def test_picked_values_stand_in_their_places_and_the_recipe_stays_as_it_was() -> None:
    made = applied(RECIPE, {"optim.learning_rate": 1e-3, "adapter.rank": 4, "optim.epochs": 2.0})
    assert made["optim"] == {"learning_rate": 1e-3, "epochs": 2.0}
    assert made["adapter"] == {"rank": 4}
    assert RECIPE["optim"] == {"steps": 40}


def test_without_a_file_the_learning_rate_and_the_ranks_that_can_be_served_are_searched() -> None:
    assert list(usual(RECIPE).space) == ["optim.learning_rate", "adapter.rank"]
    assert usual(RECIPE).space["adapter.rank"] == OneOf(one_of=(4, 8, 16))
    assert usual({**RECIPE, "adapter": {"kind": "pissa"}}).space["adapter.rank"] == OneOf(one_of=(4, 8))
    assert list(usual({**RECIPE, "tuning": "full"}).space) == ["optim.learning_rate"]
    for fields in (RECIPE, {**RECIPE, "tuning": "half"}):
        checked(usual(fields), fields)


def test_a_trial_is_worth_its_last_number_or_that_of_the_weights_it_goes_back_to() -> None:
    losses = {10: 0.5, 20: 0.3, 30: 0.4}
    assert value_of(losses, losses, best=False) == (30, 0.4)
    assert value_of(losses, losses, best=True) == (20, 0.3)
    assert value_of({10: 0.6, 20: 0.8, 30: 0.9}, losses, best=True) == (20, 0.8)
