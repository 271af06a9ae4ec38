"""One adapter made of several that were trained on one base: their sum in five kinds. Calculated from files. Heavy.

linear   A and B are averaged apart: cheap, and only near the sum where the adapters are alike; needs equal ranks
cat      exactly the weighted sum; ranks add up
svd      the nearest to the weighted sum of a chosen rank; says what was lost
ties     small changes are cut, signs are voted on, and who disagrees is left out; then as svd
dare     changes are dropped by chance and the others scaled up for them; then as svd
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from training.errors import OutputExists
from training.recipes.errors import CannotMerge

How = Literal["linear", "cat", "svd", "ties", "dare"]
HOW: Final[tuple[How, ...]] = get_args(How)
_HALVES: Final = ("lora_A.weight", "lora_B.weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What came out. `loss` is ‖wanted − got‖ / ‖wanted‖ over all modules: 0 where the sum is exact."""

    how: How
    rank: int
    loss: float
    modules: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Update:
    """B·A of one module, with its scaling in B."""

    a: Any
    b: Any

    @property
    def rank(self) -> int:
        """Its rank as written."""
        return int(self.a.shape[0])


def merge(
    folders: Sequence[Path],
    out: Path,
    *,
    how: How = "svd",
    weights: Sequence[float] | None = None,
    rank_max: int = 16,
    density: float = 0.5,
    seed: int = 0,
) -> Merged:
    """Write the sum of plain LoRA adapters to the new folder `out`; no rank above the server's `rank_max`.

    `density` is the share of changes that ties and dare keep. Raises CannotMerge, OutputExists.
    """
    if out.exists():
        raise OutputExists(f"{out} is already there. Artefacts are never overwritten: choose another folder.")
    shares = list(weights) if weights is not None else [1.0] * len(folders)
    if how not in HOW:
        raise CannotMerge(f"{how!r} is no kind of merge; allowed: {', '.join(HOW)}")
    if len(folders) < 2 or len(shares) != len(folders):
        raise CannotMerge(f"{len(folders)} adapters and {len(shares)} weights: give two or more, and a weight for each")
    if not all(map(math.isfinite, shares)) or not 0 < density <= 1:
        raise CannotMerge(
            f"weights {shares}, density {density}: weights are finite, a density is above 0 and at most 1"
        )
    read = [_read(folder) for folder in folders]
    _same_base([fields for fields, _ in read], folders)
    names = sorted({name for _, updates in read for name in updates})
    # What one of them does not change, it leaves as it is.
    parts = {
        name: [(share, updates[name]) for share, (_, updates) in zip(shares, read, strict=True) if name in updates]
        for name in names
    }
    rank = _rank(how, parts, rank_max)
    made: dict[str, tuple[Any, Any]] = {}
    lost = whole = 0.0
    for at, name in enumerate(names):
        made[name], off, size = _sum(how, parts[name], rank, density=density, seed=seed + at)
        lost, whole = lost + off, whole + size
    _write(out, made, rank, read[0][0])
    return Merged(how=how, rank=rank, loss=math.sqrt(max(0.0, lost) / whole) if whole else 0.0, modules=len(names))


def _rank(how: How, parts: Mapping[str, Sequence[tuple[float, _Update]]], rank_max: int) -> int:
    """The rank that comes out, held against the server's before anything is calculated."""
    ranks = {update.rank for found in parts.values() for _, update in found}
    if how == "linear" and len(ranks) > 1:
        raise CannotMerge(f"linear needs one rank, and these have {sorted(ranks)}; use cat, svd, ties or dare")
    together = max(sum(update.rank for _, update in found) for found in parts.values())
    if how == "cat" and together > rank_max:
        raise CannotMerge(f"cat adds ranks up to {together}, and the server takes {rank_max}; use svd, or raise it")
    if how == "linear" and max(ranks) > rank_max:
        raise CannotMerge(f"these have rank {max(ranks)}, and the server takes {rank_max}; use svd")
    if how == "linear":
        return max(ranks)
    # A sum has no higher rank than its parts together; what ties and dare leave out makes it of any.
    return together if how == "cat" else min(rank_max, together) if how == "svd" else rank_max


def _sum(
    how: How, parts: Sequence[tuple[float, _Update]], rank: int, *, density: float, seed: int
) -> tuple[tuple[Any, Any], float, float]:
    """((A, B) of that rank, squared loss, squared size) of one module."""
    import torch

    wanted = sum(share * (update.b @ update.a) for share, update in parts)
    size = float(torch.as_tensor(wanted).square().sum())
    if how == "cat":
        a = torch.cat([update.a for _, update in parts])
        b = torch.cat([share * update.b for share, update in parts], 1)
        return _filled(a, b, rank), 0.0, size
    if how == "linear":
        # The square root on both halves, so that an adapter merged with itself stays what it was; signs go to B.
        a = sum(math.sqrt(abs(share)) * update.a for share, update in parts)
        b = sum(math.copysign(math.sqrt(abs(share)), share) * update.b for share, update in parts)
        # Averaged halves shrink what they do not share: their product is held to the length that was wanted.
        got = b @ a
        length = float(got.norm())
        b = b * (math.sqrt(size) / length if length else 1.0)
        return _filled(a, b, rank), float((b @ a - wanted).square().sum()), size
    changes = [share * (update.b @ update.a) for share, update in parts]
    if how == "ties":
        wanted = _ties(changes, density)
    elif how == "dare":
        wanted = _dare(changes, density, seed)
    size = float(wanted.square().sum())
    u, values, v = torch.linalg.svd(wanted, full_matrices=False)
    root = values[:rank].sqrt()
    a, b = root[:, None] * v[:rank], u[:, :rank] * root
    return _filled(a, b, rank), float(values[rank:].square().sum()), size


def _ties(changes: Sequence[Any], density: float) -> Any:
    """Trim, elect each sign, and add up those that agree with it."""
    import torch

    trimmed = []
    for change in changes:
        kept = max(1, round(density * change.numel()))
        least = change.abs().flatten().kthvalue(change.numel() - kept + 1).values
        trimmed.append(change.where(change.abs() >= least, torch.zeros_like(change)))
    stacked = torch.stack(trimmed)
    sign = stacked.sum(0).sign()
    agreeing = (stacked.sign() == sign) & (sign != 0)
    return (stacked * agreeing).sum(0)


def _dare(changes: Sequence[Any], density: float, seed: int) -> Any:
    """Drop by chance, and scale up what stays: the expected sum is the sum."""
    import torch

    chance = torch.Generator().manual_seed(seed)
    total = torch.zeros_like(changes[0])
    for change in changes:
        kept = torch.rand(change.shape, generator=chance, dtype=change.dtype) < density
        total += change * kept / density
    return total


def _filled(a: Any, b: Any, rank: int) -> tuple[Any, Any]:
    """All of one rank, so that the config says it in one number."""
    from torch.nn.functional import pad

    missing = rank - a.shape[0]
    return pad(a, (0, 0, 0, missing)), pad(b, (0, missing))


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, _Update]]:
    """An adapter's config, and its updates by module. Raises CannotMerge."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from adapters.errors import Findings
    from adapters.manifest import read_config

    findings = Findings()
    try:
        config = read_config(folder / "adapter_config.json", findings, rank_max=1 << 20)
        fields = json.loads((folder / "adapter_config.json").read_bytes())
        tensors = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise CannotMerge(f"{folder} is no adapter that can be read: {error}") from error
    if config is None or findings.reasons():
        why = "; ".join(map(str, findings.reasons()[:3]))
        raise CannotMerge(f"{folder} is no plain LoRA: {why}. Make one of it with `graftline convert`.")
    updates: dict[str, _Update] = {}
    for key in tensors:
        module, dot, half = key.removeprefix("base_model.model.").partition(".lora_")
        if not dot or f"lora_{half}" not in _HALVES:
            raise CannotMerge(f"{folder}: the tensor {key!r} is neither A nor B of a LoRA on a matrix")
        pair = [key.removesuffix(half) + end.removeprefix("lora_") for end in _HALVES]
        if not all(name in tensors for name in pair):
            raise CannotMerge(f"{folder}: {module} has only one half")
        _, scaling = config.rank_and_scaling(module)
        updates[module] = _Update(a=tensors[pair[0]].double(), b=tensors[pair[1]].double() * scaling)
    if not updates:
        raise CannotMerge(f"{folder} has no tensors")
    return fields, updates


def _same_base(configs: Sequence[Mapping[str, Any]], folders: Sequence[Path]) -> None:
    named = [str(fields.get("base_model_name_or_path") or "").rstrip("/").rpartition("/")[2] for fields in configs]
    for name, folder in zip(named[1:], folders[1:], strict=True):
        if name and named[0] and name != named[0]:
            raise CannotMerge(f"{folder} was trained on {name}, {folders[0]} on {named[0]}: their sum means nothing")


def _write(out: Path, made: Mapping[str, tuple[Any, Any]], rank: int, fields: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    tensors = {}
    for name, halves in made.items():
        for end, tensor in zip(_HALVES, halves, strict=True):
            tensors[f"base_model.model.{name}.{end}"] = tensor.float().contiguous()
    config = {
        "peft_type": "LORA", "task_type": fields.get("task_type") or "CAUSAL_LM", "r": rank, "lora_alpha": rank,
        "base_model_name_or_path": fields.get("base_model_name_or_path"), "lora_dropout": 0.0, "bias": "none",
        "target_modules": sorted(made), "inference_mode": True, "init_lora_weights": True,
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        building.chmod(0o755)
        save_file(tensors, building / "adapter_model.safetensors", metadata={"format": "pt"})
        (building / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
        building.rename(out)
    except OSError as error:
        raise OutputExists(f"{out} could not be put in place: {error}") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
