"""Makes tiny bases and adapters byte by byte, good ones and ones that lie."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.checks.modules import BaseModules

HIDDEN, FFN, VOCAB, LAYERS, RANK = 16, 32, 64, 2, 4

Raw = tuple[str, tuple[int, ...], bytes]


def floats(*shape: int, fill: float | None = None, seed: int = 0, dtype: str = "F32") -> Raw:
    """A tensor of small random numbers, or of one value, in any of the float types that adapters may have."""
    rng = np.random.default_rng((seed, *shape))
    values = rng.normal(0, 0.1, shape) if fill is None else np.full(shape, fill)
    with np.errstate(over="ignore"):
        single = values.astype("<f4")
        if dtype == "BF16":
            return dtype, shape, (single.view("<u4") >> 16).astype("<u2").tobytes()
        return dtype, shape, single.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()


def integers(*values: int) -> Raw:
    return "I64", (len(values),), np.array(values, "<i8").tobytes()


def zeros(dtype: str, item: int, *shape: int) -> Raw:
    return dtype, shape, bytes(item * math.prod(shape))


def header(tensors: Mapping[str, Raw], metadata: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What safetensors writes in front of these tensors."""
    document: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata is not None else {}
    start = 0
    for name, (dtype, shape, raw) in tensors.items():
        document[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, start + len(raw)]}
        start += len(raw)
    return document


def pack(head: bytes, data: bytes) -> bytes:
    return len(head).to_bytes(8, "little") + head + data


def safetensors(tensors: Mapping[str, Raw], metadata: Mapping[str, str] | None = None) -> bytes:
    data = b"".join(raw for _, _, raw in tensors.values())
    return pack(json.dumps(header(tensors, metadata)).encode(), data)


def llama() -> dict[str, Raw]:
    """The weights of a Llama with tied embeddings, too small to say anything."""
    square, up, down = (HIDDEN, HIDDEN), (FFN, HIDDEN), (HIDDEN, FFN)
    inner = {"self_attn.q_proj": square, "self_attn.k_proj": square, "self_attn.v_proj": square}
    inner |= {"self_attn.o_proj": square, "mlp.gate_proj": up, "mlp.up_proj": up, "mlp.down_proj": down}
    weights = {"model.embed_tokens.weight": floats(VOCAB, HIDDEN), "model.norm.weight": floats(HIDDEN)}
    for layer in range(LAYERS):
        for name, shape in inner.items():
            weights[f"model.layers.{layer}.{name}.weight"] = floats(*shape, seed=layer)
    return weights


BASE_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": LAYERS,
    "hidden_size": HIDDEN,
    "vocab_size": VOCAB,
    "tie_word_embeddings": True,
}

CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "tiny",
    "r": RANK,
    "lora_alpha": 8,
    "target_modules": ["q_proj", "v_proj"],
    "bias": "none",
    "inference_mode": True,
    "peft_version": "0.21.2",
}


def lora(*modules: str, rank: int = RANK, dtype: str = "F32") -> dict[str, Raw]:
    """A and B for these modules in every layer."""
    tensors: dict[str, Raw] = {}
    sizes = {"gate_proj": (HIDDEN, FFN), "up_proj": (HIDDEN, FFN), "down_proj": (FFN, HIDDEN)}
    for layer in range(LAYERS):
        for module in modules:
            inputs, outputs = sizes.get(module, (HIDDEN, HIDDEN))
            part = "mlp" if module in sizes else "self_attn"
            key = f"base_model.model.model.layers.{layer}.{part}.{module}"
            tensors[f"{key}.lora_A.weight"] = floats(rank, inputs, seed=layer, dtype=dtype)
            tensors[f"{key}.lora_B.weight"] = floats(outputs, rank, seed=layer + 9, dtype=dtype)
    return tensors


def embedding(*, vocab: int = VOCAB) -> dict[str, Raw]:
    """A and B for the embedding, and the copy of the base's own that PEFT saves beside them."""
    key = "base_model.model.model.embed_tokens"
    return {
        f"{key}.lora_embedding_A": floats(RANK, vocab),
        f"{key}.lora_embedding_B": floats(HIDDEN, RANK),
        f"{key}.base_layer.weight": floats(VOCAB, HIDDEN),
    }


@dataclass
class Specimens:
    """Writes folders under `root`, and has at hand what they are made of."""

    root: Path
    made: int = field(default=0)

    floats = staticmethod(floats)
    zeros = staticmethod(zeros)
    integers = staticmethod(integers)
    lora = staticmethod(lora)
    embedding = staticmethod(embedding)
    llama = staticmethod(llama)
    header = staticmethod(header)
    pack = staticmethod(pack)
    safetensors = staticmethod(safetensors)

    def base(
        self,
        tensors: Mapping[str, Raw] | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        name: str = "model.safetensors",
    ) -> Path:
        folder = self._folder("base")
        (folder / "config.json").write_text(json.dumps({**BASE_CONFIG, **(config or {})}))
        (folder / name).write_bytes(safetensors(llama() if tensors is None else tensors))
        return folder

    def adapter(
        self,
        *,
        config: Mapping[str, Any] | None = None,
        without: tuple[str, ...] = (),
        tensors: Mapping[str, Raw] | None = None,
        replace: Mapping[str, Raw | None] | None = None,
        weights: bytes | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> Path:
        """A good adapter, changed as told: config fields, tensors (None removes one), whole files."""
        folder = self._folder("adapter")
        fields = {key: value for key, value in {**CONFIG, **(config or {})}.items() if key not in without}
        (folder / "adapter_config.json").write_text(json.dumps(fields))
        content = {**(lora("q_proj", "v_proj") if tensors is None else tensors), **(replace or {})}
        kept = {name: raw for name, raw in content.items() if raw is not None}
        (folder / "adapter_model.safetensors").write_bytes(
            safetensors(kept, {"format": "pt"}) if weights is None else weights
        )
        (folder / "README.md").write_text("---\nbase_model: tiny\n---\nAn adapter.\n")
        for name, raw in (files or {}).items():
            (folder / name).write_bytes(raw)
        return folder

    def _folder(self, kind: str) -> Path:
        self.made += 1
        folder = self.root / f"{kind}-{self.made}"
        folder.mkdir()
        return folder


@pytest.fixture
def specimens(tmp_path: Path) -> Specimens:
    return Specimens(tmp_path)


@pytest.fixture
def modules(specimens: Specimens) -> BaseModules:
    return BaseModules.read(specimens.base())
