"""Fused modules, experts in both layouts, and modules that the engine leaves alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from adapters.checks.modules import BaseModules, Module
from adapters.checks.served import _NO_EMBEDDINGS, _NO_HEAD
from adapters.checks.static import CheckReport, check
from adapters.errors import Rejected
from adapters.limits import Limits

if TYPE_CHECKING:
    from tests.unit.adapters.conftest import Raw, Specimens

ROOT = "base_model.model.model.layers.0"
EXPERTS, HIDDEN, INNER, RANK = 3, 16, 24, 4


def codes(specimens: Specimens, base: BaseModules, tensors: Mapping[str, Raw], **config: Any) -> set[str]:
    """Why an adapter of these tensors is refused; nothing when it passes."""
    try:
        passed(specimens, base, tensors, **config)
    except Rejected as error:
        return {reason.code for reason in error.reasons}
    return set()


def passed(specimens: Specimens, base: BaseModules, tensors: Mapping[str, Raw], **config: Any) -> CheckReport:
    return check(specimens.adapter(tensors=tensors, config={"target_modules": ".*", **config}), base, Limits())


def pair(specimens: Specimens, key: str, inputs: int, outputs: int, rank: int = RANK) -> dict[str, Raw]:
    return {
        f"{key}.lora_A.weight": specimens.floats(rank, inputs),
        f"{key}.lora_B.weight": specimens.floats(outputs, rank),
    }


def fused(specimens: Specimens) -> BaseModules:
    """Phi-3's layout."""
    attention, mlp = "model.layers.0.self_attn", "model.layers.0.mlp"
    tensors = {
        f"{attention}.qkv_proj.weight": specimens.floats(3 * HIDDEN, HIDDEN),
        f"{mlp}.gate_up_proj.weight": specimens.floats(2 * INNER, HIDDEN),
    }
    return BaseModules.read(specimens.base(tensors, config={"architectures": ["Phi3ForCausalLM"]}))


def single(specimens: Specimens) -> BaseModules:
    """Qwen3-MoE's layout: experts one by one."""
    tensors = {}
    for number in range(EXPERTS):
        key = f"model.layers.0.mlp.experts.{number}"
        tensors[f"{key}.gate_proj.weight"] = specimens.floats(INNER, HIDDEN)
        tensors[f"{key}.up_proj.weight"] = specimens.floats(INNER, HIDDEN)
        tensors[f"{key}.down_proj.weight"] = specimens.floats(HIDDEN, INNER)
    return BaseModules.read(specimens.base(tensors, config={"architectures": ["Qwen3MoeForCausalLM"]}))


def stacked(specimens: Specimens) -> BaseModules:
    """GPT-OSS's layout: experts in one tensor, here in four bits."""
    key = "model.layers.0.mlp.experts"
    tensors = {
        f"{key}.gate_up_proj_blocks": specimens.zeros("U8", 1, EXPERTS, 2 * INNER, 1, 8),
        f"{key}.gate_up_proj_scales": specimens.zeros("U8", 1, EXPERTS, 2 * INNER, 1),
        f"{key}.down_proj_blocks": specimens.zeros("U8", 1, EXPERTS, HIDDEN, 1, 12),
        "model.layers.0.self_attn.q_proj.weight": specimens.floats(HIDDEN, HIDDEN),
    }
    config = {"architectures": ["GptOssForCausalLM"], "num_local_experts": EXPERTS, "intermediate_size": INNER}
    return BaseModules.read(specimens.base(tensors, config=config))


def one_by_one(specimens: Specimens, *, ranks: tuple[int, ...] = (RANK,) * EXPERTS) -> dict[str, Raw]:
    found: dict[str, Raw] = {}
    for number, rank in enumerate(ranks):
        key = f"{ROOT}.mlp.experts.{number}"
        found |= pair(specimens, f"{key}.gate_proj", HIDDEN, INNER, rank)
        found |= pair(specimens, f"{key}.up_proj", HIDDEN, INNER, rank)
        found |= pair(specimens, f"{key}.down_proj", INNER, HIDDEN, rank)
    return found


def together(specimens: Specimens, *, rank: int = RANK) -> dict[str, Raw]:
    key = f"{ROOT}.mlp.experts"
    return {
        f"{key}.base_layer.lora_A.weight": specimens.floats(rank * EXPERTS, HIDDEN),
        f"{key}.base_layer.lora_B.weight": specimens.floats(2 * INNER, rank * EXPERTS),
        f"{key}.lora_A.weight": specimens.floats(rank * EXPERTS, INNER),
        f"{key}.lora_B.weight": specimens.floats(HIDDEN, rank * EXPERTS),
    }


NAMED = {"target_modules": None, "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}


def test_an_adapter_trained_on_fused_modules_fits_a_fused_base(specimens: Specimens) -> None:
    tensors = pair(specimens, f"{ROOT}.self_attn.qkv_proj", HIDDEN, 3 * HIDDEN)
    assert passed(specimens, fused(specimens), tensors).coverage == "1 of 2 modules"


@pytest.mark.parametrize("module", ["self_attn.q_proj", "mlp.up_proj"])
def test_split_keys_do_not_fit_a_fused_base(module: str, specimens: Specimens) -> None:
    tensors = pair(specimens, f"{ROOT}.{module}", HIDDEN, HIDDEN)
    assert "fused_layout" in codes(specimens, fused(specimens), tensors)


@pytest.mark.parametrize("module", ["self_attn.qkv_proj", "mlp.gate_up_proj"])
def test_fused_keys_do_not_fit_a_split_base(module: str, specimens: Specimens, modules: BaseModules) -> None:
    tensors = pair(specimens, f"{ROOT}.{module}", HIDDEN, 3 * HIDDEN)
    with pytest.raises(Rejected, match=r"keeps .* apart"):
        passed(specimens, modules, tensors)
    assert "fused_layout" in codes(specimens, modules, tensors)


def test_experts_one_by_one_pass_when_all_are_there(specimens: Specimens) -> None:
    assert len(passed(specimens, single(specimens), one_by_one(specimens)).modules) == 3 * EXPERTS


def test_an_expert_less_is_refused(specimens: Specimens) -> None:
    tensors = {name: raw for name, raw in one_by_one(specimens).items() if ".experts.1.up_proj" not in name}
    assert codes(specimens, single(specimens), tensors) == {"incomplete_experts"}


def test_experts_of_different_ranks_are_refused(specimens: Specimens) -> None:
    tensors = one_by_one(specimens, ranks=(4, 4, 2))
    pattern = {r"experts\.2\.[a-z_]*": 2}
    assert codes(specimens, single(specimens), tensors, rank_pattern=pattern) == {"uneven_experts"}


def test_stacked_experts_are_read_from_the_config_whatever_packs_them(specimens: Specimens) -> None:
    base = stacked(specimens)
    assert base.modules["model.layers.0.mlp.experts.base_layer"] == Module(
        kind="experts", inputs=HIDDEN, outputs=2 * INNER, experts=EXPERTS
    )
    report = passed(specimens, base, together(specimens), **NAMED)
    assert (report.rank, len(report.modules)) == (RANK, 2)


def test_the_rank_of_stacked_experts_follows_their_parameters_names(specimens: Specimens) -> None:
    tensors = together(specimens)
    key = f"{ROOT}.mlp.experts"
    tensors |= {
        f"{key}.lora_A.weight": specimens.floats(2 * EXPERTS, INNER),
        f"{key}.lora_B.weight": specimens.floats(HIDDEN, 2 * EXPERTS),
    }
    assert codes(specimens, stacked(specimens), tensors, **NAMED) == {"rank_mismatch"}
    assert not codes(specimens, stacked(specimens), tensors, rank_pattern={"down_proj": 2}, **NAMED)


def test_the_gain_of_stacked_experts_is_that_of_the_strongest(specimens: Specimens) -> None:
    """B keeps the experts in turn, A one after the other: only the second expert's update is not zero."""
    import numpy as np

    key = f"{ROOT}.mlp.experts"
    a, b = np.zeros((EXPERTS, RANK, INNER)), np.zeros((HIDDEN, RANK, EXPERTS))
    a[1], b[:, :, 1] = 1.0, 1.0
    flat_a, flat_b = a.reshape(-1, INNER).astype("<f4"), b.reshape(HIDDEN, -1).astype("<f4")
    tensors: dict[str, Raw] = together(specimens) | {
        f"{key}.lora_A.weight": ("F32", flat_a.shape, flat_a.tobytes()),
        f"{key}.lora_B.weight": ("F32", flat_b.shape, flat_b.tobytes()),
    }
    report = passed(specimens, stacked(specimens), tensors, **NAMED)
    assert report.gain == pytest.approx(2 * RANK * np.sqrt(INNER))


def test_half_of_stacked_experts_is_refused(specimens: Specimens) -> None:
    tensors = {name: raw for name, raw in together(specimens).items() if "base_layer" in name}
    found = codes(specimens, stacked(specimens), tensors, **NAMED)
    assert found == {"incomplete_experts", "incomplete"}


def test_experts_in_the_other_layout_are_refused(specimens: Specimens) -> None:
    assert "expert_layout" in codes(specimens, single(specimens), together(specimens))
    assert "expert_layout" in codes(specimens, stacked(specimens), one_by_one(specimens))


def test_other_parameters_are_refused(specimens: Specimens, modules: BaseModules) -> None:
    assert "unsupported_feature" in codes(specimens, modules, specimens.lora("q_proj"), **NAMED)


UNSERVED: dict[str, tuple[str, dict[str, Any]]] = {
    "model.visual.layers.0.proj": ("unserved_module", {}),
    "model.wpe": ("unserved_module", {}),
    "model.layers.0.mixer.gate": ("unserved_module", {"architectures": ["NemotronHForCausalLM"]}),
    "model.layers.0.self_attn.kv_b_proj": ("unserved_module", {"kv_lora_rank": 8}),
    "lm_head": ("unserved_module", {"architectures": ["Qwen2ForCausalLM"]}),
}


@pytest.mark.parametrize("name", UNSERVED)
def test_modules_that_the_engine_leaves_alone_are_refused(name: str, specimens: Specimens) -> None:
    code, config = UNSERVED[name]
    base = BaseModules.read(specimens.base({f"{name}.weight": specimens.floats(HIDDEN, HIDDEN)}, config=config))
    tensors = pair(specimens, f"base_model.model.{name}", HIDDEN, HIDDEN)
    assert code in codes(specimens, base, tensors)


def test_a_head_stored_in_few_bits_cannot_be_adapted(specimens: Specimens) -> None:
    tensors = {
        "lm_head.weight_packed": specimens.zeros("I32", 4, 64, 2),
        "lm_head.weight_shape": specimens.integers(64, HIDDEN),
    }
    config = {"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized"}}
    base = BaseModules.read(specimens.base(tensors, config=config))
    assert base.packed == {"lm_head"}
    adapter = pair(specimens, "base_model.model.lm_head", HIDDEN, 64)
    assert "quantization_pair" in codes(specimens, base, adapter)


@pytest.mark.vllm
@pytest.mark.filterwarnings("ignore")
def test_the_table_of_architectures_is_vllms_own() -> None:
    """Reads vLLM's classes: which have adapters, and list an embedding or a head among what they adapt."""
    import importlib

    from adapters.checks.modules import STACKED

    registry = pytest.importorskip("vllm.model_executor.models.registry")
    for architecture, (module, name) in registry._TEXT_GENERATION_MODELS.items():
        if architecture not in _NO_EMBEDDINGS | _NO_HEAD | STACKED | {"LlamaForCausalLM", "Qwen3ForCausalLM"}:
            continue
        found = getattr(importlib.import_module(f"vllm.model_executor.models.{module}"), name)
        adapted = set(found.embedding_modules)
        assert bool(found.is_3d_moe_weight) == (architecture in STACKED), architecture
        assert ("lm_head" not in adapted) == (architecture in _NO_EMBEDDINGS | _NO_HEAD), architecture
        assert bool(adapted) == (architecture not in _NO_EMBEDDINGS), architecture
