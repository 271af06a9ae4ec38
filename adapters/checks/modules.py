"""The modules that a base really has, read from its config.json and safetensors headers: no torch, no weights.

Understands plain weights (float, FP8, INT8), compressed-tensors, GPTQ, AWQ and AutoRound, and experts both one by one
and as one three-dimensional tensor.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from adapters.checks.identity import BaseIdentity
from adapters.checks.template import read_template_digest
from adapters.errors import BadBase, BadWeights
from adapters.weights import Header, Tensor, read_header, read_integers

_EMBEDDINGS = frozenset({"embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings"})
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
TOWERS = ("vision", "visual", "audio")
_EXPERTS = re.compile(r"(?P<module>.+\.experts)\.(?:gate_up_proj|down_proj)(?:_blocks|_scales|_packed|_bias|\.|$)")

#: Architectures whose experts vLLM 0.32 adapts as one tensor for all (`is_3d_moe_weight`); all others one by one.
STACKED = frozenset(
    {
        "GptOssForCausalLM",
        "InternS1ProForConditionalGeneration",
        "Qwen3OmniMoeForConditionalGeneration",
        "Qwen3VLMoeForConditionalGeneration",
        "Qwen3_5MoeForConditionalGeneration",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One adaptable module. A is (rank, inputs) and B is (outputs, rank); an embedding's inputs are its vocabulary.
    Stacked experts have a rank for each of them: A is (rank * experts, inputs) and B is (outputs, rank * experts)."""

    kind: Literal["linear", "embedding", "experts"]
    inputs: int
    outputs: int
    experts: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModules:
    """What adapters are checked against."""

    modules: Mapping[str, Module]
    architecture: str
    quantization: str
    #: Modules whose weights are stored quantised.
    packed: frozenset[str] = frozenset()
    #: Whether attention works on a latent (MLA), into which the engine folds kv_b_proj.
    latent: bool = False
    identity: BaseIdentity = field(default_factory=BaseIdentity)

    @classmethod
    def read(cls, folder: Path, identity: BaseIdentity | None = None) -> BaseModules:
        """Read a base folder in Hugging Face's layout. `identity` says what the base is called, where that is to be
        compared. Raises BadBase."""
        try:
            config = json.loads((folder / "config.json").read_bytes())
            headers = [(path, read_header(path)) for path in _files(folder)]
        except (OSError, ValueError, BadWeights) as error:
            raise BadBase(f"The base {folder} cannot be read: {error}.") from error
        if not isinstance(config, dict):
            raise BadBase(f"The base {folder} cannot be read: its config.json is no object.")
        quantization = config.get("quantization_config") or {}
        _refuse_bitsandbytes(folder, quantization)
        text = config.get("text_config") or config
        modules: dict[str, Module] = {}
        packed: set[str] = set()
        for path, header in headers:
            modules.update(_modules(path, header, quantization))
            packed |= _packed_names(header)
            if STACKED.intersection(config.get("architectures") or []):
                modules.update(_stacked(header, text))
        layers = text.get("num_hidden_layers")
        modules = {name: module for name, module in modules.items() if _is_served(name, layers)}
        _tie(modules)
        if not modules:
            raise BadBase(f"The base {folder} holds no module that an adapter could change.")
        return cls(
            modules=modules,
            architecture=", ".join(config.get("architectures") or ["unknown"]),
            quantization=str(quantization.get("format") or quantization.get("quant_method") or "none"),
            packed=frozenset(packed),
            latent=bool(text.get("kv_lora_rank")),
            identity=replace(identity or BaseIdentity(), template_digest=read_template_digest(folder)),
        )


def _files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        if any("/" in name or "\\" in name for name in names):
            raise BadBase(f"The base {folder} has an index that points out of its folder.")
        return [folder / name for name in names]
    return [folder / "model.safetensors"]


def _modules(path: Path, header: Header, quantization: Mapping[str, Any]) -> Iterator[tuple[str, Module]]:
    tensors = header.tensors
    for name, tensor in tensors.items():
        module, _, kind = name.rpartition(".")
        if len(tensor.shape) != 2 or not module:
            continue
        if f"{name}.absmax" in tensors or f"{name}.quant_state.bitsandbytes__nf4" in tensors:
            _refuse_bitsandbytes(path.parent, {"quant_method": "bitsandbytes"})
        if kind == "weight":
            yield module, _plain(module, tensor)
        elif kind == "weight_packed":
            yield module, _packed(path, tensor, tensors.get(f"{module}.weight_shape"))
        elif kind == "qweight":
            yield module, _grouped(tensor, quantization)


def _refuse_bitsandbytes(folder: Path, quantization: Mapping[str, Any]) -> None:
    if quantization.get("quant_method") == "bitsandbytes":
        raise BadBase(
            f"The base {folder} is quantized by bitsandbytes, which the engine does not serve. "
            "Quantize it to W4A16 (graftline quantize), AWQ, GPTQ or FP8."
        )


def _packed_names(header: Header) -> set[str]:
    """Modules stored in fewer than 16 bits, whatever the scheme."""
    low = {
        name.rpartition(".")[0]
        for name, tensor in header.tensors.items()
        if name.endswith(".weight") and tensor.dtype in ("I8", "U8", "F8_E4M3", "F8_E5M2")
    }
    return low | {
        name.rpartition(".")[0] for name in header.tensors if name.rpartition(".")[2] in ("weight_packed", "qweight")
    }


def _stacked(header: Header, config: Mapping[str, Any]) -> Iterator[tuple[str, Module]]:
    """Experts in one tensor. PEFT keeps gate_up_proj under `experts.base_layer` and down_proj under `experts`; their
    true sizes stand in the config, because every scheme packs them differently."""
    experts = config.get("num_experts") or config.get("num_local_experts") or config.get("n_routed_experts")
    hidden = config.get("hidden_size")
    inner = config.get("moe_intermediate_size") or config.get("intermediate_size")
    names = {found["module"] for name in header.tensors if (found := _EXPERTS.match(name))}
    if not names:
        return
    if not (isinstance(experts, int) and isinstance(hidden, int) and isinstance(inner, int)):
        raise BadBase("The base has stacked experts, and its config.json does not say how many or how large they are.")
    for name in names:
        yield f"{name}.base_layer", Module(kind="experts", inputs=hidden, outputs=2 * inner, experts=experts)
        yield name, Module(kind="experts", inputs=inner, outputs=hidden, experts=experts)


def _plain(name: str, tensor: Tensor) -> Module:
    rows, columns = tensor.shape
    if name.rpartition(".")[2] in _EMBEDDINGS:
        return Module(kind="embedding", inputs=rows, outputs=columns)
    return Module(kind="linear", inputs=columns, outputs=rows)


def _packed(path: Path, tensor: Tensor, shape: Tensor | None) -> Module:
    """compressed-tensors: the true shape stands beside the packed one, except for FP4, which packs two to a byte."""
    if shape is not None:
        rows, columns = read_integers(path, shape)
        return Module(kind="linear", inputs=columns, outputs=rows)
    if tensor.dtype == "U8":
        return Module(kind="linear", inputs=2 * tensor.shape[1], outputs=tensor.shape[0])
    raise BadBase(f"The base {path.parent} has packed weights without their shape ({tensor.name}).")


def _grouped(tensor: Tensor, quantization: Mapping[str, Any]) -> Module:
    """GPTQ packs along the inputs, AWQ along the outputs; both store (inputs, outputs) in 32-bit words."""
    bits = quantization.get("bits") or quantization.get("w_bit") or 4
    rows, columns = tensor.shape
    layout = f"{quantization.get('quant_method', '')} {quantization.get('packing_format', '')}"
    if "awq" in layout:
        return Module(kind="linear", inputs=rows, outputs=columns * 32 // bits)
    return Module(kind="linear", inputs=rows * 32 // bits, outputs=columns)


def _is_served(name: str, layers: int | None) -> bool:
    """Leaves out the extra layers for speculative decoding that some checkpoints carry behind the last real one."""
    if name.startswith("mtp."):
        return False
    found = _LAYER.search(name)
    if layers is None or found is None or any(tower in name for tower in TOWERS):
        return True
    return int(found[1]) < layers


def _tie(modules: dict[str, Module]) -> None:
    """A checkpoint without lm_head uses the embedding's weights for it; adapters may still change it."""
    embedding = next((module for module in modules.values() if module.kind == "embedding"), None)
    if embedding is not None and not any(name.rpartition(".")[2] == "lm_head" for name in modules):
        modules["lm_head"] = Module(kind="linear", inputs=embedding.outputs, outputs=embedding.inputs)
