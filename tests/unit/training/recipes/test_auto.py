"""What a recipe leaves open is chosen from the data, and the choice says why."""

from dataclasses import replace

import pytest

from training.recipes.auto import Choices, Facts, Kinds, choose, method_for
from training.recipes.errors import BadRecipe
from training.recipes.recipe import Recipe, build

SMALL = Facts(
    kinds=Kinds(answers=400), rows=400, tokens_mean=40, tokens_p99=60, tokens_most=61, parameters=2_115_264, layers=4,
    hidden=192, vocabulary=1024, positions=2048, memory_bytes=8 << 30, accelerator=False,
)  # fmt: skip


def recipe(method: str = "sft", **more: object) -> Recipe:
    return build({"name": "a", "method": method, "data": {"train": "x.jsonl"}, **more})


def why(chosen: Choices, key: str) -> str:
    return next(reason.why for reason in chosen.reasons if reason.key == key)


@pytest.mark.parametrize(
    ("kinds", "method"),
    [
        (Kinds(pairs=50, liked=900, disliked=900, answers=10), "dpo"),
        (Kinds(pairs=49, liked=20, disliked=20, answers=10), "kto"),
        (Kinds(pairs=49, liked=900, disliked=19, answers=10), "sft"),
        (Kinds(texts=3), "pretrain"),
    ],
)
def test_the_method_follows_from_the_kinds_of_feedback(kinds: Kinds, method: str) -> None:
    assert method_for(kinds).value == method


def test_prompts_need_rewards_and_nothing_is_refused_with_counts() -> None:
    assert method_for(Kinds(prompts=9), rewards=True).value == "grpo"
    with pytest.raises(BadRecipe, match=r"need rl\.rewards"):
        method_for(Kinds(prompts=9))
    with pytest.raises(BadRecipe, match="19 liked and 500 disliked"):
        method_for(Kinds(liked=19, disliked=500))


def test_every_open_value_is_chosen_with_a_reason() -> None:
    chosen = choose(recipe(), SMALL)
    assert {reason.key for reason in chosen.reasons} == {
        "data.tokens_max", "adapter.rank", "adapter.alpha", "optim.precision", "optim.batch", "optim.steps",
        "optim.warmup_steps", "optim.learning_rate",
    }  # fmt: skip
    assert (chosen.rank, chosen.alpha, chosen.tokens_max, chosen.steps) == (8, 16.0, 64, 75)
    assert all(reason.why for reason in chosen.reasons)


def test_what_the_recipe_says_is_not_chosen() -> None:
    optim = {"learning_rate": 0.5, "steps": 7, "batch": 3, "accumulate": 2, "warmup_steps": 0, "precision": "float32"}
    chosen = choose(
        recipe(optim=optim, adapter={"rank": 4, "alpha": 3.0}, data={"train": "x", "tokens_max": 99}), SMALL
    )
    assert not chosen.reasons
    assert (chosen.learning_rate, chosen.steps, chosen.batch, chosen.accumulate, chosen.rank) == (0.5, 7, 3, 2, 4)


def test_smaller_models_learn_at_larger_rates_and_whole_weights_at_smaller_ones() -> None:
    at = [choose(recipe(), replace(SMALL, parameters=n)).learning_rate for n in (2_000_000, 100_000_000, 10**10)]
    assert at[0] > at[1] > at[2] == 2e-4
    assert choose(recipe(tuning="full"), SMALL).learning_rate == pytest.approx(at[0] / 10, rel=0.1)


def test_a_batch_that_does_not_fit_becomes_several() -> None:
    large = replace(SMALL, parameters=10**9, layers=16, hidden=2048, vocabulary=128_000, tokens_most=2048)
    roomy = choose(recipe(), replace(large, memory_bytes=200 << 30))
    tight = choose(recipe(), replace(large, memory_bytes=24 << 30))
    assert (roomy.batch, roomy.accumulate) == (16, 1)
    assert tight.batch < 16
    assert tight.batch * tight.accumulate == 16
    assert "would not fit" in why(tight, "optim.batch")
    assert sum(tight.memory.values()) < sum(roomy.memory.values())


def test_four_bits_and_checkpointing_take_less() -> None:
    large = replace(SMALL, parameters=10**9, layers=16, hidden=2048, memory_bytes=1 << 40, accelerator=True)
    plain = sum(choose(recipe(), large).memory.values())
    packed = sum(choose(recipe(quantization="nf4"), large).memory.values())
    again = sum(choose(recipe(optim={"checkpointing": True}), large).memory.values())
    whole = sum(choose(recipe(tuning="full"), large).memory.values())
    assert max(packed, again) < plain < whole


@pytest.mark.parametrize(("liked", "disliked"), [(300, 100), (100, 300), (200, 200)])
def test_kto_weighs_both_classes_alike(liked: int, disliked: int) -> None:
    chosen = choose(recipe("kto"), replace(SMALL, kinds=Kinds(liked=liked, disliked=disliked)))
    assert chosen.liked_weight * liked == pytest.approx(chosen.disliked_weight * disliked, rel=0.01)
    assert min(chosen.liked_weight, chosen.disliked_weight) == 1.0


def test_a_packed_step_sees_as_many_rows_as_another() -> None:
    chosen = choose(recipe(sft={"packing": True}), replace(SMALL, rows=4000))
    plain = choose(recipe(), replace(SMALL, rows=4000))
    assert chosen.tokens_max == 8 * 40
    assert chosen.batch * chosen.accumulate * 8 == plain.batch * plain.accumulate
    assert chosen.steps == plain.steps


def test_pissa_leaves_room_for_its_doubled_rank() -> None:
    assert choose(recipe(adapter={"kind": "pissa"}), replace(SMALL, rows=5000)).rank == 8


def test_online_methods_take_whole_groups_of_answers() -> None:
    for method in ("grpo", "rloo"):
        chosen = choose(recipe(method, rl={"rewards": ["matches:a"], "generations": 6}), SMALL)
        assert chosen.batch * chosen.accumulate % 6 == 0
