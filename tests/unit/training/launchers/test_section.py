"""What a recipe may say of its processes, and how they share a step."""

from __future__ import annotations

from typing import Any

import pytest

from training.launchers.section import shared
from training.recipes.errors import BadRecipe
from training.recipes.recipe import Recipe, build


def recipe(**fields: Any) -> Recipe:
    return build({"name": "test", "method": "sft", "data": {"train": "rows.jsonl"}, **fields})


def test_a_recipe_says_how_many_processes_and_how_weights_are_shared_out() -> None:
    launch = recipe(launch={"processes": 2, "sharding": "fsdp", "flags": {"num_machines": 2}}).launch
    assert (launch.processes, launch.sharding, launch.flags) == (2, "fsdp", {"num_machines": 2})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"launch": {"sharding": "fsdp"}}, "needs launch.processes of 2 or more"),
        ({"launch": {"processes": 2, "offload": True}}, "launch.offload and launch.layers go with"),
        ({"launch": {"processes": 2, "flags": {"num_processes": 3}}}, "set launch.processes instead"),
        ({"launch": {"processes": 2, "flags": {"--gpu": 3}}}, "without dashes before"),
        ({"launch": {"flags": {"gpu_ids": "0"}}}, "launch.flags go with launch.processes"),
        ({"launch": {"processes": 2}, "quantization": "nf4"}, "packed weights are not shared out"),
        ({"launch": {"processes": 2}, "method": "grpo", "rl": {"rewards": ["matches:x"]}}, "samples answers as it"),
        ({"launch": {"processes": 2, "sharding": "fsdp"}, "tuning": "full"}, "tuning: adapter only"),
        ({"launch": {"processes": 2, "sharding": "fsdp"}, "adapter": {"kind": "pissa"}}, "pissa"),
        ({"method": "ppo", "report": ["mlflow"], "rl": {"rewards": ["matches:x"]}}, "reports nowhere"),
        ({"trainer": {"report_to": "all"}}, "set report instead"),
        ({"report": ["tensorboard"], "wandb": {"project": "shop"}}, "wandb goes with wandb among report"),
        ({"report": ["wandb"], "wandb": {"tags": ["x" * 65]}}, r"wandb.tags\[0\]: .* at most 64 characters"),
        ({"report": ["wandb"], "wandb": {"projekt": "shop"}}, "wandb.projekt: unknown key; did you mean project"),
    ],
)
def test_what_cannot_go_together_is_said(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRecipe, match=said):
        recipe(**fields)


@pytest.mark.parametrize(
    ("batch", "accumulate", "processes", "each"),
    [
        (4, 2, 2, (4, 1)),  # batches first: no tensor changes its shape
        (4, 1, 2, (2, 1)),
        (4, 3, 2, (2, 3)),
        (3, 2, 6, (1, 1)),
        (16, 1, 1, (16, 1)),
        (3, 1, 2, None),
        (1, 1, 2, None),
    ],
)
def test_processes_together_make_the_step_that_the_recipe_says(
    batch: int, accumulate: int, processes: int, each: tuple[int, int] | None
) -> None:
    found = shared(batch, accumulate, processes)
    assert found == each
    if found is not None:
        assert found[0] * found[1] * processes == batch * accumulate
