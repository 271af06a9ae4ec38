"""Adapters that an engine must refuse, or must not be asked to serve: each made from a good one by one change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"

Tensors = dict[str, Any]


def copy(good: Path, to: Path, *, config: Mapping[str, Any] | None = None) -> Path:
    """`good` under another path, with fields of its config replaced."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(good, to)
    if config:
        told = json.loads((to / CONFIG).read_text())
        (to / CONFIG).write_text(json.dumps(told | dict(config)))
    return to


def change(good: Path, to: Path, edit: Callable[[Tensors], Tensors], **config: Any) -> Path:
    """`good` with its tensors replaced."""
    copy(good, to, config=config)
    save_file(edit(load_file(good / WEIGHTS)), to / WEIGHTS, metadata={"format": "pt"})
    return to


def truncate(good: Path, to: Path) -> Path:
    copy(good, to)
    whole = (to / WEIGHTS).read_bytes()
    (to / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    return to


def of_rank(rank: int) -> Callable[[Tensors], Tensors]:
    """Both halves padded with zeros to `rank`."""

    def edit(tensors: Tensors) -> Tensors:
        return {name: _resized(name, tensor, rank) for name, tensor in tensors.items()}

    return edit


def filled(value: float) -> Callable[[Tensors], Tensors]:
    def edit(tensors: Tensors) -> Tensors:
        return {name: np.full_like(tensor, value) for name, tensor in tensors.items()}

    return edit


def without_b(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if "lora_B" not in name}


def wider(tensors: Tensors) -> Tensors:
    """Every A takes more inputs than the base's layers give. (Fewer are accepted without a word.)"""
    return {n: np.concatenate([t, t[:, :8]], axis=1) if "lora_A" in n else t for n, t in tensors.items()}


def elsewhere(tensors: Tensors) -> Tensors:
    """Half of the weights belong to a module that no model has."""
    return tensors | {n.replace("q_proj", "banana_proj"): t for n, t in tensors.items() if "q_proj" in n}


def _resized(name: str, tensor: Any, rank: int) -> Any:
    axis = 0 if "lora_A" in name else 1
    shape = list(tensor.shape)
    shape[axis] = rank - shape[axis]
    return np.concatenate([tensor, np.zeros(shape, dtype=tensor.dtype)], axis=axis)
