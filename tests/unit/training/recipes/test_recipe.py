"""A recipe is read strictly, and everything that is wrong with it is said at once."""

import re

import pytest

from training.recipes import strict_yaml
from training.recipes.errors import BadRecipe
from training.recipes.recipe import Recipe, build, read

LEAST = {"name": "desk", "method": "sft", "data": {"train": "tidewell:corrected_fact"}}


def problems(**fields: object) -> str:
    with pytest.raises(BadRecipe) as refused:
        build({**LEAST, **fields})
    return str(refused.value)


def test_the_shortest_recipe_leaves_the_rest_to_be_chosen() -> None:
    recipe = read("name: desk\nmethod: auto\ndata:\n  train: rows.jsonl\n")
    assert recipe.method == "auto"
    assert (recipe.optim.learning_rate, recipe.adapter.rank, recipe.tuning) == ("auto", "auto", "adapter")


def test_numbers_are_what_people_mean() -> None:
    recipe = read("name: a\nmethod: dpo\ndata: {train: x.jsonl}\noptim: {learning_rate: 5e-4, steps: 60}\n")
    assert recipe.optim.learning_rate == 5e-4
    assert strict_yaml.read("a: no\nb: 1e3\nc: '5'\nd: .5\ne: 007x\nf: ~") == {
        "a": "no", "b": 1000.0, "c": "5", "d": 0.5, "e": "007x", "f": None,
    }  # fmt: skip


def test_all_problems_are_reported_together() -> None:
    text = """
name: Bad Name
method: spo
data: {train: x.jsonl, tokens_max: 3, shuffle: true}
optim: {learning_rate: fast, step: 60, clip: -1}
adapter: {rank: "8", targets: [1]}
sft: 3
"""
    with pytest.raises(BadRecipe) as refused:
        read(text)
    said = str(refused.value)
    for expected in (
        r"name: found \"Bad Name\"",
        r"method: found \"spo\"",
        r"data\.tokens_max: found 3; it should be greater than or equal to 8",
        r"data\.shuffle: unknown key",
        r"optim\.learning_rate: found \"fast\"; it should be a valid number or should be 'auto'",
        r"optim\.step: unknown key; did you mean steps\?",
        r"optim\.clip: found -1; it should be greater than 0",
        r"adapter\.rank: found \"8\"",
        r"adapter\.targets",
        r"sft: found 3",
    ):
        assert re.search(expected, said), (expected, said)
    assert len(refused.value.problems) == len({problem.split(":")[0] for problem in refused.value.problems})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("- a\n- b", "must be a mapping"),
        ("", "must be a mapping"),
        ("a: 1\na: 2", "a (line 2): the key stands there twice"),
        ("a: {b: 1, b: 2}", "a.b (line 1): the key stands there twice"),
        ("a: &x [1]\nb: *x", "line 2 uses a YAML alias"),
        ("a: !!python/object/apply:os.system ['true']", "means nothing here"),
        ("a: !mine 3", "means nothing here"),
        ("a: [1, 2", "not YAML"),
        ("a: 1e9999", "too large a number"),
        ("? [1, 2]\n: 3", "a key must be a word"),
        ("[" * 3000, "nested deeper"),
        ("a: " + "x" * 300_000, "more than 262144 bytes"),
    ],
)
def test_yaml_with_surprises_is_refused(text: str, why: str) -> None:
    with pytest.raises(BadRecipe, match=re.escape(why)):
        strict_yaml.read(text)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"optim": {"steps": 5, "epochs": 1.0}}, "optim.steps and optim.epochs exclude each other"),
        ({"method": "dpo", "tuning": "full"}, "tuning: full goes with method sft or pretrain only"),
        ({"tuning": "half", "quantization": "nf4"}, "needs quantization: none"),
        ({"method": "reward", "quantization": "nf4"}, "its new head would be packed too"),
        ({"tuning": "full", "start_from": "live"}, "starts from base"),
        ({"method": "kto", "adapter": {"kind": "pissa"}}, "pissa changes the base's weights"),
        ({"adapter": {"kind": "pissa", "rank": 16}}, "twice its rank, 32"),
        ({"start_from": "desk:3", "adapter": {"rank": 8}}, "the adapter's own go on"),
        ({"start_from": "desk:3", "adapter": {"kind": "dora"}}, "the adapter's own shape goes on"),
        ({"adapter": {"rank_max": 12}}, "a server can be started for 1, 8, 16"),
        ({"adapter": {"rank": 32}}, "nobody could serve it"),
        ({"dpo": {"loss": ["sigmoid", "sft"], "weights": [1.0]}}, "1 weights for 2 losses"),
        ({"dpo": {"loss": ["exo_pair"]}}, "label_smoothing above 0"),
        ({"method": "grpo"}, "needs at least one reward"),
        ({"optim": {"patience": 2}}, "needs data.held"),
        ({"method": "dpo", "sft": {"packing": True}}, "packing goes with sft and pretrain"),
        ({"method": "ppo", "rl": {"rewards": ["matches:a"]}, "trainer": {"x": 1}}, "a loop of our own"),
        ({"trainer": {"learning_rate": 1e-3}}, "trainer.learning_rate: set optim.learning_rate instead"),
        ({"trainer": {"max_seq_length": 5}}, "is a former name; set data.tokens_max"),
        ({"trainer": {"push_to_hub": True}}, "nothing leaves this machine"),
    ],
)
def test_what_cannot_go_together_is_refused_with_its_reason(fields: dict[str, object], why: str) -> None:
    assert why in problems(**fields)


def test_conflicts_are_reported_together_too() -> None:
    said = problems(optim={"steps": 5, "epochs": 1.0, "patience": 1}, trainer={"seed": 1})
    assert "3 found" in said


def test_a_recipe_survives_being_written_down() -> None:
    recipe = build({**LEAST, "trainer": {"loss_type": "dft"}, "dpo": {"loss": ["sigmoid", "sft"], "weights": [1, 0.5]}})
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe
