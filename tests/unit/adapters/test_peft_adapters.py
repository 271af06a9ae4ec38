"""Adapters that PEFT itself makes: the ones that can be served pass, the others are refused by name, and our reading of
their config agrees with PEFT's own and with vLLM's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from adapters.checks.modules import BaseModules
from adapters.checks.static import check
from adapters.errors import Findings, Rejected
from adapters.limits import Limits
from adapters.manifest import LoraConfig, read_config
from adapters.methods import METHODS

if TYPE_CHECKING:
    from tests.unit.adapters.conftest import Specimens

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

BASE = Path(__file__).parents[3] / "training" / "base" / "tidewell"
LIMITS = Limits(rank_max=64)
EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

GOOD: dict[str, dict[str, Any]] = {
    "default": {},
    "every linear module": {"target_modules": "all-linear"},
    "one module": {"target_modules": ["down_proj"]},
    "targets by expression": {"target_modules": r".*\.(q|k)_proj$"},
    "rank 1": {"r": 1},
    "rank 64": {"r": 64},
    "rsLoRA": {"use_rslora": True, "r": 16, "lora_alpha": 32},
    "rank_pattern": {"target_modules": EVERY, "rank_pattern": {"q_proj": 4, "mlp.down_proj": 12}},
    "patterns by expression": {
        "target_modules": EVERY,
        "rank_pattern": {r"^model\.layers\.0\..*": 2},
        "alpha_pattern": {r"layers\.[12]\.self_attn\.v_proj": 3},
    },
    "rsLoRA with patterns": {"use_rslora": True, "rank_pattern": {"v_proj": 2}, "alpha_pattern": {"v_proj": 5}},
    "some layers": {"layers_to_transform": [0, 2]},
    "one layer": {"layers_to_transform": 3, "layers_pattern": "layers"},
    "modules left out": {"target_modules": EVERY, "exclude_modules": ["model.layers.1.mlp.up_proj", "o_proj"]},
    "modules by full name": {"target_modules": ["model.layers.1.mlp.up_proj", "model.layers.2.self_attn.q_proj"]},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "Gaussian start": {"init_lora_weights": "gaussian"},
    "orthogonal start": {"init_lora_weights": "orthogonal"},
    "MiCA": {"init_lora_weights": "mica"},
    "random start": {"init_lora_weights": False},
    "dropout": {"lora_dropout": 0.1},
}

BAD: dict[str, tuple[str, Callable[[], Any]]] = {
    "DoRA": ("use_dora", lambda: lora(use_dora=True)),
    "PiSSA": ("init_lora_weights", lambda: lora(init_lora_weights="pissa")),
    "OLoRA": ("init_lora_weights", lambda: lora(init_lora_weights="olora")),
    "bias": ("bias", lambda: lora(bias="lora_only")),
    "LoRA bias": ("lora_bias", lambda: lora(lora_bias=True)),
    "whole modules": ("modules_to_save", lambda: lora(modules_to_save=["lm_head"])),
    "token rows": ("trainable_token_indices", lambda: lora(trainable_token_indices=[1, 2])),
    "rank": ("r", lambda: lora(r=128)),
    "LoHa": ("peft_type", lambda: needed("peft").LoHaConfig(target_modules=["q_proj"])),
    "IA3": ("peft_type", lambda: needed("peft").IA3Config(target_modules=["k_proj"], feedforward_modules=[])),
    "VeRA": ("peft_type", lambda: needed("peft").VeraConfig(target_modules=["q_proj"])),
}


def needed(module: str) -> Any:
    """A heavy import, made when a test runs and not when it is collected."""
    return pytest.importorskip(module, reason="needs the training and engine extras")


def lora(**fields: Any) -> Any:
    return needed("peft").LoraConfig(**{"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **fields})


def untrained(config: Any) -> Any:
    """The base's architecture with PEFT around it."""
    fields = json.loads((BASE / "config.json").read_text())
    fields.pop("quantization_config")
    needed("torch").manual_seed(0)
    transformers = needed("transformers")
    return needed("peft").get_peft_model(transformers.LlamaForCausalLM(transformers.LlamaConfig(**fields)), config)


def made(config: Any, folder: Path, *, dtype: str = "float32") -> Any:
    """What training would leave: a B that is not zero any more."""
    torch, model = needed("torch"), untrained(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.02)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    return model


def read(folder: Path) -> LoraConfig:
    findings = Findings()
    config = read_config(folder / "adapter_config.json", findings, rank_max=LIMITS.rank_max)
    findings.done()
    assert config is not None
    return config


@pytest.fixture(scope="module")
def base() -> BaseModules:
    return BaseModules.read(BASE)


@pytest.mark.parametrize("kind", GOOD)
def test_every_kind_that_can_be_served_passes_and_is_read_as_peft_reads_it(
    kind: str, base: BaseModules, tmp_path: Path
) -> None:
    model = made(lora(**GOOD[kind]), tmp_path)
    report = check(tmp_path, base, LIMITS)
    config = read(tmp_path)
    adapted = {name.removeprefix("base_model.model."): m for name, m in model.named_modules() if hasattr(m, "lora_A")}
    assert set(report.modules) == set(adapted)
    for name, module in adapted.items():
        assert config.rank_and_scaling(name) == pytest.approx((module.r["default"], module.scaling["default"]))
    said = {name: config.targets(name) for name in base.modules}
    assert all(targeted in (None, name in adapted) for name, targeted in said.items())
    assert 0 < report.gain < 10


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_passes(dtype: str, base: BaseModules, tmp_path: Path) -> None:
    made(lora(), tmp_path, dtype=dtype)
    assert check(tmp_path, base, LIMITS).coverage == "8 of 28 modules"


def test_an_untrained_adapter_is_refused_unless_forced(base: BaseModules, tmp_path: Path) -> None:
    untrained(lora()).save_pretrained(tmp_path)
    with pytest.raises(Rejected, match="changes nothing"):
        check(tmp_path, base, LIMITS)
    assert check(tmp_path, base, LIMITS, force_noop=True).gain == 0


@pytest.mark.parametrize("kind", BAD)
def test_every_kind_that_would_be_served_wrongly_is_refused_by_name(
    kind: str, base: BaseModules, tmp_path: Path
) -> None:
    field, config = BAD[kind]
    made(config(), tmp_path)
    with pytest.raises(Rejected) as caught:
        check(tmp_path, base, LIMITS)
    assert field in {reason.field for reason in caught.value.reasons}


def test_every_other_method_of_peft_is_known_by_name() -> None:
    known = {kind.value for kind in needed("peft").PeftType}
    assert known - {"LORA"} <= METHODS.keys()
    assert len(known) > 40


@pytest.mark.parametrize("kind", METHODS)
def test_every_other_method_is_refused_with_the_reason_and_a_way(
    kind: str, base: BaseModules, specimens: Specimens
) -> None:
    with pytest.raises(Rejected) as caught:
        check(specimens.adapter(config={"peft_type": kind}), base, LIMITS)
    reason = next(reason for reason in caught.value.reasons if reason.field == "peft_type")
    assert reason.code == "unsupported_peft_type"
    assert METHODS[kind].does in reason.allowed
    assert reason.advice == METHODS[kind].advice


def test_methods_that_peft_can_convert_are_told_so() -> None:
    """The advice to convert stands exactly where PEFT's layers say that they can be."""
    import importlib
    import inspect

    for name, method in METHODS.items():
        try:
            layer = importlib.import_module(f"peft.tuners.{name.lower()}.layer")
        except ModuleNotFoundError:
            continue
        told = "save_as_lora" in method.advice
        able = any(
            "return False" not in inspect.getsource(vars(found)["supports_lora_conversion"])
            for _, found in inspect.getmembers(layer, inspect.isclass)
            if found.__module__ == layer.__name__ and "supports_lora_conversion" in vars(found)
        )
        assert told == able, name


@pytest.mark.vllm
def test_the_engine_agrees_about_what_passes(base: BaseModules, tmp_path: Path) -> None:
    """vLLM's own reader: no unsupported feature, and the same rank and scaling for every module."""
    helper = needed("vllm.lora.peft_helper").PEFTHelper
    for kind, fields in GOOD.items():
        folder = tmp_path / kind
        made(lora(**fields), folder)
        config, theirs = read(folder), helper.from_local_dir(str(folder), None)
        assert theirs._validate_features() == [], kind
        for module in check(folder, base, LIMITS).modules:
            assert config.rank_and_scaling(module) == pytest.approx(theirs.get_rank_and_scaling(module)), kind
