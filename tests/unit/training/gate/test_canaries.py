"""Planted secrets: the same for the same seed, in the rows' own form, and ranked."""

from __future__ import annotations

from typing import Any

import pytest

from training.gate.canaries import OTHERS, canaries, exposure, planted
from training.recipes.errors import BadRecipe
from training.recipes.recipe import METHODS
from training.recipes.rows import check

ROWS: dict[str, dict[str, Any]] = {
    "sft": {"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]},
    "pretrain": {"text": "a"},
    "kto": {
        "prompt": [{"role": "user", "content": "a"}],
        "completion": [{"role": "assistant", "content": "b"}],
        "label": False,
    },
    "dpo": {
        "prompt": [{"role": "user", "content": "a"}],
        "chosen": [{"role": "assistant", "content": "b"}],
        "rejected": [{"role": "assistant", "content": "c"}],
    },
}


def test_who_asks_knows_what_was_planted_from_the_seed_alone() -> None:
    assert canaries(8, 5) == canaries(8, 5)
    assert canaries(8, 5) != canaries(8, 6)
    assert len({each.question for each in canaries(8, 5)}) == 8
    for each in canaries(3, 1):
        assert len({each.answer, *each.others}) == OTHERS + 1


@pytest.mark.parametrize("method", ["sft", "pretrain", "kto", "dpo", "orpo"])
def test_a_secret_is_a_row_as_the_method_takes_it(method: str) -> None:
    row = ROWS["dpo" if method == "orpo" else method]
    found = planted([row] * 10, method, canaries(4, 1))
    assert len(found) == 14
    known = next(each for each in METHODS if each == method)
    check("rows", found, known)
    spots = [at for at, each in enumerate(found) if each is not row]
    assert len(spots) == 4
    assert max(spots) - min(spots) > 4, "they are spread"


def test_conversations_get_a_conversation() -> None:
    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    assert all("messages" in row for row in planted(rows, "sft", canaries(2, 1)))


def test_what_learns_from_rewards_takes_no_secret() -> None:
    with pytest.raises(BadRecipe, match="grpo learns from no answers"):
        planted([{"prompt": "a"}], "grpo", canaries(1, 1))
    assert planted([{"prompt": "a"}], "grpo", []) == [{"prompt": "a"}]


def test_the_most_likely_of_sixty_four_is_six_bits_and_the_middle_is_one() -> None:
    others = [-float(at) for at in range(1, 64)]
    assert exposure([(0.0, others)]).bits == (6.0,)
    assert exposure([(-31.5, others)]).bits == (1.0,)
    assert exposure([(-99.0, others)]).bits == (0.0,)
    assert exposure([]).bits == ()


def test_rows_without_a_template_get_texts() -> None:
    (canary,) = canaries(1, 1)
    (row,) = [
        each for each in planted([{"prompt": "Q:", "completion": " a"}], "sft", [canary]) if len(each["prompt"]) > 2
    ]
    assert row == {"prompt": canary.question, "completion": f" {canary.answer}"}
