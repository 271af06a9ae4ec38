"""Turns an adapter that cannot be served, or is too large, into a plain LoRA: the nearest one of a given rank.

The change of each weight is written as B·A, exactly where it already has that form, and cut by its singular values: no
other matrices of that rank are nearer. Says what was lost.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from adapters.errors import Findings
from adapters.manifest import FILE as CONFIG
from adapters.manifest import LoraConfig, read_config
from training.errors import CannotConvert, OutputExists

WEIGHTS = "adapter_model.safetensors"
_KEY = re.compile(
    r"base_model\.model\.(?P<module>.+)\."
    r"(?:lora_(?P<half>[AB])\.weight|lora_embedding_(?P<embedding>[AB])|(?P<magnitude>lora_magnitude_vector)(?:\.weight)?)"
)
_RANK_MAX = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What came out. A loss is ‖wanted − got‖ / ‖wanted‖, Frobenius: of each module, and of all together."""

    rank: int
    loss: Mapping[str, float]
    loss_total: float
    #: Largest and mean difference of a token's logprob on the probe prompts, in nats, and the adapter's own effect.
    logprob_most: float
    logprob_mean: float
    effect: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """B·A of one module as the engine applies it; `magnitude` turns it into DoRA."""

    a: Any
    b: Any
    magnitude: Any | None
    embedding: bool


def convert(folder: Path, out: Path, *, base: Path, rank: int, to: Literal["lora"] = "lora") -> Converted:
    """Write the adapter in `folder`, a LoRA or DoRA of any ranks and scalings, as plain LoRA of at most `rank`.

    `base` is the folder of the base it was trained on. Raises CannotConvert, OutputExists, BadCheckpoint.
    """
    from training.probe import model as models

    if to != "lora":
        raise CannotConvert(f"{to!r} is no form to convert to; allowed: lora")
    if out.exists():
        raise OutputExists(f"{out} is already there. Artefacts are never overwritten: choose another folder.")
    fields, config = _read(folder)
    if not 0 < rank <= _RANK_MAX:
        raise CannotConvert(f"a rank of {rank} was asked for; allowed: whole numbers above 0")
    changes = _changes(folder, config, dora=bool(fields.get("use_dora")))
    warm = models.warm(base)
    weights = {name: part.weight.data for name, part in warm.model.named_modules() if name in changes}
    if missing := sorted(changes.keys() - weights.keys()):
        raise CannotConvert(f"the base has no {missing[0]}: was the adapter trained on another one?")
    parts, loss, lost, whole = {}, {}, 0.0, 0.0
    for name, change in changes.items():
        parts[name], off, size = _nearest(change, weights[name], rank)
        loss[name] = math.sqrt(off / size) if size else 0.0
        lost, whole = lost + off, whole + size
    kept = max(a.shape[0] for a, _ in parts.values())
    _write(out, _tensors(parts, changes, kept), _plain(fields, sorted(parts), kept))
    said = [_said(models, warm, path) for path in (folder, out)]
    off_by = [abs(x - y) for row, other in zip(*said, strict=True) for x, y in zip(row, other, strict=True)]
    moved = [abs(x - y) for row, other in zip(said[0], warm.base, strict=True) for x, y in zip(row, other, strict=True)]
    return Converted(
        rank=kept,
        loss=loss,
        loss_total=math.sqrt(lost / whole) if whole else 0.0,
        logprob_most=max(off_by),
        logprob_mean=math.fsum(off_by) / len(off_by),
        effect=max(moved),
    )


def _read(folder: Path) -> tuple[dict[str, Any], LoraConfig]:
    """The config, and its meaning as LoRA. What else is in it must be something that can be served."""
    try:
        fields = json.loads((folder / CONFIG).read_bytes())
        findings = Findings()
        with tempfile.TemporaryDirectory() as scratch:
            plain = Path(scratch) / CONFIG
            plain.write_text(json.dumps({**fields, "use_dora": False}))
            config = read_config(plain, findings, rank_max=_RANK_MAX)
    except (OSError, ValueError, TypeError) as error:
        raise CannotConvert(f"{folder / CONFIG} cannot be read: {error}") from error
    if config is None or findings.reasons():
        listed = "\n".join(f"- {reason}" for reason in findings.reasons())
        raise CannotConvert(f"Only LoRA and DoRA can become plain LoRA. This adapter has more to it:\n{listed}")
    return fields, config


def _changes(folder: Path, config: LoraConfig, *, dora: bool) -> dict[str, _Change]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise CannotConvert(f"{folder / WEIGHTS} cannot be read: {error}") from error
    halves: dict[str, dict[str, Any]] = {}
    embeddings = set()
    for key, tensor in tensors.items():
        if key.endswith(".base_layer.weight"):
            continue  # PEFT saves the base's own embedding beside an adapter on it
        if (found := _KEY.fullmatch(key)) is None:
            raise CannotConvert(f"the tensor {key!r} belongs to neither LoRA nor DoRA")
        what = found["half"] or found["embedding"] or "magnitude"
        halves.setdefault(found["module"], {})[what] = tensor.double()
        if found["embedding"]:
            embeddings.add(found["module"])
    changes = {}
    for name, half in halves.items():
        if not {"A", "B"} <= half.keys() or ("magnitude" in half) != dora:
            raise CannotConvert(f"the tensors of {name} are not complete: found {', '.join(sorted(half))}")
        _, scaling = config.rank_and_scaling(name)
        a, b = half["A"], half["B"] * scaling
        changes[name] = _Change(a=a, b=b, magnitude=half.get("magnitude"), embedding=name in embeddings)
    if not changes:
        raise CannotConvert("the adapter has no tensors")
    return changes


def _nearest(change: _Change, weight: Any, rank: int) -> tuple[tuple[Any, Any], float, float]:
    """((A, B), squared loss, squared size): the nearest change of at most `rank`."""
    import torch

    if change.magnitude is None:
        # B·A = Q_b (R_b R_aᵀ) Q_aᵀ, so the singular values are those of a matrix as small as the rank.
        left, small_left = torch.linalg.qr(change.b)
        right, small_right = torch.linalg.qr(change.a.T)
        u, values, v = torch.linalg.svd(small_left @ small_right.T, full_matrices=False)
        u, v = left @ u, v @ right.T
    else:
        # DoRA: the direction of each output's row is that of W + B·A, and its length is learnt apart.
        before = weight.T.double() if change.embedding else weight.double()
        moved = before + change.b @ change.a
        wanted = moved * (change.magnitude.reshape(-1, 1) / moved.norm(dim=1, keepdim=True)) - before
        u, values, v = torch.linalg.svd(wanted, full_matrices=False)
    kept = min(rank, len(values))
    root = values[:kept].sqrt()
    squares = values.square()
    return (root[:, None] * v[:kept], u[:, :kept] * root), float(squares[kept:].sum()), float(squares.sum())


def _tensors(parts: Mapping[str, tuple[Any, Any]], changes: Mapping[str, _Change], rank: int) -> dict[str, Any]:
    """All of one rank, so that the config says it in one number: smaller ones are filled with nothing."""
    import torch
    from torch.nn.functional import pad

    tensors = {}
    for name, (a, b) in parts.items():
        missing = rank - a.shape[0]
        key = f"base_model.model.{name}.lora_"
        ends = ("embedding_A", "embedding_B") if changes[name].embedding else ("A.weight", "B.weight")
        for end, tensor in zip(ends, (pad(a, (0, 0, 0, missing)), pad(b, (0, missing))), strict=True):
            tensors[key + end] = tensor.to(torch.float32).contiguous()
    return tensors


def _plain(fields: Mapping[str, Any], modules: list[str], rank: int) -> dict[str, Any]:
    """The scaling is in B already: alpha equals the rank."""
    kept = ("base_model_name_or_path", "revision", "task_type", "peft_version")
    return {
        **{name: fields[name] for name in kept if name in fields},
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "target_modules": modules,
        "bias": "none",
        "inference_mode": True,
        "init_lora_weights": True,
    }


def _write(out: Path, tensors: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    out.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        building.chmod(0o755)
        save_file(dict(tensors), building / WEIGHTS, metadata={"format": "pt"})
        (building / WEIGHTS).chmod(0o644)
        (building / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
        try:
            building.rename(out)
        except OSError as error:
            raise OutputExists(f"{out} appeared while it was being made.") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _said(models: Any, warm: Any, folder: Path) -> list[list[float]]:
    """The logprobs of the base with one adapter on it, which is taken off again."""
    adapted = models.adapted(warm.model, folder)
    try:
        rows: list[list[float]] = models.rows(adapted, warm.prompts)
        return rows
    finally:
        adapted.unload()
