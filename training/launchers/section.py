"""The parts of a recipe that say how its process runs and who is told: `launch:`, `report:` and `wandb:`. Light.

None of them decides what comes out: the same rows make a step whatever the number of processes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

from pydantic import Field

from training.recipes.sections import Strict

Report = Literal["tensorboard", "mlflow", "wandb"]
Flag = bool | int | str
#: As long as W&B takes them.
Tag = Annotated[str, Field(min_length=1, max_length=64)]
#: Who must be installed for a report, and how to get it.
REPORTS: Final[Mapping[Report, str]] = {
    "tensorboard": "pip install 'graftline[report]'",
    "mlflow": "pip install mlflow-skinny alembic",
    "wandb": "pip install wandb",
}
#: Methods whose answers are sampled by the model that is trained, or whose loop is our own.
_ALONE: Final = frozenset({"grpo", "rloo", "ppo"})
_FLAG = re.compile(r"[a-z][a-z0-9_]{0,60}")
#: Flags of `accelerate launch` that the recipe's other settings decide.
_DECIDED: Final[Mapping[str, str]] = {
    "num_processes": "set launch.processes instead",
    "use_fsdp": "set launch.sharding instead",
    "fsdp_offload_params": "set launch.offload instead",
    "fsdp_transformer_layer_cls_to_wrap": "set launch.layers instead",
    "fsdp_version": "cannot be set: weights are sharded as FSDP2 does it",
    "fsdp_cpu_ram_efficient_loading": "cannot be set: a packed base is unpacked by every process",
    "mixed_precision": "set optim.precision instead",
    "gradient_accumulation_steps": "set optim.accumulate instead",
    "use_deepspeed": "cannot be set: launch.sharding is none or fsdp",
    "config_file": "cannot be set: what it says would not stand in the recipe",
    "module": "cannot be set: the launcher decides what runs",
    "no_python": "cannot be set: the launcher decides what runs",
}


class Wandb(Strict):
    """Where a run stands on W&B. What is left out is taken from the environment of the process that trains."""

    project: str = Field("", description="The project; else WANDB_PROJECT.")
    entity: str = Field("", description="The user or team; else WANDB_ENTITY, or the default of the account.")
    name: str = Field("", description="The run's display name; else the recipe's name.")
    tags: tuple[Tag, ...] = Field((), description="Labels of the run.")


class Launch(Strict):
    """How many processes share the work, by `accelerate launch`."""

    processes: Annotated[int, Field(ge=1, le=4096)] = Field(1, description="Processes that share each step's rows.")
    sharding: Literal["none", "fsdp"] = Field("none", description="fsdp: each process holds a part of every weight.")
    offload: bool = Field(False, description="fsdp: what is not computed with now lies in the machine's memory.")
    layers: tuple[str, ...] = Field((), description="fsdp: classes that are sharded as one; else the model's own.")
    flags: dict[str, Flag] = Field(
        default_factory=dict, description="Other flags of `accelerate launch`, such as num_machines, machine_rank."
    )


def problems(
    launch: Launch,
    report: Sequence[Report],
    wandb: Wandb,
    *,
    method: str,
    tuning: str,
    quantization: str,
    kind: str,
) -> list[str]:
    """What cannot go together with the rest of a recipe."""
    found = []
    several = launch.processes > 1
    if several and method in _ALONE:
        found.append(
            f"launch.processes: {launch.processes} goes with sft, pretrain, kto, dpo, orpo and reward only; found "
            f"{method}, which samples answers as it learns"
        )
    if several and quantization != "none":
        found.append(
            f"launch.processes: {launch.processes} needs quantization: none; packed weights are not shared out"
        )
    if launch.sharding == "fsdp":
        if not several:
            found.append("launch.sharding: fsdp needs launch.processes of 2 or more")
        if tuning != "adapter":
            found.append(f"launch.sharding: fsdp goes with tuning: adapter only; found {tuning}")
        if kind == "pissa":
            found.append("launch.sharding: fsdp goes without adapter.kind: pissa, which needs whole matrices to leave")
    elif launch.offload or launch.layers:
        found.append("launch.offload and launch.layers go with launch.sharding: fsdp only")
    if launch.flags and not several:
        found.append("launch.flags go with launch.processes of 2 or more: one process is started without accelerate")
    for name in launch.flags:
        if name in _DECIDED:
            found.append(f"launch.flags.{name}: {_DECIDED[name]}")
        elif not _FLAG.fullmatch(name):
            found.append(f"launch.flags.{name}: a flag is named by small letters, digits and _, without dashes before")
    if report and method == "ppo":
        found.append("report: ppo is a loop of our own and reports nowhere; its events have every number")
    if wandb != Wandb() and "wandb" not in report:
        found.append("wandb goes with wandb among report; without it nothing is sent there")
    return found


def shared(batch: int, accumulate: int, processes: int) -> tuple[int, int] | None:
    """(rows at once, batches a step) of each of so many processes, so that together they make the step that the recipe
    says; None where it cannot be shared out evenly. Batches are shared out first, since that changes no tensor's shape.
    """
    if accumulate % processes == 0:
        return batch, accumulate // processes
    if batch % processes == 0:
        return batch // processes, accumulate
    if (batch * accumulate) % processes == 0:
        return 1, batch * accumulate // processes
    return None
