"""Reads safetensors with nothing but the standard library and numpy: the header first, then only the bytes asked for.

Stricter than the format: whatever `read_header` accepts, the safetensors library accepts too (a test compares them).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
import numpy.typing as npt

from adapters.errors import BadWeights

Floats = npt.NDArray[np.float32]

#: Bits of each element type that safetensors 0.8 writes.
BITS: dict[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip

#: What an adapter's tensors may be, with the numpy type of their raw bytes.
FLOATS: dict[str, str] = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}

_CHUNK_ELEMENTS = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One entry of the header. `start` and `end` are byte offsets from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a safetensors file says it holds."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What the values of one tensor look like; `largest` and `norm` leave the non-finite ones out."""

    nonfinite: int
    largest: float
    norm: float


def read_header(path: Path, *, header_bytes_max: int = 100 << 20, tensors_max: int = 1_000_000) -> Header:
    """Parse the header without loading a tensor. Raises BadWeights; OSError passes through."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        first = file.read(8)
        if len(first) < 8:
            raise BadWeights(f"the file ends after {len(first)} bytes; the header length alone takes 8")
        length = int.from_bytes(first, "little")
        if length > header_bytes_max:
            raise BadWeights(f"the header claims {length} bytes; at most {header_bytes_max} are allowed")
        if 8 + length > size:
            raise BadWeights(f"the header claims {length} bytes but the file has {size}: it is truncated")
        raw = file.read(length)
    entries = _object(raw)
    metadata = _metadata(entries.pop("__metadata__", {}))
    if len(entries) > tensors_max:
        raise BadWeights(f"the header lists {len(entries)} tensors; at most {tensors_max} are allowed")
    tensors = {name: _tensor(name, entry, 8 + length) for name, entry in entries.items()}
    _contiguous(tensors, 8 + length, size)
    return Header(tensors=tensors, metadata=metadata, size=size)


def scan(path: Path, header: Header) -> dict[str, Stats]:
    """Look at every value of every tensor, a few megabytes at a time. All must be F32, F16 or BF16."""
    found: dict[str, Stats] = {}
    with path.open("rb") as file:
        for tensor in header.tensors.values():
            nonfinite, largest, squares = 0, 0.0, 0.0
            for chunk in _chunks(file, tensor):
                finite = chunk if (good := np.isfinite(chunk)).all() else chunk[good]
                nonfinite += chunk.size - finite.size
                if finite.size:
                    wide = finite.astype(np.float64)
                    largest = max(largest, float(np.abs(wide).max()))
                    squares += float(wide @ wide)
            found[tensor.name] = Stats(nonfinite=nonfinite, largest=largest, norm=math.sqrt(squares))
    return found


def product_norm(path: Path, a: Tensor, b: Tensor, *, experts: int = 1) -> float:
    """‖B·A‖_F exactly, without forming B·A: it is the trace of (A·Aᵀ)(Bᵀ·B), both only rank by rank.

    Of stacked experts, whose A holds one block of rows after the other and whose B holds a column of each in turn, the
    largest of any expert.
    """
    with path.open("rb") as file:
        rows, columns = _matrix(file, a), _matrix(file, b)
    norms = []
    for expert, block in enumerate(np.split(rows, experts)):
        gram_a, gram_b = _gram(block), _gram(columns[:, expert::experts].T)
        norms.append(math.sqrt(max(0.0, float(np.sum(gram_a * gram_b)))))
    return max(norms)


def read_matrix(path: Path, tensor: Tensor) -> Floats:
    """All values of one F32, F16 or BF16 tensor."""
    with path.open("rb") as file:
        return _matrix(file, tensor)


def read_integers(path: Path, tensor: Tensor) -> tuple[int, ...]:
    """The values of a small I32 or I64 tensor (compressed-tensors keeps a weight's true shape in one)."""
    if tensor.dtype not in ("I32", "I64") or tensor.end - tensor.start > 4096:
        raise BadWeights(f"{tensor.name!r} is no small integer tensor")
    with path.open("rb") as file:
        raw = _read(file, tensor.start, tensor.end - tensor.start)
    return tuple(int(value) for value in np.frombuffer(raw, "<i4" if tensor.dtype == "I32" else "<i8"))


def _object(raw: bytes) -> dict[str, Any]:
    if not raw.startswith(b"{"):
        raise BadWeights("the header does not begin with '{': this is not a safetensors file")
    try:
        return dict(json.loads(raw.decode(), object_pairs_hook=_unique, parse_constant=_no_constant))
    except RecursionError as error:
        raise BadWeights("the header is nested too deeply") from error
    except ValueError as error:
        raise BadWeights(f"the header is not JSON: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise BadWeights(f"the header names {twice!r} twice")
    return entries


def _no_constant(name: str) -> NoReturn:
    raise BadWeights(f"the header holds {name}, which is not JSON")


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise BadWeights("__metadata__ is not a map from text to text")
    return value


def _tensor(name: str, entry: Any, data_start: int) -> Tensor:
    if not name or len(name) > 1024 or not name.isprintable():
        raise BadWeights(f"a tensor is named {name[:80]!r}; names are 1 to 1024 printable characters")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise BadWeights(f"the entry of {name!r} does not have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise BadWeights(f"{name!r} has the unknown element type {str(dtype)[:40]!r}")
    if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2 or len(shape) > 8:
        raise BadWeights(f"the shape or the offsets of {name!r} are not lists of sizes")
    begin, end = offsets
    bits = math.prod(shape) * BITS[dtype]
    if bits % 8 or end - begin != bits // 8:
        raise BadWeights(f"{name!r} takes {end - begin} bytes, but {dtype} {shape} needs {bits / 8:g}")
    return Tensor(name=name, dtype=dtype, shape=tuple(shape), start=data_start + begin, end=data_start + end)


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 1 << 48 for size in value)


def _contiguous(tensors: Mapping[str, Tensor], data_start: int, size: int) -> None:
    """No byte may belong to two tensors or to none: hidden or shared bytes are how files lie."""
    expected = data_start
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.start, tensor.end)):
        if tensor.start != expected:
            what = "overlaps the tensor before it" if tensor.start < expected else "leaves a hole before it"
            raise BadWeights(f"{tensor.name!r} {what}")
        expected = tensor.end
    if expected > size:
        raise BadWeights(f"the tensors need {expected} bytes but the file has {size}: it is truncated")
    if expected < size:
        raise BadWeights(f"{size - expected} bytes follow the last tensor; nothing may")


def _read(file: BinaryIO, start: int, length: int) -> bytes:
    file.seek(start)
    raw = file.read(length)
    if len(raw) != length:
        raise BadWeights("the file became shorter while it was read")
    return raw


def _widen(raw: bytes, dtype: str) -> Floats:
    values = np.frombuffer(raw, FLOATS[dtype])
    if dtype == "BF16":
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values.astype(np.float32, copy=False)


def _chunks(file: BinaryIO, tensor: Tensor) -> Iterator[Floats]:
    step = _CHUNK_ELEMENTS * BITS[tensor.dtype] // 8
    for start in range(tensor.start, tensor.end, step):
        yield _widen(_read(file, start, min(step, tensor.end - start)), tensor.dtype)


def _matrix(file: BinaryIO, tensor: Tensor) -> Floats:
    return _widen(_read(file, tensor.start, tensor.end - tensor.start), tensor.dtype).reshape(tensor.shape)


def _gram(matrix: Floats) -> npt.NDArray[np.float64]:
    """matrix · matrixᵀ in float64, a slice of columns at a time; squares of float32 cannot overflow there."""
    rows, columns = matrix.shape
    total = np.zeros((rows, rows))
    step = max(1, _CHUNK_ELEMENTS // max(1, rows))
    for start in range(0, columns, step):
        wide = matrix[:, start : start + step].astype(np.float64)
        total += wide @ wide.T
    return total
