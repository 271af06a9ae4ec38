"""Adapters whose adapter_config.json asks for what the engine does otherwise, or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from loadtests.corpus.specimen import CONFIG, Bench, Broken, Make

#: Methods that are not LoRA, with a field or two of theirs.
_METHODS: dict[str, dict[str, Any]] = {
    "PREFIX_TUNING": {"num_virtual_tokens": 16, "prefix_projection": False},
    "PROMPT_TUNING": {"num_virtual_tokens": 8, "prompt_tuning_init": "RANDOM"},
    "P_TUNING": {"num_virtual_tokens": 8, "encoder_hidden_size": 64},
    "IA3": {"feedforward_modules": ["down_proj"]},
    "ADALORA": {"target_r": 8, "init_r": 12, "total_step": 100},
    "VERA": {"projection_prng_key": 0, "d_initial": 0.1},
    "LOHA": {"alpha": 8, "rank_dropout": 0.0},
    "LOKR": {"alpha": 8, "decompose_both": False},
    "OFT": {"oft_block_size": 32},
    "BOFT": {"boft_block_size": 4, "boft_n_butterfly_factor": 1},
    "XLORA": {"adapters": {"a": "./a"}},
    "POLY": {"poly_type": "poly", "n_tasks": 4},
    "FOURIERFT": {"n_frequency": 1000},
    "HRA": {"apply_GS": False},
    "MISS": {"mini_r": 1},
    "RANDLORA": {"projection_prng_key": 0},
    "SHIRA": {"mask_type": "random"},
    "C3A": {"block_size": 16},
    "TRAINABLE_TOKENS": {"token_indices": [5, 6]},
    "LN_TUNING": {},
    "BOTTLENECK": {"reduction_factor": 16},
}

#: LoRA with something on top that vLLM refuses by itself, with HTTP 500.
_REFUSED: dict[str, dict[str, Any]] = {
    "dora": {"use_dora": True},
    "lora-bias": {"lora_bias": True},
    "bias": {"bias": "lora_only"},
    "modules-to-save": {"modules_to_save": ["lm_head"]},
    "token-rows": {"trainable_token_indices": [5, 6]},
    "activated": {"alora_invocation_tokens": [4]},
    "layer-replication": {"layer_replication": [[0, 4], [2, 4]]},
    "qalora": {"use_qalora": True, "qalora_group_size": 16},
    "block-diagonal": {"use_bdlora": {"nblocks": 2}},
    "bare-parameters": {"target_parameters": ["mlp.experts.gate_up_proj"]},
    "arrow": {"arrow_config": {"top_k": 2}},
    "transposed-base": {"fan_in_fan_out": True},
}

_STARTS = ("pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga")

#: What must be a number or a name and is not, or is one that means nothing.
_VALUES: dict[str, dict[str, Any]] = {
    "rank-zero": {"r": 0},
    "rank-negative": {"r": -8},
    "rank-text": {"r": "8"},
    "alpha-zero": {"lora_alpha": 0},
    "alpha-negative": {"lora_alpha": -16},
    "alpha-denormal": {"lora_alpha": 5e-324},
    "alpha-endless": {"lora_alpha": 1e300},
    "rslora-word": {"use_rslora": "yes"},
    "targets-number": {"target_modules": 7},
}

_PATTERNS: dict[str, dict[str, Any]] = {
    "slow": {"rank_pattern": {"(a+)+b": 8}},
    "cubic": {"alpha_pattern": {"a*a*a*a*b": 16}},
    "looking": {"alpha_pattern": {"(?=q_proj)": 16}},
}

_DOCUMENTS: dict[str, bytes] = {
    "cut": b'{"peft_type": "LORA", ',
    "list": b"[]",
    "deep": b"[" * 100_000,
    "nan": b'{"peft_type": "LORA", "r": 8, "lora_alpha": NaN}',
    "twice": b'{"peft_type": "LORA", "r": 8, "r": 16, "lora_alpha": 16}',
    "digits": b'{"peft_type": "LORA", "r": ' + b"9" * 9_999 + b"}",
}


def configs() -> Iterator[Broken]:
    """Every specimen of this file."""
    for method, fields in _METHODS.items():
        name, document = method.lower().replace("_", "-"), {"peft_type": method, **fields}
        yield _one(f"method-{name}", "not-lora", "unsupported_peft_type", _config(document))
    for name, fields in _REFUSED.items():
        yield _one(f"feature-{name}", "unserved-feature", "unsupported_feature", _config(fields))
    for start in _STARTS:
        yield _one(
            f"start-{start}", "start-that-changed-the-base", "unfolded_init", _config({"init_lora_weights": start})
        )
    for name, fields in _VALUES.items():
        yield _one(f"value-{name}", "meaningless-number", "bad_value", _config(fields))
    for name, fields in _PATTERNS.items():
        yield _one(f"pattern-{name}", "slow-pattern", "unsafe_pattern", _config(fields))
    for name, content in _DOCUMENTS.items():
        yield _one(f"config-{name}", "unreadable-config", "bad_config", _document(content))
    yield _one("config-huge", "unreadable-config", "too_large", _document(b" " * (1 << 20) + b"{}"))
    yield _one("rank-in-config-too-high", "rank-in-config", "rank_mismatch", _config({"r": 16, "lora_alpha": 32}))
    yield _one("rank-in-config-too-low", "rank-in-config", "rank_mismatch", _config({"r": 4}))
    yield _one("rank-in-pattern", "rank-in-config", "rank_mismatch", _config({"rank_pattern": {"q_proj": 16}}))
    yield _one("rank-beyond-engine", "rank-beyond-engine", "rank_too_high", _config({"r": 1024}))
    yield _one("alpha-huge", "scaling-too-large", "value_too_large", _config({"lora_alpha": 1e8}))
    yield _one("scaling-smuggled", "unknown-field", "unknown_field", _config({"vllm_lora_scaling_factor": 100.0}))
    yield _one("field-of-tomorrow", "unknown-field", "unknown_field", _config({"spectral_gate": 0.5}))
    yield _one("task-classifier", "unserved-feature", "unsupported_feature", _config({"task_type": "SEQ_CLS"}))
    other = _config({"base_model_name_or_path": "meta-llama/Llama-3.2-1B-Instruct"})
    yield _one("another-base", "another-base", "base_mismatch", other)
    lineage = json.dumps({"base": {"digest": "sha256:" + "0" * 64}}).encode()
    yield _one("another-base-digest", "another-base", "base_digest_mismatch", _beside("lineage.json", lineage))
    for name, carried in (("temperature", {"sampling": {"temperature": 99}}), ("stop", {"stop": [""] * 40})):
        content = json.dumps(carried).encode()
        yield _one(f"carried-{name}", "carried-nonsense", "bad_value", _beside("graftline.json", content))
    smuggled = json.dumps({"sampling": {"cache_salt": 1}}).encode()
    yield _one("carried-smuggled", "carried-nonsense", "unknown_field", _beside("graftline.json", smuggled))


def _one(name: str, kind: str, code: str, make: Make) -> Broken:
    return Broken(name=name, kind=kind, codes=(code,), make=make)


def _config(fields: Mapping[str, Any]) -> Make:
    return lambda bench, folder: bench.write(folder, config=fields)


def _document(content: bytes) -> Make:
    return lambda bench, folder: bench.write(folder, files={CONFIG: content})


def _beside(name: str, content: bytes) -> Make:
    def make(bench: Bench, folder: Path) -> None:
        bench.write(folder, files={name: content})

    return make
