"""Quantizing: what is packed, what is kept, and what is refused."""

import json
from pathlib import Path
from typing import Any, Literal

import pytest

from training.base.digest import folder_digest
from training.errors import BadCheckpoint, CannotQuantize, OutputExists
from training.quantize import Report, is_quantizable, quantize

torch: Any = pytest.importorskip("torch")
safetensors_torch: Any = pytest.importorskip("safetensors.torch")

pytestmark = pytest.mark.slow
LAYER = "model.layers.0.self_attn.q_proj"
KEPT = {"model.embed_tokens.weight": (40, 64), "model.norm.weight": (64,), "lm_head.weight": (40, 64)}


def _weights(columns: int = 128) -> dict[str, Any]:
    torch.manual_seed(0)
    shapes = {**KEPT, f"{LAYER}.weight": (64, columns), "model.layers.0.mlp.up_proj.weight": (96, columns)}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def _checkpoint(folder: Path, weights: dict[str, Any] | None = None) -> Path:
    folder.mkdir()
    safetensors_torch.save_file(weights or _weights(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "_name_or_path": "/somewhere"}))
    (folder / "tokenizer.json").write_text("{}")
    return folder


def _unpacked(path: Path, layer: str, group: int) -> Any:
    tensors = safetensors_torch.load_file(path / "model.safetensors")
    words = tensors[f"{layer}.weight_packed"].to(torch.int64)
    levels = torch.stack([(words >> 4 * i) & 15 for i in range(8)], -1).reshape(words.shape[0], -1)
    zeros = 8
    if f"{layer}.weight_zero_point" in tensors:
        packed = tensors[f"{layer}.weight_zero_point"].to(torch.int64)
        zeros = torch.stack([(packed >> 4 * i) & 15 for i in range(8)], 1).reshape(-1, packed.shape[1])
        zeros = zeros.repeat_interleave(group, 1)
    return (levels - zeros) * tensors[f"{layer}.weight_scale"].float().repeat_interleave(group, 1)


@pytest.mark.parametrize("scheme", ["w4a16", "w4a16_asym"])
def test_packed_weights_decode_to_what_the_report_says(tmp_path: Path, scheme: Literal["w4a16", "w4a16_asym"]) -> None:
    source = _checkpoint(tmp_path / "source")
    report = quantize(source, tmp_path / "out", scheme=scheme)
    weight = _weights()[f"{LAYER}.weight"]
    error = float((_unpacked(tmp_path / "out", LAYER, 64) - weight).norm() / weight.norm())
    stated = next(layer.mean for layer in report.layers if layer.name == LAYER)
    assert error == pytest.approx(stated, rel=1e-4)
    assert error < 0.13
    assert report.layers_quantized == 2
    assert report.bytes_after < report.bytes_before / 3
    assert report.digest == folder_digest(tmp_path / "out")


def test_embeddings_head_and_norms_stay_bf16_and_config_names_no_machine(tmp_path: Path) -> None:
    quantize(_checkpoint(tmp_path / "source"), tmp_path / "out")
    tensors = safetensors_torch.load_file(tmp_path / "out" / "model.safetensors")
    assert all(tensors[name].dtype == torch.bfloat16 and tensors[name].shape == shape for name, shape in KEPT.items())
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "_name_or_path" not in config
    assert config["quantization_config"]["ignore"] == ["lm_head"]
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"


def test_a_sharded_checkpoint_gives_the_same_tensors_and_a_new_index(tmp_path: Path) -> None:
    source, weights = _checkpoint(tmp_path / "source"), _weights()
    quantize(source, tmp_path / "single")
    (source / "model.safetensors").unlink()
    names = sorted(weights)
    where = {name: f"model-{1 + i % 2}.safetensors" for i, name in enumerate(names)}
    for file in set(where.values()):
        safetensors_torch.save_file({n: weights[n] for n in names if where[n] == file}, source / file)
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    report = quantize(source, tmp_path / "sharded")
    index = json.loads((tmp_path / "sharded" / "model.safetensors.index.json").read_text())
    single = safetensors_torch.load_file(tmp_path / "single" / "model.safetensors")
    assert report.layers_quantized == 2
    assert set(index["weight_map"]) == set(single)
    for name, file in index["weight_map"].items():
        assert torch.equal(safetensors_torch.load_file(tmp_path / "sharded" / file)[name], single[name])


def test_groups_fall_back_to_32_for_all_layers(tmp_path: Path) -> None:
    report = quantize(_checkpoint(tmp_path / "source", _weights(columns=96)), tmp_path / "out")
    assert report.group == 32
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization_config"]["config_groups"]["group_0"]["weights"]["group_size"] == 32


def test_a_layer_that_fits_no_group_is_named_and_nothing_is_left_behind(tmp_path: Path) -> None:
    source = _checkpoint(tmp_path / "source", _weights(columns=40))
    with pytest.raises(CannotQuantize, match=r"(q|up)_proj") as caught:
        quantize(source, tmp_path / "out")
    assert caught.value.layer.startswith("model.layers.0.")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]


def test_a_layer_with_infinities_is_named_and_nothing_is_left_behind(tmp_path: Path) -> None:
    weights = _weights()
    weights[f"{LAYER}.weight"][3, 3] = float("inf")
    with pytest.raises(CannotQuantize, match="not finite"):
        quantize(_checkpoint(tmp_path / "source", weights), tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]


def test_an_output_that_exists_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputExists):
        quantize(_checkpoint(tmp_path / "source"), tmp_path / "out")


def _no_weights(source: Path) -> None:
    (source / "model.safetensors").unlink()


def _torn_weights(source: Path) -> None:
    (source / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")


def _no_config(source: Path) -> None:
    (source / "config.json").unlink()


def _quantized_config(source: Path) -> None:
    (source / "config.json").write_text('{"quantization_config": {}}')


def _index_pointing_outside(source: Path) -> None:
    _no_weights(source)
    (source / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../a.safetensors"}}')


def _index_of_nonsense(source: Path) -> None:
    _no_weights(source)
    (source / "model.safetensors.index.json").write_text("[1]")


def _no_decoder_layers(source: Path) -> None:
    safetensors_torch.save_file({"a.weight": torch.zeros(64, 64)}, source / "model.safetensors")


@pytest.mark.parametrize(
    "damage",
    [
        _no_weights,
        _torn_weights,
        _no_config,
        _quantized_config,
        _index_pointing_outside,
        _index_of_nonsense,
        _no_decoder_layers,
    ],
    ids=lambda f: f.__name__.strip("_"),
)
def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path, damage: Any) -> None:
    source = _checkpoint(tmp_path / "source")
    damage(source)
    with pytest.raises(BadCheckpoint):
        quantize(source, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]


def test_progress_names_each_layer_and_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    source = _checkpoint(tmp_path / "source")
    lines: list[str] = []
    reports: list[Report] = [quantize(source, tmp_path / name, progress=lines.append) for name in "ab"]
    assert reports[0] == reports[1]
    assert sum(LAYER in line for line in lines) == 2


@pytest.mark.parametrize(
    ("name", "packed"),
    [
        ("model.layers.3.mlp.down_proj.weight", True),
        ("model.layers.3.mlp.gate.weight", False),
        ("model.visual.layers.3.mlp.down_proj.weight", False),
        ("multi_modal_proj.weight", False),
    ],
)
def test_only_projections_of_decoder_layers_are_packed(name: str, packed: bool) -> None:
    assert is_quantizable(name, (64, 64)) is packed
