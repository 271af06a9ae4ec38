"""A run done again: every choice as it was made, and what is not as it was."""

from __future__ import annotations

import copy
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from training.launchers.repeat import differences, recipe_of, standing
from training.recipes.errors import BadRecipe
from training.recipes.recipe import build

RECORD: dict[str, Any] = {
    "recipe": build(
        {"name": "desk", "method": "auto", "data": {"train": "rows.jsonl"}, "optim": {"epochs": 2}, "seed": 7}
    ).model_dump(mode="json"),
    "chosen": {
        "method": "kto", "rank": 4, "alpha": 8.0, "learning_rate": 1e-05, "steps": 40, "batch": 8, "accumulate": 2,
        "warmup_steps": 3, "tokens_max": 64, "precision": "float32", "evaluate_every": 4, "liked_weight": 1.0,
        "disliked_weight": 1.5, "memory": {},
    },
    "start": None,
    "base": {"name": "tidewell", "digest": "sha256:aa"},
    "template": "t1",
    "rows": {"count": 3, "sha256": "r1"},
    "versions": {"numpy": version("numpy"), "nobody-has-this": "1.0"},
}  # fmt: skip


def test_nothing_is_left_to_choose() -> None:
    recipe = recipe_of(json.loads(json.dumps(RECORD)), name="desk")
    assert (recipe.method, recipe.seed, recipe.adapter.rank, recipe.data.tokens_max) == ("kto", 7, 4, 64)
    assert (recipe.optim.steps, recipe.optim.epochs, recipe.optim.learning_rate) == (40, None, 1e-5)
    assert (recipe.kto.liked_weight, recipe.kto.disliked_weight) == (1.0, 1.5)


def test_a_run_that_went_on_from_an_adapter_keeps_that_adapters_shape() -> None:
    recipe = recipe_of(RECORD, name="desk", start="/artifacts/one")
    assert recipe.start_from == "/artifacts/one"
    assert recipe.adapter.rank == "auto"


def test_a_version_without_a_record_cannot_be_repeated() -> None:
    with pytest.raises(BadRecipe, match="no record of a recipe"):
        recipe_of({"numbers": {}}, name="desk")


def test_what_is_as_it_was_is_not_said() -> None:
    assert differences(RECORD, copy.deepcopy(RECORD)) == ()


def test_what_differs_is_said_in_a_line_each() -> None:
    now = copy.deepcopy(RECORD)
    now["base"]["digest"], now["template"], now["versions"]["numpy"] = "sha256:bb", "t2", "0.1"
    now["rows"] = {"count": 4, "sha256": "r2"}
    now["chosen"]["steps"] = 41
    said = differences(RECORD, now)
    assert [line.split(":")[0] for line in said] == ["base", "chat template", "rows", "numpy", "steps"]
    assert "3 then, 4 now" in said[2]


def test_before_a_run_versions_base_and_template_are_held_against_the_record(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "chat_template.jinja").write_text("hello")
    said = differences(RECORD, standing(base, RECORD))
    assert [line.split(":")[0] for line in said] == ["base", "chat template", "nobody-has-this"]
    assert "not installed now" in said[-1]
