"""Which modules a base has, in every layout that is served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from adapters.checks.modules import BaseModules, Module
from adapters.errors import BadBase

if TYPE_CHECKING:
    from tests.unit.adapters.conftest import Specimens

Q = "model.layers.0.self_attn.q_proj"
LINEAR = Module(kind="linear", inputs=64, outputs=32)


def test_a_plain_base_has_its_linear_modules_its_embedding_and_a_tied_head(specimens: Specimens) -> None:
    base = BaseModules.read(specimens.base())
    assert len(base.modules) == 16
    assert base.modules["model.layers.1.mlp.down_proj"] == Module(kind="linear", inputs=32, outputs=16)
    assert base.modules["model.embed_tokens"] == Module(kind="embedding", inputs=64, outputs=16)
    assert base.modules["lm_head"] == Module(kind="linear", inputs=16, outputs=64)
    assert (base.architecture, base.quantization) == ("LlamaForCausalLM", "none")


def test_a_head_of_its_own_is_used_as_it_is(specimens: Specimens) -> None:
    base = BaseModules.read(specimens.base({**specimens.llama(), "lm_head.weight": specimens.floats(70, 16)}))
    assert base.modules["lm_head"].outputs == 70


def test_compressed_tensors_say_their_shape(specimens: Specimens) -> None:
    tensors = {
        f"{Q}.weight_packed": specimens.zeros("I32", 4, 32, 8),
        f"{Q}.weight_scale": specimens.zeros("BF16", 2, 32, 1),
        f"{Q}.weight_shape": specimens.integers(32, 64),
    }
    config = {"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized"}}
    base = BaseModules.read(specimens.base(tensors, config=config))
    assert dict(base.modules) == {Q: LINEAR}
    assert base.quantization == "pack-quantized"


def test_fp4_packs_two_weights_to_a_byte(specimens: Specimens) -> None:
    base = BaseModules.read(specimens.base({f"{Q}.weight_packed": specimens.zeros("U8", 1, 32, 32)}))
    assert base.modules[Q] == LINEAR


def test_packed_weights_of_unknown_shape_are_refused(specimens: Specimens) -> None:
    with pytest.raises(BadBase, match="without their shape"):
        BaseModules.read(specimens.base({f"{Q}.weight_packed": specimens.zeros("I32", 4, 32, 8)}))


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        ({"quant_method": "gptq", "bits": 4}, (8, 32)),
        ({"quant_method": "gptq", "bits": 8}, (16, 32)),
        ({"quant_method": "gptq", "bits": 3}, (6, 32)),
        ({"quant_method": "awq", "bits": 4}, (64, 4)),
        ({"quant_method": "auto-round", "bits": 4, "packing_format": "auto_round:auto_gptq"}, (8, 32)),
        ({"quant_method": "auto-round", "bits": 4, "packing_format": "auto_round:auto_awq"}, (64, 4)),
    ],
)
def test_grouped_layouts_are_unpacked(config: dict[str, object], shape: tuple[int, int], specimens: Specimens) -> None:
    base = BaseModules.read(
        specimens.base({f"{Q}.qweight": specimens.zeros("I32", 4, *shape)}, config={"quantization_config": config})
    )
    assert base.modules[Q] == LINEAR


def test_fp8_weights_count_as_they_are(specimens: Specimens) -> None:
    base = BaseModules.read(specimens.base({f"{Q}.weight": specimens.zeros("F8_E4M3", 1, 32, 64)}))
    assert base.modules[Q] == LINEAR


def test_bitsandbytes_is_refused_by_name(specimens: Specimens) -> None:
    tensors = {f"{Q}.weight": specimens.zeros("U8", 1, 1024, 1), f"{Q}.weight.absmax": specimens.zeros("U8", 1, 32)}
    with pytest.raises(BadBase, match="bitsandbytes"):
        BaseModules.read(specimens.base(tensors))


def test_a_sharded_base_is_read_whole(specimens: Specimens) -> None:
    folder = specimens.base({f"{Q}.weight": specimens.floats(32, 64)}, name="model-00001-of-00002.safetensors")
    other = "model.layers.1.self_attn.q_proj"
    second = specimens.safetensors({f"{other}.weight": specimens.floats(32, 64)})
    (folder / "model-00002-of-00002.safetensors").write_bytes(second)
    index(folder, {Q: "model-00001-of-00002.safetensors", other: "model-00002-of-00002.safetensors"})
    assert set(BaseModules.read(folder).modules) == {Q, other}


def test_an_index_cannot_point_elsewhere(specimens: Specimens) -> None:
    folder = specimens.base()
    index(folder, {Q: "../other/model.safetensors"})
    with pytest.raises(BadBase, match="out of its folder"):
        BaseModules.read(folder)


def test_layers_behind_the_last_one_are_not_served(specimens: Specimens) -> None:
    extra = {
        "model.layers.2.self_attn.q_proj.weight": specimens.floats(16, 16),
        "mtp.layers.0.self_attn.q_proj.weight": specimens.floats(16, 16),
        "model.vision_tower.layers.7.q_proj.weight": specimens.floats(16, 16),
    }
    found = set(BaseModules.read(specimens.base({**specimens.llama(), **extra})).modules)
    assert "model.layers.1.self_attn.q_proj" in found
    assert "model.vision_tower.layers.7.q_proj" in found
    assert not any(name.startswith(("mtp.", "model.layers.2.")) for name in found)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_base_without_its_files_is_refused(name: str, specimens: Specimens) -> None:
    folder = specimens.base()
    (folder / name).unlink()
    with pytest.raises(BadBase, match="cannot be read"):
        BaseModules.read(folder)


@pytest.mark.parametrize("content", ["[]", "{", "null"])
def test_a_base_with_a_broken_config_is_refused(content: str, specimens: Specimens) -> None:
    folder = specimens.base()
    (folder / "config.json").write_text(content)
    with pytest.raises(BadBase, match="cannot be read"):
        BaseModules.read(folder)


def test_a_base_without_modules_is_refused(specimens: Specimens) -> None:
    with pytest.raises(BadBase, match="no module"):
        BaseModules.read(specimens.base({"model.norm.weight": specimens.floats(16)}))


def index(folder: Path, files: dict[str, str]) -> None:
    content = {"weight_map": {f"{module}.weight": name for module, name in files.items()}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
