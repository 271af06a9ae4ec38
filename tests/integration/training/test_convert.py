"""DoRA and large LoRA become plain LoRA: the nearest of its rank, exact where it can be, and servable."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file

from adapters.checks import BaseModules, check
from adapters.limits import Limits
from tests.engines import tiny_adapter
from training.base import PATH as BASE
from training.convert import convert
from training.errors import CannotConvert, OutputExists

pytestmark = pytest.mark.slow
pytest.importorskip("peft")
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
Matrix = npt.NDArray[np.float64]


def trained(folder: Path, **config: Any) -> Path:
    """An adapter that PEFT made, with a B, and a magnitude if it is DoRA, that are not what they start as."""
    import torch
    from peft import LoraConfig, get_peft_model

    from training.probe import model as models

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, _ = models.load(BASE)
    shape = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    adapted = get_peft_model(model, LoraConfig(**{**shape, **config}))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name or "embedding_B" in name:
            parameter.data = torch.randn_like(parameter) * 0.05
        if "magnitude" in name:
            parameter.data *= 1 + 0.02 * torch.randn_like(parameter)
    adapted.save_pretrained(str(folder))
    return folder


def changes(folder: Path) -> dict[str, Matrix]:
    """scaling · B·A of each module, written down in full."""
    config = json.loads((folder / CONFIG).read_text())
    scaling = config["lora_alpha"] / config["r"]
    tensors = load_file(folder / WEIGHTS)
    names = {key.split(".lora_")[0] for key in tensors}
    return {
        name: scaling
        * tensors[f"{name}.lora_B.weight"].astype(np.float64)
        @ tensors[f"{name}.lora_A.weight"].astype(np.float64)
        for name in names
    }


def servable(folder: Path, rank: int) -> None:
    report = check(folder, BaseModules.read(BASE), Limits(rank_max=256))
    assert report.rank == rank


def test_a_dora_adapter_becomes_the_same_lora_at_full_rank_and_a_near_one_below(tmp_path: Path) -> None:
    dora = trained(tmp_path / "dora", use_dora=True)
    whole = convert(dora, tmp_path / "whole", base=BASE, rank=192)
    assert whole.logprob_most < 1e-3 < 0.1 < whole.effect
    assert whole.loss_total < 1e-5
    servable(tmp_path / "whole", 192)
    less = convert(dora, tmp_path / "less", base=BASE, rank=64)
    least = convert(dora, tmp_path / "least", base=BASE, rank=8)
    assert whole.loss_total < less.loss_total < least.loss_total < 1
    assert whole.logprob_mean < less.logprob_mean < least.logprob_mean < least.effect
    assert len(least.loss) == 8
    servable(tmp_path / "least", 8)


def test_a_lower_rank_is_the_nearest_there_is(tmp_path: Path) -> None:
    source = tiny_adapter(tmp_path / "a", rank=8, scale=0.1)
    done = convert(source, tmp_path / "b", base=BASE, rank=3)
    before, after = changes(source), changes(tmp_path / "b")
    assert before.keys() == after.keys()
    for name, whole in before.items():
        u, values, v = np.linalg.svd(whole, full_matrices=False)
        np.testing.assert_allclose(after[name], (u[:, :3] * values[:3]) @ v[:3], atol=1e-5)
        lost = float(np.sqrt((values[3:] ** 2).sum() / (values**2).sum()))
        assert done.loss[name.removeprefix("base_model.model.")] == pytest.approx(lost, rel=1e-4)
    servable(tmp_path / "b", 3)


def test_scalings_and_patterns_are_folded_in_without_loss(tmp_path: Path) -> None:
    patterns = {"rank_pattern": {"down_proj": 2}, "alpha_pattern": {"layers.1.self_attn.q_proj": 32}}
    source = trained(tmp_path / "a", use_rslora=True, r=6, **patterns)
    done = convert(source, tmp_path / "b", base=BASE, rank=16)
    config = json.loads((tmp_path / "b" / CONFIG).read_text())
    assert (config["r"], config["lora_alpha"]) == (6, 6)
    assert not config.get("use_rslora")
    assert done.loss_total < 1e-6
    assert done.logprob_most < 1e-3 < done.effect
    servable(tmp_path / "b", 6)


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
@pytest.mark.parametrize("dora", [False, True])
def test_an_adapted_embedding_is_converted_like_the_rest(tmp_path: Path, dora: bool) -> None:
    source = trained(tmp_path / "a", target_modules=["embed_tokens", "v_proj"], use_dora=dora)
    done = convert(source, tmp_path / "b", base=BASE, rank=192)
    assert done.logprob_most < 1e-3 < done.effect


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    source = tiny_adapter(tmp_path / "a")
    (tmp_path / "b").mkdir()
    with pytest.raises(OutputExists):
        convert(source, tmp_path / "b", base=BASE, rank=3)


def spoilt(kind: str, folder: Path) -> Path:
    tiny_adapter(folder)
    config = json.loads((folder / CONFIG).read_text())
    tensors = load_file(folder / WEIGHTS)
    if kind == "not JSON":
        (folder / CONFIG).write_text("{")
        return folder
    if kind == "weights cut short":
        (folder / WEIGHTS).write_bytes(b"12345678")
        return folder
    if kind == "another method":
        config["peft_type"] = "VERA"
    elif kind == "a start that changed the base":
        config["init_lora_weights"] = "pissa"
    elif kind == "half a pair":
        tensors.pop(min(tensors))
    elif kind == "a strange tensor":
        tensors["base_model.model.lm_head.bias"] = np.ones(3, np.float32)
    elif kind == "DoRA without magnitudes":
        config["use_dora"] = True
    elif kind == "another base":
        tensors = {key.replace("layers.0", "layers.99"): tensor for key, tensor in tensors.items()}
    elif kind == "no tensors":
        tensors = {}
    (folder / CONFIG).write_text(json.dumps(config))
    save_file(tensors, folder / WEIGHTS)
    return folder


@pytest.mark.parametrize(
    "kind",
    [
        "not JSON",
        "weights cut short",
        "another method",
        "a start that changed the base",
        "half a pair",
        "a strange tensor",
        "DoRA without magnitudes",
        "another base",
        "no tensors",
    ],
)
def test_what_has_no_plain_form_is_refused_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    source = spoilt(kind, tmp_path / "a")
    with pytest.raises(CannotConvert):
        convert(source, tmp_path / "b", base=BASE, rank=3)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_rank_or_a_form_that_is_none_is_refused(tmp_path: Path) -> None:
    source = tiny_adapter(tmp_path / "a")
    with pytest.raises(CannotConvert, match="rank of 0"):
        convert(source, tmp_path / "b", base=BASE, rank=0)
    with pytest.raises(CannotConvert, match="'vera'"):
        convert(source, tmp_path / "b", base=BASE, rank=3, to="vera")  # type: ignore[arg-type]
    shutil.rmtree(source)
    with pytest.raises(CannotConvert, match="cannot be read"):
        convert(source, tmp_path / "b", base=BASE, rank=3)
