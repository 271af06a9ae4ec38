"""Round to nearest, 4 bits, per group of input columns. The arithmetic and nothing else."""

from dataclasses import dataclass
from typing import Any

_BITS = 4
_LEVELS = 2**_BITS - 1
_MIDDLE = 2 ** (_BITS - 1)
_PER_WORD = 32 // _BITS


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerError:
    """How far a layer moved: `max` relative to its largest weight, `mean` relative to its norm."""

    name: str
    max: float
    mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounded:
    """Unsigned levels [out, in], scales [out, groups] in bf16, zero points [out, groups]."""

    levels: Any
    scales: Any
    zeros: Any
    error_max: float
    error_mean: float


def rtn(weight: Any, *, group: int, symmetric: bool) -> Rounded:
    """Levels and scales of a float matrix [out, in]. Scales are rounded to bf16 before they are used."""
    import torch

    rows, columns = weight.shape
    values = weight.float().view(rows, columns // group, group)
    if symmetric:
        scales = values.abs().amax(-1) / (_MIDDLE - 1)
        scales = scales.clamp(min=1e-8).to(torch.bfloat16)
        zeros = torch.full(scales.shape, _MIDDLE, dtype=torch.int32)
    else:
        low, high = values.amin(-1).clamp(max=0), values.amax(-1).clamp(min=0)
        scales = ((high - low) / _LEVELS).clamp(min=1e-8).to(torch.bfloat16)
        zeros = (-low / scales.float()).round().clamp(0, _LEVELS).to(torch.int32)
    step, zero = scales.float()[..., None], zeros[..., None]
    levels = (values / step + zero).round().clamp(0, _LEVELS)
    moved = (levels - zero) * step - values
    return Rounded(
        levels=levels.to(torch.int32).view(rows, columns),
        scales=scales,
        zeros=zeros,
        error_max=float(moved.abs().max() / values.abs().max().clamp(min=1e-12)),
        error_mean=float(moved.norm() / values.norm().clamp(min=1e-12)),
    )


def packed(levels: Any, dim: int) -> Any:
    """Eight levels per int32 along `dim`, the first in the lowest bits."""
    import torch

    last = levels.movedim(dim, -1)
    last = last.reshape(*last.shape[:-1], -1, _PER_WORD).to(torch.int64)
    words = torch.zeros(last.shape[:-1], dtype=torch.int64)
    for position in range(_PER_WORD):
        words |= last[..., position] << (_BITS * position)
    words = torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)
    return words.movedim(-1, dim).contiguous()
