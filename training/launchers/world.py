"""The processes of one run: who is first, what each holds, and the whole at the end. Heavy inside its functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.launchers.section import Launch
from training.recipes.progress import Event, Noted, Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """This process among those of its run."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether it is the one that writes files and says what happens."""
        return self.rank == 0

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.size > 1:
            import torch.distributed

            torch.distributed.barrier()

    def part(self) -> None:
        """All go their own ways: what the first loads from now on, it loads alone."""
        if self.size > 1:
            import torch.distributed
            from accelerate.state import AcceleratorState

            self.wait()
            torch.distributed.destroy_process_group()
            AcceleratorState._reset_state(reset_partial_state=True)


@dataclass(frozen=True, slots=True)
class Unheard:
    """Progress of a process that is not the first."""

    def said(self, event: Event) -> None:
        """The first says it."""


def join(launch: Launch) -> World:
    """Meet the other processes that `accelerate launch` started. Alone, where nobody else was: the same rows make a
    step then, so the same comes out."""
    if launch.processes > 1:
        import torch
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available())
    return world()


def world() -> World:
    """This process among those it has met."""
    import torch.distributed

    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return World()
    return World(rank=torch.distributed.get_rank(), size=torch.distributed.get_world_size())


def shard(launch: Launch, *, precision: str) -> None:
    """Where there is no accelerator: have weights sharded all the same, over gloo.

    accelerate shards on accelerators only and trains whole copies on a CPU. What is set here is what it sets there, so
    that the same path is walked. To be called between the trainer's arguments and the trainer.
    """
    import torch

    if launch.sharding != "fsdp" or world().size == 1 or torch.cuda.is_available():
        return
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, TorchDynamoPlugin

    mixed = {"bfloat16": "bf16", "float16": "fp16"}.get(precision, "no")
    state = AcceleratorState(mixed_precision=mixed, cpu=True, dynamo_plugin=TorchDynamoPlugin(), _from_accelerator=True)
    plugin = FullyShardedDataParallelPlugin()
    if mixed != "no":
        plugin.set_mixed_precision(mixed)
    state.fsdp_plugin = plugin
    state.distributed_type = DistributedType.FSDP
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP


def shares(progress: Progress) -> Any:
    """A callback for transformers' Trainer that tells how much of the weights this process holds."""
    from transformers import TrainerCallback

    class Shares(TrainerCallback):  # type: ignore[misc]
        """Says it once, when the weights were shared out."""

        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            """All weights are where they will stay."""
            here, whole = held(model)
            text = f"this process holds {here / 1e6:.2f} of {whole / 1e6:.2f} MB of weights, one of {world().size}"
            progress.said(Noted(what="sharded", text=text))

    return Shares()


def held(model: Any) -> tuple[int, int]:
    """Bytes of weights that this process holds, and of all of them."""
    here = whole = 0
    for part in model.parameters():
        whole += part.numel() * part.element_size()
        mine = part.to_local() if hasattr(part, "to_local") else part
        here += mine.numel() * mine.element_size()
    return here, whole


def trained_weights(model: Any) -> Mapping[str, Any]:
    """What was trained, put together from all processes; every one must call it."""
    found = {}
    for name, part in model.named_parameters():
        if part.requires_grad:
            full = part.full_tensor() if hasattr(part, "full_tensor") else part
            found[name] = full.detach().cpu()
    return found


def agreed(number: int) -> int:
    """The first process's number: what all choose must not follow from what each finds at its own moment."""
    if world().size == 1:
        return number
    import torch.distributed

    said = [number]
    torch.distributed.broadcast_object_list(said, src=0)
    return said[0]
