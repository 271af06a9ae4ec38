"""What changed between two versions: their configs, what they carry, and how far each module's update moved.

The update of a module, ΔW = scaling·B·A, is never formed: norms and angles come from products of a rank by a rank, so
two versions of different ranks compare like any others.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from adapters.carried import FILE as CARRIED
from adapters.carried import read_carried
from adapters.checks.files import WEIGHTS
from adapters.errors import Findings, Rejected
from adapters.manifest import FILE as CONFIG
from adapters.manifest import LoraConfig, read_config
from adapters.weights import FLOATS, Floats, Tensor, read_header, read_matrix

Matrix = npt.NDArray[np.float64]
Kind = Literal["changed", "same", "added", "removed", "reshaped"]

_KEY = re.compile(
    r"base_model\.model\.(?P<module>.+)\.(?:lora_(?P<linear>[AB])\.weight|lora_embedding_(?P<embedding>[AB]))"
)
_COLUMNS = 1 << 14
_RANK_ANY = 1 << 20
#: Below this a change is what is left over when two float64 numbers of the same size are subtracted.
_ROUNDING = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """One value that differs; what is absent is null."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleChange:
    """One module's update in both versions. `change` is the Frobenius norm of the difference over the larger of both
    norms: 0 where nothing changed, 1 where one side has no update, 2 where it was turned round. `cosine` is the angle
    between both, 0 where one side has none."""

    module: str
    kind: Kind
    change: float
    cosine: float
    norm_before: float
    norm_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Everything that differs; modules by the size of their change, the largest first."""

    config: tuple[FieldChange, ...]
    carried: tuple[FieldChange, ...]
    modules: tuple[ModuleChange, ...]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Update:
    a: Tensor
    b: Tensor
    scaling: float


def difference(before: Path, after: Path) -> Difference:
    """Compare the adapters in two folders that were registered. Raises Rejected for one that cannot be read."""
    old, new = _updates(before), _updates(after)
    modules = [
        _compare(name, (before / WEIGHTS, old.get(name)), (after / WEIGHTS, new.get(name)))
        for name in sorted(old.keys() | new.keys())
    ]
    carried = [_carried(folder) for folder in (before, after)]
    return Difference(
        config=tuple(_fields(_json(before), _json(after))),
        carried=tuple(_fields(carried[0], carried[1])),
        modules=tuple(sorted(modules, key=lambda module: (-module.change, module.module))),
    )


def _fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[FieldChange]:
    for name in sorted(old.keys() | new.keys()):
        before, after = _plain(old.get(name)), _plain(new.get(name))
        if before != after:
            yield FieldChange(field=name, before=before, after=after)


def _plain(value: Any) -> Any:
    """PEFT writes sets as lists in any order: the order of names says nothing."""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return sorted(value)
    return value


def _json(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / CONFIG).read_bytes())
    return found


def _carried(folder: Path) -> dict[str, Any]:
    findings = Findings()
    carried = read_carried(folder, findings)
    findings.done()
    found = carried.document()
    flat = {f"{CARRIED}: {name}": value for name, value in found.items() if name != "sampling"}
    return flat | {f"{CARRIED}: {name}": value for name, value in carried.sampling.items()}


def _updates(folder: Path) -> dict[str, _Update]:
    findings = Findings()
    config = read_config(folder / CONFIG, findings, rank_max=_RANK_ANY)
    if config is None:
        raise Rejected(findings.reasons())
    halves: dict[str, dict[str, Tensor]] = {}
    for tensor in read_header(folder / WEIGHTS).tensors.values():
        key = _KEY.fullmatch(tensor.name)
        if key and tensor.dtype in FLOATS and len(tensor.shape) == 2:
            halves.setdefault(key["module"], {})[key["linear"] or key["embedding"]] = tensor
    return {
        name: _Update(a=half["A"], b=half["B"], scaling=_scaling(config, name))
        for name, half in halves.items()
        if half.keys() == {"A", "B"}
    }


def _scaling(config: LoraConfig, module: str) -> float:
    return config.rank_and_scaling(module)[1]


def _compare(name: str, before: tuple[Path, _Update | None], after: tuple[Path, _Update | None]) -> ModuleChange:
    old, new = before[1], after[1]
    square_before, square_after = _square(*before), _square(*after)
    norm_before, norm_after = math.sqrt(square_before), math.sqrt(square_after)
    if old is None or new is None or not _same_shape(old, new):
        kind: Kind = "added" if old is None else "removed" if new is None else "reshaped"
        return ModuleChange(
            module=name, kind=kind, change=1.0, cosine=0.0, norm_before=norm_before, norm_after=norm_after
        )
    inner = _inner(before[0], old, after[0], new)
    larger = max(norm_before, norm_after)
    change = math.sqrt(max(0.0, square_before + square_after - 2 * inner)) / larger if larger else 0.0
    both = norm_before * norm_after
    return ModuleChange(
        module=name,
        kind="changed" if change > _ROUNDING else "same",
        change=change if change > _ROUNDING else 0.0,
        cosine=max(-1.0, min(1.0, inner / both)) if both else 0.0,
        norm_before=norm_before,
        norm_after=norm_after,
    )


def _square(path: Path, update: _Update | None) -> float:
    return 0.0 if update is None else max(0.0, _inner(path, update, path, update))


def _inner(path: Path, one: _Update, other_path: Path, other: _Update) -> float:
    """⟨s·B·A, s'·B'·A'⟩ = s·s'·Σ (Bᵀ·B') ∘ (A·A'ᵀ): both factors are only rank by rank."""
    rows = _product(read_matrix(path, one.a), read_matrix(other_path, other.a))
    columns = _product(read_matrix(path, one.b).T, read_matrix(other_path, other.b).T)
    return one.scaling * other.scaling * float(np.sum(rows * columns))


def _product(left: Floats, right: Floats) -> Matrix:
    """left · rightᵀ in float64, a slice of columns at a time."""
    total = np.zeros((left.shape[0], right.shape[0]))
    for start in range(0, left.shape[1], _COLUMNS):
        stop = start + _COLUMNS
        total += left[:, start:stop].astype(np.float64) @ right[:, start:stop].astype(np.float64).T
    return total


def _same_shape(one: _Update, other: _Update) -> bool:
    return one.a.shape[1] == other.a.shape[1] and one.b.shape[0] == other.b.shape[0]
