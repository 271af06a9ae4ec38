"""What is executed for a run."""

from __future__ import annotations

from pathlib import Path

from training.launchers.command import argv, told
from training.launchers.section import Launch
from training.launchers.values import LaunchSpec, training

RUN = Path("/runs/one")


def spec(launch: Launch) -> LaunchSpec:
    return training(name="ftjob-1", recipe=RUN / "recipe.yaml", folder=RUN, launch=launch, base=Path("/base"))


def test_one_process_is_started_without_accelerate() -> None:
    assert argv(spec(Launch()), python="py") == [
        *("py", "-m", "training.recipes", "/runs/one/recipe.yaml", "--out", "/runs/one", "--base", "/base")
    ]


def test_several_are_started_by_accelerate_with_nothing_left_to_a_configuration_of_the_machine() -> None:
    words = argv(
        spec(Launch(processes=2, flags={"machine_rank": 1, "same_network": True, "debug": False})), python="py"
    )
    text = " ".join(words)
    assert text.startswith("py -m accelerate.commands.launch --num_processes 2 --num_machines 1 --machine_rank 1")
    assert "--multi_gpu" in words
    assert "--same_network" in words
    assert "--debug" not in words
    assert "--use_fsdp" not in words
    assert text.endswith("--module training.recipes /runs/one/recipe.yaml --out /runs/one --base /base")


def test_sharding_is_fsdp2_with_the_recipes_settings() -> None:
    text = " ".join(
        argv(spec(Launch(processes=4, sharding="fsdp", offload=True, layers=("Block", "Head"))), python="py")
    )
    assert "--use_fsdp --fsdp_version 2" in text
    assert "--fsdp_offload_params true" in text
    assert "--fsdp_transformer_layer_cls_to_wrap Block,Head" in text
    assert "--multi_gpu" not in text


def test_a_command_can_stand_back_and_have_more_in_its_environment() -> None:
    assert told({"B": "2", "A": "1 x"}, 10) == ["env", "A=1 x", "B=2", "nice", "-n", "10"]
    assert told({}, 0) == []
