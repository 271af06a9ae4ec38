"""What is executed for a run: one process, or several by `accelerate launch`. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from training.launchers.section import Flag, Launch
from training.launchers.values import LaunchSpec


def argv(spec: LaunchSpec, *, python: str) -> list[str]:
    """The command, with the interpreter of the place where it runs."""
    if spec.launch.processes == 1:
        return [python, "-m", spec.module, *spec.args]
    flags = [word for name, value in flags_of(spec.launch).items() for word in _words(name, value)]
    # Not the `accelerate` beside us: the interpreter may be another machine's.
    return [python, "-m", "accelerate.commands.launch", *flags, "--module", spec.module, *spec.args]


def flags_of(launch: Launch) -> dict[str, Flag]:
    """The flags of `accelerate launch`. What a machine's own configuration file would decide stands here too."""
    flags: dict[str, Flag] = {
        "num_processes": launch.processes,
        "num_machines": 1,
        "machine_rank": 0,
        "main_process_port": 0,  # a free one
        "mixed_precision": "no",  # the recipe's precision is the trainer's own setting
        "dynamo_backend": "no",
    }
    if launch.sharding == "none":
        # Also where there is no accelerator: what it does is to start the processes and to tell them their ranks.
        flags["multi_gpu"] = True
    else:
        flags |= {
            "use_fsdp": True,
            "fsdp_version": 2,
            "fsdp_reshard_after_forward": "true",
            "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "fsdp_offload_params": "true" if launch.offload else "false",
            "fsdp_state_dict_type": "SHARDED_STATE_DICT",
            "fsdp_cpu_ram_efficient_loading": "false",
        }
        if launch.layers:
            flags["fsdp_transformer_layer_cls_to_wrap"] = ",".join(launch.layers)
    return flags | dict(launch.flags)


def told(environment: Mapping[str, str], nice: int) -> list[str]:
    """Words before a command that add to its environment, and let it stand back for others."""
    words = ["env", *(f"{name}={value}" for name, value in sorted(environment.items()))] if environment else []
    return [*words, *(["nice", "-n", str(nice)] if nice else [])]


def _words(name: str, value: Flag) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}"] if value else []
    return [f"--{name}", str(value)]
