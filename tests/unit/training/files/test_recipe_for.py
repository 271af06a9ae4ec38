"""From a request for a job to a recipe: what each word decides, and that all problems are told together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from training.data.values import Kind
from training.files.errors import BadJobRequest
from training.files.graders import reward
from training.files.recipes import SETTINGS, TYPES, Asked, Rows, Server, recipe_for
from training.files.sources import Found
from training.files.values import File
from training.launchers.section import Wandb
from training.recipes.auto import rate_for
from training.recipes.recipe import METHODS, build

KIND: dict[str, Kind] = {
    "supervised": "sft", "dpo": "dpo", "orpo": "dpo", "kto": "kto", "reward": "reward", "reinforcement": "rl",
    "grpo": "rl", "rloo": "rl", "ppo": "rl", "pretrain": "text", "auto": "sft",
}  # fmt: skip
GRADER = {
    "type": "string_check", "name": "right", "operation": "eq",
    "input": "{{sample.output_text}}", "reference": "{{item.reference_answer}}",
}  # fmt: skip
SERVER = Server(rank_max=16, parameters=1_900_000)


def source(kind: Kind, name: str = "file-1", *, dataset: bool = False, held: int = 0) -> Found:
    file = File(
        id=name, tenant="acme", created_at=0.0, filename="r.jsonl", purpose="fine-tune", bytes=1, digest="", kind=kind
    )
    return Found(name=name, kind=kind, rows=100, held=held, path=Path(name), file=None if dataset else file)


def made(type_: str = "supervised", *, rows: Rows | None = None, **method: Any) -> dict[str, Any]:
    if type_ in ("reinforcement", "grpo", "rloo", "ppo"):
        method.setdefault("grader", GRADER)
    asked = Asked(name="polite", seed=7, type=type_, method=method, hyperparameters={})
    return recipe_for(asked, rows or Rows(train=source(KIND[type_])), SERVER)


def settings(type_: str = "supervised", **said: Any) -> dict[str, Any]:
    return made(type_, hyperparameters=said)


def reasons(type_: str, **said: Any) -> tuple[str, ...]:
    try:
        settings(type_, **said)
    except BadJobRequest as error:
        return error.reasons
    return ()


def refused(type_: str = "supervised", *, rows: Rows | None = None, **method: Any) -> tuple[str, ...]:
    with pytest.raises(BadJobRequest) as caught:
        made(type_, rows=rows, **method)
    return caught.value.reasons


@pytest.mark.parametrize("type_", sorted(TYPES.keys() - {"reward"}))
def test_every_type_makes_a_recipe_that_can_be_run(type_: str) -> None:
    recipe = build(made(type_))
    assert recipe.name == "polite"
    assert recipe.seed == 7
    assert recipe.start_from == "base"
    assert recipe.data.train == "file-1"
    assert recipe.method == {"supervised": "sft", "reinforcement": "grpo"}.get(type_, type_)


def test_every_method_of_recipes_can_be_asked_for() -> None:
    assert set(TYPES.values()) == {*METHODS, "auto"}


def test_a_reward_model_serves_nobody() -> None:
    (reason,) = refused("reward")
    assert reason.startswith("method.type: a reward model gives scores and no words")


def test_an_unknown_type_names_those_there_are() -> None:
    with pytest.raises(BadJobRequest, match=r"method.type: found 'magic'.*supervised.*kto") as caught:
        recipe_for(
            Asked(name="a", seed=0, type="magic", method={}, hyperparameters={}), Rows(train=source("sft")), SERVER
        )
    assert caught.value.param == "method.type"


def test_auto_leaves_the_choice_to_the_recipe() -> None:
    assert settings(n_epochs="auto", batch_size="auto", learning_rate_multiplier="auto", rank="auto") == made()
    assert "epochs" not in made()["optim"]


def test_openai_s_hyperparameters_decide_what_they_say() -> None:
    optim = build(settings(n_epochs=4, batch_size=6, learning_rate=0.001)).optim
    assert (optim.epochs, optim.batch, optim.accumulate, optim.learning_rate) == (4, 6, 1, 0.001)
    assert build(settings("dpo", beta=0.3)).dpo.beta == 0.3
    assert build(settings("kto", beta=0.3)).kto.beta == 0.3
    assert build(settings("orpo", beta=0.3)).orpo.beta == 0.3
    assert build(settings("ppo", beta=0.3)).rl.beta == 0.3
    assert build(settings("reinforcement", eval_interval=5, eval_samples="auto", compute_multiplier=1)).optim


def test_a_multiplier_multiplies_the_rate_that_would_be_chosen() -> None:
    usual = rate_for("dpo", SERVER.parameters)
    assert build(settings("dpo", learning_rate_multiplier=2)).optim.learning_rate == pytest.approx(2 * usual, rel=0.01)
    whole = build(settings(learning_rate_multiplier=0.5, tuning="full")).optim.learning_rate
    assert whole == pytest.approx(0.5 * rate_for("sft", SERVER.parameters, whole=True), rel=0.01)
    assert build(settings(learning_rate_multiplier=1)).optim.learning_rate == "auto"
    assert refused("auto", hyperparameters={"learning_rate_multiplier": 2}) == (
        "learning_rate_multiplier: needs a method that is named; found auto",
    )


def test_a_batch_of_a_sampling_method_holds_all_answers_to_its_rows() -> None:
    assert build(settings("grpo", batch_size=4)).optim.batch == 32
    assert build(settings("rloo", batch_size=4, generations=2)).optim.batch == 8


def test_our_own_settings_ride_along() -> None:
    recipe = build(
        settings(
            rank=4, alpha=8, kind="rslora", targets=["q_proj", "v_proj"], dropout=0.1, quantization="nf4",
            steps=20, packing=True, gate={"targets": {"held.exact": {"at_least": 0.9}}},
        )
    )  # fmt: skip
    assert (recipe.adapter.rank, recipe.adapter.alpha, recipe.adapter.kind) == (4, 8, "rslora")
    assert recipe.adapter.targets == ("q_proj", "v_proj")
    assert recipe.quantization == "nf4"
    assert recipe.sft.packing
    assert "held.exact" in recipe.gate.targets
    assert build(settings("dpo", loss="ipo")).dpo.loss == ("ipo",)


def test_every_setting_leads_to_a_place_in_the_recipe() -> None:
    """A place that is not there would be told as an unknown key, of whatever value."""
    for name, place in SETTINGS.items():
        for type_ in TYPES:
            told = reasons(type_, **{name: 1})
            assert not any("unknown key" in reason for reason in told), (name, place)


def test_old_clients_hyperparameters_are_taken_and_the_method_s_own_win() -> None:
    asked = Asked(
        name="a", seed=0, type="supervised", hyperparameters={"n_epochs": 3, "batch_size": 2},
        method={"hyperparameters": {"n_epochs": 5}},
    )  # fmt: skip
    optim = build(recipe_for(asked, Rows(train=source("sft")), SERVER)).optim
    assert (optim.epochs, optim.batch) == (5, 2)


def test_what_is_evaluated_is_what_was_brought_or_what_the_rows_give_up() -> None:
    data = [
        made(rows=rows)["data"]
        for rows in (
            Rows(train=source("sft")),
            Rows(train=source("sft"), held=source("sft", "file-2")),
            Rows(train=source("sft", "sha256:ab", dataset=True, held=9)),
            Rows(train=source("sft", "sha256:ab", dataset=True)),
        )
    ]
    assert [each.get("held") for each in data] == ["file-1", "file-2", "sha256:ab", None]
    assert "held" not in made("ppo")["data"]


def test_rows_of_another_kind_are_refused_under_the_name_they_came_by() -> None:
    rows = Rows(train=source("kto"), held=source("sft", "file-2"), replay=source("dpo", "file-3"))
    assert refused("dpo", rows=rows) == (
        "training_file: file-1 holds rows for kto; the method dpo learns from rows for dpo",
        "validation_file: file-2 holds rows for sft; the method dpo learns from rows for dpo",
    )
    assert made("grpo", rows=Rows(train=source("sft")))["method"] == "grpo"
    assert made("orpo", rows=Rows(train=source("reward", "sha256:ab", dataset=True)))["method"] == "orpo"


def test_rows_against_forgetting_are_a_file_a_dataset_or_the_shop_s_own() -> None:
    rows = Rows(train=source("sft"), replay=source("sft", "file-3"))
    recipe = made(rows=rows, hyperparameters={"replay": "file-3", "replay_share": 0.2})
    assert recipe["data"]["replay"] == {"source": "file-3", "share": 0.2}
    assert settings(replay="tidewell:usual_answers")["data"]["replay"] == {"source": "tidewell:usual_answers"}
    assert "must be file-…" in refused(hyperparameters={"replay": "/etc/passwd"})[0]
    assert refused(hyperparameters={"replay_share": 0.2}) == ("replay_share: goes with replay only",)


def test_all_problems_are_told_together_in_the_request_s_own_words() -> None:
    said = {
        "n_epochs": "many", "batch_size": 0, "learning_rate_multiplier": -1, "rank": 99, "colour": 1,
        "compute_multiplier": 3, "reasoning_effort": ["high"],
    }  # fmt: skip
    told = "\n".join(refused(hyperparameters=said, window=3))
    place = "method.supervised.hyperparameters"
    for words in (
        "method.supervised.window: unknown key",
        f"{place}.n_epochs: found",
        "batch_size: found 0",
        "learning_rate_multiplier: found -1",
        f"{place}.colour: unknown; allowed: ",
        f"{place}.compute_multiplier: found 3",
        f"{place}.reasoning_effort: found ['high']",
    ):
        assert words in told
    assert refused(hyperparameters={"rank": 99}) == (
        f"{place}.rank: 99 is above adapter.rank_max, 16: nobody could serve it",
    )


def test_a_setting_of_another_method_is_refused() -> None:
    assert refused(hyperparameters={"beta": 0.1}) == ("beta: goes with kto, dpo, orpo, grpo, rloo, ppo; found sft",)
    assert refused("dpo", grader=GRADER) == ("method.dpo.grader: goes with grpo, ppo, rloo; found dpo",)


def test_a_path_of_the_server_cannot_be_named_from_outside() -> None:
    told = refused("grpo", hyperparameters={"rewards": ["model:/srv/secret"]})
    assert any("rewards[0]" in reason and "use a recipe file" in reason for reason in told)
    for name in ("trainer", "base", "start_from", "launch"):
        assert any(f"{name}: unknown" in reason for reason in refused(hyperparameters={name: "x"}))


def test_integrations_are_told_to_the_run() -> None:
    place = {"project": "shop", "name": "ftjob-1", "tags": ["kind"]}
    asked = Asked(name="a", seed=0, method={}, hyperparameters={}, reports=("wandb",), wandb=place)
    recipe = build(recipe_for(asked, Rows(train=source("sft")), SERVER))
    assert recipe.report == ("wandb",)
    assert recipe.wandb == Wandb(project="shop", name="ftjob-1", tags=("kind",))


def test_what_is_learnt_can_be_served() -> None:
    asked = Asked(name="a", seed=0, method={}, hyperparameters={})
    recipe = recipe_for(asked, Rows(train=source("sft")), Server(rank_max=20))
    assert recipe["adapter"]["rank_max"] == 16
    assert build(made("ppo")).optim.save_every is None
    assert build(made()).optim.save_every is not None
    assert build(settings(save_every=3)).optim.save_every == 3


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({}, "exact:reference"),
        ({"operation": "like"}, "contains:reference"),
        ({"reference": "{{ item.answer }}"}, "exact:reference"),
        ({"reference": "a.b"}, r"matches:^a\.b$"),
        ({"reference": "a.b", "operation": "like"}, r"matches:a\.b"),
        ({"reference": "yes", "operation": "ilike"}, "matches:(?i)yes"),
    ],
)
def test_a_string_check_is_a_reward(change: dict[str, str], name: str) -> None:
    assert reward({**GRADER, **change}).name == name
    assert made("reinforcement", grader={**GRADER, **change})["rl"]["rewards"] == [name]


@pytest.mark.parametrize(
    ("grader", "words"),
    [
        ("right", "must be an object"),
        ({"type": "python", "source": "import os"}, "Code is not run here"),
        ({**GRADER, "operation": "ne"}, "eq, like, ilike"),
        ({**GRADER, "operation": "ilike"}, "fixed words"),
        ({**GRADER, "input": "{{item.question}}"}, "what the model said"),
        ({**GRADER, "reference": " "}, "must be text"),
        ({**GRADER, "reference": "{{item.price}}"}, "only {{item.reference_answer}}"),
    ],
)
def test_other_graders_are_refused_in_words(grader: Any, words: str) -> None:
    assert words in reward(grader).problem
    assert any(words in reason for reason in refused("reinforcement", grader=grader))


def test_rewards_and_a_grader_add_up() -> None:
    rl = made("grpo", hyperparameters={"rewards": ["words_max:9"]}, grader=GRADER)["rl"]
    assert rl["rewards"] == ["words_max:9", "exact:reference"]
    assert any("needs at least one reward" in reason for reason in refused("grpo", grader=None))


def test_hyperparameters_must_be_an_object() -> None:
    assert refused(hyperparameters=[1]) == ("method.supervised.hyperparameters: must be an object",)
