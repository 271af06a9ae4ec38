"""The bench's table is made of recipes that can be read, and its intervals are those of paired questions."""

import pytest

from training.merge import HOW
from training.recipes.bench.cases import CASES, Case
from training.recipes.bench.exam import drop
from training.recipes.recipe import METHODS, build

TRAINED = [case for case in CASES if case.merged is None]


@pytest.mark.parametrize("case", TRAINED, ids=lambda case: case.name)
def test_a_row_is_a_recipe(case: Case) -> None:
    recipe = build({**case.fields, "name": case.name})
    assert recipe.data.train.startswith("tidewell:")


def test_no_method_and_no_kind_of_merge_is_left_out() -> None:
    assert {case.fields["method"] for case in TRAINED} == set(METHODS)
    assert {case.how for case in CASES if case.merged} == set(HOW)
    assert len({case.name for case in CASES}) == len(CASES)


def test_a_drop_is_counted_question_by_question() -> None:
    before = [True] * 390 + [False] * 10
    assert drop(before, before)[0] == 0
    low, high = drop(before, before)[1:]
    assert -0.01 < low < 0 < high < 0.01
    after = [False] * 16 + [True] * 374 + [True] * 4 + [False] * 6
    mean, low, high = drop(before, after)
    assert mean == pytest.approx((16 - 4) / 400)
    # 1.96 · √(16 + 4 + 1 − 12² / 400) / 400
    assert [mean - low, high - mean] == pytest.approx([0.02226, 0.02226], rel=1e-3)
    assert drop(after, before)[0] == -mean
