"""Every way in which an adapter can be wrong is refused with its own reason."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from adapters.checks.modules import BaseModules
from adapters.checks.static import check
from adapters.errors import Rejected
from adapters.limits import Limits

if TYPE_CHECKING:
    from tests.unit.adapters.conftest import Specimens

    Make = Callable[[Specimens], Path]

HIDDEN, VOCAB, RANK = 16, 64, 4
Q0 = "base_model.model.model.layers.0.self_attn.q_proj"
A, B = f"{Q0}.lora_A.weight", f"{Q0}.lora_B.weight"
EMBED = "base_model.model.model.embed_tokens"
HEAD = "base_model.model.lm_head"


def codes(error: Rejected) -> set[str]:
    return {reason.code for reason in error.reasons}


def refused(folder: Path, base: BaseModules, **more: Any) -> Rejected:
    with pytest.raises(Rejected) as caught:
        check(folder, base, Limits(), **more)
    return caught.value


BROKEN: dict[str, tuple[str, Make]] = {
    # files
    "no config": ("missing_file", lambda s: without(s.adapter(), "adapter_config.json")),
    "no weights": ("missing_file", lambda s: without(s.adapter(), "adapter_model.safetensors")),
    "no folder": ("missing_file", lambda s: s.root / "nowhere"),
    "a file and no folder": ("missing_file", lambda s: s.adapter() / "README.md"),
    "a pickle": ("unsafe_file", lambda s: s.adapter(files={"training_args.bin": b"\x80\x04."})),
    "only a pickle": (
        "missing_file",
        lambda s: without(s.adapter(files={"adapter_model.bin": b"x"}), "adapter_model.safetensors"),
    ),
    "a program": ("unexpected_file", lambda s: s.adapter(files={"run.sh": b"#!/bin/sh\n"})),
    "a program that calls itself text": ("not_text", lambda s: s.adapter(files={"notes.txt": b"#!/bin/sh\n"})),
    "bytes that call themselves text": ("not_text", lambda s: s.adapter(files={"notes.txt": b"\x7fELF\xff"})),
    "text with NUL": ("not_text", lambda s: s.adapter(files={"notes.txt": b"a\0b"})),
    "text cut in a character": ("not_text", lambda s: s.adapter(files={"notes.txt": "ü".encode()[:1]})),
    "other weights": ("unexpected_file", lambda s: s.adapter(files={"model.safetensors": b""})),
    "a control character in a name": ("unexpected_file", lambda s: s.adapter(files={"a\nb.txt": b""})),
    "a link": ("unsafe_file", lambda s: linked(s.adapter())),
    "linked weights": ("unsafe_file", lambda s: linked_weights(s)),
    "a folder inside": ("unsafe_file", lambda s: with_folder(s.adapter())),
    "a pipe": ("unsafe_file", lambda s: with_pipe(s.adapter())),
    "too many files": ("too_large", lambda s: s.adapter(files={f"{n}.txt": b"" for n in range(40)})),
    "a huge config": ("too_large", lambda s: s.adapter(files={"adapter_config.json": b" " * (1 << 20) + b"{}"})),
    # config
    "no JSON": ("bad_config", lambda s: s.adapter(files={"adapter_config.json": b"{"})),
    "a list": ("bad_config", lambda s: s.adapter(files={"adapter_config.json": b"[]"})),
    "NaN in JSON": ("bad_config", lambda s: s.adapter(files={"adapter_config.json": b'{"r": NaN}'})),
    "a field twice": ("bad_config", lambda s: s.adapter(files={"adapter_config.json": b'{"r": 1, "r": 2}'})),
    "JSON without an end": ("bad_config", lambda s: s.adapter(files={"adapter_config.json": b"[" * 100_000})),
    "a number without an end": ("bad_config", lambda s: s.adapter(files={"adapter_config.json": b"9" * 9999})),
    "no r": ("bad_value", lambda s: s.adapter(without=("r",))),
    "no alpha": ("bad_value", lambda s: s.adapter(without=("lora_alpha",))),
    "no targets": ("missing_field", lambda s: s.adapter(without=("target_modules",))),
    # weights
    "empty weights": ("bad_safetensors", lambda s: s.adapter(weights=b"")),
    "truncated": ("bad_safetensors", lambda s: s.adapter(weights=s.safetensors(s.lora("q_proj", "v_proj"))[:-1])),
    "no tensor": ("no_coverage", lambda s: s.adapter(tensors={})),
    "integers": ("bad_dtype", lambda s: s.adapter(replace={A: s.zeros("I8", 1, RANK, HIDDEN)})),
    "doubles": ("bad_dtype", lambda s: s.adapter(replace={A: s.zeros("F64", 8, RANK, HIDDEN)})),
    "config says a higher rank": ("rank_mismatch", lambda s: s.adapter(config={"r": 8})),
    "config says a lower rank": ("rank_mismatch", lambda s: s.adapter(config={"r": 2})),
    "pattern says another rank": ("rank_mismatch", lambda s: s.adapter(config={"rank_pattern": {"q_proj": 8}})),
    "A and B of different ranks": ("shape_mismatch", lambda s: s.adapter(replace={A: s.floats(8, HIDDEN)})),
    "A of another width": ("shape_mismatch", lambda s: s.adapter(replace={A: s.floats(RANK, 24)})),
    "B of another height": ("shape_mismatch", lambda s: s.adapter(replace={B: s.floats(24, RANK)})),
    "transposed": (
        "shape_mismatch",
        lambda s: s.adapter(replace={A: s.floats(HIDDEN, RANK), B: s.floats(RANK, HIDDEN)}),
    ),
    "one dimension": ("shape_mismatch", lambda s: s.adapter(replace={A: s.floats(RANK * HIDDEN)})),
    "three dimensions": ("shape_mismatch", lambda s: s.adapter(replace={A: s.floats(RANK, HIDDEN, 1)})),
    "rank zero": (
        "rank_mismatch",
        lambda s: s.adapter(replace={A: s.floats(0, HIDDEN), B: s.floats(HIDDEN, 0)}),
    ),
    "another vocabulary": (
        "shape_mismatch",
        lambda s: s.adapter(replace=s.embedding(vocab=65), config={"target_modules": r".*"}),
    ),
    "no B": ("unpaired", lambda s: s.adapter(replace={B: None})),
    "no A": ("unpaired", lambda s: s.adapter(replace={A: None})),
    "a layer that is not there": (
        "unknown_module",
        lambda s: s.adapter(replace={name.replace(".0.", ".7."): raw for name, raw in s.lora("q_proj").items()}),
    ),
    "another prefix": (
        "unknown_module",
        lambda s: s.adapter(
            tensors={k.replace(".model.model.", ".model.language_model.model."): v for k, v in s.lora("q_proj").items()}
        ),
    ),
    "no prefix": (
        "unknown_tensor",
        lambda s: s.adapter(tensors={k.removeprefix("base_model.model."): v for k, v in s.lora("q_proj").items()}),
    ),
    "the adapter's name in the keys": (
        "unknown_tensor",
        lambda s: s.adapter(tensors={k.replace(".weight", ".default.weight"): v for k, v in s.lora("q_proj").items()}),
    ),
    "DoRA's magnitudes": (
        "unknown_tensor",
        lambda s: s.adapter(replace={f"{Q0}.lora_magnitude_vector": s.floats(HIDDEN)}),
    ),
    "a bias": ("unknown_tensor", lambda s: s.adapter(replace={f"{Q0}.lora_B.bias": s.floats(HIDDEN)})),
    "a whole module": (
        "unknown_tensor",
        lambda s: s.adapter(replace={f"{HEAD}.modules_to_save.weight": s.floats(VOCAB, HIDDEN)}),
    ),
    "an embedding as if it were linear": (
        "unknown_module",
        lambda s: s.adapter(replace={f"{EMBED}.lora_A.weight": s.floats(RANK, VOCAB)}),
    ),
    "a copy of another embedding": (
        "unknown_tensor",
        lambda s: s.adapter(replace={f"{EMBED}.base_layer.weight": s.floats(VOCAB + 1, HIDDEN)}),
    ),
    "a norm": (
        "unknown_module",
        lambda s: s.adapter(replace={"base_model.model.model.norm.lora_A.weight": s.floats(1)}),
    ),
    "a layer lost": ("incomplete", lambda s: s.adapter(replace={A: None, B: None})),
    "a target lost": ("incomplete", lambda s: s.adapter(config={"target_modules": ["q_proj", "v_proj", "o_proj"]})),
    "tensors that training did not use": (
        "untargeted_module",
        lambda s: s.adapter(config={"target_modules": ["q_proj"]}),
    ),
    "tied embeddings": (
        "unsupported_feature",
        lambda s: s.adapter(
            replace=s.embedding(),
            config={"ensure_weight_tying": True, "target_modules": ["q_proj", "v_proj", "embed_tokens"]},
        ),
    ),
    # numbers
    "NaN": ("not_finite", lambda s: s.adapter(replace={A: s.floats(RANK, HIDDEN, fill=math.nan)})),
    "infinity in half precision": (
        "not_finite",
        lambda s: s.adapter(replace={B: s.floats(HIDDEN, RANK, fill=math.inf, dtype="F16")}),
    ),
    "NaN in bfloat16": (
        "not_finite",
        lambda s: s.adapter(replace={B: s.floats(HIDDEN, RANK, fill=-math.nan, dtype="BF16")}),
    ),
    "NaN in a copy of the embedding": (
        "not_finite",
        lambda s: s.adapter(
            replace={**s.embedding(), f"{EMBED}.base_layer.weight": s.floats(VOCAB, HIDDEN, fill=math.nan)},
            config={"target_modules": ["q_proj", "v_proj", "embed_tokens"]},
        ),
    ),
    "enormous": ("value_too_large", lambda s: s.adapter(replace={B: s.floats(HIDDEN, RANK, fill=1e30)})),
    "enormous and tiny": (
        "value_too_large",
        lambda s: s.adapter(
            replace={A: s.floats(RANK, HIDDEN, fill=1e30), B: s.floats(HIDDEN, RANK, fill=1e-30)},
        ),
    ),
    "an enormous alpha": ("value_too_large", lambda s: s.adapter(config={"lora_alpha": 1e8})),
    "an update beyond the base": (
        "update_too_large",
        lambda s: s.adapter(replace={B: s.floats(HIDDEN, RANK, fill=900.0)}),
    ),
    "untrained": (
        "no_effect",
        lambda s: s.adapter(
            replace={
                name: s.floats(*raw[1], fill=0) for name, raw in s.lora("q_proj", "v_proj").items() if "_B" in name
            }
        ),
    ),
}


def without(folder: Path, name: str) -> Path:
    (folder / name).unlink()
    return folder


def linked(folder: Path) -> Path:
    (folder / "more.txt").symlink_to("/etc/passwd")
    return folder


def linked_weights(s: Specimens) -> Path:
    folder, other = s.adapter(), s.adapter()
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.safetensors").symlink_to(other / "adapter_model.safetensors")
    return folder


def with_folder(folder: Path) -> Path:
    (folder / "checkpoint-100").mkdir()
    return folder


def with_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.txt")
    return folder


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_adapters_are_refused_with_their_reason(kind: str, specimens: Specimens, modules: BaseModules) -> None:
    code, make = BROKEN[kind]
    error = refused(make(specimens), modules)
    assert code in codes(error)
    for reason in error.reasons:
        assert reason.field
        assert reason.found
        assert reason.allowed
        assert reason.advice.endswith((".", "?"))
        assert reason.advice in str(error)


REFUSED_FIELDS: list[tuple[str, object]] = [
    ("use_dora", True),
    ("lora_bias", True),
    ("bias", "all"),
    ("bias", "lora_only"),
    ("modules_to_save", ["lm_head"]),
    ("modules_to_save", ["classifier"]),
    ("trainable_token_indices", [1, 2]),
    ("alora_invocation_tokens", [1]),
    ("layer_replication", [[0, 1]]),
    ("target_parameters", ["mlp.experts.gate_up_proj"]),
    ("fan_in_fan_out", True),
    ("use_qalora", True),
    ("use_bdlora", {"blocks": 2}),
    ("arrow_config", {"top_k": 1}),
    ("kasa_config", {"beta": 1}),
    ("velora_config", {"num_groups": 1}),
    ("monteclora_config", {"n": 1}),
    ("megatron_config", {"a": 1}),
    ("task_type", "SEQ_CLS"),
    ("init_lora_weights", "pissa"),
    ("init_lora_weights", "pissa_niter_16"),
    ("init_lora_weights", "olora"),
    ("init_lora_weights", "corda"),
    ("init_lora_weights", "loftq"),
    ("init_lora_weights", "lora_ga"),
    ("init_lora_weights", "PiSSA"),
    ("init_lora_weights", "of tomorrow"),
    ("init_lora_weights", None),
    ("peft_type", "LOHA"),
    ("peft_type", "PREFIX_TUNING"),
    ("peft_type", None),
    ("vllm_lora_scaling_factor", 100.0),
    ("of_tomorrow", 1),
    ("r", 0),
    ("r", -4),
    ("r", True),
    ("r", 4.0),
    ("r", "4"),
    ("r", 128),
    ("lora_alpha", 0),
    ("lora_alpha", -8),
    ("lora_alpha", "8"),
    ("lora_alpha", 1e300),
    ("use_rslora", "yes"),
    ("target_modules", 7),
    ("target_modules", [7]),
    ("target_modules", []),
    ("exclude_modules", {"a": 1}),
    ("layers_to_transform", "all"),
    ("layers_pattern", 7),
    ("base_model_name_or_path", 7),
    ("revision", []),
    ("rank_pattern", []),
    ("rank_pattern", {"q_proj": 0}),
    ("rank_pattern", {"q_proj": True}),
    ("rank_pattern", {"of_nothing": 4096}),
    ("alpha_pattern", {"q_proj": "8"}),
    ("alpha_pattern", {"(a+)+b": 8}),
    ("alpha_pattern", {"a*a*a*a*b": 8}),
    ("alpha_pattern", {"(?=x)": 8}),
    ("alpha_pattern", {r"(a)\1": 8}),
    ("alpha_pattern", {"q_proj\n": 8}),
    ("alpha_pattern", {"[": 8}),
    ("alpha_pattern", {"": 8}),
]


@pytest.mark.parametrize(("name", "value"), REFUSED_FIELDS, ids=[f"{n}={v}"[:40] for n, v in REFUSED_FIELDS])
def test_config_fields_that_would_be_served_wrongly_are_refused_by_name(
    name: str, value: object, specimens: Specimens, modules: BaseModules
) -> None:
    error = refused(specimens.adapter(config={name: value}), modules)
    assert any(reason.field.startswith(name) for reason in error.reasons)


def test_an_adapter_without_effect_passes_when_forced(specimens: Specimens, modules: BaseModules) -> None:
    folder = BROKEN["untrained"][1](specimens)
    assert check(folder, modules, Limits(), force_noop=True).gain == 0
