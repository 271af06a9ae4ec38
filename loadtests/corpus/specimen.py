"""What a broken adapter is made of: a good one, and the means to write any bytes whatever."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
RANK = 8
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")

#: (element type, shape, bytes)
Raw = tuple[str, tuple[int, ...], bytes]
Tensors = dict[str, Raw]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What the base's config.json says."""

    name: str
    hidden: int
    inner: int
    layers: int
    vocab: int
    keys: int
    queries: int

    @classmethod
    def read(cls, folder: Path) -> Shape:
        config = json.loads((folder / "config.json").read_text())
        card = folder / "card.json"
        head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        return cls(
            name=json.loads(card.read_text())["name"] if card.is_file() else folder.name,
            hidden=config["hidden_size"],
            inner=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            vocab=config["vocab_size"],
            keys=head * config.get("num_key_value_heads", config["num_attention_heads"]),
            queries=head * config["num_attention_heads"],
        )

    def sizes(self, module: str) -> tuple[int, int]:
        """(inputs, outputs) of one of a Llama's linear modules."""
        return {
            "q_proj": (self.hidden, self.queries),
            "k_proj": (self.hidden, self.keys),
            "v_proj": (self.hidden, self.keys),
            "o_proj": (self.queries, self.hidden),
            "gate_proj": (self.hidden, self.inner),
            "up_proj": (self.hidden, self.inner),
            "down_proj": (self.inner, self.hidden),
        }[module]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Makes good tensors and configs for one base, from one seed."""

    base: Path
    shape: Shape
    seed: int = 0

    def random(self, *shape: int, scale: float = 0.02, salt: int = 0) -> npt.NDArray[np.float64]:
        return np.random.default_rng((self.seed, salt, *shape)).normal(0, scale, shape)

    def key(self, layer: int, module: str, half: str) -> str:
        part = "self_attn" if module in ATTENTION else "mlp"
        return f"base_model.model.model.layers.{layer}.{part}.{module}.lora_{half}.weight"

    def lora(self, *modules: str, rank: int = RANK, dtype: str = "F32") -> Tensors:
        """A and B for these modules in every layer; small and sound."""
        found: Tensors = {}
        for layer in range(self.shape.layers):
            for salt, module in enumerate(modules or ("q_proj", "v_proj")):
                inputs, outputs = self.shape.sizes(module)
                spot = 100 * layer + 2 * salt
                found[self.key(layer, module, "A")] = raw(self.random(rank, inputs, salt=spot), dtype)
                found[self.key(layer, module, "B")] = raw(self.random(outputs, rank, salt=spot + 1), dtype)
        return found

    def config(self, **fields: Any) -> dict[str, Any]:
        """What PEFT would write beside `lora()`."""
        return {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": self.shape.name,
            "r": RANK,
            "lora_alpha": 2 * RANK,
            "target_modules": ["q_proj", "v_proj"],
            "bias": "none",
            "inference_mode": True,
            "peft_version": "0.21.2",
            **fields,
        }

    def write(
        self,
        folder: Path,
        *,
        tensors: Tensors | None = None,
        replace: Mapping[str, Raw | None] | None = None,
        config: Mapping[str, Any] | None = None,
        weights: bytes | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        """The good adapter, changed as told: whole tensors (None takes one away), config fields, files."""
        folder.mkdir(parents=True)
        content = {**(self.lora() if tensors is None else tensors), **(replace or {})}
        kept = {name: one for name, one in content.items() if one is not None}
        (folder / WEIGHTS).write_bytes(safetensors(kept) if weights is None else weights)
        (folder / CONFIG).write_text(json.dumps(self.config(**(config or {})), indent=1))
        for name, text in (files or {}).items():
            (folder / name).write_bytes(text)

    def files(self) -> dict[str, bytes]:
        """The good adapter as it would lie in an archive."""
        return {WEIGHTS: safetensors(self.lora()), CONFIG: json.dumps(self.config()).encode()}


#: Writes one specimen at a path: a folder, or an archive.
Make = Callable[[Bench, Path], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """One specimen, and how it must end: refused at `stage` for one of `codes`."""

    name: str
    kind: str
    codes: tuple[str, ...]
    make: Make
    stage: str = "static"
    form: str = "folder"
    more: Mapping[str, Any] = field(default_factory=dict)


def raw(values: npt.NDArray[Any], dtype: str = "F32") -> Raw:
    """Numbers as a tensor of F32, F16 or BF16."""
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(values, dtype="<f4")
        if dtype == "BF16":
            return dtype, values.shape, (single.view("<u4") >> 16).astype("<u2").tobytes()
        return dtype, values.shape, single.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()


def full(value: float, *shape: int, dtype: str = "F32") -> Raw:
    return raw(np.full(shape, value), dtype)


def blank(dtype: str, item: int, *shape: int) -> Raw:
    """Zero bytes that say they are of any element type."""
    return dtype, shape, bytes(item * math.prod(shape))


def header(tensors: Mapping[str, Raw]) -> dict[str, Any]:
    document: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, (dtype, shape, content) in tensors.items():
        document[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, start + len(content)]}
        start += len(content)
    return document


def packed(head: bytes, data: bytes) -> bytes:
    return len(head).to_bytes(8, "little") + head + data


def safetensors(tensors: Mapping[str, Raw]) -> bytes:
    data = b"".join(content for _, _, content in tensors.values())
    return packed(json.dumps(header(tensors)).encode(), data)
