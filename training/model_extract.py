"""A whole or half fine-tuning leaves as LoRA: the change of each weight, cut by its singular values. Heavy.

No other matrices of that rank are nearer to the change. What was lost is said.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import CannotConvert, OutputExists


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """What came out. A loss is ‖change − kept‖ / ‖change‖, Frobenius."""

    rank: int
    loss: Mapping[str, float]
    loss_total: float


def weights_of(model: Any, names: Sequence[str]) -> dict[str, Any]:
    """Copies of the matrices that will be trained, as they are now."""
    wanted = set(names)
    return {name: part.weight.detach().clone() for name, part in model.named_modules() if name in wanted}


def extract(model: Any, before: Mapping[str, Any], out: Path, *, base_name: str, rank: int) -> Extracted:
    """Write what changed since `before` to the new folder `out`, as LoRA of one rank. OutputExists, CannotConvert."""
    import torch
    from safetensors.torch import save_file

    if out.exists():
        raise OutputExists(f"{out} is already there. Artefacts are never overwritten: choose another folder.")
    parts = {name: part for name, part in model.named_modules() if name in before}
    tensors: dict[str, Any] = {}
    loss: dict[str, float] = {}
    lost = whole = 0.0
    for name, old in before.items():
        change = (parts[name].weight.detach() - old).double()
        if not bool(torch.isfinite(change).all()):
            raise CannotConvert(f"{name} holds values that are not finite")
        u, values, v = torch.linalg.svd(change, full_matrices=False)
        squares = values.square()
        size, off = float(squares.sum()), float(squares[rank:].sum())
        lost, whole = lost + off, whole + size
        loss[name] = math.sqrt(off / size) if size else 0.0
        root = values[:rank].sqrt()
        key = f"base_model.model.{name}.lora_"
        tensors[f"{key}A.weight"] = (root[:, None] * v[:rank]).float().contiguous()
        tensors[f"{key}B.weight"] = (u[:, :rank] * root).float().contiguous()
    if not whole:
        raise CannotConvert("no weight changed: the learning rate may be too small, or there were no steps")
    kept = min(tensor.shape[0] for key, tensor in tensors.items() if key.endswith("A.weight"))
    if kept < rank:
        raise CannotConvert(f"a matrix has only {kept} singular values; choose a rank of at most {kept}, not {rank}")
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base_name, "r": rank,
        "lora_alpha": rank, "lora_dropout": 0.0, "target_modules": sorted(before), "bias": "none",
        "inference_mode": True, "init_lora_weights": True,
    }  # fmt: skip
    _write(
        out, lambda folder: save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"}), config
    )
    return Extracted(rank=rank, loss=loss, loss_total=math.sqrt(lost / whole))


def _write(out: Path, save: Any, config: Mapping[str, Any]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        building.chmod(0o755)
        save(building)
        (building / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
        building.rename(out)
    except OSError as error:
        raise OutputExists(f"{out} could not be put in place: {error}") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
