"""Adapters that are right pass the checks, and what the checks say about them and about others is worth reading."""

from __future__ import annotations

import math
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
HEAD = "base_model.model.lm_head"
EVERY = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def codes(error: Rejected) -> set[str]:
    return {reason.code for reason in error.reasons}


def refused(folder: Path, base: BaseModules, **more: Any) -> Rejected:
    with pytest.raises(Rejected) as caught:
        check(folder, base, Limits(), **more)
    return caught.value


GOOD: dict[str, Make] = {
    "two modules": lambda s: s.adapter(),
    "every linear module": lambda s: s.adapter(tensors=s.lora(*EVERY), config={"target_modules": list(EVERY)}),
    "bfloat16": lambda s: s.adapter(tensors=s.lora("q_proj", "v_proj", dtype="BF16")),
    "float16": lambda s: s.adapter(tensors=s.lora("q_proj", "v_proj", dtype="F16")),
    "rank 1": lambda s: s.adapter(tensors=s.lora("q_proj", "v_proj", rank=1), config={"r": 1}),
    "rsLoRA": lambda s: s.adapter(config={"use_rslora": True}),
    "fractional alpha": lambda s: s.adapter(config={"lora_alpha": 1.5}),
    "rank_pattern by name": lambda s: s.adapter(
        tensors={**s.lora("q_proj", rank=2), **s.lora("v_proj")}, config={"rank_pattern": {"q_proj": 2}}
    ),
    "rank_pattern by expression": lambda s: s.adapter(
        tensors={**s.lora("q_proj", rank=2), **s.lora("v_proj")},
        config={"rank_pattern": {r"^model\.layers\.\d+\.self_attn\.q_proj": 2}, "alpha_pattern": {"(q|v)_proj": 4}},
    ),
    "one layer only": lambda s: s.adapter(
        tensors={name: raw for name, raw in s.lora("q_proj", "v_proj").items() if ".layers.1." in name},
        config={"layers_to_transform": [1]},
    ),
    "one layer by its list": lambda s: s.adapter(
        tensors={name: raw for name, raw in s.lora("q_proj", "v_proj").items() if ".layers.0." in name},
        config={"layers_to_transform": 0, "layers_pattern": "layers"},
    ),
    "modules left out": lambda s: s.adapter(
        tensors={name: raw for name, raw in s.lora("q_proj", "v_proj").items() if not name.startswith(Q0)},
        config={"exclude_modules": ["model.layers.0.self_attn.q_proj"]},
    ),
    "targets by expression": lambda s: s.adapter(config={"target_modules": r"^(?!.*vision).*(q_proj|v_proj)$"}),
    "embedding and head": lambda s: s.adapter(
        replace={
            **s.embedding(),
            f"{HEAD}.lora_A.weight": s.floats(RANK, HIDDEN),
            f"{HEAD}.lora_B.weight": s.floats(VOCAB, RANK),
        },
        config={"target_modules": ["q_proj", "v_proj", "embed_tokens", "lm_head"]},
    ),
    "EVA start": lambda s: s.adapter(config={"init_lora_weights": "eva", "eva_config": {"rho": 2.0}}),
    "unknown field that is off": lambda s: s.adapter(config={"of_tomorrow": None, "also": False}),
    "some modules still zero": lambda s: s.adapter(replace={B: s.floats(HIDDEN, RANK, fill=0)}),
    "a character across two reads": lambda s: s.adapter(files={"tokenizer.json": ("x" + "ü" * 600_000).encode()}),
    "tokenizer beside it": lambda s: s.adapter(files={"tokenizer.json": '{"ü": 1}'.encode(), "LICENSE": b"MIT"}),
}


@pytest.mark.parametrize("kind", GOOD)
def test_good_adapters_pass(kind: str, specimens: Specimens, modules: BaseModules) -> None:
    report = check(GOOD[kind](specimens), modules, Limits())
    assert report.modules
    assert 0 < report.gain < 1


def test_the_report_says_what_was_found(specimens: Specimens, modules: BaseModules) -> None:
    folder = specimens.adapter()
    report = check(folder, modules, Limits())
    assert (report.rank, report.alpha, report.base_model) == (4, 8.0, "tiny")
    assert report.coverage == "4 of 14 modules"
    assert report.bytes == sum(path.stat().st_size for path in folder.iterdir())
    assert report.modules[0] == "model.layers.0.self_attn.q_proj"


def test_coverage_names_the_embedding_apart(specimens: Specimens, modules: BaseModules) -> None:
    assert check(GOOD["embedding and head"](specimens), modules, Limits()).coverage == (
        "4 of 14 modules and lm_head and model.embed_tokens"
    )


def test_all_reasons_come_together(specimens: Specimens, modules: BaseModules) -> None:
    folder = specimens.adapter(
        config={"use_dora": True, "r": 8}, replace={A: specimens.floats(RANK, HIDDEN, fill=math.nan)}
    )
    assert {"unsupported_feature", "rank_mismatch", "not_finite"} <= codes(refused(folder, modules))


def test_hundreds_of_equal_faults_are_counted_and_not_listed(specimens: Specimens, modules: BaseModules) -> None:
    extra = {f"base_model.model.x.{n}.lora_A.weight": specimens.floats(1) for n in range(300)}
    error = refused(specimens.adapter(replace=extra), modules)
    assert len(error.reasons) < 10
    assert "295 more" in str(error)


def test_what_strangers_write_is_escaped_and_cut(specimens: Specimens, modules: BaseModules) -> None:
    error = refused(specimens.adapter(config={"peft_type": "\x1b[2J" + "x" * 10_000}), modules)
    assert "\x1b" not in str(error)
    assert len(str(error)) < 1000


def test_the_rank_bound_is_the_engines(specimens: Specimens, modules: BaseModules) -> None:
    folder = specimens.adapter()
    assert check(folder, modules, Limits(rank_max=4)).rank == 4
    with pytest.raises(Rejected, match="up to 3"):
        check(folder, modules, Limits(rank_max=3))


def test_the_gain_is_that_of_the_whole_update(specimens: Specimens, modules: BaseModules) -> None:
    """With ones in A and B every entry of scaling * B * A is 2 * 4, and its norm 16 times that."""
    ones = {name: specimens.floats(*raw[1], fill=1) for name, raw in specimens.lora("q_proj", "v_proj").items()}
    assert check(specimens.adapter(tensors=ones), modules, Limits()).gain == pytest.approx(2 * 4 * 16 / 4)


@pytest.mark.slow
def test_more_patterns_than_can_be_matched_are_refused(specimens: Specimens) -> None:
    wide = {f"model.layers.0.part{n}.weight": specimens.floats(2, 2) for n in range(2000)}
    base = BaseModules.read(specimens.base(wide))
    tensors = {f"base_model.model.model.layers.0.part{n}.lora_A.weight": specimens.floats(1, 2) for n in range(2000)}
    patterns = {f"part{n}": 1 for n in range(3000)}
    error = refused(specimens.adapter(tensors=tensors, config={"rank_pattern": patterns}), base)
    assert "too_large" in codes(error)
