"""Safetensors files, one tensor at a time: read by name, written in the order announced."""

import json
import math
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from training.errors import BadCheckpoint

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_FLOATS = ("BF16", "F32", "F16", "F64")
_BYTES = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8, "I8": 1, "U8": 1, "BOOL": 1, "I16": 2, "I32": 4, "I64": 8}


class Planned(NamedTuple):
    """A tensor that will be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Its bytes."""
        return _BYTES[self.dtype] * math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Shard:
    """An open safetensors file."""

    path: Path
    file: Any
    names: tuple[str, ...]

    @classmethod
    def open(cls, path: Path, stack: ExitStack) -> "Shard":
        """Open for as long as the stack lives. BadCheckpoint."""
        from safetensors import SafetensorError, safe_open

        try:
            file = stack.enter_context(safe_open(path, framework="pt"))
        except (OSError, SafetensorError) as error:
            raise BadCheckpoint(f"{path} can not be read: {error}") from error
        return cls(path, file, tuple(sorted(file.keys())))

    def shape(self, name: str) -> tuple[int, ...]:
        """Its shape, without reading it."""
        return tuple(self.file.get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """Its safetensors type. BadCheckpoint for one we do not copy."""
        dtype = str(self.file.get_slice(name).get_dtype())
        if dtype not in _BYTES:
            raise BadCheckpoint(f"{self.path}: tensor {name} has type {dtype}. Start from bf16 or fp32 weights.")
        return dtype

    def is_float(self, name: str) -> bool:
        """Whether it is cast to bf16 when kept."""
        return self.dtype(name) in _FLOATS

    def tensor(self, name: str) -> Any:
        """The tensor itself."""
        return self.file.get_tensor(name)


def shards_of(source: Path) -> list[Path]:
    """The weight files of a checkpoint folder. BadCheckpoint."""
    if (source / SINGLE).is_file():
        return [source / SINGLE]
    try:
        names = sorted(set(json.loads((source / INDEX).read_text())["weight_map"].values()))
    except FileNotFoundError as error:
        raise BadCheckpoint(f"{source} holds neither {SINGLE} nor {INDEX}.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadCheckpoint(f"{source / INDEX} is not a weight index: {error!r}") from error
    if not names or any(Path(name).name != name for name in names):
        raise BadCheckpoint(f"{source / INDEX} names files outside its own folder.")
    return [source / name for name in names]


def write_shard(path: Path, planned: Sequence[Planned], tensors: Iterable[Any]) -> int:
    """Write the tensors as planned; the bytes of their data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for plan in planned:
        header[plan.name] = {"dtype": plan.dtype, "shape": plan.shape, "data_offsets": (end, end + plan.size)}
        end += plan.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for plan, tensor in zip(planned, tensors, strict=True):
            file.write(_raw(tensor, plan))
    return end


def _raw(tensor: Any, plan: Planned) -> bytes:
    import torch

    raw: bytes = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    if len(raw) != plan.size:
        raise AssertionError(f"{plan.name}: {len(raw)} bytes where {plan.size} were announced")
    return raw
