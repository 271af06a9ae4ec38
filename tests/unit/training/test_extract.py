"""What whole weights learnt leaves as the nearest LoRA, and says what it lost."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from training.errors import CannotConvert, OutputExists
from training.model import open_weights
from training.model_extract import extract, weights_of

torch: Any = pytest.importorskip("torch")
safetensors_torch: Any = pytest.importorskip("safetensors.torch")

pytestmark = pytest.mark.slow


def model(layers: int = 2) -> Any:
    torch.manual_seed(0)
    parts = [torch.nn.ModuleDict({name: torch.nn.Linear(24, 20, bias=False) for name in "qkvo"}) for _ in range(layers)]
    return torch.nn.ModuleDict(
        {"layers": torch.nn.ModuleList(parts), "lm_head": torch.nn.Linear(24, 9), "norm": torch.nn.LayerNorm(24)}
    )


def test_full_opens_every_matrix_of_the_layers_and_half_opens_half_of_each() -> None:
    whole = model()
    assert len(open_weights(whole, "full")) == 8
    assert {name for name, part in whole.named_parameters() if part.requires_grad} == {
        f"layers.{at}.{name}.weight" for at in range(2) for name in "qkvo"
    }
    half = open_weights(model(), "half")
    assert sorted(name.split(".")[1] for name in half) == ["0", "0", "1", "1"]
    assert {name.split(".")[2] for name in half} == set("qkvo")


def moved(rank: int) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    whole = model()
    before = weights_of(whole, open_weights(whole, "full"))
    changes = {}
    with torch.no_grad():
        for name, part in whole.named_modules():
            if name in before:
                changes[name] = torch.randn(20, rank) @ torch.randn(rank, 24)
                part.weight += changes[name]
    return whole, before, changes


def test_a_change_of_low_rank_leaves_without_loss(tmp_path: Path) -> None:
    whole, before, changes = moved(rank=3)
    done = extract(whole, before, tmp_path / "out", base_name="tidewell", rank=4)
    assert done.loss_total < 1e-5
    tensors = safetensors_torch.load_file(tmp_path / "out" / "adapter_model.safetensors")
    fields = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (fields["r"], fields["lora_alpha"], fields["base_model_name_or_path"]) == (4, 4, "tidewell")
    for name, change in changes.items():
        key = f"base_model.model.{name}.lora_"
        got = tensors[f"{key}B.weight"] @ tensors[f"{key}A.weight"]
        assert float((got - change).norm() / change.norm()) < 1e-4


def test_what_is_cut_is_said(tmp_path: Path) -> None:
    whole, before, changes = moved(rank=6)
    done = extract(whole, before, tmp_path / "out", base_name="tidewell", rank=2)
    name = next(iter(changes))
    values = torch.linalg.svdvals(changes[name].double()).square()
    assert done.loss[name] == pytest.approx(math.sqrt(float(values[2:].sum() / values.sum())), rel=1e-3)
    assert min(done.loss.values()) <= done.loss_total <= max(done.loss.values())


def test_nothing_learnt_and_no_numbers_are_refused(tmp_path: Path) -> None:
    whole = model()
    before = weights_of(whole, open_weights(whole, "full"))
    with pytest.raises(CannotConvert, match="no weight changed"):
        extract(whole, before, tmp_path / "out", base_name="x", rank=2)
    changed, before, _ = moved(rank=2)
    with pytest.raises(CannotConvert, match="a rank of at most 20"):
        extract(changed, before, tmp_path / "out", base_name="x", rank=64)
    with torch.no_grad():
        changed["layers"][0]["q"].weight[0, 0] = math.nan
    with pytest.raises(CannotConvert, match="not finite"):
        extract(changed, before, tmp_path / "out", base_name="x", rank=2)
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputExists):
        extract(changed, before, tmp_path / "out", base_name="x", rank=2)
