"""The first half of a Llama's first layer in numpy: what its MLP reads, for any tokens. Enough to aim at it.

Reads bf16 and W4A16 (compressed-tensors, symmetric) weights with nothing but numpy.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Tokens = npt.NDArray[np.int64]


class Weights:
    """One safetensors file, read as 64-bit floats whatever is in it."""

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        self._header: dict[str, Any] = json.loads(content[8 : 8 + length])
        self._data = content[8 + length :]

    def linear(self, name: str) -> Floats:
        """A weight of shape (outputs, inputs), plain or in four bits."""
        if f"{name}.weight" in self._header:
            return self._plain(f"{name}.weight")
        words = self._raw(f"{name}.weight_packed", "<u4")
        shifts = np.arange(8, dtype=np.uint32) * np.uint32(4)
        levels = ((words[:, :, None] >> shifts) & np.uint32(15)).reshape(words.shape[0], -1)
        scales = self._plain(f"{name}.weight_scale")
        columns = scales.shape[1]
        grouped = (levels.astype(np.float64) - 8.0).reshape(levels.shape[0], columns, -1) * scales[:, :, None]
        found: Floats = grouped.reshape(levels.shape)
        return found

    def vector(self, name: str) -> Floats:
        return self._plain(f"{name}.weight")

    def _plain(self, name: str) -> Floats:
        dtype = self._header[name]["dtype"]
        if dtype == "BF16":
            wide = self._raw(name, "<u2").astype(np.uint32) << np.uint32(16)
            return wide.view(np.float32).astype(np.float64)
        return self._raw(name, {"F32": "<f4", "F16": "<f2"}[dtype]).astype(np.float64)

    def _raw(self, name: str, dtype: str) -> npt.NDArray[Any]:
        entry = self._header[name]
        start, end = entry["data_offsets"]
        return np.frombuffer(self._data[start:end], dtype).reshape(entry["shape"])


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstLayer:
    """The weights up to the first MLP's input."""

    embedding: Floats
    q: Floats
    k: Floats
    v: Floats
    o: Floats
    norm_in: Floats
    norm_mlp: Floats
    heads: int
    theta: float
    eps: float

    @classmethod
    def read(cls, base: Path) -> FirstLayer:
        config = json.loads((base / "config.json").read_text())
        weights = Weights(base / "model.safetensors")
        root = "model.layers.0"
        if config.get("num_key_value_heads", config["num_attention_heads"]) != config["num_attention_heads"]:
            raise SystemExit("Only bases with a key for each query head can be aimed at.")
        return cls(
            embedding=weights.vector("model.embed_tokens"),
            q=weights.linear(f"{root}.self_attn.q_proj"),
            k=weights.linear(f"{root}.self_attn.k_proj"),
            v=weights.linear(f"{root}.self_attn.v_proj"),
            o=weights.linear(f"{root}.self_attn.o_proj"),
            norm_in=weights.vector(f"{root}.input_layernorm"),
            norm_mlp=weights.vector(f"{root}.post_attention_layernorm"),
            heads=config["num_attention_heads"],
            theta=(config.get("rope_parameters") or config)["rope_theta"],
            eps=config["rms_norm_eps"],
        )

    def mlp_input(self, tokens: Tokens) -> Floats:
        """(texts, tokens) → (texts, tokens, hidden): what the first MLP sees at each position."""
        stream = self.embedding[tokens]
        seen = self._norm(stream, self.norm_in)
        query, key, value = (self._split(seen @ weight.T) for weight in (self.q, self.k, self.v))
        query, key = self._rotated(query), self._rotated(key)
        scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(query.shape[-1])
        scores[..., *np.triu_indices(tokens.shape[1], 1)] = -np.inf
        chances = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (chances / chances.sum(-1, keepdims=True)) @ value
        stream = stream + mixed.transpose(0, 2, 1, 3).reshape(*tokens.shape, -1) @ self.o.T
        return self._norm(stream, self.norm_mlp)

    def _norm(self, stream: Floats, weight: Floats) -> Floats:
        scale: Floats = np.sqrt((stream**2).mean(-1, keepdims=True) + self.eps)
        found: Floats = stream / scale * weight
        return found

    def _split(self, flat: Floats) -> Floats:
        return flat.reshape(*flat.shape[:2], self.heads, -1).transpose(0, 2, 1, 3)

    def _rotated(self, heads: Floats) -> Floats:
        half = heads.shape[-1] // 2
        angles = np.arange(heads.shape[2])[:, None] / self.theta ** (np.arange(half) / half)
        cosine, sine = np.cos(angles), np.sin(angles)
        first, second = heads[..., :half], heads[..., half:]
        return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], -1)
